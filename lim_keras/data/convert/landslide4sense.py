"""Landslide4Sense: HDF5 files of 14 bands (data set `img`) and of their masks (data set `mask`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.convert.mask_labels import MaskRule
from lim_keras.data.convert.names import split_of
from lim_keras.data.convert.pairing import pair
from lim_keras.data.convert.pairs import check_size
from lim_keras.data.convert.sample import ConvertOptions, Drawn, Found, ImageHeader, Sample
from lim_keras.data.convert.source_files import SourceFiles
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.writer import write_raster

HDF5_ENDINGS = frozenset({".h5", ".hdf5", ".he5"})
_SHAPE, _GSD_M = (128, 128, 14), 10.0  # the published patches, resampled to 10 m
_KEPT = ("uint8", "uint16", "float32")


@dataclass(frozen=True, slots=True)
class Hdf5Image:
    """Image of an HDF5 file. `bands` are numbers from 1; empty: all."""

    path: Path
    bands: tuple[int, ...] = ()

    def header(self) -> ImageHeader:
        """Describe the image after its conversion."""
        height, width, bands = _shape(self.path)
        wrong = [band for band in self.bands if band > bands]
        if wrong:
            raise ConfigError(f"Invalid value for `bands`. Expected numbers 1 to {bands}. Received: {wrong[0]}.")
        return ImageHeader(width, height, len(self.bands) or bands, _type(self.path))

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write the bands as GeoTIFF."""
        pixels = _read(self.path, "img")
        if self.bands:
            pixels = pixels[..., [band - 1 for band in self.bands]]
        return [write_raster(folder / f"{name}.tif", pixels.astype(_type(self.path)))]


def find_landslide4sense(files: SourceFiles, options: ConvertOptions) -> Found:
    """List the labelled HDF5 images of a folder.

    Raises:
        ConfigError: h5py is not installed.
        DataError: no image has a mask.
    """
    _h5py()
    rule = MaskRule(options.landslide, options.ignore)
    pairing = pair(files.with_endings(HDF5_ENDINGS))
    samples = []
    for image, mask in pairing.pairs:
        path = files.path(image)
        samples.append(
            Sample(image, Hdf5Image(path, options.bands), partial(_draw, files.path(mask), rule), split_of(image))
        )
    if not samples:
        raise DataError(
            f"{files.root}: no HDF5 image has a mask. Expected img/image_1.h5 and mask/mask_1.h5, as in TrainData. "
            f"Found {files.shown()}."
        )
    if _shape_or_none(samples[0]) == _SHAPE:
        samples = [Sample(one.source, one.image, one.draw, one.split, _GSD_M) for one in samples]
    return Found(samples, pairing.left_out)


def _shape_or_none(sample: Sample) -> tuple[int, ...] | None:
    try:
        return _shape(sample.image.path) if isinstance(sample.image, Hdf5Image) else None
    except DataError:
        return None


def _draw(mask: Path, rule: MaskRule, height: int, width: int) -> Drawn:
    drawn = rule.array(_read(mask, "mask"), str(mask))
    check_size(drawn, height, width, mask)
    return drawn


def _h5py() -> Any:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError("HDF5 files need h5py. Install it: pip install 'lim-keras[hdf5]'.") from error
    return h5py


def _read(path: Path, name: str) -> NDArray[Any]:
    with _Opened(path, name) as item:
        return np.asarray(item[()])


def _shape(path: Path) -> tuple[int, int, int]:
    with _Opened(path, "img") as item:
        shape = (*item.shape, 1) if len(item.shape) == 2 else item.shape
    if len(shape) != 3 or 0 in shape:
        raise DataError(f"{path}: expected an image (height, width, bands). Received the shape {tuple(shape)}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _type(path: Path) -> str:
    with _Opened(path, "img") as item:
        name = str(item.dtype.name)
        if item.dtype.kind not in "uif":
            raise DataError(f"{path}: expected numbers. Received values of the type {name}")
    return name if name in _KEPT else "float32"


class _Opened:
    """Open data set of an HDF5 file; a context manager that turns errors of h5py into DataError."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    def __enter__(self) -> Any:
        try:
            self._file = _h5py().File(self._path)
        except OSError as error:
            raise DataError(f"{self._path}: no readable HDF5 file ({error})") from error
        item = self._file.get(self._name)
        if item is None or not hasattr(item, "shape"):
            found = ", ".join(self._file) or "nothing"
            self._file.close()
            raise DataError(f"{self._path}: expected a data set `{self._name}`. Found {found}")
        return item

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, OSError):
            raise DataError(f"{self._path}: a damaged HDF5 file ({error})") from error
