"""Tables and lines that the commands print."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from lim_keras.bundle.info import LiteRtFigures
from lim_keras.evaluation.evaluation import Evaluation, Prediction, Sample, evaluate, pool_evaluations
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.calibration import everywhere
from lim_keras.metrics.detections import Detections, DetectionScore
from lim_keras.report.bundle_tables import litert_markdown, litert_table
from lim_keras.report.tables import (
    detections_table,
    evaluation_table,
    fold_table,
    format_estimate,
    format_number,
    heading,
    print_result,
)


def evaluation(name: str, tp: int, fp: int, fn: int, tn: int) -> Evaluation:
    """One sample of one row with so many pixels of each outcome, at threshold .5."""
    probability = np.repeat([0.9, 0.9, 0.1, 0.1], [tp, fp, fn, tn])[None]
    mask = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])[None].astype(np.uint8)
    sample = Sample(name, "landslide", "", mask[..., None], mask)
    return evaluate([Prediction(sample, probability, everywhere(mask.shape))], "windows", 0.5, draws=5)


def printed(table: Table, width: int = 150) -> list[list[str]]:
    """The lines of a table, each as its cells."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] or [line.strip()] for line in text.splitlines()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.6814, ".681"),
        (1.0, "1.000"),
        (0.9999, "1.000"),
        (0.0, ".000"),
        (-0.1234, "-.123"),
        (-1.0, "-1.000"),
        (math.nan, "-"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert format_number(value) == text


def test_interval_in_brackets() -> None:
    assert format_estimate(Estimate(0.5, 0.25, 1.0)) == ".500 [.250\N{NO-BREAK SPACE}1.000]"


def test_protocols_side_by_side() -> None:
    mask = np.array([[1, 0], [1, 0]], np.uint8)
    sample = Sample("a", "landslide", "", np.zeros((2, 2, 3), np.uint8), mask)
    prediction = Prediction(sample, np.array([[0.9, 0.1], [0.1, 0.1]], np.float32), everywhere((2, 2)))
    lines = printed(
        evaluation_table([evaluate([prediction], name, 0.5) for name in ("tiles", "windows", "scene")], "[bundle]")
    )
    assert lines[0] == ["[bundle]"]
    assert lines[2][1:] == ["landslide tiles", "all tiles", "landslide windows", "all windows", "scene"]
    rows = {line[0]: line[1:] for line in lines}
    # tp 1, fn 1: f1 = 2 / 3; everything is landslide: 2 * .5 / 1.5 = 2 / 3; precision 1
    assert rows["F1"] == [".667 [- -]"] * 5  # one group of samples has no interval
    assert rows["precision"] == ["1.000 [- -]"] * 5
    assert rows["blind F1"] == [".667 [- -]"] * 5
    assert rows["landslide pixels"] == ["50.0%"] * 5


@pytest.fixture
def folds() -> dict[int, Evaluation]:
    # F1: 2 x 6 / (12 + 2 + 2) = .75 and 2 x 2 / (4 + 2 + 2) = .5
    return {0: evaluation("a", 6, 2, 2, 10), 3: evaluation("b", 2, 2, 2, 14)}


def cells(table: Table) -> dict[str, list[str]]:
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    return {name: values for name, *values in rows}


def test_folds_their_mean_and_together(folds: dict[int, Evaluation]) -> None:
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


def test_one_model_has_no_mean(folds: dict[int, Evaluation]) -> None:
    assert list(cells(fold_table({0: folds[0]}, None, "one"))) == ["fold 0"]


def test_an_ensemble_is_called_so(folds: dict[int, Evaluation]) -> None:
    assert list(cells(fold_table(folds, folds[0], "test", last="ensemble")))[-1] == "ensemble"


def test_folds_print_with_brackets_title_and_caption(folds: dict[int, Evaluation]) -> None:
    lines = printed(fold_table(folds, pool_evaluations(folds.values()), "Table 3 on our tiles"), 140)
    assert lines[0] == ["Table 3 on our tiles"] and "95 % intervals in brackets" in lines[-1][0]
    assert lines[2][5] == "IoU landslide"
    assert next(line for line in lines if line[0] == "fold 0")[4].startswith(".750 [")


def test_detections_by_area() -> None:
    # one of two found, the one prediction is right: f1 = 2 * 1 * .5 / 1.5
    scores = {"all": DetectionScore(2, 1, 1, 1), "medium": DetectionScore(0, 0, 0, 0)}
    rows = printed(detections_table(Detections(scores, scores)), 100)
    assert ["all", "1", "2", ".500", "1", "1", "1.000", ".667"] in rows
    assert ["1,000 to 10,000 m²", "0", "0", "-", "0", "0", "-", "-"] in rows


def test_litert_files_in_a_table_and_in_a_model_card() -> None:
    measured = {
        "windows": 9,
        "side": 512,
        "milliseconds_per_tile": 21.1,
        "saved_model_f1": 0.7,
        "saved_model_iou": None,
    }
    scores = {"landslide_f1": 0.6995, "landslide_iou": None, "max_difference": 0.44, "mean_difference": 0.0035}
    figures = LiteRtFigures(bytes=2_470_000, tile=None, limit="IoU loss <= 0.01", within=False, **measured, **scores)
    expected = [
        "fold_0_int8.tflite",
        "2.47 MB",
        "any",
        "21.1 (512 px)",
        "0.6995",
        "",
        "0.7000",
        "",
        "4.4e-01",
        "3.5e-03",
    ]
    files = {"fold_0_int8.tflite": figures}
    lines = printed(litert_table(files, ["fold_0_int8.tflite"]), 200)
    assert lines[0] == ["LiteRT files, beside the SavedModel on 9 windows of 512 px"]
    assert [*expected, "IoU loss <= 0.01", "refused"] in lines
    assert [*expected, "IoU loss <= 0.01", "not met"] in printed(litert_table(files), 200)
    assert f"| {' | '.join([*expected, 'IoU loss <= 0.01', 'not met'])} |" in litert_markdown(files)
    assert litert_markdown({}) == ""


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "[red]:car:" / ("x" * 200)
    print_result([f"picture: {path}", heading("1. A world", ": [bold]mountains")])
    assert capsys.readouterr().out == f"picture: {path}\n1. A world: [bold]mountains\n"
