"""Positions of tiles on the ground, in metres."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from sklearn.cluster import DBSCAN
from sklearn.neighbors import BallTree

from lim_keras.data.tiles import Tile
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.images import read_info

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Outlines = NDArray[np.object_]
Place = Callable[[Floats], Floats]

_DEGREES = "degrees"

_EARTH_M, _FAR_M = 6_371_008.8, 1e9

# Tiles are gathered in cells of this size, degrees; cells nearer than this distance belong to one region.
_CELL, _APART_M = 0.2, 100_000.0

_STEPS_PER_SIDE = 4

# Smallest common share of area: tiles with only a common edge may overlap by rounding.
_MIN_SHARE = 1e-3

# Relative error of distances: a tile exactly at the distance of a buffer does not lie in it.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class _Outline:
    """Outline of a tile: a ring (n, 2) in degrees or metres of a local CRS; or a centre (1, 2) and sides in metres."""

    system: str
    ring: Floats
    sides_m: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Positions:
    """Outlines of tiles in metres, in one equal-area coordinate system for each region.

    Regions are groups of tiles at least some 70 km apart, so that distances within a region are hardly distorted.

    Attributes:
        ids: tiles whose position is known, in order.
        regions: (n,) region of each tile, 0, 1, ...
        outlines: (n,) outline of each tile, metres in the coordinate system of its region; a point if its size is
            unknown.
        space: (n, 3) position of each tile in space, metres: geocentric, so that tiles of all regions can be compared.
    """

    ids: tuple[str, ...]
    regions: Numbers
    outlines: Outlines
    space: Floats

    @classmethod
    def read(cls, tiles: Sequence[Tile]) -> Self:
        """Read positions from the georeference of the files, else from the columns x, y, gsd_m and crs.

        Tiles without a position on the ground are left out.

        Raises:
            DataError: a file cannot be read.
        """
        with ThreadPoolExecutor(8) as pool:
            found = {
                tile.tile_id: outline
                for tile, outline in zip(tiles, pool.map(_outline, tiles), strict=True)
                if outline is not None
            }
        parts = list(found.values())
        regions, outlines, space = (
            np.zeros(len(parts), np.int64),
            np.empty(len(parts), object),
            np.zeros((len(parts), 3)),
        )
        for number, (members, place) in enumerate(_regions(parts)):
            regions[members] = number
            for k in members:
                outlines[k] = _shape(parts[k], place)
                space[k] = _in_space(parts[k], number)
        return cls(tuple(found), regions, outlines, space)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {tile_id: k for k, tile_id in enumerate(self.ids)}

    @cached_property
    def centres(self) -> Floats:
        """(n, 2) centre of each outline, metres in the coordinate system of its region."""
        return np.asarray(shapely.get_coordinates(shapely.centroid(self.outlines)), np.float64).reshape(-1, 2)

    @property
    def number_of_regions(self) -> int:
        """Number of regions."""
        return int(self.regions.max()) + 1 if len(self.ids) else 0

    def overlaps(self, first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str, float]]:
        """Find overlapping outlines: id of the first, of the second, and common area / area of the smaller tile."""
        found = []
        for one, other in self._pairs(first, second, 0.0):
            share = _share(self.outlines[one], self.outlines[other])
            if share > _MIN_SHARE:
                found.append((self.ids[one], self.ids[other], share))
        return found

    def within(self, distance_m: float) -> Iterator[tuple[str, str, float]]:
        """Yield the ids of each pair of tiles at most a distance apart, in order, and their distance, metres.

        Args:
            distance_m: from outline to outline, metres, at most 50,000.
        """
        for one, other in self._pairs(self.ids, self.ids, distance_m):
            if one < other:
                yield self.ids[one], self.ids[other], float(self.outlines[one].distance(self.outlines[other]))

    def near(self, wanted: Iterable[str], others: Iterable[str], distance_m: float) -> list[str]:
        """Return the ids of `wanted` that overlap one of `others` or are nearer to it than a distance.

        Args:
            wanted, others: ids; those without a position are not near.
            distance_m: from outline to outline, metres, at most 50,000.
        """
        wanted, others = list(wanted), list(others)
        limit = distance_m * (1 - TOLERANCE)
        close = {one for one, _, _ in self.overlaps(wanted, others)}
        if limit > 0:
            close |= {self.ids[one] for one, _ in self._pairs(wanted, others, limit)}
        return [tile_id for tile_id in wanted if tile_id in close]

    def distance(self, first: Iterable[str], second: Iterable[str]) -> float | None:
        """Return the shortest distance from outline to outline, metres; None if one side has no position.

        Between regions it is the distance of the centres.
        """
        ours, theirs = self._numbers(first), self._numbers(second)
        if not len(ours) or not len(theirs):
            return None
        shortest = np.inf
        for one, other in self._by_region(ours, theirs):
            tree = shapely.STRtree(self.outlines[other])
            _, metres = tree.query_nearest(self.outlines[one], return_distance=True, all_matches=False)
            shortest = min(shortest, float(metres.min()))
        if np.isfinite(shortest):
            return shortest
        chord = float(BallTree(self.space[theirs]).query(self.space[ours])[0].min())
        return 2 * _EARTH_M * float(np.arcsin(min(1.0, chord / (2 * _EARTH_M))))

    def _numbers(self, ids: Iterable[str]) -> Numbers:
        return np.array([self._order[tile_id] for tile_id in ids if tile_id in self._order], np.int64)

    def _by_region(self, ours: Numbers, theirs: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
        for region in np.intersect1d(self.regions[ours], self.regions[theirs]):
            yield ours[self.regions[ours] == region], theirs[self.regions[theirs] == region]

    def _pairs(self, first: Iterable[str], second: Iterable[str], distance_m: float) -> Iterator[tuple[int, int]]:
        """Yield positions of pairs at most a distance apart."""
        for ours, theirs in self._by_region(self._numbers(first), self._numbers(second)):
            tree = shapely.STRtree(self.outlines[theirs])
            found = tree.query(self.outlines[ours], predicate="dwithin", distance=distance_m)
            yield from zip(ours[found[0]].tolist(), theirs[found[1]].tolist(), strict=True)


def _outline(tile: Tile) -> _Outline | None:
    info = read_info(tile.image, measured=False)
    crs = info.crs or tile.crs
    if not crs:
        return None
    if info.transform is not None:
        along = np.linspace(0, 1, _STEPS_PER_SIDE + 1)[:-1, np.newaxis]
        corners = np.array([(0, 0), (info.width, 0), (info.width, info.height), (0, info.height)], np.float64)
        ends = np.roll(corners, -1, axis=0)
        ring = np.concatenate([start + along * (end - start) for start, end in zip(corners, ends, strict=True)])
        return _placed(ring, info.transform, crs, (0.0, 0.0))
    if tile.x is None or tile.y is None or not tile.crs:
        return None
    gsd_m = tile.gsd_m or 0.0
    sides = tile.width * gsd_m, tile.height * gsd_m
    return _placed(np.array([[tile.x, tile.y]]), Affine.identity(), tile.crs, sides)


def _placed(points: Floats, transform: Affine, crs: str, sides_m: tuple[float, float]) -> _Outline | None:
    """Convert points (n, 2) of pixels to degrees, or to metres of a local CRS; None off the ground."""
    ground = Georeference(transform, crs, None)
    if ground.to_degrees is not None:
        degrees = ground.degrees(points)
        return _Outline(_DEGREES, degrees, sides_m) if np.isfinite(degrees).all() else None
    try:
        known = pyproj.CRS.from_user_input(crs)
    except ProjError:
        return None
    if not known.is_engineering or not known.axis_info:
        return None
    metres = ground.place(points) * known.axis_info[0].unit_conversion_factor
    return _Outline(crs, metres, sides_m) if np.isfinite(metres).all() else None


def _middle(ring: Floats) -> Floats:
    """Return the centre (2,) of points (n, 2) in degrees, which may lie on both sides of the antimeridian."""
    x, y, z = _geocentric(ring).mean(axis=0)
    return np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])


def _geocentric(degrees: Floats) -> Floats:
    """Convert longitudes and latitudes (n, 2) to points (n, 3) on a sphere, metres."""
    longitude, latitude = np.radians(degrees).T
    across = np.cos(latitude)
    unit = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)
    return np.asarray(_EARTH_M * unit)


def _regions(parts: Sequence[_Outline]) -> Iterator[tuple[Numbers, Place]]:
    """Yield the positions of the tiles of each region, and the function that gives their metres."""
    systems = np.array([part.system for part in parts])
    for system in dict.fromkeys(systems.tolist()):
        members = np.flatnonzero(systems == system)
        if system != _DEGREES:
            yield members, np.asarray
            continue
        centres = np.array([_middle(parts[k].ring) for k in members.tolist()])
        cells, cell_of = np.unique(np.round(centres / _CELL).astype(np.int64), axis=0, return_inverse=True)
        chord = 2 * _EARTH_M * np.sin(_APART_M / (2 * _EARTH_M))
        labels = DBSCAN(eps=chord, min_samples=1).fit_predict(_geocentric(np.asarray(cells * _CELL, np.float64)))[
            cell_of.ravel()
        ]
        for label in dict.fromkeys(labels.tolist()):
            yield members[labels == label], _projection(centres[labels == label])


def _projection(centres: Floats) -> Place:
    """Return the function from degrees to metres of an equal-area projection around the mean of centres (n, 2)."""
    longitude, latitude = np.round(_middle(centres), 4).tolist()
    system = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m"
    project = pyproj.Transformer.from_crs("OGC:CRS84", system, always_xy=True)

    def place(points: Floats) -> Floats:
        return np.asarray(np.stack(project.transform(points[:, 0], points[:, 1]), axis=-1), np.float64)

    return place


def _in_space(outline: _Outline, region: int) -> Floats:
    """Return the position (3,) of a tile; those of a local CRS are far from all others."""
    if outline.system == _DEGREES:
        return np.asarray(_geocentric(_middle(outline.ring)[np.newaxis])[0])
    return np.append(outline.ring.mean(axis=0), _FAR_M * (1 + region))


def _shape(outline: _Outline, place: Place) -> Any:
    points = place(outline.ring)
    if len(points) > 1:
        return shapely.Polygon(points)
    (x, y), (width, height) = points[0], outline.sides_m
    if not width * height:
        return shapely.Point(x, y)
    return shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _share(one: Any, other: Any) -> float:
    """Return the common area over the area of the smaller outline; 1 for a point in the other outline."""
    smaller = min(one.area, other.area)
    if not smaller:
        return float(one.intersects(other))
    return float(one.intersection(other).area / smaller)
