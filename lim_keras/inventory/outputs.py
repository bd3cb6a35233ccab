"""Inventory files, QGIS style, summary and STAC item of a mapped scene."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import pystac
import shapely
from pyproj import CRS
from pystac.extensions.projection import ProjectionExtension

from lim_keras import __version__
from lim_keras.bundle.info import STAC_FILE, BundleInfo
from lim_keras.files import write_text
from lim_keras.inventory.antimeridian import bounding_box, footprint
from lim_keras.inventory.landslides import Inventory, InventoryTotals
from lim_keras.inventory.options import PredictOptions, describe_rule, rule_of, settings
from lim_keras.inventory.vector_files import write_frames
from lim_keras.raster.georeference import RasterInfo, mean_pixel_area
from lim_keras.raster.opening import raster_stem
from lim_keras.raster.writer import Counts


def write_inventory(inventory: Inventory, path: str | os.PathLike[str], *, layer: str = "landslides") -> Path:
    """Write an inventory atomically, in the format of the suffix; the same inventory always gives the same bytes.

    An inventory without landslides is written, too; as GeoJSON, it has no columns. GeoJSON is in longitude and latitude
    (RFC 7946), cut at the antimeridian. It is in pixels if the scene has no CRS, and in units of the CRS if that has no
    longitude and latitude. `layer` is the name of the layer in a GeoPackage, and of the collection in GeoJSON.

    Raises:
        DataError: the suffix is not .gpkg, .geojson or .parquet, or the file cannot be written.
    """
    path = Path(path)
    write_frames([inventory.frame], [path], layer=layer)
    return path


def write_style(path: str | os.PathLike[str]) -> Path:
    """Write the QGIS style of inventories: landslides coloured by their mean probability.

    QGIS applies a .qml file to the GeoPackage or GeoJSON of the same name beside it. A style inside a
    GeoPackage would be a second layer for GDAL, and geopandas would warn.
    """
    style = resources.files("lim_keras.inventory").joinpath("landslides.qml")
    return write_text(Path(path), style.read_text(encoding="utf-8"))


_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_POLYGONS = "Landslide polygons"
_MASK = "Landslide mask: 1 landslide, 0 background, 255 no data"

# File ending: key, title, media type and role of the asset.
_ASSETS = {
    "probability.tif": ("probability", "Probability of landslide", pystac.MediaType.GEOTIFF, "data"),
    "landslides.tif": ("landslides", _MASK, pystac.MediaType.GEOTIFF, "data"),
    "familiarity.tif": ("familiarity", "Familiarity of the imagery to the model", pystac.MediaType.GEOTIFF, "data"),
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
    inventory: InventoryTotals,
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect counts, areas, settings, versions and times: the content of `<scene>_summary.json`.

    Areas are None without a ground sample distance. `run` holds "windows", the layout of the windows, and "seconds",
    the duration of "predict" and of other steps.
    """
    area, seconds = inventory.area_m2, run["seconds"]
    pixel_m2 = mean_pixel_area(scene)
    threshold = rule_of(options, model).threshold
    return {
        "scene": str(scene.path),
        "bundle": {"name": model.name, "config_hash": model.config_hash, "folds": model.folds},
        "settings": {**settings(options), "threshold": threshold},
        **describe_rule(options, model),
        "landslides": inventory.landslides,
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


def _left_out(inventory: InventoryTotals) -> dict[str, Any]:
    """Count landslides left out, by reason, and those of unknown slope; None if the option was not given."""
    low = {} if inventory.dropped_low is None else {"below_peak": inventory.dropped_low}
    return {
        "left_out": {
            **low,
            "below_min_area": inventory.dropped_small,
            "below_min_slope": inventory.dropped_flat,
            "in_filled_holes": inventory.swallowed,
        },
        "flagged_below_min_slope": inventory.flagged,
        "unknown_slope": inventory.unknown_slope,
        "share_outside_dem": None if inventory.uncovered is None else round(inventory.uncovered, 4),
    }


def describe_inventory(
    scene: RasterInfo,
    summary: Mapping[str, Any],
    *,
    files: Sequence[str | Path],
    stem: str | None = None,
    folder: Path | None = None,
    bundle: Path | None = None,
) -> dict[str, Any]:
    """Describe the inventory of a scene as a STAC item, in JSON values.

    The item's datetime is the time of mapping, because the image's is unknown. `summary` is the content of
    `<scene>_summary.json`; `files` lie beside the item, and their names begin with `stem`, by default the scene's name.
    Links to scene and model (`bundle`) are relative to `folder`. Without it, the item will lie on another machine, and
    links no local files.
    """
    name, stem, area = PurePath(scene.path), stem or raster_stem(scene.path), footprint(scene)
    created = datetime.fromisoformat(str(summary["created"]))
    item = pystac.Item(
        id=f"{stem}_landslides",
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
            **({"lim_keras:object_rule": summary["object_rule"]} if "object_rule" in summary else {}),
        },
        stac_extensions=[_PROCESSING],
    )
    item.common_metadata.created = created
    if scene.gsd_m is not None:
        item.common_metadata.gsd = scene.gsd_m
    _add_projection(item, scene)
    if folder is not None or isinstance(scene.path, str):
        item.add_asset("scene", pystac.Asset(_href(scene.path, folder), "The scene", roles=["source"]))
    _add_assets(item, files, stem)
    if bundle is not None and folder is not None:
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


def _add_assets(item: pystac.Item, files: Sequence[str | Path], stem: str) -> None:
    for name in (Path(file).name for file in files):
        ending = name.removeprefix(f"{stem}_")
        key, title, kind, role = _ASSETS.get(ending, (ending, ending, "application/octet-stream", "data"))
        item.add_asset(key, pystac.Asset(f"./{name}", title, media_type=kind, roles=[role]))


def _href(path: Path | str, folder: Path | None) -> str:
    """Return a link to a file, relative to a folder; a string is a URL or a GDAL name and stays as it is."""
    if isinstance(path, str) or folder is None:
        return str(path)
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
