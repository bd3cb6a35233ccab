"""Window sizes of a prediction: pixels by network, and the shape that computes the fewest pixels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError
from lim_keras.raster.windows import read_length, smallest_side

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_GRID = 64  # windows start at multiples of this many pixels, and of the network's stride

_MEBIBYTE = 2**20
_FIRST_NETWORK, _FURTHER_NETWORK = 1536 * _MEBIBYTE, 256 * _MEBIBYTE  # memory of the process
_MAPS_OF_FIRST, _MAPS_OF_FURTHER = 272 * _MEBIBYTE, 32 * _MEBIBYTE  # feature maps of a window

_TTA_BYTES = 48  # for each pixel: sums of three maps in float64, and a turned copy of each

_AS_GOOD = 1.01  # windows that compute at most so many times the fewest pixels are equal
_SMALL = 2**20  # pixels of a window, above which the smallest of equal windows is taken, below which the largest

_REGIONS = 256  # regions of different sizes that are compared, the most frequent ones


def parse_memory(text: str) -> int:
    """Convert "2G", "1500M", "1.5 GiB" or a plain number to bytes; raise ConfigError for any other text."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"Invalid value for `memory`. Expected a size such as 2G. Received: {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def window_grid(stride: int) -> int:
    """Return the step, pixels, of the grid that windows start on; halos are multiples of it."""
    return math.lcm(_GRID, stride)


def default_memory(folds: int) -> int:
    """Return the bytes that a process takes at most by default: 1.5 GiB for one network, 2.5 GiB for five."""
    return _FIRST_NETWORK + (folds - 1) * _FURTHER_NETWORK


def default_pixels(info: BundleInfo, tta: bool = False) -> float:
    """Return the largest number of pixels of a default window, the same on every machine."""
    maps = _MAPS_OF_FIRST + (info.folds - 1) * _MAPS_OF_FURTHER
    return maps / (info.bytes_per_pixel + (_TTA_BYTES if tta else 0))


def smallest_window(halo: int, height: int, width: int, multiple: int) -> int:
    """Return the number of pixels of the smallest window: the whole scene, or a core between two halos."""
    least = smallest_side(halo, multiple)
    return min(least, rounded_up(height, multiple)) * min(least, rounded_up(width, multiple))


def choose_window(regions: Iterable[tuple[int, int]], *, pixels: float, halo: int, multiple: int) -> tuple[int, int]:
    """Choose rows and columns of a window, in pixels, that compute the fewest pixels.

    Args:
        regions: height and width of each valid region, pixels.
        pixels: largest number of pixels of a window; a window is never smaller than `smallest_window`.
        halo: pixels read beyond each core.
        multiple: step of the grid on which windows start, pixels.
    """
    shapes = Counter(regions)
    heights, widths = ([shape[axis] for shape in shapes] for axis in (0, 1))
    pixels = max(pixels, smallest_window(halo, max(heights), max(widths), multiple))
    rows, columns = (_sides(max(edges), halo, multiple) for edges in (heights, widths))
    rows, columns = rows[rows * columns[0] <= pixels], columns[columns * rows[0] <= pixels]
    common = shapes.most_common(_REGIONS)
    down, across = (
        np.array([[read_length(shape[axis], int(side), halo, multiple) for shape, _ in common] for side in sides])
        for axis, sides in ((0, rows), (1, columns))
    )
    computed = (down * [count for _, count in common]) @ across.T.astype(np.float64)
    area = rows[:, np.newaxis] * columns
    computed[area > pixels] = np.inf
    size = np.where(area > _SMALL, area, 2 * _SMALL - area)
    size = np.where(computed <= computed.min() * _AS_GOOD, size, np.iinfo(np.int64).max)
    row, column = np.unravel_index(int(size.argmin()), size.shape)
    return int(rows[row]), int(columns[column])


def _sides(length: int, halo: int, multiple: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """List the sides that a window may have along an axis, from the smallest to the whole length."""
    whole = rounded_up(length, multiple)
    return np.arange(min(smallest_side(halo, multiple), whole), whole + 1, multiple, dtype=np.int64)


def rounded_up(size: float, step: int) -> int:
    """Return the next multiple of `step`."""
    return math.ceil(size / step) * step
