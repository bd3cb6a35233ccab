"""Images of other data sets: copied as they are where `read_tiles` reads them, else written as GeoTIFF."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.convert.sample import ImageHeader
from lim_keras.errors import DataError
from lim_keras.raster.images import (
    IMAGE_DTYPES,
    Format,
    file_format,
    read_decoded_image,
    read_info,
    read_orientation,
)
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster

Array = NDArray[Any]
_ENDINGS: dict[Format, str] = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif"}
_TIFF_SIDECARS = {".aux.xml": ".aux.xml", ".msk": ".msk"}
_WORLD_FILES = (".tfw", ".TFW", ".tifw", ".wld")
_SWAPPED = range(5, 9)
"""EXIF orientations with rows and columns exchanged."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Image file of a data set.

    Args:
        path: the file.
        as_shown: its labels lie on the image as viewers show it, turned by the EXIF orientation; else as it is stored.
    """

    path: Path
    as_shown: bool = False

    def header(self) -> ImageHeader:
        """Describe the image after its conversion."""
        info = read_info(self.path) if self._kind() else self._other_info()
        size = (info.width, info.height)
        if self._orientation() in _SWAPPED:
            size = (info.height, info.width)
        dtype = info.dtype if info.dtype in IMAGE_DTYPES else "float32"
        return ImageHeader(*size, info.bands, dtype, info.crs, info.transform)

    def write(self, folder: Path, name: str) -> list[Path]:
        """Copy the image, or write it as GeoTIFF if it has another format, data type or an EXIF orientation."""
        kind = self._kind()
        if kind and read_info(self.path).dtype in IMAGE_DTYPES and read_orientation(self.path) == 1:
            return self._copy(folder / f"{name}{_ENDINGS[kind]}", kind)
        if kind and self._is_plain():
            decoded = read_decoded_image(self.path)
            pixels, valid = decoded.pixels, decoded.valid
        else:
            pixels, valid = self._other_pixels()
        turned = self._orientation()
        pixels, valid = turn(pixels, turned), turn(valid, turned)
        if pixels.dtype.name not in IMAGE_DTYPES:
            pixels = pixels.astype(np.float32)
        header = self.header()
        return [
            write_raster(
                folder / f"{name}.tif",
                pixels,
                crs=header.crs,
                transform=header.transform,
                valid=None if valid.all() else valid,
            )
        ]

    def _copy(self, target: Path, kind: Format) -> list[Path]:
        written = [target]
        shutil.copyfile(self.path, target)
        if kind == "tiff":
            endings = {self.path.with_name(f"{self.path.name}{one}"): f"{target.name}{one}" for one in _TIFF_SIDECARS}
            endings |= {self.path.with_suffix(one): f"{target.stem}.tfw" for one in _WORLD_FILES}
            for sidecar, copied in endings.items():
                if sidecar.is_file():
                    shutil.copyfile(sidecar, target.with_name(copied))
                    written.append(target.with_name(copied))
        return list(dict.fromkeys(written))

    def _kind(self) -> Format | None:
        """Return the format; None for one that `read_tiles` does not read."""
        with suppress(DataError):
            return file_format(self.path)
        return None

    def _is_plain(self) -> bool:
        return read_info(self.path).dtype in IMAGE_DTYPES

    def _orientation(self) -> int:
        return read_orientation(self.path) if self.as_shown and self._kind() else 1

    def _other_info(self) -> Any:
        with explained(self.path), RasterReader(self.path) as reader:
            return reader.info

    def _other_pixels(self) -> tuple[Array, NDArray[np.bool_]]:
        with explained(self.path), RasterReader(self.path) as reader:
            return reader.image()


def turn(array: Array, orientation: int) -> Array:
    """Turn an array (height, width[, bands]) by its EXIF orientation, 1 to 8, as viewers show it."""
    if orientation in _SWAPPED:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def shown_or_stored(path: Path, size: tuple[int, int] | None) -> bool:
    """Return whether labels lie on the image as viewers show it (True), or on the pixels as they are stored (False).

    Args:
        path: image file; True is returned for a damaged one.
        size: (width, height) of the labels; None: unknown.
    """
    with suppress(DataError):
        if size is not None and read_orientation(path) in _SWAPPED:
            info = read_info(path, measured=False)
            return (info.width, info.height) != size or info.width == info.height
    return True
