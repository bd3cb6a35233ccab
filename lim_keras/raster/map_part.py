"""Write a part of a scene's maps as a GeoTIFF, window by window."""

from __future__ import annotations

import errno
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.raster.opening import GDAL_ERRORS, open_dataset
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import MAP_NODATA

_LARGEST_BLOCK, _SMALLEST_BLOCK = 512, 16  # side of a block, pixels; TIFF needs multiples of 16


class MapPart:
    """Context manager that writes maps of some boxes of a scene; all other pixels stay without data.

    The file has no georeference. It is sparse, compressed, and divided into blocks on whose edges all boxes begin, so
    that no block is written twice unless boxes overlap.

    Args:
        path: file to write.
        box: area of the file in the scene's pixels.
        boxes: boxes that will be written, inside `box`.
        names: descriptions of the bands, Float32 with nodata -1.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, box: Box, boxes: Sequence[Box], names: Sequence[str]) -> None:
        self._path, self._box, self._names = path, box, tuple(names)
        self._block = _block_side(box, boxes)
        self._written: list[tuple[Box, int]] = []
        self._file: Any = None

    def __enter__(self) -> Self:
        size = {"width": self._box.width, "height": self._box.height, "count": len(self._names)}
        layout = {"tiled": True, "blockxsize": self._block, "blockysize": self._block, "interleave": "band"}
        coding = {"compress": "zstd", "zstd_level": 1, "sparse_ok": True, "bigtiff": "if_safer"}
        kind = {"driver": "GTiff", "dtype": "float32", "nodata": MAP_NODATA}
        try:
            self._file = open_dataset(self._path, "w", **size, **layout, **coding, **kind)
            self._file.descriptions = self._names
        except GDAL_ERRORS as error:
            raise _failed(error) from error
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
        except GDAL_ERRORS as failure:
            raise _failed(failure) from failure

    def write(self, box: Box, values: NDArray[np.float32]) -> None:
        """Write the values (bands, height, width) of a box of the scene."""
        inside = box.inside(self._box)
        try:
            self._file.write(values, window=_window(inside))
        except GDAL_ERRORS as error:
            raise _failed(error) from error
        self._written.append((inside, _checksum(values)))

    def verify(self) -> None:
        """Read the closed file again, and compare it with what was written.

        Boxes that a later box overlaps are read, but not compared.

        Raises:
            OSError: the file cannot be read to its end, or its pixels differ.
        """
        edges = np.array([(box.top, box.left, box.bottom, box.right) for box, _ in self._written]).reshape(-1, 4)
        try:
            with open_dataset(self._path) as file:
                for number, (box, checksum) in enumerate(self._written, start=1):
                    same = _checksum(file.read(window=_window(box))) == checksum
                    if not same and not _overlaps(box, edges[number:]):
                        raise OSError(errno.EIO, "the file does not hold what was written")
        except (*GDAL_ERRORS, DataError) as error:  # GDAL closes a file on a full disk without an error
            raise OSError(errno.EIO, "what was written cannot be read again, as on a full disk") from error


def _block_side(box: Box, boxes: Sequence[Box]) -> int:
    """Return the largest power of two that divides the distances of all boxes from the corner, within TIFF's limits."""
    step = math.gcd(*(one.top - box.top for one in boxes), *(one.left - box.left for one in boxes))
    return min(max(step & -step, _SMALLEST_BLOCK), _LARGEST_BLOCK) if step else _LARGEST_BLOCK


def _overlaps(box: Box, edges: NDArray[np.int64]) -> bool:
    top, left, bottom, right = edges.T
    return bool(((top < box.bottom) & (bottom > box.top) & (left < box.right) & (right > box.left)).any())


def _checksum(values: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data.cast("B"))


def _window(box: Box) -> RasterWindow:
    return RasterWindow(box.left, box.top, box.width, box.height)


def _failed(error: Exception) -> OSError:
    """Convert an error of GDAL, which does not tell whether the disk is full."""
    return OSError(errno.EIO, " ".join(str(error.__cause__ or error).split()))
