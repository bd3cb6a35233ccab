"""Figures of models side by side: panels, labels and colours, and boxes that are the false detections."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
from affine import Affine
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from shapely import box

from lim_keras.evaluation.evaluation import PrecisionRecall, Sample
from lim_keras.evaluation.scene import SceneMatches, match_landslides
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster
from lim_keras.report import style
from lim_keras.report.model_charts import (
    PrecisionRecallCurve,
    precision_recall_chart,
    reliability_chart,
    rule_chart,
    score_chart,
    training_chart,
)
from lim_keras.report.preview import view_of
from lim_keras.report.region_map import detection_counts, false_boxes, region_map
from lim_keras.report.sample_grids import ComparedSample, augmentation_grid, comparison_grid, truth_picture
from lim_keras.report.scene_maps import MappedScene, any_landslide, scene_maps
from tests.conftest import fitted_rule

TRANSFORM = Affine(2.0, 0, 5e5, 0, -2.0, 3e6)


def written(figure: Figure, path: Path) -> None:
    """It becomes a file in which something is drawn, and nothing reaches over its edges."""
    style.save(figure, path)
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    assert canvas.std() > 5
    for edge in (canvas[0], canvas[-1], canvas[:, 0], canvas[:, -1]):
        assert (edge > 250).all(), "a white margin"


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def words(figure: Figure) -> list[str]:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return texts + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def sample(name: str, height: int, width: int) -> Sample:
    image = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[2:6, 2:12] = 1
    return Sample(name, "landslide", "", image, mask)


def test_models_side_by_side(tmp_path: Path) -> None:
    # truth 40 px; the first model finds all, the second 20 of them and 20 others: F1 2 * 20 / (40 + 40) = .5
    samples = [
        sample("tile_1", 40, 40),
        sample("a_name_that_is_too_long_for_its_cell", 20, 60),
        sample("名" * 20, 90, 20),
    ]
    compared = []
    for one in samples:
        half = np.zeros(one.mask.shape, np.float32)
        half[4:8, 2:12] = 0.45
        compared.append(ComparedSample(one, [one.mask.astype(np.float32), half]))
    figure = comparison_grid(compared, {"FCN": 0.5, "U-Net": 0.4})
    found = titles(figure)
    assert len(figure.axes) == 3 * 4
    assert found[:4] == ["tile_1", "landslide 2.5%", "F1 1.00", "F1 0.50"]
    assert found[4].startswith("…") and found[4].endswith("for_its_cell")
    assert found[8].startswith("…") and len(found[8]) < 20
    for heading in ("Image", "Truth", "FCN", "U-Net", "true positive", "false positive", "false negative"):
        assert words(figure).count(heading) == 1
    written(figure, tmp_path / "grid.png")


def test_one_tile_and_its_copies(tmp_path: Path) -> None:
    one = sample("tile", 30, 30)
    examples = dict.fromkeys(("tile", "left-right flip"), (one.image, one.mask))
    figure = augmentation_grid(examples)
    assert (len(figure.axes), titles(figure)) == (4, ["tile", "left-right flip"])
    written(figure, tmp_path / "augmentation.png")


def test_truth_is_white_on_black() -> None:
    assert truth_picture(np.array([[1, 0, 255]], np.uint8))[0].tolist() == [[255] * 3, [0] * 3, [128] * 3]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(40, 90, (120, 200, 3)).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", values, crs="EPSG:32648", transform=TRANSFORM)


def ground(left: float, top: float, right: float, bottom: float) -> object:
    """A rectangle of pixels, in the scene's CRS."""
    return box(5e5 + 2 * left, 3e6 - 2 * bottom, 5e5 + 2 * right, 3e6 - 2 * top)


def matched(mapped: list[object], predicted: list[object]) -> SceneMatches:
    frames = (geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32648") for shapes in (predicted, mapped))
    return match_landslides(*frames)


MATCHES = (
    [ground(10, 10, 30, 30), ground(150, 80, 160, 90)],
    [ground(15, 15, 40, 30), ground(100, 20, 140, 50), ground(60, 100, 61, 101), ground(20, 80, 26, 88)],
)


def test_boxes_are_the_false_detections(scene: Path, tmp_path: Path) -> None:
    matches = matched(*MATCHES)
    with RasterReader(scene) as reader:
        view = view_of(reader.info, Georeference.of(reader.info))
        figure = region_map(reader, matches, "FCN-FLK")
    boxes = false_boxes(matches, view)
    score = matches.detections.any_overlap["all"]
    assert len(boxes) == score.predicted - score.right == 3
    for drawn, bounds in zip(boxes, ((100, 20, 140, 50), (60, 100, 61, 101), (20, 80, 26, 88)), strict=True):
        assert (drawn[:2] < bounds[:2]).all() and (drawn[2:] > bounds[2:]).all(), "around the polygon"
        np.testing.assert_allclose((drawn[:2] + drawn[2:]) / 2, np.add(bounds[:2], bounds[2:]) / 2)
    collections = [one for one in figure.axes[0].collections if isinstance(one, PolyCollection)]
    assert [len(one.get_paths()) for one in collections] == [3, 3], "each with its casing"
    np.testing.assert_allclose(collections[-1].get_edgecolor()[0, :3], to_rgb(style.FALSE_POSITIVE))


def test_the_table_beside_the_map_counts_by_area(scene: Path, tmp_path: Path) -> None:
    # 20 x 20 px of 2 m are 1,600 m2 and medium, 10 x 10 px are 400 m2; false: 4,800, 4 and 192 m2
    matches = matched(*MATCHES)
    with RasterReader(scene) as reader:
        figure = region_map(reader, matches, "FCN-FLK")
    counts = {name: detection_counts(score) for name, score in matches.detections.any_overlap.items()}
    assert counts == {"all": (2, 1, 1, 3), "small": (1, 0, 1, 2), "medium": (1, 1, 0, 1), "large": (0, 0, 0, 0)}
    table = [text.get_text() for text in figure.axes[-1].texts]
    assert table[:5] == ["Detections", "mapped", "found", "missed", "false"]
    assert table[5:11] == ["all", "", "2", "1", "1", "3"]
    assert table[11:17] == ["small", "< 1,000 m²", "1", "0", "1", "2"]
    written(figure, tmp_path / "map.png")


def test_a_map_without_any_landslide(scene: Path, tmp_path: Path) -> None:
    with RasterReader(scene) as reader:
        figure = region_map(reader, matched([], []), "FCN-FLK")
        assert false_boxes(matched([], []), view_of(reader.info, Georeference.of(reader.info))).shape == (0, 4)
    written(figure, tmp_path / "map.png")


@pytest.mark.parametrize("shape", [(60, 50), (200, 60), (40, 160)])
def test_maps_without_truth(shape: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32648", "transform": TRANSFORM}
    path = write_raster(tmp_path / "scene.tif", rng.integers(100, 3000, (*shape, 3)).astype(np.uint16), **place)
    mask = write_raster(tmp_path / "mask.tif", (rng.random(shape) < 0.02).astype(np.uint8), **place)
    maps = [MappedScene(name, mask, share) for name, share in (("brought to 1 m", 0.0123), ("trained at 10 m", 0.5))]
    with RasterReader(path) as reader:
        figure = scene_maps(reader, maps)
    assert [title.split("\n")[-1] for title in titles(figure)] == ["Scene", "mapped: 1.23%", "mapped: 50.00%"]
    assert words(figure) == ["mapped as landslide"]
    written(figure, tmp_path / "maps.png")


def test_a_single_landslide_pixel_is_seen(tmp_path: Path) -> None:
    mask = np.zeros((7, 11), np.uint8)
    mask[6, 10] = mask[0, 3] = 1
    mask[3, 5] = 255
    path = write_raster(tmp_path / "mask.tif", mask, crs="EPSG:32648", transform=TRANSFORM)
    with RasterReader(path, nodata="none") as reader:
        reduced = any_landslide(reader, 4)
    assert reduced.tolist() == [[True, False, False], [False, False, True]]


def histogram(seed: int) -> ProbabilityHistogram:
    rng = np.random.default_rng(seed)
    mask = (rng.random(500) < 0.2).astype(np.uint8)
    probability = np.clip(0.4 * mask + 0.6 * rng.random(500), 0, 1).astype(np.float32)
    counted = ProbabilityHistogram()
    counted.add(probability, mask)
    return counted


def curve(recall: float) -> PrecisionRecallCurve:
    """Curve from a recall of 1 to one of .2."""
    points = [PrecisionRecall(0.2, 1), PrecisionRecall(0.6, 0.5), PrecisionRecall(1, 0.2)]
    return PrecisionRecallCurve(points, 0.625, PrecisionRecall(0.7, recall))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_precision_recall_marks_the_threshold(groups: int, tmp_path: Path) -> None:
    models = {"FCN": curve(0.4), "a_name_that_is_too_long_for_a_legend": curve(0.3)}
    figure = precision_recall_chart({f"group {k}": models for k in range(groups)})
    assert titles(figure) == [f"group {k}" for k in range(groups)]
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(0.4, 0.7), (0.3, 0.7)]
    drawn = [line for line in axes.lines if list(line.get_xdata()) == [1, 0.5, 0.2]]
    assert [list(line.get_ydata()) for line in drawn] == [[0.2, 0.6, 1]] * 2
    first, second = (text.get_text() for text in axes.get_legend().get_texts())
    assert first == "FCN: AP 0.62" and second.startswith("…") and second.endswith("a_legend: AP 0.62")
    written(figure, tmp_path / "pr.png")


def test_reliability_of_each_model(tmp_path: Path) -> None:
    figure = reliability_chart({"tiles": {"FCN": histogram(1).reliability(), "U-Net": histogram(2).reliability()}})
    assert titles(figure) == ["tiles"]
    assert words(figure) == ["FCN", "U-Net", "perfect"]
    written(figure, tmp_path / "reliability.png")


def test_an_object_rule_has_a_curve_and_four_marks(tmp_path: Path) -> None:
    rule = fitted_rule(balanced=(0.3, 0.7, 0))
    scores = {"false_alarms_km2": Estimate(0.5, 0.1, 1), "recall_any_overlap": Estimate(0.8, 0.7, 0.9)}
    scored = {"scores": scores}
    curve = tuple(
        rule.curve[0].model_copy(update={"recall": recall, "false_alarms_km2": alarms})
        for recall, alarms in ((0.7, 0.2), (0.9, 1.5))
    )
    points = {name: point.model_copy(update=scored) for name, point in rule.working_points.items()}
    changes = {"curve": curve, "working_points": points, "without": rule.without.model_copy(update=scored)}
    figure = rule_chart({"edge": rule.model_copy(update=changes)})
    assert figure is not None
    line, *marks = figure.axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.2, 1.5], [0.7, 0.9])
    assert [(list(mark.get_xdata()), list(mark.get_ydata())) for mark in marks] == [([0.5], [0.8])] * 4
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "edge",
        "sensitive",
        "balanced",
        "strict",
        "all regions",
    ]
    written(figure, tmp_path / "rule.png")
    assert rule_chart({"edge": rule.model_copy(update={"area_km2": None})}) is None  # no ground to count on


def test_scores_with_and_without_an_interval(tmp_path: Path) -> None:
    scores = {"a": (Estimate(0.5, 0.4, 0.6), 0.2), "b": (Estimate(0.7, np.nan, np.nan), 0.3)}
    figure = score_chart({"Test tiles": scores}, ["a", "b"])
    points = [line.get_xdata() for line in figure.axes[0].lines]
    assert [list(np.atleast_1d(one)) for one in points] == [[0.4, 0.6], [0.5], [0.2], [0.7], [0.3]]
    written(figure, tmp_path / "scores.png")


def test_training_has_a_colour_for_each_model_in_all_groups(tmp_path: Path) -> None:
    history = {"loss": [0.5, 0.3], "val_loss": [0.6, 0.4], "f1": [0.2, 0.5], "val_f1": [0.1, 0.4]}
    figure = training_chart({"whole": {"FCN": [history], "FCN-FLK": [history] * 5}, "windows": {"FCN-FLK": [history]}})
    assert titles(figure) == [f"{group}: {name}" for group in ("whole", "windows") for name in ("loss", "landslide F1")]
    assert words(figure) == ["FCN", "FCN-FLK", "validation", "training"]
    assert len(figure.axes[0].lines) == 12
    assert figure.axes[0].lines[-1].get_color() == figure.axes[2].lines[-1].get_color()
    written(figure, tmp_path / "training.png")
    names = ["_begins_with_a_line", "$no$ math", *(f"a_long_name_of_a_run_number_{k}" for k in range(5))]
    alone = training_chart({"Runs": dict.fromkeys(names, [history] * 2)}, training=False)
    assert len(alone.axes[0].lines) == 14 and len(words(alone)) == 7
    written(alone, tmp_path / "validation.png")
