"""Imbalance (Eq. 1-3 and Table 2 of Chen et al. 2022) and centre bias, with the arithmetic beside the numbers."""

import math

import numpy as np
import pytest

from lim_keras.data.centre_bias import UNIFORM_STD, centroid_spread, mean_mask, measure_centre_bias, resize_mask
from lim_keras.data.dataset_report import (
    SAMPLES_PER_LANDSLIDE_TILE,
    DatasetReport,
    PixelCounts,
    measure_imbalance,
)
from lim_keras.data.layouts import read_tiles
from lim_keras.errors import ConfigError, DataError
from lim_keras.report.tables import dataset_tables


def landslide_mask(shape: tuple[int, int], rows: int, columns: int, ignored: int = 0) -> np.ndarray:
    """Return a mask with rows x columns of landslide in the upper left corner and `ignored` last rows without label."""
    mask = np.zeros(shape, np.uint8)
    mask[:rows, :columns] = 1
    if ignored:
        mask[-ignored:] = 255
    return mask


MASKS = [
    ("landslide", landslide_mask((4, 4), 2, 2)),  # 4 landslide, 12 background
    ("landslide", landslide_mask((4, 4), 1, 4, ignored=1)),  # 4 landslide, 8 background, 4 ignored
    ("non-landslide", np.zeros((4, 4), np.uint8)),  # 16 background
    ("non-landslide", landslide_mask((4, 4), 0, 0, ignored=2)),  # 8 background, 8 ignored
]


def test_imbalance_ratios():
    report = measure_imbalance(MASKS, 4, "paper")
    assert report.landslide == PixelCounts(2, 8, 20)
    assert report.non_landslide == PixelCounts(2, 0, 24)
    assert report.ratios == {
        "all_tiles": (20 + 24) / 8,  # 5.5
        "landslide_tiles": 20 / 8,  # 2.5
        "after_augmentation": (4 * 20 + 24) / (4 * 8),  # 3.25
    }


def test_table_2():
    report = measure_imbalance(MASKS, 4, "paper")
    assert report.before == PixelCounts(4, 8, 44)
    assert report.augmented_landslide == PixelCounts(8, 32, 80)  # each landslide tile and its three copies
    assert report.after == PixelCounts(10, 32, 104)


@pytest.mark.parametrize("augmentation", ["dihedral", "none"])
def test_augmentations_that_add_no_samples(augmentation):
    report = measure_imbalance(MASKS, 4, augmentation)
    assert report.after == report.before
    assert SAMPLES_PER_LANDSLIDE_TILE[augmentation] == 1


def test_pixels_are_counted_on_resized_masks():
    # a tile of 2 x 8 with its left half landslide is half landslide at 4 x 4 as well: 8 of 16
    wide = landslide_mask((2, 8), 2, 4)
    assert measure_imbalance([("landslide", wide)], 4).landslide == PixelCounts(1, 8, 8)
    # before resizing the large tile (64 pixels, 16 landslide) would outweigh the small (4, 2): 18 of 68, not 12 of 32
    large, small = landslide_mask((8, 8), 4, 4), landslide_mask((2, 2), 1, 2)
    assert measure_imbalance([("landslide", large), ("landslide", small)], 4).landslide == PixelCounts(2, 12, 20)


def test_resizing_takes_the_nearest_label():
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (37, 53))
    resized = resize_mask(mask, 64)
    assert resized.shape == (64, 64) and resized.dtype == np.uint8
    # nearest neighbour: the middle of each new pixel lies in the old one that it copies
    rows = ((np.arange(64) + 0.5) * 37 / 64).astype(int)
    columns = ((np.arange(64) + 0.5) * 53 / 64).astype(int)
    assert np.array_equal(resized, mask[np.ix_(rows, columns)])


def test_ratio_without_landslide_or_label():
    assert PixelCounts(1, 0, 9).ratio == math.inf
    assert math.isnan(PixelCounts().ratio)


def test_unknown_augmentation():
    with pytest.raises(ConfigError, match=r"`augmentation`\. Expected one of paper, dihedral, none\. Received: fancy"):
        measure_imbalance(MASKS, 4, "fancy")


def test_report_of_a_folder(tmp_path, bijie_folder):
    report = DatasetReport.measure(read_tiles(bijie_folder(tmp_path, 6, 3)), size=32)
    figures = report.to_dict()
    assert figures["tiles"]["landslide"]["tiles"] == 6
    assert figures["tiles"]["landslide"]["shortest_side_px"] == 20  # the first tile is 20 x 24
    assert figures["tiles"]["landslide"]["longest_side_px"] == 35  # the last is 20 + 3 * 5 rows
    table = figures["table_2"]
    assert table["after_augmentation"]["landslide_samples"] == 24
    assert table["after_augmentation"]["landslide_px"] == 4 * table["before_augmentation"]["landslide_px"]
    # samples x 32 x 32 pixels, all of them labelled
    before, after = table["before_augmentation"], table["after_augmentation"]
    assert before["landslide_px"] + before["background_px"] == 9 * 1024
    assert after["landslide_px"] + after["background_px"] == (24 + 3) * 1024
    assert figures["centre_bias"]["blind_f1_held_out"] is not None
    assert len(dataset_tables(report)) == 4


def test_report_without_landslides(tmp_path, bijie_folder):
    report = DatasetReport.measure(read_tiles(bijie_folder(tmp_path, 1, 2)).of_kind("non-landslide"), size=8)
    assert report.centre_bias is None
    assert report.to_dict()["imbalance_ratio"] == {
        "all_tiles": None,
        "landslide_tiles": None,
        "after_augmentation": None,
    }
    assert len(dataset_tables(report)) == 3


def test_report_of_too_few_landslides_for_folds(tmp_path, bijie_folder):
    report = DatasetReport.measure(read_tiles(bijie_folder(tmp_path, 2, 0)), size=8)
    assert report.to_dict()["centre_bias"]["blind_f1_held_out"] is None


def test_report_of_no_tiles(tmp_path, bijie_folder):
    tiles = read_tiles(bijie_folder(tmp_path, 1, 0)).of_kind("non-landslide")
    with pytest.raises(DataError, match="expected at least one tile"):
        DatasetReport.measure(tiles)


def test_size_below_one(tmp_path, bijie_folder):
    with pytest.raises(ConfigError, match=r"`size`\. Expected an integer >= 1\. Received: 0"):
        DatasetReport.measure(read_tiles(bijie_folder(tmp_path, 1, 1)), size=0)


# Centre bias.

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


def test_mean_mask_skips_ignored_pixels():
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


def test_best_cut():
    blind = measure_centre_bias([SQUARE, TALL], 4)
    # cut at 0.5: 6 pixels on each of 2 tiles are called landslide, 4 + 6 of them are: F1 = 2 * 10 / (12 + 10)
    # cut at 1.0: 4 pixels on each, all of them are: F1 = 2 * 8 / (8 + 10) = .889
    assert blind.threshold == 0.5
    assert blind.f1 == pytest.approx(20 / 22)


def test_best_cut_equals_a_search_over_all_thresholds():
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
    blind = measure_centre_bias(masks, 8)
    assert blind.f1 == pytest.approx(best)


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


def test_uniform_positions_have_the_uniform_standard_deviation():
    masks = []
    for column in range(100):
        mask = np.zeros((1, 100), np.uint8)
        mask[0, column] = 1
        masks.append(mask)
    # of n uniform positions it is sqrt((1 - 1 / n^2) / 12)
    assert centroid_spread(masks).std_x == pytest.approx(UNIFORM_STD * (1 - 1e-4) ** 0.5)


@pytest.mark.parametrize("measure", [lambda masks: measure_centre_bias(masks, 4), centroid_spread])
def test_without_a_landslide(measure):
    with pytest.raises(DataError, match="No mask holds a landslide pixel"):
        measure([np.zeros((4, 4), np.uint8)])


@pytest.mark.real_data
def test_real_ratios(real_data):
    """P1 in docs/concepts/paper.md: about 35 over all tiles, 9 inside landslide tiles, 15 after augmentation."""
    figures = DatasetReport.measure(read_tiles(real_data / "bijie")).to_dict()
    ratios = figures["imbalance_ratio"]
    assert ratios["all_tiles"] == pytest.approx(35.6, abs=0.1)
    assert ratios["landslide_tiles"] == pytest.approx(9.1, abs=0.1)
    assert ratios["after_augmentation"] == pytest.approx(15.7, abs=0.1)
    bias = figures["centre_bias"]
    assert bias["centroids"]["std_x"] < 0.025 and bias["centroids"]["std_y"] < 0.025
    assert bias["blind_f1"] == pytest.approx(0.62, abs=0.02)
    assert bias["blind_f1_held_out"] == pytest.approx(bias["blind_f1"], abs=0.02)
