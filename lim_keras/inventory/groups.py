"""Landslides of a mask: groups of pixels that share sides, found block by block."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lim_keras.inventory.pixels import PixelReader, PixelStatistics
from lim_keras.inventory.tracing import Corners, Numbers, Rings, find_corners, trace_rings
from lim_keras.raster.windows import BLOCK, Box, blocks

_CORNERS = 2**17  # corners that are traced at once

Landslides = tuple[Rings, PixelStatistics]
"""Outlines and statistics of landslides, in row order of their first pixels."""


def find_landslides(reader: PixelReader, block: int = BLOCK) -> Iterator[Landslides]:
    """Yield the landslides of a mask as soon as their last pixels are read.

    Memory holds one block of pixels, the statistics of the landslides that are not finished, and the corners of their
    outlines.

    Raises:
        DataError: a raster cannot be read, or the mask holds another value than 0, 1 and 255.
    """
    scene, unfinished = reader.scene, _Unfinished(reader)
    rows = groupby(blocks(scene.height, scene.width, block), lambda box: (box.top, box.bottom))
    for (_, bottom), row in rows:
        for box in row:
            labels = reader.labels(box)
            count, groups = _label(labels)
            if not count:
                unfinished.skip(box)
                continue
            pixels = reader.read(box, labels, groups, count)
            corners = find_corners(labels == 1, groups, box.top, box.left)
            inner = ~_reach_border(groups, box, scene, count)
            yield from _traced(corners, pixels, inner)
            unfinished.add(box, groups, corners, pixels, ~inner)
        yield from unfinished.finish(last=bottom == scene.bottom)


def _label(labels: NDArray[np.uint8]) -> tuple[int, Numbers]:
    """Number the groups of landslide pixels inside the border of one pixel; return their count and the numbers."""
    inside = np.ascontiguousarray(labels[1:-1, 1:-1] == 1).view(np.uint8)
    if not inside.any():
        return 0, np.zeros(inside.shape, np.int32)
    count, groups = cv2.connectedComponents(inside, connectivity=4, ltype=cv2.CV_32S)
    return count - 1, groups.astype(np.int32, copy=False)


def _reach_border(groups: Numbers, box: Box, scene: Box, count: int) -> NDArray[np.bool_]:
    """Return which groups (count,) of a block may continue in another block."""
    reach = np.zeros(count + 1, np.bool_)
    if box.top > scene.top:
        reach[groups[0]] = True
    if box.bottom < scene.bottom:
        reach[groups[-1]] = True
    if box.left > scene.left:
        reach[groups[:, 0]] = True
    if box.right < scene.right:
        reach[groups[:, -1]] = True
    return reach[1:]


def _traced(corners: Corners, pixels: PixelStatistics, chosen: NDArray[np.bool_]) -> Iterator[Landslides]:
    """Trace the chosen groups, a limited number of corners at a time."""
    lengths = np.where(chosen, np.bincount(corners.group, minlength=len(pixels)), 0)
    part = np.where(chosen, np.cumsum(lengths) // _CORNERS, -1)
    for number in np.unique(part[chosen]).tolist():
        inside = part == number
        places = np.flatnonzero(inside)
        renumbered = np.zeros(len(pixels), np.int32)
        renumbered[places] = np.arange(len(places))
        rings, order = trace_rings(corners.take(inside[corners.group], renumbered), len(places))
        yield rings, pixels.take(places[order])


class _Unfinished:
    """Groups that may continue in another block, numbered from 1; a group in several blocks has several parts."""

    def __init__(self, reader: PixelReader) -> None:
        self._reader = reader
        self._above = np.zeros(reader.scene.width, np.int32)  # numbers of the groups in the row above the blocks
        self._start(reader.none(), Corners.none())

    def _start(self, pixels: PixelStatistics, corners: Corners) -> None:
        self._pixels, self._corners, self._size = [pixels], [corners], len(pixels)
        self._contacts: list[NDArray[np.int32]] = []
        self._below = np.zeros_like(self._above)
        self._left = np.zeros(0, np.int32)

    def skip(self, box: Box) -> None:
        """Pass a block without groups."""
        self._left = np.zeros(box.height, np.int32)

    def add(
        self, box: Box, groups: Numbers, corners: Corners, pixels: PixelStatistics, chosen: NDArray[np.bool_]
    ) -> None:
        """Add the chosen groups of a block, and note where they touch those of the blocks above and to the left."""
        places = np.flatnonzero(chosen)
        number = np.zeros(len(chosen) + 1, np.int32)
        number[places + 1] = self._size + 1 + np.arange(len(places))
        across = slice(box.left, box.right)
        self._touch(self._above[across], number[groups[0]])
        if box.left:
            self._touch(self._left, number[groups[:, 0]])
        self._below[across], self._left = number[groups[-1]], number[groups[:, -1]]
        self._pixels.append(pixels.take(places))
        self._corners.append(corners.take(chosen[corners.group], number[1:] - 1))
        self._size += len(places)

    def _touch(self, one: Numbers, other: Numbers) -> None:
        both = np.stack([one, other])[:, (one > 0) & (other > 0)]
        self._contacts.append(both - 1)

    def finish(self, *, last: bool) -> Iterator[Landslides]:
        """End a row of blocks: merge touching groups, and trace those without a pixel in the lowest row."""
        size = self._size
        if not size:
            return
        one, other = np.concatenate([*self._contacts, np.zeros((2, 0), np.int32)], axis=1)
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
        count, group = connected_components(graph, directed=False)
        group = group.astype(np.int32, copy=False)
        pixels = PixelStatistics.joined(self._pixels).merged(group, count)
        corners = Corners.joined(self._corners)
        corners = corners.take(np.ones(len(corners), np.bool_), group)
        below = np.where(self._below > 0, group[self._below - 1], -1)
        going_on = np.zeros(count, np.bool_)
        if not last:
            going_on[below[below >= 0]] = True
        yield from _traced(corners, pixels, ~going_on)
        renumbered = np.cumsum(going_on, dtype=np.int32) - np.int32(1)
        self._above = np.where(below >= 0, renumbered[below] + 1, 0).astype(np.int32)
        self._start(pixels.take(going_on), corners.take(going_on[corners.group], renumbered))
