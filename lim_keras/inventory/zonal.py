"""Statistics of rasters over each landslide."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.inventory.polygons import Polygons
from lim_keras.inventory.terrain import Terrain
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.windows import BLOCK, Box, blocks

Columns = dict[str, NDArray[Any]]

# Shorter mean directions are noise: slopes of all directions cancel out.
_MIN_RESULTANT = 1e-6


class TerrainSource(Protocol):
    """What gives the terrain below a box of the scene, such as `lim_keras.inventory.terrain.TerrainReader`."""

    def read(self, box: Box) -> Terrain:
        """Elevation, slope and aspect, each (height, width) of the box."""
        ...


class Edges:
    """Vertical edges of disjoint outlines, from which blocks of landslide numbers are painted.

    Along a row of pixels, each edge enters or leaves its landslide. Numbers start at 1; 0 is none.
    """

    def __init__(self, outlines: Polygons) -> None:
        rings, owner = shapely.get_rings(outlines, return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        whole = points.astype(np.int64)
        start, end = whole[:-1], whole[1:]
        edge = (ring[1:] == ring[:-1]) & (start[:, 0] == end[:, 0])
        rows = np.sort(np.stack([start[edge, 1], end[edge, 1]], axis=-1), axis=-1)
        number = owner[ring[:-1][edge]]
        reach = shapely.bounds(outlines)[:, 2].astype(np.int64) if len(outlines) else np.zeros(0, np.int64)
        # column, first row, row after the last, number, the landslide's own rightmost column
        self._edges = np.stack([start[edge, 0], rows[:, 0], rows[:, 1], number + 1, reach[number]]).astype(np.int64)

    def between(self, top: int, bottom: int) -> Edges:
        """Those that cross the rows from `top` to before `bottom`."""
        _, first, after, _, _ = self._edges
        part = Edges.__new__(Edges)
        part._edges = self._edges[:, (first < bottom) & (after > top)]
        return part

    def paint(self, box: Box) -> NDArray[np.int32]:
        """Number of the landslide of each pixel of a box, (height, width), 0 where there is none.

        Each edge toggles its number from its column on (exclusive or); after the last edge of a landslide nothing is
        left of it. Edges to the left of the box take part at its first column.
        """
        column, first, after, number, _ = self._edges[:, (self._edges[0] < box.right) & (self._edges[4] > box.left)]
        first = np.maximum(first - box.top, 0)
        length = np.maximum(np.minimum(after - box.top, box.height) - first, 0)
        ends = np.cumsum(length)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + length, length)
        numbers = np.zeros((box.height, box.width), np.int32)
        columns = np.repeat(np.maximum(column - box.left, 0), length)
        np.bitwise_xor.at(numbers, (rows, columns), np.repeat(number, length).astype(np.int32))
        return np.bitwise_xor.accumulate(numbers, axis=1)


class Zones:
    """Sum, count, least and greatest of a quantity over the pixels of each of n landslides. NaN is left out."""

    def __init__(self, n: int) -> None:
        self.total, self.count = np.zeros(n), np.zeros(n, np.int64)
        self.least, self.greatest = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, zone: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Take pixels in. zone: (k,) which landslide, from 0 on. values: (k,)."""
        known = np.isfinite(values)
        zone, values = zone[known], values[known].astype(np.float64)
        if not zone.size:
            return
        lowest, after = int(zone.min()), int(zone.max()) + 1
        part, size = slice(lowest, after), after - lowest
        self.total[part] += np.bincount(zone - lowest, weights=values, minlength=size)
        self.count[part] += np.bincount(zone - lowest, minlength=size)
        np.minimum.at(self.least, zone, values)
        np.maximum.at(self.greatest, zone, values)

    @property
    def mean(self) -> NDArray[np.float64]:
        """NaN where nothing was counted."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    @property
    def range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest, NaN where nothing was counted."""
        empty = self.count == 0
        return np.where(empty, np.nan, self.least), np.where(empty, np.nan, self.greatest)


def zonal_statistics(
    mask: Path,
    outlines: Polygons,
    info: RasterInfo,
    *,
    maps: Path | None = None,
    folds: int = 1,
    terrain: TerrainSource | None = None,
    block: int = BLOCK,
) -> Columns:
    """Columns of an inventory that come from the pixels of each landslide, (n,) each.

    Args:
        mask: the raster that was traced.
        outlines: of `lim_keras.inventory.polygons.trace`, as traced: neither filled nor simplified.
        info: of the mask.
        maps: band 1 probability, band 2 (where there is one) votes of the folds; negative is no data.
        folds: the votes' greatest number.
        terrain: gives slopes and elevations.
        block: pixels a side that are in memory at once.

    Returns:
        probability_mean, probability_max, fold_agreement (mean share of the folds that voted for the landslide's
        pixels), touches_nodata (one of its pixels shares a side with a pixel without data), touches_edge (one lies on
        the outermost row or column of the scene); with a terrain slope_mean_deg, elevation_min_m, elevation_max_m,
        elevation_range_m and aspect_mean_deg (mean direction in which its slopes face, 0 north, clockwise). NaN where
        unknown.

    Raises:
        DataError: a file is damaged, or the maps are not on the mask's grid.
    """
    zones = {name: Zones(len(outlines)) for name in ("probability", "votes", "gap", *_TERRAIN)}
    edges = Edges(outlines)
    with ExitStack() as stack:
        labels = stack.enter_context(RasterReader(mask))
        values = None if maps is None else stack.enter_context(_open_maps(maps, labels))
        for _, strip in groupby(blocks(info.height, info.width, block), lambda box: (box.top, box.bottom)):
            boxes = list(strip)
            near = edges.between(boxes[0].top, boxes[0].bottom)
            for box in boxes:
                numbers = near.paint(box)
                landslide, beside_nodata = _read_labels(labels, box)
                # GDAL's polygoniser stops at damaged pixels, and rasterio does not say so: what is missing is lost.
                if not np.array_equal(numbers > 0, landslide):
                    raise DataError(
                        f"{mask}: its polygons are not those of its pixels; the file is damaged or changed."
                    )
                if landslide.any():
                    _add_block(zones, numbers, box, beside_nodata, values, terrain)
    columns = _image_columns(zones, outlines, info, folds)
    return columns if terrain is None else columns | _terrain_columns(zones)


def _open_maps(maps: Path, labels: RasterReader) -> RasterReader:
    reader = RasterReader(maps)
    if reader.info.box != labels.info.box:
        found, expected = ((one.info.height, one.info.width) for one in (reader, labels))
        reader.close()
        raise DataError(f"{maps}: expected the grid of {labels.name}, {expected}, but it is {found}.")
    return reader


_TERRAIN = ("elevation", "slope", "east", "north")


def _add_block(
    zones: dict[str, Zones],
    numbers: NDArray[np.int32],
    box: Box,
    beside_nodata: NDArray[np.bool_],
    maps: RasterReader | None,
    terrain: TerrainSource | None,
) -> None:
    inside = numbers > 0
    zone = numbers[inside].astype(np.int64) - 1
    zones["gap"].add(zone, beside_nodata[inside])
    if maps is not None:
        bands = maps.pixels(box)[inside].astype(np.float64)
        for name, band in zip(("probability", "votes"), bands.T, strict=False):
            zones[name].add(zone, np.where(band < 0, np.nan, band))
    if terrain is not None:
        ground = terrain.read(box)
        aspect = np.radians(ground.aspect[inside])
        layers = (ground.elevation[inside], ground.slope[inside], np.sin(aspect), np.cos(aspect))
        for name, layer in zip(_TERRAIN, layers, strict=True):
            zones[name].add(zone, layer)


def _read_labels(labels: RasterReader, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is landslide, and what has a neighbour without data at one of its four sides, within the box or not."""
    around = box.grown(1, labels.info.box)
    rows = 1 - box.top + around.top, 1 - around.bottom + box.bottom  # that the scene lacks
    columns = 1 - box.left + around.left, 1 - around.right + box.right
    found = np.pad(labels.pixels(around)[..., 0], (rows, columns))
    gap = found == NO_LABEL
    beside = gap[:-2, 1:-1] | gap[2:, 1:-1] | gap[1:-1, :-2] | gap[1:-1, 2:]
    return found[1:-1, 1:-1] == 1, beside


def _image_columns(zones: dict[str, Zones], outlines: Polygons, info: RasterInfo, folds: int) -> Columns:
    left, top, right, bottom = shapely.bounds(outlines).reshape(-1, 4).T
    return {
        "probability_mean": zones["probability"].mean,
        "probability_max": zones["probability"].range[1],
        "fold_agreement": zones["votes"].mean / folds,
        "touches_nodata": zones["gap"].total > 0,
        "touches_edge": (left <= 0) | (top <= 0) | (right >= info.width) | (bottom >= info.height),
    }


def _terrain_columns(zones: dict[str, Zones]) -> Columns:
    lowest, highest = zones["elevation"].range
    east, north = zones["east"].mean, zones["north"].mean
    aspect = np.degrees(np.arctan2(east, north)) % 360
    return {
        "slope_mean_deg": zones["slope"].mean,
        "elevation_min_m": lowest,
        "elevation_max_m": highest,
        "elevation_range_m": highest - lowest,
        "aspect_mean_deg": np.where(np.hypot(east, north) > _MIN_RESULTANT, aspect, np.nan),
    }
