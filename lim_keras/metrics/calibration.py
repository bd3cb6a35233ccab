"""Probability histograms, calibration, choice of the threshold, and the image-blind baseline."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from lim_keras.errors import ConfigError, DataError
from lim_keras.metrics.binary import average_precision_of, scores

BINS = 4096

_LARGEST_LOGIT = 12.0  # sigmoid(12) is 1 - 6e-6; closer to 1, float32 has few values

# An odd number of cuts, so that logit 0 (probability 0.5) is one of them.
_CUTS = np.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, BINS - 1)

_STEP = _CUTS[1] - _CUTS[0]

_CENTRES = np.concatenate([_CUTS - _STEP / 2, _CUTS[-1:] + _STEP / 2])

_TEMPERATURES = (0.05, 20.0)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logits))


# float32, like predictions, so that `probability >= threshold` selects whole bins.
_EDGES = _sigmoid(_CUTS).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: probability = sigmoid(logit / temperature + bias).

    Args:
        temperature: > 0; above 1 for an overconfident network.
        bias: below 0 if the training tiles have a larger landslide share than the mapped terrain.

    Source: Platt 1999; Guo et al. 2017, "On Calibration of Modern Neural Networks".
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
        """Calibrate logits: numbers, arrays or tensors of any shape."""
        return logit / self.temperature + self.bias

    def probability(self, probability: ArrayLike) -> NDArray[np.float32]:
        """Calibrate probabilities 0..1 of any shape."""
        inside = np.clip(np.asarray(probability, np.float64), 1e-7, 1 - 1e-7)
        return _sigmoid(self.logit(np.log(inside / (1 - inside)))).astype(np.float32)


UNCALIBRATED = Calibration()


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bar of a reliability diagram: pixels with a probability in low..high."""

    low: float
    high: float
    pixels: int
    mean_probability: float
    landslide_share: float


class ProbabilityHistogram:
    """Counts of pixels by class and probability, in bins of equal width in logits.

    Attributes:
        counts: (2, BINS) int64, background and landslide pixels, ascending probability.
    """

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros((2, BINS), np.int64) if counts is None else np.array(counts, np.int64)
        if self.counts.shape != (2, BINS):
            raise DataError(
                f"Invalid value for argument `counts`. Expected shape (2, {BINS}). Received: shape {self.counts.shape}"
            )

    def add(self, probability: ArrayLike, mask: ArrayLike) -> None:
        """Count pixels of probabilities 0..1 and a mask of equal shape: 1 landslide, 0 background, others ignored."""
        values, labels = np.asarray(probability, np.float32), np.asarray(mask)
        if values.shape != labels.shape:
            raise DataError(
                f"Expected `probability` and `mask` of one shape. Received: {values.shape} and {labels.shape}"
            )
        for label in (0, 1):
            chosen = values[labels == label]
            if chosen.size and not (chosen.min() >= 0 and chosen.max() <= 1):
                raise DataError(
                    "Invalid value for argument `probability`. Expected numbers within 0..1. "
                    f"Received: {chosen.min()} to {chosen.max()}"
                )
            self.counts[label] += np.bincount(np.searchsorted(_EDGES, chosen, side="right"), minlength=BINS)

    def __add__(self, other: "ProbabilityHistogram") -> "ProbabilityHistogram":
        """Add the counts of two histograms."""
        return ProbabilityHistogram(self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        """Tell whether two histograms have the same counts."""
        return isinstance(other, ProbabilityHistogram) and bool(np.array_equal(self.counts, other.counts))

    @property
    def landslide_share(self) -> float:
        """Landslide pixels over all counted pixels; 0 without pixels."""
        return float(self.counts[1].sum() / max(self.counts.sum(), 1))

    def at_share(self, landslide_share: float) -> "ProbabilityHistogram":
        """Reweight background pixels so that the landslide share becomes `landslide_share`, between 0 and 1.

        Source: Saerens et al. 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities".
        """
        self.require_both_classes()
        if not 0 < landslide_share < 1:
            raise ConfigError(
                f"Invalid value for argument `landslide_share`. Expected 0 < share < 1. Received: {landslide_share}"
            )
        background, landslide = (float(row.sum()) for row in self.counts)
        factor = landslide * (1 / landslide_share - 1) / background
        return ProbabilityHistogram(np.stack([np.rint(self.counts[0] * factor), self.counts[1]]).astype(np.int64))

    def log_loss(self, calibration: Calibration = UNCALIBRATED) -> float:
        """Compute the mean negative log likelihood of a pixel after calibration, nats."""
        self._require_pixels()
        logits = calibration.logit(_CENTRES)
        loss = self.counts[0] * np.logaddexp(0, logits) + self.counts[1] * np.logaddexp(0, -logits)
        return float(loss.sum() / self.counts.sum())

    def average_precision(self) -> float:
        """Compute average precision over all bin edges; calibration does not change it. NaN without landslides."""
        return average_precision_of(self.counts)

    def confusions(self) -> NDArray[np.int64]:
        """Return tp, fp, fn, tn (4, BINS - 1) for a threshold at each inner bin edge."""
        below = np.cumsum(self.counts, axis=1)[:, :-1]
        above = self.counts.sum(axis=1, keepdims=True) - below
        return np.stack([above[1], above[0], below[1], below[0]])

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return precision and recall (n,) for all thresholds, from the lowest to the highest that calls a pixel.

        The lowest calls every pixel. Thresholds that call the same pixels are one.

        Raises:
            DataError: pixels of one class only were counted.
        """
        self.require_both_classes()
        background, landslide = self.counts
        used = background + landslide > 0
        false, true = (np.cumsum(row[used][::-1])[::-1] for row in (background, landslide))
        return true / (true + false), true / landslide.sum()

    def reliability(self, calibration: Calibration = UNCALIBRATED, bars: int = 15) -> tuple[Reliability, ...]:
        """Compute a reliability diagram with bars of equal width in probability; empty bars are left out."""
        probability = _sigmoid(calibration.logit(_CENTRES))
        bar = np.minimum((probability * bars).astype(np.int64), bars - 1)
        pixels = self.counts.sum(axis=0)
        totals, landslides, mass = (
            np.bincount(bar, row, bars) for row in (pixels, self.counts[1], pixels * probability)
        )
        filled = np.flatnonzero(totals)
        means, shares = mass[filled] / totals[filled], landslides[filled] / totals[filled]
        return tuple(
            Reliability(k / bars, (k + 1) / bars, int(totals[k]), float(mean), float(share))
            for k, mean, share in zip(filled, means, shares, strict=True)
        )

    def expected_calibration_error(self, calibration: Calibration = UNCALIBRATED, bars: int = 15) -> float:
        """Compute the mean gap between probability and landslide share, weighted by pixels; NaN without pixels."""
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
                raise DataError(f"Predictions hold no {name} pixel. Expected both classes, to fit a threshold.")


def pool_histograms(histograms: Iterable[ProbabilityHistogram]) -> ProbabilityHistogram:
    """Add histograms into one."""
    return sum(histograms, start=ProbabilityHistogram())


def fit_calibration(histogram: ProbabilityHistogram) -> Calibration:
    """Fit the temperature (0.05..20) and bias that minimise the log loss; see `Calibration`."""
    histogram.require_both_classes()
    # Fit log(temperature), which keeps the temperature positive. The loss has one minimum.
    found = minimize(
        lambda x: histogram.log_loss(Calibration(float(np.exp(x[0])), float(x[1]))),
        x0=(0.0, 0.0),
        bounds=(tuple(np.log(_TEMPERATURES)), (-_LARGEST_LOGIT, _LARGEST_LOGIT)),
        method="L-BFGS-B",
        options={"ftol": 1e-13, "gtol": 1e-9},
    )
    return Calibration(float(np.exp(found.x[0])), float(found.x[1]))


def best_threshold(histogram: ProbabilityHistogram, calibration: Calibration = UNCALIBRATED) -> tuple[float, float]:
    """Return the threshold of calibrated probabilities with the highest landslide F1, and that F1.

    If a range of thresholds has this F1, the middle of the range is returned.
    """
    histogram.require_both_classes()
    f1 = np.asarray(scores(*histogram.confusions())["f1"])
    first = int(np.argmax(f1))
    worse = np.flatnonzero(f1[first:] < f1[first])
    last = first + (int(worse[0]) if worse.size else f1.size - first) - 1
    cut = _CUTS[(first + last) // 2]
    return float(_sigmoid(calibration.logit(cut)).astype(np.float32)), float(f1[first])


def everywhere(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask in which every pixel is landslide, a view that takes no memory."""
    return np.broadcast_to(np.True_, shape)


@dataclass(frozen=True, slots=True)
class ImageBlindMask:
    """Mean mask of training tiles (height, width), 0..1; positions with a mean >= threshold count as landslide."""

    mean_mask: NDArray[np.float32]
    threshold: float

    @classmethod
    def fit(
        cls, mean_mask: NDArray[np.floating[Any]], masks: Iterable[NDArray[np.uint8]], size: int | None = None
    ) -> Self:
        """Choose the threshold with the highest landslide F1 over training masks.

        Args:
            mean_mask: (height, width), 0..1.
            masks: {0, 1, 255}, of any size; every pixel has the same weight.
            size: resize masks to size x size first, as the evaluation resizes tiles; None: native size.
        """
        histogram = ProbabilityHistogram()
        for mask in masks:
            shape = mask.shape if size is None else (size, size)
            labels = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            histogram.add(_resized(mean_mask, shape), labels)
        return cls(mean_mask.astype(np.float32), best_threshold(histogram)[0])

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the mask (height, width) bool for a tile of that shape."""
        return _resized(self.mean_mask, shape) >= np.float32(self.threshold)

    def write(self, path: Path) -> None:
        """Write `baseline.npz` of a bundle."""
        with path.open("wb") as file:
            np.savez_compressed(file, mean_mask=self.mean_mask, threshold=np.float64(self.threshold))


def _resized(mean_mask: NDArray[np.floating[Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize bilinearly; a mean mask is smooth, so shrinking it needs no filter."""
    height, width = shape
    resized = cv2.resize(mean_mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0, 1)
