"""Verify written rasters: read all of their blocks again."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.raster.opening import GDAL_ERRORS, open_dataset
from lim_keras.raster.windows import BLOCK, blocks


class Checksum:
    """CRC-32 of the blocks of a raster of `size` pixels a side, in the order of `lim_keras.raster.windows.blocks`."""

    def __init__(self, size: int = BLOCK) -> None:
        self.size, self.value = size, 0

    def add(self, values: NDArray[Any]) -> None:
        """Add a block (bands, height, width), or (height, width) of a raster of one band."""
        self.value = zlib.crc32(np.ascontiguousarray(values).data.cast("B"), self.value)


def read_blocks(path: Path, size: int = BLOCK) -> Checksum:
    """Read every block of every band, mask and overview of a raster; return the checksum of its pixels.

    Raises:
        OSError: the file cannot be read to its end.
    """
    try:
        with open_dataset(path) as dataset:
            levels = range(len(dataset.overviews(1)))
            checksum = _read(dataset, size)
        for level in levels:
            with open_dataset(path, overview_level=level) as overview:
                _read(overview, size)
    except (*GDAL_ERRORS, DataError) as error:
        raise OSError(errno.EIO, "what was written cannot be read again") from error
    return checksum


def _read(dataset: Any, size: int) -> Checksum:
    checksum, masked = Checksum(size), MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    for box in blocks(dataset.height, dataset.width, size):
        window = RasterWindow(box.left, box.top, box.width, box.height)
        checksum.add(dataset.read(window=window))
        if masked:
            dataset.dataset_mask(window=window)
    return checksum


def verify_raster(path: Path, checksum: Checksum) -> None:
    """Check that a raster can be read to its end and that its pixels have a checksum.

    Raises:
        OSError: the file cannot be read to its end, or its pixels differ.
    """
    if read_blocks(path, checksum.size).value != checksum.value:
        raise OSError(errno.EIO, "the file does not hold what was written")
