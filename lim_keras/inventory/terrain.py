"""Elevation models, slope and aspect."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.georeference import Floats, Georeference, RasterInfo, apply, border, inverse, shifted
from lim_keras.raster.reader import RasterReader, explained
from lim_keras.raster.warping import averaged, north_up, resample
from lim_keras.raster.windows import Box

_US_SURVEY_FOOT = 1200 / 3937

_UNITS = {
    **dict.fromkeys(("", "m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048),
    **dict.fromkeys(("us survey foot", "us survey feet", "us-ft", "ftus", "us_survey_foot"), _US_SURVEY_FOOT),
}

# No land and no sea floor that slides lies beyond; void values that a file does not declare do (-9999, -32768, 1e38).
_LOWEST_M, _HIGHEST_M = -9000.0, 9000.0


@dataclass(frozen=True)
class Cells:
    """Size and direction of an elevation model's cells on the ground, a row of a window each: all (height, 1).

    xres_m, yres_m: metres across a cell and down. north_deg: azimuth, clockwise from north, of the way up the grid's
    columns.
    """

    xres_m: Floats
    yres_m: Floats
    north_deg: Floats


class Dem:
    """An elevation model, north up, not finer than asked for. Made by `open_dem`.

    matrix: cells to units of `crs`. width, height: cells.
    """

    def __init__(self, path: Path, source: Any, metres: float, scale: float, offset: float) -> None:
        self.path = path
        self.crs = source.crs
        self.matrix, self.width, self.height = source.transform, source.width, source.height
        self._reader = RasterReader(source)
        self._metres, self._scale, self._offset = metres, scale, offset
        self._georeference = Georeference(self.matrix, _horizontal(source.crs).to_wkt(), None)

    def read(self, box: Box) -> NDArray[np.float32]:
        """Elevations (height, width) in metres, NaN where there is none."""
        raw = self._reader.pixels(box)[..., 0].astype(np.float64)
        metres = (raw * self._scale + self._offset) * self._metres
        known = (metres > _LOWEST_M) & (metres < _HIGHEST_M)
        return np.where(known, metres, np.nan).astype(np.float32)

    def cells(self, box: Box) -> Cells:
        """Cells of the box's rows, measured on the ellipsoid in its middle column."""
        rows = np.arange(box.top, box.bottom) + 0.5
        columns = np.full(len(rows), box.left + box.width / 2)
        return Cells(*(part[:, np.newaxis] for part in self._georeference.pixel_sides(columns, rows)))


@contextmanager
def open_dem(path: Path, scene_crs: str, centre: Floats, gsd_m: float | None) -> Iterator[tuple[Dem, Transformer]]:
    """Open an elevation model for a scene.

    Args:
        path: any raster that GDAL reads, of one band.
        scene_crs: of the scene.
        centre: (2,) the scene's centre in its CRS.
        gsd_m: ground sample distance of the scene; a finer model is averaged to about that first.

    Yields:
        The model, and the way from the scene's CRS to the model's.

    Raises:
        DataError: unreadable, without a place on the ground, of several bands, or with heights in a unit that is not
            known: one that is neither metres nor feet, or none on a grid that is not in metres or degrees.
    """
    with ExitStack() as stack:
        source = stack.enter_context(RasterReader(path, bands=(1,))).dataset
        if source.crs is None or source.count != 1:
            raise DataError(
                f"{path}: expected a georeferenced elevation model of one band. "
                f"Received: {source.count} bands, CRS {source.crs}."
            )
        metres, scale, offset = _metres_a_unit(path, source), source.scales[0], source.offsets[0]
        try:
            way = Transformer.from_crs(scene_crs, _horizontal(source.crs), always_xy=True)
        except ProjError as error:
            raise DataError(f"{path}: its CRS and that of the scene cannot be brought together ({error}).") from error
        with explained(path):
            source = stack.enter_context(north_up(source))
            dem = Dem(path, source, metres, scale, offset)
            step = _coarsening(dem, way, centre, gsd_m)
            if step > 1:
                dem = Dem(path, stack.enter_context(averaged(source, step)), metres, scale, offset)
        yield dem, way


def _coarsening(dem: Dem, way: Transformer, centre: Floats, gsd_m: float | None) -> int:
    """Cells of the model to a pixel of the scene, a side; 1 where the model is coarser."""
    x, y = way.transform(*centre)
    if gsd_m is None or not np.isfinite([x, y]).all():
        return 1
    column, row = apply(inverse(dem.matrix), np.array([[x, y]]))[0]
    cells = dem.cells(Box.sized(int(np.clip(row, 0, dem.height)), int(np.clip(column, 0, dem.width)), 1, 1))
    return max(1, int(gsd_m / max(cells.xres_m[0, 0], cells.yres_m[0, 0]) + 1e-3))


def _metres_a_unit(path: Path, source: Any) -> float:
    """By the band's unit; where it has none, by the vertical axis of a compound CRS; metres where neither says.

    On a grid in feet, heights are as often in feet as in metres, and slopes would be wrong by a factor of three.
    """
    unit = (source.units[0] or "").strip()
    if unit.lower() in _UNITS and unit:
        return _UNITS[unit.lower()]
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
    """Without the vertical part of a compound CRS."""
    whole = CRS.from_wkt(crs.to_wkt())
    return whole.sub_crs_list[0] if whole.is_compound else whole


Elevations = NDArray[np.float32]

# Cells around a window: one for the 3 x 3 neighbourhood, two for bilinear weights, one for rounding.
_MARGIN = 4

# What rounding of corners may leave uncovered of a scene.
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class Terrain:
    """Terrain on the scene's grid, (height, width) float32 each, NaN where unknown.

    elevation: metres. slope: degrees, 0 level, 90 upright. aspect: degrees, the way that the slope faces (downhill),
    0 north, 90 east; NaN on level ground.
    """

    elevation: Elevations
    slope: Elevations
    aspect: Elevations


def slope_aspect(elevation: Elevations, xres_m: ArrayLike, yres_m: ArrayLike) -> tuple[Elevations, Elevations]:
    """Slope and aspect of the plane that fits each 3 x 3 neighbourhood, after Horn (1981), "Hill shading and the
    reflectance map", Proceedings of the IEEE 69(1): neighbours beside the cell weigh twice those at its corners.

    Args:
        elevation: (height, width) metres; rows go from north to south, columns from west to east. NaN where unknown.
        xres_m: metres across a cell, one number or (height, 1), one a row.
        yres_m: metres down a cell, likewise.

    Returns:
        slope in degrees, and aspect in degrees: the way that the slope faces (downhill), 0 north, 90 east, NaN on
        level ground. Both (height, width) float32, NaN at the border and where the cell or a neighbour is NaN.
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


class TerrainReader:
    """Elevation, slope and aspect below windows of a scene; a context manager.

    Slopes are taken on the model's own cells and only then brought to the scene's pixels, bilinearly. The other way
    round, a 30 m model drawn out bilinearly to pixels of 0.8 m is a net of facets with creases between them; slopes of
    those pixels show the facets and the creases, not the hillside. A model that is finer than the scene is averaged to
    the scene's ground sample distance first, for the roughness of single boulders is not the slope of a landslide.

    Cells are measured on the WGS 84 ellipsoid, row by row: a model in degrees is used as it is, without a warp that
    would smooth it, and one in Web Mercator gets its true slopes too. Aspects are turned from the grid's north to true
    north. Only the window's part of the model is in memory.

    Args:
        dem: any raster of one band that GDAL reads; elevations in metres or, where its band or its vertical CRS says
            so, in feet.
        scene: header of a raster on the scene's grid.

    Attributes:
        uncovered: share of the scene's area outside the model, 0..1; known once entered.

    Raises (when entered):
        DataError: the scene has no CRS, the model cannot be used, or it lies elsewhere. A model that covers a part only
            is a warning.
    """

    def __init__(self, dem: Path, scene: RasterInfo) -> None:
        self._path, self._scene, self._ground = dem, scene, Georeference.of(scene)
        self.uncovered = 0.0
        self._stack = ExitStack()
        self._dem: Dem
        self._way: Transformer

    def __enter__(self) -> Self:
        ground = self._ground
        if not ground.crs:
            raise DataError(
                f"{self._scene.path}: expected a scene with a CRS to find its place in {self._path}, but it has none."
            )
        everything = self._scene.box
        centre = ground.place(np.array([[everything.width / 2, everything.height / 2]]))[0]
        with ExitStack() as stack:
            opened = open_dem(self._path, ground.crs, centre, ground.gsd_m)
            self._dem, self._way = stack.enter_context(opened)
            self.uncovered = _uncovered(self._to_cells(everything), self._dem)
            self._check_cover()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, box: Box) -> Terrain:
        """The terrain below a box of the scene."""
        part = self._cells_below(box)
        if part is None:
            nowhere = np.full((3, box.height, box.width), np.nan, np.float32)
            return Terrain(*nowhere)
        layers = self._layers(part)
        smooth = self._sample(layers, part, box)
        # Bilinear weights would draw the neighbours of a void into it: a pixel is as unknown as the cell that it is in.
        smooth[np.isnan(self._sample(layers, part, box, nearest=True))] = np.nan
        elevation, slope, east, north = smooth
        level = (east == 0) & (north == 0)
        aspect = np.where(level, np.nan, np.degrees(np.arctan2(east, north)) % 360)
        return Terrain(elevation, slope, aspect.astype(np.float32))

    def _sample(self, layers: Elevations, part: Box, box: Box, *, nearest: bool = False) -> Elevations:
        """Layers (n, height, width) of a part of the model, at the pixels of a box of the scene."""
        source = self._dem.crs, shifted(self._dem.matrix, part.left, part.top)
        target = self._ground.crs, shifted(self._ground.transform, box.left, box.top)
        with explained(self._path):
            return resample(layers, source, target, (box.height, box.width), nearest=nearest)

    def _layers(self, part: Box) -> Elevations:
        """Elevation, slope and the two parts of the direction that it faces, which unlike its angle can be averaged."""
        elevation, cells = self._dem.read(part), self._dem.cells(part)
        slope, aspect = slope_aspect(elevation, cells.xres_m, cells.yres_m)
        facing = np.radians(aspect + cells.north_deg)
        return np.stack([elevation, slope, np.sin(facing), np.cos(facing)]).astype(np.float32)

    def _cells_below(self, box: Box) -> Box | None:
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
        """The border of a box of the scene, in cells of the model."""
        placed = self._ground.place(border(box))
        x, y = self._way.transform(placed[:, 0], placed[:, 1])
        return apply(inverse(self._dem.matrix), np.stack([x, y], axis=-1))

    def _check_cover(self) -> None:
        if self.uncovered >= 1:
            raise DataError(
                f"{self._path}: expected an elevation model of {self._scene.path}, but it lies elsewhere. Give one of "
                "this ground, or mend the CRS of either."
            )
        if self.uncovered > _NEGLIGIBLE:
            warnings.warn(
                f"{self._path}: does not cover {self.uncovered:.1%} of {self._scene.path}; slopes and elevations "
                "are unknown there.",
                LimKerasWarning,
                stacklevel=3,
            )


def _uncovered(outline: Floats, dem: Dem) -> float:
    """Share of an outline (n, 2), in cells of a model, that lies outside of it."""
    if not np.isfinite(outline).all():
        return 1.0
    scene: Any = shapely.Polygon(outline)
    return float(1 - scene.intersection(shapely.box(0, 0, dem.width, dem.height)).area / scene.area)
