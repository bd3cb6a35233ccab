"""What is printed: numbers, intervals in brackets, the baseline below."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from lim_keras.evaluation.evaluation import Prediction, Sample, evaluate
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.image_blind import everywhere
from lim_keras.report.tables import evaluation_table, format_estimate, format_number


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
    evaluations = [evaluate([prediction], protocol, 0.5) for protocol in ("tiles", "windows", "scene")]
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(evaluation_table(evaluations, "a bundle"))
    lines = console.export_text().replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert "a bundle" in lines[0]
    for heading in ("landslide tiles", "all tiles", "landslide windows", "all windows", "scene"):
        assert heading in lines[2]
    rows = {line.split("│")[1].strip(): line for line in lines if line.count("│") == 7}
    # tp 1, fn 1: f1 = 2 / 3; everything is landslide: 2 * .5 / 1.5 = 2 / 3; precision 1
    assert rows["F1"].count(".667 [.667 .667]") == 5
    assert rows["precision"].count("1.000 [1.000 1.000]") == 5
    assert rows["blind F1"].count(".667 [.667 .667]") == 5
    assert rows["landslide pixels"].count("50.0%") == 5
