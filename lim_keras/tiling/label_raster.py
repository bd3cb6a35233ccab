"""A label raster, placed on many scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import shapely
from geopandas import GeoDataFrame, GeoSeries
from pyproj import CRS

from lim_keras.errors import DataError
from lim_keras.evaluation.truth import open_label_raster, warn_if_inverted
from lim_keras.raster.georeference import Georeference, RasterInfo, border
from lim_keras.raster.labels import LabelsOnGrid, check_label_file, count_labels, same_grid
from lim_keras.raster.opening import explained, raster_stem
from lim_keras.tiling.mapped_polygons import MappedPolygons
from lim_keras.vectors.formats import Source
from lim_keras.vectors.placement import outline


@dataclass(frozen=True)
class LabelRaster:
    """A checked raster of labels: 1 landslide, 0 background, 255 or nodata: no label.

    Attributes:
        source: the file.
        info: its header.
    """

    source: Source
    info: RasterInfo

    @classmethod
    def read(cls, source: Source) -> LabelRaster:
        """Read the header, and check the labels.

        Raises:
            DataError: it cannot be read, or its labels can be read in two ways.

        Warns:
            LimKerasWarning: most labels are landslide.
        """
        with open_label_raster(source) as raster, explained(raster.name):
            check_label_file(raster)
            warn_if_inverted(raster.name, count_labels(raster))
            return cls(source, raster.info)

    def on_scene(self, scene: RasterInfo) -> tuple[GeoDataFrame, LabelsOnGrid | None]:
        """Return the connected landslide regions on a scene, numbered as `source`, and the labels on its grid.

        The labels are None if the raster does not lie on the scene.

        Raises:
            DataError: only one of the two has a CRS, or neither has one and their sizes differ.
        """
        labels = self._labels(scene)
        regions: list[Any] = [] if labels is None else labels.landslides()
        if labels is not None and self.info.transform is None:
            regions = list(shapely.transform(regions, Georeference.of(scene).place))
        name = raster_stem(scene.path)  # regions of two scenes are different ones
        found = {"source": [f"{name}:{number}" for number in range(len(regions))]}
        return GeoDataFrame(found, geometry=regions, crs=scene.crs or None), labels

    def _labels(self, scene: RasterInfo) -> LabelsOnGrid | None:
        info, unplaced = self.info, not self.info.crs and self.info.transform is None
        if info.box == scene.box and (unplaced or same_grid(info, scene)):
            return LabelsOnGrid(self.source.name, scene, placed=False)
        if not info.crs or not scene.crs:
            raise DataError(
                f"{self.source.path}: cannot be placed on the scene {scene.path}. Expected a CRS for both, or "
                f"{scene.width} x {scene.height} px without one. Received: {info.width} x {info.height} px, CRS "
                f"{info.crs or None}, of the scene {scene.crs or None}."
            )
        footprint = GeoSeries([outline(info)], crs=info.crs)
        if MappedPolygons.clean(self.source, footprint).on_scene(scene).empty:
            return None
        if _a_turn_away(info, scene):
            raise DataError(
                f"{self.source.path}: its longitudes are a whole turn from those of {scene.path}, across the "
                f"antimeridian. Warp it first (`gdalwarp -t_srs {scene.crs} -r near {self.source.path} labels.tif`)."
            )
        return LabelsOnGrid(self.source.name, scene, placed=True)


def _a_turn_away(labels: RasterInfo, scene: RasterInfo) -> bool:
    """Return whether a part of a scene lies on a raster in degrees only after a whole turn in longitude."""
    ground = Georeference.of(scene)
    if ground.to_degrees is None or not CRS.from_user_input(labels.crs).is_geographic:
        return False
    edges = Georeference.of(labels).place(border(labels.box))[:, 0]
    longitudes = ground.degrees(border(scene.box))[:, 0]
    turned = [longitudes + turn for turn in (-360.0, 360.0)]
    return any(bool(((one > edges.min()) & (one < edges.max())).any()) for one in turned)
