"""Counts of labelled and of landslide pixels in any box of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.tiles import IGNORED, LANDSLIDE
from lim_keras.progress import ProgressCallback
from lim_keras.raster.labels import LabelCounts
from lim_keras.raster.windows import Box
from lim_keras.tiling.scenes import TilingScene

_CELLS_PER_TILE, _SMALLEST_CELL = 8, 8


@dataclass(frozen=True)
class CountGrid:
    """Labelled and landslide pixels, summed over the cells of a coarse grid, so that few boxes have to be read.

    Attributes:
        scene: the scene.
        cell: side of a cell, pixels.
        sums: (2, rows + 1, columns + 1), summed over all cells above and to the left.
    """

    scene: TilingScene
    cell: int
    sums: NDArray[np.int64]

    @classmethod
    def measure(cls, scene: TilingScene, size: int, progress: ProgressCallback | None = None) -> Self:
        """Count the pixels of a scene block by block; image pixels are read only if some may hold no data.

        Args:
            scene: the scene on the grid of its tiles.
            size: side of a tile, pixels, which gives the size of the cells.
            progress: receives the number of counted pixels.
        """
        cell = max(size // _CELLS_PER_TILE, _SMALLEST_CELL)
        info = scene.info
        counts = np.zeros((2, -(-info.height // cell), -(-info.width // cell)), np.int64)
        for box in scene.blocks():
            mask = scene.mask(box)
            for part, chosen in zip(counts, (mask != IGNORED, mask == LANDSLIDE), strict=True):
                _add(part, chosen, box, cell)
            if progress is not None:
                progress.advance(mask.size)
        sums = np.pad(counts.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        return cls(scene, cell, sums)

    @property
    def whole(self) -> LabelCounts:
        """Counts of the whole scene."""
        return _counts(self.sums[:, -1, -1])

    def bounds(self, box: Box) -> tuple[LabelCounts, LabelCounts]:
        """Return the smallest and the largest possible counts of a box, from the cells that it holds and touches."""
        info, cell = self.scene.info, self.cell
        outer = Box(box.top // cell, box.left // cell, -(-box.bottom // cell), -(-box.right // cell))
        bottom = outer.bottom if box.bottom == info.height else box.bottom // cell
        right = outer.right if box.right == info.width else box.right // cell
        inner = Box(-(-box.top // cell), -(-box.left // cell), bottom, right)
        least, most = self._sum(inner), self._sum(outer)
        height = min(outer.bottom * cell, info.height) - outer.top * cell
        width = min(outer.right * cell, info.width) - outer.left * cell
        area, missing = box.height * box.width, height * width - most.labelled
        return (
            LabelCounts(least.landslide, max(least.labelled, area - missing)),
            LabelCounts(min(most.landslide, area), min(most.labelled, area)),
        )

    def count(self, box: Box) -> LabelCounts:
        """Count the pixels of a box exactly."""
        low, high = self.bounds(box)
        if low == high:
            return low
        mask = self.scene.mask(box)
        return LabelCounts(int((mask == LANDSLIDE).sum()), int((mask != IGNORED).sum()))

    def has_share(self, box: Box, share: float) -> bool:
        """Return whether at least a share of the pixels of a box is labelled."""
        needed = share * box.height * box.width
        low, high = self.bounds(box)
        if low.labelled >= needed or high.labelled < needed:
            return low.labelled >= needed
        return self.count(box).labelled >= needed

    def _sum(self, cells: Box) -> LabelCounts:
        if cells.height <= 0 or cells.width <= 0:
            return LabelCounts(0, 0)
        (top, left, bottom, right), sums = (cells.top, cells.left, cells.bottom, cells.right), self.sums
        total = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
        return _counts(total)


def _counts(sums: NDArray[np.int64]) -> LabelCounts:
    labelled, landslide = sums.tolist()
    return LabelCounts(landslide, labelled)


def _add(counts: NDArray[np.int64], chosen: NDArray[np.bool_], box: Box, cell: int) -> None:
    """Add the chosen pixels (height, width) of a box to the counts of their cells."""
    rows = np.r_[box.top, np.arange(box.top // cell + 1, -(-box.bottom // cell)) * cell] - box.top
    columns = np.r_[box.left, np.arange(box.left // cell + 1, -(-box.right // cell)) * cell] - box.left
    across = np.add.reduceat(chosen.view(np.uint8), columns, axis=1, dtype=np.uint32)
    found = np.add.reduceat(across, rows, axis=0, dtype=np.int64)
    top, left = box.top // cell, box.left // cell
    counts[top : top + found.shape[0], left : left + found.shape[1]] += found
