"""Evaluations as tables for a terminal."""

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lim_keras.evaluation.confusion import Estimate
from lim_keras.evaluation.scoring import Evaluation, Figures, Subset

_SCORES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou_landslide": "IoU landslide",
    "iou_background": "IoU background",
    "miou": "mIoU",
    "mcc": "MCC",
}
_BLIND_SCORES = ("f1", "iou_landslide", "miou")


def format_number(value: float) -> str:
    """A score in three digits, as in the paper without the leading zero: .681; "-" where nothing was measured."""
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def format_estimate(estimate: Estimate) -> str:
    """A score with its interval: .681 [.612 .743]; a narrow table breaks it before the bracket only."""
    value, low, high = (format_number(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}\N{NO-BREAK SPACE}{high}]"


def evaluation_table(evaluations: Sequence[Evaluation], title: str) -> Table:
    """Protocols side by side: every score with its 95 % interval, and below what an image-blind predictor gets."""
    table = Table(title=title, caption="In brackets: 95 % interval. Blind: a predictor that never looks at the image.")
    table.add_column("")
    columns: list[Figures] = []
    for evaluation in evaluations:
        for subset in evaluation.subsets:
            table.add_column(_heading(evaluation, subset))
            columns.append(evaluation.figures(subset))
    for score, name in _SCORES.items():
        _add(table, name, [format_estimate(figures.model[score]) for figures in columns], bold=score == "f1")
    _add(table, "average precision", [format_number(figures.average_precision) for figures in columns])
    table.add_section()
    for score in _BLIND_SCORES:
        _add(table, f"blind {_SCORES[score]}", [format_estimate(figures.blind[score]) for figures in columns])
    table.add_section()
    _add(table, "places", [f"{figures.places}" for figures in columns])
    _add(table, "landslide pixels", [f"{figures.landslide_share:.1%}" for figures in columns])
    return table


def _heading(evaluation: Evaluation, subset: Subset) -> str:
    if evaluation.protocol == "scene":
        return "scene"
    return f"landslide {evaluation.protocol}" if subset == "landslide" else f"all {evaluation.protocol}"


def _add(table: Table, name: str, cells: list[str], *, bold: bool = False) -> None:
    # Text, because rich would take square brackets in a string for markup.
    style = "bold" if bold else ""
    table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))
