"""Valid regions: connected parts of a scene that hold data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window, plan_windows

_STRIP = 16
"""Rows of cells that are read at once."""

_COLUMNS = 128
"""Columns of cells that are read at once."""


@dataclass(frozen=True)
class ValidRegion:
    """A connected part of a scene that holds data.

    box: pixels, starting at multiples of `cell`. cells: (rows, columns) of the box, True inside the region.
    """

    box: Box
    cells: NDArray[np.bool_]
    cell: int

    def rows(self, size: int | tuple[int, int], halo: int) -> list[list[Window]]:
        """Plan windows in the scene's coordinates, row by row; those without a valid pixel are left out.

        size, halo: see `lim_keras.raster.windows.plan_windows`. Windows start on the grid of cells.
        """
        rows: dict[int, list[Window]] = {}
        for window in plan_windows(self.box.height, self.box.width, size=size, halo=halo, multiple=self.cell):
            core = window.core
            top, left = core.top // self.cell, core.left // self.cell
            bottom, right = -(-core.bottom // self.cell), -(-core.right // self.cell)
            if self.cells[top:bottom, left:right].any():
                rows.setdefault(core.top, []).append(window.shifted(self.box.top, self.box.left))
        return list(rows.values())


def find_valid_regions(scene: RasterReader, cell: int) -> list[ValidRegion]:
    """Find the valid regions of a scene, from top to bottom.

    Args:
        scene: is read once, in strips, unless it is known to be valid everywhere.
        cell: side of a cell, pixels, a multiple of the network's stride; regions are at least a cell apart.
    """
    height, width = scene.info.height, scene.info.width
    cells = np.concatenate(list(_cell_rows(scene, cell)))
    numbers, _ = ndimage.label(cells, np.ones((3, 3)))
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        box = Box(
            rows.start * cell, columns.start * cell, min(rows.stop * cell, height), min(columns.stop * cell, width)
        )
        regions.append(ValidRegion(box, numbers[rows, columns] == number, cell))
    return regions


def _cell_rows(scene: RasterReader, cell: int) -> Iterator[NDArray[np.bool_]]:
    """Cells (rows, columns), strip by strip, True where one of their pixels holds data."""
    height, width = scene.info.height, scene.info.width
    for top in range(0, height, _STRIP * cell):
        bottom = min(top + _STRIP * cell, height)
        lefts = range(0, width, _COLUMNS * cell)
        boxes = [Box(top, left, bottom, min(left + _COLUMNS * cell, width)) for left in lefts]
        yield np.concatenate([_cells(scene, box, cell) for box in boxes], axis=1)


def _cells(scene: RasterReader, box: Box, cell: int) -> NDArray[np.bool_]:
    rows, columns = np.arange(0, box.height, cell), np.arange(0, box.width, cell)
    if scene.everywhere_valid:
        return np.ones((len(rows), len(columns)), np.bool_)
    across = np.logical_or.reduceat(scene.valid(box), columns, axis=1)
    return np.asarray(np.logical_or.reduceat(across, rows, axis=0), np.bool_)
