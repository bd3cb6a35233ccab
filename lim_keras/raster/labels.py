"""Label rasters of scenes: check them, and read them on the grid of a scene."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, border, same_crs
from lim_keras.raster.images import check_one_page, read_orientation
from lim_keras.raster.masks import is_lossy, is_masked
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.vectorize import polygonize
from lim_keras.raster.windows import Box, blocks

_BLOCK = 2048
_GRID_TOLERANCE_PX = 0.1
_WARP_TOLERANCE_PX = 0.01


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of pixels of a label raster: landslide, and with a label."""

    landslide: int
    labelled: int


class LabelsOnGrid:
    """A checked label raster, read on the grid of a scene: 1 landslide, 0 background, 255 no label and outside of it.

    It may be pickled; the raster is opened when it is first read.

    Args:
        name: name of the raster for GDAL.
        grid: header of the scene.
        placed: the raster has a georeference, and is warped to the grid (nearest neighbour). Else it has the grid.
    """

    def __init__(self, name: str, grid: RasterInfo, *, placed: bool) -> None:
        self.name, self.grid, self.placed = name, grid, placed
        self._opened: tuple[int, ExitStack, RasterReader, float | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "grid": self.grid, "placed": self.placed, "_opened": None}

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Read the labels (height, width) of a box of the grid."""
        reader, nodata = self._reader()
        values = reader.pixels(box)[..., 0]
        absent = unlabelled(values, nodata)
        if self.placed:
            absent |= reader.band(reader.count, box) == 0
        return np.where(absent, NO_LABEL, values == 1).astype(np.uint8)

    def landslides(self) -> list[Any]:
        """Return the outlines of connected landslide pixels in the CRS of the grid; without `placed`, in pixels."""
        with ExitStack() as stack:
            return [outline for outline, value in polygonize(self._open(stack)[0]) if value == 1]

    def _reader(self) -> tuple[RasterReader, float | None]:
        """Return a reader that stays open, and the nodata value of its file.

        A forked process opens its own, because it would share the file position.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            stack = ExitStack()
            self._opened = os.getpid(), stack, *self._open(stack)
        return self._opened[2:]

    def _open(self, stack: ExitStack) -> tuple[RasterReader, float | None]:
        file = stack.enter_context(RasterReader(self.name, bands=(1,), nodata="none"))
        if not self.placed:
            return file, file.info.nodata
        with explained(self.name):
            warped = stack.enter_context(_warped(file.dataset, self.grid))
        return RasterReader(warped, bands=(1,), nodata="none", measured=False), file.info.nodata


def _warped(dataset: Any, grid: RasterInfo) -> WarpedVRT:
    """View a dataset on a grid, with an alpha band that is 0 outside of it; its nodata value is kept as a value."""
    target = {"crs": grid.crs, "transform": grid.transform or Affine.identity()}
    size = {"width": grid.width, "height": grid.height}
    how = {"resampling": Resampling.nearest, "tolerance": _WARP_TOLERANCE_PX, "add_alpha": True}
    return WarpedVRT(dataset, src_nodata=None, nodata=None, **target, **size, **how)


def same_grid(labels: RasterInfo, scene: RasterInfo) -> bool:
    """Return whether a label raster lies on the grid of a scene, to within a tenth of a pixel."""
    if labels.box != scene.box or not same_crs(labels.crs, scene.crs):
        return False
    corners, transform = border(scene.box, points=1), Georeference.of(scene).transform
    away = apply(labels.transform or Affine.identity(), corners) - apply(transform, corners)
    return bool(np.hypot(*away.T).max() <= _GRID_TOLERANCE_PX * math.sqrt(abs(transform.determinant)))


def unlabelled(labels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Find pixels without a label: 255 and the file's nodata value, which may be NaN.

    0 and 1 are always labels, because many files declare their background as nodata.
    """
    absent: NDArray[np.bool_] = labels == NO_LABEL
    if nodata is not None and nodata not in (0, 1):
        absent |= np.isnan(labels) if math.isnan(nodata) else labels == nodata
    return absent


def check_label_file(raster: RasterReader) -> None:
    """Refuse ambiguous labels: several pages or bands, a mask, JPEG compression or an EXIF orientation."""
    check_one_page(raster)
    if raster.count == 1 and is_masked(raster):
        raise DataError(
            f"{raster.name}: has a mask. Expected 255 where there is no label (`gdalwarp -dstnodata 255 {raster.name} "
            f"{raster.stem}_mended.tif`)."
        )
    if raster.dataset.driver in ("GTiff", "PNG", "JPEG") and Path(raster.name).is_file():
        _check_storage(raster)
    if raster.count != 1:
        raise DataError(f"{raster.name}: expected a label raster of one band. Received: {raster.count} bands.")


def _check_storage(raster: RasterReader) -> None:
    if is_lossy(Path(raster.name)):
        raise DataError(f"{raster.name}: is compressed as JPEG, which changes labels. Save labels as PNG or TIFF.")
    if (orientation := read_orientation(raster.name)) != 1:
        raise DataError(
            f"{raster.name}: has the EXIF orientation {orientation}, but the scene is read as stored. Turn the pixels "
            "to fit the scene, and save them without an orientation."
        )


def count_labels(raster: RasterReader) -> LabelCounts:
    """Count the labels of a raster.

    Raises:
        DataError: it holds other values than 1 landslide, 0 background and 255 or nodata, or no label, or viewers
            show it inverted.
    """
    _check_palette(raster)
    info = raster.info
    found, landslide, labelled = np.zeros(0, info.dtype), 0, 0
    for box in blocks(info.height, info.width, _BLOCK):
        values = raster.pixels(box)
        found = np.unique(np.append(found, np.unique(values)))
        landslide += int((values == 1).sum())
        labelled += int((~unlabelled(values, info.nodata)).sum())
    labels = set(found[~unlabelled(found, info.nodata)].tolist())
    received = ", ".join(f"{value:g}" for value in found[:10].tolist())
    if labels - {0, 1}:
        raise DataError(
            f"{raster.name}: expected the labels 1 landslide, 0 background, 255 no label. Received: {received}."
        )
    if not labels or (1 not in labels and NO_LABEL in found and info.nodata != NO_LABEL):
        raise DataError(
            f"{raster.name}: expected pixels of 1 landslide or 0 background. Received: {received}. 255 means no label; "
            "where it means landslide, write 1 instead."
        )
    return LabelCounts(landslide, labelled)


def _check_palette(raster: RasterReader) -> None:
    """Refuse labels that viewers show inverted, such as a 1-bit TIFF whose 0 is white."""
    if not raster.has_palette:
        return
    colours = raster.dataset.colormap(1)
    if colours[0][:3] == (255, 255, 255) and colours[1][:3] == (0, 0, 0):
        raise DataError(
            f"{raster.name}: its palette shows 0 as white and 1 as black, so either may be landslide. Save it "
            "without a palette: 1 landslide, 0 background."
        )
