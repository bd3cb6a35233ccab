"""The image-blind mask and the spread of centroids, with the arithmetic beside the numbers."""

import numpy as np
import pytest

from lim_keras.data.centre_bias import UNIFORM_STD, best_blind_mask, centroid_spread, mean_mask, measure_centre_bias
from lim_keras.errors import DataError

SQUARE = np.zeros((4, 4), np.uint8)
SQUARE[1:3, 1:3] = 1
TALL = np.zeros((4, 4), np.uint8)
TALL[0:3, 1:3] = 1


def test_mean_mask():
    expected = np.zeros((4, 4), np.float32)
    expected[0, 1:3] = 0.5
    expected[1:3, 1:3] = 1
    mean = mean_mask([SQUARE, TALL], 4)
    assert mean.dtype == np.float32
    assert np.array_equal(mean, expected)


def test_ignored_pixels_count_in_no_mean():
    ignored = TALL.copy()
    ignored[0] = 255
    everywhere_ignored = np.full((4, 4), 255, np.uint8)
    mean = mean_mask([SQUARE, ignored, everywhere_ignored], 4)
    assert mean[0].tolist() == [0, 0, 0, 0]  # of SQUARE alone
    assert mean[1].tolist() == [0, 1, 1, 0]
    assert not mean_mask([everywhere_ignored], 4).any()


def test_mean_mask_of_masks_of_different_sizes():
    large = np.kron(SQUARE, np.ones((3, 5), np.uint8))
    assert np.array_equal(mean_mask([large, SQUARE], 4), SQUARE)


def test_best_blind_mask():
    blind = best_blind_mask([SQUARE, TALL], 4)
    # cut at 0.5: 6 pixels on each of 2 tiles are called landslide, 4 + 6 of them are: F1 = 2 * 10 / (12 + 10)
    # cut at 1.0: 4 pixels on each, all of them are: F1 = 2 * 8 / (8 + 10) = .889
    assert blind.threshold == 0.5
    assert blind.f1 == pytest.approx(20 / 22)


def test_best_blind_mask_equals_trying_every_threshold():
    rng = np.random.default_rng(3)
    masks = [rng.choice(np.array([0, 1, 255], np.uint8), (8, 8), p=(0.6, 0.3, 0.1)) for _ in range(7)]
    mean = mean_mask(masks, 8)
    best = 0.0
    for threshold in np.unique(mean):
        predicted = mean >= threshold
        tp = sum((predicted & (mask == 1)).sum() for mask in masks)
        fp = sum((predicted & (mask == 0)).sum() for mask in masks)
        fn = sum((~predicted & (mask == 1)).sum() for mask in masks)
        best = max(best, 2 * tp / (2 * tp + fp + fn))
    blind = best_blind_mask(masks, 8)
    assert blind.f1 == pytest.approx(best)
    assert np.array_equal(blind.mean_mask, mean)


def test_measure_centre_bias():
    bias = measure_centre_bias([SQUARE, TALL], 4, folds=[0, 1])
    # TALL as a mask for SQUARE: 4 of 6 pixels are right; SQUARE for TALL: 4 of 4. F1 = 2 * 8 / (10 + 10)
    assert bias.held_out_f1 == pytest.approx(0.8)
    # every pixel: 10 of 32 are landslide, F1 = 2 * 10 / (32 + 10)
    assert bias.everywhere_f1 == pytest.approx(20 / 42)
    assert measure_centre_bias([SQUARE, TALL], 4).held_out_f1 is None


def test_centroid_spread():
    # SQUARE: the middle of columns 1 and 2 is 2 of 4, and of rows too. TALL: the middle of rows 0 to 2 is 1.5 of 4
    spread = centroid_spread([SQUARE, TALL, np.zeros((4, 4), np.uint8)])
    assert spread.tiles == 2
    assert (spread.mean_x, spread.mean_y) == (0.5, (0.5 + 0.375) / 2)
    assert (spread.std_x, spread.std_y) == (0, 0.0625)


def test_centroids_are_relative_to_the_tile_and_skip_ignored_pixels():
    wide = np.kron(SQUARE, np.ones((1, 10), np.uint8))
    wide[:, :5] = 255
    spread = centroid_spread([wide])
    assert (spread.mean_x, spread.mean_y) == (0.5, 0.5)


def test_even_places_have_the_uniform_standard_deviation():
    masks = []
    for place in range(100):
        mask = np.zeros((1, 100), np.uint8)
        mask[0, place] = 1
        masks.append(mask)
    # of n even places it is sqrt((1 - 1 / n^2) / 12)
    assert centroid_spread(masks).std_x == pytest.approx(UNIFORM_STD * (1 - 1e-4) ** 0.5)


@pytest.mark.parametrize("measure", [lambda masks: best_blind_mask(masks, 4), centroid_spread])
def test_without_a_landslide(measure):
    with pytest.raises(DataError, match="No mask holds a landslide pixel"):
        measure([np.zeros((4, 4), np.uint8)])
