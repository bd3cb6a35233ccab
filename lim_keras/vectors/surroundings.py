"""Parts of polygons near a scene, before they are reprojected to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from geopandas import GeoSeries
from pyproj import Transformer
from pyproj.exceptions import ProjError
from shapely.affinity import translate

from lim_keras.raster.georeference import Georeference, RasterInfo, border, full_turn

_MARGIN = 0.05  # of the scene's longer side
_STEPS = 64  # edges are split into pieces of this part of the scene's longer side
_POLAR_STEPS = 1440  # edges around a pole are split into pieces of this part of a whole turn
_MOST_TURNS = 2


def around_scene(polygons: GeoSeries, scene: RasterInfo) -> GeoSeries:
    """Return the polygons near a scene, in their own CRS; larger ones are cut around it.

    Long edges get more vertices, because a straight edge is curved in another CRS. Polygons are returned as they are in
    two cases: the scene has no outline in their CRS; or they are in the scene's CRS, and its x does not repeat after a
    whole turn around the earth, as longitudes do.

    Args:
        polygons: valid polygons, each of which covers one range of x (`unwrapped`).
        scene: header of the scene.
    """
    found = None if polygons.crs is None else _window(polygons.crs, scene)
    if found is None:
        return polygons
    window, turn, step = found
    same_crs = polygons.crs == scene.crs
    if same_crs and not turn:
        return polygons
    shapes = polygons.to_numpy().copy()
    parts: list[list[Any]] = [[] for _ in shapes]
    whole = np.zeros(len(shapes), np.bool_)
    for count in range(-_MOST_TURNS, _MOST_TURNS + 1) if turn else (0,):
        area = translate(window, -count * turn)
        shapely.prepare(area)
        whole |= shapely.covers(area, shapes)
        for index in np.flatnonzero(shapely.intersects(area, shapes) & ~whole):
            parts[index].append(translate(shapely.intersection(shapes[index], area), count * turn))
    for index in np.flatnonzero(~whole):
        shapes[index] = shapely.union_all(parts[index])
    near = ~shapely.is_empty(shapes)
    return GeoSeries(
        shapely.segmentize(shapes[near], math.inf if same_crs else step), crs=polygons.crs, index=polygons.index[near]
    )


def _window(crs: Any, scene: RasterInfo) -> tuple[Any, float, float] | None:
    """Return a box around a scene in another CRS, the length of a whole turn there (0: none), and that of edges."""
    ground = Georeference.of(scene)
    if ground.to_degrees is None:
        return None
    outline = ground.place(border(scene.box))
    try:
        x, y = Transformer.from_crs(scene.crs, crs, always_xy=True).transform(*outline.T)
    except ProjError:
        return None
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    turn = full_turn(crs.to_wkt()) or 0.0
    if turn:
        x = np.unwrap(np.append(x, x[0]), period=turn)
        if abs(x[-1] - x[0]) > turn / 2:
            return _around_pole(y, turn) if crs.is_geographic else None
    longer = max(np.ptp(x), np.ptp(y))
    margin = _MARGIN * longer
    box = shapely.box(x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin)
    return box, turn, (longer + 2 * margin) / _STEPS


def _around_pole(latitudes: Any, turn: float) -> tuple[Any, float, float]:
    """Return a box of all longitudes from a pole to the latitudes of a scene's outline, as `_window` does."""
    pole, margin = turn / 4, turn / _POLAR_STEPS
    low, high = latitudes.min() - margin, latitudes.max() + margin
    south, north = (-pole, high) if latitudes.mean() < 0 else (low, pole)
    return shapely.box(-_MOST_TURNS * turn, south, _MOST_TURNS * turn, north), 0.0, turn / _POLAR_STEPS
