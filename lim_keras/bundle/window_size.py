"""Window size for a given memory."""

from __future__ import annotations

import math
import re

import psutil

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.windows import smallest_side

_RUNTIME_BYTES = 855e6
"""What TensorFlow and the geographic libraries take before the first network."""

_GRAPH_BYTES = 60
"""What TensorFlow makes of each byte of a graph's file, besides the variables. Measured on one and five MobileNetV2 (83
MB for each more) and small encoders (22 MB), and on VGG16."""

LITERT_RUNTIME_BYTES = 400e6
"""What LiteRT, the geographic libraries and a file's networks take before the first window."""

FREE_SHARE = 0.4
"""Share of the memory that is free now which a prediction may take if nothing else is said."""

_GAPS_SHARE = 0.65
"""What lies idle between feature maps of several sizes, over what they need themselves. With oneDNN, whose allocator
takes memory in regions of doubled size, up to 0.58 was measured, and next to nothing with slightly smaller windows."""

_KEPT_BYTES = 250 * 2**20
"""At least so much is counted as idle: the C library keeps blocks that are free again but too small to go back to the
system."""

_KEPT_SHARE = 2.5
"""Less is counted, so many times the feature maps, where windows are so small that all of their maps are such blocks.
Measured."""

_FOLD_PIXEL_BYTES = 8
"""What each fold says of a pixel, in float32: by itself, and stacked with the others."""

_ENOUGH_WASTE = 1.25
"""Windows need not be so large that less than this many pixels are computed for each one that is kept."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of "2G", "1500M", "1.5 GiB" or a plain number of bytes.

    Raises:
        ConfigError: not such a size.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"Invalid value for `memory`. Expected a size such as 2G. Received: {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def free_memory() -> int:
    """Bytes that a prediction may take if nothing else is said."""
    return int(psutil.virtual_memory().available * FREE_SHARE)


def choose_window(
    info: BundleInfo, height: int, width: int, memory: int, multiple: int, runtime: float | None = None
) -> tuple[int, int]:
    """Rows and columns of a window that fit into so much memory.

    Args:
        info: of the model.
        height, width: of the scene; a narrow one gets windows of its own width, and longer ones.
        memory: bytes that the whole process may take.
        multiple: grid that windows start on, pixels.
        runtime: bytes of them that are taken before the first window; None: those of TensorFlow and the networks.

    Raises:
        DataError: not enough for the smallest window that holds a core between two halos.
    """
    runtime = tensorflow_bytes(info) if runtime is None else runtime
    pixels = window_pixels(info, memory - runtime)
    smallest = smallest_window(info.halo, height, width, multiple)
    if pixels < smallest:
        needed = math.ceil((window_bytes(info, smallest) + runtime) / 2**20)
        least = smallest_side(info.halo, multiple)
        raise DataError(
            f"Expected at least {needed} MiB of memory for windows of {least} px, the smallest that this model's halo "
            f"of {info.halo} px leaves a core in. Received: {memory / 2**20:.0f} MiB. Raise `memory`."
        )
    return shape_window(info.halo, height, width, pixels, multiple)


def tensorflow_bytes(info: BundleInfo) -> float:
    """Bytes that a process with a bundle's networks in TensorFlow takes before the first window, by their files."""
    folder = "ensemble/" if info.folds > 1 else "fold_0/"
    sizes = {name: record.bytes for name, record in info.files.items() if name.startswith(folder)}
    graphs = sum(size for name, size in sizes.items() if name.endswith(".pb"))
    return _RUNTIME_BYTES + _GRAPH_BYTES * graphs + sum(sizes.values())


def smallest_window(halo: int, height: int, width: int, multiple: int) -> int:
    """Pixels of the smallest window that a scene can be cut into: the whole scene, or a core between two halos."""
    least = smallest_side(halo, multiple)
    return min(least, _rounded_up(height, multiple)) * min(least, _rounded_up(width, multiple))


def shape_window(halo: int, height: int, width: int, pixels: float, multiple: int) -> tuple[int, int]:
    """Rows and columns of a window of at most `pixels`, which are at least those of `smallest_window`."""
    stride, least = multiple, smallest_side(halo, multiple)
    # Waste of a square tile t: (t / (t - 2 halo))^2.
    margin = _rounded_up(halo, stride)
    enough = max(2 * margin / (1 - _ENOUGH_WASTE**-0.5), 2048)
    side = min(math.sqrt(pixels), enough)
    rows, columns = min(_rounded_up(height, stride), side), min(_rounded_up(width, stride), side)
    if columns < side:
        rows = min(side * side / columns, _rounded_up(height, stride))
    elif rows < side:
        columns = min(side * side / rows, _rounded_up(width, stride))
    return max(_rounded_down(rows, stride), min(least, _rounded_up(height, stride))), max(
        _rounded_down(columns, stride), min(least, _rounded_up(width, stride))
    )


def window_bytes(info: BundleInfo, pixels: float) -> float:
    """Bytes that a prediction takes beyond the runtime's, by the pixels of a window: maps, images read ahead, answers.

    Fitted to peaks of whole predictions, with oneDNN's kernels (AVX-512) and with Eigen's (AVX2). A feature map of less
    than 32 MiB may stay with the C library when it is freed, which costs most with small windows.
    """
    maps = info.bytes_per_pixel * pixels
    idle = max(min(_KEPT_SHARE * maps, _KEPT_BYTES), _GAPS_SHARE * maps)
    return maps + idle + _held_per_pixel(info) * pixels


def window_pixels(info: BundleInfo, memory: float) -> float:
    """Most pixels of a window for which so many bytes do: the inverse of `window_bytes`."""
    maps, held = info.bytes_per_pixel, _held_per_pixel(info)
    small = max(memory / ((1 + _KEPT_SHARE) * maps + held), (memory - _KEPT_BYTES) / (maps + held))
    return min(small, memory / ((1 + _GAPS_SHARE) * maps + held))


def _held_per_pixel(info: BundleInfo) -> float:
    raw = {"uint8": 1, "uint16": 2, "float32": 4}[info.dtype] * info.bands
    images = 4 * info.bands + 3 * raw
    said = _FOLD_PIXEL_BYTES * info.folds + 3 * 4 + 3 * 4
    return images + said


def _rounded_up(size: float, step: int) -> int:
    return math.ceil(size / step) * step


def _rounded_down(size: float, step: int) -> int:
    return int(size // step) * step
