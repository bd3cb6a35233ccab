"""Pixel grid, layers and outlines of the review page, without a server."""

from contextlib import closing

import cv2
import numpy as np
import pytest
import shapely
from affine import Affine

from lim_keras.errors import DataError
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster
from lim_keras.review.page.layers import HillshadeLayer, ProbabilityLayer, SceneLayer
from lim_keras.review.page.outlines import Outlines
from lim_keras.review.page.plane import Plane, cell_name, cell_of_name
from lim_keras.review.page.tiles import media_type

UTM = "EPSG:32648"


def plane_of(path):
    with RasterReader(path) as reader:
        return Plane.of(reader.info)


def decoded(tile):
    return cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, Affine(2, 0, 440_000, 0, -2, 2_600_000)),
        ("EPSG:4326", Affine(1e-5, 0, 104, 0, -1e-5, 84.9)),
        (UTM, Affine(1.6, 1.2, 440_000, 1.2, -1.6, 2_600_000)),
        ("", None),
    ],
)
def test_pixels_and_coordinates_convert_both_ways(tmp_path, crs, transform):
    path = write_raster(tmp_path / "a.tif", np.zeros((40, 60), np.uint8), crs=crs, transform=transform)
    plane = plane_of(path)
    shape = shapely.box(3, 5, 30, 20)
    there = plane.to_ground(shape)
    a, b, c, d, e, f = (transform or Affine(1, 0, 0, 0, -1, 0))[:6]
    x, y = 3 * a + 5 * b + c, 3 * d + 5 * e + f
    assert shapely.distance(there, shapely.Point(x, y)) < 1e-6 * abs(plane.transform.a) + 1e-9
    assert shapely.equals_exact(plane.to_pixels(there), shape, tolerance=1e-4)


def test_cells_cover_the_plane():
    plane = Plane(1100, 600, Affine(2, 0, 0, 0, -2, 0), UTM, 2.0)
    assert list(plane.cell_walk()) == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert plane.cell_bounds((1, 2)) == (1024, 512, 1100, 600)
    assert plane.cell_outline((1, 2)).bounds == (2048, -1200, 2200, -1024)
    assert cell_name((1, 2)) == "2-3"
    assert cell_of_name("2-3") == (1, 2)
    assert cell_of_name("field 7") is None


def test_tiles_show_the_pixels_of_the_scene(tmp_path):
    pixels = np.zeros((300, 520, 3), np.uint8)
    pixels[:256, :256] = (200, 30, 30)
    pixels[:256, 256:512] = (30, 200, 30)
    path = write_raster(tmp_path / "a.tif", pixels, crs=UTM, transform=Affine(1, 0, 0, 0, -1, 9e5))
    layer = SceneLayer(plane_of(path), path)
    try:
        red, green = (decoded(layer.tile(0, column, 0)) for column in (0, 1))
        assert red.shape == (256, 256, 3)
        assert abs(red.astype(int) - (30, 30, 200)).max() <= 6  # JPEG; blue first
        assert abs(green.astype(int) - (30, 200, 30)).max() <= 6
        edge = decoded(layer.tile(0, 2, 1))  # 8 x 44 px of it lie in the scene
        assert (edge[..., 3] > 0).sum() == 8 * 44
        half = decoded(layer.tile(-1, 0, 0))
        assert abs(half[64, 64, :3].astype(int) - (30, 30, 200)).max() <= 6
        assert (half[..., 3] > 0).sum() == 150 * 256
        assert decoded(layer.tile(0, 5, 5)).size == 4
    finally:
        layer.close()


def test_far_tiles_come_from_the_overview(tmp_path):
    pixels = np.zeros((700, 5000, 3), np.uint8)
    pixels[:, 2500:] = 240
    path = write_raster(tmp_path / "a.tif", pixels, crs=UTM, transform=Affine(1, 0, 0, 0, -1, 9e5))
    layer = SceneLayer(plane_of(path), path)
    try:
        assert layer.overview_level == 2
        tile = decoded(layer.tile(-4, 0, 0))  # 312.5 x 43.75 px
        assert tile[20, 100, 0] < 10
        assert tile[20, 200, 0] > 230
        assert (tile[..., 3] > 128).sum(axis=0).max() in (43, 44)
    finally:
        layer.close()


def test_gaps_of_the_scene_are_transparent_and_other_types_are_stretched(tmp_path):
    values = np.linspace(0.1, 0.3, 400 * 400, dtype=np.float32).reshape(400, 400)
    values[:100] = np.nan
    path = write_raster(tmp_path / "a.tif", values, crs=UTM, transform=Affine(1, 0, 0, 0, -1, 9e5))
    layer = SceneLayer(plane_of(path), path)
    try:
        tile = layer.tile(0, 0, 0)
        assert media_type(tile) == "image/webp"
        shown = decoded(tile)
        assert (shown[:95, :, 3] == 0).all()
        assert (shown[105:, :, 3] == 255).all()
        bottom = decoded(layer.tile(0, 0, 1))
        assert shown[110, 128, 0] < 40
        assert bottom[130, 128, 0] > 215
    finally:
        layer.close()


@pytest.mark.parametrize("warped", [False, True])
def test_values_are_stretched_where_the_sampled_boxes_hold_no_data(tmp_path, warped):
    pixels = np.zeros((2000, 2000, 1), np.uint16)
    pixels[300:500, 300:500] = np.linspace(1000, 3000, 200, dtype=np.uint16)[:, None]
    path = tmp_path / "far.tif"
    transform = Affine(2, 0, 440_000, 0, -2, 2_600_000)
    write_raster(path, pixels, crs=UTM, transform=transform, nodata=0)
    plane = Plane(2000, 2000, transform @ Affine.translation(0.5, 0.0) if warped else transform, UTM, 2.0)
    with closing(SceneLayer(plane, path)) as layer:
        shown = layer.picture(Box.sized(310, 310, 180, 180), 0)
    assert shown[..., 3].min() == 255
    assert shown[..., 0].max() - shown[..., 0].min() > 200


def test_an_image_of_another_grid_is_warped_to_the_scene(tmp_path):
    scene = write_raster(
        tmp_path / "a.tif", np.zeros((256, 256, 3), np.uint8), crs=UTM, transform=Affine(1, 0, 100, 0, -1, 9e5)
    )
    other = np.zeros((200, 200, 3), np.uint8)
    other[50:, 50:] = 220  # from column 64 and row 64 of the scene on
    before = write_raster(tmp_path / "b.tif", other, crs=UTM, transform=Affine(2, 0, 64, 0, -2, 9e5 + 36))
    layer = SceneLayer(plane_of(scene), before)
    try:
        tile = decoded(layer.tile(0, 0, 0))
        assert tile[100, 100, 0] > 200
        assert tile[40, 100, 0] < 20
        assert tile[100, 40, 0] < 20
        assert decoded(layer.tile(-1, 0, 0))[64, 64, 0] > 200
    finally:
        layer.close()


@pytest.mark.parametrize(
    ("crs", "transform", "message"),
    [
        (UTM, Affine(1, 0, 9e4, 0, -1, 9e5), "lies elsewhere"),
        ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 40), "lies elsewhere"),
        ("", None, "256 x 256 px"),
    ],
)
def test_an_image_of_other_ground_is_refused(tmp_path, crs, transform, message):
    scene = write_raster(
        tmp_path / "a.tif", np.zeros((256, 256), np.uint8), crs=UTM, transform=Affine(1, 0, 5e5, 0, -1, 9e5)
    )
    other = write_raster(tmp_path / "b.tif", np.zeros((90, 80), np.uint8), crs=crs, transform=transform)
    with pytest.raises(DataError, match=rf"b\.tif.*{message}"):
        SceneLayer(plane_of(scene), other)


def test_probability_is_transparent_where_it_is_low(tmp_path):
    percent = np.full((256, 256), 0, np.uint8)
    percent[:, 128:], percent[:, 250:] = 90, 255
    path = write_raster(tmp_path / "p.tif", percent, crs=UTM, transform=Affine(1, 0, 0, 0, -1, 9e5), nodata=255)
    layer = ProbabilityLayer(plane_of(path), path)
    try:
        picture = layer.picture(Box(0, 0, 256, 256), 0)
        assert (picture[0, [0, 200, 255], 3] == (0, 255, 0)).all()
        blue, green, red, _ = picture[0, 200].tolist()
        assert red > 200 > green > blue - 1
    finally:
        layer.close()


def test_hillshade_is_bright_towards_the_north_west(tmp_path):
    across = np.abs(np.arange(256) - 128.0)
    ridge = np.broadcast_to(1000 - across, (256, 256)).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", ridge, crs=UTM, transform=Affine(1, 0, 500_000, 0, -1, 2.6e6))
    layer = HillshadeLayer(plane_of(dem), dem, dem)
    try:
        # 45 degrees: cos 45 sin 45 + sin 45 cos 45 cos(315 - aspect), 0.5 + 0.5 * 0.707 to the west, and to the east
        # 0.5 - 0.5 * 0.707.
        picture = layer.picture(Box(0, 0, 256, 256), 0)
        assert picture[100, 50, 0] == pytest.approx(255 * 0.854, abs=2)
        assert picture[100, 200, 0] == pytest.approx(255 * 0.146, abs=2)
        assert layer.picture(Box(0, 0, 256, 256), 1).shape == (128, 128, 4)
    finally:
        layer.close()


def test_outlines_in_view_are_simplified_to_the_screen():
    circle = shapely.Point(500, 500).buffer(100, quad_segs=64)
    hole = circle.difference(shapely.box(480, 480, 520, 520))
    shapes = Outlines({7: hole, 9: shapely.box(10, 10, 12, 13), 4: None, 5: shapely.box(2000, 0, 2010, 10)})
    near = shapes.in_view(0, (0, 0, 1000, 1000))
    assert sorted(near["keys"]) == [7, 9]
    assert near["scale"] == 1
    assert near["parts"][near["keys"].index(7)] == 2
    assert sum(near["parts"]) == len(near["rings"])
    assert 2 * sum(near["rings"]) == len(near["points"])
    far = shapes.in_view(-3, (0, 0, 1000, 1000))
    assert sum(far["rings"]) < sum(near["rings"]) - 15
    dot = far["keys"].index(9)
    assert far["rings"][-1] == 1
    assert far["points"][-2:] == [1, 1]  # the centre (11, 11.5) / 8
    assert dot == len(far["keys"]) - 1
    assert shapes.in_view(6, (0, 0, 20, 20))["scale"] == 4
    assert shapes.in_view(6, (0, 0, 20, 20))["points"][:2] in ([48, 40], [40, 40], [48, 52], [40, 52])


def test_changed_outlines_are_found_at_every_zoom():
    shapes = Outlines({1: shapely.box(0, 0, 50, 50), 2: shapely.box(100, 0, 150, 50)})
    shapes.prepare(-2)
    shapes.change({2: shapely.box(300, 0, 350, 50), 3: shapely.box(0, 300, 50, 350)}, [1])
    for zoom in (2, 0, -2):
        assert sorted(shapes.in_view(zoom, (0, 0, 1000, 1000))["keys"]) == [2, 3]
    assert shapes.bounds(1) is None
    assert shapes.bounds(2) == [300, 0, 350, 50]
    assert shapes.at(325, 25, 0) == 2
    assert shapes.at(360, 25, 5) is None
    assert shapes.at(352, 25, 5) == 2


def test_the_smallest_landslide_at_a_point_is_chosen():
    shapes = Outlines({1: shapely.box(0, 0, 50, 50), 2: shapely.box(10, 10, 20, 20)})
    assert shapes.at(15, 15, 2) == 2
    assert shapes.at(40, 40, 2) == 1
