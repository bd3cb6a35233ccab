"""Place polygons in the CRS of a scene, and find why they do not lie on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from affine import Affine
from geopandas import GeoSeries
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, full_turn, same_crs
from lim_keras.raster.windows import Box
from lim_keras.vectors.formats import Source

_GEOJSON = (".geojson", ".json", ".geojsonl")
_DEGREES = "EPSG:4326"
_ROUNDING = 1e-9  # of a whole turn


def outline(like: RasterInfo, box: Box | None = None, transform: Affine | None = None) -> Any:
    """Return a box of a scene, by default all of it, as a polygon in its CRS, or placed by another transform."""
    box, transform = box or like.box, transform or Georeference.of(like).transform
    corners = shapely.box(box.left, box.top, box.right, box.bottom)
    return shapely.transform(corners, lambda points: apply(transform, points))


def place_polygons(polygons: GeoSeries, source: Source, like: RasterInfo) -> GeoSeries:
    """Reproject polygons to the CRS of a scene; to its own coordinates if it has no CRS.

    Polygons outside the area in which the CRS of the scene is defined get coordinates that are not finite.

    Args:
        polygons: geometries (n,) of a file.
        source: the file, for its format and for errors.
        like: header of the scene.

    Raises:
        DataError: only the polygons or only the scene has a CRS, or the polygons cannot be reprojected.
    """
    if source.suffix in _GEOJSON and Georeference.of(like).to_degrees is None:
        # GeoJSON cannot say that it has no CRS, or a local one: it is read as longitude and latitude.
        return polygons.set_crs(like.crs or None, allow_override=True)
    if not like.crs:
        if polygons.crs is None:
            return polygons
        raise DataError(
            f"{source.path}: has a CRS ({polygons.crs.name}), but the scene {like.path} has none. Georeference it."
        )
    if polygons.crs is None:
        raise DataError(
            f"{source.path}: has no CRS, but the scene {like.path} is in {like.crs}. Give it one (a Shapefile needs "
            f"its .prj beside it; for coordinates in the CRS of the scene "
            f"{source.assigned(like.crs)})."
        )
    try:
        placed = _joined_at_180(polygons).to_crs(like.crs)
    except ProjError as error:
        raise DataError(
            f"{source.path}: cannot be reprojected from {polygons.crs.name} to {like.crs} ({error}). Give "
            f"polygons in {like.crs}."
        ) from error
    turn = full_turn(like.crs)
    return placed if turn is None else _nearest_turn(placed, like, turn)


def unwrapped(polygons: GeoSeries) -> GeoSeries:
    """Close polygons that are cut or drawn across 180 degrees, so that each covers one range of x."""
    turn = None if polygons.crs is None else full_turn(polygons.crs.to_wkt())
    return polygons if turn is None else _across(_joined_at_180(polygons), turn)


def _joined_at_180(polygons: GeoSeries) -> GeoSeries:
    """Join the parts of polygons that were cut at 180 degrees, as GeoJSON (RFC 7946, 3.1.9) asks for."""
    west, _, east, _ = polygons.bounds.to_numpy().T
    cut = np.flatnonzero((west == -180) & (east == 180) & polygons.crs.is_geographic)
    shapes = polygons.to_numpy().copy()
    for index in cut:
        parts = shapely.get_parts(shapes[index])
        points, owner = shapely.get_coordinates(parts, return_index=True)
        moved = (shapely.bounds(parts)[:, 0] < 0) & (len(parts) > 1)
        points[:, 0] += np.where(moved[owner], 360, 0)
        shapes[index] = shapely.union_all(shapely.set_coordinates(parts, points))
    return GeoSeries(shapes, crs=polygons.crs, index=polygons.index)


def _across(polygons: GeoSeries, turn: float) -> GeoSeries:
    """Close polygons whose x jumps at 180 degrees; one that is a whole turn wide is left as it is."""
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    west, _, east, _ = polygons.bounds.to_numpy().T
    width = east - west
    jumps = (width > turn / 2) & (width < turn * (1 - _ROUNDING))  # 179 and -179 are two degrees apart
    points[:, 0] = np.where(jumps[owner], points[:, 0] % turn, points[:, 0])
    shapes = shapely.set_coordinates(polygons.to_numpy().copy(), points)
    return GeoSeries(shapes, crs=polygons.crs, index=polygons.index)


def _nearest_turn(polygons: GeoSeries, like: RasterInfo, turn: float) -> GeoSeries:
    """Move polygons by whole turns (`full_turn`) to the scene, which may cross 180 degrees or go to 360."""
    placed = _across(polygons, turn)
    points, owner = shapely.get_coordinates(placed, return_index=True)
    west, _, east, _ = placed.bounds.to_numpy().T
    turns = np.nan_to_num(np.rint((outline(like).centroid.x - (west + east) / 2) / turn))
    points[:, 0] += turn * turns[owner]
    shapes = shapely.set_coordinates(placed.to_numpy().copy(), points)
    return GeoSeries(shapes, crs=polygons.crs, index=polygons.index)


def check_place(polygons: GeoSeries, source: Source, like: RasterInfo) -> None:
    """Find out why no polygon lies on a scene.

    Args:
        polygons: geometries in the coordinates of the file, none of which lies on the scene.
        source: the file, for its format and for errors.
        like: header of the scene.

    Raises:
        DataError: the polygons would lie on the scene in another CRS or with another order of axes.
    """
    path = source.path
    stated = "none" if polygons.crs is None else polygons.crs.name
    if source.suffix in _GEOJSON and polygons.crs == _DEGREES:
        stated += " (the default of GeoJSON)"
    if Georeference.of(like).to_degrees is None:
        if not like.crs and _lies_on(polygons, like, None, lambda points: points * (1, -1)):
            raise DataError(f"{path}: expected coordinates (column, -row). Received: (column, row). Negate y.")
        return
    own = str(polygons.crs.to_wkt())
    for crs in dict.fromkeys((own, like.crs, _DEGREES)):
        called = "its CRS" if same_crs(crs, own) else crs
        if called != "its CRS" and _lies_on(polygons, like, crs, lambda points: points):
            raise DataError(
                f"{path}: its CRS is {stated}, but its coordinates lie on the scene in {crs}. Name that CRS "
                f"({source.assigned(crs)})."
            )
        if _lies_on(polygons, like, crs, lambda points: points[:, ::-1]):
            raise DataError(
                f"{path}: its coordinates lie on the scene in {called} with x and y swapped, such as latitude "
                f"before longitude. Swap them (`g = {source.reading}; g.geometry = shapely.transform("
                f'g.geometry, lambda p: p[:, ::-1]){_override(called)}; g.to_file("{source.mended}")`).'
            )
    west, south, east, north = polygons.total_bounds
    if polygons.crs.is_geographic and (max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90):
        raise DataError(
            f"{path}: its CRS is {stated}, but its coordinates are not degrees (x {west:g} to {east:g}, "
            f"y {south:g} to {north:g}). Name their CRS ({source.assigned('EPSG:CODE')})."
        )


def _override(called: str) -> str:
    return "" if called == "its CRS" else f'; g = g.set_crs("{called}", allow_override=True)'


def _lies_on(polygons: GeoSeries, like: RasterInfo, crs: str | None, change: Any) -> bool:
    shapes = GeoSeries(shapely.transform(polygons.to_numpy(), change), crs=crs)
    placed = shapes if crs is None else shapes.to_crs(like.crs)
    placed, area = placed[is_placed(placed)], outline(like)
    return bool((placed.intersects(area) & ~placed.touches(area)).any())


def is_placed(polygons: GeoSeries) -> NDArray[np.bool_]:
    """Return which polygons (n,) have finite coordinates."""
    return np.asarray(np.isfinite(shapely.bounds(polygons.to_numpy())).all(axis=-1))
