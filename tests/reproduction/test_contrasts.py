"""Intervals of means and differences: hand-worked values, and how often intervals hold a planted truth."""

from dataclasses import replace

import numpy as np
import pytest

from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Evaluation
from lim_keras.metrics.binary import Estimate
from lim_keras.reproduction.contrasts import (
    TrainingLuck,
    contrast,
    difference,
    mean_score,
    training_luck,
    verdict,
)
from tests.reproduction.hand_made import Counts, evaluation


def accurate(*right: int) -> Evaluation:
    """Tiles of 100 background pixels each, of which `right` are right: the accuracy is their mean / 100."""
    return evaluation([(0, 100 - one, 0, one) for one in right])


def test_difference_of_pooled_scores() -> None:
    ours, others = evaluation([(6, 2, 2, 90), (2, 0, 2, 96)]), evaluation([(5, 5, 3, 87), (1, 1, 3, 95)])
    effect = difference([ours], [others], "landslide")
    # F1 of the pooled counts: 16 / (16 + 2 + 4) and 12 / (12 + 6 + 6).
    assert effect.value == pytest.approx(16 / 22 - 12 / 24)
    # A draw holds the first tile twice, both, or the second twice: .75 - .5556, .2273 or .6667 - .3333.
    assert effect.low == pytest.approx(12 / 16 - 10 / 18) and effect.high == pytest.approx(4 / 6 - 2 / 6)
    assert difference([ours], [others], "landslide", "precision").value == pytest.approx(8 / 10 - 6 / 12)


def test_mean_and_contrast_over_seeds() -> None:
    seeds = [accurate(50, 70), accurate(80, 80)]
    assert mean_score(seeds, score="accuracy").value == pytest.approx(0.7)
    others = [accurate(40, 40), accurate(60, 40), accurate(10, 20)]  # .4, .5 and .15
    assert difference(seeds, others, score="accuracy").value == pytest.approx(0.7 - 0.35)
    terms = [(1.0, seeds), (-1.0, others), (-1.0, [accurate(90, 90)]), (1.0, [accurate(20, 40)])]
    assert contrast(terms, score="accuracy").value == pytest.approx(0.7 - 0.35 - 0.9 + 0.3)


def test_luck_of_training_pools_the_variance_between_seeds() -> None:
    settings = [[accurate(50), accurate(70)], [accurate(10), accurate(20), accurate(60)], [accurate(99)]]
    # Squares about the means .6 and .3: .01 + .01 and .04 + .01 + .09; one and two degrees of freedom.
    assert training_luck(settings, score="accuracy") == TrainingLuck(pytest.approx(0.16 / 3), 3)
    # Student's t with 4 degrees is 2.776 at 97.5 %.
    assert TrainingLuck(0.02**2, 4).largest_difference == pytest.approx(2.776 * 2**0.5 * 0.02, rel=1e-3)
    assert training_luck([[accurate(50)], [accurate(70)]], score="accuracy") is None


def test_equal_experiments_have_no_difference() -> None:
    model = evaluation([(6, 2, 2, 90), (2, 0, 2, 96), (1, 3, 3, 93)])
    effect = difference([model], [replace(model)])
    assert (effect.value, effect.low, effect.high) == (0, 0, 0) and verdict(effect) == "not shown"
    lucky = difference([model, model], [model, model], luck=TrainingLuck(0.01**2, 4))
    # A mean of two trainings against another: standard deviation .01; Student's t with 4 degrees has 2.78 there.
    assert -0.032 < lucky.low < -0.023 < 0.023 < lucky.high < 0.032


def planted(rng: np.random.Generator, gain: float, luck: float, seeds: int) -> list[list[Evaluation]]:
    """Models of two settings on tiles of very unlike difficulty, two tiles of each ground."""
    difficulty = np.repeat(rng.normal(0, 0.15, 30), 2)
    sizes = rng.integers(200, 2000, 60)

    def model(recall: float) -> Evaluation:
        share = np.clip(recall + rng.normal(0, luck) + difficulty + rng.normal(0, 0.05, 60), 0, 1)
        hits = (sizes * share).astype(int).tolist()
        alarms = (sizes * np.clip(0.3 - difficulty / 2, 0, 1)).astype(int).tolist()
        counts: list[Counts] = [
            (tp, fp, size - tp, 9000 - fp) for tp, fp, size in zip(hits, alarms, sizes.tolist(), strict=True)
        ]
        return evaluation(counts, groups=[f"g{k // 2}" for k in range(60)])

    return [[model(recall) for _ in range(seeds)] for recall in (0.65 + gain, 0.65)]


def test_a_planted_gain_is_found_only_because_tiles_are_paired() -> None:
    ours, others = planted(np.random.default_rng(5), 0.04, 0.0, 1)
    effect = difference(ours, others)
    assert verdict(effect) == "holds" and verdict(difference(others, ours)) == "contradicted"
    widths = [one.high - one.low for one in (mean_score(ours), mean_score(others))]
    unpaired = float(np.hypot(*widths))  # of a difference of two scores on tiles that were drawn apart
    assert effect.high - effect.low < 0.5 * unpaired
    assert effect.value < unpaired / 2  # so that an unpaired interval would hold 0


def test_tiles_of_one_ground_are_drawn_together() -> None:
    ours, others = planted(np.random.default_rng(5), 0.04, 0.0, 1)
    alone = [replace(one, samples=tuple(replace(s, group="") for s in one.samples)) for one in (ours[0], others[0])]
    grouped, single = mean_score(ours), mean_score(alone[:1])
    assert grouped.high - grouped.low > 1.15 * (single.high - single.low)


@pytest.mark.parametrize(("luck", "seeds"), [(0.0, 1), (0.04, 3)])
def test_intervals_hold_the_truth_as_often_as_they_say(luck: float, seeds: int) -> None:
    rng = np.random.default_rng(11)
    effects, held, unlucky = [], [], []
    for _ in range(120):
        settings = planted(rng, 0.05, luck, seeds)
        known = training_luck(settings)
        effects.append(difference(*settings, luck=known))
        unlucky.append(difference(*settings))
    truth = float(np.mean([one.value for one in effects]))
    held = np.mean([one.low <= truth <= one.high for one in effects])
    assert 0.90 <= held <= 0.995  # 95 % of 120, give or take two and a half standard deviations
    if luck:
        assert np.mean([one.low <= truth <= one.high for one in unlucky]) < 0.7


def test_one_ground_shows_nothing() -> None:
    ours, others = (evaluation(counts, groups=["g", "g"]) for counts in ([(9, 0, 0, 1)] * 2, [(1, 8, 0, 1)] * 2))
    effect = difference([ours], [others])
    assert effect.value > 0 and np.isnan([effect.low, effect.high]).all() and verdict(effect) == "not shown"


def test_the_order_of_samples_does_not_matter_but_their_names_do() -> None:
    model = evaluation([(6, 2, 2, 90), (2, 0, 2, 96), (1, 3, 3, 93)])
    turned = replace(model, samples=model.samples[::-1])
    assert difference([model], [turned]) == Estimate(0, 0, 0)
    with pytest.raises(DataError, match="same samples"):
        difference([model], [replace(model, samples=model.samples[:2])])
    with pytest.raises(DataError, match="same samples"):
        mean_score([evaluation([], [(0, 0, 0, 9)])], "landslide")
