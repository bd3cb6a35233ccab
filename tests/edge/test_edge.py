"""`pip install 'lim-keras[edge]'` maps scenes and has no TensorFlow; what needs it says so in one line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio

from lim_keras.export.bundle import write_bundle
from lim_keras.export.tflite import LiteRtOptions, export_litert
from tests.conftest import model_facts
from tests.edge.conftest import ROOT, Run, run
from tests.inference.conftest import texture, write_scene

pytestmark = pytest.mark.slow

MISSING = (
    "Error: TensorFlow is not installed (No module named 'tensorflow'), and this command needs it. Install it with "
    "`pip install 'lim-keras[tensorflow]'`.\n"
)


def blurred(seed: int) -> keras.Model:
    """Logits of either sign from 5 x 5 pixels."""
    rng = np.random.default_rng(seed)
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(1, 5, padding="same")
    model = keras.Model(image, layer(image))
    kernel = rng.uniform(0, 0.002, (5, 5, 3, 1))
    layer.set_weights([kernel, np.array([-120 * kernel.sum()])])
    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, and both as float32 .tflite file."""
    path = tmp_path_factory.mktemp("exported_models") / "blurred"
    write_bundle(path, model_facts(name="blurred"), [blurred(seed) for seed in range(2)])
    assert not export_litert(path, LiteRtOptions(("float32",), tile=192, threads=1)).refused
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", texture(150, 210))


def test_tensorflow_is_not_there(edge_python: Path, tmp_path: Path) -> None:
    program = """
import importlib.util, json, pathlib, lim_keras
import lim_keras.api.scenes, lim_keras.inventory.predict_scene
names = "tensorflow", "keras", "tensorboard", "ai_edge_litert", "rasterio"
there = {name: importlib.util.find_spec(name) is not None for name in names}
print(json.dumps(there | {"package": str(pathlib.Path(lim_keras.__file__).resolve())}))
"""
    done = run(edge_python, "-c", program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    package = Path(said.pop("package"))
    absent = dict.fromkeys(("tensorflow", "keras", "tensorboard"), False)
    assert said == absent | dict.fromkeys(("ai_edge_litert", "rasterio"), True)
    assert not package.is_relative_to(ROOT / "lim_keras")


def test_a_scene_is_mapped_as_with_tensorflow(edge: Run, here: Run, bundle: Path, scene: Path, tmp_path: Path) -> None:
    file = bundle / "tflite" / "ensemble_float32.tflite"
    for environment, out in ((edge, "edge"), (here, "here")):
        done = environment("predict", file, scene, "--out", out, "--probability", "float32", "--spread")
        assert done.returncode == 0, done.stderr
    files = [{path.name for path in (tmp_path / out).iterdir()} for out in ("edge", "here")]
    assert files[0] == files[1]
    masks, maps = ([read(tmp_path / out / f"scene_{name}.tif") for out in ("edge", "here")] for name in MAPS)
    assert (masks[0] == masks[1]).all() and 0.1 < (masks[0] == 1).mean() < 0.9
    np.testing.assert_array_equal(maps[0], maps[1])
    assert maps[0][0].std() > 0.1 and maps[0][1].max() > 0  # neither the map nor the spread is the same everywhere


MAPS = ("landslides", "probability")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_what_needs_no_tensorflow(
    edge: Run, here: Run, bundle: Path, bijie_folder: Callable[..., Path], tmp_path: Path
) -> None:
    tiles = bijie_folder(tmp_path / "tiles", 6, 6)
    for arguments in (("info", bundle), ("--help",), ("fit", "--help"), ("data", "stats", tiles)):
        done = edge(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout == here(*arguments).stdout and len(done.stdout) > 200
    overlaps = edge("data", "overlaps", tiles, "--out", "grouped.csv")
    assert overlaps.returncode == 0 and (tmp_path / "grouped.csv").is_file(), overlaps.stderr


def is_one_clear_line(done: subprocess.CompletedProcess) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (1, "", MISSING)


def test_what_needs_tensorflow_says_so(
    edge: Run, bundle: Path, scene: Path, bijie_folder: Callable[..., Path], tmp_path: Path
) -> None:
    tiles = bijie_folder(tmp_path / "tiles", 10, 10)
    config = ROOT / "configs" / "bijie_edge.yaml"
    for arguments in (
        ("fit", config, "--data", tiles),
        ("cv", config, "--data", tiles),
        ("distill", bundle, config, "--data", tiles),
        ("verify", bundle),
        ("evaluate", bundle, "--data", tiles),
        ("export", bundle, "--tflite", "float32"),
        ("demo",),
        ("predict", bundle, scene, "--out", "maps"),
    ):
        done = edge(*arguments)
        assert is_one_clear_line(done), (arguments, done.stdout, done.stderr)
