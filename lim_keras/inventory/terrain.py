"""Elevation models: slope and aspect on a scene's pixels."""

from __future__ import annotations

import shlex
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import ArrayLike
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import StrPath
from lim_keras.inventory.dem import Dem, Elevations, Values, examine, horizontal_crs
from lim_keras.raster.coordinates import check_coordinates
from lim_keras.raster.georeference import (
    Floats,
    Georeference,
    RasterInfo,
    averaged,
    border,
    north_up,
    resample,
    same_crs,
    shifted,
)
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.validity import without_values
from lim_keras.raster.windows import Box

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


class TerrainReader:
    """Elevation, slope and aspect below boxes of a scene; a context manager.

    Slopes are computed on the model's cells and then interpolated bilinearly; slopes of an interpolated model would
    show the facets between its cells. A model that is finer than the scene is averaged to the scene's ground sample
    distance first. Cells are measured on the ellipsoid, row by row, so that a model in degrees needs no warping.

    Args:
        dem: raster of one band; elevations in metres or, if its band or its vertical CRS gives that unit, in feet.
        scene: header of a raster on the scene's grid.

    Attributes:
        uncovered: share of the scene's area outside the model, 0..1; set on entry.
        same: the only elevation below the scene, metres; None if they differ; set on entry.
        lacks_edge: slopes are unknown only on the model's outermost cells, which lie below the scene; set on entry.

    Raises (on entry):
        DataError: the scene has no CRS, the model is unreadable, without a CRS, of several bands or in an unknown unit,
            it does not overlap the scene, or it is in degrees and the scene contains a pole.

    Warns (on entry):
        LimKerasWarning: the model does not cover the scene, or a value that may be an elevation counts as void.
    """

    def __init__(self, dem: StrPath, scene: RasterInfo) -> None:
        self._path, self._scene, self._ground = dem, scene, Georeference.of(scene)
        self.uncovered = 0.0
        self.same: float | None = None
        self.lacks_edge = False
        self._stack = ExitStack()
        self._dem: Dem
        self._to_dem: Transformer

    def __enter__(self) -> Self:
        if not self._ground.crs:
            raise DataError(
                f"{self._scene.path}: has no coordinate reference system, so its position in {self._path} is unknown. "
                "Give it one (`gdal_translate -a_srs ... -a_ullr ...`), or leave `dem` out."
            )
        with ExitStack() as stack:
            self._open(stack)
            self._check_cover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        path = self._path
        reader = stack.enter_context(RasterReader(path, bands=(1,)))
        source = reader.dataset
        if source.count != 1:
            raise DataError(
                f"{path}: expected an elevation model of one band. Received: {source.count} bands. Give one that holds "
                f"the elevations alone (`gdal_translate -b 1 {shlex.quote(str(path))} DEM.tif`)."
            )
        if source.crs is None:
            raise DataError(
                f"{path}: expected a georeferenced elevation model. Received: no CRS. Name its CRS (`gdal_edit.py "
                f"-a_srs EPSG:CODE {shlex.quote(str(path))}`)."
            )
        check_coordinates(reader.info)
        self._to_dem = self._transformer(horizontal_crs(source.crs))
        values = self._examine(reader)
        with explained(path):
            void = values.void
            if void is not None and source.nodata is not None:  # GDAL knows one such value only
                source, void = stack.enter_context(without_values(source, (source.nodata, void))), None
            source = stack.enter_context(north_up(source, void))
            self._dem = Dem(source, values)
            if (step := self._cells_per_pixel()) > 1:
                self._dem = Dem(stack.enter_context(averaged(source, step)), values)

    def _transformer(self, crs: CRS) -> Transformer:
        if same_crs(self._ground.crs, crs.to_wkt()):
            return Transformer.from_pipeline("+proj=noop")  # a local CRS has no other transformation
        try:
            return Transformer.from_crs(self._ground.crs, crs, always_xy=True)
        except ProjError as error:
            raise DataError(
                f"{self._path}: its CRS ({crs.name}) and that of {self._scene.path} have no known relation. Give an "
                "elevation model in the scene's CRS."
            ) from error

    def _examine(self, reader: RasterReader) -> Values:
        """Determine unit, scale and void value from the model's values below the scene."""
        self._dem = Dem(reader.dataset, Values(1.0, 0.0, 1.0))
        if self._dem.around_pole(self._to_cells(self._scene.box)):
            raise DataError(
                f"{self._path}: expected an elevation model in a polar CRS, because {self._scene.path} holds a pole. "
                f"Received: {reader.info.crs}. Warp it to the scene's CRS (`gdalwarp -t_srs {self._ground.crs}`)."
            )
        below = self._cells_below(self._scene.box)
        values = examine(self._path, reader, [] if below is None else self._dem.pieces(below))
        self.same = values.same if values.void is None else None
        if values.is_void_ambiguous:
            reason = "is far from all other elevations" if values.same != 0 else "is the only elevation"
            warnings.warn(
                f"{self._path}: {values.void:g} {reason} of {self._scene.path}, so it counts as no data. Declare it in "
                f"the file (`gdal_edit.py -a_nodata {values.void:g}`).",
                LimKerasWarning,
                stacklevel=5,
            )
        return values

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
        transform = shifted(self._ground.transform, box.left, box.top)
        target, shape = (self._ground.crs, transform), (box.height, box.width)
        found = np.full((len(layers), *shape), np.nan, np.float32)
        with explained(self._path):
            for place in self._dem.copies(part, transform.c if self._along_dem else 0.0):
                warped = resample(layers, (self._dem.crs, place), target, shape, nearest=nearest)
                found = np.where(np.isnan(found), warped, found)
        return found

    def _layers(self, part: Box) -> Elevations:
        """Read elevation, slope, and aspect as east and north components, because angles cannot be interpolated."""
        elevation = self._dem.read(part)
        across, down, azimuth = self._dem.cells(part)
        slope, aspect = slope_aspect(elevation, across, down)
        facing = np.radians(aspect + azimuth)
        return np.stack([elevation, slope, np.sin(facing), np.cos(facing)]).astype(np.float32)

    @cached_property
    def _along_dem(self) -> bool:
        """True if scene and model have the same x axis; longitudes of both may then exceed 180 degrees."""
        scene, model = CRS.from_user_input(self._ground.crs), horizontal_crs(self._dem.crs)
        return bool(scene.is_geographic and model.is_geographic) or same_crs(self._ground.crs, model.to_wkt())

    def _cells_below(self, box: Box) -> Box | None:
        """Find the cells that a box of the scene needs; None outside the model."""
        points = self._to_cells(box)
        return self._dem.clip(points, _MARGIN) if np.isfinite(points).all() else None

    def _to_cells(self, box: Box) -> Floats:
        """Convert the border of a box of the scene to points (n, 2) in cells of the model."""
        return self._in_cells(border(box))

    def _in_cells(self, points: Floats) -> Floats:
        placed = self._ground.place(points)
        return self._dem.to_cells(*self._to_dem.transform(placed[:, 0], placed[:, 1]))

    def _check_cover(self) -> None:
        outline = self._to_cells(self._scene.box)
        self.uncovered = _uncovered(outline, self._dem)
        complete = self.uncovered <= _NEGLIGIBLE and not self._dem.values.gaps
        self.lacks_edge = complete and _uncovered(outline, self._dem, edge=1) > _NEGLIGIBLE
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


def _uncovered(outline: Floats, dem: Dem, edge: int = 0) -> float:
    """Compute the share of an outline (n, 2), in cells of an elevation model, outside the model.

    edge: cells along the model's edge that count as outside.
    """
    if not np.isfinite(outline).all() or min(dem.width, dem.height) <= 2 * edge:
        return 1.0
    scene: Any = shapely.make_valid(shapely.Polygon(outline))
    beyond = dem.width if dem.is_global else 0
    model = shapely.box(edge - beyond, edge, dem.width + beyond - edge, dem.height - edge)
    return float(1 - scene.intersection(model).area / scene.area) if scene.area else 1.0
