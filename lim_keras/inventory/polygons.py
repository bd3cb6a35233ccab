"""Landslide outlines: fill holes, simplify, measure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lim_keras.errors import DataError
from lim_keras.inventory.geodesic import geodesic_sizes
from lim_keras.inventory.tracing import Rings
from lim_keras.raster.georeference import Floats, Georeference, RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import NO_LABEL

Polygons = NDArray[Any]  # shapely polygons, (n,)
_BATCH = 256


def read_mask_info(mask: Path) -> RasterInfo:
    """Read the header of a landslide mask; raise DataError if it is not one band of uint8."""
    info = read_info(mask)
    if info.bands != 1 or info.dtype != "uint8":
        raise DataError(
            f"{mask}: expected a mask of one band of uint8 (1 landslide, 0 background, {NO_LABEL} no data), "
            f"but it has {info.bands} of {info.dtype}."
        )
    return info


def polygons_of(rings: Rings) -> Polygons:
    """Convert outlines to polygons (n,)."""
    ends = (np.insert(np.cumsum(sizes), 0, 0) for sizes in (rings.ring_sizes, rings.rings))
    if not len(rings):
        return np.zeros(0, object)
    points = rings.points.astype(np.float64)
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, tuple(ends)), dtype=object)


def rings_of(polygons: Polygons) -> Rings:
    """Convert polygons (n,) to outlines."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    counts = np.bincount(owner, minlength=len(polygons)).astype(np.int32)
    return Rings(shapely.get_coordinates(rings), shapely.get_num_coordinates(rings), counts)


def place(outlines: Rings, ground: Georeference) -> Polygons:
    """Convert outlines in pixels to polygons in the scene's CRS."""
    return polygons_of(replace(outlines, points=ground.place(outlines.points)))


class HoleFiller:
    """Fill holes up to `limit_m2` (math.inf: all) in outlines in pixels that come in row order of their first pixels.

    Only the filled holes that reach below the last outline are kept in memory.
    """

    def __init__(self, limit_m2: float, ground: Georeference) -> None:
        self._limit_m2, self._ground = limit_m2, ground
        self._filled: Polygons = np.zeros(0, object)

    def fill(self, outlines: Polygons, seeds: Floats) -> tuple[Polygons, NDArray[np.bool_]]:
        """Fill the holes of the next outlines; `seeds` are the first pixels (n, 2), (column, row).

        Returns the outlines, and a mask (n,) of those that lie in a filled hole and thus belong to the landslide around
        it.
        """
        swallowed = np.zeros(len(outlines), np.bool_)
        if not self._limit_m2 or not len(outlines):
            return outlines, swallowed
        outlines, holes = _without_holes(outlines, self._limit_m2, self._ground)
        self._filled = np.concatenate([self._filled, holes])
        tree = shapely.STRtree(shapely.points(seeds + 0.5))
        swallowed[tree.query(self._filled, predicate="contains")[1]] = True
        self._filled = self._filled[shapely.bounds(self._filled).reshape(-1, 4)[:, 3] > seeds[-1, 1]]
        return outlines, swallowed


def _without_holes(outlines: Polygons, limit_m2: float, ground: Georeference) -> tuple[Polygons, Polygons]:
    """Return the outlines without holes up to a limit, and these holes as polygons."""
    rings, owner = shapely.get_rings(outlines, return_index=True)
    hole = np.zeros(len(rings), np.bool_)
    hole[1:] = owner[1:] == owner[:-1]  # the first ring of a polygon is its outer one
    small = hole.copy()
    if not math.isinf(limit_m2):
        small[hole] = ring_sizes(rings_of(shapely.polygons(rings[hole])), ground)[0] <= limit_m2
    if not small.any():
        return outlines, np.zeros(0, object)
    filled = shapely.polygons(rings[~small], indices=owner[~small])
    return np.asarray(filled, dtype=object), np.asarray(shapely.polygons(rings[small]), dtype=object)


def complete_groups(outlines: Rings) -> int:
    """Count the leading outlines that later ones do not touch, and that are whole groups of touching boxes.

    Outlines are in row order of their first pixels, and more may follow.
    """
    starts = np.cumsum(outlines.vertices) - outlines.vertices
    corners = np.minimum.reduceat(outlines.points, starts), np.maximum.reduceat(outlines.points, starts)
    bounds = np.concatenate(corners, axis=1).astype(np.float64)
    group = _touching(bounds)
    last = np.zeros(group.max(initial=-1) + 1, np.int64)
    np.maximum.at(last, group, np.arange(len(group)))
    lowest = np.zeros(len(last))
    np.maximum.at(lowest, group, bounds[:, 3])
    # A later outline begins in the last row or below it.
    last[lowest >= bounds[-1, 1]] = len(group)
    reach = np.maximum.accumulate(last[group])
    complete = np.flatnonzero(reach == np.arange(len(group)))
    return int(complete[-1]) + 1 if len(complete) else 0


def simplify(outlines: Polygons, tolerance_px: float) -> Polygons:
    """Remove vertices whose triangle with the two neighbours has an area below `tolerance_px` ** 2.

    Source: Visvalingam and Whyatt 1993. GEOS 3.12 simplifies all outlines at once: they stay valid and do not overlap.
    Older versions of shapely and GEOS simplify each outline alone (Douglas and Peucker 1973). Then, outlines that meet
    in a corner may overlap by less than the tolerance.
    """
    if not len(outlines) or tolerance_px <= 0:
        return outlines
    if not hasattr(shapely, "coverage_simplify") or shapely.geos_version < (3, 12, 0):
        return np.asarray(shapely.simplify(outlines, tolerance_px, preserve_topology=True), dtype=object)
    simple = outlines.copy()
    for batch in _apart(outlines):
        simple[batch] = shapely.coverage_simplify(outlines[batch], tolerance_px)
    return simple


def _apart(outlines: Polygons) -> list[NDArray[np.int64]]:
    """Group the indices of outlines into batches that do not touch each other.

    The run time of GEOS grows with the square of the batch size. A simplified outline stays within its bounding box, so
    only outlines whose boxes touch, directly or through other boxes, must be in one batch.
    """
    group = _touching(shapely.bounds(outlines))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = starts[np.flatnonzero(np.diff(starts // _BATCH, prepend=0))]
    return np.split(order, cuts)


def _touching(bounds: Floats) -> NDArray[np.int32]:
    """Number the groups (n,) of boxes that touch each other, directly or through other boxes."""
    boxes = shapely.box(*bounds.T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(boxes), len(boxes)))
    return np.asarray(connected_components(graph, directed=False)[1])


def ring_sizes(outlines: Rings, ground: Georeference, degrees: Floats | None = None) -> tuple[Floats, Floats]:
    """Measure area (m2, positive) and length (m) of each ring (r,) of outlines in pixels.

    Both are NaN without a CRS and a ground sample distance. degrees: vertices of all rings, if they are known.
    """
    if ground.to_degrees is None:
        alone = replace(outlines, rings=np.ones(len(outlines.ring_sizes), np.int32))
        placed, scale = place(alone, ground), ground.scale_m
        return shapely.area(placed) * scale**2, shapely.length(placed) * scale
    return geodesic_sizes(ground.degrees(outlines.points) if degrees is None else degrees, outlines.ring_sizes)
