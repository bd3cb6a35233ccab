"""Polygons of a vector file, ready to be placed on many scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from geopandas import GeoDataFrame, GeoSeries
from numpy.typing import NDArray

from lim_keras.raster.georeference import Georeference, RasterInfo, apply, inverse
from lim_keras.vectors.formats import Source
from lim_keras.vectors.geometries import Geometries, cut, repair
from lim_keras.vectors.placement import check_place, is_placed, outline, place_polygons, unwrapped
from lim_keras.vectors.surroundings import around_scene


@dataclass(frozen=True)
class MappedPolygons:
    """Valid two-dimensional polygons of a vector file, in its CRS.

    Attributes:
        source: the file.
        polygons: polygons and multi-polygons; the index holds the ids of the features.
        repaired: number of polygons that were invalid.
    """

    source: Source
    polygons: GeoSeries
    repaired: int

    @classmethod
    def clean(cls, source: Source, polygons: GeoSeries) -> MappedPolygons:
        """Drop heights, close polygons across 180 degrees, and repair invalid ones."""
        flat = GeoSeries(shapely.force_2d(polygons.to_numpy()), crs=polygons.crs, index=polygons.index)
        closed = unwrapped(flat)
        shapes = closed.to_numpy().copy()
        repaired = repair(shapes)
        return cls(source, GeoSeries(shapes, crs=closed.crs, index=closed.index), repaired)

    def subset(self, which: NDArray[np.bool_]) -> MappedPolygons:
        """Keep some of the polygons."""
        return MappedPolygons(self.source, self.polygons[which], self.repaired)

    def repeated(self) -> NDArray[np.bool_]:
        """Return which polygons (n,) repeat an earlier one."""
        return np.asarray(self.polygons.normalize().to_wkb().duplicated())

    def on_scene(self, scene: RasterInfo) -> GeoDataFrame:
        """Return single polygons in the CRS of a scene, cut at its edge; `source` is the id of the feature.

        Raises:
            DataError: the file or the scene lacks a CRS, or the polygons cannot be reprojected.
        """
        if self.polygons.empty:
            return GeoDataFrame({"source": np.zeros(0, np.int64)}, geometry=[], crs=scene.crs or None)
        placed = place_polygons(around_scene(self.polygons, scene), self.source, scene)
        placed = placed[is_placed(placed)]
        shapes = placed.to_numpy().copy()
        repair(shapes)
        parts, owner = cut(shapes, outline(scene))
        return GeoDataFrame({"source": placed.index.to_numpy()[owner]}, geometry=parts, crs=scene.crs or None)

    def check_place(self, scene: RasterInfo) -> None:
        """Raise a DataError if the polygons would lie on a scene in another CRS or axis order; none lies on it now."""
        check_place(self.polygons, self.source, scene)


def in_pixels(polygons: Geometries, scene: RasterInfo) -> Geometries:
    """Convert polygons (n,) in the CRS of a scene to its pixels, (column, row)."""
    back = inverse(Georeference.of(scene).transform)
    return np.asarray(shapely.transform(polygons, lambda points: apply(back, points)), dtype=object)


def inside(polygons: GeoDataFrame, area: GeoDataFrame) -> GeoDataFrame:
    """Cut polygons at the polygons of an area; both are in the CRS of a scene."""
    parts, owner = cut(polygons.geometry.to_numpy(), shapely.union_all(area.geometry.to_numpy()))
    return GeoDataFrame({"source": polygons["source"].to_numpy()[owner]}, geometry=parts, crs=polygons.crs)
