"""Marks of landslides in a picture: outlines, and rings around those that are too small for an outline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any, TypeAlias

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.inventory.attributes import polygon_areas_m2
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.raster.georeference import Floats, Georeference, apply, inverse

pyogrio = load_pyogrio()

SMALL_PX = 10
"""Size, pixels of the picture, below which a landslide gets a ring instead of an outline."""

_MOST_RINGS = 20_000  # above this number, rings that cover each other are left out
_CELL_PX = 6  # size of the cells that show one ring each
_SIMPLER_PX = 0.4  # tolerance of simplified outlines, pixels of the picture
_BATCH = 2**13

Source: TypeAlias = geopandas.GeoDataFrame | str | PathLike[str]
"""Landslides, or a vector file of them."""


def frames(source: Source) -> Iterator[geopandas.GeoDataFrame]:
    """Yield the landslides of a source, those of a file some at a time."""
    if isinstance(source, geopandas.GeoDataFrame):
        yield source
        return
    wanted = ["probability_mean", "area_m2"]
    with pyogrio.open_arrow(source, columns=wanted, use_pyarrow=True, batch_size=_BATCH) as (found, stream):
        for batch in stream:
            geometry = shapely.from_wkb(batch.column(found["geometry_name"]).to_numpy(zero_copy_only=False))
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in found["fields"]}
            yield geopandas.GeoDataFrame(columns, geometry=geometry, crs=found["crs"])


class Marks:
    """Marks of landslides, collected some at a time.

    Args:
        georeference: that of the scene.
        scale: pixels of the picture for each pixel of the scene, across and down.

    Attributes:
        number: number of landslides.
        rings: number of those with a ring; the others have an outline.
        area_m2: total area; NaN if it is unknown.
        area_px: total area in pixels of the scene, if it is unknown in m2.
    """

    def __init__(self, georeference: Georeference, scale: tuple[float, float]) -> None:
        self._georeference, self._scale = georeference, np.array(scale)
        self.number = self.rings = self.outlines = 0
        self.area_m2 = self.area_px = 0.0
        self._lines: list[Floats] = []
        self._line_probability: list[Floats] = [np.zeros(0)]
        self._centres, self._probability = np.zeros((0, 2)), np.zeros(0)

    @classmethod
    def of(cls, source: Source, georeference: Georeference, scale: tuple[float, float]) -> Marks:
        """Collect the marks of all landslides of a source."""
        marks = cls(georeference, scale)
        marks.add(frames(source))
        return marks

    def add(self, parts: Iterable[geopandas.GeoDataFrame]) -> None:
        """Add landslides, polygons in any CRS."""
        for part in parts:
            self.number += len(part)
            if not len(part):
                continue
            self._add_area(part)
            shapes, probability = self._in_pixels(part)
            if len(shapes):
                bounds = shapely.bounds(shapes)
                small = ((bounds[:, 2:] - bounds[:, :2]) * self._scale).max(axis=1) < SMALL_PX
                self._add_rings((bounds[small, :2] + bounds[small, 2:]) / 2, probability[small])
                self._add_outlines(shapes[~small], probability[~small])

    def centres(self) -> tuple[Floats, Floats]:
        """Return centres of the rings (n, 2), in pixels of the scene, and probabilities (n,), in ascending order."""
        order = _ascending(self._probability)
        return self._centres[order], self._probability[order]

    def lines(self) -> tuple[list[Floats], Floats]:
        """Return the lines of the outlines, in pixels of the scene, and probabilities, in ascending order."""
        probability = np.concatenate(self._line_probability)
        order = _ascending(probability)
        return [self._lines[place] for place in order.tolist()], probability[order]

    def _in_pixels(self, part: geopandas.GeoDataFrame) -> tuple[NDArray[Any], Floats]:
        """Return shapes (n,) in pixels of the scene and probabilities (n,), NaN if unknown."""
        geometry = part.geometry
        if self._georeference.crs and geometry.crs is not None:
            geometry = geometry.to_crs(self._georeference.crs)
        probability = np.full(len(part), np.nan)
        if "probability_mean" in part:
            probability = np.asarray(part["probability_mean"], np.float64)
        known = ~(geometry.isna() | geometry.is_empty).to_numpy()
        to_pixels = inverse(self._georeference.transform)
        shapes = shapely.transform(geometry.to_numpy()[known], lambda points: apply(to_pixels, points))
        return shapes, probability[known]

    def _add_rings(self, centres: Floats, probability: Floats) -> None:
        self.rings += len(centres)
        self._centres = np.concatenate([self._centres, centres])
        self._probability = np.concatenate([self._probability, probability])
        if self.rings > _MOST_RINGS:
            order = _ascending(self._probability)[::-1]
            cells = np.floor(self._centres[order] * self._scale / _CELL_PX).astype(np.int64)
            highest = order[np.unique(cells[:, 1] * 2**32 + cells[:, 0], return_index=True)[1]]
            kept = np.sort(highest)
            self._centres, self._probability = self._centres[kept], self._probability[kept]

    def _add_outlines(self, shapes: NDArray[Any], probability: Floats) -> None:
        self.outlines += len(shapes)
        simple = shapely.simplify(shapes, _SIMPLER_PX / self._scale.min())
        rings, owner = shapely.get_rings(simple, return_index=True)
        self._lines += [shapely.get_coordinates(ring) for ring in rings]
        self._line_probability.append(probability[owner])

    def _add_area(self, part: geopandas.GeoDataFrame) -> None:
        if "area_m2" in part and part["area_m2"].notna().all():
            self.area_m2 += float(part["area_m2"].sum())
            return
        scale_m = None if math.isnan(self._georeference.scale_m) else self._georeference.scale_m
        polygons = part.geometry.dropna().explode(ignore_index=True)
        polygons = polygons[polygons.geom_type == "Polygon"]
        self.area_m2 += float(polygon_areas_m2(polygons, scale_m).sum())
        self.area_px += float(shapely.area(part.geometry.to_numpy()).sum()) / abs(
            self._georeference.transform.determinant
        )


def _ascending(probability: Floats) -> NDArray[np.int64]:
    """Return the order of probabilities; unknown ones come first."""
    return np.argsort(np.nan_to_num(probability, nan=-1), kind="stable")
