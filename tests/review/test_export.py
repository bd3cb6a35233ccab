"""Export of reviews through the command line."""

import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from click.testing import CliRunner

import lim_keras as lk
from lim_keras.cli import main
from lim_keras.errors import LimKerasWarning
from lim_keras.report.review_page import ReviewSummary, size_frequency
from lim_keras.review.export import _SHORT
from lim_keras.review.geopackage import connect, to_blob
from lim_keras.review.measures import MEASURED
from lim_keras.review.style import STATUS_COLOURS
from tests.review.conftest import square, write_maps

FORMATS = (".gpkg", ".parquet", ".geojson", ".shp")


def export(maps, out, *options):
    return CliRunner().invoke(main, ["review", "export", str(maps), "--out", str(out), *options])


def read(path):
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@pytest.fixture
def reviewed(scene):
    """One accepted, one rejected, one without a verdict, one drawn."""
    with scene.open_review("Anna Müller") as store:
        store.judge([1], "accepted")
        store.classify([1], "rockfall")
        store.annotate([1], "großer Block")
        store.judge([2], "rejected")
        store.draw(square(80, 10, 10, 10))
        store.mark_searched({"a": square(0, 0, 60, 100)})
    return scene


def test_all_formats_hold_the_accepted_landslides(reviewed, tmp_path):
    before = sorted(path.name for path in reviewed.folder.iterdir())
    done = export(reviewed.folder, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "accepted: 2 landslides, 801 m2" in done.output
    assert "rejected: 1 landslide, " in done.output
    for suffix in FORMATS:
        found = read(tmp_path / "out" / f"scene_reviewed{suffix}")
        assert found["id"].tolist() == [1, 4], suffix
        assert found["status"].tolist() == ["accepted"] * 2
        assert found["class"].tolist()[0] == "rockfall"
        assert found["note"].tolist()[0] == "großer Block"
        assert found["origin"].tolist() == ["model", "drawn"]
        assert found.crs.to_epsg() == (4326 if suffix == ".geojson" else 32648)
        assert found.to_crs(32648).area.tolist() == pytest.approx(
            [400, 400], rel=5e-4
        )  # GeoJSON is rounded to a centimetre
    assert sorted(path.name for path in reviewed.folder.iterdir()) == before


def test_all_statuses_and_counts(reviewed, tmp_path):
    done = export(reviewed.folder, tmp_path / "out", "--all-statuses")
    assert done.exit_code == 0, done.output
    found = read(tmp_path / "out" / "scene_reviewed.gpkg")
    assert found["status"].fillna("").tolist() == ["accepted", "rejected", "", "accepted"]
    counts = pandas.read_csv(tmp_path / "out" / "review_counts.csv", keep_default_na=False)
    rows = counts[["scene", "status", "origin", "class", "landslides"]].to_numpy().tolist()
    assert rows == [
        ["scene", "accepted", "drawn", "", 1],
        ["scene", "accepted", "model", "rockfall", 1],
        ["scene", "no verdict", "model", "", 1],
        ["scene", "rejected", "model", "", 1],
    ]
    # 10 x 10, 10 x 10, 2 x 2 and 10 x 20 pixels of 4 m2, at the scale of .9996 of the projection
    assert counts["area_m2"].tolist() == pytest.approx(np.array([400, 400, 16, 800]) / 0.9996**2, rel=1e-3)


def test_page_has_map_numbers_and_no_foreign_text(reviewed, tmp_path):
    with reviewed.open_review("<b>Eva</b>") as store:
        store.judge([3], "unsure")
    assert export(reviewed.folder, tmp_path / "out").exit_code == 0
    page = (tmp_path / "out" / "scene_review.html").read_text()
    assert "2 landslides accepted, 1 drawn; verdicts: 4 of 4." in page
    assert re.search(r"&lt;b&gt;Eva&lt;/b&gt;, Anna Müller, on 20\d\d-\d\d-\d\d \(UTC\)\.", page)
    assert "Anna Müller" in page
    assert "<b>Eva</b>" not in page
    assert "&lt;b&gt;Eva&lt;/b&gt;" in page
    # cells cover half of the scene
    assert "Searched for missed landslides: 50% of the scene, in 1 cell." in page
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 1
    assert "http" not in page.split("</style>")[1]
    # of the model, one of probability .9 is accepted and one of .5 rejected
    assert "0.8 to 1.0" in page
    assert "100%" in page
    assert "0.4 to 0.6" in page


def test_size_frequency_steps_down_from_all_to_the_largest():
    frame = geopandas.GeoDataFrame(
        {"status": ["accepted", "rejected"], "area_m2": [100.0, 10.0]}, geometry=[None, None]
    )
    summary = ReviewSummary(
        title="",
        lines=(),
        landslides=frame,
        model_m2=np.array([10.0, 1000.0, 100.0]),
        by_status=(),
        by_class=(),
        shares=(),
        colours={status: (colour, "") for status, colour in STATUS_COLOURS.items()},
        picture=None,
    )
    model, accepted = size_frequency(summary).axes[0].get_lines()
    assert model.get_xdata().tolist() == [10, 100, 1000]
    assert model.get_ydata().tolist() == [3, 2, 1]
    assert (accepted.get_xdata().tolist(), accepted.get_ydata().tolist()) == ([100], [1])


def test_again_replaces_its_files_but_none_of_the_user(reviewed, tmp_path):
    out = tmp_path / "out"
    assert export(reviewed.folder, out).exit_code == 0
    with reviewed.open_review("Eva") as store:
        store.judge([3], "accepted")
    assert export(reviewed.folder, out).exit_code == 0
    assert read(out / "scene_reviewed.shp")["id"].tolist() == [1, 3, 4]
    (out / "review_counts.csv").write_text("mine")
    done = export(reviewed.folder, out)
    assert done.exit_code == 1
    assert "review_counts.csv (changed since it was written)" in done.output
    assert (out / "review_counts.csv").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "scene_reviewed.shp").write_text("mine")
    done = export(reviewed.folder, other)
    assert done.exit_code == 1
    assert [path.name for path in other.iterdir()] == ["scene_reviewed.shp"]


def test_empty_review_and_moved_scene(scene, tmp_path):
    Path(scene.image).unlink()
    scene.probability.unlink()
    scene.open_review("Anna").close()
    done = export(scene.folder, tmp_path / "out")
    assert done.exit_code == 0, done.output
    for suffix in FORMATS:
        assert len(read(tmp_path / "out" / f"scene_reviewed{suffix}")) == 0
    assert "There is no map" in (tmp_path / "out" / "scene_review.html").read_text()


def test_scene_without_a_crs(tmp_path):
    scene = write_maps(tmp_path / "maps", crs=None, transform=None)
    with scene.open_review("Anna") as store:
        store.judge([1, 2], "accepted")
    done = export(scene.folder, tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = read(tmp_path / "out" / "scene_reviewed.gpkg")
    assert found["area_m2"].tolist() == [400, 800]
    assert found.geometry[0].bounds == (10, -20, 20, -10)
    assert len(read(tmp_path / "out" / "scene_reviewed.geojson")) == 2


def test_several_scenes_and_one_without_a_review(tmp_path):
    first, second = (write_maps(tmp_path / "maps", name) for name in ("a", "b ü"))
    write_maps(tmp_path / "maps", "c")
    for scene in (first, second):
        with scene.open_review("Anna") as store:
            store.judge([1], "accepted")
    with pytest.warns(LimKerasWarning, match="c: not reviewed, and left out"):
        done = lk.export_review(tmp_path / "maps", tmp_path / "out")
    assert sorted(set(done.counts["scene"])) == ["a", "b ü"]
    assert (tmp_path / "out" / "b ü_reviewed.shp").is_file()
    only = lk.export_review(first.review, tmp_path / "only")
    assert set(only.counts["scene"]) == {"a"}


def test_errors_say_what_to_do(scene, tmp_path):
    done = export(scene.folder, tmp_path / "out")
    assert done.exit_code == 1
    assert "There is none. Make it first: lim-keras review" in done.output
    assert not (tmp_path / "out").exists()
    scene.open_review("Anna").close()
    scene.review.write_bytes(scene.review.read_bytes()[:3000])
    done = export(scene.folder, tmp_path / "out")
    assert done.exit_code == 1
    assert "scene_review.gpkg: " in done.output
    assert not (tmp_path / "out").exists()


def test_outlines_of_other_programs_are_repaired_measured_and_written_as_polygons(reviewed, tmp_path):
    cross = shapely.Polygon([(500_000, 2_999_900), (500_020, 2_999_920), (500_020, 2_999_900), (500_000, 2_999_920)])
    apart = shapely.MultiPolygon([square(0, 60, 5, 5), square(20, 60, 10, 5)])
    with closing(connect(reviewed.review)) as database:
        add = "INSERT INTO landslides (geometry, reviewer) VALUES (?, 'Ben')"
        database.execute(add, (None,))
        database.executemany(add, [(to_blob(one, 32648),) for one in (cross, apart)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = export(reviewed.folder, tmp_path / "out")
    assert done.exit_code == 0, done.output
    for suffix in FORMATS:
        found = read(tmp_path / "out" / f"scene_reviewed{suffix}").iloc[2:]
        assert set(found.geom_type) == {"Polygon"}, suffix
        assert found["id"].tolist() == [6, 7, 8, 9]
        assert found.is_valid.all()
        # Two triangles of 20 x 10 / 2 m2, and boxes of 10 x 10 and 20 x 10 m; the ellipsoid adds 0.08 %.
        assert found["area_m2"].tolist() == pytest.approx([100, 200, 100, 100], rel=1e-3)
        mean = "prob_mean" if suffix == ".shp" else "probability_mean"
        assert found[mean].tolist() == [0, 0, 0, 0]
    with reviewed.open_review("Anna") as store:  # the page measures all pieces together
        rows = {row["id"]: row for row in store.landslides()}
        assert [rows[key]["area_m2"] for key in (6, 7)] == pytest.approx([200, 300], rel=1e-3)
        assert rows[7]["perimeter_m"] == pytest.approx(4 * 10 + 2 * (20 + 10), rel=1e-3)
        assert (rows[7]["compactness"], rows[5]["area_m2"]) == (None, None)


def test_export_while_another_program_writes(reviewed, tmp_path):
    database = sqlite3.connect(reviewed.review, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    assert export(reviewed.folder, tmp_path / "out").exit_code == 0
    database.execute("ROLLBACK")
    database.close()


def test_short_names_of_shapefiles_are_different_and_cover_long_ones():
    assert all(len(short) <= 10 for short in _SHORT.values())
    names = [_SHORT.get(name, name) for name in MEASURED]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 10 for name in names)
