"""Grids to which scenes are resampled, and their relation to the grid of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.georeference import (
    Floats,
    Georeference,
    Grid,
    RasterInfo,
    apply,
    axes,
    border,
    ground_sides,
    inverse,
    pixel_shape,
    same_crs,
)

_SHAPE_TOLERANCE = 1.05  # largest stretch of a projection that counts as conformal
_PIXEL_TOLERANCE = 1.1  # largest ratio of pixel widths within a scene that count as equal
_UTM_LATITUDES, _UTM_WIDTH = (-80.0, 84.0), 12.0  # degrees
_SAME_DISTANCE = 1e-3  # largest relative difference of ground sample distances that count as equal
_SAME_STEP = 1e-6  # relative; rounding of transforms that are written as text
_MOST_PIXELS = 10**12
_INSET = 1e-9  # moves the outline off the poles and the antimeridian, where longitudes are ambiguous


def target_grid(info: RasterInfo, wanted_m: float) -> Grid | None:
    """Compute the grid on which a scene is read at a wanted ground sample distance; see `grid_with_gsd`.

    Args:
        wanted_m: ground sample distance, metres.

    Returns:
        The grid; None for a scene that has this distance and square pixels, which is read on its own grid.

    Raises:
        ConfigError: `wanted_m` is not a positive number.
        DataError: the scene has no CRS, its ground sample distance is unknown, or the grid would be too large.
    """
    if not (math.isfinite(wanted_m) and wanted_m > 0):
        raise ConfigError(f"Invalid value for `gsd`. Expected metres > 0. Received: {wanted_m:g}.")
    shape = pixel_shape(info)
    if info.transform is None or info.gsd_m is None or shape is None:
        raise _not_located(info, wanted_m)
    if abs(info.gsd_m / wanted_m - 1) < _SAME_DISTANCE and shape.stretch < _SHAPE_TOLERANCE:
        return None
    grid = grid_with_gsd(info, info.gsd_m, wanted_m)
    if grid.width * grid.height > _MOST_PIXELS:
        raise DataError(
            f"{info.path}: expected a ground sample distance that gives at most {_MOST_PIXELS:.0e} pixels. Received: "
            f"{wanted_m:g} m, which gives {grid.width} x {grid.height} px; a pixel of the scene is {info.gsd_m:.3g} m."
        )
    return grid


def _not_located(info: RasterInfo, wanted_m: float) -> DataError:
    return DataError(
        f"{info.path}: cannot be resampled to {wanted_m:.3g} m, as it has no coordinate reference system. Give it "
        "one (`gdal_translate -a_srs ... -a_ullr ...`)."
    )


def grid_with_gsd(info: RasterInfo, gsd_m: float, wanted_m: float) -> Grid:
    """Compute the grid of pixels of `wanted_m` x `wanted_m` metres that covers a scene.

    A scene in a conformal projection keeps its CRS. Otherwise, as in degrees, the grid is in UTM or, near a pole, in
    UPS. A scene that is too wide for UTM or that crosses the antimeridian keeps its CRS, too; the pixels of the grid
    are then square on the ground at the scene's centre.

    Raises:
        DataError: the scene has no CRS.
    """
    if not info.crs or info.transform is None:
        raise _not_located(info, wanted_m)
    crs = CRS.from_string(info.crs)
    target, step = crs, _square_steps(info, crs, gsd_m, wanted_m)
    corners = Georeference.of(info).place(border(info.box, points=1))
    (left, bottom), (right, top) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    if (crs.is_geographic or step[0] != step[1]) and (metric := _metric_crs(info)) is not None:
        target, step = metric, (wanted_m, wanted_m)
        left, bottom, right, top = transform_bounds(crs, target, left, bottom, right, top)
    width, height = max(1, round((right - left) / step[0])), max(1, round((top - bottom) / step[1]))
    return Grid(target.to_string(), Affine(step[0], 0, left, 0, -step[1], top), width, height, wanted_m)


@dataclass(frozen=True)
class Reduction:
    """Relation of a grid to a scene that is finer than it.

    Attributes:
        step: rows and columns of the scene in a pixel of the grid.
        start: row and column of the scene where the grid starts; None if the axes of the grid are not those of the
            scene, or an axis is finer than the scene.
    """

    step: tuple[float, float]
    start: tuple[float, float] | None

    @property
    def samples(self) -> tuple[int, int]:
        """Rows and columns of samples in a pixel of the grid, which are at least as dense as pixels of the scene."""
        rows, columns = (max(math.ceil(step * (1 - _SAME_STEP)), 1) for step in self.step)
        return rows, columns

    def sampled(self, grid: Grid) -> Grid:
        """Divide each pixel of the grid into its samples."""
        rows, columns = self.samples
        place = grid.transform
        steps = Affine(place.a / columns, place.b / rows, place.c, place.d / columns, place.e / rows, place.f)
        return Grid(grid.crs, steps, grid.width * columns, grid.height * rows, None)


def reduction(info: RasterInfo, grid: Grid) -> Reduction | None:
    """Compare a grid with the grid of a scene; None if a pixel of the grid is smaller than one of the scene."""
    if info.transform is None:
        return None
    points = _in_scene(info, grid)
    steps = np.hypot(*(points[1:] - points[0]).transpose(2, 0, 1))  # (across and down, places)
    known = np.isfinite(steps).all(axis=0)
    if not known.any():
        return None
    across, down = np.median(steps[:, known], axis=1).tolist()  # a step may cross the antimeridian
    if max(across, down) <= 1 + _SAME_STEP:
        return None
    if same_crs(info.crs, grid.crs):
        between = axes(grid.transform) @ axes(inverse(info.transform))
        if abs(between[0, 1]) + abs(between[1, 0]) < _SAME_STEP and between.diagonal().min() >= 1 - _SAME_STEP:
            column, row = apply(inverse(info.transform), np.array([[grid.transform.c, grid.transform.f]]))[0].tolist()
            return Reduction((float(between[1, 1]), float(between[0, 0])), (row, column))
    return Reduction((down, across), None)


def _in_scene(info: RasterInfo, grid: Grid) -> Floats:
    """Convert 3 x 3 places of a grid, and those one pixel to the right and below, to pixels (3, 9, 2) of a scene."""
    scene = Georeference.of(info).transform
    along = np.array([0.0, 0.5, 1.0])
    places = np.stack([part.ravel() for part in np.meshgrid(along * (grid.width - 1), along * (grid.height - 1))], -1)
    points = np.concatenate([places, places + np.array([1, 0]), places + np.array([0, 1])])
    there = apply(grid.transform, points)
    if not same_crs(info.crs, grid.crs):
        there = np.stack(Transformer.from_crs(grid.crs, info.crs, always_xy=True).transform(*there.T), axis=-1)
    return apply(inverse(scene), there).reshape(3, -1, 2)


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
