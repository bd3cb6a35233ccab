"""Convert rasters to polygons, and polygons to rasters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize, shapes

from lim_keras.raster.georeference import as_float32, shifted
from lim_keras.raster.opening import explained, silenced
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

_WIDE_TYPES = ("uint32", "int64", "uint64")  # rasterio does not polygonise them


def polygonize(raster: RasterReader) -> Iterator[tuple[Any, float]]:
    """Yield outline and value of each 4-connected group of pixels of equal value; value 0 is skipped.

    GDAL reads the raster line by line, so that memory grows with the number of polygons, not with that of pixels.
    8-connected groups are not used, because an outline through a shared corner is not a valid polygon.
    Outlines are shapely polygons in units of the raster's CRS, or in pixels (column, row) if it has no transform.

    Raises:
        DataError: the file is damaged.
    """
    with explained(raster.name):
        yield from _polygonize(raster.dataset)


def _polygonize(dataset: Any) -> Iterator[tuple[Any, float]]:
    if dataset.dtypes[0] in _WIDE_TYPES:
        with as_float32(dataset) as narrow:
            yield from _polygonize(narrow)
        return
    band = rasterio.band(dataset, 1)
    # Without a mask, the background becomes a polygon with a hole for each group.
    mask = band if dataset.dtypes[0] == "uint8" else None
    yield from _outlines(shapes(band, mask=mask, connectivity=4, transform=dataset.transform))


def polygonize_array(values: NDArray[Any], transform: Affine) -> Iterator[tuple[Any, float]]:
    """Yield outlines and values of an array (height, width), as `polygonize` does for a raster."""
    yield from _outlines(shapes(values, mask=values > 0, connectivity=4, transform=transform))


def _outlines(found: Iterator[tuple[Any, float]]) -> Iterator[tuple[Any, float]]:
    return ((shapely.geometry.shape(outline), value) for outline, value in found if value != 0)


def rasterize_box(polygons: Any, box: Box, transform: Affine, *, touched: bool = False) -> NDArray[np.uint8]:
    """Rasterize polygons (in the grid's CRS) in a box of a grid: 1 if a polygon contains the pixel centre, else 0.

    touched: write 1 for all pixels that a polygon touches.
    """
    mask = np.zeros((box.height, box.width), np.uint8)
    if len(polygons):
        with silenced(NotGeoreferencedWarning):  # rasterio silences it for one thread only
            rasterize(polygons, out=mask, transform=shifted(transform, box.left, box.top), all_touched=touched)
    return mask
