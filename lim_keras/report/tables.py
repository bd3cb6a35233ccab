"""Result tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from lim_keras.bundle.info import BundleInfo, LiteRtFigures
from lim_keras.evaluation.evaluation import Evaluation, Figures, Subset
from lim_keras.metrics.binary import Estimate

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


_COLUMNS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou_landslide": "IoU landslide",
    "miou": "mIoU",
}


def fold_table(folds: Mapping[int, Evaluation], together: Evaluation | None, title: str, last: str = "pooled") -> Table:
    """A row a fold, their mean, and what they come to together, over all pixels of the places.

    Args:
        folds: evaluation of each fold's model.
        together: of the pooled predictions, or of the ensemble; None where there is one model only.
        title: above the table.
        last: what the last row is called.
    """
    table = Table(title=title, caption="95 % intervals in brackets, from resampling groups of places")
    table.add_column("")
    for name in _COLUMNS.values():
        table.add_column(name)
    rows = {fold: evaluation.figures().model for fold, evaluation in folds.items()}
    for fold, scores in rows.items():
        _add_fold_table(table, f"fold {fold}", [format_estimate(scores[score]) for score in _COLUMNS])
    if together is not None:
        means = [float(np.mean([scores[score].value for scores in rows.values()])) for score in _COLUMNS]
        table.add_section()
        _add_fold_table(table, "mean of the folds", [format_number(mean) for mean in means])
        _add_fold_table(table, last, [format_estimate(together.figures().model[score]) for score in _COLUMNS], "bold")
    return table


def _add_fold_table(table: Table, name: str, cells: list[str], style: str = "") -> None:
    # Text, because rich would take square brackets in a string for markup.
    table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))


COLUMNS = (
    "file",
    "size",
    "windows",
    "milliseconds",
    "landslide F1",
    "IoU",
    "SavedModel F1",
    "IoU",
    "largest difference",
    "mean",
    "limit",
    "",
)

VERDICTS = {True: "met", False: "not met", None: "not measured"}


def litert_rows(info: BundleInfo) -> list[tuple[str, ...]]:
    """One row of `COLUMNS` a file; scores that were not measured are empty."""
    return [_row(name, figures) for name, figures in sorted(info.litert.items())]


def litert_markdown(info: BundleInfo) -> str:
    """The table in a model card; "" where nothing was measured."""
    if not info.litert:
        return ""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *litert_rows(info)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(name: str, figures: LiteRtFigures) -> tuple[str, ...]:
    return (
        name,
        f"{figures.bytes / 1e6:.2f} MB",
        "any" if figures.tile is None else f"{figures.tile} px",
        f"{figures.milliseconds_per_tile:.1f} ({figures.side} px)",
        _score(figures.landslide_f1),
        _score(figures.landslide_iou),
        _score(figures.saved_model_f1),
        _score(figures.saved_model_iou),
        f"{figures.max_difference:.1e}",
        f"{figures.mean_difference:.1e}",
        figures.limit,
        VERDICTS[figures.within],
    )


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
