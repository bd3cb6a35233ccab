"""Positions of tiles: uniform around landslides, inside the scene, apart from background."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lim_keras.data.centre_bias import centroid_spread
from lim_keras.errors import ConfigError
from lim_keras.raster.windows import Box
from lim_keras.tiling import background_tiles
from lim_keras.tiling.background_tiles import share_out
from lim_keras.tiling.labels import LabelOptions, LabelSource
from lim_keras.tiling.options import TilingOptions
from lim_keras.tiling.plan import Plan, _chains, plan_tiles
from lim_keras.tiling.scenes import open_scenes


@pytest.fixture
def plan(tmp_path, make_scene, make_labels):
    """plan(boxes, seeds, height, width, **options): plans of one scene and rectangles, one for each seed."""

    def run(boxes, seeds=(0,), height=300, width=300, **options) -> list[Plan]:
        scene = make_scene(tmp_path / "a.tif", height, width, bands=1)
        labels = make_labels(tmp_path / "l.gpkg", boxes)
        source = LabelSource.read(LabelOptions(labels))
        with open_scenes([Path(scene)], source, TilingOptions(**options)) as scenes:
            return [plan_tiles(scenes, TilingOptions(seed=seed, **options)) for seed in seeds]

    return run


def landslide_boxes(plan):
    return [tile.box for tile in plan.tiles if tile.kind == "landslide"]


def test_a_landslide_lies_anywhere_in_its_tile(plan):
    size, side, count = 100, 20, 400
    plans = plan([(140, 140, 160, 160)], range(count), size=size, background=0)
    boxes = [box for one in plans for box in landslide_boxes(one)]
    assert len(boxes) == count
    # The landslide of 20 px begins at row and column 0 to 80 of its tile, 81 positions of equal probability: mean 40,
    # deviation sqrt((81^2 - 1) / 12) = 23.4. Four standard errors of the mean are 4 * 23.4 / 20 = 4.7.
    starts = np.array([(140 - box.top, 140 - box.left) for box in boxes])
    assert starts.min() >= 0 and starts.max() <= size - side
    np.testing.assert_allclose(starts.mean(axis=0), 40, atol=4.7)
    np.testing.assert_allclose(starts.std(axis=0), 23.4, rtol=0.15)
    counts = np.histogram(starts, bins=9, range=(0, 81))[0]
    assert counts.min() > 0.6 * counts.mean() and abs(np.corrcoef(starts.T)[0, 1]) < 0.2
    masks = np.zeros((count, size, size), np.uint8)
    for mask, (row, column) in zip(masks, starts, strict=True):
        mask[row : row + side, column : column + side] = 1
    spread = centroid_spread(masks)
    np.testing.assert_allclose([spread.mean_x, spread.mean_y], 0.5, atol=0.047)
    np.testing.assert_allclose([spread.std_x, spread.std_y], 0.234, rtol=0.15)


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (295, 290, 300, 300), (0, 150, 300, 152), (90, 10, 300, 300)])
def test_tiles_lie_inside_the_scene_and_cover_the_landslide(plan, box):
    for one in plan([box], range(20), size=64, overlap=8, background=0):
        boxes = landslide_boxes(one)
        assert all(tile.top >= 0 and tile.bottom <= 300 and tile.left >= 0 and tile.right <= 300 for tile in boxes)
        assert all(tile.height == tile.width == 64 for tile in boxes)
        covered = np.zeros((300, 300), bool)
        for tile in boxes:
            covered[tile.slices] = True
        assert covered[box[0] : box[2], box[1] : box[3]].all()


def test_a_landslide_inside_an_earlier_tile_needs_none_of_its_own(plan):
    (one,) = plan([(100, 100, 110, 110), (112, 100, 122, 110), (100, 112, 122, 120)], size=200, background=0)
    assert len(landslide_boxes(one)) <= 2
    assert one.scenes[0].covered == 3


def test_a_landslide_without_a_pixel_centre_is_lost(plan):
    (one,) = plan([(10.6, 10.6, 11.4, 11.4), (50, 50, 60, 60)], size=64, background=0)
    assert one.scenes[0].lost == {"holds no pixel centre": ["1"]} and one.scenes[0].covered == 1


@pytest.mark.parametrize("overlap", [0, 16])
def test_background_overlaps_no_landslide_tile(plan, overlap):
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 560, (12, 2)).tolist()
    boxes = [(row, column, row + 12, column + 15) for row, column in corners]
    (one,) = plan(boxes, height=600, width=580, size=64, overlap=overlap, background="all")
    occupied = np.zeros((600, 580), np.uint8)
    for tile in landslide_boxes(one):
        occupied[tile.slices] = 1
    background = [tile.box for tile in one.tiles if tile.kind == "non-landslide"]
    assert background and not any(occupied[box.slices].any() for box in background)
    for number, box in enumerate(background):
        for other in background[:number]:
            rows = min(box.bottom, other.bottom) - max(box.top, other.top)
            columns = min(box.right, other.right) - max(box.left, other.left)
            assert min(rows, columns) <= overlap
    # Gaps between landslide tiles are filled: no free square of one and a half tiles is left.
    for box in background:
        occupied[box.slices] = 1
    free = [(row, column) for row in range(0, 505, 8) for column in range(0, 485, 8)]
    assert not [one for one in free if not occupied[one[0] : one[0] + 96, one[1] : one[1] + 96].any()]


def test_background_is_drawn_from_the_positions_of_a_large_overlap(plan, monkeypatch):
    monkeypatch.setattr(background_tiles, "_MOST_DRAWN", 40)
    options = {"height": 200, "width": 200, "size": 64, "overlap": 63, "background": 4}
    one, same, other = plan([(90, 90, 100, 100)], (1, 1, 2), **options)
    boxes = [[tile.box for tile in found.tiles] for found in (one, same, other)]
    assert boxes[0] == boxes[1] != boxes[2]
    assert len(boxes[0]) == 5
    monkeypatch.setattr(background_tiles, "_MOST_TILES", 137 * 137 - 1)
    with pytest.raises(ConfigError, match=r"63 of 64 px, which gives 18,769. Lower it"):
        plan([(90, 90, 100, 100)], **(options | {"background": "all"}))


@pytest.mark.parametrize(("number", "extent"), [(60, 300), (400, 300), (200, 2000)])
def test_tiles_of_common_pixels_are_linked(number, extent):
    corners = np.random.default_rng(number).integers(0, extent, (number, 2))
    close = (np.abs(corners[:, np.newaxis] - corners) < (30, 20)).all(axis=-1)
    expected = connected_components(coo_matrix(close))[1]
    links = np.array(list(_chains([Box.sized(row, column, 30, 20) for row, column in corners.tolist()])))
    graph = coo_matrix((np.ones(len(links)), links.T), shape=close.shape)
    found = connected_components(graph, directed=False)[1]
    assert len(links) < 3 * number
    assert len(set(zip(expected.tolist(), found.tolist(), strict=True))) == expected.max() + 1 == found.max() + 1


def test_equal_seeds_give_equal_plans(plan):
    boxes = [(20, 30, 40, 60), (200, 200, 230, 210)]
    first, again, other = plan(boxes, (5, 5, 6), size=64)
    assert first.tiles == again.tiles != other.tiles


@pytest.mark.parametrize(
    ("number", "weights", "limits", "expected"),
    [
        (12, (3, 1), (99, 99), [9, 3]),
        (12, (3, 1), (5, 99), [5, 7]),
        (2, (5, 5, 5), (9, 9, 9), [1, 1, 0]),
        (9, (1, 0), (4, 9), [4, 0]),
        (0, (1, 1), (9, 9), [0, 0]),
    ],
)
def test_numbers_are_divided_in_proportion(number, weights, limits, expected):
    assert share_out(number, weights, limits) == expected
