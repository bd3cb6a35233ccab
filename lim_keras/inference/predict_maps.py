"""Prediction of a scene's maps: options, regions with data, window sizes; interrupted predictions resume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import HALO_TOLERANCE
from lim_keras.bundle.protocol import TENSORFLOW, RemoteModel, SceneModel, runtime_of
from lim_keras.bundle.window_size import default_memory
from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.inference.freed_memory import free_maps, return_freed_memory
from lim_keras.inference.maps import (
    Background,
    InputScaling,
    Maps,
    PredictAll,
    ValueScale,
    WindowPrediction,
    predict_windows,
    with_tta,
)
from lim_keras.inference.window_plan import PeakMemory, WindowGrid, plan_size, size_within, smaller_size
from lim_keras.progress import ProgressCallback
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.validity import Nodata
from lim_keras.raster.windows import Box, Window, window_rows

_CELL = 64  # windows and valid regions start at multiples of this many pixels, and of the network's stride
Write = Callable[[WindowPrediction], None]

_STRIP, _COLUMNS = 16, 128  # rows and columns of cells that are read at once


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """Options for reading, cutting and predicting a scene.

    Args:
        spread: also map the standard deviation of the folds.
        bands: bands to read: numbers from 1 on, descriptions or colours; None: all.
        nodata: pixels without data, see `lim_keras.raster.validity.Nodata`.
        scale: raw values (low, high) to map to the full range of the model's data type; None: no scaling.
        gsd_m: ground sample distance, metres, of a scene whose file does not record it.
        resample: warp a scene to square pixels of the ground sample distance of training, if the distances differ by
            more than a factor of 1.5, or the scene's pixels are stretched by more than 1.2:1 on the ground.
        tta: average over the eight symmetries of each window (test-time augmentation).
        exact: give windows the whole receptive field as halo; False: the smallest halo that was measured to change no
            probability by more than `HALO_TOLERANCE`, if the bundle has one.
        memory: bytes that the process may take; None: the default of the network (`default_memory`).
        tile: side of a window, pixels; None: as the memory allows.

    Raises:
        ConfigError: `gsd_m` is not a number above 0.
    """

    spread: bool = False
    bands: tuple[int | str, ...] | None = None
    nodata: Nodata = "file"
    scale: ValueScale | None = None
    gsd_m: float | None = None
    resample: bool = False
    tta: bool = False
    exact: bool = False
    memory: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        if self.gsd_m is not None and not 0 < self.gsd_m < math.inf:
            raise ConfigError(f"Invalid value for `gsd_m`. Expected metres, more than 0. Received: {self.gsd_m}.")


@dataclass(frozen=True)
class ValidRegion:
    """Connected region of a scene with data: its box, and the box's cells (rows, columns), True inside the region."""

    box: Box
    cells: NDArray[np.bool_]
    cell: int

    def rows(self, size: int | tuple[int, int], halo: int) -> Iterator[list[Window]]:
        """Plan windows on the grid of cells, row by row; those without data are left out. See `plan_windows`."""
        for row in window_rows(self.box.height, self.box.width, size=size, halo=halo, multiple=self.cell):
            if kept := [window.shifted(self.box.top, self.box.left) for window in row if self._holds(window.core)]:
                yield kept

    def _holds(self, core: Box) -> bool:
        top, left = core.top // self.cell, core.left // self.cell
        bottom, right = -(-core.bottom // self.cell), -(-core.right // self.cell)
        return bool(self.cells[top:bottom, left:right].any())


def find_valid_regions(scene: RasterReader, cell: int) -> list[ValidRegion]:
    """Find the valid regions of a scene, from top to bottom; they are at least a cell (`cell` pixels) apart."""
    height = scene.info.height
    cells = np.concatenate([valid_cells(scene, rows, cell) for rows in cell_strips(height, cell)])
    return join_cells(cells, cell, height, scene.info.width)


def cell_strips(height: int, cell: int) -> list[tuple[int, int]]:
    """Cut a scene of `height` pixels into strips for `valid_cells`: their first row, and the row after their last."""
    return [(top, min(top + _STRIP * cell, height)) for top in range(0, height, _STRIP * cell)]


def valid_cells(scene: RasterReader, rows: tuple[int, int], cell: int) -> NDArray[np.bool_]:
    """Read a strip of cells (rows, columns), True where one of their pixels holds data; `rows`: see `cell_strips`."""
    width = scene.info.width
    lefts = range(0, width, _COLUMNS * cell)
    boxes = [Box(rows[0], left, rows[1], min(left + _COLUMNS * cell, width)) for left in lefts]
    return np.concatenate([_cells(scene, box, cell) for box in boxes], axis=1)


def join_cells(cells: NDArray[np.bool_], cell: int, height: int, width: int) -> list[ValidRegion]:
    """Join cells (rows, columns) that hold data to the valid regions of a scene of this size, from top to bottom."""
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8), connectivity=8)
    found, first = np.unique(numbers, return_index=True)
    regions = []
    for number in found[np.argsort(first)].tolist():
        if number == 0:  # cells without data
            continue
        left, top, columns, rows = boxes[number, :4].tolist()
        bottom, right = min((top + rows) * cell, height), min((left + columns) * cell, width)
        inside = numbers[top : top + rows, left : left + columns] == number
        regions.append(ValidRegion(Box(top * cell, left * cell, bottom, right), inside, cell))
    return regions


def no_data(scene: RasterReader) -> DataError:
    """Return the error of a scene without data."""
    return DataError(f"{scene.name}: no pixel holds data. Check the file's nodata value, or give `nodata`.")


def _cells(scene: RasterReader, box: Box, cell: int) -> NDArray[np.bool_]:
    rows, columns = np.arange(0, box.height, cell), np.arange(0, box.width, cell)
    if scene.everywhere_valid:
        return np.ones((len(rows), len(columns)), np.bool_)
    across = np.logical_or.reduceat(scene.valid(box), columns, axis=1)
    return np.asarray(np.logical_or.reduceat(across, rows, axis=0), np.bool_)


def predict_maps(
    model: SceneModel,
    scene: RasterReader,
    folder: Path,
    *,
    options: MapOptions,
    identity: str = "",
    progress: ProgressCallback | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Predict the raw maps of a scene; memory holds windows only.

    Args:
        scene: reader of the model's bands.
        folder: folder of the maps; an interrupted prediction with the same identity is continued.
        identity: hash of all inputs of the maps.
        progress: receives the number of predicted pixels.

    Returns:
        The VRT of the maps (see `lim_keras.inference.maps`), and the layout of the windows: count, tile (rows and
        columns of a window), halo, pixels, islands (number of valid regions).

    Raises:
        ConfigError: the model cannot take windows of this size.
        DataError: no pixel holds data, too little memory, or a file cannot be read or written.
    """
    if runtime_of(model) == TENSORFLOW:
        return_freed_memory()
    info = model.info
    cell = math.lcm(_CELL, info.stride)
    regions = find_valid_regions(scene, cell)
    if not regions:
        raise no_data(scene)
    halo = info.halo_within(None if options.exact else HALO_TOLERANCE)
    size = plan_size(model, WindowGrid([region.box for region in regions], cell, halo), options)
    task = WindowTask(model, scene, regions, options, halo)
    maps = Maps(folder, scene.info, spread=options.spread, identity=identity, plan={"tile": list(size)})
    with maps:
        first = None
        if maps.done == 0 and task.is_measured:
            size, first = task.measured_size(size)
            maps.replan({"tile": list(size)})
        size = maps.plan["tile"]
        work = [(row, region) for region in regions for row in region.rows((size[0], size[1]), halo)]
        sizes = [sum(_pixels(window) for window in row) for row, _ in work]
        label, done = PurePath(scene.name).name, sum(sizes[: maps.done])
        with progress.begin(label, sum(sizes), done, unit="px") if progress else nullcontext():
            rows, before = [(row, region.box) for row, region in work[maps.done :]], maps.done
            task.predict_rows(
                rows, maps.write, commit=lambda number: maps.commit(before + number), first=first, progress=progress
            )
        free_maps(model)  # what follows needs memory, too
        layout = {"count": sum(len(row) for row, _ in work), "tile": list(size), "halo": halo, "pixels": sum(sizes)}
        return maps.write_vrt(), layout | {"islands": len(regions)}


@dataclass(frozen=True)
class WindowTask:
    """Prediction of the windows of a scene."""

    model: SceneModel
    scene: RasterReader
    regions: Sequence[ValidRegion]
    options: MapOptions
    halo: int

    @property
    def is_measured(self) -> bool:
        """True if windows are cut by the memory that they take."""
        fixed = self.options.tile is not None or getattr(self.model, "input_size", None) is not None
        return not fixed and not isinstance(self.model, RemoteModel)

    @property
    def cell(self) -> int:
        return math.lcm(_CELL, self.model.info.stride)

    @property
    def scaling(self) -> InputScaling:
        info = self.model.info
        return InputScaling(info.dtype, tuple(one.mean for one in info.statistics), self.options.scale)

    @property
    def predict_all(self) -> PredictAll:
        return with_tta(self.model.predict_all, self.cell) if self.options.tta else self.model.predict_all

    def predict(self, windows: Sequence[tuple[Window, Box]]) -> Iterator[WindowPrediction]:
        """Predict windows in order, each with the box of its valid region."""
        in_flight = self.model.in_flight if isinstance(self.model, RemoteModel) else 1
        return predict_windows(self.predict_all, self.scene, windows, self.scaling, in_flight)

    def predict_rows(
        self,
        rows: Sequence[tuple[Sequence[Window], Box]],
        write: Write,
        *,
        commit: Callable[[int], None] | None = None,
        first: WindowPrediction | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Predict rows of windows, and write them in a thread while the next ones are predicted.

        Args:
            rows: windows of each row, and the box of their valid region.
            write: receives each prediction, in order.
            commit: receives the number of complete rows after each row.
            first: prediction of a first window, used if its core is that of the first window of `rows`.
            progress: receives the number of predicted pixels.
        """
        windows = [(window, box) for row, box in rows for window in row]
        known = [first] if first is not None and windows and windows[0][0].core == first.core else []
        predictions = chain(known, self.predict(windows[len(known) :]))
        with Background() as background:
            for number, (row, _) in enumerate(rows, start=1):
                for _ in row:
                    background.run(_write, write, next(predictions), progress)
                if commit is not None:
                    background.run(commit, number)
            background.finish()

    def measured_size(self, size: tuple[int, int]) -> tuple[tuple[int, int], WindowPrediction]:
        """Find windows that stay within the memory; return their rows and columns, and the first one's prediction."""
        info, memory = self.model.info, self.options.memory
        grid = WindowGrid([region.box for region in self.regions], self.cell, self.halo)
        if memory is not None:
            size = size_within(memory, self.model, grid, self.options, self._try)
        meant = memory or default_memory(info.folds)
        while True:
            free_maps(self.model)  # maps of other sizes
            first = next(self.regions[0].rows(size, self.halo))[0]
            with PeakMemory() as watched:
                predicted = next(self.predict([(first, grid.regions[0])]))
            smaller = smaller_size(watched, size, memory, self.model, grid)
            if smaller == size:
                return size, predicted
            if watched.peak > meant:
                warnings.warn(
                    f"{PurePath(self.scene.name).name}: a window of {size[0]} x {size[1]} px took the process to "
                    f"{watched.peak / 2**20:.0f} MiB, more than the {meant / 2**20:.0f} MiB meant for it. "
                    f"Windows of {smaller[0]} x {smaller[1]} px are used.",
                    LimKerasWarning,
                    stacklevel=4,
                )
            size = smaller

    def _try(self, rows: int, columns: int) -> int:
        around = max((region.box for region in self.regions), key=lambda box: box.height * box.width)
        box = Box.sized(around.top, around.left, rows, columns).grown(0, around)
        pixels, _ = self.scaling.load(self.scene, Window(box, box), around)
        self.predict_all(pixels[np.newaxis])
        return box.height * box.width


def _write(write: Write, window: WindowPrediction, progress: ProgressCallback | None) -> None:
    write(window)
    if progress:
        progress.advance(window.core.height * window.core.width)


def _pixels(window: Window) -> int:
    return window.core.height * window.core.width
