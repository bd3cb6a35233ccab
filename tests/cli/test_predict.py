"""`lim-keras predict` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio import Affine
from rasterio.windows import Window

from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from lim_keras.lock import folder_lock
from lim_keras.models import build_model, network_stride
from tests.conftest import model_facts
from tests.serving.model_server import ModelServer

WITHOUT_TENSORFLOW = """
import sys
blocked = ("tensorflow", "keras", "tensorflow_serving", "grpc")
sys.modules.update(dict.fromkeys(blocked))
from lim_keras.cli import main
try:
    main()
finally:
    assert all(sys.modules[name] is None for name in blocked)
"""


PEAK_MEMORY = """
from pathlib import Path
from lim_keras.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print("peak", next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)
"""


def export(path: Path, model: keras.Model, stride: int) -> Path:
    write_bundle(path, model_facts(name=path.name, stride=stride), [model])
    return path


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks with the small encoder."""
    path = tmp_path_factory.mktemp("ensemble") / "three"
    models = [build_model("fcn_fl", "small", encoder_weights="none", decoder_channels=32) for _ in range(3)]
    write_bundle(path, model_facts(name="three", stride=network_stride()), models)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logit (mean of the bands - 150) / 10."""
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / 3, -15.0))
    model = keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))
    return export(tmp_path_factory.mktemp("exported_models") / "bright", model, 1)


def write_scene(path: Path, height: int = 200, width: int = 300, **options: object) -> Path:
    image = np.full((3, height, width), 90, np.uint8)
    image[:, 40:100, 50:150] = 220
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)} | options
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8"}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(image)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_a_folder_of_scenes(bundle: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "north.tif")
    write_scene(tmp_path / "scenes" / "south.tif")
    done = run(bundle, tmp_path / "scenes", "--out", tmp_path / "out", "--min-area", 100, "--geojson", "--spread")
    assert done.exit_code == 0, done.output
    assert "north.tif" in done.output and "south.tif" in done.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"north_inventory.gpkg", "south_inventory.geojson", "north_preview.png", "summary.json"} <= written
    summary = json.loads((tmp_path / "out" / "north_summary.json").read_text())
    assert summary["landslides"] == 1 and summary["settings"]["inventory"]["min_area_m2"] == 100


def test_a_peak_and_a_smallest_area(bundle: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "s.tif")
    high = run(bundle, tmp_path / "s.tif", "--out", tmp_path / "high", "--peak", 0.9995)  # logit 7: .9991
    assert high.exit_code == 0, high.output
    assert "0 landslides; object rule (threshold 0.5, peak 0.9995) left out 1 region" in high.output
    low = run(bundle, tmp_path / "s.tif", "--out", tmp_path / "low", "--peak", 0.9, "--min-area", 100)
    assert "1 landslides; object rule (threshold 0.5, peak 0.9, at least 100 m2) left out 0 regions" in low.output
    refused = run(bundle, tmp_path / "s.tif", "--out", tmp_path / "no", "--working-point", "strict")
    assert refused.exit_code == 2 and "has no object rule" in refused.output and "--working-point" in refused.output
    refused = run(bundle, tmp_path / "s.tif", "--out", tmp_path / "no", "--working-point", "strict", "--all")
    assert refused.exit_code == 2 and "--all and --working-point exclude each other" in refused.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "(No space left on device). Lines are missing"),
        (UnicodeEncodeError("ascii", "\xfc", 0, 1, ""), r"(its encoding ascii lacks the character '\xfc'). Lines"),
        (BrokenPipeError(32, "Broken pipe"), ""),
        (SystemExit(1), ""),  # of rich, after a closed pipe
    ],
)
def test_scenes_are_finished_if_nothing_can_be_printed(bundle: Path, tmp_path: Path, monkeypatch, error, said) -> None:
    def fail(parts: object) -> None:
        raise error

    scenes = [write_scene(tmp_path / name, 64, 160) for name in ("north.tif", "south.tif")]
    monkeypatch.setattr("lim_keras.report.tables.print_result", fail)
    done = run(bundle, *scenes, "--out", tmp_path / "out")
    assert done.exit_code == 1 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == bool(said)
    assert not said or done.stderr.startswith("Error: standard output: cannot be written ")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["scenes"] == 2


def test_a_path_is_shown_as_it_is(bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / ":car:[b].tif")
    done = run(bundle, scene, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert str(scene) in done.output and "│ :car:[b].tif" in done.output


def test_a_bad_scene_does_not_stop_the_rest(bundle: Path, tmp_path: Path) -> None:
    good = write_scene(tmp_path / "good.tif")
    bad = tmp_path / "bad.tif"
    bad.write_bytes(good.read_bytes()[:300])
    done = run(bundle, bad, good, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "bad.tif" in done.output and (tmp_path / "out" / "good_inventory.gpkg").exists()


def test_a_scene_of_other_bands_is_refused_with_the_option_that_helps(bundle: Path, tmp_path: Path) -> None:
    scene = tmp_path / "five.tif"
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    with rasterio.open(scene, "w", driver="GTiff", width=64, height=64, count=5, dtype="uint8", **place) as file:
        file.write(np.full((5, 64, 64), 90, np.uint8))
    done = run(bundle, scene, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "Choose and order them with --bands 1,2,3." in done.output


def test_a_missing_scene_does_not_stop_the_rest(bundle: Path, tmp_path: Path) -> None:
    good = write_scene(tmp_path / "good.tif")
    done = run(bundle, tmp_path / "absent.tif", good, good, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "absent.tif: not found" in done.output and (tmp_path / "out" / "good_inventory.gpkg").exists()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["scenes"] == 2
    alone = run(bundle, tmp_path / "absent.tif", "--out", tmp_path / "none")
    assert alone.exit_code == 1 and "absent.tif: not found" in alone.stderr and not (tmp_path / "none").exists()


def test_a_threshold_that_is_no_number(bundle: Path, tmp_path: Path) -> None:
    for option in ("--threshold", "--gsd"):
        done = run(bundle, write_scene(tmp_path / "scene.tif"), "--out", tmp_path / "out", option, "nan")
        assert done.exit_code == 2 and f"Error: Invalid value for {option}. Expected" in done.stderr
    assert not (tmp_path / "out").exists()


def test_nodata_that_is_nan(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, write_scene(tmp_path / "scene.tif"), "--out", tmp_path / "out", "--nodata", "nan")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "scene_summary.json").read_text())["settings"]["nodata"] == "nan"


def test_a_scene_that_ends_too_soon_is_named_and_leaves_no_results(bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "cut.tif", 2000, 300)
    scene.write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    done = run(bundle, scene, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "cut.tif: cannot be read; the file is truncated or damaged" in done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {".cut.lim-keras.partial", "summary.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bands", "1,,2"], "such as 3,2,1"),
        (["--scale", "5"], "such as 0,3000"),
        (["--scale", "9,3"], "LOW < HIGH"),
        (["--nodata", "zero"], "expected a number, `nan` or `none`"),
        (["--memory", "lots"], "'--memory': Expected a size such as 2G"),
        (["--min-slope", "15"], "Give --dem"),
        (["--threshold", "1.5"], "0<=x<=1"),
        (["--drop-flat"], "needs --min-slope"),
        (["--server", "host:8501"], "Expected http://host:8501/v1/models/NAME or grpc://"),
        (["--retries", "3", "--timeout", "9"], "--retries, --timeout: only with --server"),
        (["--server", "grpc://127.0.0.1/m", "--in-flight", "0"], "x>=1"),
    ],
)
def test_options_that_make_no_sense(bundle: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    done = run(bundle, scene, "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def server(bundle: Path) -> Iterator[ModelServer]:
    with ModelServer({"bright": {1: bundle / "fold_0/1"}}, {("bright", "canary"): 1}) as running:
        yield running


def rasters(folder: Path) -> list[np.ndarray]:
    """Probability in percent, and mask."""
    found = []
    for name in ("probability", "landslides"):
        with rasterio.open(folder / f"scene_{name}.tif") as file:
            found.append(file.read(1))
    return found


def test_a_scene_through_a_server(bundle: Path, server: ModelServer, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    (tmp_path / "model.json").write_bytes((bundle / "model.json").read_bytes())
    assert run(bundle, scene, "--out", tmp_path / "local").exit_code == 0
    addresses = {
        "rest": server.rest("bright/labels/canary"),
        "version": server.rest("bright/versions/1"),
        "grpc": server.grpc("bright"),
    }
    for name, address in addresses.items():
        done = run(tmp_path / "model.json", scene, "--out", tmp_path / name, "--server", address)
        assert done.exit_code == 0, done.output
        assert "1 landslides" in done.output
        for ours, theirs in zip(rasters(tmp_path / name), rasters(tmp_path / "local"), strict=True):
            assert (ours == theirs).all() and len(np.unique(ours)) == 2
    assert server.seen.predictions == 3


def test_neither_tensorflow_nor_models_are_needed_for_rest(bundle: Path, server: ModelServer, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    (tmp_path / "model.json").write_bytes((bundle / "model.json").read_bytes())
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "predict", str(tmp_path), str(scene), "--out", "out"]
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}

    def process(address: str) -> subprocess.CompletedProcess:
        words = [*command, "--server", address]
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    refused = process(server.grpc("bright"))
    assert refused.returncode == 1
    assert "pip install 'lim-keras[serving]'" in refused.stderr
    done = process(server.rest("bright"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "scene_inventory.gpkg").exists()
    assert server.seen.predictions == 1


def test_a_server_without_the_model(bundle: Path, server: ModelServer, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    refused = run(bundle, scene, "--out", tmp_path / "out", "--server", server.rest("dark"))
    assert refused.exit_code == 1
    assert "404: Could not find any versions of model dark" in refused.stderr
    assert not (tmp_path / "out").exists()
    other = tmp_path / "bundle.json"
    other.write_bytes((bundle / "model.json").read_bytes())
    refused = run(other, scene, "--out", tmp_path / "out", "--server", server.rest("bright"))
    assert refused.exit_code == 1
    assert "bundle.json: expected the folder of a bundle, or its model.json" in refused.stderr
    refused = run(other, scene, "--out", tmp_path / "out")
    assert refused.exit_code == 1 and "a model.json is enough only for a model on a server" in refused.stderr


def test_results_that_have_no_place(bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    done = run(bundle, scene, "--out", scene / "out")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stderr == f"Error: {scene}/out: cannot be made (Not a directory). Give another folder as --out.\n"
    assert done.stdout == ""


def test_warnings_are_lines(bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", transform=Affine(10, 0, 5e5, 0, -10, 3e6))
    done = run(bundle, scene, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Warning: " in done.stderr and "a pixel is 10 m" in done.stderr


@pytest.mark.slow
def test_killed_and_called_again_it_ends_with_the_same_files(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = build_model("fcn_fl", "small", encoder_weights="none", decoder_channels=8)
    model.get_layer("score").set_weights([np.random.default_rng(3).normal(size=(1, 1, 8, 1)), np.zeros(1)])
    bundle = export(tmp_path / "exported_models" / "net", model, 32)
    scene = write_scene(tmp_path / "scene.tif", 2200, 900)
    arguments = ["predict", str(bundle), str(scene), "--tile", "384"]
    command = [sys.executable, "-m", "lim_keras", *arguments]
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}

    def process(out: Path) -> subprocess.Popen:
        return subprocess.Popen([*command, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL)

    assert process(tmp_path / "unbroken").wait(900) == 0
    cut = process(tmp_path / "cut")
    state = tmp_path / "cut" / ".scene.lim-keras.partial" / "state.json"
    deadline = time.monotonic() + 900
    while not state.exists() or json.loads(state.read_text())["done"] < 2:
        assert cut.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    done = json.loads(state.read_text())["done"]
    assert done >= 2
    left = {".lim-keras.lock", ".scene.lim-keras.partial"}
    assert {path.name for path in (tmp_path / "cut").iterdir()} == left
    assert process(tmp_path / "cut").wait(900) == 0
    files = sorted(path.name for path in (tmp_path / "unbroken").iterdir())
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == files
    for name in files:
        if not name.endswith(".json"):
            assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


@pytest.mark.real_data
def test_sentinel2_reflectance_is_refused_and_accepted(bundle: Path, real_data: Path, tmp_path: Path) -> None:
    scene = real_data / "rasters" / "sentinel2_chittagong_rgbn_uint16.tif"
    refused = run(bundle, scene, "--out", tmp_path / "out")
    assert refused.exit_code == 1
    assert "expected 3 bands" in refused.output and "Received: 4" in refused.output and "--bands" in refused.output
    refused = run(bundle, scene, "--out", tmp_path / "out", "--bands", "1,2,3")
    assert refused.exit_code == 1
    assert "expected uint8 values" in refused.output and "Received: uint16" in refused.output
    assert "--scale 0,3000" in refused.output
    accepted = run(bundle, scene, "--out", tmp_path / "out", "--bands", "1,2,3", "--scale", "0,3000")
    assert accepted.exit_code == 0, accepted.output
    assert "a pixel is" in accepted.stderr and "trained at 0.8 m" in accepted.stderr
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "out" / f"{scene.stem}_landslides.tif") as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        valid = before.dataset_mask() > 0
        assert ((after.read(1) != 255) == valid).all()
    assert valid.mean() == pytest.approx(0.39, abs=0.01)


@pytest.mark.real_data
def test_a_mosaic_that_is_mostly_empty_costs_what_its_pieces_cost(
    bundle: Path, real_data: Path, tmp_path: Path
) -> None:
    scene = tmp_path / "quarter.tif"
    with rasterio.open(real_data / "scenes" / "bijie_test_mosaic.tif") as file:
        window = Window(0, 0, file.width // 2, file.height // 2)
        pixels, valid = file.read(window=window), file.dataset_mask(window=window)
        profile = file.profile | {"width": window.width, "height": window.height}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene, "w", **profile) as file:
        file.write(pixels)
        file.write_mask(valid)
    done = run(bundle, scene, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out" / f"{scene.stem}_summary.json").read_text())
    assert summary["valid_pixels"] == np.count_nonzero(valid) < 0.2 * summary["pixels"]
    assert summary["windows"]["islands"] > 25
    assert summary["windows"]["pixels"] < 0.3 * summary["pixels"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which says how much memory was taken")
@pytest.mark.parametrize("kernels", ["0", "1"], ids=["eigen", "onednn"])
def test_an_ensemble_keeps_to_its_memory(ensemble: Path, tmp_path: Path, kernels: str) -> None:
    """Its folds once computed side by side, and took 1.2 times of what was allowed."""
    scene = write_scene(tmp_path / "scene.tif", 1792, 2048)
    command = [sys.executable, "-c", PEAK_MEMORY, "predict", str(ensemble), str(scene)]
    command += ["--out", str(tmp_path / "maps"), "--memory", "1800M", "--runtime", "tensorflow"]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": kernels}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout.rpartition("peak ")[2])
    assert 1000 < peak < 1800


def test_a_folder_in_use_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out"):
        done = run(tmp_path, scene, "--out", tmp_path / "out")  # the first argument is no bundle
    assert done.exit_code == 1 and list((tmp_path / "out").iterdir()) == []
    assert done.stderr.startswith(f"Error: {tmp_path}/out: in use by process {os.getpid()}, another thread of this")
    assert done.stderr.endswith("Wait for its end, give --wait, or give another folder as --out.\n")
