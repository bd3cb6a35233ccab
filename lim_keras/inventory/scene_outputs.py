"""Summary and STAC item of a mapped scene."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from lim_keras import __version__
from lim_keras.bundle.info import STAC_FILE, STAC_VERSION, BundleInfo
from lim_keras.inventory.landslides import Inventory
from lim_keras.inventory.options import PredictOptions, settings
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.writer import Counts


def summarise(
    scene: Path,
    info: RasterInfo,
    model: BundleInfo,
    options: PredictOptions,
    threshold: float,
    counts: Counts,
    inventory: Inventory,
    windows: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Counts, areas, settings, versions and times, ready for JSON. Unknown areas (no ground sample distance): null."""
    frame = inventory.frame
    area = float(frame["area_m2"].sum(skipna=False)) if len(frame) else 0.0
    pixel_m2 = None if info.gsd_m is None else info.gsd_m**2
    return {
        "scene": str(scene),
        "bundle": {"name": model.name, "config_hash": model.config_hash, "folds": model.folds},
        "settings": {**settings(options), "threshold": threshold},
        "landslides": len(frame),
        **_left_out(inventory),
        "landslide_area_m2": None if math.isnan(area) else area,
        "landslide_pixels": counts.landslide,
        "valid_pixels": counts.valid,
        "pixels": counts.all,
        "valid_area_m2": None if pixel_m2 is None else counts.valid * pixel_m2,
        "gsd_m": info.gsd_m,
        "trained_gsd_m": model.gsd_m,
        "windows": dict(windows),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "megapixels_per_second": round(counts.valid / 1e6 / max(seconds["predict"], 1e-9), 3),
        "versions": {"lim_keras": __version__, **model.versions},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _left_out(inventory: Inventory) -> dict[str, Any]:
    """Which landslides the inventory lacks and why, and what is not known of those that it holds; null: not asked."""
    frame = inventory.frame
    flagged = int(frame["below_min_slope"].sum()) if "below_min_slope" in frame else None
    return {
        "left_out": {
            "below_min_area": inventory.dropped_small,
            "below_min_slope": inventory.dropped_flat,
            "in_filled_holes": inventory.swallowed,
        },
        "flagged_below_min_slope": flagged,
        "unknown_slope": inventory.unknown_slope,
        "share_outside_dem": None if inventory.uncovered is None else round(inventory.uncovered, 4),
    }


_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"

_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"

_POINTS_A_SIDE = 20

_GEOTIFF = "image/tiff; application=geotiff"

_KINDS = {
    "probability.tif": ("probability", "Probability of landslide", _GEOTIFF, "data"),
    "landslides.tif": ("landslides", "Landslide mask: 1 landslide, 0 background, 255 no data", _GEOTIFF, "data"),
    "inventory.gpkg": ("inventory", "Landslide polygons", "application/geopackage+sqlite3", "data"),
    "inventory.geojson": ("inventory_geojson", "Landslide polygons", "application/geo+json", "data"),
    "inventory.parquet": ("inventory_parquet", "Landslide polygons", "application/vnd.apache.parquet", "data"),
    "inventory.qml": ("inventory_style", "QGIS style of the polygons", "text/xml", "metadata"),
    "preview.png": ("preview", "Scene with outlines of the landslides", "image/png", "overview"),
    "summary.json": ("summary", "Counts, settings, versions and times", "application/json", "metadata"),
}


def describe_inventory(
    scene_info: RasterInfo,
    summary: Mapping[str, Any],
    files: Sequence[str | Path],
    *,
    folder: Path | None = None,
    bundle: Path | None = None,
    taken: datetime | None = None,
) -> dict[str, Any]:
    """The item of one scene's inventory, ready for JSON.

    Args:
        scene_info: of the scene as it is on the disk.
        summary: content of `<scene>_summary.json` (`lim_keras.inventory.scene_outputs`).
        files: names or paths of what was written; all of them lie beside the item.
        folder: where the item lies: scene and model are linked relative to it; None: by absolute paths.
        bundle: folder of the model, where known.
        taken: when the scene was taken; None: unknown, and the item bears the time at which the inventory was made.
    """
    footprint = _footprint(scene_info)
    created = str(summary["created"])
    properties = {
        "title": f"Landslides in {scene_info.path.name}",
        "datetime": _utc(taken) if taken else created,
        "created": created,
        "description": f"{summary['landslides']} landslides, mapped by {summary['bundle']['name']}."
        + ("" if taken else " When the scene was taken is not known: `datetime` is the time of mapping."),
        **({} if scene_info.gsd_m is None else {"gsd": scene_info.gsd_m}),
        **_projection(scene_info),
        "processing:software": {name: str(version) for name, version in summary.get("versions", {}).items()},
        **{f"lim_keras:{key}": summary[key] for key in ("landslides", "landslide_area_m2", "valid_area_m2")},
        "lim_keras:bundle": dict(summary["bundle"]),
    }
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [_PROJECTION, _PROCESSING],
        "id": f"{scene_info.path.stem}_landslides",
        "geometry": None if footprint is None else shapely.geometry.mapping(footprint),
        "properties": properties,
        "links": [] if bundle is None else [_model_link(bundle, folder, summary)],
        "assets": _assets(scene_info.path, files, folder),
    }
    return item if footprint is None else item | {"bbox": _bbox(footprint)}


def _utc(moment: datetime) -> str:
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat(timespec="seconds")


def _model_link(bundle: Path, folder: Path | None, summary: Mapping[str, Any]) -> dict[str, Any]:
    title = f"Model {summary['bundle']['name']}"
    return {
        "rel": "derived_from",
        "href": _href(bundle / STAC_FILE, folder),
        "type": "application/geo+json",
        "title": title,
    }


def _assets(scene: Path, files: Sequence[str | Path], folder: Path | None) -> dict[str, Any]:
    assets = {"scene": {"href": _href(scene, folder), "title": "The scene", "roles": ["source"]}}
    for name in (Path(file).name for file in files):
        ending = name.removeprefix(f"{scene.stem}_")
        key, title, kind, role = _KINDS.get(ending, (ending, ending, "application/octet-stream", "data"))
        assets[key] = {"href": f"./{name}", "title": title, "type": kind, "roles": [role]}
    return assets


def _href(path: Path, folder: Path | None) -> str:
    if folder is None:
        return path.resolve().as_posix()
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _projection(info: RasterInfo) -> dict[str, Any]:
    shape = {"proj:shape": [info.height, info.width]}
    if not info.crs or info.transform is None:
        return shape
    crs = CRS.from_user_input(info.crs)
    authority = crs.to_authority(min_confidence=100)
    code: dict[str, Any] = {"proj:code": ":".join(authority)} if authority else {"proj:code": None}
    code |= {} if authority else {"proj:wkt2": crs.to_wkt()}
    return {**code, **shape, "proj:transform": list(info.transform)[:6]}


def _footprint(info: RasterInfo) -> BaseGeometry | None:
    """Outline of the raster, degrees, cut at the antimeridian; None where nobody knows where it lies."""
    if not info.crs or info.transform is None:
        return None
    width, height = info.width, info.height
    ring = shapely.Polygon([(0, 0), (0, height), (width, height), (width, 0)])
    pixels = shapely.get_coordinates(shapely.segmentize(ring, max(width, height) / _POINTS_A_SIDE))
    try:
        to_degrees = Transformer.from_crs(info.crs, "OGC:CRS84", always_xy=True)
        places = (info.place(column, row) for column, row in pixels)
        points = [to_degrees.transform(*place, errcheck=True) for place in places if place]
    except ProjError:
        return None
    if not all(math.isfinite(number) for point in points for number in point):
        return None
    return _cut(points)


def _cut(points: list[tuple[float, float]]) -> BaseGeometry:
    """A polygon of degrees; two where it crosses the antimeridian, as RFC 7946 asks (3.1.9)."""
    longitudes = [x for x, _ in points]
    crosses = max(longitudes) - min(longitudes) > 180
    around = shapely.Polygon([(x + 360 if crosses and x < 0 else x, y) for x, y in points])
    if crosses or max(longitudes) > 180:
        west = around.intersection(shapely.box(-180, -90, 180, 90))
        east = translate(around.intersection(shapely.box(180, -90, 540, 90)), -360)
        parts = [orient(part) for part in (west, east) if part.geom_type == "Polygon" and part.area]
        return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return orient(around)


def _bbox(footprint: BaseGeometry) -> list[float]:
    """West, south, east, north; west > east where the antimeridian lies between (RFC 7946, 5.2)."""
    if footprint.geom_type == "MultiPolygon":
        west, east = footprint.geoms
        return [west.bounds[0], footprint.bounds[1], east.bounds[2], footprint.bounds[3]]
    return list(footprint.bounds)
