"""Curves of runs: training, precision-recall, reliability and object rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lim_keras.comparison.comparison import RunComparison
from lim_keras.comparison.recorded_scores import RecordedEvaluation
from lim_keras.comparison.run_folder import RunFolder
from lim_keras.evaluation.evaluation import PrecisionRecall
from lim_keras.report.bundle_tables import describe_fit, rule_rows
from lim_keras.report.model_charts import (
    LARGEST_GROUP,
    PrecisionRecallCurve,
    precision_recall_chart,
    reliability_chart,
    rule_chart,
    short_name,
    training_chart,
)
from lim_keras.report.parts import Drawing, Part, Table, Value

Item = TypeVar("Item")

PROTOCOL_NAMES = {"tiles": "test tiles", "windows": "test windows", "out_of_fold": "held-out tiles"}
"""Protocols in words."""


def training_curves(comparison: RunComparison) -> Part | None:
    """Draw loss and F1 over the epochs; None before the first epoch of any run."""
    histories = {
        run.label: [model.history for model in run.models if model.epochs]
        for run in comparison.runs
        if any(model.epochs for model in run.models)
    }
    caption = "Loss and F1 on validation tiles."
    if len(comparison.runs) == 1:
        caption = "Loss and F1 on validation tiles, and, dotted, on training tiles."
        charts = [
            training_chart({short_name(label): {f"model {k}": [one] for k, one in enumerate(models)}})
            for label, models in histories.items()
        ]
    else:
        groups = chunks(list(histories), LARGEST_GROUP)
        charts = [training_chart({"Runs": {one: histories[one] for one in some}}, training=False) for some in groups]
    drawings = tuple(Drawing(f"curves_{number}", caption, chart) for number, chart in enumerate(charts, 1))
    return Part("curves", "Training curves", (), (), drawings) if drawings else None


def precision_recall(comparison: RunComparison) -> Part | None:
    """Draw precision over recall on each protocol; None without a finished run."""
    caption = (
        "Precision over recall of landslide pixels, over all thresholds. A mark shows the threshold of the run; grey "
        "lines join points of equal F1. AP is average precision."
    )
    drawings = _curve_drawings(comparison, "precision_recall", _precision_recall_curve, precision_recall_chart, caption)
    older = [run.label for run in comparison.finished if run.scores and not run.scores.out_of_fold.precision_recall]
    lines = (
        f"{listed(older)}: finished by an earlier version, which did not record the curve. The command of the run, "
        "repeated, records it.",
    )
    if not drawings and not older:
        return None
    return Part("precision_recall", "Precision and recall", lines if older else (), (), drawings)


def _precision_recall_curve(evaluation: RecordedEvaluation) -> PrecisionRecallCurve | None:
    if not evaluation.precision_recall:
        return None
    scores = evaluation.subsets["all"]
    point = PrecisionRecall(*(scores.model[name].value for name in ("precision", "recall")))
    return PrecisionRecallCurve(evaluation.precision_recall, scores.average_precision, point)


def _curve_drawings(
    comparison: RunComparison,
    name: str,
    content: Callable[[RecordedEvaluation], Any],
    draw: Callable[[dict[str, dict[str, Any]]], Any],
    caption: str,
) -> tuple[Drawing, ...]:
    """Draw a panel for each protocol, a chart for each group of runs; runs without content are left out."""
    drawings = []
    for number, runs in enumerate(chunks(comparison.finished, LARGEST_GROUP), 1):
        panels = {
            PROTOCOL_NAMES[protocol].capitalize(): curves
            for protocol in PROTOCOL_NAMES
            if (curves := {run.label: found for run in runs if (found := _content(run, protocol, content))})
        }
        if panels:
            drawings.append(Drawing(f"{name}_{number}", caption, draw(panels)))
    return tuple(drawings)


def _content(run: RunFolder, protocol: str, content: Callable[[RecordedEvaluation], Any]) -> Any:
    evaluation = None if run.scores is None else run.scores.evaluations.get(protocol)
    return None if evaluation is None else content(evaluation)


def calibration(comparison: RunComparison) -> Part | None:
    """Draw reliability, and list threshold and calibration of each run; None without a finished run."""
    if not comparison.finished:
        return None
    columns = ("run", "threshold", "temperature", "bias")
    errors = tuple(f"calibration error, {title}" for title in PROTOCOL_NAMES.values())
    rows = tuple(_calibration_row(run) for run in comparison.finished)
    notes = (
        "Calibration error: mean gap between probability and share of landslide pixels, weighted by pixels. "
        "Temperature above 1: the network was overconfident.",
    )
    caption = (
        "Upper panels: share of landslide pixels among those of a predicted probability; dashed: perfect. Lower "
        "panels: number of pixels."
    )
    drawings = _curve_drawings(comparison, "reliability", lambda one: one.reliability, reliability_chart, caption)
    table = Table("calibration", "Calibration", (*columns, *errors), rows, notes)
    return Part("calibration", "Calibration", (), (table,), drawings)


def object_rule(comparison: RunComparison) -> Part | None:
    """Draw recall over false alarms, and list the working points of each run; None without an object rule."""
    rules = {run.label: rule for run in comparison.finished if run.scores and (rule := run.scores.object_rule)}
    if not rules:
        return None
    rows = [{"run": label, **row} for label, rule in rules.items() for row in rule_rows(rule)]
    notes = tuple(dict.fromkeys(map(describe_fit, rules.values())))
    table = Table("object_rule", "Working points", tuple(rows[0]), tuple(tuple(row.values()) for row in rows), notes)
    caption = (
        "Recall of landslides over false alarms a square kilometre of held-out tiles: for each recall, the rule of the "
        "fewest false alarms. Marks: working points; cross: every region at the threshold of the run."
    )
    charts = [rule_chart({label: rules[label] for label in some}) for some in chunks(list(rules), LARGEST_GROUP)]
    drawings = tuple(Drawing(f"object_rule_{number}", caption, one) for number, one in enumerate(charts, 1) if one)
    return Part("object_rule", "Object rule", (), (table,), drawings)


def _calibration_row(run: RunFolder) -> tuple[Value, ...]:
    scores = run.scores
    if scores is None:
        return (run.label, *([None] * (3 + len(PROTOCOL_NAMES))))
    known = scores.evaluations
    errors = (known[protocol].calibration_error if protocol in known else None for protocol in PROTOCOL_NAMES)
    return (run.label, scores.threshold, scores.calibration.temperature, scores.calibration.bias, *errors)


def chunks(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Yield the items in groups of at most `most`."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the names with commas, and the number of those beyond `most`."""
    rest = len(names) - most
    return f"{', '.join(names[:most])} and {rest} more" if rest > 0 else ", ".join(names)
