"""Synthetic world: seeds, layers, files, tiles, terrain."""

import cv2
import geopandas
import numpy as np
import pytest
from rasterio.features import rasterize

from lim_keras.demo.terrain import (
    erode,
    fractal_noise,
    hillshade,
    ribbon,
    scattered_points,
    slope_deg,
    smooth_noise,
    smoothstep,
)
from lim_keras.demo.world import World, make_world, world_transform, write_world
from lim_keras.errors import ConfigError
from lim_keras.raster.images import read_image, read_info


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(448, seed=4)


@pytest.fixture(scope="module")
def stable_world() -> World:
    return make_world(256, seed=1, landslides=0)


def test_equal_seeds_give_equal_worlds():
    first, again, other = (make_world(256, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.scene, again.scene)
    assert np.array_equal(first.instances, again.instances)
    assert np.array_equal(first.dem, again.dem)
    assert not np.array_equal(first.scene, other.scene)


def test_shapes_and_types_of_layers(world):
    assert (world.scene.shape, world.scene.dtype) == ((448, 448, 3), np.uint8)
    assert (world.mask.shape, world.mask.dtype) == ((448, 448), np.uint8)
    assert (world.dem.shape, world.dem.dtype) == ((448, 448), np.float32)
    assert np.isfinite(world.dem).all()
    assert (world.size, world.gsd_m, world.crs) == (448, 2.0, "EPSG:32648")
    assert np.array_equal(world.mask == 1, world.instances > 0)


def test_one_landslide_on_every_fourteen_hectares(world):
    # 448 px x 2 m = 896 m; 896^2 m2 = 80.3 ha; 80.3 / 14 = 5.7 -> 6
    assert world.instances.max() == 6


def test_each_landslide_is_one_separate_piece(world):
    pieces, _ = cv2.connectedComponents(world.mask, connectivity=8)
    assert pieces - 1 == world.instances.max()
    assert set(np.unique(world.instances)) == set(range(world.instances.max() + 1))


def test_landslides_are_on_slopes_and_run_downhill(world):
    slope = slope_deg(world.dem, world.gsd_m, smoothing_m=12)
    assert slope[world.mask == 1].mean() > slope[world.mask == 0].mean()
    for number in range(1, world.instances.max() + 1):
        heights = world.dem[world.instances == number]
        y, x = np.nonzero(world.instances == number)
        length_m = world.gsd_m * max(np.ptp(x), np.ptp(y))
        assert np.ptp(heights) > 0.2 * length_m


def test_landslides_are_longer_than_wide(world):
    for number in range(1, world.instances.max() + 1):
        positions = np.argwhere(world.instances == number)
        across, along = np.sqrt(np.linalg.eigvalsh(np.cov(positions.T)))
        assert along > 1.5 * across


def test_number_of_landslides(stable_world):
    assert stable_world.mask.sum() == 0
    assert make_world(448, seed=4, landslides=2).instances.max() == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 100}, "`size`. Expected an integer >= 256. Received: 100"),
        ({"size": 256, "gsd_m": 0.0}, "`gsd_m`"),
        ({"size": 256, "landslides": -1}, "`landslides`"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        make_world(**arguments)


def test_written_world_reads_back(world, tmp_path):
    files = write_world(world, tmp_path / "world")
    assert sorted(path.name for path in (tmp_path / "world").iterdir()) == [
        "dem.tif",
        "labels.tif",
        "landslides.gpkg",
        "scene.tif",
    ]
    for path, values in ((files.scene, world.scene), (files.labels, world.mask), (files.dem, world.dem)):
        assert np.array_equal(np.squeeze(read_image(path)), values)
        info = read_info(path)
        assert (info.crs, info.gsd_m, info.transform) == ("EPSG:32648", 2.0, world.transform)


def test_polygons_are_the_labels(world, tmp_path):
    landslides = geopandas.read_file(write_world(world, tmp_path).landslides)
    assert landslides.crs == "EPSG:32648"
    shapes = zip(landslides.geometry, landslides["landslide"], strict=True)
    drawn = rasterize(shapes, out_shape=world.mask.shape, transform=world.transform, dtype="uint16")
    assert np.array_equal(drawn, world.instances)
    # a pixel is 2 m x 2 m
    assert landslides["area_m2"].tolist() == [4.0 * n for n in np.bincount(world.instances.ravel())[1:]]


def test_a_world_without_landslides_can_be_written(stable_world, tmp_path):
    files = write_world(stable_world, tmp_path)
    assert len(geopandas.read_file(files.landslides)) == 0


def test_worlds_of_different_seeds_do_not_overlap():
    corners = {(corner.c, corner.f) for corner in (world_transform(seed, 2.0) for seed in range(800))}
    assert len(corners) == 800
    # a grid of 20 km: no world is that large
    assert {(x % 20_000, y % 20_000) for x, y in corners} == {(0, 0)}


def test_erosion_of_two_cells_by_hand():
    # Two cells, the left one the outlet. A step lifts the right one to 1; it drains one cell (area 1) over a distance
    # of 1 at rate 1, so implicitly h = 1 - 1 * (h - 0) -> h = 1/2. The next: h = 3/2 - h -> h = 3/4.
    # A rounding of 0.001 cells is a Gaussian of one tap: none.
    outlet = np.array([[True, False]])
    for steps, expected in ((1, 0.5), (2, 0.75)):
        ground = erode(np.zeros((1, 2), np.float32), outlet, steps, rate=1.0, rounding=0.001)
        np.testing.assert_allclose(ground, [[0, expected]], rtol=1e-6)


def test_erosion_adds_up_the_drained_area():
    # Three cells in a row: the third drains into the second, which drains area 2 into the outlet.
    # Second cell: h2 = 1 - sqrt(2) h2 -> h2 = 1 / (1 + sqrt 2); third: h3 = 2 - (h3 - h2) -> h3 = (2 + h2) / 2.
    # Starts of 0 and 1 make the fall from third to second; one step lifts both by 1.
    ground = erode(np.array([[0, 0, 1]], np.float32), np.array([[True, False, False]]), 1, rate=1.0, rounding=0.001)
    second = 1 / (1 + np.sqrt(2))
    np.testing.assert_allclose(ground, [[0, second, (2 + second) / 2]], rtol=1e-6)


def test_slope_of_a_plane():
    # Rises 1 m a pixel of 2 m: atan(1 / 2) = 26.565 degrees
    plane = np.tile(np.arange(6, dtype=np.float32), (5, 1))
    np.testing.assert_allclose(slope_deg(plane, 2.0), 26.565, atol=1e-3)


def test_light_comes_from_the_north_west():
    flat = np.zeros((5, 5), np.float32)
    np.testing.assert_allclose(hillshade(flat, 2.0), 1, rtol=1e-6)
    rises_to_the_south_east = np.add.outer(np.arange(5), np.arange(5)).astype(np.float32)
    assert (hillshade(rises_to_the_south_east, 2.0) > 1).all()
    assert (hillshade(-rises_to_the_south_east, 2.0) < 1).all()


def test_noise_has_about_zero_mean_and_unit_variance():
    rng = np.random.default_rng(0)
    for field in (smooth_noise(rng, 256, 8), fractal_noise(rng, 256, 16, octaves=3)):
        assert field.dtype == np.float32
        assert abs(field.mean()) < 0.1
        assert abs(field.std() - 1) < 0.2


def test_scattered_points_equal_a_slow_search():
    labels, distance = scattered_points(np.random.default_rng(3), 24, 6)
    points = np.argwhere(distance == 0)
    y, x = np.mgrid[:24, :24]
    each = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    # The distance transform is approximate: its mask of 5 x 5 is within 2 % plus a little.
    np.testing.assert_allclose(distance, each.min(axis=2), atol=0.1, rtol=0.03)
    assert labels.max() == len(points)


def test_ribbon_has_its_width():
    # A plane that rises by 2 a column: |field - 20| < 4 / 2 * 2 at columns 9, 10, 11 (18, 20, 22)
    field = np.tile(2 * np.arange(20, dtype=np.float32), (4, 1))
    assert np.nonzero(ribbon(field, 20, 4)[0])[0].tolist() == [9, 10, 11]


def test_smoothstep_both_ways():
    # t = 1/4: t^2 (3 - 2t) = 1/16 * 5/2 = 0.15625
    values = np.array([-1, 0, 1, 2, 4, 9], np.float32)
    np.testing.assert_allclose(smoothstep(values, 0, 4), [0, 0, 0.15625, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(values, 4, 0), [1, 1, 0.84375, 0.5, 0, 0])
