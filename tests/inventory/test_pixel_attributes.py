import numpy as np
import pytest

from lim_keras.errors import DataError
from lim_keras.inventory.attributes import pixel_attributes
from lim_keras.inventory.pixels import Statistics
from lim_keras.inventory.terrain import Terrain
from lim_keras.raster.writer import write_raster
from tests.inventory.conftest import read_landslides


def statistics(path, *, maps=None, folds=1, terrain=None, block=1024):
    return pixel_attributes(read_landslides(path, maps=maps, terrain=terrain, block=block)[2], folds)


def write_maps(path, mask, *bands):
    return write_raster(path, np.stack(bands, axis=-1).astype(np.float32), nodata=-1)


def test_hand_worked_statistics(write_mask, picture, tmp_path):
    path = write_mask(
        picture("""
        ##..
        #..#
    """)
    )
    probability = [[0.5, 0.75, 0.1, 0.1], [1.0, 0.2, 0.3, 0.625]]
    votes = [[3, 4, 0, 0], [5, 0, 1, 5]]
    maps = write_maps(tmp_path / "maps.tif", path, probability, votes)
    found = statistics(path, maps=maps, folds=5)
    # First landslide: 0.5, 0.75 and 1; 3, 4 and 5 votes of 5. The second: one pixel.
    assert found["probability_mean"].tolist() == [0.75, 0.625]
    assert found["probability_max"].tolist() == [1.0, 0.625]
    assert found["fold_agreement"].tolist() == pytest.approx([0.8, 1.0])


def test_maps_without_votes_and_no_maps(write_mask, tmp_path):
    path = write_mask([[0, 1]])
    maps = write_raster(tmp_path / "maps.tif", np.array([[0.5, 0.25]], np.float32))
    found = statistics(path, maps=maps)
    assert found["probability_mean"].tolist() == [0.25] and np.isnan(found["fold_agreement"]).all()
    assert np.isnan(statistics(path)["probability_max"]).all()


def test_nodata_of_the_maps_does_not_count(write_mask, tmp_path):
    path = write_mask([[1, 1, 1]])
    maps = write_raster(tmp_path / "maps.tif", np.array([[0.5, -1, 0.25]], np.float32), nodata=-1)
    assert statistics(path, maps=maps)["probability_mean"].tolist() == [0.375]


def test_touches_nodata_by_a_side_and_not_by_a_corner(write_mask, picture):
    path = write_mask(
        picture("""
        ........
        .#o..#..
        ......o.
        ........
    """)
    )
    assert statistics(path)["touches_nodata"].tolist() == [True, False]


@pytest.mark.parametrize("side", ["left", "right", "up", "down"])
def test_touches_nodata_across_the_border_of_blocks(write_mask, side):
    # Blocks of 4: pixel 3 and pixel 4 lie in different ones.
    mask = np.zeros((8, 8), np.uint8)
    slide, gap = {
        "left": ((2, 4), (2, 3)),
        "right": ((2, 3), (2, 4)),
        "up": ((4, 2), (3, 2)),
        "down": ((3, 2), (4, 2)),
    }[side]
    mask[slide], mask[gap] = 1, 255
    assert statistics(write_mask(mask), block=4)["touches_nodata"].tolist() == [True]


def test_touches_edge(write_mask, picture):
    path = write_mask(
        picture("""
        ..#....
        .......
        #..#..#
        .......
        ....#..
    """)
    )
    assert statistics(path)["touches_edge"].tolist() == [True, True, False, True, True]


def test_blocks_change_nothing(write_mask, tmp_path):
    rng = np.random.default_rng(3)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (40, 37), p=[0.3, 0.6, 0.1])
    path = write_mask(mask)
    maps = write_maps(tmp_path / "maps.tif", path, rng.random(mask.shape), rng.integers(0, 6, mask.shape))
    whole, parts = (statistics(path, maps=maps, folds=5, block=block) for block in (64, 7))
    for name, column in whole.items():
        np.testing.assert_allclose(parts[name], column, rtol=1e-12)


class Slopes:
    """Terrain that is known in the first three columns only."""

    def read(self, window):
        elevation = np.array([[100, 110, 130, np.nan]], np.float32)
        slope = np.array([[10, 20, 30, np.nan]], np.float32)
        aspect = np.array([[350, 10, 30, np.nan]], np.float32)
        return Terrain(elevation, slope, aspect)


def test_terrain_columns(write_mask):
    # Directions 350, 10 and 30 degrees have the mean direction 10, not 130.
    found = statistics(write_mask([[1, 1, 1, 1]]), terrain=Slopes())
    expected = {"slope_mean_deg": 20, "elevation_min_m": 100, "elevation_max_m": 130, "elevation_range_m": 30}
    assert {name: found[name][0] for name in expected} == expected
    assert found["aspect_mean_deg"][0] == pytest.approx(10, abs=1e-4)


def test_statistics_leave_out_nan():
    one = Statistics.of(np.array([0, 0]), np.array([1.0, np.nan]), 2)
    assert one.mean.tolist()[0] == 1 and np.isnan(one.mean[1])
    assert one.count.tolist() == [1, 0] and np.isnan(one.lowest[1])


def test_maps_of_another_size(write_mask, tmp_path):
    maps = write_raster(tmp_path / "maps.tif", np.zeros((3, 3), np.float32))
    with pytest.raises(DataError, match=r"maps.tif: expected the grid of .*mask.tif, \(1, 2\), but it is \(3, 3\)"):
        statistics(write_mask([[0, 1]]), maps=maps)


def test_missing_maps(write_mask, tmp_path):
    with pytest.raises(DataError, match=r"none.tif: not found"):
        statistics(write_mask([[0, 1]]), maps=tmp_path / "none.tif")


def test_none(write_mask):
    found = statistics(write_mask(np.zeros((4, 4))), terrain=Slopes())
    assert {column.shape for column in found.values()} == {(0,)}
    assert found["touches_edge"].dtype == found["touches_nodata"].dtype == bool


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_mask(write_mask, share):
    # The landslides of the upper blocks are whole; those that are lost must not go unnoticed.
    path = write_mask(np.random.default_rng(0).random((600, 600)) < 0.6)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"mask.tif: .*cannot be read"):
        statistics(path)
