"""Pooled scores of predictions, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.object_rule import FittedRule
from lim_keras.errors import ConfigError, DataError
from lim_keras.metrics.binary import Confusion, Estimate, count, estimate, pool
from lim_keras.metrics.calibration import Calibration, ProbabilityHistogram, pool_histograms

ProtocolName = Literal["tiles", "windows", "scene"]

Subset = Literal["landslide", "all"]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image (height, width, bands) of raw pixels with its mask (height, width).

    kind: "landslide" or "non-landslide". group: samples of one group show the same ground; "" is a group of its own.
    """

    name: str
    kind: str
    group: str
    image: NDArray[Any]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Probability of a sample's pixels, 0..1, and their landslide mask by the image-blind baseline."""

    sample: Sample
    probability: NDArray[np.floating[Any]]
    blind: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SampleScore:
    """Confusion counts of a sample, by the model and by the image-blind baseline."""

    name: str
    kind: str
    group: str
    model: Confusion
    blind: Confusion


@dataclass(frozen=True, slots=True)
class SubsetScores:
    """Numbers of samples and labelled pixels of a subset, and scores of the model and of the image-blind baseline.

    landslide_share: landslide pixels over labelled pixels. average_precision: of the model, over all thresholds.
    """

    samples: int
    pixels: int
    landslide_share: float
    average_precision: float
    model: dict[str, Estimate]
    blind: dict[str, Estimate]


@dataclass(frozen=True)
class Evaluation:
    """Result of one protocol at one threshold: counts of each sample, and histograms by kind of sample."""

    protocol: ProtocolName
    threshold: float
    samples: tuple[SampleScore, ...]
    histograms: Mapping[str, ProbabilityHistogram]
    draws: int = 1000
    seed: int = 2022

    @property
    def histogram(self) -> ProbabilityHistogram:
        """Histogram of all samples."""
        return pool_histograms(self.histograms.values())

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """Subsets that have scores; the blocks of a scene have one subset, "all"."""
        kinds = {sample.kind for sample in self.samples}
        return ("landslide", "all") if self.protocol != "scene" and "landslide" in kinds else ("all",)

    def scores(self, subset: Subset = "all") -> SubsetScores:
        """Pool the landslide samples or all samples."""
        chosen = [sample for sample in self.samples if subset == "all" or sample.kind == subset]
        if not chosen:
            raise ConfigError(f"Expected `subset` as one of {self.subsets}. Received: {subset!r}.")
        groups = [sample.group for sample in chosen]
        model, blind = [sample.model for sample in chosen], [sample.blind for sample in chosen]
        histogram = self.histogram if subset == "all" else self.histograms[subset]
        return SubsetScores(
            len(chosen),
            pool(model).pixels,
            histogram.landslide_share,
            histogram.average_precision(),
            estimate(model, groups, self.draws, self.seed),
            estimate(blind, groups, self.draws, self.seed),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return scores of every subset, calibration, curve, and counts of every sample, ready for JSON."""
        histogram = self.histogram
        result: dict[str, Any] = {
            "protocol": self.protocol,
            "threshold": self.threshold,
            "bootstrap": {"draws": self.draws, "seed": self.seed, "level": 0.95},
            "subsets": {subset: asdict(self.scores(subset)) for subset in self.subsets},
            "calibration": {
                "log_loss": histogram.log_loss() if histogram.counts.any() else float("nan"),
                "expected_calibration_error": histogram.expected_calibration_error(),
                "reliability": [asdict(bar) for bar in histogram.reliability()],
            },
            "precision_recall": [asdict(point) for point in curve_points(histogram)],
            "samples": [asdict(sample) for sample in self.samples],
        }
        return {key: _without_nan(value) for key, value in result.items()}


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision and recall of landslide pixels at a threshold."""

    precision: float
    recall: float


def curve_points(histogram: ProbabilityHistogram, most: int = 100) -> tuple[PrecisionRecall, ...]:
    """Return points of the curve of precision and recall, spread evenly over recall; none without both classes."""
    if not histogram.counts.any(axis=1).all():
        return ()
    precision, recall = histogram.precision_recall()
    nearest = {int(np.argmin(np.abs(recall - wanted))) for wanted in np.linspace(1, 0, most)}
    return tuple(PrecisionRecall(float(precision[k]), float(recall[k])) for k in sorted(nearest))


@dataclass
class _Tally:
    """Counts of the predictions so far."""

    threshold: float
    samples: list[SampleScore] = field(default_factory=list)
    histograms: dict[str, ProbabilityHistogram] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        sample = prediction.sample
        model = count(prediction.probability >= self.threshold, sample.mask)
        blind = count(prediction.blind, sample.mask)
        self.samples.append(SampleScore(sample.name, sample.kind, sample.group, model, blind))
        self.histograms.setdefault(sample.kind, ProbabilityHistogram()).add(prediction.probability, sample.mask)


def evaluate(
    predictions: Iterable[Prediction], protocol: ProtocolName, threshold: float, *, draws: int = 1000, seed: int = 2022
) -> Evaluation:
    """Score predictions of one predictor; see `evaluate_side_by_side`."""
    (evaluation,) = evaluate_side_by_side(((one,) for one in predictions), protocol, threshold, draws=draws, seed=seed)
    return evaluation


def evaluate_side_by_side(
    predictions: Iterable[Sequence[Prediction]],
    protocol: ProtocolName,
    threshold: float,
    *,
    draws: int = 1000,
    seed: int = 2022,
) -> list[Evaluation]:
    """Score several predictors at one threshold; each item of `predictions` is one sample, predicted by each of them.

    Args:
        threshold: a pixel with probability >= threshold is landslide, 0..1.
        draws, seed: of the bootstrap.

    Raises:
        DataError: there is no prediction.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"Expected `threshold` in 0..1. Received: {threshold}.")
    tallies: list[_Tally] = []
    for side_by_side in predictions:
        tallies = tallies or [_Tally(threshold) for _ in side_by_side]
        for tally, prediction in zip(tallies, side_by_side, strict=True):
            tally.add(prediction)
    if not tallies:
        raise DataError("Expected at least one sample in `predictions`. Received: none.")
    return [Evaluation(protocol, threshold, tuple(one.samples), one.histograms, draws, seed) for one in tallies]


def pool_evaluations(evaluations: Iterable[Evaluation]) -> Evaluation:
    """Return one evaluation over the samples of all, such as the out-of-fold predictions of several folds."""
    parts = list(evaluations)
    made = {(part.protocol, part.threshold) for part in parts}
    if len(made) != 1:
        raise ConfigError(f"Expected `evaluations` of one protocol and one threshold. Received: {sorted(made)}.")
    histograms = {
        kind: pool_histograms(part.histograms[kind] for part in parts if kind in part.histograms)
        for kind in sorted({kind for part in parts for kind in part.histograms})
    }
    samples = tuple(sample for part in parts for sample in part.samples)
    first = parts[0]
    return Evaluation(first.protocol, first.threshold, samples, histograms, first.draws, first.seed)


@dataclass(frozen=True)
class RunEvaluation:
    """Scores of a training run.

    Attributes:
        threshold, calibration: fitted on the pooled out-of-fold predictions.
        out_of_fold: scores of each fold's model on the tiles held out from it, by fold.
        test: scores of the ensemble, or of the only model, on the test tiles, by protocol.
        test_folds: scores of each model of an ensemble on the test tiles, by fold and protocol.
        object_rule: fitted on the same predictions; None for models that were trained on resized tiles.
    """

    name: str
    threshold: float
    calibration: Calibration
    out_of_fold: dict[int, Evaluation]
    test: dict[str, Evaluation] = field(default_factory=dict)
    test_folds: dict[int, dict[str, Evaluation]] = field(default_factory=dict)
    object_rule: FittedRule | None = None

    @property
    def pooled(self) -> Evaluation:
        """Scores of every tile, predicted by the model that was not trained on it."""
        return pool_evaluations(self.out_of_fold.values())


def _without_nan(value: Any) -> Any:
    """Replace NaN by None, as JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
