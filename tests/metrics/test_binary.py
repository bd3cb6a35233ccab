"""Scores, confusion counts and bootstrap intervals: hand-worked values, scikit-learn and slow oracles, empty masks."""

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as oracle

from lim_keras.errors import DataError
from lim_keras.metrics.binary import (
    SCORES,
    Confusion,
    average_precision,
    average_precision_of,
    count,
    estimate,
    estimate_difference,
    pool,
    probability_histogram,
    scores,
)

NAN = math.nan

# counts (tp, fp, fn, tn) and what each score is by the policy: 0 / 0 is 1 where no pixel is wrong, 0 where one is
EMPTY = [
    # nothing there, nothing called
    ((0, 0, 0, 9), {"accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "iou_landslide": 1, "miou": 1, "mcc": 1}),
    # all landslide, all called: the background is what is empty
    ((9, 0, 0, 0), {"accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "iou_background": 1, "miou": 1, "mcc": 1}),
    # nothing there, one false alarm
    ((0, 1, 0, 9), {"accuracy": 0.9, "precision": 0, "recall": 0, "f1": 0, "iou_landslide": 0, "miou": 0.45, "mcc": 0}),
    # one landslide pixel, nothing called
    ((0, 0, 1, 9), {"accuracy": 0.9, "precision": 0, "recall": 0, "f1": 0, "iou_landslide": 0, "miou": 0.45, "mcc": 0}),
    # all landslide, nothing called
    ((0, 0, 9, 0), {"accuracy": 0, "precision": 0, "recall": 0, "f1": 0, "iou_background": 0, "miou": 0, "mcc": 0}),
    # no labelled pixel
    ((0, 0, 0, 0), dict.fromkeys(SCORES, NAN)),
]


def test_hand_worked():
    # tp 3, fp 1, fn 2, tn 4: precision 3/4, recall 3/5, f1 6/9, IoU 3/6 and 4/7, mcc (12 - 2) / sqrt(4 * 5 * 5 * 6)
    expected = {
        "accuracy": 7 / 10,
        "precision": 3 / 4,
        "recall": 3 / 5,
        "f1": 6 / 9,
        "iou_landslide": 3 / 6,
        "iou_background": 4 / 7,
        "miou": (3 / 6 + 4 / 7) / 2,
        "mcc": 10 / math.sqrt(600),
    }
    values = scores(3, 1, 2, 4)
    assert values == pytest.approx(expected)
    assert tuple(values) == SCORES
    assert all(type(value) is float for value in values.values())


@pytest.mark.parametrize(("counts", "expected"), EMPTY)
def test_empty_masks(counts, expected):
    values = scores(*counts)
    assert {name: values[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, called = rng.random(400) < 0.2, rng.random(400) < 0.3
    tp, fp = np.sum(truth & called), np.sum(~truth & called)
    fn, tn = np.sum(truth & ~called), np.sum(~truth & ~called)
    iou = oracle.jaccard_score(truth, called, average=None)
    assert scores(tp, fp, fn, tn) == pytest.approx(
        {
            "accuracy": oracle.accuracy_score(truth, called),
            "precision": oracle.precision_score(truth, called),
            "recall": oracle.recall_score(truth, called),
            "f1": oracle.f1_score(truth, called),
            "iou_landslide": iou[1],
            "iou_background": iou[0],
            "miou": iou.mean(),
            "mcc": oracle.matthews_corrcoef(truth, called),
        }
    )


def test_many_matrices_at_once():
    table = np.array([counts for counts, _ in EMPTY] + [(3, 1, 2, 4)])
    many = scores(*table.T)
    for k, counts in enumerate(table.tolist()):
        one = scores(*counts)
        assert {name: values[k] for name, values in many.items()} == pytest.approx(one, nan_ok=True)


def test_large_scene_loses_no_digits():
    # 1e11 pixels, more than a scene of 300,000 x 300,000; a perfect answer is exactly 1 in every score
    assert set(scores(10**10, 0, 0, 9 * 10**10).values()) == {1.0}


@pytest.mark.parametrize(("name", "value"), [("tp", -1), ("fp", math.nan), ("fn", math.inf), ("tn", np.array([1, -1]))])
def test_counts_out_of_range(name, value):
    counts = {"tp": 1, "fp": 1, "fn": 1, "tn": 1, name: value}
    with pytest.raises(DataError, match=f"`{name}`. Expected finite counts >= 0. Received: {name}="):
        scores(**counts)


class TestHistogram:
    def test_hand_worked(self):
        # with 5 bins: [0, .25), [.25, .5), [.5, .75), [.75, 1), 1
        histogram = probability_histogram([0.0, 0.3, 0.5, 0.74, 1.0, 0.9], [0, 1, 0, 1, 1, 255], bins=5)
        np.testing.assert_array_equal(histogram, [[1, 0, 1, 0, 0], [0, 1, 1, 0, 1]])

    def test_parts_add_up(self):
        rng = np.random.default_rng(0)
        probability, mask = rng.random((4, 9, 9)), rng.integers(0, 2, (4, 9, 9))
        parts = sum(probability_histogram(probability[k], mask[k]) for k in range(4))
        np.testing.assert_array_equal(parts, probability_histogram(probability, mask))

    def test_nan_under_the_ignore_label(self):
        assert probability_histogram([np.nan, 0.2], [255, 1]).sum() == 1

    def test_nothing_labelled(self):
        assert probability_histogram([0.1, 0.2], [255, 255]).sum() == 0

    @pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
    def test_probability_out_of_range(self, bad):
        with pytest.raises(DataError, match=r"`probability`. Expected 0..1 on labelled pixels. Received"):
            probability_histogram([bad, 0.5], [0, 1])

    def test_unknown_label(self):
        with pytest.raises(DataError, match=r"`mask`. Expected 0, 1 or 255. Received: \[0, 7\]"):
            probability_histogram([0.5, 0.5], [0, 7])

    def test_shapes_differ(self):
        with pytest.raises(DataError, match=r"probability \(2,\), mask \(1,\)"):
            probability_histogram([0.5, 0.5], [0])


class TestAveragePrecision:
    def test_hand_worked(self):
        # by falling probability: landslide, background, landslide, background
        # recall gains 1/2 at precision 1/1 and 1/2 at precision 2/3
        assert average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)

    def test_ties_are_one_threshold(self):
        # both pixels of one bin are taken at once: precision 1/2
        assert average_precision([0.50001, 0.50002], [1, 0]) == pytest.approx(0.5)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_equals_scikit_learn_on_rounded_probabilities(self, dtype):
        rng = np.random.default_rng(3)
        mask = (rng.random((40, 50)) < 0.1).astype(np.uint8)
        probability = np.clip(rng.normal(0.3 + 0.3 * mask, 0.2), 0, 1).astype(dtype)
        rounded = np.floor(probability.astype(np.float32) * np.float32(1000))
        assert average_precision(probability, mask) == pytest.approx(
            oracle.average_precision_score(mask.ravel(), rounded.ravel())
        )
        # and rounding itself costs little
        exact = oracle.average_precision_score(mask.ravel(), probability.ravel())
        assert average_precision(probability, mask) == pytest.approx(exact, abs=2e-3)

    def test_perfect_and_blind(self):
        mask = np.array([1, 1, 0, 0, 0, 0, 0, 0])
        assert average_precision(mask.astype(float), mask) == 1
        assert average_precision(np.full(8, 0.3), mask) == pytest.approx(2 / 8)  # the share of landslides

    def test_ignored_pixels_count_nowhere(self):
        assert average_precision([0.9, 0.99, 0.1], [1, 255, 0]) == 1

    def test_nothing_to_rank(self):
        assert math.isnan(average_precision([0.2, 0.9], [0, 0]))
        assert math.isnan(average_precision([0.2, 0.9], [255, 255]))

    def test_of_a_summed_histogram(self):
        first, second = ([0.9, 0.8], [1, 0]), ([0.7, 0.1], [1, 0])
        pooled = probability_histogram(*first) + probability_histogram(*second)
        assert average_precision_of(pooled) == average_precision(first[0] + second[0], first[1] + second[1])


def test_does_not_import_tensorflow():
    code = "import sys, lim_keras.metrics.binary; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Confusion counts and intervals.


def test_counts_by_hand() -> None:
    landslide = np.array([[True, True, False], [False, True, False]])
    mask = np.array([[1, 0, 1], [0, 255, 0]], np.uint8)
    confusion = count(landslide, mask)
    assert confusion == Confusion(tp=1, fp=1, fn=1, tn=2)
    assert confusion.pixels == 5
    # f1 = 2 / (2 + 1 + 1), accuracy = 3 / 5
    assert confusion.scores()["f1"] == pytest.approx(0.5)
    assert confusion.scores()["accuracy"] == pytest.approx(0.6)


def test_pooling_weighs_pixels_not_places() -> None:
    assert pool([Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)]) == Confusion(11, 22, 33, 44)
    assert pool([]) == Confusion()


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match="one shape"):
        count(np.ones((2, 2), bool), np.ones((2, 3), np.uint8))


@pytest.fixture
def places() -> tuple[list[Confusion], list[str]]:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 400, (30, 4))
    groups = [f"g{k % 7}" if k < 20 else "" for k in range(30)]
    return [Confusion(*map(int, row)) for row in counts], groups


def test_intervals_are_those_of_resampling_group_by_group(places: tuple[list[Confusion], list[str]]) -> None:
    confusions, groups = places
    estimates = estimate(confusions, groups, draws=4000, seed=1)
    members: dict[object, list[Confusion]] = {}
    for place, (confusion, group) in enumerate(zip(confusions, groups, strict=True)):
        members.setdefault(group or place, []).append(confusion)
    assert len(members) == 17
    rng = np.random.default_rng(99)
    pooled = list(members.values())
    f1 = [
        pool(confusion for pick in rng.integers(len(pooled), size=len(pooled)) for confusion in pooled[pick]).scores()[
            "f1"
        ]
        for _ in range(4000)
    ]
    low, high = np.quantile(f1, [0.025, 0.975])
    assert estimates["f1"].value == pytest.approx(pool(confusions).scores()["f1"])
    assert estimates["f1"].low == pytest.approx(low, abs=0.005)
    assert estimates["f1"].high == pytest.approx(high, abs=0.005)
    assert set(estimates) == set(SCORES)
    assert all(one.low <= one.value <= one.high for one in estimates.values())


def test_intervals_are_seeded(places: tuple[list[Confusion], list[str]]) -> None:
    assert estimate(*places, draws=50, seed=4) == estimate(*places, draws=50, seed=4)
    assert estimate(*places, draws=50, seed=4) != estimate(*places, draws=50, seed=5)


def test_copies_in_one_group_do_not_narrow_an_interval(places: tuple[list[Confusion], list[str]]) -> None:
    confusions = places[0][:10]
    once = estimate(confusions, [f"g{k}" for k in range(10)])["f1"]
    copied = estimate(confusions * 4, [f"g{k}" for k in range(10)] * 4)["f1"]
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    alone = estimate(confusions * 4, [""] * 40)["f1"]
    assert alone.high - alone.low < copied.high - copied.low


@pytest.mark.parametrize(("samples", "groups"), [(1, ["a"]), (1, [""]), (3, ["a"] * 3)])
def test_scores_on_one_ground_have_no_interval(samples: int, groups: list[str]) -> None:
    only = estimate([Confusion(1, 2, 3, 4)] * samples, groups, draws=20)
    assert {name: one.value for name, one in only.items()} == pytest.approx(scores(1, 2, 3, 4))
    assert np.isnan([(one.low, one.high) for one in only.values()]).all()


def test_places_without_labels_measure_nothing() -> None:
    nothing = estimate([Confusion(), Confusion()], ["", ""])["f1"]
    assert all(np.isnan([nothing.value, nothing.low, nothing.high]))


def test_paired_difference_of_hand_worked_counts() -> None:
    # recall of the first 3/4 and 1/4, of the second 4/4 and 2/4: in every draw of the two groups the gain is 1/4
    first = [Confusion(tp=3, fn=1), Confusion(tp=1, fn=3)]
    second = [Confusion(tp=4), Confusion(tp=2, fn=2)]
    gain = estimate_difference(first, second, ["a", "b"], draws=200)["recall"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.25, 0.25, 0.25))
    loss = estimate_difference(second, first, ["a", "b"], draws=200)["recall"]
    assert (loss.value, loss.low, loss.high) == pytest.approx((-0.25, -0.25, -0.25))
    alone = estimate(first, ["a", "b"], draws=200)["recall"]
    assert (alone.low, alone.high) == pytest.approx((0.25, 0.75))


def test_difference_to_itself_is_nothing(places: tuple[list[Confusion], list[str]]) -> None:
    for gain in estimate_difference(places[0], places[0], places[1]).values():
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_a_difference_on_one_ground_has_no_interval() -> None:
    first, second = [Confusion(tp=3, fn=1)] * 2, [Confusion(tp=4)] * 2
    gain = estimate_difference(first, second, ["a", "a"], draws=20)["recall"]
    assert gain.value == pytest.approx(0.25) and np.isnan([gain.low, gain.high]).all()


def test_a_difference_needs_the_same_samples() -> None:
    with pytest.raises(DataError, match="`groups`"):
        estimate_difference([Confusion()], [Confusion()] * 2, [""])


@pytest.mark.parametrize(("confusions", "groups"), [([], []), ([Confusion()], ["a", "b"])])
def test_no_places_or_unequal_lengths(confusions: list[Confusion], groups: list[str]) -> None:
    with pytest.raises(DataError, match="`groups`"):
        estimate(confusions, groups)
