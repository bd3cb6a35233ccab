"""Scenes that do not fit a model are refused, or give a warning."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from lim_keras.bundle.info import BandStatistics
from lim_keras.errors import ConfigError, DataError, DomainWarning
from lim_keras.inference.domain import check_brightness, check_place, check_scene, gsd_ratio, reading_grid
from lim_keras.raster.georeference import pixel_shape
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.resampling import grid_with_gsd

from .conftest import Write, constant_model

MODEL = constant_model().info


def test_another_number_of_bands(write: Write) -> None:
    scene = RasterReader(write("four.tif", np.zeros((8, 8, 4), np.uint8), photometric="MINISBLACK", alpha="NO"))
    with pytest.raises(DataError, match=r"four\.tif: expected 3 bands.*Received: 4.*`bands` 1,2,3"):
        check_scene(scene, MODEL, None)


def coloured(write: Write, colours: str, descriptions: str = "") -> Path:
    """Write a scene whose bands have these colours (rgbaN: red, green, blue, alpha, near infrared)."""
    named = {"r": "red", "g": "green", "b": "blue", "a": "alpha", "N": "undefined"}
    pixels = np.zeros((8, 8, len(colours)), np.uint8)
    path = write("coloured.tif", pixels, photometric="MINISBLACK", alpha="NO")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp[named[one]] for one in colours]
        if descriptions:
            file.descriptions = descriptions.split(",")
    return path


@pytest.mark.parametrize(
    ("colours", "descriptions", "said"),
    [
        ("bgr", "", "blue, green, red, and .*give `bands` 3,2,1"),
        ("bgra", "", "`bands` 3,2,1"),
        ("grb", "", "`bands` 2,1,3"),
        ("bgr", "B2,B3,B4", "`bands` 3,2,1"),
        ("rgb", "Blue,Green,Red", "`bands` 3,2,1"),
    ],
)
def test_another_order_of_colours(write: Write, colours: str, descriptions: str, said: str) -> None:
    path = coloured(write, colours, descriptions)
    with RasterReader(path) as scene, pytest.warns(DomainWarning, match=r"coloured\.tif: the file says.*" + said):
        check_scene(scene, MODEL, None)
    for quiet, bands in ((path, (3, 2, 1)), (path, (1, 2, 3)), (coloured(write, "rgb"), None)):
        with warnings.catch_warnings(), RasterReader(quiet, bands=bands) as scene:
            warnings.simplefilter("error")
            check_scene(scene, MODEL, None)


def test_colours_among_more_bands_are_advised(write: Write) -> None:
    with RasterReader(coloured(write, "Nrgb")) as scene, pytest.raises(DataError, match="`bands` 2,3,4"):
        check_scene(scene, MODEL, None)


def test_a_file_of_fewer_bands_than_the_model_takes(write: Write) -> None:
    scene = RasterReader(write("grey.tif", np.zeros((8, 8, 1), np.uint8)))
    with pytest.raises(
        DataError, match=r"grey\.tif: expected 3 bands.*Received: 1\. The file holds no more than 1"
    ) as said:
        check_scene(scene, MODEL, None)
    assert "`bands`" not in str(said.value)


@pytest.mark.parametrize("bands", [None, (1, 1, 1)])
def test_a_palette_is_to_be_expanded(write: Write, bands: tuple[int, ...] | None) -> None:
    path = write("pal.tif", np.zeros((8, 8, 1), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 80, 10, 255)})
    with (
        RasterReader(path, bands=bands) as scene,
        pytest.raises(DataError, match=r"pal\.tif: the image has a palette.*`gdal_translate -expand rgb`"),
    ):
        check_scene(scene, MODEL, None)


def test_a_container_of_rasters_is_refused_with_a_way_that_works(tmp_path: Path) -> None:
    path = tmp_path / "many.gpkg"
    profile = {"driver": "GPKG", "height": 8, "width": 8, "count": 3, "dtype": "uint8", "crs": "EPSG:32648"}
    place = Affine(1, 0, 5e5, 0, -1, 3e6)
    for options in ({"RASTER_TABLE": "a"}, {"RASTER_TABLE": "b", "APPEND_SUBDATASET": "YES"}):
        with rasterio.open(path, "w", transform=place, **profile, **options) as file:
            file.write(np.full((3, 8, 8), 100, np.uint8))
    with pytest.raises(
        DataError, match=r"many\.gpkg: expected a raster with bands.*gdal_translate SUBDATASET scene\.tif"
    ):
        RasterReader(path)


def test_another_data_type_needs_a_scale(write: Write) -> None:
    scene = RasterReader(write("s.tif", np.zeros((8, 8, 3), np.uint16)))
    with pytest.raises(DataError, match=r"s\.tif: expected uint8 values \(0 to 255 in training\).*uint16.*`scale`"):
        check_scene(scene, MODEL, None)
    check_scene(scene, MODEL, (0.0, 3000.0))
    with pytest.raises(ConfigError, match="LOW < HIGH"):
        check_scene(scene, MODEL, (3000.0, 0.0))


@pytest.mark.parametrize("gsd", [0.54, 0.8, 1.2])
def test_within_a_factor_of_one_and_a_half_nothing_is_said(gsd: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gsd_ratio(Path("s.tif"), gsd, MODEL) == pytest.approx(gsd / 0.8)


def test_beyond_it_both_figures_are_said() -> None:
    with pytest.warns(DomainWarning, match=r"a pixel is 10 m.*trained at 0\.8 m.*0\.08 times.*`resample`"):
        assert gsd_ratio(Path("s.tif"), 10.0, MODEL) == pytest.approx(12.5)
    with pytest.warns(DomainWarning, match="`gsd_m`"):
        assert gsd_ratio(Path("s.tif"), None, MODEL) is None


@pytest.mark.parametrize(("gsd", "effect"), [(10.0, ", which adds no detail"), (0.1, "")])
def test_what_is_resampled_is_not_told_to_be(gsd: float, effect: str) -> None:
    with pytest.warns(DomainWarning, match=rf"a pixel is {gsd:g} m.*is warped to that distance{effect}\.$") as said:
        gsd_ratio(Path("s.tif"), gsd, MODEL, resample=True)
    assert "`resample`" not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an error follows
        assert gsd_ratio(Path("s.tif"), None, MODEL, resample=True) is None


def test_grid_of_a_projected_scene(write: Write) -> None:
    info = read_info(write("s.tif", np.zeros((100, 200, 3), np.uint8), transform=Affine(2, 0, 5e5, 0, -2, 3e6)))
    grid = grid_with_gsd(info, 2.0, 0.8)
    assert (grid.height, grid.width) == (250, 500)
    assert grid.transform.a == pytest.approx(0.8) and grid.transform.c == pytest.approx(5e5)


def test_grid_of_a_scene_in_degrees_is_metric(write: Write) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 105.0, 0, -1e-4, 27.0)}
    info = read_info(write("s.tif", np.zeros((100, 100, 3), np.uint8), **place))
    assert info.gsd_m is not None
    grid = grid_with_gsd(info, info.gsd_m, 5.0)
    assert grid.crs == "EPSG:32648"
    # 1e-4 degrees of latitude are 11.08 m at 27 degrees north: 1108 m, 222 px of 5 m
    assert grid.height == pytest.approx(222, abs=3)
    assert grid.transform.a == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("axes", "size"),
    [
        (Affine.scale(2, 2), (250, 500)),  # stored from the south up
        (Affine.scale(-2, -2), (250, 500)),  # and from the east on
        (Affine.rotation(90) @ Affine.scale(2, -2), (500, 250)),
        (Affine.rotation(45) @ Affine.scale(2, -2), (530, 530)),  # 300 px of 2 m on a diagonal
    ],
)
def test_the_grid_holds_a_scene_that_is_not_north_up(write: Write, axes: Affine, size: tuple[int, int]) -> None:
    place = Affine.translation(5e5, 3e6) @ axes
    info = read_info(write("s.tif", np.zeros((100, 200, 3), np.uint8), transform=place))
    grid = grid_with_gsd(info, 2.0, 0.8)
    assert (grid.height, grid.width) == size
    for column, row in ((0, 0), (200, 0), (0, 100), (200, 100)):
        inside = ~grid.transform @ (place @ (column, row))
        assert -1 <= inside[0] <= grid.width + 1 and -1 <= inside[1] <= grid.height + 1


AT_180 = [
    ("EPSG:32760", Affine(2, 0, 819_000, 0, -2, 8_118_000)),  # UTM 60S: 180 degrees east lies at its middle
    ("EPSG:4326", Affine(1e-4, 0, 179.99, 0, -1e-4, 60)),
    ("EPSG:4326", Affine(1e-4, 0, -180.01, 0, -1e-4, 60)),
    ("EPSG:4326", Affine(1e-4, 0, 185, 0, -1e-4, 60)),
    ("EPSG:4326", Affine(1e-4, 0, 359.99, 0, -1e-4, 60)),
    ("EPSG:3857", Affine(4, 0, 20_037_108, 0, -4, 8_399_700)),
    ("EPSG:4087", Affine(4, 0, 20_037_108, 0, -4, 6_679_100)),  # degrees drawn as metres of the equator
]


@pytest.mark.parametrize(("crs", "transform"), AT_180)
def test_the_grid_of_a_scene_across_the_antimeridian(write: Write, crs: str, transform: Affine) -> None:
    path = write("s.tif", np.full((200, 200, 3), 50, np.uint8), crs=crs, transform=transform)
    with RasterReader(path) as scene:
        assert scene.info.gsd_m is not None and scene.info.gsd_m < 10
        grid = grid_with_gsd(scene.info, scene.info.gsd_m, 5.0)
        with scene.on_grid(grid) as warped:
            # Nothing of the scene is lost, and it is as large as on the ground.
            assert warped.info.height * warped.info.width < 1.2 * (200 * scene.info.gsd_m / 5) ** 2
            assert warped.valid().mean() > 0.9
        shape = pixel_shape(replace(scene.info, **vars(grid)))
    assert shape is not None
    assert (shape.width_m, shape.height_m) == pytest.approx((5, 5), rel=0.01)


@pytest.mark.parametrize(("crs", "corner"), [("EPSG:3031", 0.0), ("EPSG:4326", 89.999)])
def test_the_grid_of_a_scene_at_a_pole(write: Write, crs: str, corner: float) -> None:
    transform = Affine(3.6, 0, -180, 0, -1e-5 if corner else -3.6, corner or 180)
    info = read_info(write("s.tif", np.full((100, 100, 3), 50, np.uint8), crs=crs, transform=transform))
    assert info.gsd_m is not None
    grid = grid_with_gsd(info, info.gsd_m, 5.0)
    assert 10 < grid.width < 200 and 10 < grid.height < 200


def test_a_small_scene_in_degrees_near_a_pole_is_not_turned(write: Write) -> None:
    # At 85 N, 1e-4 degrees are 0.97 m across and 11.17 m down (Snyder 1987): 100 x 100 px are 97 m x 1,117 m.
    place = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 100, 0, -1e-4, 85.005)}
    info = read_info(write("s.tif", np.zeros((100, 100, 3), np.uint8), **place))
    assert info.gsd_m is not None
    grid = grid_with_gsd(info, info.gsd_m, 1.0)
    assert grid.crs == "EPSG:4326" and (grid.width, grid.height) == pytest.approx((97, 1117), abs=1)


def test_pixels_that_are_not_square_are_reported_and_warped(write: Write) -> None:
    # 1e-5 degrees at 60 N: 0.558 m across, 1.114 m down, and 0.79 m as the side of a square, near 0.8 m of training.
    place = {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 20, 0, -1e-5, 60.0005)}
    info = read_info(write("s.tif", np.zeros((100, 200, 3), np.uint8), **place))
    with pytest.warns(DomainWarning, match=r"s\.tif: a pixel is 0\.558 m wide and 1\.11 m high.*2:1.*`resample` warps"):
        assert reading_grid(info, MODEL, resample=False) is None
    with pytest.warns(DomainWarning, match=r"The scene is warped to square pixels\.$"):
        grid = reading_grid(info, MODEL, resample=True)
    assert grid is not None and grid.crs == "EPSG:32634"
    # 200 x 0.558 m and 100 x 1.114 m in pixels of 0.8 m; UTM is turned by the meridian convergence of 0.9 degrees.
    assert (grid.width, grid.height) == pytest.approx((140, 139), abs=4)


@pytest.mark.parametrize("sides", [(0.8, 0.8), (0.75, 0.85)])
def test_pixels_that_are_nearly_square_are_left_as_they_are(write: Write, sides: tuple[float, float]) -> None:
    transform = Affine(sides[0], 0, 5e5, 0, -sides[1], 3e6)
    info = read_info(write("s.tif", np.zeros((10, 10, 3), np.uint8), transform=transform))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reading_grid(info, MODEL, resample=True) is None


def test_a_scene_without_a_place_cannot_be_resampled(write: Write) -> None:
    info = read_info(write("s.tif", np.zeros((10, 10, 3), np.uint8), crs=None))
    with pytest.raises(DataError, match="no coordinate reference system"):
        grid_with_gsd(replace(info, crs=""), 2.0, 0.8)


def test_a_scene_placed_by_control_points_is_to_be_warped_first(write: Write) -> None:
    path = write("s.tif", np.zeros((10, 20, 3), np.uint8))
    with RasterReader(path) as scene, warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        check_place(scene)
    points = [GroundControlPoint(0, 0, 5e5, 3e6), GroundControlPoint(0, 20, 5e5 + 16, 3e6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(path, "w", driver="GTiff", height=10, width=20, count=3, dtype="uint8")
    with file:
        file.gcps = ([*points, GroundControlPoint(10, 0, 5e5, 3e6 - 8)], CRS.from_epsg(32648))
    with RasterReader(path) as scene, pytest.warns(DomainWarning, match=r"s\.tif: only ground control points or RPCs"):
        check_place(scene)


def test_brightness_far_from_training_is_said(write: Write) -> None:
    image = np.full((300, 300, 3), 120, np.uint8)
    image[..., 1] = 2
    dark = constant_model(statistics=(BandStatistics(mean=120.0, std=20.0, min=0.0, max=255.0),) * 3)
    with (
        RasterReader(write("s.tif", image)) as scene,
        pytest.warns(DomainWarning, match=r"band 2 has the mean 2, but 120 \+- 20 in training") as caught,
    ):
        check_brightness(scene, dark.info, None)
    assert len(caught) == 1


def test_a_scene_narrower_than_a_pixel_is_not_resampled(write: Write) -> None:
    model = constant_model(gsd_m=0.8).info
    pole = write(
        "pole.tif", np.zeros((40, 64, 3), np.uint8), crs="EPSG:4326", transform=Affine(7e-6, 0, 10, 0, -7e-6, 90)
    )
    with (
        pytest.warns(DomainWarning),
        pytest.raises(DataError, match=r"pole.tif: `resample` needs .*wide and 31.3 m high"),
    ):
        reading_grid(read_info(pole), model, True)
