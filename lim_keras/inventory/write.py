"""Write an inventory as GeoPackage, GeoJSON or GeoParquet."""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import geopandas
import pyogrio  # type: ignore[import-untyped]

from lim_keras.errors import DataError
from lim_keras.inventory.landslides import Inventory
from lim_keras.inventory.style import qml, store_style

# GeoPackages note when they were changed. A fixed time makes the same inventory the same file, byte by byte.
_TIME = "2000-01-01T00:00:00.000Z"


def write_inventory(inventory: Inventory, path: Path, *, layer: str = "landslides") -> Path:
    """Write an inventory in the format of the name's ending, beside its place first, then renamed.

    The same inventory always gives the same bytes.

    Args:
        inventory: of `lim_keras.inventory.polygonise`; one without landslides is written too.
        path: .gpkg, with a style that QGIS opens it with; .geojson, in longitude and latitude as RFC 7946 asks for
            (in pixels where the scene has no CRS), whose columns are unknown when it is empty; or .parquet, GeoParquet,
            which needs the extra `lim-keras[parquet]`.
        layer: name of the table in a GeoPackage, and of the collection in GeoJSON.

    Raises:
        DataError: another ending, the file cannot be written, or pyarrow is not installed.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}.")
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
    try:
        write(inventory, beside, layer)
        beside.replace(path)
    except ImportError as error:
        raise DataError(
            f"{path}: GeoParquet needs pyarrow, which is not installed. Install the extra "
            "(`pip install lim-keras[parquet]`), or write .gpkg or .geojson."
        ) from error
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, sqlite3.Error, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error}). Make room or mend the folder.") from error
    finally:
        for left in (beside, beside.with_name(f"{beside.name}-journal")):
            with suppress(OSError):
                left.unlink()
    return path


def _write_geopackage(inventory: Inventory, path: Path, layer: str) -> None:
    frame = inventory.frame
    with _fixed_time():
        # Nothing here needs a newer one, of which the GDAL of older installations of QGIS warns.
        _write(frame, path, layer, driver="GPKG", VERSION="1.2")
    by_probability = not frame["probability_mean"].isna().any()
    with closing(sqlite3.connect(path)) as database, database:
        store_style(database, layer, qml(by_probability), _TIME)


def _write_geojson(inventory: Inventory, path: Path, layer: str) -> None:
    rfc = "YES" if inventory.crs else "NO"
    _write(inventory.frame, path, layer, driver="GeoJSON", RFC7946=rfc, SIGNIFICANT_FIGURES="10")


def _write_parquet(inventory: Inventory, path: Path, layer: str) -> None:
    inventory.frame.to_parquet(path, index=False)


def _write(frame: geopandas.GeoDataFrame, path: Path, layer: str, **options: str) -> None:
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(frame, path, layer=layer, geometry_type="Polygon", **options)


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
