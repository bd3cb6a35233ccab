"""Report on runs by the real command line, and what it holds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import lim_keras as lk
from lim_keras.comparison.parts import summary_lines
from lim_keras.errors import ConfigError, DataError
from lim_keras.seals import is_sealed


class Page(HTMLParser):
    """Text, links, anchors and pictures of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.links, self.anchors, self.pictures = "", set(), set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.anchors |= {values.get("id")} - {None}
        if tag == "a":
            self.links.add(values["href"])
        if tag == "img":
            self.pictures.append(values)

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "lim_keras", "report", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(command, cwd=folder, env=environment, **options)


def test_two_runs_beside_each_other(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    make_run("full", folds=2)
    make_run("worse", missed=20, loss={"gamma": 0.0})
    done = report(tmp_path, "runs/full", "runs/worse", "--out", "a b.html", "--json", "both.json")
    assert done.returncode == 0, done.stderr
    assert "page: a b.html" in done.stdout and "worse" in done.stdout
    page = Page(tmp_path / "a b.html")
    assert all(one["src"].startswith("data:") and one["alt"] for one in page.pictures)
    # scores, curves, precision-recall, reliability, and best, worst tiles of each run at least
    assert len(page.pictures) >= 7
    assert {link[1:] for link in page.links} <= page.anchors
    for words in ("Paired differences", "loss.gamma", "imbalance ratio", "Best and worst tiles", "lim_keras 0.2.0"):
        assert words in page.text
    assert "sampling.size" not in page.text  # equal in both
    values = json.loads((tmp_path / "both.json").read_text())
    assert values["differing_settings"] == {"loss.gamma": [1.75, 0.0]}
    worse = {(one["protocol"], one["subset"]): one for one in values["differences"]}
    # a single landslide test tile has no spread to estimate
    assert set(worse) == {("tiles", "all"), ("out_of_fold", "landslide"), ("out_of_fold", "all")}
    gain = worse["out_of_fold", "landslide"]
    assert gain["samples"] == 5 and gain["verdict"] == "worse" and gain["same_pixels"]
    runs = {run["label"]: run for run in values["runs"]}
    recall = runs["worse"]["scores"]["out_of_fold"]["subsets"]["landslide"]["model"]["recall"]["value"]
    assert gain["scores"]["recall"]["value"] == pytest.approx(recall - 1)
    assert runs["full"]["models"][0]["best_epoch"] == 3 and runs["full"]["seconds"] == pytest.approx(180)


def test_a_run_of_one_model(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run("single", folds=1, training={"validation_fraction": 0.4})
    comparison = lk.report_runs(folder, out=tmp_path / "one.html")
    assert comparison.runs[0].kind == "one model" and comparison.differences == ()
    page = Page(tmp_path / "one.html")
    assert "Run single" in page.text and "training.validation_fraction" in page.text
    assert "Folds" not in page.text


def test_what_is_not_finished(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    done, part = make_run("done"), make_run("part", finished=False, seed=7)
    begun = make_run("begun", finished=False, seed=8)
    state = begun / "fold_1/checkpoints/state.json"
    state.parent.mkdir(parents=True)
    epoch = {"epoch": 1, "loss": 1.0, "val_loss": 2.0, "val_f1": 0.1, "seconds": 9.0}
    state.write_text(json.dumps({"history": [epoch]}))
    comparison = lk.report_runs([part, done, begun], out=tmp_path / "report.html")
    states = {run.label: run.state for run in comparison.runs}
    assert states["done"] == "finished" and states["part"] == "not finished: 1 of 2 folds"
    assert states["begun"] == "not finished: 1 of 2 folds, fold 1: 1 of 30 epochs"
    assert "3 runs, 1 finished." in Page(tmp_path / "report.html").text


def test_runs_of_other_data_are_not_compared(
    tmp_path: Path, make_run: Callable[..., Path], bijie_folder: Callable[..., Path], write_picture: Callable
) -> None:
    other = bijie_folder(tmp_path / "other", 6, 6)
    rng = np.random.default_rng(9)
    for image in other.rglob("image/*.png"):  # the same names, other ground
        shape = cv2.imread(str(image)).shape
        write_picture(image, rng.integers(0, 255, shape, np.uint8))
    runs = [make_run("here"), make_run("there", data=other), make_run("again")]
    comparison = lk.report_runs(runs, out=None)
    assert comparison.groups == [["here", "again"], ["there"]]
    text = "Scores of runs that predicted different tiles cannot be compared: here, again; there."
    assert text in summary_lines(comparison)
    assert len({run.data_digest for run in comparison.runs}) == 2


def test_encoder_weights_of_an_option_are_a_setting_that_differs(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    runs = [make_run("ours"), make_run("theirs")]
    for run, weights in zip(runs, ("none", "1234567890abcdef"), strict=True):
        record = json.loads((run / "run.json").read_text())
        record["sources"] = {"encoder_weights": weights, "start_from": "", "teacher": ""}
        (run / "run.json").write_text(json.dumps(record))
    lk.report_runs(runs, out=tmp_path / "report.html", json_file=tmp_path / "report.json")
    differing = json.loads((tmp_path / "report.json").read_text())["differing_settings"]
    assert differing == {"model.encoder_weights": ["none", "file 12345678"]}
    assert "All settings are equal" not in Page(tmp_path / "report.html").text


def test_tiles_without_hashes_are_named(make_run: Callable[..., Path]) -> None:
    runs = [make_run("known"), make_run("older")]
    (runs[1] / "run.json").unlink()
    assert "The tiles of older cannot be checked: the run recorded no hashes of them." in summary_lines(
        lk.report_runs(runs, out=None)
    )


def test_data_digests_tell_the_test_tiles_from_the_others(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = lk.report_runs(make_run("run"), out=None).runs[0]
    assert run.digest(run.test_ids) != run.digest(tile.tile_id for tile in run.tiles) == run.data_digest
    page = Page(_page(run.folder, tmp_path / "report.html"))
    assert run.digest(run.test_ids) in page.text and run.data_digest not in page.text


def test_long_names_are_not_cut_in_the_terminal(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    names = [f"{'a' * 12}_landslides_{'b' * 12}_{k}" for k in range(2)]
    done = report(tmp_path, *(make_run(name) for name in names))
    assert done.returncode == 0 and "…" not in done.stdout


def test_tiles_that_are_gone_have_no_pictures(tmp_path: Path, make_run: Callable[..., Path], tiles: Path) -> None:
    folder = make_run("run")
    with_tiles = len(Page(_page(folder, tmp_path / "before.html")).pictures)
    for image in tiles.rglob("image/*.png"):
        image.unlink()
    page = Page(_page(folder, tmp_path / "after.html"))
    assert with_tiles - len(page.pictures) == 2  # best and worst
    assert "could not be read any more" in page.text


def _page(run: Path, path: Path) -> Path:
    lk.report_runs(run, out=path)
    return path


def test_runs_of_one_name_and_one_run_twice(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    runs = [make_run("one/run", config_name="same"), make_run("two/run", config_name="same"), make_run("three")]
    comparison = lk.report_runs([*runs, runs[0]], out=None)
    assert [run.label for run in comparison.runs] == ["one/run", "two/run", "three"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "config.yaml and tiles.csv are missing"),
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "a file"),
    ],
)
def test_other_folders(tmp_path: Path, make: Callable, words: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(DataError, match=words):
        lk.report_runs(tmp_path / "x", out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_folder_of_runs(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    make_run("a")
    make_run("b")
    done = report(tmp_path, "runs")
    assert done.returncode == 1
    received = "Received: a folder with 2 of them. Give runs/a, or runs/* for all."
    assert done.stderr == f"Error: runs: expected a run folder. {received}\n"


def test_damaged_scores(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    for text in ("", "[]", "{}", '{"threshold": null}', "[" * 100_000):
        (folder / "cv.json").write_text(text)
        with pytest.raises(DataError, match=r"cv.json: cannot be read as the scores of a run"):
            lk.report_runs(folder, out=None)


def test_files_of_the_user_stay(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    page, values = tmp_path / "report.html", tmp_path / "report.json"
    page.write_text("<!doctype html> mine")
    with pytest.raises(DataError, match="Nothing was replaced"):
        lk.report_runs(folder, out=page, json_file=values)
    assert page.read_text() == "<!doctype html> mine" and not values.exists()
    page.unlink()
    for _ in range(2):
        lk.report_runs(folder, out=page, json_file=values)
    assert is_sealed(page) and is_sealed(values)
    with pytest.raises(ConfigError, match="one file"):
        lk.report_runs(folder, out=page, json_file=page)
    with pytest.raises(ConfigError, match="at least one run"):
        lk.report_runs([], out=page)


def test_tensorflow_is_not_loaded(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    body = f"lk.report_runs({str(folder)!r}, out='x.html'); print('tensorflow' in sys.modules)"
    program = f"import sys, lim_keras as lk; {body}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "False\n", done.stderr
