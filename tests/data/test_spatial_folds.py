"""Spatial folds: positions in metres, blocks and clusters, the buffer, and planted spatial autocorrelation."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from sklearn.neighbors import KNeighborsClassifier

from lim_keras.config import SplitSection
from lim_keras.data.folds import assign_folds, audit_leaks, spatial_folds, validation_split
from lim_keras.data.positions import Positions
from lim_keras.data.spatial_folds import locate
from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import DataError, LeakError

UTM = "EPSG:32645"  # central meridian 87 E: at its easting of 500,000 m, a metre of the CRS is 1 / 0.9996 m of ground


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """An image without a georeference; the positions of tiles come from the columns x, y, gsd_m and crs."""
    path = tmp_path_factory.mktemp("picture") / "tile.png"
    cv2.imwrite(str(path), np.zeros((100, 100, 3), np.uint8))
    return path


def at(image, name, x, y, landslide=True, *, crs=UTM, group="", pixels=500, gsd_m=1.0):
    """A tile of 100 m around x, y."""
    kind = "landslide" if landslide else "non-landslide"
    return Tile(name, image, None, kind, group, "", x, y, 100, 100, gsd_m, crs, pixels * landslide, 10_000)


def tile_set(tiles) -> TileSet:
    return TileSet(Path("here"), tuple(tiles), 3, "uint8")


def grid(image, rows, columns, step=100.0, **options):
    """Tiles t_<row>_<column>, of which every other one has a landslide, as on a chessboard."""
    return tile_set(
        at(image, f"t_{i}_{j}", 500_000 + step * j, 3_000_000 - step * i, (i + j) % 2 == 0, **options)
        for i in range(rows)
        for j in range(columns)
    )


def geotiff(path, crs, left, top, pixel, size=100) -> Path:
    with rasterio.open(
        path, "w", "GTiff", size, size, 3, crs, Affine(pixel, 0, left, 0, -pixel, top), "uint8"
    ) as dataset:
        dataset.write(np.full((3, size, size), 7, np.uint8))
    return path


def test_positions_in_metres_of_the_ground(picture):
    tiles = tile_set([at(picture, "a", 500_000, 3e6), at(picture, "b", 500_300, 3e6), at(picture, "c", 500_000, 4e6)])
    positions = Positions.read(tiles)
    # 300 m between centres less two halves of 100 m are 200 m of the CRS; tiles 1000 km apart are two regions
    assert positions.distance(["a"], ["b"]) == pytest.approx(300 / 0.9996 - 100, rel=1e-4)
    assert positions.regions.tolist() == [0, 0, 1]
    assert positions.distance(["a", "b"], ["c"]) == pytest.approx(1e6 / 0.9996, rel=3e-3)
    assert positions.distance(["a"], []) is None


def test_positions_of_files_in_degrees_across_the_antimeridian(tmp_path):
    # 0.001 degrees at latitude 60: 111.4 m of latitude, half of that of longitude on the ellipsoid: 55.8 m
    west = geotiff(tmp_path / "west.tif", "EPSG:4326", 179.998, 60.0, 1e-5)
    east = geotiff(tmp_path / "east.tif", "EPSG:4326", -179.999, 60.0, 1e-5)
    tiles = tile_set([at(west, "west", 0, 0, crs="EPSG:4326"), at(east, "east", 0, 0, crs="EPSG:4326")])
    positions = Positions.read(tiles)
    assert positions.regions.tolist() == [0, 0]
    assert positions.distance(["west"], ["east"]) == pytest.approx(2 * 55.8, rel=0.01)
    assert [outline.area for outline in positions.outlines] == pytest.approx([55.8 * 111.4] * 2, rel=0.01)


def test_tiles_of_two_crs_on_the_same_ground(tmp_path):
    # the origin of EPSG:32645 is 87 E on the equator, 500,000 m east
    one = geotiff(tmp_path / "utm.tif", UTM, 500_000, 100, 1.0)
    other = geotiff(tmp_path / "degrees.tif", "EPSG:4326", 87.0, 100 * 0.9996 / 110_574, 1e-6)
    train = tile_set([at(one, "utm", 0, 0)])
    test = tile_set([at(other, "degrees", 0, 0, crs="EPSG:4326")])
    # 100 pixels of 1e-6 degrees are 11.1 m: the smaller tile lies within the larger
    assert Positions.read([*train, *test]).overlaps(["utm"], ["degrees"]) == [("utm", "degrees", pytest.approx(1.0))]
    with pytest.raises(LeakError, match="test tile degrees and training tile utm overlap by 100%"):
        audit_leaks(train, test)
    apart = geotiff(tmp_path / "apart.tif", UTM, 500_100, 100, 1.0)  # a common edge is no overlap
    audit_leaks(train, tile_set([at(apart, "apart", 0, 0)]))


@pytest.mark.parametrize("crs", ["", "EPSG:999999", "nonsense"])
def test_tiles_without_a_position(picture, crs):
    tiles = grid(picture, 4, 4)
    lost = replace(tiles, tiles=(*tiles[:15], replace(tiles[15], crs=crs)))
    with pytest.raises(DataError, match=r"here: spatial folds need .* 1 of 16 tiles .* \(t_3_3\)\. Give georeferenced"):
        assign_folds(lost, 2, 0, "spatial")
    assert len(locate(lost, tiles.ids[:15]).ids) == 15


@pytest.mark.parametrize("shape", ["blocks", "clusters"])
def test_folds_of_neighbours_are_even(picture, shape):
    tiles = grid(picture, 15, 20)
    found = spatial_folds(tiles, 5, 3, SplitSection(method="spatial", shape=shape))
    counts = Counter((found.folds[tile.tile_id], tile.kind) for tile in tiles)
    # 150 tiles of each kind over 5 folds are 30, give or take a quarter
    assert len(counts) == 10 and all(22.5 <= count <= 37.5 for count in counts.values())
    assert tuple(found.folds) == tiles.ids
    assert found == spatial_folds(tiles, 5, 3, SplitSection(method="spatial", shape=shape))
    # three of four neighbours share a fold; a fifth would by chance
    number = np.array([found.folds[name] for name in tiles.ids]).reshape(15, 20)
    assert (number[1:] == number[:-1]).mean() > 0.75 and (number[:, 1:] == number[:, :-1]).mean() > 0.75


def test_blocks_of_a_given_side(picture):
    tiles = grid(picture, 12, 12)
    # 12 tiles of 100 m are 1,200 m: with 400 m, 3 x 3 blocks of 4 x 4 tiles (a little more on the ground: 400.16 m)
    found = spatial_folds(tiles, 3, 0, SplitSection(method="spatial", block_m=401))
    assert (found.units, found.size) == (9, "blocks of 401 m")
    for i in range(0, 12, 4):
        for j in range(0, 12, 4):
            assert len({found.folds[f"t_{i + di}_{j + dj}"] for di in range(4) for dj in range(4)}) == 1


def test_groups_join_the_blocks_that_they_span(picture):
    tiles = grid(picture, 12, 12)
    corners = {"t_0_0", "t_11_11"}
    grouped = replace(tiles, tiles=tuple(replace(t, group="g" * (t.tile_id in corners)) for t in tiles))
    for seed in range(5):
        found = spatial_folds(grouped, 3, seed, SplitSection(method="spatial", block_m=401))
        # two of the nine blocks are one unit
        assert found.units == 8 and len({found.folds[name] for name in (*corners, "t_3_3", "t_8_8")}) == 1


def test_regions_far_apart_have_grids_of_their_own(picture):
    nepal = grid(picture, 6, 6)
    tonga = [replace(tile, tile_id=f"tonga_{tile.tile_id}", crs="EPSG:32760") for tile in nepal]
    both = tile_set([*nepal, *tonga])
    found = spatial_folds(both, 2, 0, SplitSection(method="spatial", block_m=10_000))
    assert found.units == 2
    assert {len({found.folds[tile.tile_id] for tile in part}) for part in (nepal, tonga)} == {1}


def test_buffer_is_from_outline_to_outline(picture):
    # tiles of 100 m, 150 m apart: gaps of 50 m, of 150 m CRS / 0.9996 - 100 = 50.06 m on the ground
    row = grid(picture, 1, 5, step=150)
    positions = Positions.read(row)
    others = [name for name in row.ids if name != "t_0_0"]
    assert positions.near(others, ["t_0_0"], 0) == []
    assert positions.near(others, ["t_0_0"], 50) == []  # at the distance of the buffer, not nearer
    assert positions.near(others, ["t_0_0"], 51) == ["t_0_1"]
    assert positions.near(others, ["t_0_0"], 201) == ["t_0_1", "t_0_2"]  # its gap is 200.12 m
    overlapping = grid(picture, 1, 3, step=99)
    assert Positions.read(overlapping).near(["t_0_0", "t_0_2"], ["t_0_1"], 0) == ["t_0_0", "t_0_2"]


def test_too_few_blocks_and_the_cure(picture):
    tiles = grid(picture, 8, 8)
    with pytest.raises(DataError) as raised:
        assign_folds(tiles, 5, 0, SplitSection(method="spatial", block_m=500))
    message = str(raised.value)
    # 800 m are two blocks of 500 m in each direction
    assert message.startswith("here: expected at least 5 blocks of 500 m with tiles of each kind and landslide pixels")
    assert "Received: 4, 4 with landslide tiles, 4 with non-landslide tiles" in message
    side = float(message.partition("split.block_m to ")[2].partition(",")[0])
    assert set(assign_folds(tiles, 5, 0, SplitSection(method="spatial", block_m=side)).values()) == set(range(5))


def test_too_few_tiles_and_fewer_folds(picture):
    tiles = grid(picture, 2, 3)
    with pytest.raises(DataError, match=r"or set the configuration's key folds to 3\.$"):
        assign_folds(tiles, 5, 0, "spatial")
    assert set(assign_folds(tiles, 3, 0, "spatial").values()) == {0, 1, 2}
    with pytest.raises(DataError, match=r"training\.validation_fraction to 0\.33\.$"):
        validation_split(tiles, 0.2, 0, "spatial")
    assert len(validation_split(tiles, 0.33, 0, "spatial")) == 2


def test_one_group_of_all_tiles(picture):
    tiles = grid(picture, 6, 6, group="g")
    with pytest.raises(DataError, match=r"The largest group has 36 of 36 tiles\. .* empty the column group"):
        assign_folds(tiles, 2, 0, "spatial")
    assign_folds(grid(picture, 6, 6), 2, 0, "spatial")


def test_tiles_of_one_place(picture):
    tiles = tile_set(at(picture, f"t_{k}", 500_000, 3e6, k % 2 == 0) for k in range(10))
    with pytest.raises(DataError, match=r"Give more tiles of other places, or choose random folds\.$"):
        assign_folds(tiles, 2, 0, "spatial")
    assign_folds(tiles, 2, 0, "random")


def smooth_field(x, y, seed):
    """Sum of eight waves of 4 to 8 km in random directions, at points in metres."""
    rng = np.random.default_rng(seed)
    total = np.zeros(np.shape(x))
    for _ in range(8):
        angle, length, phase = rng.uniform(0, 2 * np.pi), rng.uniform(4e3, 8e3), rng.uniform(0, 2 * np.pi)
        total += np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return total


def test_random_folds_flatter_what_spatial_folds_tell(picture):
    # 24 x 24 tiles on 12 x 12 km; whether a tile slides depends on a smooth field that no pixel shows, so that only
    # the place of the nearest training tile tells it. In another region, that model guesses: half of its answers
    # are right.
    random, blocks, buffered = [], [], []
    for seed in range(4):
        x, y = (500.0 * part.ravel() for part in np.meshgrid(np.arange(24.0), np.arange(24.0)))
        slides = smooth_field(x, y, seed) > 0
        tiles = tile_set(at(picture, f"t_{k}", 500_000 + x[k], 3e6 + y[k], bool(slides[k])) for k in range(len(slides)))
        places = np.stack([x, y], axis=-1)
        positions = Positions.read(tiles)

        def accuracy(folds, buffer_m, tiles=tiles, places=places, slides=slides, positions=positions):
            number = np.array([folds[name] for name in tiles.ids])
            right = np.zeros(len(number), bool)
            for fold in range(4):
                held_out, others = np.flatnonzero(number == fold), np.flatnonzero(number != fold)
                lost = positions.near([tiles.ids[k] for k in others], [tiles.ids[k] for k in held_out], buffer_m)
                kept = np.array([k for k in others if tiles.ids[k] not in lost])
                model = KNeighborsClassifier(1).fit(places[kept], slides[kept])
                right[held_out] = model.predict(places[held_out]) == slides[held_out]
            return right.mean()

        random.append(accuracy(assign_folds(tiles, 4, seed), 0))
        spatial = spatial_folds(tiles, 4, seed, SplitSection(method="spatial", block_m=6_100), positions).folds
        blocks.append(accuracy(spatial, 0))
        buffered.append(accuracy(spatial, 1_000))
    # about 0.88, 0.64 and 0.56
    assert np.mean(random) > 0.85
    assert np.mean(blocks) < 0.7 and np.mean(buffered) < 0.6
