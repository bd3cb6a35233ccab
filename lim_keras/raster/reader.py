"""Read rasters window by window."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import rasterio
from numpy.typing import ArrayLike
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.raster.averages import AreaAverages, Span, average
from lim_keras.raster.band_stack import open_bands
from lim_keras.raster.bands import chosen_bands, colour_bands, common_dtype
from lim_keras.raster.diagnosis import unreadable
from lim_keras.raster.filling import FILL_REACH, fill_nodata
from lim_keras.raster.fingerprint import fingerprint, sidecars
from lim_keras.raster.georeference import Grid, RasterInfo, ground_sample_distance, on_grid
from lim_keras.raster.kept_pixels import KeptPixels
from lim_keras.raster.opening import (
    GDAL_ERRORS,
    band_colours,
    explained,
    gdal_name,
    gdal_settings,
    is_remote,
    open_dataset,
    raster_stem,
)
from lim_keras.raster.remote_names import is_on_network, public_name
from lim_keras.raster.resampling import reduction
from lim_keras.raster.sentinel2 import Product, find_product
from lim_keras.raster.stac_scene import StacScene
from lim_keras.raster.validity import Mask, Nodata, Pixels, Validity, is_marked, with_mask
from lim_keras.raster.windows import Box, blocks

NO_LABEL = 255  # mask value of pixels without a label
_OVERVIEW_BLOCK = 2048


class RasterReader:
    """An open raster; a context manager. Boxes are read one by one, so that memory does not grow with the raster.

    Several threads may read; they take turns, because a GDAL dataset serves one thread at a time.

    Args:
        source: path, URL (`https://`, `s3://`, `file://`, ...), GDAL name (`/vsi...`), or an open rasterio dataset or
            reader, which is shared and stays open. A path may be that of a Sentinel-2 product, see `Product`.
        bands: numbers (from 1) or names (description, else colour) of the bands to read; None: all but alpha. Those of
            a product are the names and numbers of Sentinel-2; None: B04, B03, B02.
        nodata: definition of pixels without data, see `Nodata`.
        gsd_m: ground sample distance in metres, for a raster without its own.
        grid: read the raster on this grid: averages of the pixels with data where the grid is coarser, which hold
            data if at least half of their area does; bilinear where it is finer.
        measured: measure the ground sample distance. PROJ crashes in threads that Python did not start, such as those
            of tf.data.

    Raises:
        ConfigError: `source` has another type.
        DataError: the raster cannot be opened or has no such band, or the bands are complex or differ in data type.
    """

    name: str
    product: Product | None
    source: str  # the name with secrets, such as the signature of a URL, by which it can be opened again
    _stem: str  # "": that of the name
    _file: Any
    _lock: threading.Lock
    _sidecars: list[Any]
    _closed = False
    _areas: AreaAverages | None = None

    def __init__(
        self,
        source: RasterSource,
        *,
        bands: Sequence[int | str] | None = None,
        nodata: Nodata = "file",
        gsd_m: float | None = None,
        grid: Grid | None = None,
        measured: bool = True,
    ) -> None:
        self.nodata, self._gsd_m, self._measured = nodata, gsd_m, measured
        self.has_chosen_bands = bands is not None
        self._lock = source._lock if isinstance(source, RasterReader) else threading.Lock()
        with ExitStack() as stack:
            self._file, self.source, self.product = _opened(source, bands, stack)
            self.name = public_name(self.source)
            self._stem = source.stem if isinstance(source, StacScene) else getattr(source, "_stem", "")
            if self.product is not None and not isinstance(source, RasterReader):
                bands = None  # the dataset holds the chosen bands only
            with explained(self.name):  # GDAL may report damaged tags of a TIFF after it was opened
                self.bands = chosen_bands(self._file, self.name, bands)
                scene = self._describe()
                self.info = scene if grid is None else replace(scene, **vars(grid))
                self.validity = Validity.of(self._file, self.bands, nodata)
                self._dataset, self._indexes = self._file, list(self.bands)
                if grid is not None:
                    self._warp(scene, grid, stack)
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
    def dataset(self) -> Any:
        """Rasterio dataset that pixels are read from; those of a raster on a network are fetched again."""
        return self._dataset.remote if isinstance(self._dataset, KeptPixels) else self._dataset

    @property
    def path(self) -> Path | str:
        """Path of the file; a string for a URL or a GDAL name."""
        return self.name if is_remote(self.name) else Path(self.name)

    @property
    def stem(self) -> str:
        """Name of the file without its folder and its suffix, or id of the STAC item."""
        return self._stem or raster_stem(self.name)

    @cached_property
    def fingerprint(self) -> list[Any]:
        """JSON values that change with the content; see `lim_keras.raster.fingerprint.fingerprint`."""
        self._sidecars = sidecars(self.name)  # an open dataset does not list those that come later
        with self._lock, explained(self.name):
            return fingerprint(self._file, self.source, self.files if self.product else None)

    def has_changed(self) -> bool:
        """Tell whether the content changed since `fingerprint` was first read. A server that is away is no change."""
        try:
            with self._lock, explained(self.name):
                now = fingerprint(self._file, self.source, self.files if self.product else None)
        except DataError:
            return not is_remote(self.name)
        away = isinstance(self.fingerprint[-1], dict) and not isinstance(now[-1], dict)
        return not away and (now != self.fingerprint or sidecars(self.name) != self._sidecars)

    @property
    def files(self) -> list[Path]:
        """Local files that hold the raster, as far as GDAL knows them."""
        if self.product is not None:
            return self.product.files(self._file.descriptions)
        return [] if is_remote(self.name) else [Path(file) for file in self._file.files]

    @property
    def count(self) -> int:
        """Number of bands in the file, alpha included."""
        return int(self._file.count)

    @property
    def has_palette(self) -> bool:
        """True if the file holds palette indices and no other band, except alpha."""
        kinds = set(band_colours(self._file))
        return ColorInterp.palette in kinds and kinds <= {ColorInterp.palette, ColorInterp.alpha}

    @property
    def colour_bands(self) -> dict[str, int]:
        """Numbers of the red, green and blue band, in this order, by description, else by colour; empty if unknown."""
        return colour_bands(self._file)

    @property
    def pages(self) -> list[str]:
        """GDAL names of the images in the file, overviews and masks left out; empty if there is only one."""
        return list(self._file.subdatasets)

    @property
    def needs_warping(self) -> bool:
        """True if the file has only ground control points or rational polynomial coefficients."""
        return self.info.transform is None and bool(self._file.gcps[0] or self._file.rpcs)

    @cached_property
    def everywhere_valid(self) -> bool:
        """True if the header of the file shows that every pixel holds data."""
        return self.validity.everywhere and self._dataset is self._file

    def keep_in(self, folder: Path) -> None:
        """Keep the pixels of a raster on a network in a folder, or its nearest parent folder that exists.

        Without this call, they are kept in the system's folder for temporary files. See `KeptPixels`.
        """
        if isinstance(self._file, KeptPixels):
            there = (one for one in (folder, *folder.absolute().parents) if one.is_dir() and os.access(one, os.W_OK))
            self._file.folder = next(there, None)

    def on_grid(self, grid: Grid) -> RasterReader:
        """Return a reader of the same open file on another grid (see `grid`); close it before this reader."""
        return RasterReader(self, bands=self.bands, nodata=self.nodata, grid=grid)

    def pixels(self, box: Box | None = None) -> Pixels:
        """Read pixels (height, width, bands) of a box, or of the whole raster, as they are stored."""
        box = box or self.info.box
        return self._stored(box) if self._areas is None else self._areas.image(box)[0]

    def _stored(self, box: Box) -> Pixels:
        shape = box.height, box.width, len(self.bands)
        try:
            pixels = np.empty(shape, self.info.dtype)
        except (MemoryError, ValueError) as error:
            raise DataError(
                f"{self.name}: {box.height} x {box.width} px of {len(self.bands)} bands do not fit into memory. If its "
                "size is right, cut it (`gdal_translate -srcwin ...`); if not, the file is damaged."
            ) from error
        # GDAL interleaves the bands while it reads; interleaving them afterwards would need a second copy.
        self._read(self._dataset.read, box, indexes=self._indexes, out=np.moveaxis(pixels, -1, 0))
        return pixels

    def image(self, box: Box | None = None) -> tuple[Pixels, Mask]:
        """Read pixels, and a mask (height, width) of those that hold data; pixels with data are finite."""
        box = box or self.info.box
        if self._areas is not None:
            return self._areas.image(box)
        return self._image(box)

    def valid(self, box: Box | None = None) -> Mask:
        """Read which pixels (height, width) hold data."""
        box = box or self.info.box
        if self._areas is not None:
            return self._areas.image(box)[1]
        return self._valid(box, self._stored(box) if self.validity.needs_pixels else None)

    def image_marks(self, box: Box) -> tuple[Mask, Mask]:
        """Read two masks (height, width): pixels with data, and pixels without data because of nodata in some bands.

        The second mask leaves out pixels with nodata in all bands. The reader must not be warped.
        """
        pixels, marks = self.pixels(box), list(self._marks(box))
        partly = self.validity.partly(pixels) & self.validity.valid(pixels.shape[:2], None, marks)
        return self.validity.valid(pixels.shape[:2], pixels, marks), partly

    def band(self, number: int, box: Box) -> Pixels:
        """Read a band (height, width) of the file, such as alpha; the reader must not be warped."""
        return self._read(self._file.read, box, indexes=number)

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

        Blocks are read one by one, whole rows where the file is stored in rows. Overviews of the file are used where
        all pixels hold data.

        Returns:
            Pixels (height, width, bands) of the bands numbered `bands` (None: the reader's bands), and a mask
            (height, width) of the pixels of which at least half holds data.
        """
        source, bands = self._file, list(bands or self.bands)
        factor = max(max(source.width, source.height) / longest, 1.0)
        height, width = max(round(source.height / factor), 1), max(round(source.width / factor), 1)
        down, across = source.height / height, source.width / width
        rows, columns = _OVERVIEW_BLOCK / down, _OVERVIEW_BLOCK / across
        if source.block_shapes[0][1] >= source.width:
            rows, columns = rows * min(_OVERVIEW_BLOCK / source.width, 1), width
        pixels = np.zeros((height, width, len(bands)), source.dtypes[bands[0] - 1])
        valid = np.ones((height, width), np.bool_)
        for box in blocks(height, width, (max(int(rows), 1), max(int(columns), 1))):
            span = Span(box.top * down, box.left * across, box.bottom * down, box.right * across)
            shape = box.height, box.width
            if self._unmarked:
                pixels[box.slices] = self._reduced(span, shape, bands)
            else:
                pixels[box.slices], valid[box.slices] = self._averaged(span, shape, bands)
        return pixels, valid

    @property
    def _unmarked(self) -> bool:
        """True if every pixel holds data and GDAL knows of no nodata value or mask, so that GDAL may average."""
        return self.validity.everywhere and not is_marked(self._file)

    def _reduced(self, span: Span, shape: tuple[int, int], bands: Sequence[int]) -> Pixels:
        window = RasterWindow(span.left, span.top, span.right - span.left, span.bottom - span.top)
        with gdal_settings(), self._lock, explained(self.name):
            how = {"window": window, "resampling": Resampling.average}
            return np.moveaxis(self._file.read(bands, out_shape=(len(bands), *shape), **how), 0, -1)

    def _warp(self, scene: RasterInfo, grid: Grid, stack: ExitStack) -> None:
        """Read the raster on another grid: `dataset` is warped to it, or to samples of it that are averaged."""
        source, self._indexes = stack.enter_context(with_mask(self.dataset, self.bands, self.validity))
        coarser, kind = reduction(scene, grid), (scene.bands, scene.dtype)
        if coarser is not None and coarser.start is None:
            grid = coarser.sampled(grid)
            self._areas = AreaAverages(self._image, Box(0, 0, grid.height, grid.width), *kind, coarser.samples)
        elif coarser is not None and coarser.start is not None:
            self._areas = AreaAverages(self._source_image, scene.box, *kind, coarser.step, coarser.start)
        self._dataset = stack.enter_context(on_grid(source, grid))

    def _image(self, box: Box) -> tuple[Pixels, Mask]:
        pixels = self._stored(box)
        return pixels, self._valid(box, pixels)

    def _source_image(self, box: Box) -> tuple[Pixels, Mask]:
        pixels = self._read_bands(box, self.bands)
        return pixels, self.validity.valid(pixels.shape[:2], pixels, self._marks(box))

    def _averaged(self, span: Span, shape: tuple[int, int], bands: Sequence[int]) -> tuple[Pixels, Mask]:
        box = span.pixels(Box(0, 0, self._file.height, self._file.width))
        with gdal_settings():
            pixels, valid = self._source_image(box)
            return average(pixels if bands == self.bands else self._read_bands(box, bands), valid, span, shape)

    def _read_bands(self, box: Box, bands: Sequence[int]) -> Pixels:
        return np.moveaxis(self._read(partial(self._file.read, list(bands)), box), 0, -1)

    def _describe(self) -> RasterInfo:
        file, dtype = self._file, common_dtype(self._file, self.name, self.bands)
        transform, gsd_m = None if file.transform.is_identity else file.transform, None
        if transform is not None and self._measured:
            gsd_m = ground_sample_distance(file.crs, transform, file.width, file.height)
        crs = file.crs.to_string() if file.crs else ""
        count, gsd_m = len(self.bands), gsd_m or self._gsd_m
        return RasterInfo(self.path, file.width, file.height, count, dtype, crs, transform, gsd_m, file.nodata)

    def _valid(self, box: Box, pixels: Pixels | None) -> Mask:
        if self._dataset is self._file:
            return self.validity.valid((box.height, box.width), pixels, self._marks(box))
        alpha: Mask = self._read(self._dataset.read, box, indexes=self._dataset.count) > 0
        if pixels is None or pixels.dtype.kind != "f":
            return alpha
        return alpha & np.isfinite(pixels).all(axis=-1)

    def _marks(self, box: Box) -> Iterator[Pixels]:
        """Read the alpha bands and masks that the rule of validity needs."""
        for band in self.validity.alpha:
            yield self.band(band, box)
        for band in self.validity.masks:
            yield self._read(self._file.read_masks, box, indexes=band)

    def _read(self, read: Callable[..., Pixels], box: Box, **options: Any) -> Pixels:
        try:
            with self._lock:
                if self._closed or self._file.closed:
                    raise DataError(f"{self.name}: cannot be read any more, as it was closed. Open it again.")
                return read(window=RasterWindow(box.left, box.top, box.width, box.height), **options)
        except GDAL_ERRORS as error:
            text = unreadable(self.name, error) if self.product is None else self.product.damaged(error)
            raise DataError(text) from error


RasterSource: TypeAlias = str | os.PathLike[str] | rasterio.DatasetBase | RasterReader
"""Path, URL, GDAL name, open rasterio dataset, or reader."""


def _opened(
    source: RasterSource, bands: Sequence[int | str] | None, stack: ExitStack
) -> tuple[Any, str, Product | None]:
    """Return a dataset, its name, and the product that it is made of."""
    if isinstance(source, RasterReader):
        return source._file, source.source, source.product
    if isinstance(source, rasterio.DatasetBase):
        if source.closed:
            raise DataError(f"{source.name}: this dataset is closed. Open it again, or give its path.")
        return source, _name(source), None
    name = gdal_name(source.address if isinstance(source, StacScene) else source)
    if not is_remote(name) and (product := find_product(name)) is not None:
        return stack.enter_context(open_bands(product, product.chosen(bands))), product.name, product
    dataset = stack.enter_context(open_dataset(name))
    if is_on_network(name):
        kept = KeptPixels(dataset)
        stack.callback(kept.close)
        return kept, name, None
    return dataset, _name(dataset), None


def _name(dataset: Any) -> str:
    while hasattr(dataset, "src_dataset"):  # a WarpedVRT is not a file
        dataset = dataset.src_dataset
    return str(dataset.name)
