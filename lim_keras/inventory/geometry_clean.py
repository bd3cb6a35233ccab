"""Clean polygon geometries."""

from __future__ import annotations

import warnings
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.errors import LimKerasWarning


def clean_polygons(geometries: geopandas.GeoSeries, name: str) -> geopandas.GeoSeries:
    """Single, valid, flat polygons of some area: multi-polygons exploded, invalid ones repaired, all else left out.

    Warns:
        LimKerasWarning: how many of `name` were invalid.
    """
    shapes = shapely.force_2d(geometries.dropna().to_numpy())
    shapes = shapes[np.isfinite(shapely.bounds(shapes)).all(axis=-1)]  # empty, or beyond what the CRS can show
    invalid = ~shapely.is_valid(shapes)
    if invalid.any():
        shapes[invalid] = shapely.make_valid(shapes[invalid])
        message = f"{name}: {invalid.sum()} of {len(shapes)} polygons are invalid (they cross themselves); repaired."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return geopandas.GeoSeries(_parts(shapes), crs=geometries.crs)


def cut_polygons(polygons: geopandas.GeoSeries, area: Any) -> geopandas.GeoSeries:
    """What of the polygons lies inside an area, polygon or multi-polygon in their CRS, as single polygons."""
    shapely.prepare(area)
    shapes = np.array(polygons)
    across = ~shapely.covers(area, shapes)
    shapes[across] = shapely.intersection(shapes[across], area)
    return geopandas.GeoSeries(_parts(shapes), crs=polygons.crs)


def _parts(shapes: NDArray[Any]) -> NDArray[Any]:
    """Single polygons; taken apart twice, for a collection may hold multi-polygons."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return np.asarray(parts[shapely.area(parts) > 0])
