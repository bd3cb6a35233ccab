"""Landslide outlines: tracing, simplification and holes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, inverse
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.vectorize import polygonize

Polygons = NDArray[Any]
"""shapely polygons, (n,)."""


def read_mask_info(mask: Path) -> RasterInfo:
    """The header of a landslide mask.

    Raises:
        DataError: unreadable, or not one band of uint8.
    """
    info = read_info(mask)
    if info.bands != 1 or info.dtype != "uint8":
        raise DataError(
            f"{mask}: expected a mask of one band of uint8 (1 landslide, 0 background, {NO_LABEL} no data), "
            f"but it has {info.bands} of {info.dtype}."
        )
    return info


def trace(mask: Path) -> tuple[Polygons, NDArray[np.int64]]:
    """Outline the landslides of a mask: one polygon for each group of class 1 pixels that share sides.

    Returns:
        Polygons with whole pixel coordinates, (column, row), and the pixels (n, 2), (column, row), that they begin
        with: the leftmost of the topmost row. They are in the order of those pixels, row by row.

    Raises:
        DataError: the file cannot be opened, or holds values other than 0, 1 and 255.
    """
    found = []
    with RasterReader(mask) as raster:
        for outline, value in polygonize(raster):
            if value == 1:
                found.append(outline)
            elif value != NO_LABEL:
                raise DataError(
                    f"{mask}: expected the values 1 (landslide), 0 (background) and {NO_LABEL} (no data), "
                    f"but it holds {value:g}."
                )
        transform = raster.dataset.transform
    placed = np.array(found, dtype=object)
    outlines = shapely.transform(placed, lambda points: np.rint(apply(inverse(transform), points)))
    seeds = first_pixels(outlines)
    order = np.lexsort((seeds[:, 0], seeds[:, 1]))
    return outlines[order], seeds[order]


def first_pixels(outlines: Polygons) -> NDArray[np.int64]:
    """The upper left pixel (n, 2), (column, row), of each outline: the leftmost pixel of its topmost row."""
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    whole = points.astype(np.int64)
    order = np.lexsort((whole[:, 0], whole[:, 1], owner))
    _, first = np.unique(owner[order], return_index=True)
    return np.asarray(whole[order][first], np.int64)


def place(outlines: Polygons, ground: Georeference) -> Polygons:
    """Outlines in pixels to outlines in the scene's CRS."""
    return np.asarray(shapely.transform(outlines, ground.place), dtype=object)
