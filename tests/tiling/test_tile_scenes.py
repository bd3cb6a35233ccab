"""Tiles cut from scenes, through the command line."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

import lim_keras as lk
from lim_keras.data.tiles import read_tile
from lim_keras.raster.writer import write_raster

BOXES = ((20, 30, 40, 60), (150, 10, 160, 20), (90, 150, 120, 200))


def read(folder: Path) -> lk.data.TileSet:
    return lk.data.read_tiles(folder)


def place(tile: lk.data.Tile) -> tuple[int, int]:
    """Row and column of the upper left pixel, from the name."""
    row, column = tile.tile_id.split("_")[-2:]
    return int(row), int(column)


def burnt(tiles: lk.data.TileSet, shape: tuple[int, int], kind: str = "landslide") -> np.ndarray:
    """Landslide pixels of the tiles, put back on the scene."""
    found = np.zeros(shape, np.uint8)
    for tile in tiles.of_kind(kind):
        mask = read_tile(tile)[1]
        row, column = place(tile)
        part = found[row : row + tile.height, column : column + tile.width]
        part |= mask == 1
    return found


@pytest.fixture
def world(tmp_path, make_scene, make_labels):
    return make_scene(tmp_path / "scene.tif"), make_labels(tmp_path / "labels.gpkg", BOXES)


def test_tiles_hold_the_pixels_and_the_landslides_of_the_scene(world, tile, tmp_path):
    scene, labels = world
    done = tile(scene, "--labels", labels, "--out", "tiles", "--size", 64)
    assert done.exit_code == 0, done.output
    tiles = read(tmp_path / "tiles")
    expected = np.zeros((200, 240), np.uint8)
    for top, left, bottom, right in BOXES:
        expected[top:bottom, left:right] = 1
    np.testing.assert_array_equal(burnt(tiles, (200, 240)), expected)
    with rasterio.open(scene) as source:
        pixels = np.moveaxis(source.read(), 0, -1)
    for one in tiles:
        row, column = place(one)
        image, mask = read_tile(one)
        np.testing.assert_array_equal(image, pixels[row : row + 64, column : column + 64])
        assert (one.landslide_px, one.valid_px) == ((mask == 1).sum(), 64 * 64)
        assert (one.x, one.y) == (500_000 + 2 * (column + 32), 3_000_000 - 2 * (row + 32))
        assert (one.gsd_m, one.crs, one.scene, one.ignore) == (2.0, "EPSG:32648", "scene", "255")
        with rasterio.open(one.mask) as labelled:
            assert labelled.transform.almost_equals(Affine(2, 0, 500_000 + 2 * column, 0, -2, 3_000_000 - 2 * row))
            assert labelled.crs == "EPSG:32648" and labelled.dtypes == ("uint8",)
    assert all((read_tile(one)[1] == 0).all() for one in tiles.of_kind("non-landslide"))
    assert (tmp_path / "tiles" / "tiling_scene.jpg").stat().st_size > 10_000


def test_tiles_train_folds(world, tile, tmp_path):
    scene, labels = world
    tile(scene, "--labels", labels, "--out", "tiles", "--size", 40, "--background", "all")
    tiles = read(tmp_path / "tiles")
    folds = lk.assign_folds(tiles, 3, 0)
    assert set(folds.values()) == {0, 1, 2}
    report = lk.dataset_report(tiles)
    assert report.imbalance.landslide.samples == len(tiles.of_kind("landslide")) >= 3


def test_a_landslide_larger_than_a_tile_lies_in_several_of_one_group(tmp_path, make_scene, make_labels, tile):
    scene = make_scene(tmp_path / "a.tif", 300, 300)
    labels = make_labels(tmp_path / "labels.gpkg", [(100, 50, 120, 250)])
    assert tile(scene, "--labels", labels, "--out", "tiles", "--size", 64, "--background", 0).exit_code == 0
    tiles = read(tmp_path / "tiles")
    assert burnt(tiles, (300, 300)).sum() == 20 * 200
    # 200 columns need four tiles of 64; they lie in one row, edge to edge.
    assert len(tiles) == 4 and len({one.group for one in tiles}) == 1 and tiles[0].group
    assert np.diff([place(one)[1] for one in tiles]).tolist() == [64, 64, 64]


def test_the_background_fills_the_scene_around_the_landslide_tiles(tmp_path, make_scene, make_labels, tile):
    scene = make_scene(tmp_path / "a.tif", 256, 256)
    labels = make_labels(tmp_path / "labels.gpkg", [(0, 0, 5, 5)])
    assert tile(scene, "--labels", labels, "--out", "t", "--size", 64, "--background", "all").exit_code == 0
    tiles = read(tmp_path / "t")
    # 16 tiles fit; the landslide in the corner leaves its tile no choice but (0, 0).
    assert [place(one) for one in tiles.of_kind("landslide")] == [(0, 0)]
    expected = {(row, column) for row in range(0, 256, 64) for column in range(0, 256, 64)} - {(0, 0)}
    assert {place(one) for one in tiles.of_kind("non-landslide")} == expected
    assert not any(one.group for one in tiles)


def test_background_in_proportion_to_the_ground_of_each_scene(tmp_path, make_scene, make_labels, tile):
    large = make_scene(tmp_path / "large.tif", 256, 384)
    small = make_scene(tmp_path / "small.tif", 256, 128, transform=Affine(2, 0, 600_000, 0, -2, 3_000_000))
    labels = make_labels(tmp_path / "labels.gpkg", [(100, 100, 110, 110)])
    options = ("--labels", labels, "--size", 32, "--background", 12)
    assert tile(large, small, "--out", "t", *options).exit_code == 0
    tiles = read(tmp_path / "t").of_kind("non-landslide")
    # One landslide tile, so 12 tiles; three quarters of the ground are in the large scene.
    assert [sum(one.scene == name for one in tiles) for name in ("large", "small")] == [9, 3]
    assert tile(large, small, "--out", "other", *options, "--seed", 1).exit_code == 0
    assert set(tiles.ids) != set(read(tmp_path / "other").of_kind("non-landslide").ids)


def test_ground_without_data_has_no_label(tmp_path, make_scene, make_labels, tile):
    valid = np.ones((200, 240), np.bool_)
    valid[:, 120:] = False
    scene = make_scene(tmp_path / "a.tif", valid=valid)
    labels = make_labels(tmp_path / "l.gpkg", [(50, 110, 60, 130), (100, 200, 110, 210), (0, 0, 5, 5)])
    done = tile(scene, "--labels", labels, "--out", "t", "--size", 50, "--background", "all", "--min-valid", 0.6)
    assert done.exit_code == 0
    assert "landslides in no tile (on ground without data or label): 1, with the feature ids 2" in done.output
    tiles = read(tmp_path / "t")
    assert all(one.valid_px >= 0.6 * 2500 for one in tiles)
    cut = [one for one in tiles if one.valid_px < 2500]
    assert cut
    for one in tiles:
        row, column = place(one)
        _, mask = read_tile(one)
        np.testing.assert_array_equal(mask == 255, ~valid[row : row + 50, column : column + 50])
        with rasterio.open(one.mask) as stored:
            np.testing.assert_array_equal(stored.read(1), mask)
        with rasterio.open(one.image) as stored:
            assert (stored.read()[:, mask == 255] == 0).all()
    assert burnt(tiles, (200, 240)).sum() == 10 * 10 + 5 * 5


def test_a_scene_smaller_than_a_tile_gives_a_tile_of_its_size(world, tile, tmp_path):
    scene, labels = world
    assert tile(scene, "--labels", labels, "--out", "t").exit_code == 0
    (one,) = read(tmp_path / "t")
    assert (one.width, one.height, one.landslide_px) == (240, 200, 600 + 100 + 1500)


def test_scenes_of_different_crs_and_pixels(tmp_path, make_scene, make_labels, tile):
    near = make_scene(tmp_path / "near.tif")
    degrees = Affine(1e-5, 0, 105.0, 0, -1e-5, 27.12)  # about 1 m; the ground of `near` begins at 105 E, 27.12 N
    far = make_scene(tmp_path / "far.tif", 300, 300, crs="EPSG:4326", transform=degrees)
    labels = make_labels(tmp_path / "l.gpkg", BOXES)
    done = tile(near, far, "--labels", labels, "--out", "t", "--size", 64, "--gsd", 2, "--background", 1)
    assert done.exit_code == 0, done.output
    tiles = read(tmp_path / "t")
    assert {one.gsd_m for one in tiles} == {2.0}
    assert {one.crs for one in tiles if one.scene == "far"} == {"EPSG:32648"}
    assert all(read_tile(one)[0].shape == (64, 64, 3) for one in tiles)


def test_scenes_of_equal_names_and_common_ground(tmp_path, make_scene, make_labels, tile):
    first, second = (make_scene(tmp_path / name / "a.tif") for name in "xy")
    labels = make_labels(tmp_path / "l.gpkg", BOXES[:1])
    assert tile(first, second, first, "--labels", labels, "--out", "t", "--size", 64).exit_code == 0
    tiles = read(tmp_path / "t")
    landslides = tiles.of_kind("landslide")
    assert [one.scene for one in landslides] == ["a", "a-2"]
    assert len({one.group for one in landslides}) == 1 and landslides[0].group


def test_scaled_values_become_8_bits(tmp_path, make_scene, make_labels, tile):
    scene = make_scene(tmp_path / "a.tif", dtype="uint16")
    labels = make_labels(tmp_path / "l.gpkg", BOXES)
    options = ("--labels", labels, "--size", 64, "--scale", "0,51", "--bands", "3,1", "--prefix", "p-")
    assert tile(scene, "--out", "t", *options).exit_code == 0
    tiles = read(tmp_path / "t")
    assert (tiles.bands, tiles.dtype) == (2, "uint8") and tiles[0].tile_id.startswith("p-a_")
    with rasterio.open(scene) as source:
        row, column = place(tiles[0])
        raw = source.read([3, 1], window=((row, row + 64), (column, column + 64)))
    expected = np.minimum(raw, 51) * 5
    np.testing.assert_array_equal(np.moveaxis(read_tile(tiles[0])[0], -1, 0), expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bands": 4}, ("x/a.tif", "b.tif", "3 of uint8", "4 of uint8", "--bands")),
        ({"dtype": "uint16"}, ("x/a.tif", "b.tif", "3 of uint8", "3 of uint16", "--scale")),
        ({"dtype": "int16"}, ("b.tif", "int16", "--scale")),
    ],
)
def test_scenes_that_do_not_fit_together(tmp_path, make_scene, make_labels, tile, given, words):
    first, second = make_scene(tmp_path / "x" / "a.tif"), make_scene(tmp_path / "b.tif", **given)
    done = tile(first, second, "--labels", make_labels(tmp_path / "l.gpkg", BOXES), "--out", "t")
    assert done.exit_code == 1 and all(word in done.output for word in words), done.output
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--overlap", 64, "--size", 64),
        ("--background", "many"),
        ("--background", -1),
        ("--min-valid", 2),
        ("--gsd", "nan"),
        ("--hard-negatives", "scene.tif", "--background", "all"),
    ],
)
def test_wrong_options(world, tile, tmp_path, options):
    scene, labels = world
    done = tile(scene, "--labels", labels, "--out", "t", *options)
    assert done.exit_code == 2 and f"{options[0]}" in done.output, done.output
    assert not (tmp_path / "t").exists()


def test_dry_run_writes_nothing_but_the_report(world, tile, tmp_path):
    scene, labels = world
    options = ("--labels", labels, "--size", 64, "--background", 1)
    dry = tile(scene, "--out", "t", *options, "--dry-run", "--json", "plan.json")
    assert dry.exit_code == 0 and "dry run" in dry.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.gpkg", "plan.json", "scene.tif"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["landslide_tiles"], plan["scenes"][0]["covered"]) == (3, 3)
    real = tile(scene, "--out", "t", *options)
    assert real.output.splitlines()[:-1] == dry.output.splitlines()[:-1]
    assert plan["landslide_tiles"] + plan["background_tiles"] == len(read(tmp_path / "t"))


def test_no_tile(tmp_path, make_scene, make_labels, tile):
    scene = make_scene(tmp_path / "a.tif", valid=np.zeros((200, 240), np.bool_))
    done = tile(scene, "--labels", make_labels(tmp_path / "l.gpkg", BOXES), "--out", "t")
    assert done.exit_code == 1 and "on ground without data or label" in done.output and "--nodata" in done.output
    assert not (tmp_path / "t").exists()


def test_outside_the_mapped_area_there_is_no_label(world, tile, tmp_path, make_labels):
    scene, labels = world
    area = make_labels(tmp_path / "aoi.gpkg", [(0, 0, 200, 100)])
    done = tile(scene, "--labels", labels, "--aoi", area, "--out", "t", "--size", 40, "--background", "all")
    assert done.exit_code == 0 and "polygons outside the mapped area: 1, with the feature ids 3" in done.output, (
        done.output
    )
    tiles = read(tmp_path / "t")
    assert burnt(tiles, (200, 240)).sum() == 600 + 100
    for one in tiles:
        column = place(one)[1]
        expected = np.broadcast_to(np.arange(column, column + 40) >= 100, (40, 40))
        np.testing.assert_array_equal(read_tile(one)[1] == 255, expected)
        assert one.valid_px >= 800


def test_regions_of_a_label_raster_group_no_tiles_of_other_scenes(tile, make_scene, tmp_path):
    labels = np.zeros((200, 5240), np.uint8)
    for left in (20, 120, 5020, 5120):
        labels[20:40, left : left + 20] = 1
    place = Affine(2, 0, 500_000, 0, -2, 3_000_000)
    write_raster(tmp_path / "labels.tif", labels, crs="EPSG:32648", transform=place)
    near = make_scene(tmp_path / "near.tif")
    far = make_scene(tmp_path / "far.tif", transform=place @ Affine.translation(5000, 0))
    done = tile(near, far, "--labels", tmp_path / "labels.tif", "--out", "tiles", "--size", 40)
    assert done.exit_code == 0, done.output
    groups = {}
    for one in read(tmp_path / "tiles").of_kind("landslide"):
        groups.setdefault(one.scene, set()).add(one.group or one.tile_id)
    assert len(groups) == 2
    assert not set.intersection(*groups.values())


@pytest.mark.parametrize(
    ("crs", "transforms"),
    [
        (("EPSG:32660", "EPSG:32601"), ((20, 0, 831_000, 0, -20, 2_000), (20, 0, 163_800, 0, -20, 2_000))),
        (("EPSG:4326",) * 2, ((2e-4, 0, 179.98, 0, -2e-4, 0.02), (2e-4, 0, -180.02, 0, -2e-4, 0.02))),
    ],
)
def test_scenes_on_both_sides_of_the_antimeridian_share_their_ground(crs, transforms, tile, make_scene, tmp_path):
    scenes = [
        make_scene(tmp_path / f"{name}.tif", crs=one, transform=Affine(*place))
        for name, one, place in zip(("a", "b"), crs, transforms, strict=True)
    ]
    here = shapely.box(179.985, 0.005, 179.99, 0.01)
    geopandas.GeoDataFrame(geometry=[here], crs="EPSG:4326").to_file(tmp_path / "labels.gpkg")
    options = ("--out", "tiles", "--size", 40, "--background", "all")
    done = tile(*scenes, "--labels", tmp_path / "labels.gpkg", *options)
    assert done.exit_code == 0, done.output
    scenes_of = {}
    for one in read(tmp_path / "tiles"):
        scenes_of.setdefault(one.group, set()).add(one.scene)
    assert {"a", "b"} in [found for group, found in scenes_of.items() if group]
