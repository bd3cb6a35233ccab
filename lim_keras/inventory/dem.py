"""Elevation models of any CRS, resolution and vertical unit, read in metres and window by window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from lim_keras.errors import DataError
from lim_keras.inventory.ground import Floats, apply, explained, inverse, open_raster, read_window, shifted

_ELLIPSOID = Geod(ellps="WGS84")
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
        self._source = source
        self._metres, self._scale, self._offset = metres, scale, offset
        self._to_degrees = Transformer.from_crs(_horizontal(source.crs), "OGC:CRS84", always_xy=True)

    def read(self, window: Window) -> NDArray[np.float32]:
        """Elevations (height, width) in metres, NaN where there is none."""
        raw = read_window(self._source, 1, window).astype(np.float64)
        metres = (raw * self._scale + self._offset) * self._metres
        known = (metres > _LOWEST_M) & (metres < _HIGHEST_M)
        return np.where(known, metres, np.nan).astype(np.float32)

    def cells(self, window: Window) -> Cells:
        """Cells of the window's rows, measured on the ellipsoid in its middle column."""
        rows = np.arange(window.row_off, window.row_off + window.height) + 0.5
        column = np.full(len(rows), window.col_off + window.width / 2)
        left, right = self._degrees(column - 0.5, rows), self._degrees(column + 0.5, rows)
        below, above = self._degrees(column, rows + 0.5), self._degrees(column, rows - 0.5)
        xres = _ELLIPSOID.inv(*left, *right)[2]
        north, _, yres = _ELLIPSOID.inv(*below, *above)
        return Cells(*(np.asarray(part, np.float64)[:, np.newaxis] for part in (xres, yres, north)))

    def _degrees(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        x, y = self._to_degrees.transform(*apply(self.matrix, np.stack([columns, rows], axis=-1)).T)
        return np.asarray(x), np.asarray(y)


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
        source = stack.enter_context(open_raster(path))
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
            source = stack.enter_context(_north_up(source))
            dem = Dem(path, source, metres, scale, offset)
            step = _coarsening(dem, way, centre, gsd_m)
            if step > 1:
                dem = Dem(path, stack.enter_context(_coarser(source, step)), metres, scale, offset)
        yield dem, way


def _north_up(source: Any) -> WarpedVRT:
    """A view of the band as floats, void cells NaN, rows from north to south; where they are already, cells stay."""
    matrix = source.transform
    kept = {"crs": source.crs, "dtype": "float32", "nodata": np.nan}
    if matrix.b == matrix.d == 0 and matrix.a > 0 and matrix.e < 0:
        return WarpedVRT(
            source, transform=matrix, width=source.width, height=source.height, resampling=Resampling.nearest, **kept
        )
    return WarpedVRT(source, resampling=Resampling.bilinear, **kept)


def _coarser(source: Any, step: int) -> WarpedVRT:
    """The means of step x step cells."""
    return WarpedVRT(
        source,
        crs=source.crs,
        transform=shifted(source.transform, 0, 0, step),
        width=-(-source.width // step),
        height=-(-source.height // step),
        resampling=Resampling.average,
        nodata=np.nan,
    )


def _coarsening(dem: Dem, way: Transformer, centre: Floats, gsd_m: float | None) -> int:
    """Cells of the model to a pixel of the scene, a side; 1 where the model is coarser."""
    x, y = way.transform(*centre)
    if gsd_m is None or not np.isfinite([x, y]).all():
        return 1
    column, row = apply(inverse(dem.matrix), np.array([[x, y]]))[0]
    cells = dem.cells(Window(int(np.clip(column, 0, dem.width)), int(np.clip(row, 0, dem.height)), 1, 1))
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
