"""Landslide outlines: trace, fill holes, simplify, clean."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.georeference import ELLIPSOID, Floats, Georeference, RasterInfo, apply, inverse
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.vectorize import polygonize

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


def trace(mask: Path) -> tuple[Polygons, NDArray[np.int64]]:
    """Outline the landslides of a mask: one polygon for each group of landslide pixels that share sides.

    Returns polygons in pixels, (column, row), and the first pixel (n, 2) of each, both in row order of the first pixel.
    """
    found = []
    with RasterReader(mask) as raster:
        for outline, value in polygonize(raster):
            if value == 1:
                found.append(outline)
            elif value != NO_LABEL:
                raise DataError(
                    f"{mask}: expected the values 1 (landslide), 0 (background) and {NO_LABEL} (no data), "
                    f"but it holds {value:g}."
                )
        transform = raster.dataset.transform
    placed = np.array(found, dtype=object)
    outlines = shapely.transform(placed, lambda points: np.rint(apply(inverse(transform), points)))
    seeds = first_pixels(outlines)
    order = np.lexsort((seeds[:, 0], seeds[:, 1]))
    return outlines[order], seeds[order]


def first_pixels(outlines: Polygons) -> NDArray[np.int64]:
    """Find the first pixel (n, 2), (column, row), of each outline: the leftmost pixel of its topmost row."""
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    whole = points.astype(np.int64)
    order = np.lexsort((whole[:, 0], whole[:, 1], owner))
    _, first = np.unique(owner[order], return_index=True)
    return np.asarray(whole[order][first], np.int64)


def place(outlines: Polygons, ground: Georeference) -> Polygons:
    """Convert outlines in pixels to the scene's CRS."""
    return np.asarray(shapely.transform(outlines, ground.place), dtype=object)


def fill_holes(
    outlines: Polygons, seeds: NDArray[np.int64], limit_m2: float, ground: Georeference
) -> tuple[Polygons, NDArray[np.bool_]]:
    """Fill holes up to `limit_m2` (math.inf: all) in outlines given in pixels. `seeds`: a pixel (n, 2) of each outline.

    Returns the outlines, and a mask (n,) of those that lie in a filled hole and thus belong to the landslide around it.
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
    boxes = shapely.box(*shapely.bounds(outlines).T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(boxes), len(boxes)))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = starts[np.flatnonzero(np.diff(starts // _BATCH, prepend=0))]
    return np.split(order, cuts)


def ring_sizes(rings: NDArray[np.object_], ground: Georeference) -> tuple[Floats, Floats]:
    """Measure area (m2, positive) and length (m) of rings in pixels; NaN without a CRS and a ground sample distance."""
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


def clean_polygons(geometries: geopandas.GeoSeries, name: str) -> geopandas.GeoSeries:
    """Convert geometries to single, valid, two-dimensional polygons; drop everything else, such as lines.

    Warns (LimKerasWarning) if invalid polygons were repaired; the warning gives `name` as their source.
    """
    shapes = shapely.force_2d(geometries.dropna().to_numpy())
    shapes = shapes[np.isfinite(shapely.bounds(shapes)).all(axis=-1)]  # not finite: empty or outside the CRS
    invalid = ~shapely.is_valid(shapes)
    if invalid.any():
        shapes[invalid] = shapely.make_valid(shapes[invalid])
        message = f"{name}: {invalid.sum()} of {len(shapes)} polygons are invalid (they cross themselves); repaired."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return geopandas.GeoSeries(_parts(shapes), crs=geometries.crs)


def cut_polygons(polygons: geopandas.GeoSeries, area: Any) -> geopandas.GeoSeries:
    """Clip polygons to an area, a polygon or multi-polygon in the same CRS; return single polygons."""
    shapely.prepare(area)
    shapes = np.array(polygons)
    across = ~shapely.covers(area, shapes)
    shapes[across] = shapely.intersection(shapes[across], area)
    return geopandas.GeoSeries(_parts(shapes), crs=polygons.crs)


def _parts(shapes: NDArray[Any]) -> NDArray[Any]:
    """Split geometries into single polygons; split twice, because a collection may hold multi-polygons."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return np.asarray(parts[shapely.area(parts) > 0])
