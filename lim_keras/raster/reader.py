"""Read rasters window by window."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, TypeAlias

import cv2
import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.georeference import Grid, RasterInfo, ground_sample_distance, on_grid
from lim_keras.raster.windows import Box, blocks

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]

Nodata = float | Literal["file", "none"]
"""Pixels without data: those with this value, those that the file marks (nodata value, mask, alpha), or none."""

NO_LABEL = 255  # mask value of pixels without a label
FILL_REACH = 256  # largest distance, pixels, over which pixels without data are filled from pixels with data
_REMOTE = re.compile(r"/vsi\w+/|[A-Za-z][\w+.-]+:")
_CACHE_BYTES = 128 * 2**20
_OVERVIEW_BLOCK = 2048
_opening = threading.Lock()


class RasterReader:
    """An open raster; a context manager. Boxes are read one by one, so that memory does not grow with the raster.

    Several threads may read; they take turns, because a GDAL dataset serves one thread at a time.

    Args:
        source: path, URL (`https://`, `s3://`, `file://`, ...), GDAL name (`/vsi...`), or an open rasterio dataset or
            reader, which is shared and stays open.
        bands: numbers (from 1) or names (description, else colour) of the bands to read; None: all but alpha.
        nodata: definition of pixels without data, see `Nodata`.
        gsd_m: ground sample distance in metres, for a raster without its own.
        grid: read the raster warped to this grid, bilinearly.

    Raises:
        ConfigError: `source` has another type.
        DataError: the raster cannot be opened or has no such band, or the bands are complex or differ in data type.
    """

    name: str
    _lock: threading.Lock
    _closed = False

    def __init__(
        self,
        source: RasterSource,
        *,
        bands: Sequence[int | str] | None = None,
        nodata: Nodata = "file",
        gsd_m: float | None = None,
        grid: Grid | None = None,
    ) -> None:
        self._nodata, self._gsd_m = nodata, gsd_m
        self._lock = source._lock if isinstance(source, RasterReader) else threading.Lock()
        with ExitStack() as stack:
            self._file: Any = _dataset(source, stack)
            self.name = source.name if isinstance(source, RasterReader) else _name(self._file)
            self._check_bands(bands)
            self.dataset = self._file if grid is None else stack.enter_context(on_grid(self._file, grid, nodata))
            self.info = self._describe(grid)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what this reader opened."""
        with self._lock:  # another thread may be reading a window
            self._closed = True
            self._stack.close()

    @property
    def path(self) -> Path | str:
        """Path of the file; a string for a URL or a GDAL name."""
        return self.name if is_remote(self.name) else Path(self.name)

    @property
    def stem(self) -> str:
        """Name of the file without its folder and its suffix."""
        # In a URL, `!` separates an archive from the file in it; `?` and `#` end the path.
        return PurePosixPath(re.sub(r"^.*!|[?#].*$", "", self.name) if is_remote(self.name) else self.name).stem

    @property
    def fingerprint(self) -> list[int]:
        """Numbers that change with the content: size and change time of a local file, else width, height and bands."""
        try:
            status = Path(self.name).stat()
        except OSError:
            return [self._file.width, self._file.height, self._file.count]
        return [status.st_size, status.st_mtime_ns]

    @property
    def count(self) -> int:
        """Number of bands in the file, alpha included."""
        return int(self._file.count)

    @property
    def has_palette(self) -> bool:
        """True if the file holds palette indices and no other band, except alpha."""
        kinds = set(self._file.colorinterp)
        return ColorInterp.palette in kinds and kinds <= {ColorInterp.palette, ColorInterp.alpha}

    @property
    def needs_warping(self) -> bool:
        """True if the file has only ground control points or rational polynomial coefficients."""
        return self.info.transform is None and bool(self._file.gcps[0] or self._file.rpcs)

    @cached_property
    def everywhere_valid(self) -> bool:
        """True if the header of the file shows that every pixel holds data."""
        if np.dtype(self.info.dtype).kind == "f" or self.dataset is not self._file:
            return False
        flags = [self._file.mask_flag_enums[band - 1] for band in self.bands]
        return self._nodata == "none" or (self._nodata == "file" and all(MaskFlags.all_valid in one for one in flags))

    def on_grid(self, grid: Grid) -> RasterReader:
        """Return a reader of the same open file, warped to a grid; close it before this reader."""
        return RasterReader(self, bands=self.bands, nodata=self._nodata, grid=grid)

    def pixels(self, box: Box | None = None) -> Pixels:
        """Read pixels (height, width, bands) of a box, or of the whole raster, as they are stored."""
        box = box or self.info.box
        pixels = np.empty((box.height, box.width, len(self.bands)), self.info.dtype)
        # GDAL interleaves the bands while it reads; interleaving them afterwards would need a second copy.
        self._read(self.dataset.read, box, indexes=self.bands, out=np.moveaxis(pixels, -1, 0))
        return pixels

    def image(self, box: Box | None = None) -> tuple[Pixels, Mask]:
        """Read pixels, and a mask (height, width) of those that hold data; pixels with data are finite."""
        box = box or self.info.box
        pixels = self.pixels(box)
        return pixels, self._valid(box, pixels)

    def valid(self, box: Box | None = None) -> Mask:
        """Read which pixels (height, width) hold data."""
        box = box or self.info.box
        needs_pixels = np.dtype(self.info.dtype).kind == "f" or isinstance(self._nodata, float)
        return self._valid(box, self.pixels(box) if needs_pixels else None)

    def filled(self, box: Box, around: Box, beyond: ArrayLike) -> tuple[Pixels, Mask]:
        """Read pixels of a box with gaps filled, and a mask (height, width) of those that hold data.

        A filled pixel depends only on pixels of `around` within FILL_REACH of it, not on the box. A pixel farther than
        FILL_REACH from any data gets `beyond`, one value per band.
        """
        pixels, valid = self.image(box)
        if valid.all():
            return pixels, valid
        larger = box.grown(FILL_REACH, around)
        filled = fill_nodata(*self.image(larger), reach=FILL_REACH, beyond=beyond)
        return filled[box.inside(larger).slices], valid

    def overview(self, longest: int, bands: Sequence[int] | None = None) -> tuple[Pixels, Mask]:
        """Read the raster reduced to `longest` pixels on its longer side, by averaging the pixels with data.

        Overviews of the file are used. Blocks are read one by one, whole rows where the file is stored in rows.

        Returns:
            Pixels (height, width, bands) of the bands numbered `bands` (None: the reader's bands), and a mask
            (height, width) of the pixels that the file marks as data.
        """
        source, bands = self._file, list(bands or self.bands)
        factor = max(max(source.width, source.height) / longest, 1.0)
        height, width = max(round(source.height / factor), 1), max(round(source.width / factor), 1)
        down, across = source.height / height, source.width / width
        rows, columns = _OVERVIEW_BLOCK / down, _OVERVIEW_BLOCK / across
        if source.block_shapes[0][1] >= source.width:
            rows, columns = rows * min(_OVERVIEW_BLOCK / source.width, 1), width
        pixels = np.zeros((height, width, len(bands)), source.dtypes[bands[0] - 1])
        valid = np.zeros((height, width), np.bool_)
        for box in blocks(height, width, (max(int(rows), 1), max(int(columns), 1))):
            window = RasterWindow(box.left * across, box.top * down, box.width * across, box.height * down)
            shape = box.height, box.width
            how = {"window": window, "resampling": Resampling.average}
            with gdal_settings(), self._lock, explained(self.name):
                part = source.read(bands, out_shape=(len(bands), *shape), **how)
                valid[box.slices] = source.dataset_mask(out_shape=shape, **how) >= 128
            pixels[box.slices] = np.moveaxis(part, 0, -1)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=-1)
        return pixels, valid

    def _describe(self, grid: Grid | None) -> RasterInfo:
        file, dtype = self._file, self._common_dtype()
        transform, gsd_m = None if file.transform.is_identity else file.transform, None
        if transform is not None:
            gsd_m = ground_sample_distance(file.crs, transform, file.width, file.height)
        crs = file.crs.to_string() if file.crs else ""
        count, gsd_m = len(self.bands), gsd_m or self._gsd_m
        info = RasterInfo(self.path, file.width, file.height, count, dtype, crs, transform, gsd_m, file.nodata)
        return info if grid is None else replace(info, **vars(grid))

    def _check_bands(self, wanted: Sequence[int | str] | None) -> None:
        """Set `bands`: numbers from 1. The name of a band is its description, else its colour; case does not matter."""
        file = self._file
        if file.count == 0:
            raise DataError(
                f"{self.name}: expected a raster with bands. Received: none. Make a file of one of its subdatasets, "
                "which `gdalinfo` names (`gdal_translate SUBDATASET scene.tif`), and give that."
            )
        if wanted is None:
            self.bands = [band for band, kind in enumerate(file.colorinterp, 1) if kind is not ColorInterp.alpha]
            return
        colours = ("" if kind is ColorInterp.undefined else kind.name for kind in file.colorinterp)
        names = [(text or colour).lower() for text, colour in zip(file.descriptions, colours, strict=True)]
        self.bands = []
        for band in wanted:
            if isinstance(band, int) and 1 <= band <= file.count:
                self.bands.append(band)
            elif isinstance(band, str) and band.lower() in names:
                self.bands.append(names.index(band.lower()) + 1)
            else:
                described = ", ".join(f"{number} {name or '(no description)'}" for number, name in enumerate(names, 1))
                raise DataError(f"{self.name}: has no band {band!r}. Expected one of: {described}.")

    def _common_dtype(self) -> str:
        dtypes = [str(self._file.dtypes[band - 1]) for band in self.bands]
        if len(set(dtypes)) != 1:
            held = ", ".join(f"{band} {dtype}" for band, dtype in zip(self.bands, dtypes, strict=True))
            raise DataError(
                f"{self.name}: expected bands of one data type. Received: {held}. Choose bands of one type with "
                "`bands`, or convert them (`gdal_translate -ot`)."
            )
        if dtypes[0].startswith("complex"):
            raise DataError(
                f"{self.name}: expected real numbers. Received: {dtypes[0]}, as in radar images before they are "
                "processed. Make a file of amplitudes, and give that."
            )
        return dtypes[0]

    def _valid(self, box: Box, pixels: Pixels | None) -> Mask:
        valid: Mask = np.ones((box.height, box.width), np.bool_)
        if self.dataset is not self._file:  # warped: GDAL makes a mask of alpha for integer types only
            alpha = self.dataset.colorinterp.index(ColorInterp.alpha) + 1
            valid = self._read(self.dataset.read, box, indexes=alpha) > 0
        elif self._nodata == "file" and not self.everywhere_valid:
            valid = self._read(self.dataset.dataset_mask, box) > 0
        if pixels is None:
            return valid
        if isinstance(self._nodata, float) and np.isfinite(self._nodata):
            valid &= (pixels != self._nodata).any(axis=-1)
        return valid & np.isfinite(pixels).all(axis=-1) if pixels.dtype.kind == "f" else valid

    def _read(self, read: Callable[..., Pixels], box: Box, **options: Any) -> Pixels:
        try:
            with self._lock:
                if self._closed or self._file.closed:
                    raise DataError(f"{self.name}: cannot be read any more, as it was closed. Open it again.")
                return read(window=RasterWindow(box.left, box.top, box.width, box.height), **options)
        except RasterioError as error:
            raise DataError(
                f"{self.name}: rows {box.top} to {box.bottom}, columns {box.left} to {box.right} cannot be read; "
                f"the file is truncated or damaged ({error.__cause__ or error}). Replace it."
            ) from error


RasterSource: TypeAlias = str | os.PathLike[str] | rasterio.DatasetBase | RasterReader
"""Path, URL, GDAL name, open rasterio dataset, or reader."""


def _dataset(source: RasterSource, stack: ExitStack) -> Any:
    if isinstance(source, RasterReader):
        return source._file
    if isinstance(source, rasterio.DatasetBase):
        if source.closed:
            raise DataError(f"{source.name}: this dataset is closed. Open it again, or give its path.")
        return source
    return stack.enter_context(open_dataset(_gdal_name(source)))


def _name(dataset: Any) -> str:
    while hasattr(dataset, "src_dataset"):  # a WarpedVRT is not a file
        dataset = dataset.src_dataset
    return str(dataset.name)


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is a URL or a GDAL name, not the path of a local file."""
    return _REMOTE.match(os.fspath(name)) is not None


def _gdal_name(source: str | os.PathLike[str]) -> str:
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"Expected a path, a URL or an open raster. Received: {source!r}.")
    name = os.fspath(source)
    if not isinstance(source, str):  # `Path` merges the slashes of a URL into one
        name = re.sub(r"^([A-Za-z][\w+.-]+):/(?=[^/])", r"\1://", name)
        name = re.sub(r"^file://(?=[^/])", "file:///", name)
    if not is_remote(name) and not Path(name).exists():
        raise DataError(f"{name}: not found. Expected a raster, such as a GeoTIFF.")
    return name


def open_dataset(name: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Any:
    """Open a rasterio dataset without NotGeoreferencedWarning; in mode "r", raise DataError if it is damaged."""
    with silenced(NotGeoreferencedWarning):
        if mode != "r":
            return rasterio.open(name, mode, **profile)
        with explained(os.fspath(name)):
            return rasterio.open(name, sharing=False, **profile)


@contextmanager
def silenced(category: type[Warning]) -> Iterator[None]:
    """Silence warnings of a library. Filters are global: one thread at a time may change them."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextmanager
def explained(name: str | os.PathLike[str]) -> Iterator[None]:
    """Convert errors of rasterio to DataError."""
    try:
        yield
    except RasterioError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"{name}: cannot be read; the file is truncated or damaged ({reason}). Replace it.") from error


def gdal_settings() -> rasterio.Env:
    """Return GDAL settings: all cores for coding, and a small cache (GDAL's default is 5 % of the memory)."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_NUM_THREADS="ALL_CPUS")


def fill_nodata(image: Pixels, valid: Mask, *, reach: float = np.inf, beyond: ArrayLike | None = None) -> Pixels:
    """Fill pixels without data from their nearest pixel with data, so that the edge of the data has no contrast.

    Distances are exact to within 4 % (OpenCV's distance transform). A pixel farther than `reach` pixels from any data
    gets `beyond`, one value per band. If no pixel holds data, all pixels get `beyond`.
    """
    if valid.all():
        return image
    if not valid.any():
        if beyond is None:
            raise ValueError("Invalid value for argument `valid`. Expected a pixel with data. Received: none")
        return np.broadcast_to(_as_pixel(beyond, image.dtype), image.shape).copy()
    # With DIST_LABEL_PIXEL, each pixel gets the number of its nearest pixel with data.
    distance, nearest = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(nearest.max()) + 1, np.int64)
    source[nearest[valid]] = np.flatnonzero(valid)
    filled: Pixels = image.reshape(-1, image.shape[2])[source[nearest]]
    if beyond is not None:
        filled[distance > reach] = _as_pixel(beyond, image.dtype)
    return filled


def _as_pixel(values: ArrayLike, dtype: np.dtype[Any]) -> Pixels:
    pixel = np.asarray(values, np.float64)
    return (np.rint(pixel) if dtype.kind in "ui" else pixel).astype(dtype)
