"""Layers of the review page: scene, image of another date, probability map and hillshade."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from queue import LifoQueue
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from lim_keras.errors import DataError
from lim_keras.files import StrPath
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.raster.georeference import Georeference, Grid, RasterInfo, apply, border, inverse, same_crs
from lim_keras.raster.reader import RasterReader, RasterSource
from lim_keras.raster.validity import Nodata
from lim_keras.raster.windows import Box, blocks, sample_boxes
from lim_keras.review.page.plane import Plane
from lim_keras.review.page.tiles import TILE_PX, Image, Layer, reduced, reduced_size

_READERS = 2
_PERCENTILES = (2, 98)
_SUN_AZIMUTH, _SUN_HEIGHT = np.radians(315.0), np.radians(45.0)
_PERCENT = 100.0
_OPAQUE_FROM = 0.5  # probability from which its colour is opaque


class SceneLayer(Layer):
    """Layer of a raster of any grid, which is warped to the plane unless it lies on it.

    A scene is drawn in red, green and blue if its bands are known, else in its first three bands, else in grey. Types
    other than uint8 are stretched from the 2nd to the 98th percentile.

    Args:
        plane: grid of the maps.
        source: path or name of the raster.
        bands: bands to show; None: by colour.
        nodata: definition of pixels without data.

    Raises:
        DataError: the raster cannot be read.
    """

    def __init__(
        self, plane: Plane, source: RasterSource, *, bands: Sequence[int | str] | None = None, nodata: Nodata = "file"
    ) -> None:
        super().__init__(plane)
        self._source, self._bands, self._nodata = source, bands, nodata
        self._grid: Grid | None = None
        with self._open(None) as header:
            if bands is None and header.product is None:
                self._bands = _shown_bands(header)
            self._grid = None if _lies_on(header.info, plane) else plane.grid
            if self._grid is not None:
                _check_overlap(header.info, plane)
        # A GDAL dataset serves one thread at a time, and only the thread that opened it may close it.
        self._opened = [self._open(self._grid) for _ in range(_READERS)]
        self._idle: LifoQueue[RasterReader] = LifoQueue()
        for reader in self._opened:
            self._idle.put(reader)

    def close(self) -> None:
        """Close all readers; call it in the thread that made the layer."""
        for reader in self._opened:
            reader.close()

    def _open(self, grid: Grid | None) -> RasterReader:
        return RasterReader(self._source, bands=self._bands, nodata=self._nodata, grid=grid, measured=grid is not None)

    @contextmanager
    def _reader(self) -> Iterator[RasterReader]:
        """Take a reader that no other thread uses."""
        reader = self._idle.get()
        try:
            yield reader
        finally:
            self._idle.put(reader)

    def picture(self, box: Box, level: int) -> Image:
        """Read the picture of a box of the plane, reduced 2**level times."""
        with self._reader() as reader:
            pixels, valid = reader.image(box)
        picture = self.coloured(pixels, valid)
        return reduced(picture, *reduced_size(box, level)) if level else picture

    def whole(self, level: int) -> Image:
        """Read the picture of the plane, reduced about 2**level times."""
        return self.coloured(*self._reduced(level))

    def _reduced(self, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read values (height, width, bands) and validity of the plane, reduced about 2**level times."""
        grid = reduced_grid(self.plane, level)
        if self._grid is None:
            with self._reader() as reader:
                return reader.overview(max(grid.width, grid.height))
        with self._open(grid) as small:
            read = {box: small.image(box) for box in blocks(grid.height, grid.width, TILE_PX)}
        first = next(iter(read.values()))[0]
        values = np.zeros((grid.height, grid.width, first.shape[-1]), first.dtype)
        valid = np.zeros((grid.height, grid.width), np.bool_)
        for box, (some, known) in read.items():
            values[box.slices], valid[box.slices] = some, known
        return values, valid

    def coloured(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Image:
        """Convert pixels (height, width, bands) to a picture."""
        values = self._stretched(pixels)
        picture = np.empty((*valid.shape, 4), np.uint8)
        picture[..., :3] = values[..., 2::-1] if values.shape[-1] >= 3 else values[..., :1]
        picture[..., 3] = np.where(valid, 255, 0)
        return picture

    def _stretched(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype == np.uint8:
            return pixels
        low, high = self._limits
        share = (np.nan_to_num(pixels.astype(np.float32)) - low) / np.maximum(high - low, 1e-12)
        return np.asarray(np.rint(255 * np.clip(share, 0, 1)), np.uint8)

    @cached_property
    def _limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Percentiles of each band, in boxes that are spread over the plane; if they hold no data, in an overview."""
        values = []
        with self._reader() as reader:
            for box in sample_boxes(self.plane.height, self.plane.width, side=TILE_PX, count=4):
                pixels, valid = reader.image(box)
                values.append(pixels[valid])
        known = np.concatenate(values)
        if not len(known):
            pixels, valid = self._reduced(self.overview_level)
            known = pixels[valid] if valid.any() else np.zeros((1, pixels.shape[-1]))
        low, high = np.percentile(known.astype(np.float64), _PERCENTILES, axis=0)
        return low, high


class ProbabilityLayer(SceneLayer):
    """Layer of a probability map: from transparent to yellow and red, as probability grows."""

    def __init__(self, plane: Plane, source: Path) -> None:
        super().__init__(plane, source, bands=(1,))

    def coloured(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Image:
        """Convert probabilities (height, width, 1) to a picture."""
        percent = pixels.dtype == np.uint8
        values = pixels[..., 0] if percent else np.nan_to_num(pixels[..., 0]) * _PERCENT
        steps = np.asarray(np.rint(np.clip(values, 0, _PERCENT)), np.uint8)
        picture = _PROBABILITY_COLOURS[steps]
        picture[..., 3] = np.where(valid, picture[..., 3], 0)
        return picture


def _probability_colours() -> Image:
    shares = np.linspace(0, 1, int(_PERCENT) + 1)
    ramp = np.asarray(np.rint(255 * (1 - shares)), np.uint8).reshape(1, -1)
    colours = cv2.applyColorMap(ramp, cv2.COLORMAP_AUTUMN).reshape(-1, 3)
    alpha = np.rint(255 * np.clip(shares / _OPAQUE_FROM, 0, 1)).astype(np.uint8)
    return np.concatenate([colours, alpha[:, None]], axis=-1)


_PROBABILITY_COLOURS = _probability_colours()


class HillshadeLayer(Layer):
    """Layer of an elevation model, lit from the north-west at a height of 45 degrees.

    Args:
        plane: grid of the maps.
        dem: elevation model of any CRS and resolution.
        name: name of the scene, for errors.

    Raises:
        DataError: the model cannot be read, or lies elsewhere.
    """

    def __init__(self, plane: Plane, dem: StrPath, name: Path) -> None:
        super().__init__(plane)
        self._dem, self._name = dem, name
        self._stack, self._reading = ExitStack(), threading.Lock()
        self._levels: dict[int, TerrainReader] = {}
        self._terrain(0)

    def close(self) -> None:
        """Close the model."""
        self._stack.close()

    def _terrain(self, level: int) -> TerrainReader:
        if level not in self._levels:
            grid = reduced_grid(self.plane, level)
            size = (grid.width, grid.height, 1, "uint8")
            info = RasterInfo(self._name, *size, grid.crs, grid.transform if grid.crs else None, grid.gsd_m, None)
            self._levels[level] = self._stack.enter_context(TerrainReader(self._dem, info))
        return self._levels[level]

    def picture(self, box: Box, level: int) -> Image:
        """Read the picture of a box of the plane, reduced 2**level times."""
        height, width = reduced_size(box, level)
        with self._reading:
            terrain = self._terrain(level).read(Box.sized(box.top >> level, box.left >> level, height, width))
        slope, aspect = np.radians(terrain.slope), np.radians(np.nan_to_num(terrain.aspect))
        facing = np.cos(slope) * np.sin(_SUN_HEIGHT) + np.sin(slope) * np.cos(_SUN_HEIGHT) * np.cos(
            _SUN_AZIMUTH - aspect
        )
        known = np.isfinite(slope)
        grey = np.rint(255 * np.clip(np.where(known, facing, 0), 0, 1)).astype(np.uint8)
        return np.dstack([grey, grey, grey, np.where(known, 255, 0).astype(np.uint8)])

    def whole(self, level: int) -> Image:
        """Read the picture of the plane, reduced 2**level times."""
        return self.picture(Box(0, 0, self.plane.height, self.plane.width), level)


def reduced_grid(plane: Plane, level: int) -> Grid:
    """Return the grid of a plane that is reduced about 2**level times, to whole pixels."""
    height, width = reduced_size(Box(0, 0, plane.height, plane.width), level)
    across, down = plane.width / width, plane.height / height
    a, b, c, d, e, f = plane.transform[:6]
    transform = Affine(a * across, b * down, c, d * across, e * down, f)
    return Grid(plane.crs, transform, width, height, plane.gsd_m and plane.gsd_m * 2**level)


def _shown_bands(header: RasterReader) -> tuple[int, ...]:
    colours, count = header.colour_bands, len(header.bands)
    if len(colours) == 3:
        return tuple(colours.values())
    return tuple(header.bands[:3]) if count >= 3 else tuple(header.bands[:1])


def _check_overlap(info: RasterInfo, plane: Plane) -> None:
    """Raise DataError if a raster cannot be placed on the plane, or lies elsewhere."""
    outline = border(info.box)
    other = Georeference.of(info)
    if not plane.crs or not other.crs:
        raise DataError(
            f"{info.path}: expected {plane.width} x {plane.height} px, because it or the scene has no CRS. Received: "
            f"{info.width} x {info.height} px. Give it a CRS (`gdal_translate -a_srs ... -a_ullr ...`)."
        )
    there = Transformer.from_crs(other.crs, plane.crs, always_xy=True).transform(*other.place(outline).T)
    points = apply(inverse(plane.transform), np.stack(there, axis=-1))
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return
    (left, top), (right, bottom) = known.min(axis=0), known.max(axis=0)
    if right <= 0 or bottom <= 0 or left >= plane.width or top >= plane.height:
        raise DataError(f"{info.path}: lies elsewhere than the scene. Give an image of the same ground.")


def _lies_on(info: RasterInfo, plane: Plane) -> bool:
    """Tell whether a raster has the grid of the plane; without a CRS, only sizes are compared."""
    if (info.width, info.height) != (plane.width, plane.height):
        return False
    if not plane.crs or info.transform is None:
        return not plane.crs
    near = np.allclose(info.transform[:6], plane.transform[:6], rtol=1e-12, atol=1e-6 * abs(plane.transform.a))
    return bool(near) and same_crs(info.crs, plane.crs)
