"""Write an inventory as GeoPackage, GeoJSON or GeoParquet, and its QGIS style."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pyogrio  # type: ignore[import-untyped]

from lim_keras.errors import DataError
from lim_keras.files import atomic_file, write_text
from lim_keras.inventory.landslides import Inventory

# GeoPackages record their last change. A fixed time gives the same inventory the same bytes.
_TIME = "2000-01-01T00:00:00.000Z"


def write_inventory(inventory: Inventory, path: str | os.PathLike[str], *, layer: str = "landslides") -> Path:
    """Write an inventory atomically, in the format of the file name's suffix.

    The same inventory always gives the same bytes. An inventory without landslides is written, too.

    Args:
        inventory: result of `make_inventory`.
        path: .gpkg; .geojson, in longitude and latitude as RFC 7946 demands (in pixels where the scene has no CRS);
            or .parquet (GeoParquet), which needs the extra `lim-keras[parquet]`. An empty GeoJSON has no columns.
        layer: name of the layer in a GeoPackage, and of the collection in GeoJSON.

    Returns:
        The path.

    Raises:
        DataError: unknown suffix, the file cannot be written, or pyarrow is not installed.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}.")
    try:
        with atomic_file(path) as draft:
            write(inventory, draft, layer)
    except ImportError as error:
        raise DataError(
            f"{path}: GeoParquet needs pyarrow, which is not installed. Install the extra "
            "(`pip install lim-keras[parquet]`), or write .gpkg or .geojson."
        ) from error
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(f"{path}: cannot be written ({error}). Free disk space, or give another folder.") from error
    return path


def write_style(path: str | os.PathLike[str]) -> Path:
    """Write the QGIS style of inventories: landslides coloured by their mean probability.

    QGIS applies a .qml file to the GeoPackage or GeoJSON beside it that has the same name. A style stored inside a
    GeoPackage is a second layer to GDAL, about which geopandas warns at every reading.

    Raises:
        DataError: the file cannot be written.
    """
    style = resources.files("lim_keras.inventory").joinpath("landslides.qml")
    return write_text(Path(path), style.read_text(encoding="utf-8"))


def _write_geopackage(inventory: Inventory, path: Path, layer: str) -> None:
    with _fixed_time():
        # Newer versions of the format make the GDAL of older QGIS installations warn.
        _write(inventory, path, layer, driver="GPKG", VERSION="1.2")


def _write_geojson(inventory: Inventory, path: Path, layer: str) -> None:
    rfc = "YES" if inventory.crs else "NO"
    _write(inventory, path, layer, driver="GeoJSON", RFC7946=rfc, SIGNIFICANT_FIGURES="10")


def _write_parquet(inventory: Inventory, path: Path, layer: str) -> None:
    inventory.frame.to_parquet(path, index=False)


def _write(inventory: Inventory, path: Path, layer: str, **options: str) -> None:
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(inventory.frame, path, layer=layer, geometry_type="Polygon", **options)


@contextmanager
def _fixed_time() -> Iterator[None]:
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _TIME})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


_WRITERS: dict[str, Callable[[Inventory, Path, str], None]] = {
    ".gpkg": _write_geopackage,
    ".geojson": _write_geojson,
    ".parquet": _write_parquet,
}
