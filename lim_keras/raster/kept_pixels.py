"""Keep the pixels of rasters on a network in a temporary file, so that none is fetched twice."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from lim_keras.raster.opening import GDAL_ERRORS, silenced

_ROWS, _SIDE = 64, 2048  # least rows of a cell of a raster stored in rows; largest side of other cells
_TILE = 256


class KeptPixels:
    """Open raster that fetches every block once; it stands in for the rasterio dataset, whose attributes it has.

    `read` and `read_masks` fetch the missing blocks of a window, write them to a temporary GeoTIFF and read that. If
    the disk is full, they read the raster itself from then on. One thread at a time may read.

    Args:
        remote: open rasterio dataset.

    Attributes:
        folder: folder of the temporary file, which no other process sees; None: the system's folder for such files.
    """

    folder: Path | None = None

    def __init__(self, remote: Any) -> None:
        self.remote = remote
        rows, columns = remote.block_shapes[0]
        in_rows = columns >= remote.width
        self._cell = (max(rows, _ROWS // rows * rows), columns) if in_rows else (min(rows, _SIDE), min(columns, _SIDE))
        shape = -(-remote.height // self._cell[0]), -(-remote.width // self._cell[1])
        self._there = np.zeros((2 * remote.count, *shape), np.bool_)  # bands, then their masks
        self._kept: Any = None
        self._usable = len(set(remote.dtypes)) == 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.remote, name)

    def close(self) -> None:
        """Close the raster and the temporary file."""
        self._drop()
        self.remote.close()

    def read(self, indexes: int | Sequence[int] | None = None, *, window: Window | None = None, **how: Any) -> Any:
        """Read pixels, as rasterio does. Overviews of the raster are used where its pixels are not there yet."""
        bands = list(self.remote.indexes) if indexes is None else [indexes] if isinstance(indexes, int) else indexes
        window = window or Window(0, 0, self.remote.width, self.remote.height)
        cells = self._cells(window)
        reduced = "out_shape" in how and self.remote.overviews(1)
        if reduced and not self._there[[band - 1 for band in bands]][:, *cells].all():
            return self.remote.read(indexes, window=window, **how)
        self._fetch(self._together(bands), cells)
        return self._read(indexes, window, how) if self._usable else self.remote.read(indexes, window=window, **how)

    def read_masks(self, indexes: int, *, window: Window) -> Any:
        """Read the mask of a band, as rasterio does."""
        number = self.remote.count + indexes
        self._fetch([number], self._cells(window))
        return self._read(number, window, {}) if self._usable else self.remote.read_masks(indexes, window=window)

    def _read(self, indexes: Any, window: Window, how: dict[str, Any]) -> Any:
        try:
            return self._kept.read(indexes, window=window, **how)
        except GDAL_ERRORS:  # the disk was full when GDAL wrote the last blocks
            self._give_up()
            if isinstance(indexes, int) and indexes > self.remote.count:
                return self.remote.read_masks(indexes - self.remote.count, window=window)
            return self.remote.read(indexes, window=window, **how)

    def _together(self, bands: Sequence[int]) -> list[int]:
        """Return the bands to fetch: all of them where the raster stores their pixels together."""
        together = self.remote.interleaving is Interleaving.pixel
        return list(self.remote.indexes) if together else list(bands)

    def _cells(self, window: Window) -> tuple[slice, slice]:
        """Return the rows and columns of the cells that a window touches."""
        (top, bottom), (left, right) = window.toranges()
        ends = (top, bottom, self.remote.height), (left, right, self.remote.width)
        rows, columns = (
            slice(max(int(start), 0) // size, -(-min(math.ceil(stop), length) // size))
            for (start, stop, length), size in zip(ends, self._cell, strict=True)
        )
        return rows, columns

    def _fetch(self, bands: Sequence[int], cells: tuple[slice, slice]) -> None:
        """Copy the missing cells to the temporary file, one read for each run of neighbours in a row."""
        if not self._usable:
            return
        layers = [band - 1 for band in bands]
        missing = np.asarray(~self._there[layers].all(axis=0))
        for row, first, last in _runs(missing, cells):
            window = self._window(row, first, last)
            values = self._fetched(bands, window)
            try:
                (self._kept or self._make()).write(values, bands, window=window)
            except (*GDAL_ERRORS, OSError):
                self._give_up()
                return
            self._there[layers, row, first:last] = True

    def _fetched(self, bands: Sequence[int], window: Window) -> Any:
        count = self.remote.count
        if bands[0] > count:
            return self.remote.read_masks([band - count for band in bands], window=window).astype(self.remote.dtypes[0])
        return self.remote.read(list(bands), window=window)

    def _window(self, row: int, first: int, last: int) -> Window:
        rows, columns = self._cell
        top, left = row * rows, first * columns
        right = min(last * columns, self.remote.width)
        return Window(left, top, right - left, min(rows, self.remote.height - top))

    def _make(self) -> Any:
        """Make the temporary file, without a name where the system can."""
        file, name = tempfile.mkstemp(dir=self.folder, prefix=".lim-keras.", suffix=".partial.tif")
        os.close(file)
        size = {"height": self.remote.height, "width": self.remote.width, "count": 2 * self.remote.count}
        tiles = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "interleave": "band"}
        how = {"compress": "zstd", "zstd_level": 1, "sparse_ok": True, "bigtiff": "yes", "num_threads": 1}
        with silenced(NotGeoreferencedWarning):
            kept = rasterio.open(name, "w+", driver="GTiff", dtype=self.remote.dtypes[0], **size, **tiles, **how)
        self._kept, self._name = kept, Path(name)
        with suppress(OSError):  # Windows deletes it at the end
            self._name.unlink()
        return kept

    def _give_up(self) -> None:
        """Read the raster itself from now on."""
        self._usable = False
        self._drop()

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(*GDAL_ERRORS):
                kept.close()
            self._name.unlink(missing_ok=True)


def _runs(missing: NDArray[np.bool_], cells: tuple[slice, slice]) -> Iterator[tuple[int, int, int]]:
    """Yield row, first and last + 1 column of each run of missing cells in a row."""
    rows, columns = cells
    for row in range(rows.start, rows.stop):
        edges = np.flatnonzero(np.diff(missing[row, columns], prepend=False, append=False)) + columns.start
        yield from ((row, first, last) for first, last in edges.reshape(-1, 2).tolist())
