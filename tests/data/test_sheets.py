"""Filled boxes, packed sheets, and windows of sheets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.data.sampling import fill_box, lay_tile, pack, render, windows_of
from lim_keras.data.tiles import IGNORED
from lim_keras.raster.windows import Box

SIDES = st.integers(1, 12)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=20)
SEEDS = st.integers(0, 1000)


def coded(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Make an image with pixels (tile + 1, row, column), and the mask (tile + row + column) mod 2."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([np.full((height, width), number + 1), rows, columns], axis=-1).astype(np.uint8)
    return image, ((number + rows + columns) % 2).astype(np.uint8)


def expected_mask(image: np.ndarray) -> np.ndarray:
    """Compute the mask from the pixels of `coded`."""
    return ((image[..., 0] - 1 + image[..., 1] + image[..., 2]) % 2).astype(np.uint8)


def assert_from_tiles(image: np.ndarray, mask: np.ndarray, sizes: list[tuple[int, int]]) -> None:
    tile, row, column = (image[..., band].astype(int) for band in range(3))
    heights, widths = (np.array([size[axis] for size in sizes]) for axis in (0, 1))
    assert (tile >= 1).all() and (tile <= len(sizes)).all()
    assert (row < heights[tile - 1]).all() and (column < widths[tile - 1]).all()
    np.testing.assert_array_equal(mask, expected_mask(image))


# Boxes.


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, height=st.integers(0, 40), width=st.integers(0, 40), seed=SEEDS)
def test_fill_box_covers_exactly_the_box(sizes, height, width, seed):
    tiles = [coded(number, *size) for number, size in enumerate(sizes)]
    image, mask = np.zeros((50, 60, 3), np.uint8), np.full((50, 60), 9, np.uint8)
    box = Box.sized(5, 7, height, width)
    pick = lambda rng: tiles[int(rng.integers(len(tiles)))]  # noqa: E731
    fill_box(image, mask, box, pick, np.random.default_rng(seed))
    assert_from_tiles(image[box.slices], mask[box.slices], sizes)
    outside = np.ones((50, 60), bool)
    outside[box.slices] = False
    assert (mask[outside] == 9).all() and not image[outside].any()


def test_fill_box_cuts_large_tiles_anywhere():
    # a 4 x 4 box out of a 7 x 6 tile begins in rows 0 to 3 and columns 0 to 2: 12 cuts
    tile, seen = coded(0, 7, 6), set()
    for seed in range(200):
        image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
        fill_box(image, mask, Box.sized(0, 0, 4, 4), lambda _: tile, np.random.default_rng(seed))
        seen.add((int(image[0, 0, 1]), int(image[0, 0, 2])))
        assert (image[..., 1] == image[0, 0, 1] + np.arange(4)[:, None]).all()  # in one piece
    assert seen == set(itertools.product(range(4), range(3)))


def test_lay_tile_in_the_middle_of_a_box():
    # the tile (2 x 3) begins one row and two columns after the box (5 x 6, at 1, 1) does
    image, mask = np.zeros((7, 8, 3), np.uint8), np.zeros((7, 8), np.uint8)
    tile = coded(0, 2, 3)
    rest = lay_tile(image, mask, Box.sized(1, 1, 5, 6), tile, (-1, -2))
    np.testing.assert_array_equal(image[2:4, 3:6], tile[0])
    assert np.count_nonzero(image[..., 0]) == 6
    # above 1 x 6, below 2 x 6, left 2 x 2, right 2 x 1
    assert rest == [Box.sized(1, 1, 1, 6), Box.sized(4, 1, 2, 6), Box.sized(2, 1, 2, 2), Box.sized(2, 6, 2, 1)]


def test_lay_tile_cuts_at_the_box():
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    rest = lay_tile(image, mask, Box.sized(0, 0, 4, 4), coded(0, 9, 5), (3, 2))
    # rows 3 to 6 and columns 2 to 4 of the tile; one column of the box stays empty
    np.testing.assert_array_equal(image[:, :3, 1], [[3] * 3, [4] * 3, [5] * 3, [6] * 3])
    np.testing.assert_array_equal(image[:, :3, 2], [[2, 3, 4]] * 4)
    assert rest == [Box.sized(0, 3, 4, 1)]


# Sheets.


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, side=st.integers(1, 40), seed=SEEDS)
def test_pack_is_a_partition(sizes, side, seed):
    sheets = pack(sizes, side, seed)
    placed = [position for sheet in sheets for position in sheet.boxes]
    assert sorted(placed) == list(range(len(sizes)))
    for sheet in sheets:
        times = np.zeros((sheet.height, sheet.width), int)
        for position, box in sheet.boxes.items():
            assert (box.height, box.width) == sizes[position]
            assert 0 <= box.top <= sheet.height - box.height and 0 <= box.left <= sheet.width - box.width
        for box in [*sheet.boxes.values(), *sheet.gaps]:
            times[box.slices] += 1
        assert (times == 1).all()  # tiles and gaps: every pixel of the sheet once


def test_pack_by_hand():
    # area 12 + 12 + 12 = 36, so a width of 6: the two tall ones side by side, the flat one below
    (sheet,) = pack([(4, 3), (2, 6), (4, 3)], side=100)
    assert (sheet.height, sheet.width, sheet.gaps) == (6, 6, ())
    assert sheet.boxes[1] == Box.sized(4, 0, 2, 6)
    assert {sheet.boxes[0], sheet.boxes[2]} == {Box.sized(0, 0, 4, 3), Box.sized(0, 3, 4, 3)}


def test_pack_keeps_the_side_unless_a_tile_is_larger():
    sheets = pack([(10, 10)] * 40, side=32, seed=3)
    # a sheet is closed when 90 % of 32 x 32 are reached: 10 tiles of 100 pixels
    assert [len(sheet.boxes) for sheet in sheets] == [10] * 4
    assert all(sheet.width <= 32 for sheet in sheets)
    (large,) = pack([(5, 50)], side=32)
    assert (large.height, large.width) == (5, 50)


def test_pack_is_drawn_from_the_seed():
    sizes = [(10 + n % 5, 10) for n in range(40)]
    assert pack(sizes, 40, seed=1) == pack(sizes, 40, seed=1)
    assert [set(s.boxes) for s in pack(sizes, 40, seed=1)] != [set(s.boxes) for s in pack(sizes, 40, seed=2)]


@pytest.mark.parametrize("seed", [0, 1])
def test_render_labels_every_tile_once_and_ignores_gaps(seed):
    rng = np.random.default_rng(seed)
    sizes = [(int(h), int(w)) for h, w in rng.integers(3, 20, (30, 2))]
    tiles = [coded(number, *size) for number, size in enumerate(sizes)]
    for sheet in pack(sizes, 48, seed):
        image, mask = render(sheet, lambda position: tiles[position], seed)
        for position, box in sheet.boxes.items():
            np.testing.assert_array_equal(image[box.slices], tiles[position][0])
            np.testing.assert_array_equal(mask[box.slices], tiles[position][1])
        gap = np.zeros(mask.shape, bool)
        for box in sheet.gaps:
            gap[box.slices] = True
        assert (mask[gap] == IGNORED).all() and (mask[~gap] != IGNORED).all()
        labels = expected_mask(image)
        assert_from_tiles(image, labels, sizes)  # the gaps, too, show tiles
        assert set(np.unique(image[..., 0]) - 1) == set(sheet.boxes)


# Windows.


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 16))
def test_windows_label_every_pixel_once(height, width, size):
    number = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    times = np.zeros(height * width, int)
    for image, mask in windows_of(number[..., None], (number % 2).astype(np.uint8), size):
        assert image.shape == (size, size, 1) and mask.shape == (size, size)
        labelled = mask != IGNORED
        np.testing.assert_array_equal(mask[labelled], image[labelled, 0] % 2)
        np.add.at(times, image[labelled, 0], 1)
    assert (times == 1).all()


def test_a_sheet_smaller_than_a_window_is_mirrored():
    ((image, mask),) = windows_of(np.uint8([[[1], [2]]]), np.uint8([[0, 1]]), 4)
    np.testing.assert_array_equal(image[..., 0], [[1, 2, 2, 1]] * 4)
    np.testing.assert_array_equal(mask, [[0, 1, 255, 255]] + [[255] * 4] * 3)


def test_ignored_pixels_of_a_sheet_stay_ignored():
    mask = np.uint8([[0, 255, 1]])
    mask.setflags(write=False)
    windows = list(windows_of(np.zeros((1, 3, 1), np.uint8), mask, 2))
    # second window: moved inward by one column, which the first has shown
    np.testing.assert_array_equal([labels[0] for _, labels in windows], [[0, 255], [255, 1]])
