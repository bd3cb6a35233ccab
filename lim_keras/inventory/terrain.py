"""Elevation models: slope and aspect on a scene's pixels."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import StrPath
from lim_keras.raster.georeference import (
    Floats,
    Georeference,
    RasterInfo,
    apply,
    averaged,
    border,
    inverse,
    north_up,
    resample,
    shifted,
)
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

Elevations = NDArray[np.float32]

_METRES_OF_UNIT = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048),
    **dict.fromkeys(("us survey foot", "us survey feet", "us-ft", "ftus", "us_survey_foot"), 1200 / 3937),
}

# Void values that a file does not declare lie outside of this range (-9999, -32768, 1e38).
_LOWEST_M, _HIGHEST_M = -9000.0, 9000.0
_MARGIN = 4  # cells around a box: one for the 3 x 3 neighbourhood, two for bilinear weights, one for rounding
_NEGLIGIBLE = 1e-4  # share of a scene that rounding of its corners may leave uncovered


@dataclass(frozen=True)
class Terrain:
    """Terrain on the scene's grid, (height, width) float32 each, NaN where unknown.

    Attributes:
        elevation: metres.
        slope: degrees, 0 level, 90 vertical.
        aspect: degrees, downhill direction, 0 north, 90 east; NaN on level ground.
    """

    elevation: Elevations
    slope: Elevations
    aspect: Elevations


def slope_aspect(elevation: Elevations, xres_m: ArrayLike, yres_m: ArrayLike) -> tuple[Elevations, Elevations]:
    """Compute slope and aspect from 3 x 3 neighbourhoods (Horn 1981, Proceedings of the IEEE 69(1)).

    `elevation` (height, width) is in metres, north up; `xres_m` and `yres_m` are metres across and down a cell, one
    number or (height, 1). Results are NaN at the border, and where the cell or a neighbour is NaN; units as in
    `Terrain`.
    """
    height, width = elevation.shape
    slope, aspect = np.full((2, height, width), np.nan, np.float32)
    if height < 3 or width < 3:
        return slope, aspect
    z = elevation.astype(np.float64)
    xres, yres = (np.broadcast_to(np.asarray(size, np.float64), (height, 1))[1:-1] for size in (xres_m, yres_m))
    down = z[:-2] + 2 * z[1:-1] + z[2:]
    across = z[:, :-2] + 2 * z[:, 1:-1] + z[:, 2:]
    east = (down[:, 2:] - down[:, :-2]) / (8 * xres)
    south = (across[2:] - across[:-2]) / (8 * yres)
    steepness = np.hypot(east, south)
    unknown = ~np.isfinite(steepness + z[1:-1, 1:-1])
    inner = (slice(1, -1), slice(1, -1))
    slope[inner] = np.where(unknown, np.nan, np.degrees(np.arctan(steepness)))
    facing = np.degrees(np.arctan2(-east, south)) % 360
    aspect[inner] = np.where(unknown | (steepness == 0), np.nan, facing)
    return slope, aspect


class _Dem:
    """Elevation model of one band, north up; `scaling`: scale and offset of its values, and their unit in metres."""

    def __init__(self, source: Any, scaling: tuple[float, float, float]) -> None:
        self.crs, self.transform, self.width, self.height = source.crs, source.transform, source.width, source.height
        self._reader, self._scaling = RasterReader(source), scaling
        self._georeference = Georeference(self.transform, _horizontal(source.crs).to_wkt(), None)

    def read(self, box: Box) -> Elevations:
        """Read elevations (height, width) in metres, NaN where there is none."""
        scale, offset, unit = self._scaling
        metres = (self._reader.pixels(box)[..., 0].astype(np.float64) * scale + offset) * unit
        known = (metres > _LOWEST_M) & (metres < _HIGHEST_M)
        return np.where(known, metres, np.nan).astype(np.float32)

    def cells(self, box: Box) -> list[Floats]:
        """Measure the cells of each row: metres across, metres down and azimuth of the columns, (height, 1) each."""
        rows = np.arange(box.top, box.bottom, dtype=np.float64) + 0.5
        columns = np.full(len(rows), box.left + box.width / 2)
        return [part[:, np.newaxis] for part in self._georeference.pixel_sides(columns, rows)]


class TerrainReader:
    """Elevation, slope and aspect below boxes of a scene; a context manager.

    Slopes are computed on the model's cells and then interpolated bilinearly; slopes of an interpolated model would
    show the facets between its cells. A model that is finer than the scene is averaged to the scene's ground sample
    distance first. Cells are measured on the ellipsoid, row by row, so that a model in degrees needs no warping.

    Args:
        dem: raster of one band; elevations in metres or, if its band or its vertical CRS says so, in feet.
        scene: header of a raster on the scene's grid.

    Attributes:
        uncovered: share of the scene's area outside the model, 0..1; set on entry.

    Raises (on entry):
        DataError: the scene has no CRS, the model is unreadable, without a CRS, of several bands or in an unknown unit,
            or it does not overlap the scene.
    """

    def __init__(self, dem: StrPath, scene: RasterInfo) -> None:
        self._path, self._scene, self._ground = dem, scene, Georeference.of(scene)
        self.uncovered = 0.0
        self._stack = ExitStack()
        self._dem: _Dem
        self._to_dem: Transformer

    def __enter__(self) -> Self:
        if not self._ground.crs:
            raise DataError(
                f"{self._scene.path}: has no coordinate reference system, so its position in {self._path} is unknown. "
                "Give it one (`gdal_translate -a_srs ... -a_ullr ...`), or leave `dem` out."
            )
        with ExitStack() as stack:
            self._open(stack)
            self.uncovered = _uncovered(self._to_cells(self._scene.box), self._dem)
            self._check_cover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        path = self._path
        source = stack.enter_context(RasterReader(path, bands=(1,))).dataset
        if source.crs is None or source.count != 1:
            raise DataError(
                f"{path}: expected a georeferenced elevation model of one band. "
                f"Received: {source.count} bands, CRS {source.crs}."
            )
        scaling = source.scales[0], source.offsets[0], _metres_of_unit(path, source)
        try:
            self._to_dem = Transformer.from_crs(self._ground.crs, _horizontal(source.crs), always_xy=True)
        except ProjError as error:
            raise DataError(f"{path}: its CRS and that of the scene cannot be brought together ({error}).") from error
        with explained(path):
            source = stack.enter_context(north_up(source))
            self._dem = _Dem(source, scaling)
            if (step := self._cells_per_pixel()) > 1:
                self._dem = _Dem(stack.enter_context(averaged(source, step)), scaling)

    def _cells_per_pixel(self) -> int:
        """Count the model's cells along a side of a pixel at the scene's centre; 1 where the model is coarser."""
        dem, box = self._dem, self._scene.box
        column, row = self._in_cells(np.array([[box.width / 2, box.height / 2]]))[0]
        if self._ground.gsd_m is None or not np.isfinite([column, row]).all():
            return 1
        top, left = int(np.clip(row, 0, dem.height)), int(np.clip(column, 0, dem.width))
        across, down, _ = dem.cells(Box.sized(top, left, 1, 1))
        return max(1, int(self._ground.gsd_m / max(across[0, 0], down[0, 0]) + 1e-3))

    def read(self, box: Box) -> Terrain:
        """Read the terrain below a box of the scene."""
        part = self._cells_below(box)
        if part is None:
            return Terrain(*np.full((3, box.height, box.width), np.nan, np.float32))
        layers = self._layers(part)
        smooth = self._sample(layers, part, box)
        # Keep voids: bilinear interpolation fills them from their neighbours.
        smooth[np.isnan(self._sample(layers, part, box, nearest=True))] = np.nan
        elevation, slope, east, north = smooth
        level = (east == 0) & (north == 0)
        aspect = np.where(level, np.nan, np.degrees(np.arctan2(east, north)) % 360)
        return Terrain(elevation, slope, aspect.astype(np.float32))

    def _sample(self, layers: Elevations, part: Box, box: Box, *, nearest: bool = False) -> Elevations:
        """Interpolate layers (n, height, width) of a part of the model at the pixels of a box of the scene."""
        source = self._dem.crs, shifted(self._dem.transform, part.left, part.top)
        target = self._ground.crs, shifted(self._ground.transform, box.left, box.top)
        with explained(self._path):
            return resample(layers, source, target, (box.height, box.width), nearest=nearest)

    def _layers(self, part: Box) -> Elevations:
        """Read elevation, slope, and aspect as east and north components, because angles cannot be interpolated."""
        elevation = self._dem.read(part)
        across, down, azimuth = self._dem.cells(part)
        slope, aspect = slope_aspect(elevation, across, down)
        facing = np.radians(aspect + azimuth)
        return np.stack([elevation, slope, np.sin(facing), np.cos(facing)]).astype(np.float32)

    def _cells_below(self, box: Box) -> Box | None:
        """Find the cells that a box of the scene needs; None outside the model."""
        points = self._to_cells(box)
        if not np.isfinite(points).all():
            return None
        lowest = np.maximum(np.floor(points.min(axis=0)) - _MARGIN, 0).astype(int)
        after = np.minimum(np.ceil(points.max(axis=0)) + _MARGIN, (self._dem.width, self._dem.height)).astype(int)
        if (after <= lowest).any():
            return None
        (left, top), (right, bottom) = lowest.tolist(), after.tolist()
        return Box(top, left, bottom, right)

    def _to_cells(self, box: Box) -> Floats:
        """Convert the border of a box of the scene to points (n, 2) in cells of the model."""
        return self._in_cells(border(box))

    def _in_cells(self, points: Floats) -> Floats:
        placed = self._ground.place(points)
        x, y = self._to_dem.transform(placed[:, 0], placed[:, 1])
        return apply(inverse(self._dem.transform), np.stack([x, y], axis=-1))

    def _check_cover(self) -> None:
        if self.uncovered >= 1:
            raise DataError(
                f"{self._path}: expected an elevation model of {self._scene.path}, but it lies elsewhere. Give one of "
                "this area, or correct the CRS of either."
            )
        if self.uncovered > _NEGLIGIBLE:
            warnings.warn(
                f"{self._path}: does not cover {self.uncovered:.1%} of {self._scene.path}; slopes and elevations "
                "are unknown there.",
                LimKerasWarning,
                stacklevel=3,
            )


def _uncovered(outline: Floats, dem: _Dem) -> float:
    """Compute the share of an outline (n, 2), in cells of an elevation model, outside the model."""
    if not np.isfinite(outline).all():
        return 1.0
    scene: Any = shapely.Polygon(outline)
    return float(1 - scene.intersection(shapely.box(0, 0, dem.width, dem.height)).area / scene.area)


def _metres_of_unit(path: StrPath, source: Any) -> float:
    """Return the unit of elevations in metres: that of the band, else of a compound CRS's vertical axis, else metres.

    On a grid in feet, heights may be in feet or in metres, so a band without a unit is refused.
    """
    unit = (source.units[0] or "").strip()
    if unit.lower() in _METRES_OF_UNIT:
        return _METRES_OF_UNIT[unit.lower()]
    if unit:
        raise DataError(
            f"{path}: expected elevations in metres or feet, but the band's unit is {unit!r}. Convert it, or say what "
            "it is (`gdal_edit.py -units metre`)."
        )
    upward = [axis for axis in CRS.from_wkt(source.crs.to_wkt()).axis_info if axis.direction == "up"]
    if upward:
        return float(upward[0].unit_conversion_factor)
    if source.crs.is_projected and source.crs.linear_units_factor[1] != 1:
        raise DataError(
            f"{path}: expected elevations of a known unit, but its grid is in {source.crs.linear_units_factor[0]} and "
            "its band has no unit. Say what it is (`gdal_edit.py -units metre`, or `-units ft`)."
        )
    return 1.0


def _horizontal(crs: Any) -> CRS:
    """Return a CRS without its vertical part."""
    whole = CRS.from_wkt(crs.to_wkt())
    return whole.sub_crs_list[0] if whole.is_compound else whole
