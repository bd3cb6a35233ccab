"""Geometries of mapped landslides: tell polygons from the rest, repair, split, and cut."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from geopandas import GeoSeries
from numpy.typing import NDArray

from lim_keras.errors import DataError, LimKerasWarning

Geometries = NDArray[Any]  # shapely geometries, (n,)


@dataclass(frozen=True)
class FoundPolygons:
    """Result of `find_polygons`.

    Attributes:
        has_area: mask (n,) of the geometries that hold a polygon.
        kinds: counts of all others, and of the lines and points in collections, by kind.
    """

    has_area: NDArray[np.bool_]
    kinds: Counter[str]

    def check(self, path: Path) -> None:
        """Refuse a file without any polygon; warn of geometries that are no polygons.

        Raises:
            DataError: there are geometries, but no polygon.

        Warns:
            LimKerasWarning: geometries that do not count.
        """
        if not self.kinds:
            return
        counts = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        if not self.has_area.any():
            raise DataError(
                f"{path}: holds no polygon. Expected landslides as polygons or multi-polygons. Received: {counts}."
            )
        message = f"{path}: lines, points and empty geometries are no landslides and do not count ({counts})."
        warnings.warn(message, LimKerasWarning, stacklevel=4)


def find_polygons(shapes: Geometries) -> FoundPolygons:
    """Find the geometries that hold polygons, and count the kinds of all others."""
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    area = ~empty & (shapely.get_dimensions(shapes) == 2)
    crossed = area & ~shapely.is_valid(shapes)
    flat = crossed.copy()
    flat[crossed] = shapely.get_dimensions(shapely.make_valid(shapes[crossed])) < 2
    area &= ~flat
    parts = shapely.get_parts(shapely.get_parts(shapes[area]))
    left_out = np.concatenate([shapes[~empty & ~area & ~flat], parts[shapely.get_dimensions(parts) < 2]])
    kinds = Counter(geometry.geom_type for geometry in left_out)
    kinds += Counter({"without geometry": int(empty.sum()), "without area": int(flat.sum())})
    return FoundPolygons(area, kinds)


def clean_polygons(geometries: GeoSeries, name: str) -> GeoSeries:
    """Convert geometries to single, valid, two-dimensional polygons; drop everything else, such as lines.

    Args:
        geometries: geometries of a file.
        name: name of the file, for the warning.

    Warns:
        LimKerasWarning: invalid polygons were repaired.
    """
    shapes = shapely.force_2d(geometries.dropna().to_numpy())
    shapes = shapes[np.isfinite(shapely.bounds(shapes)).all(axis=-1)]  # not finite: empty or outside the CRS
    invalid = repair(shapes)
    if invalid:
        message = f"{name}: {invalid} of {len(shapes)} polygons are invalid (they cross themselves); repaired."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return GeoSeries(split(shapes)[0], crs=geometries.crs)


def repair(shapes: Geometries) -> int:
    """Make invalid geometries valid, in place; return their number."""
    invalid = ~shapely.is_valid(shapes)
    shapes[invalid] = shapely.make_valid(shapes[invalid])
    return int(invalid.sum())


def cut_polygons(polygons: GeoSeries, area: Any) -> GeoSeries:
    """Clip polygons to an area, a polygon or multi-polygon in the same CRS; return single polygons."""
    return GeoSeries(cut(np.array(polygons), area)[0], crs=polygons.crs)


def cut(shapes: Geometries, area: Any) -> tuple[Geometries, NDArray[np.int64]]:
    """Clip valid polygons to an area; return single polygons and, for each, the index of its polygon."""
    shapely.prepare(area)
    shapes, across = shapes.copy(), ~shapely.covers(area, shapes)
    shapes[across] = shapely.intersection(shapes[across], area)
    return split(shapes)


def split(shapes: Geometries) -> tuple[Geometries, NDArray[np.int64]]:
    """Split geometries into single polygons; return these and, for each, the index of its geometry.

    Geometries are split twice, because a collection may hold multi-polygons.
    """
    outer, owner = shapely.get_parts(shapes, return_index=True)
    parts, inner = shapely.get_parts(outer, return_index=True)
    kept = shapely.area(parts) > 0
    return np.asarray(parts[kept]), np.asarray(owner[inner][kept])
