"""Averages of the pixels with data, for reduced pictures of scenes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lim_keras.raster.validity import Mask, Pixels
from lim_keras.raster.windows import Box


@dataclass(frozen=True, slots=True)
class Span:
    """Rectangle of a raster in fractions of pixels."""

    top: float
    left: float
    bottom: float
    right: float

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


def _shares(parts: int, size: int, start: float, stop: float) -> sparse.csr_array:
    """Return weights (parts, size) of pixels in equal parts of a line that starts within the first pixel."""
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
