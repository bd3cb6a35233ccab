"""Confusion counts of places, and scores with intervals from resampling the groups that places belong to."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lim_keras.scores import scores


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels by truth and prediction: tp landslide found, fp false alarm, fn landslide missed, tn background."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "Confusion") -> "Confusion":
        """Counts of both."""
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def pixels(self) -> int:
        """Labelled pixels."""
        return self.tp + self.fp + self.fn + self.tn

    def scores(self) -> dict[str, float]:
        """Every score of `lim_keras.scores.scores`."""
        return scores(*astuple(self))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its 95 % interval; an interval of one group only is that score itself."""

    value: float
    low: float
    high: float


def count(landslide: ArrayLike, mask: ArrayLike) -> Confusion:
    """Compare a prediction with the truth.

    Args:
        landslide: any shape, bool: pixels called landslide.
        mask: the same shape; 1 landslide, 0 background, anything else counts nowhere.

    Raises:
        ValueError: shapes differ.
    """
    called, labels = np.asarray(landslide, bool), np.asarray(mask)
    if called.shape != labels.shape:
        raise ValueError(f"Expected `landslide` and `mask` of one shape. Received: {called.shape} and {labels.shape}")
    true, false = labels == 1, labels == 0
    tp, fp = int(np.count_nonzero(called & true)), int(np.count_nonzero(called & false))
    return Confusion(tp, fp, int(np.count_nonzero(true)) - tp, int(np.count_nonzero(false)) - fp)


def pool(confusions: Iterable[Confusion]) -> Confusion:
    """Counts of all together: every pixel weighs the same, whatever its place."""
    return sum(confusions, start=Confusion())


def estimate(
    confusions: Sequence[Confusion], groups: Sequence[str], draws: int = 1000, seed: int = 2022
) -> dict[str, Estimate]:
    """Pooled scores with 95 % bootstrap intervals over groups.

    Groups are drawn with replacement, as many as there are, and their counts pooled; the interval spans the middle 95 %
    of the draws (Efron's percentile interval). Places that share ground belong to one group, so that an interval is not
    made too narrow by counting one piece of ground twice.

    Args:
        confusions: one a place.
        groups: the group of each place; a place whose group is "" is a group of its own.
        draws: resamples.
        seed: of the resamples.

    Raises:
        ValueError: lengths differ, or there is no place.
    """
    if not confusions or len(confusions) != len(groups):
        raise ValueError(
            f"Expected as many `groups` as `confusions`, at least one. Received: {len(groups)} and {len(confusions)}"
        )
    totals = _group_totals(confusions, groups)
    picks = np.random.default_rng(seed).multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=draws)
    drawn = scores(*(picks @ totals).T)
    pooled = pool(confusions).scores()
    return {name: Estimate(value, *_middle(np.asarray(drawn[name]))) for name, value in pooled.items()}


def _group_totals(confusions: Sequence[Confusion], groups: Sequence[str]) -> NDArray[np.int64]:
    """(groups, 4) pooled counts."""
    names = [("group", group) if group else ("place", str(place)) for place, group in enumerate(groups)]
    position = {name: row for row, name in enumerate(dict.fromkeys(names))}
    totals = np.zeros((len(position), 4), np.int64)
    np.add.at(
        totals, [position[name] for name in names], np.array([astuple(confusion) for confusion in confusions], np.int64)
    )
    return totals


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds of the middle 95 % of the draws in which the score is defined."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
