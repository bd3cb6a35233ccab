"""Labels of scenes from label rasters, on the scene's grid and on others."""

import pickle
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from PIL import Image
from rasterio import Affine
from rasterio.warp import Resampling, reproject
from shapely import box

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.windows import Box, blocks
from lim_keras.raster.writer import write_raster
from lim_keras.tiling.labels import LabelOptions, LabelSource, SceneLabels

UTM = "EPSG:32648"
EAST, NORTH = 500_000, 3_000_000
PLACE = Affine(2.0, 0, EAST, 0, -2.0, NORTH)


def scene(crs: str = UTM, transform: Affine | None = PLACE, size: tuple[int, int] = (60, 40)) -> RasterInfo:
    return RasterInfo(Path("scene.tif"), *size, 3, "uint8", crs, transform, 2.0, None)


def values() -> np.ndarray:
    """Two landslides that share only a corner, a third one, and a strip without label."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:15, 10:20] = 1
    labels[15:25, 20:30] = 1
    labels[30:34, 5:9] = 1
    labels[:, 50:] = 255
    return labels


def write(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    options = {"crs": UTM, "transform": PLACE} | options
    return write_raster(path, values() if array is None else array, **options)


def place(path: Path, info: RasterInfo, **options: Any) -> SceneLabels:
    return LabelSource.read(LabelOptions(path, **options)).on_scene(info)


@pytest.mark.parametrize("placed", [{}, {"crs": "", "transform": None}])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_labels_on_the_grid_of_the_scene(placed: dict[str, Any], dtype: type, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values().astype(dtype), **placed)
    source = LabelSource.read(LabelOptions(path))
    labels = source.on_scene(scene())
    np.testing.assert_array_equal(labels.mask(Box(0, 0, 40, 60)), values())
    again = pickle.loads(pickle.dumps(labels))
    np.testing.assert_array_equal(again.mask(Box(3, 7, 33, 55)), values()[3:33, 7:55])
    assert sorted(labels.landslides.area) == [64, 400, 400]
    assert labels.landslides["source"].tolist() == ["scene:0", "scene:1", "scene:2"] and labels.landslides.crs == UTM
    assert labels.landslides.total_bounds.tolist() == [EAST + 10, NORTH - 68, EAST + 60, NORTH - 10]
    source.check_placement()
    assert source.report().landslides == 3 and source.report().lost == ()


@pytest.mark.parametrize("nodata", [0, 255, 1, None])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_labels_on_another_grid(nodata: int | None, dtype: type, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values().astype(dtype), nodata=nodata)
    # Pixels of 1 m, and 10 m more on each side, where there are no labels.
    info = scene(transform=Affine(1.0, 0, EAST - 10, 0, -1.0, NORTH + 10), size=(140, 100))
    labels = place(path, info)
    expected = np.full((100, 140), 255, np.uint8)
    expected[10:90, 10:130] = values().repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(labels.mask(info.box), expected)
    for part in blocks(100, 140, 33):
        np.testing.assert_array_equal(labels.mask(part), expected[part.slices])
    assert sorted(labels.landslides.area) == [64, 400, 400]


@pytest.mark.parametrize("nodata", [2, -9, np.nan])
def test_a_nodata_value_stays_without_label_on_another_grid(nodata: float, tmp_path: Path) -> None:
    given = values().astype(np.float32 if np.isnan(nodata) else np.int16)
    given[values() == 255] = nodata
    path = write(tmp_path / "a.tif", given, nodata=nodata)
    info = scene(transform=Affine(1.0, 0, EAST, 0, -1.0, NORTH), size=(120, 80))
    expected = values().repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(place(path, info).mask(info.box), expected)


def test_labels_a_turn_in_longitude_away_are_refused(tmp_path: Path) -> None:
    degrees = Affine(0.001, 0, 179.9, 0, -0.001, 0.05)  # to 180.1
    path = write(tmp_path / "a.tif", np.zeros((100, 200), np.uint8), crs="EPSG:4326", transform=degrees)
    across = scene("EPSG:32660", Affine(20.0, 0, 830_000, 0, -20.0, 2_000), (400, 200))
    with pytest.raises(DataError, match=r"a\.tif: its longitudes are a whole turn from .*gdalwarp -t_srs EPSG:32660"):
        place(path, across)
    west = scene("EPSG:32660", Affine(10.0, 0, 825_000, 0, -10.0, 2_000), (400, 200))
    assert (place(path, west).mask(west.box) == 0).all()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32647"])
def test_labels_in_another_crs(crs: str, tmp_path: Path) -> None:
    large = values().repeat(10, 0).repeat(10, 1)
    path = write(tmp_path / "a.tif", large)
    west, south, east, north = (
        geopandas.GeoSeries([box(EAST, NORTH - 800, EAST + 1200, NORTH)], crs=UTM).to_crs(crs).total_bounds
    )
    pixel = (east - west) / 500
    info = scene(crs, Affine(pixel, 0, west, 0, -pixel, north), (500, int((north - south) / pixel)))
    labels = place(path, info)
    expected = np.full((info.height, info.width), 255, np.uint8)
    reproject(
        large,
        expected,
        src_transform=PLACE,
        src_crs=UTM,
        dst_transform=info.transform,
        dst_crs=crs,
        resampling=Resampling.nearest,
        src_nodata=None,
        init_dest_nodata=False,
        tolerance=0,
    )
    found = labels.mask(info.box)
    assert (found != expected).mean() < 2e-4
    assert len(labels.landslides) >= 3 and {0, 1, 255} == set(np.unique(found))
    for part in blocks(info.height, info.width, 190):
        np.testing.assert_array_equal(labels.mask(part), found[part.slices])


def test_a_raster_beside_the_scene(tmp_path: Path) -> None:
    source = LabelSource.read(LabelOptions(write(tmp_path / "a.tif")))
    far = scene(transform=Affine(2.0, 0, EAST + 5000, 0, -2.0, NORTH))
    labels = source.on_scene(far)
    assert (labels.mask(Box(0, 0, 9, 7)) == 255).all() and labels.landslides.empty
    with pytest.raises(DataError, match=r"a.tif: lies on no scene\. Is it the right file\?"):
        source.check_placement()
    assert not source.on_scene(scene()).landslides.empty
    source.check_placement()


def test_a_mapped_area(tmp_path: Path) -> None:
    aoi = geopandas.GeoDataFrame(geometry=[box(EAST, NORTH - 30, EAST + 60, NORTH)], crs=UTM)  # 30 x 15 px
    aoi.to_file(tmp_path / "aoi.gpkg")
    labels = place(write(tmp_path / "a.tif"), scene(), aoi=tmp_path / "aoi.gpkg")
    expected = np.full((40, 60), 255, np.uint8)
    expected[:15, :30] = values()[:15, :30]
    np.testing.assert_array_equal(labels.mask(Box(0, 0, 40, 60)), expected)
    assert labels.landslides.area.tolist() == [400]


@pytest.mark.parametrize("options", [{"layer": "a"}, {"where": "a = 1"}, {"ignore_where": "a = 1"}, {"touched": True}])
def test_options_of_polygons(options: dict[str, Any], tmp_path: Path) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"a.tif: a raster has no polygons. Leave out `{name}`"):
        LabelSource.read(LabelOptions(write(tmp_path / "a.tif"), **options))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.where(values() == 1, 255, 0), r"Received: 0, 255\. 255 means no label; where it means landslide, write 1"),
        (values() * 2, r"expected the labels 1 landslide.* Received: 0, 2, 254"),
        (np.full((40, 60), 255), r"expected pixels of 1 landslide or 0 background"),
        (np.zeros((40, 60, 3)), r"expected a label raster of one band. Received: 3 bands"),
    ],
)
def test_rasters_that_cannot_be_used(array: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a.tif: .*{message}"):
        LabelSource.read(LabelOptions(write(tmp_path / "a.tif", array.astype(np.uint8))))


def test_rasters_without_a_place(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.tif", crs="", transform=None)
    with pytest.raises(DataError, match=r"Expected a CRS for both, or 50 x 40 px without one. Received: 60 x 40 px"):
        place(plain, scene(size=(50, 40)))
    picture = scene("", None)
    labels = place(plain, picture)
    np.testing.assert_array_equal(labels.mask(picture.box), values())
    assert labels.landslides.total_bounds.tolist() == [5, -34, 30, -5]  # (column, -row)
    with pytest.raises(DataError, match=r"b.tif: cannot be placed on the scene"):
        place(write(tmp_path / "b.tif"), picture)


def test_an_inverted_raster_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(LimKerasWarning, match=r"a.tif: 90% of its labelled pixels are landslide. If it is inverted"):
        LabelSource.read(LabelOptions(write(tmp_path / "a.tif", (np.arange(2400).reshape(40, 60) >= 240).astype("u1"))))
    Image.fromarray(np.eye(40, 60) > 0).save(tmp_path / "fax.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match=r"fax.tif: its palette shows 0 as white and 1 as black"):
        LabelSource.read(LabelOptions(tmp_path / "fax.tif"))
