"""Outlines of landslides in view, simplified to the pixels of the screen."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.raster.georeference import Floats
from lim_keras.review.page.plane import bounds_of

FINEST = 2
"""Zoom of the finest coordinates: quarters of a pixel."""

_TOLERANCE = 0.6
_DOT_PX = 2.0


class Outlines:
    """Outlines in pixels of the plane, by key, with a copy for each zoom that is simplified to the pixels of a screen.

    Args:
        outlines: outlines in pixels, by key; None for a landslide without one.
    """

    def __init__(self, outlines: Mapping[int, Any]) -> None:
        self._lock = threading.Lock()
        self.set(outlines)

    def set(self, outlines: Mapping[int, Any]) -> None:
        """Replace all outlines."""
        with self._lock:
            self._places = {key: place for place, key in enumerate(outlines)}
            self._keys = np.array(list(outlines), np.int64)
            self._levels: dict[int, NDArray[Any]] = {FINEST: np.array(list(outlines.values()), object)}
            self._bounds = bounds_of(self._levels[FINEST])

    def change(self, outlines: Mapping[int, Any], gone: Sequence[int] = ()) -> None:
        """Replace, add and remove some outlines."""
        if not outlines and not gone:
            return
        with self._lock:
            kept = ~np.isin(self._keys, [*outlines, *gone])
            new: NDArray[Any] = np.array(list(outlines.values()), object)
            self._keys = np.concatenate([self._keys[kept], np.array(list(outlines), np.int64)])
            self._places = {key: place for place, key in enumerate(self._keys.tolist())}
            for zoom in sorted(self._levels, reverse=True):
                new = new if zoom == FINEST else _simpler(new, zoom)
                self._levels[zoom] = np.concatenate([self._levels[zoom][kept], new])
            self._bounds = bounds_of(self._levels[FINEST])

    def bounds(self, key: int) -> list[float] | None:
        """Return left, top, right and bottom of an outline, pixels; None if it is unknown."""
        place = self._places.get(key)
        if place is None or not np.isfinite(self._bounds[place]).all():
            return None
        return [float(edge) for edge in self._bounds[place]]

    def outline(self, key: int) -> Any:
        """Return an outline in pixels."""
        return self._levels[FINEST][self._places[key]]

    def at(self, column: float, row: float, reach: float) -> int | None:
        """Return the smallest landslide at a point, else the nearest within a reach; pixels."""
        left, top, right, bottom = self._bounds.T
        near = (left - reach <= column) & (right + reach >= column) & (top - reach <= row) & (bottom + reach >= row)
        places = np.flatnonzero(near)
        if not len(places):
            return None
        found, point = self._levels[FINEST][places], shapely.Point(column, row)
        distances, areas = shapely.distance(found, point), shapely.area(found)
        best = min(range(len(places)), key=lambda at: (distances[at], areas[at]))
        return int(self._keys[places[best]]) if distances[best] <= reach else None

    def in_view(self, zoom: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
        """Return the outlines that meet a box (left, top, right, bottom; pixels), for JSON.

        Returns:
            `scale`: units of the coordinates in a pixel; `keys`: key of each polygon; `rings`: number of points of each
            ring; `parts`: number of rings of each polygon; `points`: x, y, x, y, ... A ring of one point is a dot.
        """
        zoom = min(zoom, FINEST)
        scale = 2.0**zoom
        with self._lock:
            left, top, right, bottom = self._bounds.T
            inside = (left <= box[2]) & (right >= box[0]) & (top <= box[3]) & (bottom >= box[1])
            dots = inside & (np.maximum(right - left, bottom - top) * scale < _DOT_PX)
            shapes = self._level(zoom)[inside & ~dots]
            keys, dot_keys = self._keys[inside & ~dots], self._keys[dots]
            centres = (self._bounds[dots, :2] + self._bounds[dots, 2:]) / 2
        return {"scale": scale, **_flattened(shapes, keys, scale, dot_keys, centres)}

    def prepare(self, zoom: int) -> None:
        """Simplify the outlines for a zoom, so that the first view is quick."""
        with self._lock:
            self._level(zoom)

    def _level(self, zoom: int) -> NDArray[Any]:
        """Return the outlines for a zoom; each is simplified from the next finer one."""
        if zoom not in self._levels:
            self._levels[zoom] = _simpler(self._level(zoom + 1), zoom)
        return self._levels[zoom]


def _simpler(outlines: NDArray[Any], zoom: int) -> NDArray[Any]:
    simple: NDArray[Any] = shapely.simplify(outlines, _TOLERANCE / 2.0**zoom, preserve_topology=False)
    lost = shapely.is_empty(simple) & ~shapely.is_empty(outlines)
    return np.where(lost, outlines, simple)


def _flattened(
    shapes: NDArray[Any], keys: NDArray[np.int64], scale: float, dot_keys: NDArray[np.int64], dots: Floats
) -> dict[str, Any]:
    parts, owner = shapely.get_parts(shapes, return_index=True)
    polygons = shapely.get_type_id(parts) == int(shapely.GeometryType.POLYGON)
    parts, owner = parts[polygons], owner[polygons]
    rings, ring_owner = shapely.get_rings(parts, return_index=True)
    points = np.rint(shapely.get_coordinates(rings) * scale).astype(np.int64)
    lengths = shapely.get_num_coordinates(rings)
    counts = np.bincount(ring_owner, minlength=len(parts))
    centres = np.rint(dots * scale).astype(np.int64)
    ones = [1] * len(dot_keys)
    return {
        "keys": [*keys[owner].tolist(), *dot_keys.tolist()],
        "parts": [*counts.tolist(), *ones],
        "rings": [*lengths.tolist(), *ones],
        "points": [*points.ravel().tolist(), *centres.ravel().tolist()],
    }
