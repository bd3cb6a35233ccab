"""Area, position and shape of outlines."""

from __future__ import annotations

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from lim_keras.inventory.polygons import Polygons
from lim_keras.raster.georeference import ELLIPSOID, Floats, Georeference, metres_per_degree


def measure(outlines: Polygons, ground: Georeference) -> dict[str, Floats]:
    """Columns of an inventory that come from the outlines, (n,) each.

    outlines: in pixels.

    Returns:
        area_m2: without holes. perimeter_m: of all rings. longitude, latitude: of the centroid, degrees, WGS 84.
        compactness: 4 pi area / perimeter^2 (Polsby and Popper 1991), 1 for a circle, pi / 4 for a square; outlines
        along pixels are longer than what they outline, up to 4 / pi. elongation: long over short side of the smallest
        rectangle around the outline, turned as fits. NaN where there is no CRS or, for lengths and areas, neither a
        CRS nor a ground sample distance.
    """
    area, perimeter = _sizes(outlines, ground)
    plane, origin, degree = _local_planes(outlines, ground)
    place = origin + _centroids(plane) / degree
    if ground.to_degrees is None and ground.gsd_m is None:  # a ratio needs no unit
        compactness = _compactness(shapely.area(plane), shapely.length(plane))
    else:
        compactness = _compactness(area, perimeter)
    return {
        "area_m2": area,
        "perimeter_m": perimeter,
        "longitude": (place[:, 0] + 180) % 360 - 180,
        "latitude": place[:, 1],
        "compactness": compactness,
        "elongation": _elongation(plane),
    }


def polygon_areas_m2(polygons: geopandas.GeoSeries, gsd_m: float | None = None) -> Floats:
    """Areas (n,) of single polygons in square metres, without their holes.

    polygons: in any CRS. Without one, or in one that has no place on the Earth, areas are planar, times gsd_m ** 2:
    metres of one unit of the coordinates. NaN where that is None.
    """
    crs = "" if polygons.crs is None else polygons.crs.to_wkt()
    return _sizes(polygons.to_numpy(), Georeference(Affine.identity(), crs, gsd_m))[0]


def _sizes(outlines: Polygons, ground: Georeference) -> tuple[Floats, Floats]:
    """Area (n,) without holes, m2, and length (n,) of all rings, m, of outlines in pixels."""
    rings, owner = shapely.get_rings(outlines, return_index=True)
    areas, lengths = ring_sizes(rings, ground)
    hole = np.zeros(len(rings), np.bool_)
    hole[1:] = owner[1:] == owner[:-1]
    area, perimeter = np.zeros((2, len(outlines)))
    np.add.at(area, owner, np.where(hole, -areas, areas))
    np.add.at(perimeter, owner, lengths)
    return area, perimeter


def ring_sizes(rings: NDArray[np.object_], ground: Georeference) -> tuple[Floats, Floats]:
    """Area (m2, positive) and length (m) of rings in pixels; NaN where the scene has neither a CRS nor a gsd."""
    points, ring = shapely.get_coordinates(rings, return_index=True)
    if ground.to_degrees is None:
        placed = shapely.transform(rings, ground.place)
        scale = ground.scale_m
        return shapely.area(shapely.polygons(placed)) * scale**2, shapely.length(placed) * scale
    ends = np.searchsorted(ring, np.arange(1, len(rings)))
    parts = np.split(ground.degrees(points), ends) if len(rings) else []
    sizes = np.array([ELLIPSOID.polygon_area_perimeter(part[:, 0], part[:, 1]) for part in parts], np.float64)
    areas, lengths = sizes.reshape(-1, 2).T
    return np.abs(areas), lengths


def _local_planes(outlines: Polygons, ground: Georeference) -> tuple[Polygons, Floats, Floats]:
    """Outlines in metres east and north of their first vertex, its longitude and latitude, and metres a degree there.

    Each is so small beside the Earth that its plane is flat: 10 km off a centroid is found within a few metres.
    Without a CRS the plane is the scene's own, and longitude and latitude are NaN.
    """
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    if ground.to_degrees is None:
        unknown = np.full((len(outlines), 2), np.nan)
        return shapely.transform(outlines, ground.place), unknown, unknown
    degrees = ground.degrees(points)
    first = np.searchsorted(owner, np.arange(len(outlines)))
    origin = degrees[first]
    degree = metres_per_degree(origin[:, 1])
    away = degrees - origin[owner]
    away[:, 0] = (away[:, 0] + 180) % 360 - 180
    metres = away * degree[owner]
    return shapely.transform(outlines, lambda _: metres), origin, degree


def _centroids(plane: Polygons) -> Floats:
    return np.asarray(shapely.get_coordinates(shapely.centroid(plane)), np.float64).reshape(-1, 2)


def _compactness(area: Floats, perimeter: Floats) -> Floats:
    return np.asarray(4 * np.pi * area / perimeter**2, np.float64)


def _elongation(plane: Polygons) -> Floats:
    corners = shapely.get_coordinates(shapely.oriented_envelope(plane)).reshape(-1, 5, 2)
    sides = np.hypot(*np.moveaxis(np.diff(corners[:, :3], axis=1), -1, 0))
    return np.asarray(sides.max(axis=1) / sides.min(axis=1), np.float64)
