"""Georeference of a raster: affine, CRS, longitude and latitude."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from lim_keras.errors import DataError
from lim_keras.raster.reader import RasterInfo

Floats = NDArray[np.float64]

NO_LABEL = 255
"""Value of a mask's pixels without data."""

BLOCK = 1024


@dataclass(frozen=True)
class Ground:
    """Where a scene's pixels lie; a point is (column, row), counted from the scene's upper left corner.

    matrix: pixels to units of the CRS. A scene without a place gets (column, -row): so QGIS lays out its picture.
    crs: "" where there is none. gsd_m: ground sample distance in metres, None where it is unknown.
    """

    matrix: Affine
    crs: str
    gsd_m: float | None

    @classmethod
    def of(cls, info: RasterInfo, gsd_m: float | None = None) -> Ground:
        """The ground of a raster. gsd_m: only for one whose file does not say where it lies."""
        if info.transform is None:
            return cls(Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "", gsd_m)
        return cls(info.transform, info.crs, info.gsd_m or gsd_m)

    @cached_property
    def to_degrees(self) -> Transformer | None:
        """CRS to longitude and latitude (WGS 84); None where there is no CRS, or one without a place on the Earth."""
        if not self.crs:
            return None
        try:
            return Transformer.from_crs(self.crs, "OGC:CRS84", always_xy=True)
        except ProjError:
            return None

    @property
    def scale_m(self) -> float:
        """Metres a unit of the CRS, for a scene that longitude and latitude are not known of; NaN where unknown."""
        return math.nan if self.gsd_m is None else self.gsd_m / math.sqrt(abs(self.matrix.determinant))

    def place(self, points: Floats) -> Floats:
        """Points (n, 2) in the scene's CRS."""
        return apply(self.matrix, points)

    def degrees(self, points: Floats) -> Floats:
        """Points (n, 2) as longitude and latitude, for a scene where `to_degrees` is known."""
        if self.to_degrees is None:
            raise ValueError("Expected a scene with a CRS.")
        placed = self.place(points)
        return np.stack(self.to_degrees.transform(placed[:, 0], placed[:, 1]), axis=-1).reshape(-1, 2)


def apply(matrix: Affine, points: Floats) -> Floats:
    """Points (n, 2) through an affine matrix. Written out, for the operators of affine 2 and affine 3 differ."""
    x, y = points[:, 0], points[:, 1]
    return np.stack([matrix.a * x + matrix.b * y + matrix.c, matrix.d * x + matrix.e * y + matrix.f], axis=-1)


def inverse(matrix: Affine) -> Affine:
    """From what an affine matrix gives back to what it was given."""
    size = matrix.a * matrix.e - matrix.b * matrix.d
    a, b, d, e = matrix.e / size, -matrix.b / size, -matrix.d / size, matrix.a / size
    return Affine(a, b, -(a * matrix.c + b * matrix.f), d, e, -(d * matrix.c + e * matrix.f))


def shifted(matrix: Affine, column: float, row: float, step: float = 1) -> Affine:
    """The matrix of a raster that begins at a pixel of another one, with pixels `step` times as large."""
    x, y = apply(matrix, np.array([[column, row]], np.float64))[0]
    return Affine(matrix.a * step, matrix.b * step, x, matrix.d * step, matrix.e * step, y)


def border(window: Window, points: int = 32) -> Floats:
    """Points (4 * points, 2) along the border of a window, in pixels: where it bends in another CRS, they tell."""
    along = np.arange(points) / points
    sides = ((along, 0 * along), (1 + 0 * along, along), (1 - along, 1 + 0 * along), (0 * along, 1 - along))
    unit = np.concatenate([np.stack(side, axis=-1) for side in sides])
    return np.asarray(unit * (window.width, window.height) + (window.col_off, window.row_off), np.float64)


def strips(info: RasterInfo, block: int = BLOCK) -> Iterator[list[Window]]:
    """The blocks of a raster, a list for each row of them."""
    for top in range(0, info.height, block):
        height = min(block, info.height - top)
        yield [Window(left, top, min(block, info.width - left), height) for left in range(0, info.width, block)]


@contextmanager
def open_raster(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open any raster that GDAL reads.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path, sharing=False)
    except RasterioError as error:
        raise _unreadable(Path(path), error) from error
    with source:
        yield source


def read_window(source: Any, bands: int | list[int], window: Window) -> NDArray[Any]:
    """Pixels of a window, (height, width) of one band or (bands, height, width) of a list.

    Raises:
        DataError: the file is truncated or damaged.
    """
    with explained(Path(source.name)):
        return np.asarray(source.read(bands, window=window))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn rasterio's errors into ours."""
    try:
        yield
    except RasterioError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error.__cause__ or error).splitlines()[0]
    return DataError(f"{path}: cannot be read; the file is missing, truncated or damaged ({reason}). Replace it.")
