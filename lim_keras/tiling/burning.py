"""Burn polygons into boxes of a grid of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from lim_keras.raster.vectorize import rasterize_box
from lim_keras.raster.windows import Box
from lim_keras.vectors.geometries import Geometries, split

_BLOCK = 256  # side of the blocks that are burnt one by one, pixels
_VERTICES = 1024  # polygons with more are cut at the lines between blocks
_ROUNDING = 1e-9  # largest relative difference of areas after a cut
_SURE_AREA = 16.0  # pixels; larger polygons hold the centre of a pixel
_SHORT = 16  # sides of bounding boxes, pixels, whose centres are tried one by one


class BurntPolygons:
    """Polygons on a grid of pixels, indexed for burning boxes.

    A pixel gets the same value in every box that holds it, because the grid is always burnt in the same blocks. Large
    polygons are cut at the lines between blocks, so that a box needs only the vertices near it.

    Args:
        polygons: valid polygons (n,) in pixels, (column, row).
        touched: burn all pixels that a polygon touches; else those whose centre it contains.
    """

    def __init__(self, polygons: Geometries, *, touched: bool = False) -> None:
        self.touched = touched
        self._pieces = _pieces(polygons)
        self._tree = shapely.STRtree(self._pieces)

    def burn(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels (height, width) of a box the polygons cover."""
        burnt = np.zeros((box.height, box.width), np.bool_)
        for block in _aligned_blocks(box):
            near = self._tree.query(shapely.box(block.left, block.top, block.right, block.bottom))
            if not len(near):
                continue
            shapes = _as_geojson(self._pieces[np.sort(near)])
            values = rasterize_box(shapes, block, Affine.identity(), touched=self.touched)
            shared = Box(
                max(block.top, box.top),
                max(block.left, box.left),
                min(block.bottom, box.bottom),
                min(block.right, box.right),
            )
            burnt[shared.inside(box).slices] = values[shared.inside(block).slices]
        return burnt


def holds_pixel(polygons: Geometries) -> NDArray[np.bool_]:
    """Return which polygons (n,) in pixels contain the centre of a pixel; all large ones count."""
    holds: NDArray[np.bool_] = shapely.area(polygons) >= _SURE_AREA
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    first = np.floor(bounds[:, :2])
    sizes = np.ceil(bounds[:, 2:]) - first
    short = (sizes <= _SHORT).all(axis=-1)
    for index in np.flatnonzero(~holds & ~short):
        (left, top), (width, height) = first[index].astype(int).tolist(), sizes[index].astype(int).tolist()
        box = Box.sized(top, left, height, width)
        holds[index] = rasterize_box(polygons[[index]], box, Affine.identity()).any()
    for column in range(_SHORT):
        for row in range(_SHORT):
            unknown = np.flatnonzero(~holds & short & (sizes > (column, row)).all(axis=-1))
            x, y = (first[unknown] + (column + 0.5, row + 0.5)).T
            holds[unknown] = shapely.contains_xy(polygons[unknown], x, y)
    return holds


def _as_geojson(polygons: Geometries) -> list[dict[str, Any]]:
    """Convert polygons to GeoJSON; shapely does so vertex by vertex."""
    _, points, (rings, parts) = shapely.to_ragged_array(polygons)
    vertices, rings, parts = points.tolist(), rings.tolist(), parts.tolist()
    closed = [vertices[start:end] for start, end in pairwise(rings)]
    shapes = (closed[start:end] for start, end in pairwise(parts))
    return [{"type": "Polygon", "coordinates": shape} for shape in shapes]


def _aligned_blocks(box: Box) -> Iterator[Box]:
    for top in range(box.top // _BLOCK * _BLOCK, box.bottom, _BLOCK):
        for left in range(box.left // _BLOCK * _BLOCK, box.right, _BLOCK):
            yield Box.sized(top, left, _BLOCK, _BLOCK)


def _pieces(polygons: Geometries) -> Geometries:
    """Halve polygons at lines between blocks until they have few vertices or lie in one block."""
    done, waiting = [np.zeros(0, object)], np.asarray(polygons, dtype=object)
    while len(waiting):
        bounds = shapely.bounds(waiting)
        first, last = np.floor(bounds[:, :2] / _BLOCK), np.ceil(bounds[:, 2:] / _BLOCK)
        large = (shapely.get_num_coordinates(waiting) > _VERTICES) & ((last - first).max(axis=-1) > 1)
        done.append(waiting[~large])
        halves = [_halves(*one) for one in zip(waiting[large], first[large], last[large], strict=True)]
        waiting = np.concatenate([np.zeros(0, object), *halves])
    return np.concatenate(done)


def _halves(polygon: Any, first: NDArray[np.float64], last: NDArray[np.float64]) -> Geometries:
    """Cut a polygon that spans the blocks `first` to `last` (column, row) at the line in its middle."""
    axis = int(np.argmax(last - first))
    middle = np.floor((first[axis] + last[axis]) / 2)
    ends, starts = last.copy(), first.copy()
    ends[axis] = starts[axis] = middle
    boxes = [np.concatenate(corners) * _BLOCK for corners in ((first, ends), (starts, last))]
    halves = np.array([shapely.clip_by_rect(polygon, *corners) for corners in boxes], dtype=object)
    if not np.isclose(shapely.area(halves).sum(), shapely.area(polygon), rtol=_ROUNDING, atol=0):
        # Clipping at a rectangle is fast, but not exact for every polygon.
        halves = np.array([shapely.intersection(polygon, shapely.box(*corners)) for corners in boxes], dtype=object)
    return split(halves)[0]
