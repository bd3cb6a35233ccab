"""Compare experiments on the same samples: means over seeds, paired differences, and verdicts on claims.

Intervals hold the middle 95 % of bootstrap draws. Each draw takes as many groups of samples as there are, with
replacement, the same groups for every model: differences are paired, because all models find some ground hard. So an
interval covers the choice of the test ground. Where the luck of training is known, from several seeds of one setting,
each draw adds a draw of it, and the interval covers both. A bootstrap over three seeds alone would be too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Evaluation, SampleScore, Subset
from lim_keras.metrics.binary import Estimate, draw_groups, group_totals, middle, pool, scores

Verdict = Literal["holds", "not shown", "contradicted"]

Term = tuple[float, Sequence[Evaluation]]
"""Weight of a setting in a contrast, and its models, one for each seed; the mean of their scores counts."""


@dataclass(frozen=True, slots=True)
class TrainingLuck:
    """Spread of a score between trainings that differ in their seed alone.

    Attributes:
        variance: of the score of one training.
        freedom: degrees of freedom of that variance: trainings less settings.
    """

    variance: float
    freedom: int

    @property
    def largest_difference(self) -> float:
        """Difference between two trainings of one setting that is exceeded once in twenty times."""
        return float(student_t.ppf(0.975, self.freedom) * np.sqrt(2 * self.variance))


def training_luck(
    settings: Iterable[Sequence[Evaluation]], subset: Subset = "all", score: str = "f1"
) -> TrainingLuck | None:
    """Pool the variance between seeds over settings, as in an analysis of variance; None without a second seed.

    Args:
        settings: models of each setting, one for each seed, all on the same samples.
        subset, score: what is compared.
    """
    values = [np.array([_pooled(model, subset, score) for model in models]) for models in settings if len(models) > 1]
    freedom = sum(len(one) - 1 for one in values)
    if not freedom:
        return None
    return TrainingLuck(float(sum(((one - one.mean()) ** 2).sum() for one in values) / freedom), freedom)


def mean_score(
    models: Sequence[Evaluation], subset: Subset = "all", score: str = "f1", luck: TrainingLuck | None = None
) -> Estimate:
    """Compute the mean score of models of one setting, such as those of several seeds; arguments as in `contrast`."""
    return contrast([(1.0, models)], subset, score, luck)


def difference(
    ours: Sequence[Evaluation],
    others: Sequence[Evaluation],
    subset: Subset = "all",
    score: str = "f1",
    luck: TrainingLuck | None = None,
) -> Estimate:
    """Compute the mean score of our models less that of the others; arguments as in `contrast`."""
    return contrast([(1.0, ours), (-1.0, others)], subset, score, luck)


def contrast(
    terms: Sequence[Term], subset: Subset = "all", score: str = "f1", luck: TrainingLuck | None = None
) -> Estimate:
    """Compute a weighted sum of mean scores, with its paired 95 % interval.

    Args:
        terms: settings with their weights, at least one; all models were evaluated on the same samples.
        subset: samples that count.
        score: name in `lim_keras.metrics.binary.SCORES`.
        luck: spread between seeds; None: the interval is one for these very trainings.

    Returns:
        The value and its interval; the interval is NaN with a single group, which says nothing about other ground.

    Raises:
        DataError: the models were not evaluated on the same samples.

    Source: Efron's percentile interval for groups; Student's t for the mean of few seeds.
    """
    models = [model for _, evaluations in terms for model in evaluations]
    weights = np.concatenate([np.full(len(ones), weight / len(ones)) for weight, ones in terms])
    totals, first = _totals(models, subset), models[0]
    value = float(weights @ scores(*totals.sum(axis=0).reshape(-1, 4).T)[score])
    groups = len(totals)
    if groups < 2:
        return Estimate(value, float("nan"), float("nan"))
    drawn_totals = (_picks(first.seed, groups, first.draws) @ totals).reshape(first.draws, -1, 4)
    drawn = scores(*np.moveaxis(drawn_totals, -1, 0))[score] @ weights
    if luck is not None:
        rng = np.random.default_rng((first.seed, luck.freedom))
        drawn += np.sqrt(luck.variance * (weights**2).sum()) * rng.standard_t(luck.freedom, first.draws)
    return Estimate(value, *middle(drawn))


def verdict(effect: Estimate) -> Verdict:
    """Judge a claim by the interval of its effect; above 0 is the claimed direction. Without an interval: not shown."""
    if effect.low > 0:
        return "holds"
    return "contradicted" if effect.high < 0 else "not shown"


def interval_sentence(effect: Estimate) -> str:
    """State where the interval of a difference lies."""
    if np.isnan(effect.low):
        return "It has no interval, because all samples belong to one group."
    sides = {"holds": "lies above 0", "contradicted": "lies below 0", "not shown": "contains 0"}
    return f"The interval {sides[verdict(effect)]}."


@lru_cache(maxsize=8)
def _picks(seed: int, groups: int, draws: int) -> NDArray[np.float64]:
    """Keep the draws of `draw_groups`, because many contrasts are over the same groups."""
    return draw_groups(groups, draws, seed).astype(np.float64)


def _counts(evaluation: Evaluation, subset: Subset) -> list[SampleScore]:
    """Return the samples of a subset by name, because two evaluations may have taken them in another order."""
    chosen = (sample for sample in evaluation.samples if subset == "all" or sample.kind == subset)
    return sorted(chosen, key=lambda sample: sample.name)


def _pooled(evaluation: Evaluation, subset: Subset, score: str) -> float:
    return pool(sample.model for sample in _counts(evaluation, subset)).scores()[score]


def _totals(models: Sequence[Evaluation], subset: Subset) -> NDArray[np.float64]:
    """Return pooled counts (groups, 4 x models), those of one model side by side.

    Raises:
        DataError: the models were not evaluated on the same samples.
    """
    chosen = [_counts(model, subset) for model in models]
    names, groups = [sample.name for sample in chosen[0]], [sample.group for sample in chosen[0]]
    if not names or any([sample.name for sample in one] != names for one in chosen):
        raise DataError("Expected models that were evaluated on the same samples. Received: different samples.")
    return np.hstack([group_totals([sample.model for sample in one], groups) for one in chosen]).astype(np.float64)
