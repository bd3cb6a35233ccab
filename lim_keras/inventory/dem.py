"""Elevation models: values in metres, undeclared voids, and cells across the antimeridian."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from lim_keras.errors import DataError
from lim_keras.files import StrPath
from lim_keras.raster.georeference import Floats, Georeference, apply, full_turn, inverse, shifted
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, blocks

Elevations = NDArray[np.float32]

_METRES_OF_UNIT = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048),
    **dict.fromkeys(("us survey foot", "us survey feet", "us-ft", "ftus", "us_survey_foot"), 1200 / 3937),
}

# Void values that a file does not declare lie outside of this range (-99999, 1e38), or are one of these.
_LOWEST_M, _HIGHEST_M = -9000.0, 9000.0
_VOIDS = 2  # most different void values of a model that it does not declare
_ALWAYS_VOID = (-32768.0, -32767.0, -9999.0)
_OFTEN_VOID = (0.0, -1.0, -99.0, -999.0, 9999.0, 32767.0, 65535.0)
_GAP_M = 100.0  # one of `_OFTEN_VOID` is a void if it lies farther than this from all other elevations
_IMPLAUSIBLE = 0.1  # share of values out of range, void values left out, above which the unit must be another
_SAMPLED_BLOCKS, _EVERY = 64, 3  # blocks that are searched for voids, and the step between their cells


@dataclass(frozen=True)
class Values:
    """Meaning of the values of an elevation model.

    Attributes:
        scale, offset, unit_m: elevation in metres = (value * scale + offset) * unit_m.
        void: value of cells without an elevation that the file does not declare; None: there is none.
        same: the only elevation below the scene, metres; None: they differ.
        gaps: some cells below the scene have no elevation.
    """

    scale: float
    offset: float
    unit_m: float
    void: float | None = None
    same: float | None = None
    gaps: bool = False

    def metres(self, values: NDArray[Any]) -> Floats:
        """Convert values to metres; NaN where there is no elevation."""
        metres = (values.astype(np.float64) * self.scale + self.offset) * self.unit_m
        known = (metres > _LOWEST_M) & (metres < _HIGHEST_M) & ~np.isin(values, _ALWAYS_VOID)
        if self.void is not None:
            known &= values != self.void
        return np.where(known, metres, np.nan)

    @property
    def is_void_ambiguous(self) -> bool:
        """True if the void value could also be an elevation."""
        return self.void is not None and self.void not in _ALWAYS_VOID


class Dem:
    """Elevation model of one band, north up.

    Attributes:
        turn: columns of 360 degrees, for a model in degrees or in a cylindrical projection; None for another CRS.
    """

    def __init__(self, source: Any, values: Values) -> None:
        self.crs, self.transform, self.width, self.height = source.crs, source.transform, source.width, source.height
        self._reader, self.values = RasterReader(source), values
        horizontal = horizontal_crs(source.crs)
        self._georeference = Georeference(self.transform, horizontal.to_wkt(), None)
        self._geographic = horizontal.is_geographic
        length = full_turn(horizontal.to_wkt()) if self.transform.b == self.transform.d == 0 else None
        self.turn = None if length is None else abs(length / self.transform.a)

    @property
    def is_global(self) -> bool:
        """True if the model covers all longitudes; its last column then borders on its first."""
        return self.turn is not None and abs(self.width - self.turn) < 0.5

    def to_cells(self, x: Floats, y: Floats) -> Floats:
        """Convert a line of points, in the model's CRS, to cells (n, 2); it has no jump at the antimeridian."""
        cells = apply(inverse(self.transform), np.stack([x, y], axis=-1))
        if self.turn is not None and len(cells) and np.isfinite(cells).all():
            columns = np.unwrap(cells[:, 0], period=self.turn)
            # Use the copy of the line that is nearest to the model.
            cells[:, 0] = columns - self.turn * np.round((columns.mean() - self.width / 2) / self.turn)
        return cells

    def around_pole(self, cells: Floats) -> bool:
        """Return whether a line of cells (n, 2) encloses a pole, which is not a point in a model in degrees."""
        return self.turn is not None and abs(cells[-1, 0] - cells[0, 0]) > self.turn / 2

    def clip(self, cells: Floats, margin: int) -> Box | None:
        """Return the box of the model around cells (n, 2); None outside. In a global model it may cross the edges."""
        lowest = np.floor(cells.min(axis=0)).astype(int) - margin
        after = np.ceil(cells.max(axis=0)).astype(int) + margin
        first = -self.width if self.is_global else 0, 0
        last = 2 * self.width if self.is_global else self.width, self.height
        lowest, after = np.maximum(lowest, first), np.minimum(after, last)
        if (after <= lowest).any():
            return None
        (left, top), (right, bottom) = lowest.tolist(), after.tolist()
        return Box(top, left, bottom, right)

    def read(self, box: Box) -> Elevations:
        """Read elevations (height, width) in metres, NaN where there is none."""
        parts = [self._reader.pixels(piece)[..., 0] for piece in self.pieces(box)]
        return self.values.metres(np.concatenate(parts, axis=1)).astype(np.float32)

    def pieces(self, box: Box) -> list[Box]:
        """Split a box from `clip` into boxes within the model, from left to right."""
        parts, left = [], box.left
        while left < box.right:
            start = left % self.width
            count = min(box.right - left, self.width - start)
            parts.append(Box.sized(box.top, start, box.height, count))
            left += count
        return parts

    def cells(self, box: Box) -> list[Floats]:
        """Measure the cells of each row: metres across, metres down and azimuth of the columns, (height, 1) each."""
        rows = np.arange(box.top, box.bottom, dtype=np.float64) + 0.5
        columns = np.full(len(rows), box.left + box.width / 2)
        return [part[:, np.newaxis] for part in self._georeference.pixel_sides(columns, rows)]

    def copies(self, box: Box, near: float) -> list[Affine]:
        """Return the transforms of a box for warping, shifted by whole turns to the position nearest to x = `near`.

        In degrees, GDAL continues a box across the antimeridian. In other CRS, a box that crosses the edge of the map
        has two copies.
        """
        transform = shifted(self.transform, box.left, box.top)
        if self.turn is None:
            return [transform]
        turn = self.turn * self.transform.a
        left, width = transform.c, transform.a * box.width
        left -= turn * round((left + width / 2 - near) / turn)
        found = [left]
        if not self._geographic and max(left, left + width) > near + abs(turn) / 2:
            found.append(left - abs(turn))
        if not self._geographic and min(left, left + width) < near - abs(turn) / 2:
            found.append(left + abs(turn))
        return [Affine(transform.a, transform.b, x, transform.d, transform.e, transform.f) for x in found]


def examine(path: StrPath, source: RasterReader, boxes: Sequence[Box]) -> Values:
    """Determine unit, scale and void value of an elevation model from its header and a sample of `boxes`.

    Raises:
        DataError: the unit of its elevations is unknown, or they are too high or low for metres.
    """
    file = source.dataset
    values = Values(file.scales[0], file.offsets[0], _metres_of_unit(path, file))
    sample, cells = _sample(source, boxes)
    distinct, counts = np.unique(sample, return_counts=True)
    metres = values.metres(distinct)
    _check_plausible(path, values, distinct, counts)
    void = _void(distinct, metres, counts)
    known = metres[np.isfinite(metres) & (distinct != void)]
    same = float(known[0]) if len(known) == 1 and counts.sum() > 1 else None
    if same is not None and void is None and distinct[np.isfinite(metres)][0] == 0:
        void = 0.0  # a sea or an empty tile
    gaps = int(counts[np.isfinite(metres) & (distinct != void)].sum()) < cells
    return Values(values.scale, values.offset, values.unit_m, void, same, gaps)


def _check_plausible(path: StrPath, values: Values, distinct: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Refuse elevations that are out of range, as in centimetres; void values are few and frequent."""
    metres = (distinct.astype(np.float64) * values.scale + values.offset) * values.unit_m
    beyond = np.flatnonzero(~((metres > _LOWEST_M) & (metres < _HIGHEST_M)) & ~np.isin(distinct, _ALWAYS_VOID))
    beyond = beyond[np.argsort(counts[beyond])][:-_VOIDS]
    if counts[beyond].sum() > _IMPLAUSIBLE * counts.sum():
        low, high = metres[beyond].min(), metres[beyond].max()
        raise DataError(
            f"{path}: expected elevations of {_LOWEST_M:g} to {_HIGHEST_M:g} m. Received: values such as {low:.7g} to "
            f"{high:.7g} m below the scene. If its unit is another one, set the factor to metres, such as 0.01 for "
            f"centimetres (`gdal_edit.py -scale 0.01 {shlex.quote(str(path))}`); if not, give another model."
        )


def _sample(source: RasterReader, boxes: Sequence[Box]) -> tuple[NDArray[Any], int]:
    """Read values (n,) that the file marks as data, from blocks spread over boxes; also count all cells there."""
    found = [one.shifted(box.top, box.left) for box in boxes for one in blocks(box.height, box.width)]
    step = 1 if len(found) < _EVERY**2 else _EVERY
    parts, cells = [np.zeros(0, source.info.dtype)], 0
    for block in found[:: -(-len(found) // _SAMPLED_BLOCKS) or 1]:
        pixels, valid = source.image(block)
        parts.append(pixels[..., 0][::step, ::step][valid[::step, ::step]])
        cells += valid[::step, ::step].size
    return np.concatenate(parts), cells


def _void(distinct: NDArray[Any], metres: Floats, counts: NDArray[np.int64]) -> float | None:
    """Return the most frequent of the values (n,), in ascending order, that mark voids; None if there is none."""
    frequency = {}
    for index in np.flatnonzero(np.isin(distinct, (*_ALWAYS_VOID, *_OFTEN_VOID))):
        others = np.delete(metres, index)
        others = others[np.isfinite(others)]
        apart = len(others) > 0 and np.abs(others - metres[index]).min() > _GAP_M
        if not math.isfinite(metres[index]) or apart:
            frequency[float(distinct[index])] = int(counts[index])
    return max(frequency, key=lambda value: frequency[value], default=None)


def _metres_of_unit(path: StrPath, source: Any) -> float:
    """Return the unit of elevations in metres: that of the band, else of a compound CRS's vertical axis, else metres.

    On a grid in feet, heights may be in feet or in metres, so a band without a unit is refused.
    """
    unit = (source.units[0] or "").strip()
    if unit.lower() in _METRES_OF_UNIT:
        return _METRES_OF_UNIT[unit.lower()]
    if unit:
        raise DataError(
            f"{path}: expected elevations in metres or feet, but the band's unit is {unit!r}. Convert it, or set "
            "the unit (`gdal_edit.py -units metre`)."
        )
    upward = [axis for axis in CRS.from_wkt(source.crs.to_wkt()).axis_info if axis.direction == "up"]
    if upward:
        return float(upward[0].unit_conversion_factor)
    if source.crs.is_projected and source.crs.linear_units_factor[1] != 1:
        raise DataError(
            f"{path}: expected elevations of a known unit, but its grid is in {source.crs.linear_units_factor[0]} and "
            "its band has no unit. Set the unit (`gdal_edit.py -units metre`, or `-units ft`)."
        )
    return 1.0


def horizontal_crs(crs: Any) -> CRS:
    """Return a CRS without its vertical part."""
    whole = CRS.from_wkt(crs.to_wkt())
    return whole.sub_crs_list[0] if whole.is_compound else whole
