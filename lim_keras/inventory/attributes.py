"""Landslide attributes: the columns of the inventory, in the order of the tables below.

A new attribute is a new row of a table. Its function takes the drawn outlines (`Outlines`) or the pixel statistics of
each landslide (`Pixels`). `lim_keras.inventory.pixels` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from lim_keras.inventory.pixels import PixelStatistics
from lim_keras.inventory.polygons import Polygons, place, polygons_of, ring_sizes, rings_of
from lim_keras.inventory.tracing import Rings
from lim_keras.raster.georeference import ELLIPSOID, Floats, Georeference, metres_per_degree

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

    def __init__(self, outlines: Rings, ground: Georeference) -> None:
        degrees = None if ground.to_degrees is None else ground.degrees(outlines.points)
        self.area_m2, self.perimeter_m = _sizes(outlines, ground, degrees)
        # Ratios need no unit: without a ground sample distance, the plane is in pixels.
        self.plane, origin, degree = _local_planes(outlines, ground, degrees)
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

    def __init__(self, statistics: PixelStatistics, folds: int) -> None:
        self.layers, self.at_edge, self.folds = statistics.layers, statistics.at_edge, folds

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

FAMILIARITY_ATTRIBUTES: tuple[Attribute[Pixels], ...] = (
    Attribute(
        "familiarity", "0..1", "with `--familiarity`: mean over its pixels", lambda one: one.layers["familiarity"].mean
    ),
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


def outline_attributes(outlines: Rings, ground: Georeference) -> Columns:
    """Compute the attributes (n,) of outlines in pixel coordinates."""
    return _compute(OUTLINE_ATTRIBUTES, Outlines(outlines, ground))


def pixel_attributes(statistics: PixelStatistics, folds: int) -> Columns:
    """Compute the attributes (n,) from the pixels of each landslide; those of layers that were read."""
    pixels = Pixels(statistics, folds)
    columns = _compute(PIXEL_ATTRIBUTES, pixels)
    for layer, attributes in (("familiarity", FAMILIARITY_ATTRIBUTES), ("slope", TERRAIN_ATTRIBUTES)):
        if layer in pixels.layers:
            columns |= _compute(attributes, pixels)
    return columns


def polygon_areas_m2(polygons: geopandas.GeoSeries, gsd_m: float | None = None) -> Floats:
    """Measure areas (n,) of single polygons in any CRS, in square metres, without their holes.

    Without a CRS, or in a local CRS, areas are planar; `gsd_m` is the length of a coordinate unit, metres (None: areas
    are NaN).
    """
    crs = "" if polygons.crs is None else polygons.crs.to_wkt()
    return _sizes(rings_of(polygons.to_numpy()), Georeference(Affine.identity(), crs, gsd_m))[0]


def _compute(attributes: Iterable[Attribute[Source]], source: Source) -> Columns:
    return {one.name: one.compute(source) for one in attributes}


def _sizes(outlines: Rings, ground: Georeference, degrees: Floats | None = None) -> tuple[Floats, Floats]:
    """Measure area (n,) without holes, m2, and length (n,) of all rings, m, of outlines in pixels.

    degrees: their vertices in degrees, if they are known.
    """
    areas, lengths = ring_sizes(outlines, ground, degrees)
    owner = np.repeat(np.arange(len(outlines)), outlines.rings)
    hole = np.diff(owner, prepend=-1) == 0  # the first ring of an outline is its outer one
    area = np.bincount(owner, weights=np.where(hole, -areas, areas), minlength=len(outlines))
    perimeter = np.bincount(owner, weights=lengths, minlength=len(outlines))
    return area.astype(np.float64, copy=False), perimeter.astype(np.float64, copy=False)


def _local_planes(outlines: Rings, ground: Georeference, degrees: Floats | None) -> tuple[Polygons, Floats, Floats]:
    """Project each outline to metres east and north of its first vertex; landslides are small enough for a plane.

    Returns the outlines as polygons, longitude and latitude (n, 2) of the first vertices, and metres per degree (n, 2)
    there. Without a CRS, the polygons are in the scene's plane, and the other two results are NaN.
    """
    if degrees is None:
        unknown = np.full((len(outlines), 2), np.nan)
        return place(outlines, ground), unknown, unknown
    vertices = outlines.vertices
    owner = np.repeat(np.arange(len(outlines)), vertices)
    origin = degrees[np.cumsum(vertices) - vertices]
    degree = metres_per_degree(origin[:, 1])
    away = degrees - origin[owner]
    away[:, 0] = (away[:, 0] + 180) % 360 - 180
    metres = away * degree[owner]
    polar = abs(origin[owner, 1]) > _POLAR_DEGREES
    if polar.any():  # meridians meet, so that degrees do not span a plane
        azimuth, _, distance = ELLIPSOID.inv(*origin[owner][polar].T, *degrees[polar].T)
        metres[polar] = np.stack([distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))], -1)
    return polygons_of(replace(outlines, points=metres)), origin, degree


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
