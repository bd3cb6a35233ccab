"""Output folder of tilings: interrupted and repeated calls, changed inputs, files of the user."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine

import lim_keras as lk
from lim_keras.raster.writer import write_raster
from lim_keras.tiling import cutting, folder

BOXES = ((20, 30, 40, 60), (150, 10, 160, 20), (90, 150, 120, 200))


@pytest.fixture
def cut(tmp_path, make_scene, make_labels, tile):
    """cut(out, *options): cut tiles of 40 px from a scene into a folder."""
    scene, labels = make_scene(tmp_path / "scene.tif"), make_labels(tmp_path / "labels.gpkg", BOXES)

    def run(out: str, *options: object):
        return tile(scene, "--labels", labels, "--out", out, "--size", 40, *options)

    return run


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def times(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*.*") if path.is_file()}


def test_equal_calls_give_equal_bytes_and_a_repeated_one_writes_nothing(cut, tmp_path):
    assert cut("a").exit_code == cut("b", "--jobs", 1).exit_code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    before = times(tmp_path / "a")
    again = cut("a")
    assert again.exit_code == 0 and times(tmp_path / "a") == before
    assert again.output == cut("b").output.replace("b\n", "a\n")


def test_an_interrupted_call_goes_on(cut, tmp_path, monkeypatch):
    cut("whole")
    written = []

    def stop(path, array, **options):
        written.append(path)
        if len(written) == 16:
            raise lk.DataError("the disk is full")
        return write_raster(path, array, **options)

    monkeypatch.setattr(cutting, "write_raster", stop)
    stopped = cut("part", "--jobs", 1)
    assert stopped.exit_code == 1 and "the disk is full" in stopped.output
    work = tmp_path / "part" / ".tiling.lim-keras.partial"
    assert list((tmp_path / "part").iterdir()) == [work]
    first = contents(work)
    written.clear()

    def count(path, array, **options):
        written.append(path)
        return write_raster(path, array, **options)

    monkeypatch.setattr(cutting, "write_raster", count)
    assert cut("part").exit_code == 0
    assert len(written) == len(contents(tmp_path / "whole")) - 3 - 14  # seven tiles were cut before
    assert len(first) >= 16  # seven images and masks, an image, and the journal
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_a_call_that_cuts_no_tile_leaves_nothing(cut, tmp_path, monkeypatch):
    def stop(path, array, **options):
        raise lk.DataError("the scene is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(cutting, "write_raster", stop)
        assert cut("part", "--jobs", 1).exit_code == 1
    assert list((tmp_path / "part").glob("*")) == []
    assert cut("part").exit_code == 0


def test_a_damaged_draft_is_cut_again(cut, tmp_path, monkeypatch):
    cut("whole")
    monkeypatch.setattr(folder.TilingFolder, "put_in_place", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        raise cut("part").exception
    monkeypatch.undo()
    os.chdir(tmp_path)
    draft = sorted((tmp_path / "part" / ".tiling.lim-keras.partial" / "images").iterdir())[3]
    draft.write_bytes(draft.read_bytes()[:-50])
    assert cut("part").exit_code == 0
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


@pytest.mark.parametrize("moved", [0, 1, 20])
def test_a_call_killed_while_it_moves_files(cut, tmp_path, monkeypatch, moved):
    """The folder is never read as a mixture, and the next call, of other options too, knows its files."""
    cut("whole"), cut("other", "--seed", 1)
    count, replace = [], Path.replace

    def killed(path, target):
        if Path(target).absolute().parent in (
            tmp_path / "part" / "images",
            tmp_path / "part" / "masks",
            tmp_path / "part",
        ):
            count.append(target)
            if len(count) > moved:
                raise KeyboardInterrupt
        return replace(path, target)

    for options, expected in (((), "whole"), (("--seed", 1), "other")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            cut("part", *options)
        count.clear()
        if (tmp_path / "part" / "tiles.csv").exists():
            with pytest.raises(lk.DataError, match=r"\d+ problems with the tiles"):
                lk.read_tiles(tmp_path / "part")
        assert cut("part", *options).exit_code == 0
        assert contents(tmp_path / "part") == contents(tmp_path / expected)


def test_other_options_replace_the_tiles(cut, tmp_path):
    cut("a"), cut("b", "--seed", 5)
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert cut("a", "--seed", 5).exit_code == 0
    assert contents(tmp_path / "a") == {**contents(tmp_path / "b"), "notes.txt": b"mine"}


def test_changed_inputs_give_new_tiles(cut, tmp_path, make_scene, make_labels):
    cut("a")
    make_labels(tmp_path / "labels.gpkg", BOXES[:2])
    assert cut("a").exit_code == 0
    assert len(lk.read_tiles(tmp_path / "a").of_kind("landslide")) == 2
    make_scene(tmp_path / "scene.tif", 210, 240)
    assert cut("a").exit_code == 0
    assert "240 x 210" in cut("a").output


@pytest.mark.parametrize("name", ["tiles.csv", "tiling.json", "images", "tiling_scene.jpg", "masks/FIRST"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_files_of_the_user_are_never_replaced(cut, tmp_path, name, kind):
    options = ("--background", "all", "--seed", 3)
    cut("other", *options)
    mine = tmp_path / "out" / name.replace("FIRST", sorted((tmp_path / "other" / "masks").iterdir())[0].name)
    mine.parent.mkdir(parents=True)
    target = tmp_path / "target"
    target.write_text("mine")
    if kind == "file":
        mine.write_text("mine")
    else:
        mine.symlink_to(target)
    done = cut("out", *options)
    assert done.exit_code == 1 and mine.name in done.output and "--out" in done.output, done.output
    assert mine.read_text() == target.read_text() == "mine"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]


def test_an_edited_mask_is_kept(cut, tmp_path):
    cut("a")
    mask = sorted((tmp_path / "a" / "masks").iterdir())[0]
    write_raster(mask, np.full((40, 40), 255, np.uint8))
    edited = mask.read_bytes()
    again = cut("a")
    assert again.exit_code == 0 and "Warning" in again.output and mask.name in again.output
    assert mask.read_bytes() == edited
    other = cut("a", "--seed", 1)
    assert other.exit_code == 1 and mask.name in other.output
    assert mask.read_bytes() == edited and len(lk.data.read_tile_ids(tmp_path / "a" / "tiles.csv")) > 3


def test_a_removed_tile_comes_back(cut, tmp_path):
    cut("a"), cut("b")
    sorted((tmp_path / "a" / "images").iterdir())[0].unlink()
    assert cut("a").exit_code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_two_calls_at_a_time(cut, tmp_path):
    from lim_keras.lock import folder_lock

    (tmp_path / "a").mkdir()
    with folder_lock(tmp_path / "a"):
        done = cut("a")
    assert done.exit_code == 1 and "in use by" in done.output


def test_the_real_command_killed_and_repeated(tmp_path, make_scene, make_labels):
    scene = make_scene(tmp_path / "scene.tif", 600, 600)
    labels = make_labels(tmp_path / "labels.gpkg", BOXES)
    command = [sys.executable, "-m", "lim_keras", "data", "tile", str(scene), "--labels", str(labels), "--size", "48"]
    command += ["--background", "all", "--out"]
    running = subprocess.Popen([*command, "part"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    journal = tmp_path / "part" / ".tiling.lim-keras.partial" / "journal.jsonl"
    while running.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 16):
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "part" / "tiling.json").exists()
    for out in ("part", "whole"):
        subprocess.run([*command, out], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_changed_sources_of_a_virtual_label_raster_are_noticed(tile, make_scene, tmp_path):
    scene = make_scene(tmp_path / "scene.tif")
    labels = np.zeros((200, 240), np.uint8)
    labels[20:40, 30:60] = 1
    place = {"crs": "EPSG:32648", "transform": Affine(2, 0, 500_000, 0, -2, 3_000_000)}
    source = write_raster(tmp_path / "source.tif", labels, **place)
    rasterio.shutil.copy(str(source), str(tmp_path / "labels.vrt"), driver="VRT")
    call = (scene, "--labels", tmp_path / "labels.vrt", "--out", "tiles", "--size", 40)
    assert tile(*call).exit_code == 0
    before = (tmp_path / "tiles" / "tiles.csv").read_bytes()
    source.unlink()
    write_raster(source, labels[::-1].copy(), **place)
    assert tile(*call).exit_code == 0
    assert (tmp_path / "tiles" / "tiles.csv").read_bytes() != before


def test_rows_that_sqlite_has_not_written_back_are_noticed(cut, tmp_path):
    assert cut("tiles").exit_code == 0
    database = sqlite3.connect(tmp_path / "labels.gpkg", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    before = (tmp_path / "labels.gpkg").read_bytes()
    table = database.execute("SELECT table_name FROM gpkg_contents").fetchone()[0]
    for trigger in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f'DROP TRIGGER "{trigger[0]}"')
    database.execute(f'DELETE FROM "{table}" WHERE fid = 1')
    assert (tmp_path / "labels.gpkg").read_bytes() == before
    again = cut("tiles")
    database.close()
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "tiles" / "tiling.json").read_text())["scenes"][0]["landslides"] == 2
