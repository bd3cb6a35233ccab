"""`lim-keras export`, and `lim-keras predict` with what it made where there is no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio import Affine

from lim_keras.bundle.info import BandStatistics, ModelFacts
from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from lim_keras.cli import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logit (mean of the bands - 150) / 10."""
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / 3, -15.0))
    model = keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))
    facts = {
        "name": "bright",
        "model": {},
        "sampling": {"mode": "windows", "size": 64},
        "bands": 3,
        "dtype": "uint8",
        "gsd_m": 0.8,
        "stride": 1,
        "statistics": (BandStatistics(mean=120.0, std=60.0, min=0.0, max=255.0),) * 3,
        "threshold": 0.5,
        "temperature": 1.0,
        "metrics": {},
        "config_hash": "0" * 64,
    }
    path = tmp_path_factory.mktemp("exported_models") / "bright"
    write_bundle(path, ModelFacts.model_validate(facts), [model])
    return path


def write_scene(path: Path) -> Path:
    image = np.full((3, 200, 300), 90, np.uint8)
    image[:, 40:100, 50:150] = 220
    profile = {"driver": "GTiff", "width": 300, "height": 200, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs="EPSG:32648", transform=Affine(0.8, 0, 5e5, 0, -0.8, 3e6)) as file:
        file.write(image)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_scene_is_mapped_without_tensorflow(bundle: Path, tmp_path: Path) -> None:
    made = run("export", bundle, "--tflite", "float32", "--tile", 128, "--threads", 1)
    assert made.exit_code == 0, made.output
    assert "fold_0_float32.tflite" in made.output and "met" in made.output
    scene, file = write_scene(tmp_path / "scene.tif"), bundle / "tflite" / "fold_0_float32.tflite"
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}

    def without(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", BLOCKED, "predict", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    done = without(file, scene, "--out", tmp_path / "edge")
    assert done.returncode == 0, done.stderr
    # with the same obstacle TensorFlow cannot be used: it does stand in the way
    refused = without(bundle, scene, "--out", tmp_path / "none", "--runtime", "tensorflow")
    assert refused.returncode != 0 and "No module named 'tensorflow'" in refused.stderr
    assert run("predict", bundle, scene, "--out", tmp_path / "full").exit_code == 0
    with (
        rasterio.open(tmp_path / "edge" / "scene_landslides.tif") as edge,
        rasterio.open(tmp_path / "full" / "scene_landslides.tif") as full,
    ):
        mask = edge.read(1)
        assert (mask == full.read(1)).all() and (mask == 1).sum() == 60 * 100
    files = {path.name for path in (tmp_path / "full").iterdir()}
    assert {path.name for path in (tmp_path / "edge").iterdir()} == files
    assert json.loads((tmp_path / "edge" / "scene_summary.json").read_text())["landslides"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tflite", "float64"], "expected some of float32,float16,dynamic,int8"),
        (["--tflite", "float32", "--tiles", __file__], "--tiles needs --data"),
        ([], "Missing option '--tflite', '--onnx', '--serving', '--measure-halo', '--object-rule' or '--familiarity'"),
        (["--serving", "out", "--tile", "64"], "--tile: only with --tflite or --onnx"),
        (["--serving", "out", "--threads", "1", "--allow-drop"], "--allow-drop, --threads: only with --tflite"),
        (["--tflite", "float32", "--promote", "--base-path", "/srv"], "--base-path, --promote: only with --serving"),
        (["--tflite", "float32,int8"], "Give --data"),
        (
            ["--tflite", "float32", "--tile", "33"],
            "Invalid value for --tile. Expected a multiple of 64 px. Received: 33",
        ),
        (["--tflite", "float32", "--tile", "1000000"], "An image of 1000000 x 1000000 px needs"),
        (["--onnx", "--tile", "1000000"], "GiB. Give less, or leave --tile out."),
    ],
)
def test_options_that_make_no_sense(bundle: Path, arguments: list[str], said: str) -> None:
    done = run("export", bundle, *arguments)
    assert done.exit_code == 2 and said in done.output


def test_a_repository_for_tensorflow_serving(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    made = run("export", bundle, "--serving", out, "--base-path", "/srv/models")
    assert made.exit_code == 0, made.output
    assert "version 1 added" in made.output and str(out) in made.output
    assert 'base_path: "/srv/models/bright"' in (out / "models.config").read_text()
    moved = run("export", bundle, "--serving", out, "--promote")
    assert moved.exit_code == 0 and "labels moved" in moved.output
    assert [path.name for path in (out / "bright").iterdir()] == ["1"]
    added = run("export", bundle, "--serving", out)
    assert added.exit_code == 0 and "version 2 added" in added.output
    refused = run("export", bundle, "--serving", out, "--base-path", "/elsewhere")
    assert refused.exit_code == 1 and "Received: /elsewhere" in refused.output


@pytest.mark.parametrize(
    ("lite", "said"), [(["int8"], "Give --data"), (["float32", "--fold", 7], "fold"), (["int8", "--data", "."], "")]
)
def test_no_version_is_added_where_a_file_cannot_be_made(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lite: list[object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", bundle, "--serving", "repository", "--tflite", *lite, "--out", "tflite")
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit) and said in done.stderr
    assert not Path("repository").exists()


def test_both_at_once(bundle: Path, tmp_path: Path) -> None:
    done = run("export", bundle, "--tflite", "float32", "--out", tmp_path / "[", "--serving", tmp_path / "[/b]r")
    assert done.exit_code == 0, done.output
    assert f"folder: {tmp_path}/[" in done.output and f"version 1 added: {tmp_path}/[/b]r" in done.output
    again = run("export", bundle, "--serving", tmp_path / "[/b]r", "--promote")
    assert again.exit_code == 0 and f"labels moved: {tmp_path}/[/b]r" in again.output


def test_a_repository_that_cannot_be_written(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    places = {
        tmp_path / "file" / "r": "cannot be used as a model repository",
        "/proc/r": "cannot be used as a model repository",
        bundle: "which is or lies in the bundle",
        bundle.parent: "which is or lies in the bundle",
    }
    for place, said in places.items():
        done = run("export", bundle, "--serving", place)
        assert done.exit_code == 1 and isinstance(done.exception, SystemExit), place
        assert done.stderr.startswith(f"Error: {place}: ") and said in done.stderr and done.stderr.count("\n") == 1
    assert run("verify", bundle).exit_code == 0


def test_another_file_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    done = run("predict", bundle / "model.json", scene, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "expected the folder of a bundle, or a .tflite file" in done.output
