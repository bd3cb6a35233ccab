"""Binary segmentation scores from confusion counts, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lim_keras.errors import DataError

SCORES = ("accuracy", "precision", "recall", "f1", "iou_landslide", "iou_background", "miou", "mcc")

BINS = 1001

Counts = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
Count = float | np.integer[Any] | np.floating[Any]


def formulae(xp: Any, tp: Any, fp: Any, fn: Any, tn: Any) -> dict[str, Any]:
    """Compute SCORES from counts of one shape with `xp` (numpy or keras.ops).

    A fraction 0 / 0 is 1 if no pixel is wrong, else 0. Without pixels all scores are NaN.

    Source: accuracy, recall, f1 and miou (over two classes) are Eq. 6-9 of Chen et al. 2022; mcc is the correlation of
    truth and prediction (Matthews 1975).
    """
    total = tp + fp + fn + tn
    empty = xp.where(fp + fn > 0, 0.0, 1.0)

    def ratio(part: Any, whole: Any) -> Any:
        return xp.where(whole > 0, part / xp.where(whole > 0, whole, 1.0), empty)

    iou_landslide, iou_background = ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)
    # With this pairing, the square roots of a perfect prediction are exact, and so is its mcc of 1.
    spread = xp.sqrt((tp + fp) * (tp + fn)) * xp.sqrt((tn + fp) * (tn + fn))
    values = {
        "accuracy": ratio(tp + tn, total),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "iou_landslide": iou_landslide,
        "iou_background": iou_background,
        "miou": (iou_landslide + iou_background) / 2,
        "mcc": ratio(tp * tn - fp * fn, spread),
    }
    return {name: xp.where(total > 0, value, np.nan) for name, value in values.items()}


@overload
def scores(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> dict[str, NDArray[np.float64]]: ...


@overload
def scores(tp: Count, fp: Count, fn: Count, tn: Count) -> dict[str, float]: ...


def scores(tp: Any, fp: Any, fn: Any, tn: Any) -> Any:
    """Compute all scores of a binary confusion matrix with landslide as the positive class.

    Args:
        tp, fp, fn, tn: numbers of pixels >= 0, or arrays of one shape for many matrices.

    Returns:
        accuracy, precision, recall, f1, iou_landslide, iou_background, miou (their mean) in 0..1 and mcc in -1..1:
        floats for numbers, float64 arrays for arrays. Empty classes: see `formulae`.

    Raises:
        DataError: a count is negative or not finite.
    """
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in counts.items()}
    for name, array in arrays.items():
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise DataError(
                f"Invalid value for argument `{name}`. Expected finite counts >= 0. Received: {name}={counts[name]!r}"
            )
    values = formulae(np, **dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True)))
    return {name: float(value) if value.ndim == 0 else value for name, value in values.items()}


def probability_histogram(
    probability: ArrayLike, mask: ArrayLike, ignore_value: int = 255, bins: int = BINS
) -> NDArray[np.int64]:
    """Count background and landslide pixels by probability.

    Bin k holds k / (bins - 1) <= probability < (k + 1) / (bins - 1) in float32; the last bin holds only probability 1.

    Args:
        probability: array of any shape, 0..1; values of unlabelled pixels are not used.
        mask: array of the same shape, 1 landslide, 0 background, `ignore_value` unlabelled.

    Returns:
        (2, bins) int64: row 0 background, row 1 landslide.

    Raises:
        DataError: shapes differ, a probability of a labelled pixel is outside 0..1, or a label is unknown.
    """
    values, labels = np.asarray(probability), np.asarray(mask)
    if values.shape != labels.shape:
        raise DataError(
            "`probability` and `mask` must have the same shape. "
            f"Received: probability {values.shape}, mask {labels.shape}"
        )
    labelled = labels != ignore_value
    values, labels = values[labelled], labels[labelled]
    if not np.all((values >= 0) & (values <= 1)):
        raise DataError(
            "Invalid value for argument `probability`. Expected 0..1 on labelled pixels. "
            f"Received: {np.min(values)}..{np.max(values)}"
        )
    if not np.all((labels == 0) | (labels == 1)):
        raise DataError(
            f"Invalid value for argument `mask`. Expected 0, 1 or {ignore_value}. "
            f"Received: {np.unique(labels)[:10].tolist()}"
        )
    # float32 as in the Keras metric, so that both put a pixel into the same bin.
    steps = np.floor(values.astype(np.float32) * np.float32(bins - 1)).astype(np.int64)
    return np.bincount(steps + bins * labels.astype(np.int64), minlength=2 * bins).reshape(2, bins)


def histogram_precision(xp: Any, background: Any, landslide: Any) -> Any:
    """Compute average precision from pixel counts per bin with `xp` (numpy or keras.ops)."""
    found = xp.flip(xp.cumsum(xp.flip(landslide, 0), 0), 0)
    taken = found + xp.flip(xp.cumsum(xp.flip(background, 0), 0), 0)
    precision = found / xp.where(taken > 0, taken, 1)
    total = xp.sum(landslide)
    return xp.where(total > 0, xp.sum(precision * landslide) / xp.where(total > 0, total, 1), np.nan)


def average_precision(probability: ArrayLike, mask: ArrayLike, ignore_value: int = 255, bins: int = BINS) -> float:
    """Compute average precision: the sum of (gain in recall) * precision over the thresholds k / (bins - 1).

    It equals scikit-learn's `average_precision_score` of probabilities rounded down to a multiple of 1 / (bins - 1).
    It is NaN without landslide pixels.

    Args and Raises: as in `probability_histogram`.
    """
    return average_precision_of(probability_histogram(probability, mask, ignore_value, bins))


def average_precision_of(histogram: NDArray[np.int64]) -> float:
    """Compute average precision from a (2, bins) histogram of `probability_histogram`."""
    background, landslide = histogram.astype(np.float64)
    return float(histogram_precision(np, background, landslide))


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixel counts: true and false positives, false and true negatives; landslide is the positive class."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        """Add the counts of two confusion matrices."""
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def pixels(self) -> int:
        """Labelled pixels."""
        return self.tp + self.fp + self.fn + self.tn

    def scores(self) -> dict[str, float]:
        """Compute all scores; see `scores`."""
        return scores(*astuple(self))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Score, or difference of scores, with its 95 % interval.

    `low` and `high` are NaN with one group of samples, which tells nothing about other ground.
    """

    value: float
    low: float
    high: float


def count(landslide: ArrayLike, mask: ArrayLike) -> Confusion:
    """Count predicted landslide pixels (bool) against a mask: 1 landslide, 0 background, other labels ignored."""
    called, labels = np.asarray(landslide, bool), np.asarray(mask)
    if called.shape != labels.shape:
        raise DataError(f"Expected `landslide` and `mask` of one shape. Received: {called.shape} and {labels.shape}")
    true, false = labels == 1, labels == 0
    tp, fp = int(np.count_nonzero(called & true)), int(np.count_nonzero(called & false))
    return Confusion(tp, fp, int(np.count_nonzero(true)) - tp, int(np.count_nonzero(false)) - fp)


def pool(confusions: Iterable[Confusion]) -> Confusion:
    """Add the counts, so that every pixel has the same weight."""
    return sum(confusions, start=Confusion())


def estimate(
    confusions: Sequence[Confusion], groups: Sequence[str], draws: int = 1000, seed: int = 2022
) -> dict[str, Estimate]:
    """Compute pooled scores with 95 % bootstrap intervals over groups.

    Each draw takes as many groups as there are, with replacement, and pools their counts. The interval holds the middle
    95 % of the draws (Efron's percentile interval). Samples of the same ground must share a group, else the interval is
    too narrow. The interval is NaN with a single group.

    Args:
        confusions: counts of each sample, at least one sample.
        groups: group of each sample; a sample with group "" is its own group.
        draws, seed: number and seed of the draws.
    """
    (drawn,) = _draw([confusions], groups, draws, seed)
    pooled = pool(confusions).scores()
    alone = len(group_totals(confusions, groups)) < 2
    return {
        name: Estimate(value, *((np.nan, np.nan) if alone else middle(drawn[name]))) for name, value in pooled.items()
    }


def estimate_difference(
    first: Sequence[Confusion], second: Sequence[Confusion], groups: Sequence[str], draws: int = 1000, seed: int = 2022
) -> dict[str, Estimate]:
    """Compute differences of pooled scores, second minus first, with paired 95 % bootstrap intervals over groups.

    Each draw takes the same groups for both, so that what is hard for both widens no interval. The interval is NaN with
    a single group.

    Args:
        first, second: counts of the same samples, in the same order, by two predictors.
        groups, draws, seed: as in `estimate`.
    """
    before, after = _draw([first, second], groups, draws, seed)
    pooled = pool(first).scores(), pool(second).scores()
    alone = len(group_totals(first, groups)) < 2
    return {
        name: Estimate(pooled[1][name] - value, *((np.nan, np.nan) if alone else middle(after[name] - before[name])))
        for name, value in pooled[0].items()
    }


def _draw(
    predictors: Sequence[Sequence[Confusion]], groups: Sequence[str], draws: int, seed: int
) -> list[dict[str, NDArray[np.float64]]]:
    """Return the scores (draws,) of each predictor in samples of the same groups."""
    for confusions in predictors:
        if not confusions or len(confusions) != len(groups):
            raise DataError(
                "Expected as many `groups` as `confusions`, at least one. "
                f"Received: {len(groups)} and {len(confusions)}"
            )
    totals = [group_totals(confusions, groups) for confusions in predictors]
    picks = draw_groups(len(totals[0]), draws, seed)
    return [scores(*(picks @ one).T) for one in totals]


def draw_groups(groups: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Draw as many groups as there are, with replacement; return their numbers in each draw, (draws, groups)."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws)


def group_totals(confusions: Sequence[Confusion], groups: Sequence[str]) -> NDArray[np.int64]:
    """Pool tp, fp, fn and tn by group, (groups, 4); a sample with group "" is its own group."""
    names = [("group", group) if group else ("sample", str(number)) for number, group in enumerate(groups)]
    position = {name: row for row, name in enumerate(dict.fromkeys(names))}
    totals = np.zeros((len(position), 4), np.int64)
    np.add.at(
        totals,
        [position[name] for name in names],
        np.array([(one.tp, one.fp, one.fn, one.tn) for one in confusions], np.int64),
    )
    return totals


def middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of the draws with a defined score."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
