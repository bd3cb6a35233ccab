"""Figures: every one is written whole or not at all, and colours mean what the legend says."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.metrics.calibration import Reliability
from lim_keras.report import figures
from lim_keras.report.figures import as_picture, colour_overlay, shrink
from lim_keras.report.style import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, new_figure, save


def prediction(name="tile", height=40, width=60):
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 255, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[5:20, 5:20] = 1
    probability = np.zeros((height, width), np.float32)
    probability[8:24, 5:20] = 0.8
    return Prediction(Sample(name, "landslide", "", image, mask), probability, mask == 9)


def picture_of(path):
    picture = cv2.imread(str(path))
    assert picture is not None
    assert (picture[[0, -1]] > 250).all(), "white margins above and below"
    assert picture.std() > 5, "something is drawn"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing is left beside it"
    return picture


def test_training_curves(tmp_path):
    whole = {"loss": [0.5, 0.3], "val_loss": [0.6, 0.4], "f1": [0.2, 0.5], "val_f1": [0.1, 0.4]}
    path = figures.training_curves({"fold 0": whole, "fold 1": {"loss": [0.5]}}, tmp_path / "curves.png")
    picture_of(path)


@pytest.mark.parametrize(
    ("histories", "message"),
    [({}, "at least one history"), ({"fold 3": {"val_loss": [1]}}, "History fold 3: expected a column `loss`")],
)
def test_histories_that_cannot_be_drawn(histories, message, tmp_path):
    with pytest.raises(DataError, match=message):
        figures.training_curves(histories, tmp_path / "curves.png")


def test_legend_colours(tmp_path):
    picture = picture_of(figures.overlay_grid([prediction()], tmp_path / "one.png", title="a sample"))
    for colour in (TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE):
        wanted = np.round(255 * np.array(to_rgb(colour))[::-1])
        assert (np.abs(picture - wanted).max(axis=2) <= 1).sum() > 50, "in the legend"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_overlay_grid(count, tmp_path):
    places = [prediction(f"tile_{k}" * (1 + 8 * (k == 1)), 30 + 20 * k, 50) for k in range(count)]
    picture_of(figures.overlay_grid(places, tmp_path / "grid.png", title="Best places", threshold=0.4))


def test_a_grid_shows_names_and_scores():
    # truth rows 5-19, found rows 8-23, both 15 columns: tp 12 rows, fp 4, fn 3
    # precision 12 / 16 = .75, recall 12 / 15 = .80, f1 24 / (24 + 4 + 3) = .774
    assert figures._sample_title(prediction(), 0.5) == "tile\nF1 0.77, precision 0.75, recall 0.80"
    long = figures._sample_title(prediction("x" * 50), 0.5).splitlines()[0]
    assert long == "…" + "x" * 33


def test_a_grid_needs_a_place(tmp_path):
    with pytest.raises(DataError, match="`predictions`"):
        figures.overlay_grid([], tmp_path / "grid.png")


def test_imbalance_chart(tmp_path):
    picture_of(
        figures.imbalance_chart({"all tiles": 35.0, "landslide tiles": 9.2, "augmented": 0.0}, tmp_path / "i.png")
    )


@pytest.mark.parametrize("ratios", [{}, {"all": float("inf")}, {"all": -1.0}])
def test_ratios_that_cannot_be_drawn(ratios, tmp_path):
    with pytest.raises(DataError, match="`ratios`"):
        figures.imbalance_chart(ratios, tmp_path / "i.png")


def test_reliability_curve(tmp_path):
    bars = [Reliability(k / 4, (k + 1) / 4, 10**k, (k + 0.5) / 4, (k + 0.2) / 4) for k in range(4)]
    picture_of(figures.reliability_curve({"before": bars, "after": bars[:2]}, tmp_path / "r.png"))


@pytest.mark.parametrize("curves", [{}, {"before": []}])
def test_curves_that_cannot_be_drawn(curves, tmp_path):
    with pytest.raises(DataError, match="`curves`"):
        figures.reliability_curve(curves, tmp_path / "r.png")


@pytest.mark.parametrize(("height", "width"), [(300, 200), (120, 400), (1, 1)])
def test_scene_overview(height, width, tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 4000, (height, width, 4)).astype(np.uint16)
    truth = (rng.random((height, width)) < 0.1).astype(np.uint8)
    truth[:, : width // 3] = 255
    probability = rng.random((height, width)).astype(np.float32)
    probability[0, 0] = np.nan
    picture_of(figures.scene_overview(scene, truth, probability, 0.5, tmp_path / "s.png", gsd_m=10.0))


def test_scene_of_another_size_than_its_truth(tmp_path):
    scene = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DataError, match=r"`mask` of the image's shape \(9, 9\)\. Received: \(9, 8\)"):
        figures.scene_overview(scene, np.zeros((9, 8)), np.zeros((9, 9)), 0.5, tmp_path / "s.png")


def test_outcome_colours_by_hand():
    # A grey image of 100 keeps 100 where nothing is drawn; colours cover 72 %: 0.28 * 100 + 0.72 * colour.
    # Ignored ground keeps 45 % of its light.
    image = np.full((1, 5, 3), 100, np.uint8)
    mask = np.array([[1, 0, 1, 0, 255]])
    probability = np.array([[0.6, 0.6, 0.4, 0.4, 0.9]])
    result = colour_overlay(image, mask, probability, threshold=0.5)
    for column, colour in enumerate((TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE)):
        np.testing.assert_allclose(result[0, column], 28 + 0.72 * 255 * np.array(to_rgb(colour)), atol=1)
    assert result[0, 3].tolist() == [100, 100, 100]
    assert result[0, 4].tolist() == [45, 45, 45]


def test_a_pixel_at_the_threshold_is_landslide():
    at = colour_overlay(np.full((1, 1, 3), 100, np.uint8), [[1]], [[0.5]], threshold=0.5)
    np.testing.assert_allclose(at[0, 0], 28 + 0.72 * 255 * np.array(to_rgb(TRUE_POSITIVE)), atol=1)


def test_any_image_becomes_a_picture():
    eight_bit = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(as_picture(eight_bit), eight_bit)
    assert as_picture(np.ones((3, 4, 5), np.uint8)).shape == (3, 4, 3)
    grey = as_picture(np.array([[0.0, 1.0], [np.nan, 0.5]], np.float32))
    # stretched from the 2nd to the 98th percentile of 0, .5, 1 (.02 and .98); NaN is as dark as it gets
    assert grey[..., 0].tolist() == [[0, 255], [0, 127]]
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert as_picture(np.full((2, 2, 3), np.nan)).tolist() == np.zeros((2, 2, 3)).tolist()
    with pytest.raises(DataError, match="`image`"):
        as_picture(np.zeros(7))


def test_shrink_averages_and_never_enlarges():
    values = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert shrink(values, 1).tolist() == [[0.5]]
    assert shrink(values, 10) is values


def test_names_that_are_no_figure(tmp_path):
    with pytest.raises(DataError, match=r"expected a name that ends in one of \.png, \.svg, \.pdf"):
        save(new_figure(1, 1), tmp_path / "figure.bmp")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        save(new_figure(1, 1), tmp_path / "file" / "figure.png")


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_vector_formats(suffix, tmp_path):
    assert save(new_figure(1, 1), tmp_path / f"figure{suffix}").stat().st_size > 0


def test_figures_need_neither_pyplot_nor_tensorflow():
    code = "import sys, lim_keras.report.figures; print({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
