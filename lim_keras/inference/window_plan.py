"""Size of the windows of a prediction, and the memory that a window takes, by measurement."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import psutil

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import DescribedModel, RemoteModel
from lim_keras.bundle.window_size import choose_window, default_pixels, rounded_up
from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.raster.opening import CACHE_BYTES
from lim_keras.raster.windows import Box, smallest_side

if TYPE_CHECKING:
    from lim_keras.inference.predict_maps import MapOptions

_SECONDS = 0.002  # between two looks at the memory
_MEBIBYTE = 2**20
_WASTEFUL = 8  # computed pixels for each one that is kept, above which windows are called small

Trial = Callable[[int, int], int]
"""Function that predicts a window of at most so many rows and columns, and returns its number of pixels."""


class PeakMemory:
    """Context manager that watches the memory of this process. `before` and `peak`: bytes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS):
            self.peak = max(self.peak, self._now())


def plan_size(
    model: DescribedModel, regions: Sequence[Box], options: MapOptions, *, cell: int, halo: int
) -> tuple[int, int]:
    """Return rows and columns of the windows before anything is measured.

    Args:
        regions: boxes of the valid regions.
        cell: step of the grid on which windows start, pixels.
        halo: pixels read beyond each core.

    Raises:
        ConfigError: the model cannot take windows of this size.
    """
    tile, memory = options.tile, options.memory
    fixed = getattr(model, "input_size", None)
    if fixed is not None and tile not in (None, fixed):
        raise ConfigError(
            f"Invalid value for `tile`. Expected {fixed}, the fixed input size of this model. Received: {tile}. "
            "Leave `tile` out."
        )
    height, width = max(box.height for box in regions), max(box.width for box in regions)
    if tile is not None:
        least = smallest_side(halo, cell)
        if tile < min(least, max(height, width)):
            raise ConfigError(
                f"Expected a `tile` of at least {least} px, which leaves a core between two halos of {halo} px. "
                f"Received: {tile} px."
            )
        return tile, tile
    if fixed is not None:
        return fixed, fixed
    if isinstance(model, RemoteModel):
        return model.choose_window(height, width, memory, cell, halo)
    return _chosen(regions, default_pixels(model.info, options.tta), cell, halo)


def _chosen(regions: Sequence[Box], pixels: float, cell: int, halo: int) -> tuple[int, int]:
    shapes = ((box.height, box.width) for box in regions)
    return choose_window(shapes, pixels=pixels, halo=halo, multiple=cell)


def size_within(
    memory: int, info: BundleInfo, regions: Sequence[Box], trial: Trial, *, cell: int, halo: int
) -> tuple[int, int]:
    """Choose windows for a given memory, by the memory that the smallest window takes.

    Small windows take more for each pixel than large ones, so that large ones take at most what is computed here.

    Raises:
        DataError: the smallest window takes more.
    """
    rows, columns = _chosen(regions, 0, cell, halo)
    with PeakMemory() as watched:
        predicted = trial(rows, columns)
    smallest = rows * columns
    each = (watched.peak - watched.before) / predicted + held_bytes(info)
    before = watched.before + CACHE_BYTES
    pixels = (memory - before) / each
    if pixels < smallest:
        needed = (before + each * smallest) / _MEBIBYTE
        raise DataError(
            f"Expected `memory` of at least {rounded_up(needed, 10)} MiB, for windows of {rows} x {columns} px, the "
            f"smallest with a core between two halos of {halo} px. Received: {memory / _MEBIBYTE:.0f} MiB."
        )
    size = _chosen(regions, pixels, cell, halo)
    _warn_of_small_windows(size, regions, memory, halo)
    return size


def _warn_of_small_windows(size: tuple[int, int], regions: Sequence[Box], memory: int, halo: int) -> None:
    """Warn if windows compute many times the pixels that they keep."""
    wholes = max(box.height for box in regions), max(box.width for box in regions)
    kept = [side - 2 * halo if side < whole else whole for side, whole in zip(size, wholes, strict=True)]
    ratio = math.prod(size) / max(math.prod(kept), 1)
    if ratio > _WASTEFUL:
        warnings.warn(
            f"Windows of {size[0]} x {size[1]} px fit into {memory / _MEBIBYTE:.0f} MiB. They compute {ratio:.0f} "
            f"pixels for each that they keep, because of halos of {halo} px. Raise `memory` for a faster prediction.",
            LimKerasWarning,
            stacklevel=5,
        )


def smaller_size(
    watched: PeakMemory,
    size: tuple[int, int],
    memory: int,
    info: BundleInfo,
    regions: Sequence[Box],
    *,
    cell: int,
    halo: int,
) -> tuple[int, int]:
    """Return the same size if a window of it stayed below `memory` bytes, else a smaller one, if there is one."""
    pixels = size[0] * size[1]
    taken = watched.peak - watched.before + held_bytes(info) * pixels + CACHE_BYTES
    # Data that a program holds besides are no reason for small windows.
    allowed = max(memory - watched.before, memory / 3)
    return size if taken <= allowed else _chosen(regions, pixels * allowed / taken, cell, halo)


def held_bytes(info: BundleInfo) -> int:
    """Return the bytes a pixel that are held besides the window under way.

    They are the raw images of the next window while it is read, and the maps of the last one while they are written.
    """
    raw = np.dtype(info.dtype).itemsize * info.bands
    maps = 3 * np.dtype(np.float32).itemsize
    return 2 * raw + 1 + 2 * maps
