"""Pixel plane of a map: the page shows every scene in the pixels of its maps, without a map projection."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine

from lim_keras.raster.georeference import Floats, Georeference, Grid, RasterInfo, apply, inverse

CELL_PX = 512
"""Side of a cell of searched ground, pixels."""


@dataclass(frozen=True)
class Plane:
    """Grid of a scene's maps; points are (column, row), counted from the upper left corner.

    Attributes:
        width: columns.
        height: rows.
        transform: from pixels to the coordinates of the inventory.
        crs: coordinate reference system; "" if there is none.
        gsd_m: ground sample distance, metres; None if unknown.
    """

    width: int
    height: int
    transform: Affine
    crs: str
    gsd_m: float | None

    @classmethod
    def of(cls, info: RasterInfo) -> Plane:
        """Take the grid of a raster."""
        ground = Georeference.of(info)
        return cls(info.width, info.height, ground.transform, ground.crs, ground.gsd_m)

    @property
    def grid(self) -> Grid:
        """The grid, for readers of other rasters."""
        return Grid(self.crs, self.transform, self.width, self.height, self.gsd_m)

    def to_pixels(self, geometries: Any) -> Any:
        """Convert geometries from coordinates to pixels."""
        return shapely.transform(geometries, lambda points: apply(inverse(self.transform), points))

    def to_ground(self, geometries: Any) -> Any:
        """Convert geometries from pixels to coordinates."""
        return shapely.transform(geometries, lambda points: apply(self.transform, points))

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells of searched ground."""
        return math.ceil(self.height / CELL_PX), math.ceil(self.width / CELL_PX)

    def cell_bounds(self, cell: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a cell (row, column), pixels."""
        top, left = cell[0] * CELL_PX, cell[1] * CELL_PX
        return left, top, min(left + CELL_PX, self.width), min(top + CELL_PX, self.height)

    def cell_outline(self, cell: tuple[int, int]) -> Any:
        """Return the outline of a cell in coordinates."""
        return self.to_ground(shapely.box(*self.cell_bounds(cell)))

    def cell_walk(self) -> Iterator[tuple[int, int]]:
        """Yield all cells, row by row from the top, each second row backwards, so that neighbours follow each other."""
        rows, columns = self.cells
        for row in range(rows):
            for column in range(columns) if row % 2 == 0 else reversed(range(columns)):
                yield row, column


def cell_name(cell: tuple[int, int]) -> str:
    """Return the name of a cell, as `3-12`: row and column, counted from 1."""
    return f"{cell[0] + 1}-{cell[1] + 1}"


def cell_of_name(name: object) -> tuple[int, int] | None:
    """Return row and column of a named cell; None for a name that another program gave."""
    row, dash, column = str(name).partition("-")
    return (int(row) - 1, int(column) - 1) if dash and row.isdecimal() and column.isdecimal() else None


def bounds_of(geometries: Any) -> Floats:
    """Return left, top, right and bottom (n, 4) of geometries in pixels; NaN where there is none."""
    return np.asarray(shapely.bounds(geometries), np.float64).reshape(-1, 4)
