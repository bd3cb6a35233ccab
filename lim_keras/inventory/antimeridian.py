"""Polygons in longitude and latitude, cut at the antimeridian (RFC 7946, section 3.1.9)."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from lim_keras.inventory.polygons import Polygons
from lim_keras.raster.georeference import Floats, Georeference, RasterInfo

_POINTS_PER_SIDE = 20
_ROUNDING = 1e-9  # degrees
_WORLD = shapely.box(-180, -90, 180, 90)


def footprint(scene: RasterInfo) -> BaseGeometry | None:
    """Return the outline of a raster in degrees, cut at the antimeridian; None where its position is unknown."""
    ground = Georeference.of(scene)
    if ground.to_degrees is None:
        return None
    width, height = scene.width, scene.height
    ring = shapely.Polygon([(0, 0), (0, height), (width, height), (width, 0)])
    outline = shapely.segmentize(ring, max(width, height) / _POINTS_PER_SIDE)
    degrees = shapely.transform(outline, ground.degrees)
    return _cut(degrees) if np.isfinite(shapely.get_coordinates(degrees)).all() else None


def to_degrees(polygons: Polygons, crs: str) -> Polygons | None:
    """Convert polygons (n,) in a CRS to degrees; None if not all of them have a longitude and latitude."""
    ground = Georeference(Affine.identity(), crs, None)
    if ground.to_degrees is None:
        return None
    degrees = np.asarray(shapely.transform(polygons, ground.degrees), dtype=object)
    return degrees if np.isfinite(shapely.get_coordinates(degrees)).all() else None


def needs_cut(degrees: Polygons) -> NDArray[np.bool_]:
    """Return which polygons (n,) in degrees lie beyond 180 degrees, cross the antimeridian, or enclose a pole."""
    west, _, east, _ = shapely.bounds(degrees).reshape(-1, 4).T
    return np.asarray((east - west > 180) | (west < -180) | (east > 180))


def cut_at_antimeridian(degrees: Polygons, which: NDArray[np.bool_]) -> Polygons:
    """Cut the polygons (n,) for which `which` is True, and return all polygons within 180 degrees."""
    parts = degrees.copy()
    for index in np.flatnonzero(which):
        parts[index] = _cut(degrees[index])
    return parts


def bounding_box(area: BaseGeometry) -> list[float]:
    """Return west, south, east, north of a footprint; west > east across the antimeridian (RFC 7946, 5.2)."""
    west, south, east, north = area.bounds
    parts = shapely.bounds(shapely.get_parts(area))
    if west > -180 or east < 180 or len(parts) == 1:
        return [west, south, east, north]
    first = float(parts[parts[:, 2] >= 180, 0].min())
    last = float(parts[parts[:, 0] <= -180, 2].max())
    return [-180.0, south, 180.0, north] if last >= first - _ROUNDING else [first, south, last, north]


def _cut(polygon: Any) -> BaseGeometry:
    """Cut a polygon in degrees at the antimeridian; its longitudes may jump there, or lie beyond 180 degrees."""
    around = shapely.Polygon(_unwrapped(shapely.get_coordinates(polygon.exterior)))
    for hole in polygon.interiors:
        inside = shapely.Polygon(_unwrapped(shapely.get_coordinates(hole)))
        for turn in (-360, 0, 360):
            around = around.difference(translate(inside, turn))
    around = shapely.make_valid(around)
    west, _, east, _ = around.bounds
    turns = range(int(np.ceil((west - 180) / 360)), int(np.floor((east + 180) / 360)) + 1)
    # The union joins the parts of a ring around a pole, which touch at the start of the ring.
    whole = shapely.union_all([translate(around, -360 * turn).intersection(_WORLD) for turn in turns])
    parts = [orient(part) for part in shapely.get_parts(whole) if part.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _unwrapped(ring: Floats) -> Floats:
    """Remove the jumps of longitude from a closed ring (n, 2) in degrees; one around a pole gets an edge along it."""
    longitudes = np.unwrap(ring[:, 0], period=360)
    longitudes -= 360 * np.round(longitudes.mean() / 360)
    points = np.stack([longitudes, ring[:, 1]], axis=-1)
    if abs(longitudes[-1] - longitudes[0]) < 180:
        return points
    pole = np.copysign(90.0, ring[:, 1].mean())
    return np.concatenate([points, [(longitudes[-1], pole), (longitudes[0], pole)]])
