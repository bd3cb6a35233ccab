"""Window sizes of a prediction by memory."""

from __future__ import annotations

import math
import re

import psutil

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.windows import smallest_side

_RUNTIME_BYTES = 855e6  # memory of TensorFlow and the geographic libraries without a network
_GRAPH_BYTES = 60  # bytes of memory for each byte of a graph file, without the variables
LITERT_RUNTIME_BYTES = 400e6  # memory of LiteRT, the geographic libraries and a file's networks before the first window
FREE_SHARE = 0.4  # default share of the free memory for a prediction
# Idle memory between feature maps of different sizes, as a share of the maps: the allocator doubles its regions.
_GAP_SHARE = 0.65
# Smallest idle memory: the C library keeps free blocks that are too small to return to the system.
_KEPT_BYTES = 250 * 2**20
_KEPT_SHARE = 2.5  # upper bound of the kept blocks as a share of the feature maps, for small windows
_FOLD_PIXEL_BYTES = 8  # bytes per pixel and fold: a float32 prediction and its copy in the stack of folds
_ENOUGH_OVERLAP = 1.25  # ratio of computed to kept pixels; below it, larger windows gain little
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


_GRID = 64  # windows start at multiples of this many pixels, and of the network's stride
_MAPS_BYTES = 320 * 2**20  # feature maps of a default window


def window_grid(stride: int) -> int:
    """Return the step, pixels, of the grid that windows start on; halos are multiples of it."""
    return math.lcm(_GRID, stride)


def default_pixels(info: BundleInfo) -> float:
    """Return the largest number of pixels of a default window, the same on every machine."""
    return _MAPS_BYTES / info.bytes_per_pixel


def parse_memory(text: str) -> int:
    """Convert "2G", "1500M", "1.5 GiB" or a plain number to bytes; raise ConfigError for any other text."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"Invalid value for `memory`. Expected a size such as 2G. Received: {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def free_memory() -> int:
    """Return the default memory of a prediction, bytes: FREE_SHARE of the free memory."""
    return int(psutil.virtual_memory().available * FREE_SHARE)


def choose_window(
    info: BundleInfo, height: int, width: int, memory: int, multiple: int, halo: int, runtime: float | None = None
) -> tuple[int, int]:
    """Choose rows and columns of a window, in pixels.

    Args:
        height, width: size of the scene, pixels; in a narrow scene, windows have its width and more rows.
        memory: bytes that the whole process may use.
        multiple: step of the grid on which windows start, pixels.
        halo: pixels read beyond each core.
        runtime: bytes in use before the first window; None: the estimate for TensorFlow and the networks.

    Raises:
        DataError: too little memory for the smallest window with a core between two halos.
    """
    runtime = tensorflow_bytes(info) if runtime is None else runtime
    pixels = window_pixels(info, memory - runtime)
    smallest = smallest_window(halo, height, width, multiple)
    if pixels < smallest:
        needed = math.ceil((window_bytes(info, smallest) + runtime) / 2**20)
        least = smallest_side(halo, multiple)
        raise DataError(
            f"Expected `memory` of at least {needed} MiB, for windows of {least} px, the smallest with a core between "
            f"two halos of {halo} px. Received: {memory / 2**20:.0f} MiB."
        )
    return shape_window(halo, height, width, pixels, multiple)


def tensorflow_bytes(info: BundleInfo) -> float:
    """Estimate the memory of TensorFlow and a bundle's networks before the first window, bytes."""
    folder = "ensemble/" if info.folds > 1 else "fold_0/"
    sizes = {name: record.bytes for name, record in info.files.items() if name.startswith(folder)}
    graphs = sum(size for name, size in sizes.items() if name.endswith(".pb"))
    return _RUNTIME_BYTES + _GRAPH_BYTES * graphs + sum(sizes.values())


def smallest_window(halo: int, height: int, width: int, multiple: int) -> int:
    """Return the number of pixels of the smallest window: the whole scene, or a core between two halos."""
    least = smallest_side(halo, multiple)
    return min(least, rounded_up(height, multiple)) * min(least, rounded_up(width, multiple))


def shape_window(halo: int, height: int, width: int, pixels: float, multiple: int) -> tuple[int, int]:
    """Choose rows and columns of a window of at most `pixels`, which must be at least `smallest_window`."""
    stride, least = multiple, smallest_side(halo, multiple)
    # A square window of side w computes (w / (w - 2 margin))^2 pixels per pixel kept.
    margin = rounded_up(halo, stride)
    enough = max(2 * margin / (1 - _ENOUGH_OVERLAP**-0.5), 2048)
    side = min(math.sqrt(pixels), enough)
    whole = rounded_up(height, stride), rounded_up(width, stride)
    rows, columns = min(whole[0], side), min(whole[1], side)
    if columns < side:
        rows = min(side * side / columns, whole[0])
    elif rows < side:
        columns = min(side * side / rows, whole[1])
    rows, columns = rows // stride * stride, columns // stride * stride
    return int(max(rows, min(least, whole[0]))), int(max(columns, min(least, whole[1])))


def window_bytes(info: BundleInfo, pixels: float) -> float:
    """Estimate the memory of a prediction besides the runtime, bytes: feature maps, idle memory, images, outputs.

    bytes = maps + max(min(2.5 maps, 250 MiB), 0.65 maps) + held, where maps and held are proportional to `pixels`.
    """
    maps = info.bytes_per_pixel * pixels
    idle = max(min(_KEPT_SHARE * maps, _KEPT_BYTES), _GAP_SHARE * maps)
    return maps + idle + _held_per_pixel(info) * pixels


def window_pixels(info: BundleInfo, memory: float) -> float:
    """Return the largest number of pixels of a window whose `window_bytes` fit into `memory`."""
    maps, held = info.bytes_per_pixel, _held_per_pixel(info)
    small = max(memory / ((1 + _KEPT_SHARE) * maps + held), (memory - _KEPT_BYTES) / (maps + held))
    return min(small, memory / ((1 + _GAP_SHARE) * maps + held))


def _held_per_pixel(info: BundleInfo) -> float:
    raw = {"uint8": 1, "uint16": 2, "float32": 4}[info.dtype] * info.bands
    images = 4 * info.bands + 3 * raw
    outputs = _FOLD_PIXEL_BYTES * info.folds + 3 * 4 + 3 * 4
    return images + outputs


def rounded_up(size: float, step: int) -> int:
    """Return the next multiple of `step`."""
    return math.ceil(size / step) * step
