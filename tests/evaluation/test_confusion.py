"""Counts by hand, and bootstrap intervals against a slow oracle that resamples one place at a time."""

import numpy as np
import pytest

from lim_keras.metrics.binary import SCORES, Confusion, count, estimate, pool, scores


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
    with pytest.raises(ValueError, match="one shape"):
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


def test_one_group_has_no_spread() -> None:
    only = estimate([Confusion(1, 2, 3, 4)], ["a"])["f1"]
    assert only.low == only.high == pytest.approx(only.value)
    assert only.value == pytest.approx(scores(1, 2, 3, 4)["f1"])


def test_places_without_labels_measure_nothing() -> None:
    nothing = estimate([Confusion(), Confusion()], ["", ""])["f1"]
    assert all(np.isnan([nothing.value, nothing.low, nothing.high]))


@pytest.mark.parametrize(("confusions", "groups"), [([], []), ([Confusion()], ["a", "b"])])
def test_no_places_or_unequal_lengths(confusions: list[Confusion], groups: list[str]) -> None:
    with pytest.raises(ValueError, match="`groups`"):
        estimate(confusions, groups)
