"""Threshold and probability calibration from pooled predictions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from lim_keras.errors import ConfigError, DataError
from lim_keras.metrics.binary import average_precision_of, scores

BINS = 4096

_LARGEST_LOGIT = 12.0  # sigmoid(12) is 1 - 6e-6, about where float32 probabilities run out of steps below 1

_CUTS = np.linspace(
    -_LARGEST_LOGIT, _LARGEST_LOGIT, BINS - 1
)  # an odd number, so that 0 (probability 0.5) is one of them

_STEP = _CUTS[1] - _CUTS[0]

_CENTRES = np.concatenate([_CUTS - _STEP / 2, _CUTS[-1:] + _STEP / 2])

_TEMPERATURES = (0.05, 20.0)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logits))


# As float32, the type of predictions: `probability >= threshold` then selects the same pixels as the bins do.
_EDGES = _sigmoid(_CUTS).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How logits become probabilities: sigmoid(logit / temperature + bias).

    temperature: > 0; above 1 draws probabilities towards 0.5, as an overconfident network needs (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"). bias: moves all of them; below 0 for a network that was shown more
    landslides in training than the ground has. Both together are Platt scaling (Platt 1999).

    Raises:
        ConfigError: a temperature that is not > 0, or a bias that is not finite.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and np.isfinite(self.temperature) and np.isfinite(self.bias)):
            raise ConfigError(
                "Expected a finite `temperature` > 0 and a finite `bias`. "
                f"Received: temperature={self.temperature}, bias={self.bias}"
            )

    def logit(self, logit: Any) -> Any:
        """Calibrated logit, of numbers, arrays or tensors of any shape."""
        return logit / self.temperature + self.bias

    def probability(self, probability: ArrayLike) -> NDArray[np.float32]:
        """Calibrated probability of probabilities 0..1 of any shape that are not calibrated yet."""
        inside = np.clip(np.asarray(probability, np.float64), 1e-7, 1 - 1e-7)
        return _sigmoid(self.logit(np.log(inside / (1 - inside)))).astype(np.float32)


UNCALIBRATED = Calibration()


@dataclass(frozen=True, slots=True)
class Reliability:
    """One bar of a reliability diagram: pixels whose probability lies in low..high."""

    low: float
    high: float
    pixels: int
    mean_probability: float
    landslide_share: float


class ProbabilityHistogram:
    """Pixels by class and probability, in bins even in logits.

    `counts`: (2, BINS) int64, row 0 background and row 1 landslide pixels, probabilities ascending.
    """

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros((2, BINS), np.int64) if counts is None else np.array(counts, np.int64)
        if self.counts.shape != (2, BINS):
            raise ValueError(
                f"Invalid value for argument `counts`. Expected shape (2, {BINS}). Received: shape {self.counts.shape}"
            )

    def add(self, probability: ArrayLike, mask: ArrayLike) -> None:
        """Count pixels.

        Args:
            probability: any shape, 0..1.
            mask: the same shape; 1 landslide, 0 background, anything else is not counted.

        Raises:
            ValueError: shapes differ, or a probability is not a number within 0..1.
        """
        values, labels = np.asarray(probability, np.float32), np.asarray(mask)
        if values.shape != labels.shape:
            raise ValueError(
                f"Expected `probability` and `mask` of one shape. Received: {values.shape} and {labels.shape}"
            )
        for label in (0, 1):
            chosen = values[labels == label]
            if chosen.size and not (chosen.min() >= 0 and chosen.max() <= 1):
                raise ValueError(
                    "Invalid value for argument `probability`. Expected numbers within 0..1. Received: "
                    f"values from {chosen.min()} to {chosen.max()}"
                )
            self.counts[label] += np.bincount(np.searchsorted(_EDGES, chosen, side="right"), minlength=BINS)

    def __add__(self, other: "ProbabilityHistogram") -> "ProbabilityHistogram":
        """Pool two histograms."""
        return ProbabilityHistogram(self.counts + other.counts)

    @property
    def landslide_share(self) -> float:
        """Landslide pixels over all counted pixels; 0 where nothing was counted."""
        return float(self.counts[1].sum() / max(self.counts.sum(), 1))

    def at_share(self, landslide_share: float) -> "ProbabilityHistogram":
        """The same predictions on ground of another landslide share: background pixels are counted more or fewer times.

        What a model says of either class stays; how common the classes are does not (Saerens et al. 2002, "Adjusting
        the Outputs of a Classifier to New a Priori Probabilities").

        Args:
            landslide_share: above 0, below 1.

        Raises:
            ValueError: the share is out of range.
            DataError: landslide or background pixels are missing.
        """
        self.require_both_classes()
        if not 0 < landslide_share < 1:
            raise ValueError(
                f"Invalid value for argument `landslide_share`. Expected 0 < share < 1. Received: {landslide_share}"
            )
        background, landslide = (float(row.sum()) for row in self.counts)
        factor = landslide * (1 / landslide_share - 1) / background
        return ProbabilityHistogram(np.stack([np.rint(self.counts[0] * factor), self.counts[1]]).astype(np.int64))

    def log_loss(self, calibration: Calibration = UNCALIBRATED) -> float:
        """Mean negative log likelihood of a pixel, in nats, after calibration."""
        self._require_pixels()
        logits = calibration.logit(_CENTRES)
        loss = self.counts[0] * np.logaddexp(0, logits) + self.counts[1] * np.logaddexp(0, -logits)
        return float(loss.sum() / self.counts.sum())

    def average_precision(self) -> float:
        """Average precision over all bin edges; NaN without landslide pixels. No calibration changes it."""
        return average_precision_of(self.counts)

    def confusions(self) -> NDArray[np.int64]:
        """(4, BINS - 1) counts of tp, fp, fn, tn when a pixel at or above each inner bin edge is called landslide."""
        below = np.cumsum(self.counts, axis=1)[:, :-1]
        above = self.counts.sum(axis=1, keepdims=True) - below
        return np.stack([above[1], above[0], below[1], below[0]])

    def reliability(self, calibration: Calibration = UNCALIBRATED, bars: int = 15) -> tuple[Reliability, ...]:
        """Mean probability against the share of landslides, in even steps of probability; empty steps are left out."""
        probability = _sigmoid(calibration.logit(_CENTRES))
        bar = np.minimum((probability * bars).astype(np.int64), bars - 1)
        pixels = self.counts.sum(axis=0)
        totals, landslides, mass = (
            np.bincount(bar, row, bars) for row in (pixels, self.counts[1], pixels * probability)
        )
        return tuple(
            Reliability(
                k / bars, (k + 1) / bars, int(totals[k]), float(mass[k] / totals[k]), float(landslides[k] / totals[k])
            )
            for k in np.flatnonzero(totals)
        )

    def expected_calibration_error(self, calibration: Calibration = UNCALIBRATED, bars: int = 15) -> float:
        """Mean gap of the reliability diagram between probability and share, weighted by pixels; NaN without pixels."""
        diagram = self.reliability(calibration, bars)
        gaps = [abs(bar.mean_probability - bar.landslide_share) for bar in diagram]
        return float(np.average(gaps, weights=[bar.pixels for bar in diagram])) if diagram else float("nan")

    def _require_pixels(self) -> None:
        if not self.counts.any():
            raise DataError(
                "No labelled pixel was counted. Expected predictions on pixels of known class; check masks and nodata."
            )

    def require_both_classes(self) -> None:
        """Raise DataError unless landslide and background pixels were both counted."""
        self._require_pixels()
        for label, name in enumerate(("background", "landslide")):
            if not self.counts[label].any():
                raise DataError(f"Predictions hold no {name} pixel. Expected both classes, to fit a threshold to.")


def pool_histograms(histograms: Iterable[ProbabilityHistogram]) -> ProbabilityHistogram:
    """One histogram of all pixels."""
    return sum(histograms, start=ProbabilityHistogram())


def fit_calibration(histogram: ProbabilityHistogram) -> Calibration:
    """Temperature (within 0.05..20) and bias of least log loss; Platt 1999, Guo et al. 2017.

    Raises:
        DataError: landslide or background pixels are missing.
    """
    histogram.require_both_classes()
    # By the logarithm of the temperature, so that it stays positive; the loss has one valley.
    found = minimize(
        lambda x: histogram.log_loss(Calibration(float(np.exp(x[0])), float(x[1]))),
        x0=(0.0, 0.0),
        bounds=(tuple(np.log(_TEMPERATURES)), (-_LARGEST_LOGIT, _LARGEST_LOGIT)),
        method="L-BFGS-B",
        options={"ftol": 1e-13, "gtol": 1e-9},
    )
    return Calibration(float(np.exp(found.x[0])), float(found.x[1]))


def best_threshold(histogram: ProbabilityHistogram, calibration: Calibration = UNCALIBRATED) -> tuple[float, float]:
    """The threshold of highest landslide F1, on probabilities after `calibration`, and that F1.

    Where a run of thresholds is equally good (no pixel lies between them) the middle one is taken.

    Raises:
        DataError: landslide or background pixels are missing.
    """
    histogram.require_both_classes()
    f1 = np.asarray(scores(*histogram.confusions())["f1"])
    first = int(np.argmax(f1))
    worse = np.flatnonzero(f1[first:] < f1[first])
    last = first + (int(worse[0]) if worse.size else f1.size - first) - 1
    cut = _CUTS[(first + last) // 2]
    return float(_sigmoid(calibration.logit(cut)).astype(np.float32)), float(f1[first])
