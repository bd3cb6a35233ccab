"""Command `reproduce`: checks before any work, and the whole reproduction of a smoke test."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from rasterio import Affine

import lim_keras as lk
from lim_keras.raster.writer import write_raster
from lim_keras.reproduction.settings import PARTS

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lim_keras", "reproduce", *map(str, arguments)]


@pytest.fixture
def reproduce(tmp_path: Path) -> Run:
    """reproduce("--out", folder, ...): run the real program, in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False
        )

    return run


@pytest.fixture
def data(tmp_path: Path, bijie_folder: Callable[..., Path]) -> Path:
    return bijie_folder(tmp_path / "data", 12, 12)


def models(folder: Path) -> dict[str, int]:
    """Return the time at which each model of a run was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("runs/*/fold_*/model.keras")}


# Arguments and files are checked before any work.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "cpu"], "Missing argument --data"),
        (["--budget", "smoke", "--scene", "data"], "Argument --scene needs tiles of your own"),
        (["--data", "data", "--scene", "data"], "Argument --scene needs --truth"),
        (["--data", "data", "--coarse-scene", "data"], "Argument --coarse-scene needs --coarse"),
        (["--data", "data", "--only", "table3,table9"], "'table9': expected names with commas between them"),
        (["--data", "data", "--jobs", "0"], "'--jobs': 0 is not in the range"),
        (["--data", "data", "--out", ""], "'--out': expected a path. Received: an empty text"),
    ],
)
def test_wrong_options_are_refused(reproduce, data, arguments, message):
    done = reproduce("--out", "out", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (data.parent / "out").exists()


def test_files_of_the_user_are_not_replaced(reproduce, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    done = reproduce("--data", data, "--out", "out", "--only", "table2")
    assert done.returncode == 1
    assert "report.html" in done.stderr
    assert (tmp_path / "out" / "report.html").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html"]


def test_weights_are_checked_before_any_work(reproduce, data, tmp_path):
    (tmp_path / "vgg.h5").write_text("no weights")
    given = "--encoder-weights", "vgg.h5", "--edge-weights", "none"
    done = reproduce("--data", data, "--out", "out", "--only", "table3", *given)
    assert done.returncode == 1
    assert "vgg.h5: expected a file of Keras weights" in done.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_weights_of_another_encoder_are_refused_before_any_training(reproduce, data, tmp_path):
    keras.applications.MobileNetV2(include_top=False, weights=None).save_weights(tmp_path / "edge.weights.h5")
    given = "--encoder-weights", "edge.weights.h5", "--edge-weights", "none"
    done = reproduce("--data", data, "--out", "out", "--only", "figure7", *given)
    assert done.returncode == 1
    assert "Error: Encoder weights edge.weights.h5 do not fit VGG16" in done.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_weights_of_no_name_name_their_option(reproduce, data, tmp_path):
    done = reproduce("--data", data, "--out", "out", "--encoder-weights", "none", "--edge-weights", "")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Encoder weights '' not found.") and "as --edge-weights." in done.stderr


def test_weights_that_cannot_be_downloaded_end_the_command_before_any_training(tmp_path, data, monkeypatch):
    def fail(**arguments):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(lk.ModelError, match=r"cannot be downloaded \(URL fetch failure\).* as `edge_weights`\."):
        lk.reproduce(tmp_path / "out", data=data, only=["figure10", "ablation"], encoder="small")
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("name", ["runs", "models", "scores", "tables", "figures", "maps", "parts", "world"])
def test_a_file_where_a_folder_belongs_is_refused_before_any_work(tmp_path, data, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(lk.DataError, match=rf"out/{name}: expected a folder"):
        lk.reproduce(tmp_path / "out", data=data, only=["table2"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_jobs_of_zero_are_refused(tmp_path, data):
    with pytest.raises(lk.ConfigError, match=r"`jobs`.*Received: 0"):
        lk.reproduce(tmp_path / "out", data=data, only=["table2"], jobs=0)


@pytest.mark.parametrize(
    ("bands", "dtype", "received"), [(4, "uint8", "4 bands of type uint8"), (3, "uint16", "3 bands of type uint16")]
)
def test_a_scene_of_other_bands_or_values_is_refused_before_any_training(tmp_path, data, bands, dtype, received):
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    write_raster(tmp_path / "scene.tif", np.full((64, 64, bands), 9, dtype), **place)
    write_raster(tmp_path / "truth.tif", np.ones((64, 64), np.uint8), **place)
    given = {"scene": tmp_path / "scene.tif", "truth": tmp_path / "truth.tif", "encoder": "small"}
    with pytest.raises(lk.DataError, match=rf"expected 3 bands of type uint8.*Received: {received}\..*gdal_translate"):
        lk.reproduce(tmp_path / "out", data=data, only=["figure10"], edge_weights="none", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*holds no landslide")
def test_a_scene_without_landslides_is_refused_before_any_training(tmp_path, data):
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    write_raster(tmp_path / "scene.tif", np.full((64, 64, 3), 9, np.uint8), **place)
    write_raster(tmp_path / "truth.tif", np.zeros((64, 64), np.uint8), **place)
    given = {"scene": tmp_path / "scene.tif", "truth": tmp_path / "truth.tif", "encoder": "small"}
    with pytest.raises(lk.DataError, match=r"truth.tif: expected landslides of .*scene.tif as `truth`"):
        lk.reproduce(tmp_path / "out", data=data, only=["figure10"], edge_weights="none", **given)
    assert not (tmp_path / "out").exists()


def test_too_few_tiles_to_draw_test_tiles_from(tmp_path, bijie_folder):
    few = bijie_folder(tmp_path / "few", 3, 3)
    with pytest.raises(lk.DataError, match=r"too few tiles.*6 tiles, 3 of them with landslides\..*as `test_ids`"):
        lk.reproduce(tmp_path / "out", data=few, only=["table2"])
    assert not (tmp_path / "out").exists()


def test_test_tiles_that_leak_are_refused(tmp_path, data):
    (tmp_path / "test.txt").write_text("ls_0\nnls_0\n")
    for part in ("image", "mask"):
        files = sorted((data / "landslide" / part).iterdir())
        files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(lk.LeakError, match="test_ids"):
        lk.reproduce(tmp_path / "out", data=data, test_ids=tmp_path / "test.txt", only=["table2"])


def test_transfer_tiles_that_models_are_trained_on_are_refused(tmp_path, data, bijie_folder):
    with pytest.raises(lk.LeakError, match=r"tiles of another region as `transfer`"):
        lk.reproduce(tmp_path / "out", data=data, transfer=data, only=["table2"])
    assert not (tmp_path / "out").exists()
    other = bijie_folder(tmp_path / "other", 3, 3)  # the same ids
    for number, image in enumerate(sorted(other.rglob("image/*.png"))):
        pixels = cv2.imread(str(image))
        cv2.imwrite(str(image), 255 - pixels - number)
    lk.reproduce(tmp_path / "out", data=data, transfer=other, only=["table2"])


def test_a_part_without_models_needs_no_training(tmp_path, data, capsys):
    result = lk.reproduce(tmp_path / "out", data=data, only=["table2"])
    assert (result.parts, dict(result.failures), result.trained) == (("table2",), {}, ())
    assert not (tmp_path / "out" / "runs").exists()
    record = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert record["settings"]["budget"] == "cpu"
    assert set(record["data"]) == {"data", "data_test"}

    # Parts of earlier calls stay in the report, as long as nothing changed.
    both = lk.reproduce(tmp_path / "out", data=data, only=["figure10"])
    assert both.parts == ("table2", "figure10")
    assert "--scene" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(lk.DataError, match=r"`budget`, `encoder` differ\. Give another folder"):
        lk.reproduce(tmp_path / "out", data=data, budget="smoke", only=["table2"])


def test_a_report_of_what_is_trained_trains_nothing(tmp_path, data):
    out = tmp_path / "out"
    result = lk.reproduce(out, data=data, budget="evening", only=["table2", "table3"], train=False)
    assert result.trained == () and result.failures == {} and models(out) == {}
    assert result.untrained[:3] == ("whole_fcn", "whole_fcn_fl", "whole_fcn_flk") and len(result.untrained) == 6
    page = (out / "report.md").read_text(encoding="utf-8")
    assert "FCN-FLK is not trained on whole tiles" in page and "Table 2" in page
    # A part that lacks models is made again when they are there.
    assert (out / "parts" / "table2.json").exists() and not (out / "parts" / "table3.json").exists()


def test_changed_tiles_are_refused(tmp_path, data):
    lk.reproduce(tmp_path / "out", data=data, only=["table2"])
    images = sorted((data / "landslide" / "image").iterdir())
    images[0].write_bytes(images[0].read_bytes() + b"\0")
    with pytest.raises(lk.DataError, match=r"`data` differs\."):
        lk.reproduce(tmp_path / "out", data=data, only=["table2"])


# The whole reproduction.


@pytest.mark.slow
def test_the_smoke_test_makes_every_part_goes_on_after_a_kill_and_trains_nothing_twice(reproduce, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    start = "--budget", "smoke", "--out", out

    process = subprocess.Popen(command(*start, "--only", "table3"), stderr=subprocess.DEVNULL)
    while not list(out.glob("runs/*/fold_*/model.keras")):
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # the processes of the trainings end with their parent
    before = models(out)
    begun = {path.name for path in (out / "runs").iterdir() if path.is_dir()}
    assert begun <= {f"{examples}_{one}" for examples in ("whole", "windows") for one in ("fcn", "fcn_fl", "fcn_flk")}

    done = reproduce(*start)
    assert done.returncode == 0, done.stderr
    assert before.items() <= models(out).items()
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines)), done.stderr  # no warning for each model again
    check_report(out)

    everything, report = models(out), (out / "report.html").stat().st_mtime_ns
    started = time.monotonic()
    done = reproduce(*start)
    assert done.returncode == 0, done.stderr
    assert models(out) == everything
    assert (out / "report.html").stat().st_mtime_ns == report
    assert time.monotonic() - started < 60
    assert (out / "notes.txt").read_text() == "mine"


def check_report(out: Path) -> None:
    """Check that all parts are there and hold numbers, and that each number names its experiment."""
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert all(f'id="{part}"' in page for part in PARTS)
    assert not re.search(r"\bnan\b|\binf\b|could not be made|not finished", text, re.IGNORECASE)
    files = sorted((out / "tables").glob("*.csv"))
    named = {part for part in PARTS if any(path.stem.startswith(part) for path in files)}
    assert {"table2", "table3", "table4", "ablation", "claims", "differences"} <= named
    assert all(len(list(csv.reader(path.read_text().splitlines()))) > 1 for path in files)
    for part in ("figure6", "figure7", "figure9", "figure10", "curves"):
        assert list((out / "figures").glob(f"{part}*.png")), part
    record = json.loads((out / "reproduction.json").read_text())
    hashes = {name: one["config_hash"] for name, one in record["experiments"].items()}
    assert hashes.keys() == {path.name for path in (out / "runs").iterdir() if path.is_dir()}
    assert all(sources.items() <= hashes.items() for sources in record["tables"].values())
