"""Landslides as polygons: counts by hand, in any CRS."""

import io
import json
import math
import re

import geopandas
import pytest
import shapely
from rich.console import Console
from shapely import MultiPolygon, Polygon, box

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.metrics.detections import DetectionScore, score_detections
from lim_keras.report.tables import detections_table
from tests.evaluation.conftest import EAST, NORTH, frame, square


def plain(x: float, y: float, width: float, height: float | None = None) -> Polygon:
    return box(x, y, x + width, y + (height or width))


def counts(score: DetectionScore) -> tuple[int, int, int, int]:
    return score.truth, score.found, score.predicted, score.right


def test_counts_by_hand() -> None:
    truth = frame(square(0, 0, 10), square(100, 0, 10), square(200, 0, 10), square(300, 0, 10))
    predicted = frame(
        square(0, 0, 10, 5),  # IoU 50 / 100 = .5: reaches it
        square(100, 0, 10, 4),  # 40 / 100: overlaps only
        square(210, 0, 10),  # shares an edge: no overlap
        square(400, 0, 10),
        square(102, 8, 2),  # a second one on the second landslide
    )
    scores = score_detections(predicted, truth)
    assert counts(scores.iou_50["all"]) == (4, 1, 5, 1)
    assert counts(scores.any_overlap["all"]) == (4, 2, 5, 3)
    overlap = scores.any_overlap["all"]
    # recall 2 / 4, precision 3 / 5: f1 = 2 * .5 * .6 / 1.1
    assert (overlap.recall, overlap.precision) == (0.5, 0.6)
    assert overlap.f1 == pytest.approx(0.6 / 1.1)


def test_one_prediction_over_two_landslides_is_one_pair() -> None:
    # 10 x 10 twice, side by side, and one of 20 x 10: IoU 100 / 200 with both; only one of them gets it
    scores = score_detections(frame(square(0, 0, 20, 10)), frame(square(0, 0, 10), square(10, 0, 10)))
    assert counts(scores.iou_50["all"]) == (2, 1, 1, 1)
    assert counts(scores.any_overlap["all"]) == (2, 2, 1, 1)


def test_truth_that_overlaps_itself_is_paired_best_first() -> None:
    # IoU of the 10 x 10 prediction: 80 / 100 with the first, 90 / 100 with the second, 100 / 100 with itself
    first, second = square(0, 0, 10, 8), square(0, 0, 10, 9)
    scores = score_detections(frame(square(0, 0, 10)), frame(first, second))
    assert counts(scores.iou_50["all"]) == (2, 1, 1, 1)
    # the second prediction is 8 / 9 of the second landslide and all of the first: both find their own
    scores = score_detections(frame(square(0, 0, 10), first), frame(first, second))
    assert counts(scores.iou_50["all"]) == (2, 2, 2, 2)


def test_classes_by_the_area_of_each_side() -> None:
    # truth: 900 m2, 2,500 m2, 14,400 m2; predicted: 1,200 m2 (IoU 900 / 1200), 2,500 m2 elsewhere, 14,400 m2
    truth = frame(square(0, 0, 30), square(500, 0, 50), square(1000, 0, 120))
    predicted = frame(square(0, 0, 40, 30), square(700, 0, 50), square(1000, 0, 120))
    scores = score_detections(predicted, truth).iou_50
    assert list(scores) == ["all", "small", "medium", "large"]
    assert counts(scores["small"]) == (1, 1, 0, 0)
    assert counts(scores["medium"]) == (1, 0, 2, 1)
    assert counts(scores["large"]) == (1, 1, 1, 1)
    # small: recall 1, but no small prediction that could be right
    assert scores["small"].recall == 1 and math.isnan(scores["small"].precision) and math.isnan(scores["small"].f1)
    assert (scores["medium"].recall, scores["medium"].precision, scores["medium"].f1) == (0, 0.5, 0)


def test_bounds_belong_to_the_middle_class() -> None:
    # pixels of 10 m: 10 and 100 of them are 1,000 and 10,000 m2, one less and one more are not
    shapes = [plain(1000 * k, 0, pixels, 1) for k, pixels in enumerate((9, 10, 100, 101))]
    scores = score_detections(frame(*shapes, crs=None), frame(*shapes, crs=None), gsd_m=10.0).iou_50
    assert [scores[name].truth for name in ("small", "medium", "large")] == [1, 2, 1]


def test_without_crs_and_gsd_there_are_no_classes() -> None:
    scores = score_detections(frame(plain(0, 0, 2), crs=None), frame(plain(0, 0, 2), crs=None))
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
    scores = score_detections(frame(*called), frame(*mapped)).to_dict()
    for criterion in ("iou_50", "any_overlap"):
        score = scores[criterion]["all"]
        assert (score["predicted"], score["truth"]) == (predicted, truth)
        assert (score["precision"], score["recall"], score["f1"]) == ratios


def test_an_inventory_without_landslides_and_without_crs() -> None:
    empty = geopandas.GeoDataFrame({"id": []}, geometry=[])
    assert counts(score_detections(empty, frame(square(0, 0, 10))).iou_50["all"]) == (1, 0, 0, 0)


def test_json_and_table() -> None:
    scores = score_detections(frame(square(0, 0, 10)), frame(square(0, 0, 10), square(500, 0, 200)))
    stored = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert stored["area_classes_m2"] == {"small": [0, 1000], "medium": [1000, 10000], "large": [10000, None]}
    # one of two found, the one prediction is right: f1 = 2 * 1 * .5 / 1.5
    expected = {"truth": 2, "found": 1, "predicted": 1, "right": 1, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    assert stored["any_overlap"]["all"] == pytest.approx(expected)
    assert stored["iou_50"]["medium"]["f1"] is None
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(detections_table(scores))
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in console.export_text().splitlines()]
    assert ["all", "1", "2", ".500", "1", "1", "1.000", ".667"] in rows
    assert ["1,000 to 10,000 m²", "0", "0", "-", "0", "0", "-", "-"] in rows


def test_multi_polygons_count_part_by_part() -> None:
    both = MultiPolygon([square(0, 0, 10), square(100, 0, 10)])
    assert counts(score_detections(frame(square(0, 0, 10)), frame(both)).iou_50["all"]) == (2, 1, 1, 1)
    collection = shapely.GeometryCollection([both, shapely.Point(EAST, NORTH)])
    assert counts(score_detections(frame(both), frame(collection, None)).iou_50["all"]) == (2, 2, 2, 2)


def test_invalid_truth_is_repaired() -> None:
    # a bow tie of two triangles, 10 m wide and 5 m high each
    tie = Polygon([(EAST, NORTH), (EAST + 10, NORTH), (EAST, NORTH + 10), (EAST + 10, NORTH + 10)])
    with pytest.warns(LimKerasWarning, match="truth: 1 of 2 polygons are invalid"):
        scores = score_detections(frame(square(0, 0, 10, 5)), frame(tie, square(100, 0, 10)))
    # the lower triangle is half of the rectangle: IoU 25 / 50
    assert counts(scores.iou_50["all"]) == (3, 1, 1, 1)


def test_what_lies_outside_the_valid_area_is_cut_off() -> None:
    valid = square(0, 0, 100)
    truth = frame(
        square(90, 0, 30, 10),  # 10 x 10 of it inside
        square(200, 0, 10),  # outside
        square(100, 50, 10),  # touches the edge from outside
        Polygon([(EAST + x, NORTH + y) for x, y in ((80, 20), (120, 20), (120, 40), (80, 40), (110, 30))]),  # two legs
    )
    predicted = frame(square(90, 0, 10), square(300, 0, 10))
    scores = score_detections(predicted, truth, valid=valid)
    assert counts(scores.iou_50["all"]) == (3, 1, 1, 1)
    assert counts(scores.any_overlap["all"]) == (3, 1, 1, 1)


def test_arguments_are_left_alone() -> None:
    truth = frame(square(90, 0, 30, 10))
    score_detections(truth, truth, valid=square(0, 0, 100))
    assert truth.geometry.iloc[0].equals(square(90, 0, 30, 10))


def test_truth_in_another_crs() -> None:
    truth = frame(square(0, 0, 200), square(1000, 0, 30))
    scores = score_detections(truth, truth.to_crs("EPSG:4326"))
    assert counts(scores.iou_50["all"]) == (2, 2, 2, 2)
    with pytest.raises(DataError, match=r"both with a CRS, or both without\. Received: WGS 84 / UTM zone 48N and None"):
        score_detections(truth, frame(plain(0, 0, 1), crs=None))
