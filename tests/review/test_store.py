"""Verdicts, edits, undo and the log of a review."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.ownership import file_hash
from lim_keras.review.geopackage import connect
from lim_keras.review.review_file import make_review_file
from lim_keras.review.scenes import find_scenes
from lim_keras.review.store import ReviewStore
from lim_keras.tiling.labels import LabelOptions, LabelSource
from lim_keras.tiling.review_labels import is_review
from tests.review.conftest import square, write_maps


@pytest.fixture
def store(scene):
    with scene.open_review("Anna") as store:
        yield store


def statuses(store):
    return [row["status"] for row in store.landslides()]


def test_new_review_copies_the_inventory_and_has_no_verdict(scene, store):
    inventory = geopandas.read_file(scene.inventory)
    rows = store.landslides()
    assert [row["id"] for row in rows] == inventory["id"].tolist() == [1, 2, 3]
    assert [row["area_m2"] for row in rows] == inventory["area_m2"].tolist()
    assert all(row["geometry"].equals(outline) for row, outline in zip(rows, inventory.geometry, strict=True))
    assert [(row["status"], row["origin"], row["edited"]) for row in rows] == [(None, "model", 0)] * 3
    assert store.classes == ("slide", "debris flow", "rockfall", "other")
    assert "32648" in store.crs


def test_verdict_is_signed_in_utc_and_logged(store):
    before = datetime.now(UTC)
    entry = store.judge([1, 3], "accepted")
    rows = store.landslides()
    assert [row["status"] for row in rows] == ["accepted", None, "accepted"]
    assert [row["reviewer"] for row in rows] == ["Anna", None, "Anna"]
    assert rows[0]["reviewed"].endswith("Z")
    assert abs((datetime.fromisoformat(rows[0]["reviewed"]) - before).total_seconds()) < 60
    (line,) = store.log()
    assert (line.number, line.reviewer, line.action, line.change.keys) == (1, "Anna", "verdict", [1, 3])
    assert line == entry
    assert line.change.before[0] == {"fid": 1, "status": None, "reviewer": None, "reviewed": None}


def test_the_file_and_the_inventory_of_predict_stay_as_they_are(scene):
    before = {path.name: file_hash(path) for path in scene.folder.iterdir()}
    with scene.open_review("Anna") as store:
        store.judge([1], "rejected")
        store.reshape(2, square(40, 40, 10, 10))
    after = {path.name: file_hash(path) for path in scene.folder.iterdir()}
    assert set(after) - set(before) == {"scene_review.gpkg"}
    assert before.items() <= after.items()


def test_any_number_of_actions_is_undone_to_the_same_rows(store):
    first = store.landslides()
    store.judge([1, 2, 3], "accepted")
    store.annotate([2], "Größe unsicher")
    store.classify([2], "debris flow")
    store.reshape(2, square(40, 40, 12, 10))
    store.draw(square(80, 10, 5, 5))
    store.split(1, shapely.LineString([(499_990, 2_999_970), (500_100, 2_999_970)]))
    store.merge([1, 5])
    store.remove(4)
    cells = store.mark_searched({"0,0": square(0, 0, 50, 50)})
    store.unmark_searched(cells.change.keys)
    store.judge([3], None)
    actions = []
    while (entry := store.undo()) is not None:
        actions.append(store.log()[entry.undoes - 1].action)
    expected = [
        "verdict",
        "note",
        "class",
        "edit",
        "draw",
        "split",
        "merge",
        "delete",
        "searched",
        "searched",
        "verdict",
    ]
    assert actions == expected[::-1]
    assert store.landslides() == first
    assert store.searched() == []
    assert [line.action for line in store.log()] == [*expected, *["undo"] * 11]


def test_undo_after_reopening_goes_on_and_leaves_other_reviewers_alone(scene):
    with scene.open_review("Anna") as anna, scene.open_review("Eva") as eva:
        anna.judge([1], "accepted")
        eva.judge([2], "rejected")
        anna.judge([3], "unsure")
    with scene.open_review("Anna") as anna:
        assert anna.undo().change.keys == [3]
        assert anna.undo().change.keys == [1]
        assert anna.undo() is None
        assert statuses(anna) == [None, "rejected", None]


def test_undo_keeps_what_somebody_else_changed_since_and_then_goes_further_back(scene):
    with scene.open_review("Anna") as anna, scene.open_review("Eva") as eva:
        anna.judge([2], "unsure")
        anna.judge([1], "accepted")
        eva.judge([1], "rejected")
        with pytest.raises(DataError, match=r"because Eva changed the same landslide since. Undo again"):
            anna.undo()
        assert anna.undo().change.keys == [2]
        assert statuses(anna) == ["rejected", None, None]
        # a note of Eva's does not keep Anna's class from being undone
        anna.classify([3], "rockfall")
        eva.annotate([3], "steep")
        assert anna.undo().change.keys == [3]
        assert (anna.landslides([3])[0]["class"], anna.landslides([3])[0]["note"]) == (None, "steep")
        anna.annotate([3], "flat")
        eva.judge([3], "accepted")
        assert anna.undo().change.keys == [3]
        assert (anna.landslides([3])[0]["status"], anna.landslides([3])[0]["note"]) == ("accepted", "steep")


def test_changed_outline_is_measured_anew_and_the_original_kept(store):
    old = store.landslides([2])[0]
    store.reshape(2, square(40, 40, 10, 10))
    new = store.landslides([2])[0]
    # 20 m x 20 m on the ground; UTM's scale at the central meridian is .9996, so that areas are 1 / .9996^2 larger
    assert new["area_m2"] == pytest.approx(400 / 0.9996**2, rel=1e-4)
    assert new["perimeter_m"] == pytest.approx(80 / 0.9996, rel=1e-4)
    assert (new["probability_mean"], new["probability_max"]) == (0.5, 0.5)
    assert (new["fold_agreement"], new["touches_nodata"], new["touches_edge"]) == (None, 0, 0)
    assert (new["status"], new["edited"], new["origin"], new["id"]) == ("accepted", 1, "model", 2)
    assert store.originals([2])[0]["geometry"].equals(old["geometry"])
    # half on the landslide (.5), half on background (0); reaches the upper and left edge of the scene
    drawn = store.landslides(store.draw(square(0, 0, 20, 20)).change.keys)[0]
    assert drawn["probability_mean"] == pytest.approx(0.9 * 100 / 400)
    assert (drawn["id"], drawn["touches_edge"], drawn["origin"], drawn["status"]) == (4, 1, "drawn", "accepted")


def test_outline_that_is_the_model_s_keeps_its_measures(store):
    old = store.landslides([1])[0]
    store.reshape(1, old["geometry"])
    new = store.landslides([1])[0]
    for name in ("area_m2", "perimeter_m", "longitude", "latitude", "compactness", "elongation"):
        assert new[name] == pytest.approx(old[name], rel=1e-12), name
    assert new["probability_mean"] == pytest.approx(old["probability_mean"], abs=1e-6)


def test_split_by_a_polygon_and_merge(store):
    entry = store.split(2, square(30, 30, 20, 40))
    assert entry.change.keys == [2, 4]
    parts = store.landslides([2, 4])
    assert [row["geometry"].area for row in parts] == [400, 400]
    assert [row["id"] for row in parts] == [2, 4]
    store.merge([4, 2])
    (row,) = store.landslides([2, 4])
    assert (row["fid"], row["geometry"].area, row["origin"], row["id"]) == (4, 800, "merged", 4)
    with pytest.raises(DataError, match=r"share a side or overlap. Received: 2 pieces apart"):
        store.merge([1, 4])
    with pytest.raises(DataError, match="does not divide landslide 1"):
        store.split(1, square(0, 0, 2, 2))
    with pytest.raises(DataError, match="at least two"):
        store.merge([1, 1])


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (shapely.Polygon(), "finite coordinates"),
        (shapely.Polygon([(0, 0), (1, 0), (2, 0)]), "Received: a line or a point"),
        (shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), "Received: 2 pieces"),
        (shapely.Polygon([(0, 0), (np.inf, 1), (2, 0)]), "finite coordinates"),
    ],
)
def test_unusable_outlines_change_nothing(store, outline, message):
    before = store.landslides()
    with pytest.raises(DataError, match=message):
        store.draw(outline)
    assert store.landslides() == before
    assert store.log() == []


def test_searched_cells_are_marked_once(store):
    store.mark_searched({"0,0": square(0, 0, 50, 50), "0,1": square(50, 0, 50, 50)})
    store.mark_searched({"0,1": square(50, 0, 50, 50), "1,0": square(0, 50, 50, 50)})
    assert [row["cell"] for row in store.searched()] == ["0,0", "0,1", "1,0"]
    assert store.searched()[0]["reviewer"] == "Anna"


def test_wrong_arguments(scene, store):
    with pytest.raises(ConfigError, match=r"`status`. Expected accepted, rejected, unsure"):
        store.judge([1], "maybe")
    with pytest.raises(ConfigError, match=r"`reviewer`"):
        ReviewStore(scene.review, "  ")
    with pytest.raises(DataError, match="no longer there"):
        store.judge([1, 99], "accepted")
    with pytest.raises(DataError, match=r"Landslide 1 is the model's. Reject it instead"):
        store.remove(1)
    assert store.log() == []


def test_two_reviewers_are_told_of_each_other(scene):
    with scene.open_review("Anna") as anna:
        assert anna.others() == []
        with scene.open_review("Eva") as eva:
            assert [one.name for one in eva.others()] == ["Anna"]
            assert [one.name for one in anna.others()] == ["Eva"]
            assert f"process {os.getpid()}" in anna.others()[0].place
        assert anna.others() == []


_JUDGE = """
import sys
from pathlib import Path
from lim_keras.review.store import ReviewStore
with ReviewStore(Path(sys.argv[1]), "Killed") as store:
    while True:
        for key in range(1, 4):
            for status in ("accepted", "rejected", "unsure"):
                number = store.judge([key], status).number
                print(number, key, status, flush=True)
"""


def test_kill_loses_no_acknowledged_verdict(scene):
    scene.open_review("Anna").close()
    for _ in range(3):
        command = [sys.executable, "-c", _JUDGE, scene.review]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = [process.stdout.readline() for _ in range(40)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        whole = [line.split(maxsplit=2) for line in lines if line.endswith("\n")]
        with scene.open_review("Anna") as store:
            log = {line.number: line for line in store.log()}
            for number, key, status in whole:
                (row,) = log[int(number)].change.after
                assert (row["fid"], row["status"]) == (int(key), status.strip())
            assert len(log) - int(whole[-1][0]) <= 1  # one more may be written, but not acknowledged
            last = log[max(log)].change.after[0]
            assert store.landslides([last["fid"]])[0]["status"] == last["status"]
        with closing(sqlite3.connect(scene.review)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT value FROM review_about WHERE name = 'recording'").fetchone() == ("0",)


_HALF = """
import os, sys
from pathlib import Path
from lim_keras.review.geopackage import connect
database = connect(Path(sys.argv[1]))
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE review_about SET value = '1' WHERE name = 'recording'")
database.execute("UPDATE landslides SET status = 'rejected', note = ?", ("x" * 100_000,))
os._exit(9)
"""


@pytest.mark.parametrize("read", [lambda scene: scene.read_review(), lambda scene: scene.open_review("Anna")])
def test_half_a_transaction_of_a_killed_process_is_taken_back(scene, read):
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
    assert subprocess.run([sys.executable, "-c", _HALF, scene.review], check=False).returncode == 9
    assert scene.review.with_name(f"{scene.review.name}-journal").exists()
    with read(scene) as review:
        assert statuses(review) == ["accepted", None, None]
    assert is_review(scene.review)
    labels = LabelSource.read(LabelOptions(scene.review))
    assert labels.report().landslides == 1


def test_writers_at_the_same_time_lose_nothing(scene):
    def work(name):
        with scene.open_review(name) as store:
            for _ in range(15):
                store.annotate([1, 2], f"{name} was here")

    scene.open_review("Anna").close()
    threads = [threading.Thread(target=work, args=(name,)) for name in ("Anna", "Eva", "Ole")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with scene.open_review("Anna") as store:
        assert sorted(line.reviewer for line in store.log()) == ["Anna"] * 15 + ["Eva"] * 15 + ["Ole"] * 15


def test_spatial_index_follows_the_outlines(scene, store):
    store.draw(square(80, 80, 5, 5))
    x, y = square(80, 80, 5, 5).centroid.coords[0]
    store.close()
    found = geopandas.read_file(scene.review, layer="landslides", bbox=(x, y, x + 1, y + 1))
    assert found["origin"].tolist() == ["drawn"]
    assert str(found["reviewed"].dtype).endswith("UTC]")


def test_other_programs_are_logged_but_change_neither_log_nor_originals(scene, store):
    with closing(connect(scene.review)) as database:
        database.execute("UPDATE landslides SET status = 'unsure', reviewer = 'Eva' WHERE fid = 2")
        for text in ("DELETE FROM review_log", "UPDATE review_log SET reviewer = 'x'", "DELETE FROM model"):
            with pytest.raises(sqlite3.IntegrityError, match="of a review is read-only"):
                database.execute(text)
        with pytest.raises(sqlite3.IntegrityError, match="expected the status accepted, rejected, unsure or none"):
            database.execute("UPDATE landslides SET status = 'Accepted' WHERE fid = 3")
    (line,) = store.log()
    assert (line.reviewer, line.action, line.program) == ("Eva", "verdict", "other")
    assert line.change.before == ({"fid": 2, "status": None, "reviewer": None, "reviewed": None},)
    assert line.change.after[0]["status"] == "unsure"
    assert store.landslides([2])[0]["reviewed"].endswith("Z")
    assert [one.name for one in store.others()] == ["Eva"]
    with scene.open_review("Eva") as eva:
        assert eva.undo().change.keys == [2]
        assert statuses(eva) == [None] * 3


def test_version_changes_when_another_connection_writes(scene, store):
    before = store.version
    store.judge([1], "accepted")
    assert store.version == before
    with scene.open_review("Eva") as eva:
        eva.judge([2], "accepted")
    assert store.version != before


def test_a_full_disk_leaves_no_review_and_is_told_in_one_line(tmp_path):
    scene = write_maps(tmp_path / "maps")
    code = """import resource, sys
from lim_keras.errors import DataError
from lim_keras.review.scenes import find_scenes
(scene,) = find_scenes(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    scene.open_review("Anna")
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, scene.folder], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{scene.review}: ")
    assert "Free disk space" in line
    assert "CREATE" not in line
    assert not scene.review.exists()


def test_a_review_that_is_there_is_never_replaced(scene, tmp_path):
    with scene.open_review("Anna") as store:
        store.judge([1], "accepted")
    before = file_hash(scene.review)
    assert make_review_file(scene.inventory, scene.review) == scene.review
    assert file_hash(scene.review) == before
    shutil.copy(scene.inventory, scene.folder / "other_inventory.gpkg")
    (scene.folder / "other_review.gpkg").write_text("the user's")
    with pytest.raises(DataError, match=r"other_review.gpkg: cannot be opened as a GeoPackage"):
        find_scenes(scene.folder)[0].open_review("Anna")
    assert (scene.folder / "other_review.gpkg").read_text() == "the user's"
    shutil.copy(scene.inventory, scene.folder / "other_review.gpkg")
    with pytest.raises(DataError, match="expected a review with the layers"):
        find_scenes(scene.folder)[0].open_review("Anna")


def test_a_changed_inventory_is_told(scene):
    scene.open_review("Anna").close()
    with closing(sqlite3.connect(scene.inventory)) as database:
        database.execute("CREATE TABLE more (a)")
        database.commit()
    with pytest.warns(LimKerasWarning, match=r"scene_inventory.gpkg changed since this review began"):
        scene.open_review("Anna").close()


def test_the_review_of_other_maps_is_refused(tmp_path):
    scene = write_maps(tmp_path / "maps")
    other = write_maps(tmp_path / "other", "valley", transform=Affine(2, 0, 600_000, 0, -2, 3_000_000))
    with other.open_review("Anna") as store:
        store.judge([1], "accepted")
    shutil.copy(other.review, scene.review)
    with pytest.raises(DataError, match=r"of scene_inventory\.gpkg\. It is that of valley_inventory\.gpkg\. Move it"):
        scene.open_review("Anna")
    with pytest.raises(DataError, match="It is that of valley"):
        scene.read_review()
    shutil.copy(other.inventory, scene.inventory)  # renamed together
    scene.open_review("Anna").close()


def test_a_review_in_another_crs_than_the_maps_is_refused(tmp_path):
    scene = write_maps(tmp_path / "maps")
    scene.open_review("Anna").close()
    write_maps(tmp_path / "maps", crs="EPSG:32647")
    with pytest.raises(DataError, match=r"expected the CRS of scene_inventory\.gpkg.*Move the review"):
        scene.open_review("Anna")
    write_maps(tmp_path / "maps", crs=None, transform=None)
    with pytest.raises(DataError, match="expected the CRS"):
        scene.read_review()


def test_scenes_are_found_by_folder_and_by_file(tmp_path):
    first, second = (write_maps(tmp_path / "maps", name) for name in ("b", "a ä"))
    found = find_scenes(tmp_path / "maps")
    assert [one.name for one in found] == ["a ä", "b"]
    assert found[1].threshold == 0.33
    assert found[1].image == str(tmp_path / "b.tif")
    second.open_review("Anna").close()
    assert find_scenes(second.review) == [second]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "b.tif", tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"_inventory.gpkg"):
            find_scenes(path)
    with pytest.raises(DataError, match="on this machine"):
        find_scenes("s3://bucket/maps")
    with pytest.raises(DataError, match=r"b_review.gpkg: expected a file. There is none"):
        first.read_review()
    with second.read_review() as review:
        assert len(review.landslides()) == 3


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        (None, None, 400.0),  # pixels of 2 m, as the summary says
        ("EPSG:4326", Affine(1e-4, 0, 105, 0, -1e-4, 27), 10 * 11.08 * 10 * 9.92),
        ("EPSG:32648", Affine(1.6, 1.2, 500_000, 1.2, -1.6, 3_000_000), 400 / 0.9996**2),  # rotated
    ],
)
def test_scenes_without_a_place_in_degrees_and_rotated(tmp_path, crs, transform, area):
    scene = write_maps(tmp_path / "maps", crs=crs, transform=transform)
    with scene.open_review("Anna") as store:
        old = store.landslides([1])[0]
        store.reshape(1, old["geometry"])
        new = store.landslides([1])[0]
        assert new["area_m2"] == pytest.approx(old["area_m2"], rel=1e-9)
        assert new["area_m2"] == pytest.approx(area, rel=2e-3)
        assert (new["probability_mean"], new["touches_edge"]) == (0.9, 0)
        assert store.undo() is not None
        assert store.landslides([1]) == [old]


def test_20_000_landslides_are_quick(tmp_path):
    columns, rows = np.meshgrid(np.arange(200), np.arange(100))
    x, y = columns.ravel() * 10.0, rows.ravel() * 10.0
    frame = geopandas.GeoDataFrame(
        {"id": np.arange(1, 20_001)}, geometry=shapely.box(x, y, x + 8, y + 8), crs="EPSG:32648"
    )
    frame.to_file(tmp_path / "s_inventory.gpkg", layer="landslides")
    (scene,) = find_scenes(tmp_path)
    seconds = {}
    start = time.process_time()
    with scene.open_review("Anna") as store:
        seconds["make"] = time.process_time() - start
        start = time.process_time()
        assert len(store.landslides()) == 20_000
        seconds["read"] = time.process_time() - start
        start = time.process_time()
        for key in range(1, 21):
            store.judge([key], "accepted")
        seconds["verdict"] = (time.process_time() - start) / 20
        start = time.process_time()
        store.judge(range(1, 20_001), "rejected")
        seconds["all"] = time.process_time() - start
        start = time.process_time()
        store.undo()
        seconds["undo"] = time.process_time() - start
        assert statuses(store)[:21] == ["accepted"] * 20 + [None]
    limits = {"make": 10, "read": 3, "verdict": 0.1, "all": 10, "undo": 10}  # processor time: other work does not count
    assert all(seconds[name] < limit for name, limit in limits.items()), seconds


def test_sqlite_has_spatial_indexes_after_tensorflow():
    program = (
        "import tensorflow; from lim_keras.review import geopackage; import sqlite3; "
        "sqlite3.connect(':memory:').execute('CREATE VIRTUAL TABLE t USING rtree(id, a, b, c, d)')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "crs", ["+proj=tmerc +lat_0=27 +lon_0=105 +k=1 +x_0=500000 +y_0=3000000 +ellps=GRS80 +units=m", "EPSG:32648+5773"]
)
def test_a_crs_without_a_code_of_its_own_is_kept(crs, tmp_path):
    scene = write_maps(tmp_path / "maps", crs=crs)
    with scene.open_review("Anna") as store:
        store.reshape(1, square(10, 10, 10, 9))
        row = store.landslides([1])[0]
    assert row["area_m2"] == pytest.approx(20 * 18, rel=0.01)
    assert row["perimeter_m"] == pytest.approx(76, rel=0.01)


@pytest.mark.parametrize("name", ["Status", "CLASS", "Geometry"])
def test_columns_of_a_review_in_other_letters_are_named(name, scene):
    frame = geopandas.read_file(scene.inventory).assign(**{name: 1})
    frame.to_file(scene.inventory.with_name("other.gpkg"), layer="landslides")
    with pytest.raises(DataError, match=rf"without the columns of a review\. It has \['{name}'\]"):
        make_review_file(scene.inventory.with_name("other.gpkg"), scene.review.with_name("other_review.gpkg"))


def test_ids_of_another_program_get_a_free_name(scene):
    frame = geopandas.read_file(scene.inventory).drop(columns="id")
    frame = frame.assign(Id=["a", "b", "c"], source_id=[7, 8, 9])
    other = scene.inventory.with_name("other.gpkg")
    frame.to_file(other, layer="landslides")
    make_review_file(other, other.with_name("other_review.gpkg"))
    made = geopandas.read_file(other.with_name("other_review.gpkg"), layer="landslides")
    assert made["id"].tolist() == [1, 2, 3]
    assert (made["source_id"].tolist(), made["source_id_2"].tolist()) == ([7, 8, 9], ["a", "b", "c"])
