"""Folds side by side: a row each, their mean, and what they come to together."""

import numpy as np
import pytest
from rich.console import Console

from lim_keras.evaluation.evaluation import Prediction, Sample, evaluate, pool_evaluations
from lim_keras.metrics.image_blind import everywhere
from lim_keras.report.tables import fold_table


def evaluation(name, tp, fp, fn, tn):
    """One place of one row with so many pixels of each outcome, at threshold .5."""
    probability = np.repeat([0.9, 0.9, 0.1, 0.1], [tp, fp, fn, tn])[None]
    mask = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])[None].astype(np.uint8)
    sample = Sample(name, "landslide", "", mask[..., None], mask)
    return evaluate([Prediction(sample, probability, everywhere(mask.shape))], "windows", 0.5, draws=5)


@pytest.fixture
def folds():
    # F1: 2 x 6 / (12 + 2 + 2) = .75 and 2 x 2 / (4 + 2 + 2) = .5
    return {0: evaluation("a", 6, 2, 2, 10), 3: evaluation("b", 2, 2, 2, 14)}


def cells(table):
    return {
        row[0]: row[1:] for row in zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    }


def test_folds_their_mean_and_together(folds):
    rows = cells(fold_table(folds, pool_evaluations(folds.values()), "Table 3"))
    assert list(rows) == ["fold 0", "fold 3", "mean of the folds", "pooled"]
    # accuracy 16/20 and 16/20; precision and recall 6/8 and 2/4; IoU 6/10 and 2/6;
    # mIoU (6/10 + 10/14) / 2 = .657 and (2/6 + 14/18) / 2 = .556
    firsts = {name: [cell.split()[0] for cell in row] for name, row in rows.items()}
    assert firsts["fold 0"] == [".800", ".750", ".750", ".750", ".600", ".657"]
    assert firsts["fold 3"] == [".800", ".500", ".500", ".500", ".333", ".556"]
    assert firsts["mean of the folds"] == [".800", ".625", ".625", ".625", ".467", ".606"]
    # together 8, 4, 4, 24: accuracy 32/40, precision and recall 8/12, F1 16/24, IoU 8/16, mIoU (8/16 + 24/32) / 2
    assert firsts["pooled"] == [".800", ".667", ".667", ".667", ".500", ".625"]


def test_one_model_has_no_mean(folds):
    assert list(cells(fold_table({0: folds[0]}, None, "one"))) == ["fold 0"]


def test_an_ensemble_is_called_so(folds):
    table = fold_table(folds, folds[0], "test", last="ensemble")
    assert list(cells(table))[-1] == "ensemble"


def test_it_prints_with_brackets_title_and_caption(folds):
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(fold_table(folds, pool_evaluations(folds.values()), "Table 3 on our tiles"))
    text = capture.get()
    assert "Table 3 on our tiles" in text and "95 % intervals in brackets" in text
    assert ".750 [" in text and "IoU landslide" in text
