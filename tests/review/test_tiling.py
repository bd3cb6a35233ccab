"""Tiles from the verdicts of a review, through the command line."""

import json
from contextlib import closing

import geopandas
import numpy as np
import pytest
import shapely
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.raster.images import read_image, read_info
from lim_keras.raster.windows import Box
from lim_keras.review.geopackage import connect
from lim_keras.tiling.labels import LabelOptions, LabelSource
from tests.review.conftest import square


def labels(scene, **options):
    """Labels of the whole scene as `data tile` reads them."""
    source = LabelSource.read(LabelOptions(scene.review, **options))
    info = read_info(scene.image)
    return source.on_scene(info).mask(Box(0, 0, info.height, info.width)), source


def tile(scene, out, *options):
    arguments = ["data", "tile", scene.image, "--labels", str(scene.review), "--out", str(out), "--size", "32"]
    return CliRunner().invoke(main, [*arguments, *options], catch_exceptions=False)


def test_verdicts_and_searched_ground_give_the_labels(scene):
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
        store.judge([2], "rejected")
        store.judge([3], "unsure")
        store.draw(square(80, 10, 10, 10))
        store.mark_searched({"a": square(60, 60, 60, 40)})
    found, source = labels(scene)
    expected = np.full((100, 120), 255, np.uint8)
    expected[60:, 60:] = 0  # searched
    expected[40:50, 40:60] = 0  # rejected
    expected[10:20, 10:20] = 1  # accepted
    expected[10:20, 80:90] = 1  # drawn
    expected[70:72, 100:102] = 255  # unsure, in searched ground
    np.testing.assert_array_equal(found, expected)
    report = source.report()
    assert (report.landslides, report.uncertain, report.rejected, report.features) == (2, 1, 1, 4)


def test_what_an_edit_cuts_off_or_a_deletion_takes_is_background(scene):
    with scene.open_review("Anna") as store:
        store.reshape(2, square(40, 40, 10, 10))  # of 20 x 10
        store.split(1, shapely.LineString([(500_030, 2_999_900), (500_030, 3_000_000)]))
        store.judge([4], "rejected")  # the right half of the first landslide
        store.judge([1], "accepted")
    with closing(connect(scene.review)) as database:
        database.execute("DELETE FROM landslides WHERE fid = 3")
    found, _ = labels(scene)
    expected = np.full((100, 120), 255, np.uint8)
    expected[40:50, 40:50], expected[40:50, 50:60] = 1, 0
    first, second = found[10:20, 10:15], found[10:20, 15:20]
    assert {(int(first.min()), int(first.max())), (int(second.min()), int(second.max()))} == {(0, 0), (1, 1)}
    expected[10:20, 10:20] = found[10:20, 10:20]
    expected[70:72, 100:102] = 0
    np.testing.assert_array_equal(found, expected)


def test_landslides_without_a_verdict_are_ignored_even_in_searched_ground(scene):
    with scene.open_review("Anna") as store:
        store.mark_searched({"all": square(0, 0, 120, 100)})
    found, _ = labels(scene)
    assert (found[40:50, 40:60] == 255).all()
    assert (found == 255).sum() == 100 + 200 + 4


def test_aoi_and_touched_still_count(scene, tmp_path):
    with scene.open_review("Anna") as store:
        store.draw(square(80.6, 10.6, 8, 8))
        store.mark_searched({"all": square(0, 0, 120, 100)})
    geopandas.GeoDataFrame(geometry=[square(60, 0, 60, 50)], crs="EPSG:32648").to_file(tmp_path / "aoi.gpkg")
    found, _ = labels(scene, aoi=tmp_path / "aoi.gpkg", touched=True)
    assert (found[10:19, 80:89] == 1).all()
    assert (found[:, :60] == 255).all()
    assert (found[50:] == 255).all()


def test_tiles_of_a_review_and_hard_negatives_first(scene, tmp_path):
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
        store.judge([2, 3], "rejected")
        store.mark_searched({"all": square(0, 0, 120, 100)})
    done = tile(scene, tmp_path / "tiles", "--background", "1", "--json", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    assert "rejected, background: 2" in done.output
    report = json.loads((tmp_path / "report.json").read_text())
    (one,) = report["scenes"]
    assert (one["landslide_tiles"], one["background_tiles"], one["hard"]) == (1, 1, 1)
    masks = [read_image(path) for path in sorted((tmp_path / "tiles").rglob("*.tif")) if path.parent.name == "masks"]
    assert sorted(int(mask.max()) for mask in masks) == [0, 1]
    with scene.open_review("Eva"):  # who looks at the review does not change the labels
        again = tile(scene, tmp_path / "tiles", "--background", "1")
    assert again.exit_code == 0, again.output


def test_without_labelled_ground_the_error_says_what_to_do(scene, tmp_path):
    scene.open_review("Anna").close()
    done = CliRunner().invoke(main, ["data", "tile", scene.image, "--labels", str(scene.review), "--out", "x"])
    assert done.exit_code == 1
    assert "neither a verdict nor a searched cell" in done.output
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
    done = tile(scene, tmp_path / "tiles", "--min-valid", "0.9")
    assert done.exit_code == 1
    assert "mark more as searched in the review" in done.output
    assert not (tmp_path / "tiles").exists()


@pytest.mark.parametrize("option", ["--where", "--ignore-where"])
def test_conditions_do_not_go_with_a_review(scene, tmp_path, option):
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
        store.mark_searched({"all": square(0, 0, 120, 100)})
    done = tile(scene, tmp_path / "tiles", option, "id > 1")
    assert done.exit_code == 2
    assert "Leave out" in done.output
    done = tile(scene, tmp_path / "tiles", option, "id > 1", "--layer", "landslides", "--dry-run")
    assert done.exit_code == 0, done.output
