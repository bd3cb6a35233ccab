"""Curves of the models: training, precision and recall, and reliability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lim_keras.evaluation.evaluation import Evaluation, PrecisionRecall, Subset
from lim_keras.metrics.binary import Confusion, pool
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.report.model_charts import (
    History,
    PrecisionRecallCurve,
    precision_recall_chart,
    reliability_chart,
    training_chart,
)
from lim_keras.report.parts import Drawing, Part, Table
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.experiments import METHODS
from lim_keras.reproduction.measures import LABELS, finished_scores, hashes
from lim_keras.reproduction.scores import ExperimentScores
from lim_keras.training.finalize import read_history

TITLE = "Curves: training, precision and recall, reliability"

_TRAINED = {"whole": "Whole tiles", "windows": "Windows"}
_TILES, _WINDOWS, _SCENE = "Landslide test tiles", "Random windows", "Scene"


@dataclass(frozen=True, slots=True)
class PixelCurves:
    """Histogram of the predicted pixels of a model, and their confusion at the model's threshold."""

    histogram: ProbabilityHistogram
    at_threshold: Confusion

    @property
    def curve(self) -> PrecisionRecallCurve:
        """Precision over recall."""
        points = [PrecisionRecall(*point) for point in zip(*self.histogram.precision_recall(), strict=True)]
        scores = self.at_threshold.scores()
        point = PrecisionRecall(scores["precision"], scores["recall"])
        return PrecisionRecallCurve(points, self.histogram.average_precision(), point)


Groups = Mapping[str, Mapping[str, PixelCurves]]


def make_curves(context: ReproductionContext) -> Part:
    """Draw the training of each method, its precision over recall, and its reliability."""
    names = [f"{examples}_{method}" for examples in _TRAINED for method in METHODS]
    found = finished_scores(context, names)
    lacking = [f"`{name}`" for name in names if name not in found]
    text = [f"Not shown, because the experiment is not finished: {', '.join(lacking)}."] if lacking else []
    if not found:
        return Part("curves", TITLE, tuple(text))
    text.append(
        "Losses of FCN and of the other networks cannot be compared: FCN has cross-entropy, the others focal loss. "
        "FCN-FLK has a thin line for each fold."
    )
    groups = _groups(found)
    drawings = [Drawing("curves_training", _TRAINING, training_chart(_histories(context, found)))]
    if groups:
        curves = {title: {name: one.curve for name, one in models.items()} for title, models in groups.items()}
        drawings.append(Drawing("curves_precision_recall", _PRECISION_RECALL, precision_recall_chart(curves)))
        bars = {
            title: {name: one.histogram.reliability() for name, one in models.items()}
            for title, models in groups.items()
        }
        drawings.append(Drawing("curves_reliability", _RELIABILITY, reliability_chart(bars)))
    return Part("curves", TITLE, tuple(text), _tables(groups, found), tuple(drawings))


_TRAINING = "Loss and landslide F1 of each epoch, on training and on validation tiles."
_PRECISION_RECALL = (
    "Precision over recall for all thresholds. A mark shows the model's own threshold, which was chosen on tiles of "
    "its training set; grey lines join points of equal F1. AP is average precision."
)
_RELIABILITY = (
    "Upper panels: share of landslide pixels over the predicted probability. A curve below the diagonal means that the "
    "probability is too high. Lower panels: number of pixels."
)


def _histories(
    context: ReproductionContext, found: Mapping[str, ExperimentScores]
) -> dict[str, dict[str, list[History]]]:
    groups: dict[str, dict[str, list[History]]] = {}
    for name in found:
        examples, _, method = name.partition("_")
        run = context.run(name)
        histories: list[History] = [read_history(run, fold) for fold in run.held_out_folds]
        groups.setdefault(_TRAINED[examples], {})[LABELS[method]] = histories
    return groups


def _groups(found: Mapping[str, ExperimentScores]) -> dict[str, dict[str, PixelCurves]]:
    """Return the curves by kind of test sample: tiles for models of whole tiles, windows and scene for the others."""
    groups: dict[str, dict[str, PixelCurves]] = {}
    for name, scores in found.items():
        examples, _, method = name.partition("_")
        for title, evaluation, subset in _evaluations(examples, scores):
            curves = pixel_curves(evaluation, subset)
            if curves.histogram.counts.any(axis=1).all():
                groups.setdefault(title, {})[LABELS[method]] = curves
    return groups


def _evaluations(examples: str, scores: ExperimentScores) -> Iterator[tuple[str, Evaluation, Subset]]:
    if examples == "whole":
        yield f"{_TILES}, models of whole tiles", scores.tiles, "landslide"
        return
    yield f"{_WINDOWS}, models of windows", scores.windows, "all"
    if scores.scene is not None:
        yield f"{_SCENE}, models of windows", scores.scene, "all"


def pixel_curves(evaluation: Evaluation, subset: Subset) -> PixelCurves:
    """Return histogram and confusion at the threshold over the landslide samples, or over all samples."""
    histogram = evaluation.histogram
    if subset != "all":
        histogram = evaluation.histograms.get(subset, ProbabilityHistogram())
    chosen = (sample.model for sample in evaluation.samples if subset in ("all", sample.kind))
    return PixelCurves(histogram, pool(chosen))


def _tables(groups: Groups, found: Mapping[str, ExperimentScores]) -> tuple[Table, ...]:
    rows = tuple(
        (title, name, scores["precision"], scores["recall"], scores["f1"], *_of_histogram(one.histogram))
        for title, models in groups.items()
        for name, one in models.items()
        for scores in (one.at_threshold.scores(),)
    )
    if not rows:
        return ()
    columns = (
        *("evaluated on", "method", "precision", "recall", "F1"),
        *("average precision", "expected calibration error"),
    )
    notes = ("Precision, recall and F1 are those of the model's own threshold.",)
    title = "Average precision and calibration"
    return (Table("curves_calibration", title, columns, rows, notes, hashes(found)),)


def _of_histogram(histogram: ProbabilityHistogram) -> tuple[float, float]:
    return histogram.average_precision(), histogram.expected_calibration_error()
