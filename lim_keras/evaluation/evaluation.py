"""Pooled scores of predictions, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lim_keras.metrics.binary import Confusion, Estimate, count, estimate, pool
from lim_keras.metrics.calibration import Calibration, ProbabilityHistogram, pool_histograms

ProtocolName = Literal["tiles", "windows", "scene"]

Subset = Literal["landslide", "all"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One place and its truth.

    image: (height, width, bands) raw pixels. mask: (height, width) uint8, 1 landslide, 0 background, 255 ignored.
    kind: "landslide" or "non-landslide". group: places of one group share ground; "" is a group of its own.
    """

    name: str
    kind: str
    group: str
    image: NDArray[Any]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted for a place.

    probability: (height, width) float, 0..1. blind: (height, width) bool, what a predictor that never looks at the
    image calls landslide there.
    """

    place: Sample
    probability: NDArray[np.floating[Any]]
    blind: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlaceScore:
    """Counts of one place, of the model and of the image-blind baseline."""

    name: str
    kind: str
    group: str
    model: Confusion
    blind: Confusion


@dataclass(frozen=True, slots=True)
class Figures:
    """Scores over the places of one subset, each with its 95 % interval.

    landslide_share: landslide pixels over labelled pixels. average_precision: over all thresholds, of the model.
    """

    places: int
    pixels: int
    landslide_share: float
    average_precision: float
    model: dict[str, Estimate]
    blind: dict[str, Estimate]


@dataclass(frozen=True)
class Evaluation:
    """The result of one protocol at one threshold.

    histograms: by kind of place; their sum is that of all pixels. draws, seed: of the bootstrap behind the intervals.
    """

    protocol: ProtocolName
    threshold: float
    places: tuple[PlaceScore, ...]
    histograms: Mapping[str, ProbabilityHistogram]
    draws: int = 1000
    seed: int = 2022

    @property
    def histogram(self) -> ProbabilityHistogram:
        """Of all places."""
        return pool_histograms(self.histograms.values())

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """What figures can be had of: a scene is one piece of ground, other places can be told by their kind."""
        kinds = {place.kind for place in self.places}
        return ("landslide", "all") if self.protocol != "scene" and "landslide" in kinds else ("all",)

    def figures(self, subset: Subset = "all") -> Figures:
        """Scores with intervals, pooled over the landslide places or over all.

        Raises:
            ValueError: there is no such place.
        """
        chosen = [place for place in self.places if subset == "all" or place.kind == subset]
        if not chosen:
            raise ValueError(
                f"Invalid value for argument `subset`. Expected one of {self.subsets}. Received: {subset!r}"
            )
        groups = [place.group for place in chosen]
        model, blind = [place.model for place in chosen], [place.blind for place in chosen]
        histogram = self.histogram if subset == "all" else self.histograms[subset]
        return Figures(
            len(chosen),
            pool(model).pixels,
            histogram.landslide_share,
            histogram.average_precision(),
            estimate(model, groups, self.draws, self.seed),
            estimate(blind, groups, self.draws, self.seed),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: figures of every subset, calibration, and the counts of every place."""
        histogram = self.histogram
        result: dict[str, Any] = {
            "protocol": self.protocol,
            "threshold": self.threshold,
            "bootstrap": {"draws": self.draws, "seed": self.seed, "level": 0.95},
            "subsets": {subset: asdict(self.figures(subset)) for subset in self.subsets},
            "calibration": {
                "log_loss": histogram.log_loss() if histogram.counts.any() else float("nan"),
                "expected_calibration_error": histogram.expected_calibration_error(),
                "reliability": [asdict(bar) for bar in histogram.reliability()],
            },
            "places": [asdict(place) for place in self.places],
        }
        return {key: _without_nan(value) for key, value in result.items()}


@dataclass
class _Tally:
    """Counts while predictions pass by."""

    threshold: float
    places: list[PlaceScore] = field(default_factory=list)
    histograms: dict[str, ProbabilityHistogram] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        place = prediction.place
        model = count(prediction.probability >= self.threshold, place.mask)
        self.places.append(PlaceScore(place.name, place.kind, place.group, model, count(prediction.blind, place.mask)))
        self.histograms.setdefault(place.kind, ProbabilityHistogram()).add(prediction.probability, place.mask)


def evaluate(
    predictions: Iterable[Prediction],
    protocol: ProtocolName,
    threshold: float,
    *,
    draws: int = 1000,
    seed: int = 2022,
) -> Evaluation:
    """Score predictions at a threshold: probability >= threshold is landslide.

    Raises:
        ValueError: no prediction came, or the threshold is outside 0..1.
    """
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
    """Score several predictors that come place by place, all at one threshold; an evaluation each, in their order.

    Args:
        predictions: for every place one of each predictor, of always as many.

    Raises:
        ValueError: no prediction came, or the threshold is outside 0..1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"Invalid value for argument `threshold`. Expected 0..1. Received: threshold={threshold}")
    tallies: list[_Tally] = []
    for side_by_side in predictions:
        tallies = tallies or [_Tally(threshold) for _ in side_by_side]
        for tally, prediction in zip(tallies, side_by_side, strict=True):
            tally.add(prediction)
    if not tallies:
        raise ValueError("Invalid value for argument `predictions`. Expected at least one place. Received: none")
    return [Evaluation(protocol, threshold, tuple(one.places), one.histograms, draws, seed) for one in tallies]


def pool_evaluations(evaluations: Iterable[Evaluation]) -> Evaluation:
    """One evaluation of the places of all, as for out-of-fold predictions of several folds.

    Raises:
        ValueError: they are of different protocols or thresholds, or there is none.
    """
    parts = list(evaluations)
    kinds = {(part.protocol, part.threshold) for part in parts}
    if len(kinds) != 1:
        raise ValueError(f"Expected `evaluations` of one protocol and one threshold. Received: {sorted(kinds)}")
    kinds_of_place = {kind for part in parts for kind in part.histograms}
    histograms = {
        kind: pool_histograms(part.histograms[kind] for part in parts if kind in part.histograms)
        for kind in sorted(kinds_of_place)
    }
    places = tuple(place for part in parts for place in part.places)
    first = parts[0]
    return Evaluation(first.protocol, first.threshold, places, histograms, first.draws, first.seed)


@dataclass(frozen=True)
class RunEvaluation:
    """Scores of a training run.

    Attributes:
        name: of the run.
        threshold, calibration: fitted on the pooled out-of-fold predictions.
        out_of_fold: by fold, the scores of its model on the tiles held out from it.
        test: by protocol, the scores of the ensemble, or of the only model, on the test tiles.
        test_folds: by fold and protocol, the scores of each model of an ensemble on the test tiles.
    """

    name: str
    threshold: float
    calibration: Calibration
    out_of_fold: dict[int, Evaluation]
    test: dict[str, Evaluation] = field(default_factory=dict)
    test_folds: dict[int, dict[str, Evaluation]] = field(default_factory=dict)

    @property
    def pooled(self) -> Evaluation:
        """Scores of every tile, predicted by the model that was not trained on it."""
        return pool_evaluations(self.out_of_fold.values())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that nothing was measured for becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
