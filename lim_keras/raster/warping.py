"""Warp rasters to other grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from lim_keras.raster.georeference import Grid, shifted


def on_grid(dataset: Any, grid: Grid, nodata: float | str) -> WarpedVRT:
    """View a rasterio dataset on a grid, bilinearly; an alpha band says where it holds data.

    nodata: see `lim_keras.raster.reader.Nodata`.
    """
    source: dict[str, float | None] = {} if nodata == "file" else {"src_nodata": None}
    if isinstance(nodata, float):
        source = {"src_nodata": nodata}
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.bilinear,
        add_alpha=ColorInterp.alpha not in dataset.colorinterp,
        **source,
    )


def north_up(dataset: Any) -> WarpedVRT:
    """View one band north up, as float32 with NaN for no data; a raster that is north up keeps its pixels."""
    matrix = dataset.transform
    kept = {"crs": dataset.crs, "dtype": "float32", "nodata": np.nan}
    if matrix.b == matrix.d == 0 and matrix.a > 0 > matrix.e:
        size = {"width": dataset.width, "height": dataset.height}
        return WarpedVRT(dataset, transform=matrix, resampling=Resampling.nearest, **size, **kept)
    return WarpedVRT(dataset, resampling=Resampling.bilinear, **kept)


def averaged(dataset: Any, step: int) -> WarpedVRT:
    """View the means of step x step pixels; NaN is no data."""
    return WarpedVRT(
        dataset,
        crs=dataset.crs,
        transform=shifted(dataset.transform, 0, 0, step),
        width=-(-dataset.width // step),
        height=-(-dataset.height // step),
        resampling=Resampling.average,
        nodata=np.nan,
    )


def as_float32(dataset: Any) -> WarpedVRT:
    """View a dataset with its values converted to float32."""
    size = {"width": dataset.width, "height": dataset.height}
    return WarpedVRT(dataset, dtype="float32", crs=dataset.crs, transform=dataset.transform, **size)


def resample(
    layers: NDArray[np.float32],
    source: tuple[Any, Affine],
    target: tuple[Any, Affine],
    shape: tuple[int, int],
    *,
    nearest: bool = False,
) -> NDArray[np.float32]:
    """Bring layers (n, height, width) to another grid, bilinearly; NaN is no data.

    Args:
        layers: each has its own gaps.
        source: CRS and transform of the layers.
        target: CRS and transform of the result.
        shape: rows and columns of the result.
        nearest: take the nearest pixel instead.
    """
    found = np.full((len(layers), *shape), np.nan, np.float32)
    reproject(
        layers,
        found,
        src_crs=source[0],
        src_transform=source[1],
        src_nodata=np.nan,
        dst_crs=target[0],
        dst_transform=target[1],
        dst_nodata=np.nan,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
        UNIFIED_SRC_NODATA="NO",
    )
    return found
