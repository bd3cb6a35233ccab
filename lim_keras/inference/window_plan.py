"""Size of the windows of a prediction, and the memory that a window takes, by measurement."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

from lim_keras.bundle.protocol import DescribedModel, RemoteModel, SceneModel, runtime_of
from lim_keras.bundle.window_size import (
    choose_window,
    default_memory,
    default_pixels,
    held_bytes,
    program_bytes,
    rounded_up,
    window_bytes,
)
from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.inference.freed_memory import free_maps
from lim_keras.raster.opening import CACHE_BYTES
from lim_keras.raster.windows import Box, smallest_side

if TYPE_CHECKING:
    from lim_keras.inference.predict_maps import MapOptions

_SECONDS = 0.002  # between two looks at the memory
_MEBIBYTE = 2**20
_WASTEFUL = 8  # computed pixels for each one that is kept, above which windows are called small

_LARGER = 4  # times the pixels of the smallest window, of the second window that is measured
_MARGIN = 1.1  # of the memory that measured windows take, for what later windows take more

Trial = Callable[[int, int], int]
"""Function that predicts a window of at most so many rows and columns, and returns its number of pixels."""


class MemoryLimitError(DataError):
    """The smallest window takes more than the memory that was allowed."""


class WindowSizeError(ConfigError):
    """The model cannot take windows of the size that was asked for."""


class PeakMemory:
    """Context manager that watches the memory of this process. `before` and `peak`: bytes."""

    def __init__(self) -> None:
        self.before = self.peak = process_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, process_memory())

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS):
            self.peak = max(self.peak, process_memory())


def process_memory() -> int:
    """Return the resident memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class WindowGrid:
    """Regions, grid and halo of the windows of a scene.

    Attributes:
        regions: boxes of the valid regions.
        cell: step of the grid on which windows start, pixels.
        halo: pixels read beyond each core.
    """

    regions: Sequence[Box]
    cell: int
    halo: int

    @property
    def longest(self) -> tuple[int, int]:
        """Rows of the highest region, and columns of the widest."""
        return max(box.height for box in self.regions), max(box.width for box in self.regions)

    def size(self, pixels: float) -> tuple[int, int]:
        """Choose windows of at most so many pixels, or the smallest ones; return their rows and columns."""
        shapes = ((box.height, box.width) for box in self.regions)
        return choose_window(shapes, pixels=pixels, halo=self.halo, multiple=self.cell)

    @property
    def least_pixels(self) -> int:
        """Pixels of the smallest window that computes at most `_WASTEFUL` pixels for each one that it keeps."""
        share = math.sqrt(_WASTEFUL)
        side = rounded_up(2 * self.halo * share / (share - 1), self.cell)
        rows, columns = (min(side, rounded_up(length, self.cell)) for length in self.longest)
        return rows * columns


def plan_size(model: DescribedModel, grid: WindowGrid, options: MapOptions) -> tuple[int, int]:
    """Return rows and columns of the windows before anything is measured.

    Raises:
        WindowSizeError: the model cannot take windows of this size.
    """
    tile, memory = options.tile, options.memory
    fixed = getattr(model, "input_size", None)
    if fixed is not None and tile not in (None, fixed):
        raise WindowSizeError(
            f"Invalid value for `tile`. Expected {fixed}, the fixed input size of this model. Received: {tile}. "
            "Leave `tile` out."
        )
    if tile is not None:
        least = smallest_side(grid.halo, grid.cell)
        if tile < min(least, max(grid.longest)):
            raise WindowSizeError(
                f"Expected a `tile` of at least {least} px, which leaves a core between two halos of {grid.halo} px. "
                f"Received: {tile} px."
            )
        return tile, tile
    if fixed is not None:
        return fixed, fixed
    if isinstance(model, RemoteModel):
        return model.choose_window(*grid.longest, memory, grid.cell, grid.halo)
    return grid.size(default_pixels(model.info, runtime_of(model), tta=options.tta))


def size_within(memory: int, model: SceneModel, grid: WindowGrid, options: MapOptions, trial: Trial) -> tuple[int, int]:
    """Choose windows for a given memory, by the memory that a smallest and a larger window take.

    Raises:
        MemoryLimitError: the smallest window takes more.
    """
    rows, columns = size = grid.size(0)
    before = process_memory() + CACHE_BYTES
    each, fixed = float(held_bytes(model.info)), 0.0  # at least that much
    taken: list[tuple[int, int]] = []
    for _ in range(3):
        pixels = (memory - before - fixed) / each
        if pixels < rows * columns:
            needed = before + fixed + each * rows * columns
            if not taken:
                usual = window_bytes(model.info, runtime_of(model), tta=options.tta)
                needed = max(needed, program_bytes(model.info, runtime_of(model)) + usual * rows * columns)
            raise MemoryLimitError(
                f"Expected `memory` of at least {rounded_up(needed / _MEBIBYTE, 10)} MiB, for windows of {rows} x "
                f"{columns} px, the smallest with a core between two halos of {grid.halo} px. "
                f"Received: {memory / _MEBIBYTE:.0f} MiB."
            )
        if taken:
            larger = grid.size(min(pixels, _LARGER * rows * columns) if len(taken) == 1 else pixels)
            if larger == size:
                break
            size = larger
        if len(taken) == 2:
            break
        free_maps(model)
        with PeakMemory() as watched:
            predicted = trial(*size)
        # What was freed meanwhile may be more than the window took.
        taken.append((predicted, max(watched.peak + CACHE_BYTES - before, 0)))
        each, fixed = _line(taken)
        each = each * _MARGIN + held_bytes(model.info)
    _warn_of_small_windows(size, grid, memory)
    return size


def _line(taken: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the bytes a pixel, and the bytes of a window without pixels, by pixels and bytes of one or two windows."""
    pixels, size = taken[-1]
    if pixels == taken[0][0]:
        return size / pixels, 0.0
    each = (size - taken[0][1]) / (pixels - taken[0][0])
    each = min(max(each, size / pixels / 2), size / pixels)  # small windows may leave memory that a larger one takes
    return each, size - each * pixels


def _warn_of_small_windows(size: tuple[int, int], grid: WindowGrid, memory: int) -> None:
    """Warn if windows compute many times the pixels that they keep."""
    kept = [side - 2 * grid.halo if side < whole else whole for side, whole in zip(size, grid.longest, strict=True)]
    ratio = math.prod(size) / max(math.prod(kept), 1)
    if ratio > _WASTEFUL:
        warnings.warn(
            f"Windows of {size[0]} x {size[1]} px fit into {memory / _MEBIBYTE:.0f} MiB. They compute {ratio:.0f} "
            f"pixels for each that they keep, because of halos of {grid.halo} px. Raise `memory` for a faster "
            "prediction.",
            LimKerasWarning,
            stacklevel=5,
        )


def smaller_size(
    watched: PeakMemory, size: tuple[int, int], memory: int | None, model: SceneModel, grid: WindowGrid
) -> tuple[int, int]:
    """Return the same size if a window of it stayed below `memory` bytes, else a smaller one, if there is one.

    None: the default memory, which never makes windows so small that they compute many times the pixels they keep.
    """
    info, pixels = model.info, size[0] * size[1]
    limit = default_memory(info.folds) if memory is None else memory
    taken = watched.peak - watched.before + held_bytes(info) / 2 * pixels + CACHE_BYTES  # half of it is in the peak
    # Data that a program holds besides are no reason for small windows.
    allowed = max(limit - watched.before, limit - program_bytes(info, runtime_of(model)), limit / 3)
    if taken <= allowed:
        return size
    least = 0 if memory is not None else grid.least_pixels
    smaller = grid.size(max(pixels * allowed / taken, least))
    return smaller if math.prod(smaller) < pixels else size
