"""Check the coordinates of a raster."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pyproj
from affine import Affine

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Floats, RasterInfo, apply, axes

_ROUNDING = 64  # smallest pixel, in steps between neighbouring float64 coordinates
_LONGITUDE, _LATITUDE = 540.0, 90.0  # degrees; scenes may continue across the antimeridian
_SHORTEST_M = 1e-4  # a shorter pixel of a projected CRS, at coordinates that fit degrees, is in degrees


def check_coordinates(raster: RasterInfo) -> None:
    """Refuse a georeference that gives no area on the ground.

    Raises:
        DataError: the transform is not finite or has no inverse, its pixels are smaller than the rounding of
            coordinates, or the coordinates lie outside of their CRS.
    """
    if raster.transform is None:
        return
    name = shlex.quote(str(raster.path))
    numbers = tuple(raster.transform[:6])
    corners = np.array([(column, row) for column in (0, raster.width) for row in (0, raster.height)], np.float64)
    cure = f"Set the corners (`gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM {name}`)."
    if not np.isfinite(numbers).all() or not np.isfinite(placed := apply(raster.transform, corners)).all():
        raise DataError(f"{raster.path}: expected a finite georeference. Received: transform {numbers}. {cure}")
    steps = np.linalg.svd(axes(raster.transform), compute_uv=False)
    if not steps[-1] > _ROUNDING * np.spacing(np.abs(placed).max()) or steps[-1] < 1e-12 * steps[0]:
        raise DataError(
            f"{raster.path}: expected pixels with an area, of sides above the rounding of their coordinates. "
            f"Received: transform {numbers}. {cure}"
        )
    if raster.crs:
        _check_range(raster, raster.transform, placed, name)


def _check_range(raster: RasterInfo, transform: Affine, corners: Floats, name: str) -> None:
    """Refuse coordinates that are not those of the CRS: metres or swapped degrees, or degrees in a projected CRS."""
    crs = pyproj.CRS.from_user_input(raster.crs)
    largest, pixel = np.abs(corners).max(axis=0), np.abs(axes(transform)).max(axis=0)
    (west, south), (east, north) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    received = f"Received: x {west:.7g} to {east:.7g}, y {south:.7g} to {north:.7g}."
    assign = f"`gdal_edit.py -a_srs EPSG:CODE {name}`"
    if crs.is_projected and pixel.max() < _SHORTEST_M and (largest <= (_LONGITUDE, _LATITUDE)).all():
        raise DataError(
            f"{raster.path}: its CRS is {crs.name}, but its coordinates look like degrees. {received} Name their CRS "
            f"({assign})."
        )
    if not crs.is_geographic:
        return
    turn = 2 * math.pi / crs.axis_info[0].unit_conversion_factor / 360
    limits = np.array([_LONGITUDE, _LATITUDE]) * turn
    if (largest <= limits * (1 + 1e-9) + pixel).all():  # cells may be centred on a pole
        return
    outside = f"{raster.path}: its coordinates lie outside of its CRS ({crs.name}). {received}"
    if (largest[::-1] <= limits).all():
        left, top = transform.f, transform.c
        right, bottom = left + (east - west), top - (north - south)
        shown = " ".join(f"{value:.12g}" for value in (left, top, right, bottom))
        raise DataError(
            f"{outside} If x and y are swapped, set the corners (`gdal_edit.py -a_ullr {shown} {name}`); if not, name "
            f"the right CRS ({assign})."
        )
    raise DataError(f"{outside} They may be metres: name the right CRS ({assign}).")
