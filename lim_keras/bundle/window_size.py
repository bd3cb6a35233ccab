"""Window sizes of a prediction: pixels by network, and the shape that computes the fewest pixels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import psutil

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError
from lim_keras.raster.windows import read_length, smallest_side

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_GRID = 64  # windows start at multiples of this many pixels, and of the network's stride

_MEBIBYTE = 2**20
_FIRST_NETWORK, _FURTHER_NETWORK = 1536 * _MEBIBYTE, 256 * _MEBIBYTE  # memory of the process


class _Taken(NamedTuple):
    """Memory that a runtime takes, see docs/experiments/prediction_speed.md.

    Args:
        program: MiB of the process with one loaded network, before a window is predicted.
        network: MiB of each further network.
        maps: memory for each byte of the largest feature maps that a network must hold at once.
        further: share of that for each further network of an ensemble.
    """

    program: int
    network: int
    maps: float
    further: float


_TAKEN = {
    "tensorflow": _Taken(1050, 90, 1.2, 0.15),
    "litert": _Taken(600, 20, 2.3, 0.6),
    "openvino": _Taken(585, 50, 1.2, 0.45),
}
_VGG16_IN_OPENVINO = 1.65  # in place of 1.2: its wide maps of full resolution are held twice

_HELD_MAPS = 2 * 3 * 4  # bytes a pixel: three maps in float32, while they are made and while they are written

_FILLING = 16  # bytes a pixel, to fill gaps of a window

_TTA_BYTES = 72  # for each pixel: sums of three maps in float64, and turned copies of each and of the images

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


def default_pixels(info: BundleInfo, runtime: str = "", *, tta: bool = False) -> float:
    """Return the largest number of pixels of a default window, the same on every machine.

    Args:
        runtime: library that computes; "": as TensorFlow.
        tta: windows are averaged over their symmetries.
    """
    free = default_memory(info.folds) - program_bytes(info, runtime)
    return free / window_bytes(info, runtime, tta=tta)


def program_bytes(info: BundleInfo, runtime: str = "") -> int:
    """Return the bytes that a process takes besides a window; arguments as in `default_pixels`."""
    taken = _taken(runtime)
    return (taken.program + (info.folds - 1) * taken.network) * _MEBIBYTE


def window_bytes(info: BundleInfo, runtime: str = "", *, tta: bool = False) -> float:
    """Return the bytes that a process takes for each pixel of a window; arguments as in `default_pixels`."""
    taken = _taken(runtime)
    maps = taken.maps
    if taken is _TAKEN["openvino"] and info.model.get("encoder") == "vgg16":
        maps = _VGG16_IN_OPENVINO
    network = maps * (1 + (info.folds - 1) * taken.further) * info.bytes_per_pixel
    return network + held_bytes(info) + (_TTA_BYTES if tta else 0)


def held_bytes(info: BundleInfo) -> int:
    """Return the bytes a pixel that are held besides the network's maps.

    They are the raw images of a window and of the next one, what finds and fills the latter's gaps, and the maps of a
    window and of the last one.
    """
    return 2 * np.dtype(info.dtype).itemsize * info.bands + 1 + _FILLING + _HELD_MAPS


def check_input_size(info: BundleInfo, tile: int | None) -> None:
    """Raise ConfigError if an image of `tile` x `tile` pixels, as exports compare one, needs more than all memory."""
    needed = program_bytes(info) + window_bytes(info) * (tile or 0) ** 2
    whole = psutil.virtual_memory().total
    if needed > whole:
        raise ConfigError(
            f"Invalid value for `tile`. An image of {tile} x {tile} px needs {needed / 2**30:.0f} GiB to be compared "
            f"with the SavedModel, and this machine has {whole / 2**30:.0f} GiB. Give less, or leave `tile` out."
        )


def _taken(runtime: str) -> _Taken:
    return _TAKEN.get(runtime.split("-")[0], _TAKEN["tensorflow"])


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
