"""Scenes that tiles are cut from: their grid, names, pixels and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.layouts import ID_RULE, is_usable_id
from lim_keras.data.tiles import IGNORED, Labels
from lim_keras.errors import DataError
from lim_keras.inference.maps import InputScaling
from lim_keras.inventory.batch import Scene
from lim_keras.raster.georeference import RasterInfo, fits_geotiff, name_of
from lim_keras.raster.images import IMAGE_DTYPES
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.resampling import target_grid
from lim_keras.raster.windows import BLOCK, Box, blocks
from lim_keras.tiling.mapped_polygons import in_pixels
from lim_keras.tiling.options import TilingOptions

if TYPE_CHECKING:
    from lim_keras.tiling.labels import LabelSource, SceneLabels

_DIGITS = 5  # least digits of row and column in names


@dataclass(frozen=True)
class TilingScene:
    """A scene on the grid of its tiles.

    Attributes:
        name: unique name, which names of tiles and pictures begin with.
        source: the open scene on its own grid.
        reader: the open scene on the grid of the tiles.
        labels: labels on that grid.
        outlines: landslides (n,) in pixels of that grid, (column, row).
        touched: pixels that an outline touches count as landslide.
        scale: raw values (low, high) that become 0 and 255; None: values stay as they are.
    """

    name: str
    source: RasterReader
    reader: RasterReader
    labels: SceneLabels
    outlines: NDArray[Any]
    touched: bool
    scale: tuple[float, float] | None

    @property
    def info(self) -> RasterInfo:
        """Header on the grid of the tiles."""
        return self.reader.info

    def tile_id(self, box: Box, prefix: str) -> str:
        """Return the name of the tile in a box: prefix, scene, upper row and left column."""
        digits = max(_DIGITS, len(str(max(self.info.height, self.info.width))))
        return f"{prefix}{self.name}_{box.top:0{digits}d}_{box.left:0{digits}d}"

    def mask(self, box: Box, valid: NDArray[np.bool_] | None = None) -> Labels:
        """Return the labels (height, width) of a box: 1 landslide, 0 background, 255 without label or data.

        Args:
            valid: pixels with data (height, width); None: they are read.
        """
        mask = self.labels.mask(box)
        if valid is None and not self.reader.everywhere_valid:
            valid = self.reader.valid(box)
        if valid is not None:
            mask[~valid] = IGNORED
        return mask

    def image(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixels (height, width, bands), 0 without data, and pixels with data (height, width)."""
        pixels, valid = self.reader.image(box)
        if not valid.all():
            pixels[~valid] = 0
        if self.scale is not None:
            pixels = InputScaling("uint8", (0.0,) * pixels.shape[-1], self.scale).scaled(pixels)
            pixels[~valid] = 0  # again, because a raw 0 may be bright
        return pixels, valid

    def blocks(self) -> Iterator[Box]:
        """Cover the grid with boxes, whole rows where the scene is stored in rows."""
        side, width = 2 * BLOCK, self.info.width
        if self.source.dataset.block_shapes[0][1] < self.source.dataset.width:
            return blocks(self.info.height, width, side)
        return blocks(self.info.height, width, (max(side * side // width, 1), width))


@contextmanager
def open_scenes(
    paths: Sequence[Scene], labels: LabelSource, options: TilingOptions, *, touched: bool = False
) -> Iterator[list[TilingScene]]:
    """Open scenes for tiling, and check that their tiles fit together.

    Args:
        touched: pixels that an outline touches count as landslide.

    Raises:
        DataError: a scene cannot be opened, its tiles cannot have names or a place, or two scenes differ in the number
            of bands or the data type.
    """
    with ExitStack() as stack:
        sources = [_opened(path, options, stack) for path in paths]
        _check_alike(sources, options)
        scenes = []
        for source, name in zip(sources, _names(sources, options.prefix), strict=True):
            reader = stack.enter_context(_on_grid(source, options.gsd_m))
            found = labels.on_scene(reader.info)
            outlines = in_pixels(found.landslides.geometry.to_numpy(), reader.info)
            scenes.append(TilingScene(name, source, reader, found, outlines, touched, options.scale))
        labels.check_placement()
        yield scenes


def _opened(path: Scene, options: TilingOptions, stack: ExitStack) -> RasterReader:
    reader = stack.enter_context(RasterReader(path, bands=options.bands, nodata=options.nodata))
    _check_pixels(reader, options)
    if reader.needs_warping:
        raise DataError(
            f"{reader.name}: only ground control points or RPCs give its position, so labels cannot be laid on it. "
            "Warp it first (`gdalwarp -t_srs EPSG:4326 -tps` or `-rpc`)."
        )
    if reader.info.crs and not fits_geotiff(reader.info.crs):
        raise DataError(
            f"{reader.name}: expected a CRS that a GeoTIFF can hold, as its tiles are GeoTIFFs. Received: "
            f"{name_of(reader.info.crs)}. Warp it first (`gdalwarp -t_srs EPSG:4326`, or to a CRS in metres)."
        )
    return reader


def _check_pixels(reader: RasterReader, options: TilingOptions) -> None:
    info = reader.info
    if reader.has_palette:
        raise DataError(f"{reader.name}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
    if options.scale is None and info.dtype not in IMAGE_DTYPES:
        raise DataError(
            f"{reader.name}: expected an image of {', '.join(IMAGE_DTYPES)}. Received: {info.dtype}. Give its darkest "
            "and its brightest value as `scale`, or convert it (`gdal_translate -ot Float32`)."
        )


def _check_alike(readers: Sequence[RasterReader], options: TilingOptions) -> None:
    first, *others = readers
    for other in others:
        shown = [f"{one.info.bands} of {one.info.dtype}" for one in (first, other)]
        if first.info.bands != other.info.bands or (options.scale is None and first.info.dtype != other.info.dtype):
            cure = "Choose bands with `bands`" if first.info.bands != other.info.bands else "Give `scale`"
            raise DataError(
                f"{first.name} and {other.name}: expected scenes of equal bands and data type, as all tiles need them. "
                f"Received: {shown[0]} and {shown[1]}. {cure}, or cut the scenes into different folders."
            )


def _on_grid(source: RasterReader, gsd_m: float | None) -> RasterReader:
    grid = None if gsd_m is None else target_grid(source.info, gsd_m)
    if grid is not None:
        return source.on_grid(grid)
    return RasterReader(source, bands=source.bands, nodata=source.nodata)


def _names(readers: Sequence[RasterReader], prefix: str) -> list[str]:
    """Return a unique name for each scene; the second of two equal stems gets the ending -2."""
    names: list[str] = []
    taken: set[str] = set()
    for reader in readers:
        name = stem = reader.stem
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
        if not is_usable_id(longest := f"{prefix}{name}_{'0' * 7}_{'0' * 7}"):
            raise DataError(
                f"{reader.name!r}: its tiles would have names such as {longest!r}, which cannot be used. {ID_RULE} "
                "Rename the scene, or give another `prefix`."
            )
    return names
