"""Islands are the pieces of the valid area; windows of theirs cover every valid pixel once."""

from pathlib import Path

import numpy as np
import pytest

from lim_keras.inference.predict_maps import find_valid_regions
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

from .conftest import Write, write_scene


def islands_of(path: Path, cell: int = 64) -> list:
    with RasterReader(path) as scene:
        return find_valid_regions(scene, cell)


def test_a_scene_without_gaps_is_one_island(write: Write) -> None:
    (island,) = islands_of(write("scene.tif", np.ones((130, 70, 3), np.uint8)))
    assert island.box == Box(0, 0, 130, 70)
    assert island.cells.shape == (3, 2) and island.cells.all()


def test_pieces_by_hand(write: Write) -> None:
    valid = np.zeros((300, 500), bool)
    valid[10, 20] = True  # cell row 0, column 0
    valid[70, 70] = True  # 1, 1: touches it at a corner
    valid[299, 499] = True  # 4, 7, cut off by the scene's end
    first, second = islands_of(write("scene.tif", np.ones((300, 500, 3), np.uint8), valid=valid))
    assert first.box == Box(0, 0, 128, 128)
    assert first.cells.tolist() == [[True, False], [False, True]]
    assert second.box == Box(256, 448, 300, 500)


def test_a_piece_inside_the_box_of_another_is_not_of_it(write: Write) -> None:
    valid = np.zeros((448, 448), bool)
    valid[:, :10] = valid[-10:] = True  # an L
    valid[70, 300] = True
    (large, small) = islands_of(write("scene.tif", np.ones((448, 448, 3), np.uint8), valid=valid))
    assert large.box == Box(0, 0, 448, 448) and large.cells.sum() == 13
    assert small.box == Box(64, 256, 128, 320)
    # 7 x 7 windows of one cell, of which 13 hold data of the L
    assert sum(len(row) for row in large.rows(64, 0)) == 13


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("tile", "halo"), [(64, 0), (320, 100), (5000, 100)])
def test_every_valid_pixel_is_in_one_core(tmp_path: Path, seed: int, tile: int, halo: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(100, 900, 2)
    coarse = rng.random((-(-height // 50), -(-width // 50))) < 0.2
    valid = np.kron(coarse, np.ones((50, 50), bool))[:height, :width].astype(bool)
    valid[0, 0] = True
    path = write_scene(tmp_path / "scene.tif", np.ones((height, width, 1), np.uint8), valid=valid)
    cores = np.zeros((height, width), int)
    for island in islands_of(path):
        for row in island.rows(tile, halo):
            assert len({window.core.top for window in row}) == 1
            for window in row:
                cores[window.core.slices] += 1
                assert window.read.top >= island.box.top and window.read.right <= island.box.right
    assert (cores[valid] >= 1).all()


def test_wide_scenes_are_read_piece_by_piece(write: Write) -> None:
    valid = np.zeros((1100, 9000), bool)
    valid[1090, 8500] = valid[5, 5] = True
    scene = write("scene.tif", np.ones((1100, 9000, 1), np.uint8), valid=valid)
    assert [island.box for island in islands_of(scene)] == [Box(0, 0, 64, 64), Box(1088, 8448, 1100, 8512)]
