"""Averages of the pixels with data, over the pixels of coarser grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lim_keras.raster.validity import Mask, Pixels
from lim_keras.raster.windows import Box, blocks

if TYPE_CHECKING:
    from scipy import sparse

_READ_BLOCK = 2048  # side of the blocks that are averaged at once, pixels


@dataclass(frozen=True, slots=True)
class Span:
    """Rectangle of a raster in fractions of pixels."""

    top: float
    left: float
    bottom: float
    right: float

    def shifted(self, rows: float, columns: float) -> Span:
        """Move the rectangle down and to the right."""
        return Span(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def pixels(self, within: Box) -> Box:
        """Return the box of all pixels that the rectangle touches."""
        bottom, right = min(math.ceil(self.bottom), within.bottom), min(math.ceil(self.right), within.right)
        return Box(int(self.top), int(self.left), bottom, right)


def average(pixels: Pixels, valid: Mask, span: Span, shape: tuple[int, int]) -> tuple[Pixels, Mask]:
    """Reduce the pixels (height, width, bands) of a span to `shape` by averaging those with data.

    Args:
        pixels, valid: pixels and mask of the box that `Span.pixels` returns. `shape` is at most the size of the span.

    Returns:
        The averages (rows, columns, bands) in the same data type, and a mask (rows, columns): True if at least half of
        the area holds data.
    """
    down = _shares(shape[0], pixels.shape[0], span.top, span.bottom)
    across = _shares(shape[1], pixels.shape[1], span.left, span.right).T
    weight = down @ valid.astype(np.float32) @ across
    averages = np.zeros((*shape, pixels.shape[-1]), np.float32)
    for band in range(pixels.shape[-1]):
        known = np.where(valid, pixels[..., band], 0).astype(np.float32)
        averages[..., band] = (down @ known @ across) / np.maximum(weight, np.finfo(np.float32).tiny)
    if pixels.dtype.kind in "ui":
        averages = np.rint(averages)
    return averages.astype(pixels.dtype), np.asarray(weight > 0.5 - 1e-4, np.bool_)


@dataclass(frozen=True)
class AreaAverages:
    """A raster, averaged over the pixels of a coarser grid whose axes are those of the raster.

    Attributes:
        read: reads pixels (height, width, bands) and mask (height, width) of a box of the raster.
        within: all pixels of the raster.
        bands, dtype: number of bands that `read` returns, and their data type.
        step: rows and columns of the raster in a pixel of the grid, both at least 1.
        start: row and column of the raster where the grid starts.
    """

    read: Callable[[Box], tuple[Pixels, Mask]]
    within: Box
    bands: int
    dtype: str
    step: tuple[float, float]
    start: tuple[float, float] = (0.0, 0.0)

    def image(self, box: Box) -> tuple[Pixels, Mask]:
        """Average a box of the grid, block by block.

        Returns:
            Pixels (height, width, bands), and a mask (height, width) of those of which at least half holds data.
        """
        pixels = np.zeros((box.height, box.width, self.bands), self.dtype)
        valid = np.zeros((box.height, box.width), np.bool_)
        rows, columns = (max(int(_READ_BLOCK / step), 1) for step in self.step)
        for part in blocks(box.height, box.width, (rows, columns)):
            span = self._span(part.shifted(box.top, box.left))
            if (found := self._around(span)) is not None:
                inside = span.shifted(-math.floor(span.top), -math.floor(span.left))
                pixels[part.slices], valid[part.slices] = average(*found, inside, (part.height, part.width))
        return pixels, valid

    def _span(self, box: Box) -> Span:
        (down, across), (top, left) = self.step, self.start
        return Span(box.top * down, box.left * across, box.bottom * down, box.right * across).shifted(top, left)

    def _around(self, span: Span) -> tuple[Pixels, Mask] | None:
        """Read all pixels that a span touches; those outside the raster hold no data. None if all are outside."""
        whole = Box(math.floor(span.top), math.floor(span.left), math.ceil(span.bottom), math.ceil(span.right))
        known = whole.grown(0, self.within)
        if known.height <= 0 or known.width <= 0:
            return None
        pixels, valid = self.read(known)
        if known == whole:
            return pixels, valid
        ends = ((known.top, whole.top, whole.bottom, known.bottom), (known.left, whole.left, whole.right, known.right))
        margins = [(one - start, stop - other) for one, start, stop, other in ends]
        return np.pad(pixels, [*margins, (0, 0)]), np.pad(valid, margins)


def _shares(parts: int, size: int, start: float, stop: float) -> sparse.csr_array:
    """Return weights (parts, size) of pixels in equal parts of a line that starts within the first pixel."""
    from scipy import sparse  # its import takes a third of a second, and most scenes do not need it before the maps

    edges = np.linspace(start, stop, parts + 1) - int(start)
    pixel = np.arange(size)
    part = np.clip(np.searchsorted(edges, pixel, side="right") - 1, 0, parts - 1)
    shares: list[NDArray[np.float64]] = []
    both = part, np.minimum(part + 1, parts - 1)  # a pixel lies in one part or across two
    for one in both:
        shared = np.minimum(edges[one + 1], pixel + 1) - np.maximum(edges[one], pixel)
        shares.append(np.maximum(shared, 0) / (edges[one + 1] - edges[one]))
    shares[1][both[0] == both[1]] = 0
    places = np.concatenate(both), np.concatenate([pixel, pixel])
    weights = np.concatenate(shares).astype(np.float32)
    return sparse.csr_array((weights, places), shape=(parts, size))
