"""Read a scene window by window."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import cv2
import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.raster.reader import RasterInfo, read_scene_info
from lim_keras.raster.windows import Box

Pixels = NDArray[Any]

Predict = Callable[[Pixels], NDArray[np.floating[Any]]]
"""Raw pixels (n, height, width, bands) to the probability of landslide (n, height, width), 0..1."""

Nodata = float | Literal["file", "none"]
"""A value, or what the file itself says (nodata value, mask, alpha), or nothing: every finite pixel is data."""

FILL_REACH = 256
"""Pixels without data show their nearest pixel with data up to this distance, in pixels."""


@dataclass(frozen=True)
class Grid:
    """A north-up raster's place: crs in any form that rasterio takes, transform, and size in pixels."""

    crs: str
    transform: rasterio.Affine
    width: int
    height: int
    gsd_m: float | None


class SceneReader:
    """An open raster that is read in boxes, so that memory does not grow with the scene; a context manager.

    `info` is what `lim_keras.raster.reader.read_scene_info` says of the file; with a grid, of the file on that grid.

    Args:
        path: the file.
        bands: those to read, by number from 1 on, by description or, without one, by colour; None: all but alpha.
        nodata: which pixels hold no data.
        grid: read the scene warped onto this grid, bilinearly.

    Raises:
        DataError: the file cannot be opened or has no such band, the bands are of several data types or complex, or a
            box cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        bands: Sequence[int | str] | None = None,
        nodata: Nodata = "file",
        grid: Grid | None = None,
    ) -> None:
        self._nodata = nodata
        info = read_scene_info(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = rasterio.open(path, sharing=False)
        self.bands = _band_numbers(self._file, path, bands)
        self._dataset = self._file if grid is None else _warped(self._file, grid, nodata)
        self.info: RasterInfo = replace(info, bands=len(self.bands), dtype=_common_dtype(self._file, path, self.bands))
        if grid is not None:
            place = {"crs": grid.crs, "transform": grid.transform, "gsd_m": grid.gsd_m}
            self.info = replace(self.info, width=grid.width, height=grid.height, **place)
        self.needs_warping = self.info.transform is None and bool(self._file.gcps[0] or self._file.rpcs)
        """Whether ground control points or rational polynomial coefficients alone say where the scene lies."""
        self._lock = threading.Lock()
        self.everywhere_valid = self._known_valid()
        """Whether it is known without reading that every pixel holds data."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:  # a thread that reads ahead may be in the middle of a window
            if self._dataset is not self._file:
                self._dataset.close()
            self._file.close()

    def _known_valid(self) -> bool:
        if np.dtype(self.info.dtype).kind == "f" or self._dataset is not self._file:
            return False
        flags = [self._file.mask_flag_enums[band - 1] for band in self.bands]
        return self._nodata == "none" or (self._nodata == "file" and all(MaskFlags.all_valid in one for one in flags))

    def pixels(self, box: Box) -> Pixels:
        """Pixels (height, width, bands) of a box as they are stored."""
        pixels = np.empty((box.height, box.width, len(self.bands)), self.info.dtype)
        # GDAL puts the bands side by side as it reads; to do so afterwards would take another copy.
        self._read(self._dataset.read, box, indexes=self.bands, out=np.moveaxis(pixels, -1, 0))
        return pixels

    def image(self, box: Box) -> tuple[Pixels, NDArray[np.bool_]]:
        """Pixels of a box, and (height, width) True where they hold data, all of them finite."""
        pixels = self.pixels(box)
        return pixels, self._valid(box, pixels)

    def valid(self, box: Box) -> NDArray[np.bool_]:
        """Which pixels (height, width) of a box hold data."""
        needs_pixels = np.dtype(self.info.dtype).kind == "f" or isinstance(self._nodata, float)
        return self._valid(box, self.pixels(box) if needs_pixels else None)

    def filled(self, box: Box, around: Box, beyond: ArrayLike) -> tuple[Pixels, NDArray[np.bool_]]:
        """Pixels of a box without a gap, and (height, width) True where they hold data.

        What a gap shows depends on the pixels within FILL_REACH of it alone, not on the box that is read.

        Args:
            box: what to read.
            around: pixels outside of this box are not looked at.
            beyond: value of each band farther than FILL_REACH from any data.
        """
        pixels, valid = self.image(box)
        if valid.all():
            return pixels, valid
        larger = Box(
            max(box.top - FILL_REACH, around.top),
            max(box.left - FILL_REACH, around.left),
            min(box.bottom + FILL_REACH, around.bottom),
            min(box.right + FILL_REACH, around.right),
        )
        inner = box.inside(larger).slices
        return fill_nodata(*self.image(larger), reach=FILL_REACH, beyond=beyond)[inner], valid

    def _valid(self, box: Box, pixels: Pixels | None) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = np.ones((box.height, box.width), np.bool_)
        if self._dataset is not self._file:  # a mask made of alpha exists for whole numbers only
            alpha = self._dataset.colorinterp.index(ColorInterp.alpha) + 1
            valid = self._read(self._dataset.read, box, indexes=alpha) > 0
        elif self._nodata == "file" and not self.everywhere_valid:
            valid = self._read(self._dataset.dataset_mask, box) > 0
        if pixels is None:
            return valid
        if isinstance(self._nodata, float) and np.isfinite(self._nodata):
            valid &= (pixels != self._nodata).any(axis=-1)
        return valid & np.isfinite(pixels).all(axis=-1) if pixels.dtype.kind == "f" else valid

    def _read(self, read: Callable[..., Pixels], box: Box, **options: Any) -> Pixels:
        try:
            with self._lock:  # GDAL's datasets serve one thread at a time
                if self._dataset.closed:
                    raise DataError(f"{self.info.path}: cannot be read any more, as it was closed. Open it again.")
                return read(window=RasterWindow(box.left, box.top, box.width, box.height), **options)
        except RasterioError as error:
            raise DataError(
                f"{self.info.path}: rows {box.top} to {box.bottom}, columns {box.left} to {box.right} cannot be read; "
                f"the file is truncated or damaged ({error.__cause__ or error}). Replace it."
            ) from error


def _band_numbers(file: Any, path: Path, wanted: Sequence[int | str] | None) -> list[int]:
    """Numbers from 1 on. A band's name is its description or else its colour; case makes no difference."""
    if wanted is None:
        return [band for band, kind in enumerate(file.colorinterp, start=1) if kind is not ColorInterp.alpha]
    colours = ("" if kind is ColorInterp.undefined else kind.name for kind in file.colorinterp)
    names = [(description or colour).lower() for description, colour in zip(file.descriptions, colours, strict=True)]
    numbers = []
    for band in wanted:
        if isinstance(band, int) and 1 <= band <= file.count:
            numbers.append(band)
        elif isinstance(band, str) and band.lower() in names:
            numbers.append(names.index(band.lower()) + 1)
        else:
            described = ", ".join(f"{number} {name or '(no description)'}" for number, name in enumerate(names, 1))
            raise DataError(f"{path}: has no band {band!r}. Expected one of: {described}.")
    return numbers


def _common_dtype(file: Any, path: Path, bands: Sequence[int]) -> str:
    """Data type of the bands that are read; a VRT can hold several."""
    dtypes = [str(file.dtypes[band - 1]) for band in bands]
    if len(set(dtypes)) != 1:
        held = ", ".join(f"{band} {dtype}" for band, dtype in zip(bands, dtypes, strict=True))
        raise DataError(
            f"{path}: expected bands of one data type. Received: {held}. Choose bands of one type with --bands, or "
            "convert them (`gdal_translate -ot`)."
        )
    if dtypes[0].startswith("complex"):
        raise DataError(
            f"{path}: expected real numbers. Received: {dtypes[0]}, as radar images have it before they are processed. "
            "Make a file of amplitudes, and give that."
        )
    return dtypes[0]


def _warped(file: Any, grid: Grid, nodata: Nodata) -> Any:
    """The file on another grid, with an alpha band that says where it holds data."""
    source: dict[str, float | None] = {} if nodata == "file" else {"src_nodata": None}
    if isinstance(nodata, float):
        source = {"src_nodata": nodata}
    return WarpedVRT(
        file,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.bilinear,
        add_alpha=ColorInterp.alpha not in file.colorinterp,
        **source,
    )


def fill_nodata(
    image: Pixels, valid: NDArray[np.bool_], *, reach: float = np.inf, beyond: ArrayLike | None = None
) -> Pixels:
    """Give pixels without data the values of a nearest pixel with data, so that the data's edge has no contrast.

    The pixel taken is nearest to within 4 % (the distance transform of OpenCV, an order of magnitude faster than an
    exact one).

    Args:
        image: (height, width, bands).
        valid: (height, width), True where there is data.
        reach: farther than this from any data, in pixels, `beyond` is shown instead.
        beyond: value of each band; needed with a finite reach, and where no pixel holds data.

    Raises:
        ValueError: no pixel holds data, and there is no `beyond`.
    """
    if valid.all():
        return image
    if not valid.any():
        if beyond is None:
            raise ValueError("Invalid value for argument `valid`. Expected a pixel with data. Received: none")
        return np.broadcast_to(_as_pixel(beyond, image.dtype), image.shape).copy()
    holes = (~valid).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        holes, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )  # numbers the pixels with data, and gives each pixel the number of its nearest
    source = np.zeros(int(nearest.max()) + 1, np.int64)
    source[nearest[valid]] = np.flatnonzero(valid)
    filled: Pixels = image.reshape(-1, image.shape[2])[source[nearest]]
    if beyond is not None:
        filled[distance > reach] = _as_pixel(beyond, image.dtype)
    return filled


def _as_pixel(values: ArrayLike, dtype: np.dtype[Any]) -> Pixels:
    pixel = np.asarray(values, np.float64)
    return (np.rint(pixel) if dtype.kind in "ui" else pixel).astype(dtype)
