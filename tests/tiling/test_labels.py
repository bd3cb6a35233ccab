"""Labels of scenes: selection, burning, and label rasters."""

from pathlib import Path

import geopandas
import numpy as np
from rasterio import Affine
from shapely import Polygon, box

from lim_keras.raster.georeference import RasterInfo
from lim_keras.tiling.labels import LabelOptions, LabelSource, SceneLabels

UTM = "EPSG:32648"
EAST, NORTH = 500_000, 3_000_000


def scene(width: int = 300, height: int = 200, crs: str = UTM, transform: Affine | None = None) -> RasterInfo:
    """A header of a scene of 2 m pixels."""
    place = transform or Affine(2.0, 0, EAST, 0, -2.0, NORTH)
    return RasterInfo(Path(f"{crs[5:]}.tif"), width, height, 3, "uint8", crs, place, 2.0, None)


def square(column: float, row: float, width: float, height: float | None = None) -> Polygon:
    """A rectangle given in pixels of `scene`."""
    left, top = EAST + 2 * column, NORTH - 2 * row
    return box(left, top - 2 * (height or width), left + 2 * width, top)


def frame(*shapes: object, crs: str | None = UTM, **columns: object) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def burnt(labels: SceneLabels, info: RasterInfo) -> np.ndarray:
    return labels.mask(info.box)


def test_polygons_become_landslide_pixels(tmp_path: Path) -> None:
    frame(square(10, 20, 30, 40), square(290, 0, 20, 10), id=[7, 8]).to_file(tmp_path / "a.gpkg")
    source = LabelSource.read(LabelOptions(tmp_path / "a.gpkg"))
    labels = source.on_scene(scene())
    expected = np.zeros((200, 300), np.uint8)
    expected[20:60, 10:40] = 1
    expected[:10, 290:] = 1  # of 20 columns, 10 lie on the scene
    np.testing.assert_array_equal(burnt(labels, scene()), expected)
    assert labels.landslides.crs == UTM and labels.landslides["source"].tolist() == [1, 2]
    assert labels.landslides.area.tolist() == [4800, 400]
