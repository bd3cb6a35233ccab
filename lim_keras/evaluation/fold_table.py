"""Single models and their ensemble side by side, in the manner of the paper's Table 3."""

from collections.abc import Mapping

import numpy as np
from rich.table import Table
from rich.text import Text

from lim_keras.evaluation.scoring import Evaluation
from lim_keras.evaluation.tables import format_estimate, format_number

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
        _add(table, f"fold {fold}", [format_estimate(scores[score]) for score in _COLUMNS])
    if together is not None:
        means = [float(np.mean([scores[score].value for scores in rows.values()])) for score in _COLUMNS]
        table.add_section()
        _add(table, "mean of the folds", [format_number(mean) for mean in means])
        _add(table, last, [format_estimate(together.figures().model[score]) for score in _COLUMNS], "bold")
    return table


def _add(table: Table, name: str, cells: list[str], style: str = "") -> None:
    # Text, because rich would take square brackets in a string for markup.
    table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))
