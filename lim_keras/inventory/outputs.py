"""Inventory files, QGIS style, summary and STAC item of a mapped scene."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import geopandas
import pyogrio  # type: ignore[import-untyped]
import pystac
import shapely
from pyproj import CRS
from pystac.extensions.projection import ProjectionExtension

from lim_keras import __version__
from lim_keras.bundle.info import STAC_FILE, BundleInfo
from lim_keras.errors import DataError
from lim_keras.files import atomic_file, write_text
from lim_keras.inventory.antimeridian import bounding_box, cut_at_antimeridian, footprint, leaves_world, to_degrees
from lim_keras.inventory.landslides import Inventory, PredictOptions, settings
from lim_keras.inventory.verify import VECTOR_ERRORS, verify_vector
from lim_keras.raster.georeference import RasterInfo, mean_pixel_area
from lim_keras.raster.writer import Counts

_TIME = "2000-01-01T00:00:00.000Z"  # recorded in GeoPackages, so that the same inventory gives the same bytes


def write_inventory(inventory: Inventory, path: str | os.PathLike[str], *, layer: str = "landslides") -> Path:
    """Write an inventory atomically, in the format of the suffix; the same inventory always gives the same bytes.

    An inventory without landslides is written, too; as GeoJSON, it has no columns. GeoJSON is in longitude and latitude
    (RFC 7946), cut at the antimeridian. It is in pixels if the scene has no CRS, and in units of the CRS if that has no
    longitude and latitude. `layer` is the name of the layer in a GeoPackage, and of the
    collection in GeoJSON.

    Raises:
        DataError: the suffix is not .gpkg, .geojson or .parquet, the file cannot be written, or pyarrow is missing.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}.")
    try:
        with atomic_file(path, lambda draft: verify_vector(draft, len(inventory.frame))) as draft:
            write(inventory, draft, layer)
    except ImportError as error:
        raise DataError(
            f"{path}: GeoParquet needs pyarrow, which is not installed. Install the extra "
            "(`pip install lim-keras[parquet]`), or write .gpkg or .geojson."
        ) from error
    except VECTOR_ERRORS as error:
        raise DataError(f"{path}: cannot be written ({error}). Free disk space, or give another folder.") from error
    return path


def write_style(path: str | os.PathLike[str]) -> Path:
    """Write the QGIS style of inventories: landslides coloured by their mean probability.

    QGIS applies a .qml file to the GeoPackage or GeoJSON of the same name beside it. A style inside a
    GeoPackage would be a second layer for GDAL, and geopandas would warn.
    """
    style = resources.files("lim_keras.inventory").joinpath("landslides.qml")
    return write_text(Path(path), style.read_text(encoding="utf-8"))


def _write_geopackage(inventory: Inventory, path: Path, layer: str) -> None:
    with _fixed_time():
        # GDAL of older QGIS versions warns about newer versions of the format.
        _write(inventory.frame, path, layer, driver="GPKG", VERSION="1.2")


def _write_geojson(inventory: Inventory, path: Path, layer: str) -> None:
    frame, degrees = inventory.frame, to_degrees(inventory.frame.geometry.to_numpy(), inventory.crs)
    rfc, kind = "YES", "Polygon"
    if degrees is None:
        rfc, frame = "NO", frame.set_crs(None, allow_override=True)
    elif (beyond := leaves_world(degrees)).any():
        kind, frame = "Unknown", frame.set_geometry(cut_at_antimeridian(degrees, beyond), crs="OGC:CRS84")
    _write(frame, path, layer, kind, driver="GeoJSON", RFC7946=rfc, SIGNIFICANT_FIGURES="10")


def _write_parquet(inventory: Inventory, path: Path, layer: str) -> None:
    inventory.frame.to_parquet(path, index=False)


def _write(frame: geopandas.GeoDataFrame, path: Path, layer: str, kind: str = "Polygon", **options: str) -> None:
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(frame, path, layer=layer, geometry_type=kind, **options)


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

_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_POLYGONS = "Landslide polygons"
_MASK = "Landslide mask: 1 landslide, 0 background, 255 no data"

# File ending: key, title, media type and role of the asset.
_ASSETS = {
    "probability.tif": ("probability", "Probability of landslide", pystac.MediaType.GEOTIFF, "data"),
    "landslides.tif": ("landslides", _MASK, pystac.MediaType.GEOTIFF, "data"),
    "inventory.gpkg": ("inventory", _POLYGONS, pystac.MediaType.GEOPACKAGE, "data"),
    "inventory.geojson": ("inventory_geojson", _POLYGONS, pystac.MediaType.GEOJSON, "data"),
    "inventory.parquet": ("inventory_parquet", _POLYGONS, "application/vnd.apache.parquet", "data"),
    "inventory.qml": ("inventory_style", "QGIS style of the polygons", pystac.MediaType.XML, "metadata"),
    "preview.png": ("preview", "Scene with outlines of the landslides", pystac.MediaType.PNG, "overview"),
    "summary.json": ("summary", "Counts, settings, versions and times", pystac.MediaType.JSON, "metadata"),
}


def summarise(
    scene: RasterInfo,
    model: BundleInfo,
    *,
    options: PredictOptions,
    counts: Counts,
    inventory: Inventory,
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect counts, areas, settings, versions and times: the content of `<scene>_summary.json`.

    Areas are None without a ground sample distance. `run` holds "windows", the layout of the windows, and "seconds",
    the duration of "predict" and of other steps.
    """
    frame, seconds = inventory.frame, run["seconds"]
    pixel_m2 = mean_pixel_area(scene)
    area = float(frame["area_m2"].sum(skipna=False)) if len(frame) else 0.0
    threshold = model.threshold if options.threshold is None else options.threshold
    return {
        "scene": str(scene.path),
        "bundle": {"name": model.name, "config_hash": model.config_hash, "folds": model.folds},
        "settings": {**settings(options), "threshold": threshold},
        "landslides": len(frame),
        **_left_out(inventory),
        "landslide_area_m2": None if math.isnan(area) else area,
        "landslide_pixels": counts.landslide,
        "valid_pixels": counts.valid,
        "pixels": counts.all,
        "valid_area_m2": None if pixel_m2 is None else counts.valid * pixel_m2,
        "gsd_m": scene.gsd_m,
        "trained_gsd_m": model.gsd_m,
        "windows": dict(run["windows"]),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "megapixels_per_second": round(counts.valid / 1e6 / max(seconds["predict"], 1e-9), 3),
        "versions": {"lim_keras": __version__, **model.versions},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _left_out(inventory: Inventory) -> dict[str, Any]:
    """Count landslides left out, by reason, and those of unknown slope; None if the option was not given."""
    frame = inventory.frame
    return {
        "left_out": {
            "below_min_area": inventory.dropped_small,
            "below_min_slope": inventory.dropped_flat,
            "in_filled_holes": inventory.swallowed,
        },
        "flagged_below_min_slope": int(frame["below_min_slope"].sum()) if "below_min_slope" in frame else None,
        "unknown_slope": inventory.unknown_slope,
        "share_outside_dem": None if inventory.uncovered is None else round(inventory.uncovered, 4),
    }


def describe_inventory(
    scene: RasterInfo,
    summary: Mapping[str, Any],
    *,
    files: Sequence[str | Path],
    folder: Path | None = None,
    bundle: Path | None = None,
) -> dict[str, Any]:
    """Describe the inventory of a scene as a STAC item, in JSON values.

    The item's datetime is the time of mapping, because the image's is unknown. `summary` is the content of
    `<scene>_summary.json`; `files` lie beside the item. Links to scene and model (`bundle`) are relative to `folder`,
    or absolute without it.
    """
    name, area = PurePath(scene.path), footprint(scene)
    created = datetime.fromisoformat(str(summary["created"]))
    item = pystac.Item(
        id=f"{name.stem}_landslides",
        geometry=None if area is None else shapely.geometry.mapping(area),
        bbox=None if area is None else bounding_box(area),
        datetime=created,
        properties={
            "title": f"Landslides in {name.name}",
            "description": f"{summary['landslides']} landslides, mapped by {summary['bundle']['name']}. When the scene "
            "was taken is not known: `datetime` is the time of mapping.",
            "processing:software": {name: str(version) for name, version in summary.get("versions", {}).items()},
            **{f"lim_keras:{key}": summary[key] for key in ("landslides", "landslide_area_m2", "valid_area_m2")},
            "lim_keras:bundle": dict(summary["bundle"]),
        },
        stac_extensions=[_PROCESSING],
    )
    item.common_metadata.created = created
    if scene.gsd_m is not None:
        item.common_metadata.gsd = scene.gsd_m
    _add_projection(item, scene)
    _add_assets(item, scene, files, folder)
    if bundle is not None:
        title = f"Model {summary['bundle']['name']}"
        href = _href(bundle / STAC_FILE, folder)
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, pystac.MediaType.GEOJSON, title))
    content: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    return content


def _add_projection(item: pystac.Item, scene: RasterInfo) -> None:
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.shape = [scene.height, scene.width]
    if scene.crs and scene.transform is not None:
        crs = CRS.from_user_input(scene.crs)
        authority = crs.to_authority(min_confidence=100)
        projection.transform = list(scene.transform)[:6]
        projection.code = ":".join(authority) if authority else None
        projection.wkt2 = None if authority else crs.to_wkt()


def _add_assets(item: pystac.Item, scene: RasterInfo, files: Sequence[str | Path], folder: Path | None) -> None:
    item.add_asset("scene", pystac.Asset(_href(scene.path, folder), "The scene", roles=["source"]))
    for name in (Path(file).name for file in files):
        ending = name.removeprefix(f"{PurePath(scene.path).stem}_")
        key, title, kind, role = _ASSETS.get(ending, (ending, ending, "application/octet-stream", "data"))
        item.add_asset(key, pystac.Asset(f"./{name}", title, media_type=kind, roles=[role]))


def _href(path: Path | str, folder: Path | None) -> str:
    """Return a link to a file, relative to a folder; a string is a URL or a GDAL name and stays as it is."""
    if isinstance(path, str) or folder is None:
        return path if isinstance(path, str) else path.resolve().as_posix()
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
