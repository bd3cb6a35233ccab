"""Simplify outlines and fill their holes."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lim_keras.inventory.measures import ring_sizes
from lim_keras.inventory.polygons import Polygons
from lim_keras.raster.georeference import Georeference

_BATCH = 256


def fill_holes(
    outlines: Polygons, seeds: NDArray[np.int64], limit_m2: float, ground: Georeference
) -> tuple[Polygons, NDArray[np.bool_]]:
    """Fill the holes that are not larger than a limit.

    Args:
        outlines: in pixels.
        seeds: (n, 2) a pixel of each, (column, row).
        limit_m2: area of the largest hole to fill, m2 on the ground; math.inf fills all.
        ground: of the scene.

    Returns:
        The outlines, and which of them (n,) lie in a hole that was filled: their ground belongs to another landslide
        now.
    """
    swallowed = np.zeros(len(outlines), np.bool_)
    rings, owner = shapely.get_rings(outlines, return_index=True)
    hole = np.zeros(len(rings), np.bool_)
    hole[1:] = owner[1:] == owner[:-1]  # the first ring of a polygon is its outer one
    small = hole.copy()
    if not math.isinf(limit_m2):
        small[hole] = ring_sizes(rings[hole], ground)[0] <= limit_m2
    if not small.any():
        return outlines, swallowed
    filled = shapely.polygons(rings[~small], indices=owner[~small])
    tree = shapely.STRtree(shapely.points(seeds + 0.5))
    swallowed[tree.query(shapely.polygons(rings[small]), predicate="contains")[1]] = True
    return np.asarray(filled, dtype=object), swallowed


def simplify(outlines: Polygons, tolerance_px: float) -> Polygons:
    """Leave out vertices whose triangle with their neighbours is smaller than the square of a tolerance.

    This is the algorithm of Visvalingam and Whyatt (1993), on all outlines at once (GEOS 3.12): they stay valid, and
    where two meet in a corner or one lies in another's hole, they do not overlap. It measures areas, so that pixels
    that are not square on the ground do no harm. Older versions of shapely and GEOS simplify each outline by itself
    (Douglas and Peucker 1973), and outlines that meet in a corner may then overlap by less than the tolerance.

    outlines: in pixels. tolerance_px: in pixels; far below a landslide's size, for in the end a triangle is left.
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
    """Batches of outlines that cannot meet those of another batch, as their indices.

    GEOS takes time with the square of the outlines that it is given at once. An outline that loses vertices stays
    within its bounds, so that only those whose bounds touch, directly or through others, need to be treated together.
    """
    boxes = shapely.box(*shapely.bounds(outlines).T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(boxes), len(boxes)))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = starts[np.flatnonzero(np.diff(starts // _BATCH, prepend=0))]
    return np.split(order, cuts)
