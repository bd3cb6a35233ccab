"""Landslide attributes: the columns of the inventory, in the order of the tables below.

A new attribute is a new row of a table. Its function takes the drawn outlines (`Outlines`) or the pixel statistics of
each landslide (`Pixels`). `_read_layers` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.inventory.polygons import Polygons, ring_sizes
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.raster.georeference import ELLIPSOID, Floats, Georeference, metres_per_degree
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.windows import BLOCK, Box, blocks

Columns = dict[str, NDArray[Any]]

Source = TypeVar("Source")


@dataclass(frozen=True)
class Attribute(Generic[Source]):
    """Column of the inventory; `compute` returns the values (n,) of all landslides.

    `unit` is the unit or range of the values, "" for true or false. `meaning` describes them; NaN is unknown.
    """

    name: str
    unit: str
    meaning: str
    compute: Callable[[Source], NDArray[Any]]


class Outlines:
    """Measures (n,) of outlines in pixel coordinates; NaN if neither CRS nor ground sample distance is known."""

    def __init__(self, outlines: Polygons, ground: Georeference) -> None:
        self.area_m2, self.perimeter_m = _sizes(outlines, ground)
        # Ratios need no unit: without a ground sample distance, the plane is in pixels.
        self.plane, origin, degree = _local_planes(outlines, ground)
        centroids = np.asarray(shapely.get_coordinates(shapely.centroid(self.plane)), np.float64).reshape(-1, 2)
        self.longitude, self.latitude = _on_earth(centroids, origin, degree).T

    def compactness(self) -> Floats:
        """4 pi area / perimeter^2 (Polsby and Popper 1991)."""
        known = np.isfinite(self.area_m2)
        area = np.where(known, self.area_m2, shapely.area(self.plane))
        perimeter = np.where(known, self.perimeter_m, shapely.length(self.plane))
        return np.asarray(4 * np.pi * area / perimeter**2, np.float64)

    def elongation(self) -> Floats:
        """Long side over short side of the smallest enclosing rotated rectangle."""
        corners = shapely.get_coordinates(shapely.oriented_envelope(self.plane)).reshape(-1, 5, 2)
        sides = np.hypot(*np.moveaxis(np.diff(corners[:, :3], axis=1), -1, 0))
        return np.asarray(sides.max(axis=1) / sides.min(axis=1), np.float64)


class Pixels:
    """Statistics of each layer, by name, over the pixels of n landslides; NaN for layers that are not read.

    `at_edge` (n,) marks landslides that reach the outermost row or column of the scene; `folds`: number of models.
    """

    def __init__(self, outlines: Polygons, scene: Box, folds: int) -> None:
        names = ("probability", "votes", "beside_nodata", "elevation", "slope", "east", "north")
        self.layers = {name: Statistics(len(outlines)) for name in names}
        left, top, right, bottom = shapely.bounds(outlines).reshape(-1, 4).T
        self.at_edge = (left <= 0) | (top <= 0) | (right >= scene.right) | (bottom >= scene.bottom)
        self.folds = folds

    def fold_agreement(self) -> Floats:
        """Mean share of the folds that voted for a landslide."""
        return self.layers["votes"].mean / self.folds

    def coverage(self, layer: str = "slope") -> Floats:
        """Share of the pixels that have a value in a layer."""
        return self.layers[layer].count / np.maximum(self.layers["beside_nodata"].count, 1)

    def slope(self) -> Floats:
        """Mean slope; NaN below `MIN_COVERAGE`."""
        return np.where(self.coverage() >= MIN_COVERAGE, self.layers["slope"].mean, np.nan)

    def lowest(self) -> Floats:
        """Lowest elevation; NaN below `MIN_COVERAGE`."""
        return np.where(self.coverage("elevation") >= MIN_COVERAGE, self.layers["elevation"].lowest, np.nan)

    def highest(self) -> Floats:
        """Highest elevation; NaN below `MIN_COVERAGE`."""
        return np.where(self.coverage("elevation") >= MIN_COVERAGE, self.layers["elevation"].highest, np.nan)

    def aspect(self) -> Floats:
        """Mean downhill direction, degrees; NaN where the directions cancel out, and where the slope is unknown."""
        east, north = self.layers["east"].mean, self.layers["north"].mean
        direction = np.degrees(np.arctan2(east, north)) % 360
        known = (np.hypot(east, north) > _MIN_RESULTANT) & (self.coverage() >= MIN_COVERAGE)
        return np.where(known, direction, np.nan)


MIN_COVERAGE = 0.5  # smallest share of a landslide's pixels from which its slope and elevations are taken
_POLAR_DEGREES = 89.0  # latitude beyond which planes are azimuthal
_MIN_RESULTANT = 1e-6  # a shorter mean direction is a rounding error

OUTLINE_ATTRIBUTES: tuple[Attribute[Outlines], ...] = (
    Attribute("area_m2", "m²", "area without holes", lambda one: one.area_m2),
    Attribute("perimeter_m", "m", "length of all rings", lambda one: one.perimeter_m),
    Attribute("longitude", "degrees", "of the centroid, WGS 84", lambda one: (one.longitude + 180) % 360 - 180),
    Attribute("latitude", "degrees", "of the centroid, WGS 84", lambda one: one.latitude),
    Attribute("compactness", "0..1", "4 π area / perimeter²; 1: circle, near 0: long flow", Outlines.compactness),
    Attribute("elongation", ">= 1", "long over short side of the smallest enclosing rectangle", Outlines.elongation),
)

PIXEL_ATTRIBUTES: tuple[Attribute[Pixels], ...] = (
    Attribute("probability_mean", "0..1", "mean over its pixels", lambda one: one.layers["probability"].mean),
    Attribute("probability_max", "0..1", "highest of its pixels", lambda one: one.layers["probability"].highest),
    Attribute("fold_agreement", "0..1", "mean share of the folds that call a pixel landslide", Pixels.fold_agreement),
    Attribute("touches_nodata", "", "shares a side with nodata", lambda one: one.layers["beside_nodata"].total > 0),
    Attribute("touches_edge", "", "lies at the edge of the scene", lambda one: one.at_edge),
)

TERRAIN_ATTRIBUTES: tuple[Attribute[Pixels], ...] = (
    Attribute("slope_mean_deg", "degrees", "with `--dem`: mean slope", Pixels.slope),
    Attribute("elevation_min_m", "m", "with `--dem`: lowest elevation", Pixels.lowest),
    Attribute("elevation_max_m", "m", "with `--dem`: highest elevation", Pixels.highest),
    Attribute(
        "elevation_range_m",
        "m",
        "with `--dem`: highest less lowest elevation",
        lambda one: one.highest() - one.lowest(),
    ),
    Attribute("aspect_mean_deg", "degrees", "with `--dem`: mean downhill direction, 0 north, 90 east", Pixels.aspect),
    Attribute("slope_coverage", "0..1", "with `--dem`: share of its pixels that have a slope", Pixels.coverage),
    Attribute(
        "slope_unknown",
        "",
        f"with `--dem`: `slope_coverage` is below {MIN_COVERAGE:g}",
        lambda one: one.coverage() < MIN_COVERAGE,
    ),
)


def outline_attributes(outlines: Polygons, ground: Georeference) -> Columns:
    """Compute the attributes (n,) of outlines in pixel coordinates."""
    return _compute(OUTLINE_ATTRIBUTES, Outlines(outlines, ground))


def pixel_attributes(
    mask: str | Path,
    outlines: Polygons,
    *,
    maps: Path | None = None,
    folds: int = 1,
    terrain: TerrainReader | None = None,
    block: int = BLOCK,
) -> Columns:
    """Compute the attributes (n,) from the pixels of each landslide, with one block in memory at a time.

    Args:
        mask: raster whose landslides were traced.
        outlines: result of `trace`, neither filled nor simplified.
        maps: raster of probability (band 1) and votes of the folds (optional band 2), negative without data; None: NaN.
        terrain: slopes and elevations; None: no terrain attributes.
    """
    with ExitStack() as stack:
        labels = stack.enter_context(RasterReader(mask))
        values = None if maps is None else stack.enter_context(_open_maps(maps, labels))
        pixels = Pixels(outlines, labels.info.box, folds)
        for box, numbers, beside_nodata in _painted_blocks(labels, outlines, block):
            inside = numbers > 0
            landslide = numbers[inside].astype(np.int64) - 1
            layers = _read_layers(box, inside, values, terrain) | {"beside_nodata": beside_nodata[inside]}
            for name, layer in layers.items():
                pixels.layers[name].add(landslide, layer)
    columns = _compute(PIXEL_ATTRIBUTES, pixels)
    return columns if terrain is None else columns | _compute(TERRAIN_ATTRIBUTES, pixels)


def polygon_areas_m2(polygons: geopandas.GeoSeries, gsd_m: float | None = None) -> Floats:
    """Measure areas (n,) of single polygons in any CRS, in square metres, without their holes.

    Without a CRS, or in a local CRS, areas are planar; `gsd_m` is the length of a coordinate unit, metres (None: areas
    are NaN).
    """
    crs = "" if polygons.crs is None else polygons.crs.to_wkt()
    return _sizes(polygons.to_numpy(), Georeference(Affine.identity(), crs, gsd_m))[0]


def _compute(attributes: Iterable[Attribute[Source]], source: Source) -> Columns:
    return {one.name: one.compute(source) for one in attributes}


def _sizes(outlines: Polygons, ground: Georeference) -> tuple[Floats, Floats]:
    """Measure area (n,) without holes, m2, and length (n,) of all rings, m, of outlines in pixels."""
    rings, owner = shapely.get_rings(outlines, return_index=True)
    areas, lengths = ring_sizes(rings, ground)
    hole = np.zeros(len(rings), np.bool_)
    hole[1:] = owner[1:] == owner[:-1]
    area, perimeter = np.zeros((2, len(outlines)))
    np.add.at(area, owner, np.where(hole, -areas, areas))
    np.add.at(perimeter, owner, lengths)
    return area, perimeter


def _local_planes(outlines: Polygons, ground: Georeference) -> tuple[Polygons, Floats, Floats]:
    """Project each outline to metres east and north of its first vertex; landslides are small enough for a plane.

    Returns the outlines, longitude and latitude (n, 2) of the first vertices, and metres per degree (n, 2) there.
    Without a CRS, the outlines are in the scene's plane, and the other two results are NaN.
    """
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    if ground.to_degrees is None:
        unknown = np.full((len(outlines), 2), np.nan)
        return shapely.transform(outlines, ground.place), unknown, unknown
    degrees = ground.degrees(points)
    first = np.searchsorted(owner, np.arange(len(outlines)))
    origin = degrees[first]
    degree = metres_per_degree(origin[:, 1])
    away = degrees - origin[owner]
    away[:, 0] = (away[:, 0] + 180) % 360 - 180
    metres = away * degree[owner]
    polar = abs(origin[owner, 1]) > _POLAR_DEGREES
    if polar.any():  # meridians meet, so that degrees do not span a plane
        azimuth, _, distance = ELLIPSOID.inv(*origin[owner][polar].T, *degrees[polar].T)
        metres[polar] = np.stack([distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))], -1)
    return shapely.transform(outlines, lambda _: metres), origin, degree


def _on_earth(points: Floats, origin: Floats, degree: Floats) -> Floats:
    """Convert points (n, 2) of `_local_planes`, one in each plane, to longitude and latitude."""
    placed = np.asarray(origin + points / degree, np.float64)
    polar = abs(origin[:, 1]) > _POLAR_DEGREES
    if polar.any():
        east, north = points[polar].T
        azimuth, distance = np.degrees(np.arctan2(east, north)), np.hypot(east, north)
        longitude, latitude = origin[polar].T
        placed[polar] = np.stack(ELLIPSOID.fwd(longitude, latitude, azimuth, distance)[:2], axis=-1)
    return placed


def _painted_blocks(
    labels: RasterReader, outlines: Polygons, block: int
) -> Iterator[tuple[Box, NDArray[np.int32], NDArray[np.bool_]]]:
    """Yield each block with landslides, its landslide numbers, and the mask of pixels that share a side with nodata."""
    scene, edges = labels.info.box, Edges(outlines)
    for (top, bottom), row in groupby(blocks(scene.height, scene.width, block), lambda box: (box.top, box.bottom)):
        near = edges.between(top, bottom)
        for box in row:
            numbers = near.paint(box)
            landslide, beside_nodata = _read_labels(labels, box)
            # GDAL's polygonizer stops at damaged pixels without an error, and later landslides would be lost.
            if not np.array_equal(numbers > 0, landslide):
                raise DataError(
                    f"{labels.name}: its polygons are not those of its pixels; the file is damaged or changed."
                )
            if landslide.any():
                yield box, numbers, beside_nodata


def _read_layers(
    box: Box, inside: NDArray[np.bool_], maps: RasterReader | None, terrain: TerrainReader | None
) -> dict[str, NDArray[Any]]:
    """Read the values (k,) of every layer at the k landslide pixels of a box; NaN where unknown."""
    layers: dict[str, NDArray[Any]] = {}
    if maps is not None:
        bands = maps.pixels(box)[inside].astype(np.float64)
        for name, band in zip(("probability", "votes"), bands.T, strict=False):
            layers[name] = np.where(band < 0, np.nan, band)
    if terrain is not None:
        ground = terrain.read(box)
        aspect = np.radians(ground.aspect[inside])
        layers |= {"elevation": ground.elevation[inside], "slope": ground.slope[inside]}
        layers |= {"east": np.sin(aspect), "north": np.cos(aspect)}
    return layers


def _open_maps(maps: Path, labels: RasterReader) -> RasterReader:
    reader = RasterReader(maps)
    if reader.info.box != labels.info.box:
        found, expected = ((one.info.height, one.info.width) for one in (reader, labels))
        reader.close()
        raise DataError(f"{maps}: expected the grid of {labels.name}, {expected}, but it is {found}.")
    return reader


def _read_labels(labels: RasterReader, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Read two masks (height, width): landslide pixels, and pixels that share a side with a pixel without data."""
    around = box.grown(1, labels.info.box)
    rows = 1 - box.top + around.top, 1 - around.bottom + box.bottom  # rows beyond the scene's border
    columns = 1 - box.left + around.left, 1 - around.right + box.right
    found = np.pad(labels.pixels(around)[..., 0], (rows, columns))
    gap = found == NO_LABEL
    beside = gap[:-2, 1:-1] | gap[2:, 1:-1] | gap[1:-1, :-2] | gap[1:-1, 2:]
    return found[1:-1, 1:-1] == 1, beside


class Statistics:
    """Sum, count, lowest and highest value over the pixels of each of n landslides; NaN values are skipped."""

    def __init__(self, n: int) -> None:
        self.total: Floats = np.zeros(n)
        self.count = np.zeros(n, np.int64)
        self._lowest, self._highest = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, landslide: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add values (k,) of pixels, and the indices (k,) of their landslides."""
        known = np.isfinite(values)
        landslide, values = landslide[known], values[known].astype(np.float64)
        if not landslide.size:
            return
        first, after = int(landslide.min()), int(landslide.max()) + 1
        part, size = slice(first, after), after - first
        self.total[part] += np.bincount(landslide - first, weights=values, minlength=size)
        self.count[part] += np.bincount(landslide - first, minlength=size)
        np.minimum.at(self._lowest, landslide, values)
        np.maximum.at(self._highest, landslide, values)

    @property
    def mean(self) -> Floats:
        """Mean; NaN without a value."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    @property
    def lowest(self) -> Floats:
        """Lowest value; NaN without a value."""
        return np.where(self.count > 0, self._lowest, np.nan)

    @property
    def highest(self) -> Floats:
        """Highest value; NaN without a value."""
        return np.where(self.count > 0, self._highest, np.nan)


class Edges:
    """Vertical edges of disjoint outlines, used to paint each pixel with its landslide number: 1 to n, 0 for none."""

    def __init__(self, outlines: Polygons) -> None:
        rings, owner = shapely.get_rings(outlines, return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        whole = points.astype(np.int64)
        start, end = whole[:-1], whole[1:]
        edge = (ring[1:] == ring[:-1]) & (start[:, 0] == end[:, 0])
        rows = np.sort(np.stack([start[edge, 1], end[edge, 1]], axis=-1), axis=-1)
        number = owner[ring[:-1][edge]]
        reach = shapely.bounds(outlines)[:, 2].astype(np.int64) if len(outlines) else np.zeros(0, np.int64)
        # Rows of the array: column, first row, row after the last, number, rightmost column of the landslide.
        self._edges = np.stack([start[edge, 0], rows[:, 0], rows[:, 1], number + 1, reach[number]]).astype(np.int64)

    def between(self, top: int, bottom: int) -> Edges:
        """Select the edges that cross rows `top` to `bottom` - 1."""
        _, first, after, _, _ = self._edges
        part = Edges.__new__(Edges)
        part._edges = self._edges[:, (first < bottom) & (after > top)]
        return part

    def paint(self, box: Box) -> NDArray[np.int32]:
        """Return the landslide number of each pixel of a box, (height, width).

        Along a row, each edge enters or leaves its landslide: exclusive or switches the number on or off from that
        column on. Edges to the left of the box are applied at its first column.
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
