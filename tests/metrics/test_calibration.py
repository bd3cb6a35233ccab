"""Histogram of probabilities, temperature and threshold, against hand-worked numbers and scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_recall_curve

from lim_keras.errors import ConfigError, DataError
from lim_keras.metrics.binary import scores
from lim_keras.metrics.calibration import (
    BINS,
    Calibration,
    ProbabilityHistogram,
    best_threshold,
    fit_calibration,
    pool_histograms,
)


def histogram_of(probability: object, mask: object) -> ProbabilityHistogram:
    histogram = ProbabilityHistogram()
    histogram.add(np.asarray(probability, np.float32), np.asarray(mask, np.uint8))
    return histogram


@pytest.fixture
def pixels() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Overconfident predictions: labels follow sigmoid(z), probabilities say sigmoid(3 z)."""
    rng = np.random.default_rng(7)
    logits = rng.normal(-0.8, 1.0, 40_000)
    mask = (rng.random(logits.size) < expit(logits)).astype(np.uint8)
    return expit(3 * logits).astype(np.float32), mask


def test_counts_by_class_without_ignored_pixels() -> None:
    histogram = histogram_of([[0.0, 0.5, 1.0], [0.2, 0.9, 0.7]], [[0, 1, 1], [0, 255, 1]])
    assert histogram.counts.sum(axis=1).tolist() == [2, 3]
    # 0 lies in the lowest bin, 1 in the highest, 0.5 at the start of the middle one
    assert histogram.counts[0, 0] == 1
    assert histogram.counts[1, BINS - 1] == 1
    assert histogram.counts[1, BINS // 2] == 1
    assert histogram.landslide_share == pytest.approx(3 / 5)


def test_parts_add_up_to_the_whole(pixels: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    probability, mask = pixels
    parts = [histogram_of(probability[start::3], mask[start::3]) for start in range(3)]
    whole = histogram_of(probability, mask)
    assert (pool_histograms(parts).counts == whole.counts).all()
    assert ((parts[0] + parts[1] + parts[2]).counts == whole.counts).all()
    assert not pool_histograms([]).counts.any()


def test_confusions_are_those_of_the_pixels(pixels: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    probability, mask = pixels
    confusions = histogram_of(probability, mask).confusions()
    edges = expit(np.linspace(-12, 12, BINS - 1)).astype(np.float32)
    for bin_edge in (0, 700, 2047, 3300, BINS - 2):
        called = probability >= edges[bin_edge]
        by_pixel = [
            np.sum(called & (mask == 1)),
            np.sum(called & (mask == 0)),
            np.sum(~called & (mask == 1)),
            np.sum(~called & (mask == 0)),
        ]
        assert confusions[:, bin_edge].tolist() == by_pixel


def test_average_precision_and_log_loss_are_those_of_scikit_learn(
    pixels: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    probability, mask = pixels
    histogram = histogram_of(probability, mask)
    assert histogram.average_precision() == pytest.approx(average_precision_score(mask, probability), abs=5e-4)
    assert histogram.log_loss() == pytest.approx(log_loss(mask, probability.astype(np.float64)), abs=1e-4)
    calibration = Calibration(2.5, -0.4)
    scaled = calibration.probability(probability)
    assert histogram.log_loss(calibration) == pytest.approx(log_loss(mask, scaled.astype(np.float64)), abs=1e-4)


def test_temperature_undoes_overconfidence(pixels: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    histogram = histogram_of(*pixels)
    calibration = fit_calibration(histogram)
    assert calibration.temperature == pytest.approx(3.0, abs=0.1)
    assert calibration.bias == pytest.approx(0.0, abs=0.05)
    grid = [histogram.log_loss(Calibration(t, b)) for t in np.geomspace(0.05, 20, 60) for b in np.linspace(-1, 1, 21)]
    assert histogram.log_loss(calibration) <= min(grid)
    assert histogram.expected_calibration_error() > 0.1
    assert histogram.expected_calibration_error(calibration) < 0.01


def test_bias_undoes_a_share_of_landslides_that_the_ground_does_not_have() -> None:
    # One pixel in two was landslide in training, one in four is: of probability 1/2 each, the odds fall by ln 3.
    calibration = fit_calibration(histogram_of([0.5] * 4, [1, 0, 0, 0]))
    assert calibration.probability([0.5]) == pytest.approx([0.25], abs=1e-3)


def test_another_share_of_landslides_by_hand() -> None:
    # One landslide in four pixels; at one in three there are two background pixels to it, at one in ten nine.
    histogram = histogram_of([0.9, 0.1, 0.1, 0.9] * 10, [1, 0, 0, 0] * 10)
    assert histogram.at_share(1 / 4).counts.tolist() == histogram.counts.tolist()
    for share, background in ((1 / 3, 20), (1 / 10, 90)):
        changed = histogram.at_share(share)
        assert changed.counts[1].tolist() == histogram.counts[1].tolist()
        assert changed.counts[0].sum() == pytest.approx(background, abs=1)
    with pytest.raises(ConfigError, match="landslide_share"):
        histogram.at_share(1.0)


def test_calibrated_probability_by_hand() -> None:
    # logit(0.9) = ln 9; halved it is ln 3, and sigmoid(ln 3) = 3 / 4
    assert Calibration(2.0).probability([0.9, 0.5, 0.1]) == pytest.approx([0.75, 0.5, 0.25])
    # a bias of -ln 3 takes ln 3 back to 0
    assert Calibration(2.0, -float(np.log(3))).probability([0.9]) == pytest.approx([0.5])
    assert Calibration().probability(np.float32([0.0, 1.0])) == pytest.approx([0.0, 1.0], abs=1e-6)


def test_threshold_by_hand() -> None:
    # Descending: 1 at .9, 1 at .8, 0 at .6, 1 at .3, 0 at .1. F1 = 2 tp / (2 tp + fp + fn):
    # above .8: 4 / (4 + 1) = .8; above .6: 4 / 6; above .3: 6 / (6 + 1) = .857; all: 6 / 8.
    histogram = histogram_of([0.9, 0.8, 0.6, 0.3, 0.1], [1, 1, 0, 1, 0])
    threshold, f1 = best_threshold(histogram)
    assert f1 == pytest.approx(6 / 7)
    # the middle, in logits, of the free run between .1 and .3
    assert logit(threshold) == pytest.approx((logit(0.1) + logit(0.3)) / 2, abs=0.01)


def test_threshold_of_perfect_predictions_lies_in_the_gap() -> None:
    threshold, f1 = best_threshold(histogram_of([0.0, 0.0, 1.0], [0, 0, 1]))
    assert (threshold, f1) == (pytest.approx(0.5), 1.0)


def test_threshold_is_the_best_of_all_pixels(pixels: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    probability, mask = pixels
    threshold, f1 = best_threshold(histogram_of(probability, mask))
    assert f1 == pytest.approx(f1_score(mask, probability >= threshold), abs=1e-9)
    assert f1 >= max(f1_score(mask, probability >= other) for other in np.linspace(0.01, 0.99, 99)) - 1e-9


def test_threshold_moves_with_the_calibration(pixels: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    probability, mask = pixels
    histogram = histogram_of(probability, mask)
    calibration = Calibration(3.0, -0.7)
    plain, scaled = best_threshold(histogram), best_threshold(histogram, calibration)
    assert plain[1] == scaled[1]
    assert scaled[0] == pytest.approx(float(calibration.probability(plain[0])), abs=1e-6)
    called = calibration.probability(probability) >= scaled[0]
    assert scores(*(np.sum(called == c, where=mask == m) for c, m in ((1, 1), (1, 0), (0, 1), (0, 0))))[
        "f1"
    ] == pytest.approx(plain[1], abs=1e-3)


def test_reliability_by_hand() -> None:
    # Two bars: below .5 lie .1 (background) and .3 (landslide), above .9 (landslide).
    low, high = histogram_of([0.1, 0.3, 0.9], [0, 1, 1]).reliability(bars=2)
    assert (low.low, low.high, low.pixels, low.landslide_share) == (0.0, 0.5, 2, 0.5)
    assert low.mean_probability == pytest.approx(0.2, abs=1e-3)
    assert (high.pixels, high.landslide_share) == (1, 1.0)
    # gaps |.2 - .5| on two pixels and |.9 - 1| on one: (.3 * 2 + .1) / 3
    error = histogram_of([0.1, 0.3, 0.9], [0, 1, 1]).expected_calibration_error(bars=2)
    assert error == pytest.approx(0.7 / 3, abs=1e-3)


def test_empty_histogram_measures_nothing() -> None:
    empty = ProbabilityHistogram()
    assert np.isnan(empty.average_precision())
    assert np.isnan(empty.expected_calibration_error())
    assert empty.landslide_share == 0
    with pytest.raises(DataError, match="No labelled pixel"):
        empty.log_loss()


@pytest.mark.parametrize(("label", "missing"), [(0, "landslide"), (1, "background")])
def test_one_class_alone_fixes_neither_threshold_nor_calibration(label: int, missing: str) -> None:
    histogram = histogram_of([0.2, 0.7], [label, label])
    for fit in (best_threshold, fit_calibration):
        with pytest.raises(DataError, match=f"no {missing} pixel"):
            fit(histogram)


def test_bad_input_names_the_argument() -> None:
    with pytest.raises(DataError, match="one shape"):
        histogram_of([0.1, 0.2], [0])
    for bad in (np.nan, 1.5, -0.1):
        with pytest.raises(DataError, match="`probability`"):
            histogram_of([0.5, bad], [1, 1])
    histogram_of([0.5, np.nan], [1, 255])
    with pytest.raises(DataError, match="`counts`"):
        ProbabilityHistogram(np.zeros((2, 3), np.int64))
    for temperature, bias in ((0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, np.inf)):
        with pytest.raises(ConfigError, match="`temperature`"):
            Calibration(temperature, bias)


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probability = np.round(rng.random(200), 2).astype(np.float32)  # steps of .01 lie in bins of their own
    mask = (rng.random(200) < probability).astype(np.uint8)
    precision, recall = histogram_of(probability, mask).precision_recall()
    expected = precision_recall_curve(mask, probability)
    # scikit-learn ends with a point of no threshold, precision 1 at recall 0
    np.testing.assert_allclose(precision, expected[0][:-1])
    np.testing.assert_allclose(recall, expected[1][:-1])


def test_precision_and_recall_by_hand() -> None:
    # thresholds .2, .6, .9 call 4, 2 and 1 pixels, of which 2, 1 and 1 are landslide; two landslides in all
    precision, recall = histogram_of([0.2, 0.2, 0.6, 0.9], [0, 1, 0, 1]).precision_recall()
    assert precision.tolist() == [0.5, 0.5, 1.0]
    assert recall.tolist() == [1.0, 0.5, 0.5]
    with pytest.raises(DataError, match="no landslide pixel"):
        histogram_of([0.2, 0.6], [0, 0]).precision_recall()
