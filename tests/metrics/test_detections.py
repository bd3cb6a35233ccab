"""Scores of landslides polygon by polygon, counted by hand."""

import json
import math

import numpy as np
import pytest
from shapely import Polygon, box

from lim_keras.metrics.detections import Detections, DetectionScore, match_polygons, overlapping


def square(x: float, y: float, width: float, height: float | None = None) -> Polygon:
    return box(x, y, x + width, y + (height or width))


def match(predicted: list[Polygon], mapped: list[Polygon], unit_m2: float = 1.0) -> Detections:
    polygons = [np.array(shapes, object).reshape(-1) for shapes in (mapped, predicted)]
    areas = [np.array([shape.area * unit_m2 for shape in shapes]) for shapes in (mapped, predicted)]
    return match_polygons(*polygons, *areas)


def counts(score: DetectionScore) -> tuple[int, int, int, int]:
    return score.truth, score.found, score.predicted, score.right


def test_polygons_that_share_area_are_those_that_any_overlap_counts() -> None:
    mapped = [square(0, 0, 10), square(100, 0, 10), square(200, 0, 10)]
    predicted = [square(5, 5, 10), square(110, 0, 10), square(198, 2, 4), square(206, 2, 2), square(500, 0, 1)]
    found, right = overlapping(np.array(mapped, object), np.array(predicted, object))
    assert found.tolist() == [True, False, True]
    assert right.tolist() == [True, False, True, True, False], "a common border is not enough"
    score = match(predicted, mapped).any_overlap["all"]
    assert (score.found, score.right) == (found.sum(), right.sum())
    none = np.zeros(0, object)
    assert [one.tolist() for one in overlapping(none, np.array(predicted, object))] == [[], [False] * 5]


def test_counts_by_hand() -> None:
    mapped = [square(0, 0, 10), square(100, 0, 10), square(200, 0, 10), square(300, 0, 10)]
    predicted = [
        square(0, 0, 10, 5),  # IoU 50 / 100 = .5: reaches it
        square(100, 0, 10, 4),  # 40 / 100: overlaps only
        square(210, 0, 10),  # shares an edge: no overlap
        square(400, 0, 10),
        square(102, 8, 2),  # a second one on the second landslide
    ]
    scores = match(predicted, mapped)
    assert counts(scores.iou_50["all"]) == (4, 1, 5, 1)
    assert counts(scores.any_overlap["all"]) == (4, 2, 5, 3)
    overlap = scores.any_overlap["all"]
    # recall 2 / 4, precision 3 / 5: f1 = 2 * .5 * .6 / 1.1
    assert (overlap.recall, overlap.precision) == (0.5, 0.6)
    assert overlap.f1 == pytest.approx(0.6 / 1.1)


def test_one_prediction_over_two_landslides_is_one_pair() -> None:
    # 10 x 10 twice, side by side, and one of 20 x 10: IoU 100 / 200 with both; only one of them gets it
    scores = match([square(0, 0, 20, 10)], [square(0, 0, 10), square(10, 0, 10)])
    assert counts(scores.iou_50["all"]) == (2, 1, 1, 1)
    assert counts(scores.any_overlap["all"]) == (2, 2, 1, 1)


def test_truth_that_overlaps_itself_is_paired_best_first() -> None:
    # IoU of the 10 x 10 prediction: 80 / 100 with the first, 90 / 100 with the second, 100 / 100 with itself
    first, second = square(0, 0, 10, 8), square(0, 0, 10, 9)
    assert counts(match([square(0, 0, 10)], [first, second]).iou_50["all"]) == (2, 1, 1, 1)
    # the second prediction is 8 / 9 of the second landslide and all of the first: both find their own
    assert counts(match([square(0, 0, 10), first], [first, second]).iou_50["all"]) == (2, 2, 2, 2)


def test_classes_by_the_area_of_each_side() -> None:
    # mapped: 900 m2, 2,500 m2, 14,400 m2; predicted: 1,200 m2 (IoU 900 / 1200), 2,500 m2 elsewhere, 14,400 m2
    mapped = [square(0, 0, 30), square(500, 0, 50), square(1000, 0, 120)]
    predicted = [square(0, 0, 40, 30), square(700, 0, 50), square(1000, 0, 120)]
    scores = match(predicted, mapped).iou_50
    assert list(scores) == ["all", "small", "medium", "large"]
    assert counts(scores["small"]) == (1, 1, 0, 0)
    assert counts(scores["medium"]) == (1, 0, 2, 1)
    assert counts(scores["large"]) == (1, 1, 1, 1)
    # small: recall 1, but no small prediction that could be right
    assert scores["small"].recall == 1 and math.isnan(scores["small"].precision) and math.isnan(scores["small"].f1)
    assert (scores["medium"].recall, scores["medium"].precision, scores["medium"].f1) == (0, 0.5, 0)


def test_bounds_belong_to_the_middle_class() -> None:
    # pixels of 100 m2: 10 and 100 of them are 1,000 and 10,000 m2, one less and one more are not
    shapes = [square(1000 * k, 0, pixels, 1) for k, pixels in enumerate((9, 10, 100, 101))]
    scores = match(shapes, shapes, unit_m2=100.0).iou_50
    assert [scores[name].truth for name in ("small", "medium", "large")] == [1, 2, 1]


def test_without_areas_there_are_no_classes() -> None:
    scores = match([square(0, 0, 2)], [square(0, 0, 2)], unit_m2=math.nan)
    assert list(scores.iou_50) == ["all"]
    assert scores.iou_50["all"].f1 == 1
    assert list(scores.to_dict()["iou_50"]) == ["all"]


@pytest.mark.parametrize(
    ("predicted", "truth", "ratios"),
    [
        (0, 0, (None, None, None)),
        (0, 2, (None, 0.0, 0.0)),
        (3, 0, (0.0, None, 0.0)),
    ],
)
def test_nothing_to_count(predicted: int, truth: int, ratios: tuple[float | None, ...]) -> None:
    called, mapped = ([square(100 * k, 0, 10) for k in range(number)] for number in (predicted, truth))
    scores = match(called, mapped).to_dict()
    for criterion in ("iou_50", "any_overlap"):
        score = scores[criterion]["all"]
        assert (score["predicted"], score["truth"]) == (predicted, truth)
        assert (score["precision"], score["recall"], score["f1"]) == ratios


def test_json() -> None:
    scores = match([square(0, 0, 10)], [square(0, 0, 10), square(500, 0, 200)])
    stored = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert stored["area_classes_m2"] == {"small": [0, 1000], "medium": [1000, 10000], "large": [10000, None]}
    # one of two found, the one prediction is right: f1 = 2 * 1 * .5 / 1.5
    expected = {"truth": 2, "found": 1, "predicted": 1, "right": 1, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    assert stored["any_overlap"]["all"] == pytest.approx(expected)
    assert stored["iou_50"]["medium"]["f1"] is None
