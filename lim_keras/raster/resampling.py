"""Grids of square pixels, to which scenes are resampled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference, Grid, RasterInfo, axes, border, ground_sides

_SHAPE_TOLERANCE = 1.05  # largest stretch of a projection that counts as conformal
_PIXEL_TOLERANCE = 1.1  # largest ratio of pixel widths within a scene that count as equal
_UTM_LATITUDES, _UTM_WIDTH = (-80.0, 84.0), 12.0  # degrees
_INSET = 1e-9  # moves the outline off the poles and the antimeridian, where longitudes are ambiguous


def grid_with_gsd(info: RasterInfo, gsd_m: float, wanted_m: float) -> Grid:
    """Compute the grid of pixels of `wanted_m` x `wanted_m` metres that covers a scene.

    A scene in a conformal projection keeps its CRS. Otherwise, as in degrees, the grid is in UTM or, near a pole, in
    UPS. A scene that is too wide for UTM or that crosses the antimeridian keeps its CRS, too; the pixels of the grid
    are then square on the ground at the scene's centre.

    Raises:
        DataError: the scene has no CRS.
    """
    if not info.crs or info.transform is None:
        raise DataError(
            f"{info.path}: cannot be resampled to {wanted_m:.3g} m, as it has no coordinate reference system. Give it "
            "one (`gdal_translate -a_srs ... -a_ullr ...`)."
        )
    crs = CRS.from_string(info.crs)
    target, step = crs, _square_steps(info, crs, gsd_m, wanted_m)
    corners = Georeference.of(info).place(border(info.box, points=1))
    (left, bottom), (right, top) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    if (crs.is_geographic or step[0] != step[1]) and (metric := _metric_crs(info)) is not None:
        target, step = metric, (wanted_m, wanted_m)
        left, bottom, right, top = transform_bounds(crs, target, left, bottom, right, top)
    width, height = max(1, round((right - left) / step[0])), max(1, round((top - bottom) / step[1]))
    return Grid(target.to_string(), Affine(step[0], 0, left, 0, -step[1], top), width, height, wanted_m)


def _square_steps(info: RasterInfo, crs: Any, gsd_m: float, wanted_m: float) -> tuple[float, float]:
    """Compute the steps along the axes of a CRS that are `wanted_m` metres long at a scene's centre.

    The steps in a conformal projection are equal.
    """
    ground = Georeference.of(info)
    transform = ground.transform
    x, y = ground.place(np.array([[info.width / 2, info.height / 2]]))[0].tolist()
    unit = float(np.linalg.svd(axes(transform), compute_uv=False)[-1])  # a step that stays on the globe near a pole
    sides = ground_sides(crs, Affine(unit, 0, x, 0, unit, y), 0, 0)
    if sides is None or np.linalg.cond(sides) < _SHAPE_TOLERANCE:
        return (math.sqrt(abs(transform.determinant)) * wanted_m / gsd_m,) * 2
    across, along = unit * wanted_m / np.hypot(*sides.T)
    return float(across), float(along)


def _metric_crs(info: RasterInfo) -> CRS | None:
    """Return UTM (WGS 84) at a scene's centre, UPS near a pole; None for a scene that does not fit into it."""
    ground = Georeference.of(info)
    if ground.to_degrees is None:
        return None
    centre = np.array([[info.width / 2, info.height / 2]])
    outline = centre + (border(info.box) - centre) * (1 - _INSET)
    longitude, latitude = ground.degrees(centre)[0]
    around = ground.degrees(outline)
    if not np.isfinite(around).all() or not np.isfinite([longitude, latitude]).all():
        return None
    zone = int((longitude + 180) // 6) % 60 + 1
    code = (32600 if latitude >= 0 else 32700) + zone
    if not _UTM_LATITUDES[0] <= latitude <= _UTM_LATITUDES[1]:
        across = np.cos(np.radians(around[:, 1]))
        if across.max() < _PIXEL_TOLERANCE * across.min():
            return None  # UPS would only turn the scene
        code = 5041 if latitude > 0 else 5042
    elif np.ptp(np.unwrap(around[:, 0], period=360)) > _UTM_WIDTH:
        return None
    # GDAL warps from the grid to the scene, and would lose what lies across the antimeridian in the scene's CRS.
    there = Transformer.from_crs(info.crs, code, always_xy=True)
    placed = ground.place(outline)
    back = np.stack(there.transform(*there.transform(*placed.T), direction="INVERSE"), axis=-1)
    away = np.hypot(*(back - placed).T)
    return CRS.from_epsg(code) if (away < math.sqrt(abs(ground.transform.determinant))).all() else None
