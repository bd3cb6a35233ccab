"""Runtimes of a bundle: the same answers, the choice of `auto`, and the real command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import lim_keras as lk
from lim_keras.bundle import compiled_network, runtimes
from lim_keras.bundle.info import BundleInfo, FileRecord
from lim_keras.bundle.model_folder import PAIR_FILE
from lim_keras.bundle.runtimes import load_model
from lim_keras.errors import BundleError, ConfigError, LimKerasWarning
from tests.export.conftest import THRESHOLD, images

SHIPPED = Path(__file__).parents[2] / "exported_models" / "bijie_edge"

COUNTS_TENSORFLOW = """import sys
from lim_keras.cli import main
try:
    main()
finally:
    print("tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def with_litert(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = tmp_path_factory.mktemp("runtimes") / "tiny"
    shutil.copytree(bundle_path, copied)
    lk.export_litert(copied, "float32")
    return copied


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "Hang_Süd.tif"
    profile = {"driver": "GTiff", "width": 150, "height": 101, "count": 3, "dtype": "uint8", "nodata": 0}
    place = {"crs": "EPSG:32648", "transform": rasterio.Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(np.maximum(images(101, 150)[0], 1).astype(np.uint8).transpose(2, 0, 1))
    return path


@pytest.mark.parametrize(("runtime", "fold"), [("openvino", None), ("openvino", 1), ("litert", None)])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 1, 1), (2, 31, 33), (1, 70, 5)])
def test_runtimes_answer_like_tensorflow(
    with_litert: Path, runtime: runtimes.Runtime, fold: int | None, count: int, height: int, width: int
) -> None:
    shown = np.floor(images(height, width, count))
    expected = load_model(with_litert, "tensorflow", fold).predict_all(shown)
    model = load_model(with_litert, runtime, fold)
    assert model.runtime == runtime
    for dtype in (np.uint8, np.uint16, np.float32):
        answer = model.predict_all(shown.astype(dtype))
        assert [one.dtype for one in answer] == [np.float32, np.float32, np.int32]
        for one, known in zip(answer[:2], expected[:2], strict=True):
            np.testing.assert_allclose(one, known, rtol=0, atol=1e-5)
        assert (answer.votes != expected.votes).mean() < 0.01


def test_answers_last_after_the_next_call(bundle_path: Path) -> None:
    model = load_model(bundle_path, "openvino")
    first = model.predict(images(20, 30))
    kept = first.copy()
    model.predict(images(20, 30) // 3)
    np.testing.assert_array_equal(first, kept)


def test_auto_takes_the_fastest_that_is_installed(with_litert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_model(with_litert).runtime == "openvino"
    monkeypatch.setattr(runtimes, "_is_installed", lambda package: package == "ai_edge_litert")
    assert load_model(with_litert).runtime == "litert"
    monkeypatch.setattr(runtimes, "_is_installed", lambda package: False)
    assert load_model(with_litert).runtime == "tensorflow"


def test_auto_leaves_the_processor_runtimes_if_there_is_a_gpu(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    assert load_model(bundle_path).runtime == "tensorflow"


def test_auto_skips_a_runtime_that_answers_wrongly(bundle_path: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle_path, tmp_path / "tiny")
    with np.load(copied / PAIR_FILE) as pair:
        np.savez(copied / PAIR_FILE, image=pair["image"], probability=pair["probability"] + np.float32(0.002))
    info = BundleInfo.read(copied)
    info.model_copy(update={"files": info.files | {PAIR_FILE: FileRecord.of(copied / PAIR_FILE)}}).write(copied)
    with pytest.warns(LimKerasWarning, match=r"openvino differs from the stored answer by 0\.002 \(> 1e-05\)"):
        assert load_model(copied).runtime == "tensorflow"


def test_without_a_stored_pair_tensorflow_predicts(bundle_path: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle_path, tmp_path / "tiny")
    info = BundleInfo.read(copied)
    info.model_copy(update={"files": {k: v for k, v in info.files.items() if k != PAIR_FILE}}).write(copied)
    assert load_model(copied).runtime == "tensorflow"


def test_damage_is_named_by_every_runtime(bundle_path: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle_path, tmp_path / "tiny")
    (copied / "ensemble" / "1" / "saved_model.pb").write_bytes(b"")
    for runtime in ("auto", "openvino", "tensorflow", "litert"):
        with pytest.raises(BundleError, match=r"saved_model\.pb: expected \d+ bytes\. Received: 0"):
            load_model(copied, runtime)


def test_missing_litert_file_and_wrong_names_are_errors(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="--tflite float32"):
        load_model(bundle_path, "litert")
    with pytest.raises(ConfigError, match="auto, tensorflow, litert, openvino, openvino-bf16"):
        lk.load_bundle(bundle_path, runtime="onnx")
    with pytest.raises(ConfigError, match="loaded with openvino"):
        lk.predict_scene(lk.load_bundle(bundle_path, runtime="openvino"), "a.tif", "out", runtime="tensorflow")


def test_bfloat16_only_where_the_processor_has_it(bundle_path: Path) -> None:
    from openvino import Core

    if "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.warns(LimKerasWarning, match="largest difference from float32 is"):
            assert load_model(bundle_path, "openvino-bf16").runtime == "openvino-bf16"
    else:
        with pytest.raises(ConfigError, match="no bfloat16"):
            load_model(bundle_path, "openvino-bf16")


def predict(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COUNTS_TENSORFLOW, "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line_predicts_with_openvino_without_tensorflow(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    done = predict(SHIPPED, scene, "--out", out, "--runtime", "openvino", "--probability", "float32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert json.loads((out / f"{scene.stem}_summary.json").read_text())["runtime"] == "openvino"
    with rasterio.open(scene) as pixels, rasterio.open(out / f"{scene.stem}_probability.tif") as written:
        shown, valid = pixels.read().transpose(1, 2, 0), written.read_masks(1) > 0
        expected = load_model(SHIPPED, "tensorflow").predict(shown[np.newaxis])[0]
        np.testing.assert_allclose(written.read(1)[valid], expected[valid], rtol=0, atol=1e-5)


def test_another_runtime_is_another_map(bundle_path: Path, scene: Path, tmp_path: Path) -> None:
    first = lk.predict_scene(bundle_path, scene, tmp_path / "maps", runtime="openvino")
    again = lk.predict_scene(bundle_path, scene, tmp_path / "maps")
    assert (first.was_there, again.was_there) == (False, True)
    other = lk.predict_scene(bundle_path, scene, tmp_path / "maps", runtime="tensorflow")
    assert (other.was_there, other.summary["runtime"]) == (False, "tensorflow")


def test_command_line_says_how_to_install_openvino(bundle_path: Path, scene: Path, tmp_path: Path) -> None:
    hidden = f"import sys; sys.modules['openvino'] = None\n{COUNTS_TENSORFLOW}"
    command = [sys.executable, "-c", hidden, "predict", bundle_path, scene, "--out", tmp_path / "o", "--runtime"]
    done = subprocess.run([*map(str, command), "openvino"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: OpenVINO is not installed. Install it with `pip install 'lim-keras[openvino]'`."
    )


def test_threshold_counts_votes(bundle_path: Path) -> None:
    model = load_model(bundle_path, "openvino")
    assert model.info.threshold == THRESHOLD
    assert model.predict_all(images(20, 30)).votes.max() <= model.info.folds


@pytest.mark.parametrize("fold", [None, 0])
def test_large_images_get_networks_of_their_size(bundle_path: Path, fold: int | None, monkeypatch: Any) -> None:
    shown = np.floor(images(70, 131, 2))  # padded to the stride, as the network does
    model = load_model(bundle_path, "openvino", fold)
    expected = model.predict_all(shown)
    monkeypatch.setattr(compiled_network, "_LARGE", 2 * 70 * 131 - 1)
    network, compiled = compiled_network.CompiledNetwork, []
    compile_network = network._compiled
    monkeypatch.setattr(network, "_compiled", lambda self, size: compiled.append(size) or compile_network(self, size))
    for dtype in (np.uint8, np.uint16, np.float32, np.int16, np.uint8):
        answer = model.predict_all(shown.astype(dtype))
        for one, known in zip(answer, expected, strict=True):
            np.testing.assert_allclose(one, known, rtol=0, atol=1e-6)
    side = -(-131 // model.info.stride) * model.info.stride
    assert {size[0][2] for size in compiled} == {side}
    # int16 is shown as float32. Three networks are kept; the one for any size was used least recently.
    assert [size[1] for size in compiled] == ["uint8", "uint16", "float32"]
    model.predict(images(20, 30))
    assert compiled[3:] == [None]
    model.release()
    np.testing.assert_allclose(model.predict(shown), expected.probability, rtol=0, atol=1e-6)
    assert len(compiled) == 5  # once more, because the networks for single sizes were dropped
