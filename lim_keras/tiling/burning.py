"""Burn polygons into boxes of a grid of pixels."""

from __future__ import annotations

from collections.abc import Iterator
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
            values = rasterize_box(self._pieces[np.sort(near)], block, Affine.identity(), touched=self.touched)
            shared = Box(
                max(block.top, box.top),
                max(block.left, box.left),
                min(block.bottom, box.bottom),
                min(block.right, box.right),
            )
            burnt[shared.inside(box).slices] = values[shared.inside(block).slices]
        return burnt


def holds_pixel(polygons: Geometries) -> NDArray[np.bool_]:
    """Return which polygons (n,) in pixels contain the centre of a pixel."""
    holds = np.ones(len(polygons), np.bool_)
    for index in np.flatnonzero(shapely.area(polygons) < _SURE_AREA):
        left, top, right, bottom = shapely.bounds(polygons[index]).tolist()
        box = Box(int(np.floor(top)), int(np.floor(left)), int(np.ceil(bottom)) + 1, int(np.ceil(right)) + 1)
        holds[index] = rasterize_box(polygons[[index]], box, Affine.identity()).any()
    return holds


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
