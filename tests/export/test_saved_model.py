"""SavedModels: equal to the Python models in a process without the package, and no variable twice on the disk."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lim_keras.errors import BundleError, LimKerasWarning
from lim_keras.export.bundle import FoldGraph, export_models, float32_copy
from lim_keras.metrics.calibration import Calibration
from lim_keras.models import build_model
from tests.export.conftest import FOLDS, TEMPERATURE, THRESHOLD, constant, expected_folds, images, network

SIZES = [(1, 1), (31, 33), (33, 64)]

# What a user without lim_keras does. It gets the bundle's folder and a folder with in_<h>_<w>.npy.
FOREIGN_PROCESS = """
import json, pathlib, sys
import numpy as np
import tensorflow as tf
bundle, work = map(pathlib.Path, sys.argv[1:])
for folder in sorted(bundle.glob("*/1")):
    model = tf.saved_model.load(str(folder))
    for file in sorted(work.glob("in_*.npy")):
        outputs = model.signatures["serving_default"](image=tf.constant(np.load(file)))
        name = file.stem.replace("in_", f"out_{folder.parent.name}_")
        np.savez(work / name, **{key: value.numpy() for key, value in outputs.items()})
print(json.dumps([name for name in sys.modules if name.startswith("lim_keras")]))
"""


@pytest.fixture(scope="module")
def foreign_outputs(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("foreign")
    for height, width in SIZES:
        np.save(work / f"in_{height}_{width}.npy", images(height, width))
    command = [sys.executable, "-I", "-c", FOREIGN_PROCESS, str(bundle_path), str(work)]
    ran = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == []
    return work


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ensemble_in_a_process_without_the_package(
    foreign_outputs: Path, models: list[keras.Model], height: int, width: int
) -> None:
    folds = expected_folds(models, images(height, width))
    outputs = np.load(foreign_outputs / f"out_ensemble_{height}_{width}.npz")
    assert sorted(outputs) == ["probability", "spread", "votes"]
    assert {key: str(outputs[key].dtype) for key in outputs} == {
        "probability": "float32",
        "spread": "float32",
        "votes": "int32",
    }
    assert outputs["probability"].shape == (2, height, width, 1)
    np.testing.assert_allclose(outputs["probability"], folds.mean(axis=0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(outputs["spread"], folds.std(axis=0), rtol=0, atol=1e-5)
    clear = (np.abs(folds - THRESHOLD) > 1e-5).all(axis=0)
    np.testing.assert_array_equal(outputs["votes"][clear], (folds >= THRESHOLD).sum(axis=0)[clear])


@pytest.mark.parametrize("fold", range(FOLDS))
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_folds_in_a_process_without_the_package(
    foreign_outputs: Path, models: list[keras.Model], height: int, width: int, fold: int
) -> None:
    outputs = np.load(foreign_outputs / f"out_fold_{fold}_{height}_{width}.npz")
    assert sorted(outputs) == ["probability"]
    expected = expected_folds(models, images(height, width))[fold]
    np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=1e-5)


def test_the_test_networks_would_show_a_mistake(models: list[keras.Model]) -> None:
    """Folds, places and thresholds differ by far more than the tolerance."""
    folds = expected_folds(models, images(33, 64))
    assert folds.std(axis=0).mean() > 0.01
    assert folds.std(axis=(1, 2, 3, 4)).min() > 0.003
    assert 0.01 < (folds >= THRESHOLD).mean() < 0.99


def _outputs(path: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    loaded = tf.saved_model.load(str(path))
    return {key: value.numpy() for key, value in loaded.signatures["serving_default"](image=tf.constant(batch)).items()}


def _export(folder: Path, *models: keras.Model, threshold: float = 0.5, **calibration: float) -> Path:
    """The folder of the SavedModel that predicts."""
    export_models(models, folder, calibration=Calibration(**calibration), threshold=threshold)
    return folder / ("fold_0" if len(models) == 1 else "ensemble") / "1"


def test_temperature_by_hand(tmp_path: Path) -> None:
    path = _export(tmp_path, constant(2.0), temperature=2.0)
    # sigmoid(2 / 2) = 1 / (1 + exp(-1)) = 0.731059
    np.testing.assert_allclose(_outputs(path, images(3, 2))["probability"], 0.731059, atol=1e-6)


def test_bias_by_hand(tmp_path: Path) -> None:
    path = _export(tmp_path, constant(2.0), temperature=2.0, bias=-1.0)
    # sigmoid(2 / 2 - 1) = 1/2
    np.testing.assert_allclose(_outputs(path, images(3, 2))["probability"], 0.5, atol=1e-6)


def test_ensemble_by_hand(tmp_path: Path) -> None:
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4
    folds = [constant(0.0), constant(float(np.log(3))), constant(-float(np.log(3)))]
    outputs = _outputs(_export(tmp_path, *folds), images(1, 1, count=1))
    assert outputs["probability"].item() == pytest.approx(0.5, abs=1e-6)
    # standard deviation of 1/2, 3/4, 1/4: sqrt((0 + 1/16 + 1/16) / 3) = 0.204124
    assert outputs["spread"].item() == pytest.approx(0.204124, abs=1e-6)
    # 1/2 reaches the threshold, 3/4 does, 1/4 does not
    assert outputs["votes"].item() == 2


@pytest.mark.parametrize("bands", [1, 5])
def test_any_number_of_bands(tmp_path: Path, bands: int) -> None:
    path = _export(tmp_path, constant(0.0, bands))
    assert _outputs(path, np.ones((1, 4, 4, bands), np.float32))["probability"].shape == (1, 4, 4, 1)


def _disk_bytes(*folders: Path) -> int:
    """Bytes of variables below the folders, a file with two names counted once."""
    files = [file.stat() for folder in folders for file in folder.rglob("variables.*")]
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())


def test_variables_are_on_the_disk_once(bundle_path: Path, models: list[keras.Model]) -> None:
    weights = sum(4 * model.count_params() for model in models)
    folds = [bundle_path / f"fold_{fold}" for fold in range(FOLDS)]
    assert _disk_bytes(*folds) >= weights
    # What the ensemble adds: TensorFlow's description of its objects and the index, 42 kB, which grow with the number
    # of variables, not with their size.
    added = _disk_bytes(bundle_path) - _disk_bytes(*folds)
    assert added < 100_000
    assert added < weights / 5
    assert _disk_bytes(bundle_path / "ensemble") >= weights


def test_each_fold_file_is_linked_to_its_own(bundle_path: Path) -> None:
    def inodes(name: str) -> set[int]:
        return {file.stat().st_ino for file in (bundle_path / name / "1" / "variables").glob("*.data-*")}

    for fold in range(FOLDS):
        assert len(inodes("ensemble") & inodes(f"fold_{fold}")) == 1


def test_a_copy_of_the_ensemble_alone_is_complete(bundle_path: Path, models: list[keras.Model], tmp_path: Path) -> None:
    shutil.copytree(bundle_path / "ensemble", tmp_path / "ensemble")
    expected = expected_folds(models, images(31, 33)).mean(axis=0)
    np.testing.assert_allclose(
        _outputs(tmp_path / "ensemble" / "1", images(31, 33))["probability"], expected, rtol=0, atol=1e-5
    )


def test_without_hard_links_the_export_is_larger_but_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.warns(LimKerasWarning, match="second copy.*Operation not supported") as warned:
        export_models([constant(0.0), constant(2.0)], tmp_path, calibration=Calibration(), threshold=0.5)
    assert len(warned) == 1
    # (1/2 + sigmoid(2) = 0.880797) / 2 = 0.690399
    outputs = _outputs(tmp_path / "ensemble" / "1", images(2, 2))
    np.testing.assert_allclose(outputs["probability"], 0.690399, atol=1e-6)
    assert not list(tmp_path.rglob("*.link"))


def test_one_model_has_no_ensemble(tmp_path: Path) -> None:
    export_models([constant(0.0)], tmp_path, calibration=Calibration(), threshold=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold_0"]


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def _dtypes_in_graph(path: Path) -> set[int]:
    graph = tf.saved_model.load(str(path)).signatures["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {attribute.type for node in nodes for attribute in node.attr.values() if attribute.type}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"], indirect=True)
def test_mixed_precision_is_exported_in_float32(policy: str, tmp_path: Path) -> None:
    mixed = network(seed=7)
    assert mixed.get_layer("scale_2_conv").compute_dtype == policy.removeprefix("mixed_")
    path = _export(tmp_path, mixed)
    assert not {tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum} & _dtypes_in_graph(path)
    keras.config.set_dtype_policy("float32")
    twin = network(seed=7)
    twin.set_weights(mixed.get_weights())
    expected = 1 / (1 + np.exp(-np.asarray(twin(images(33, 64), training=False), np.float64)))
    np.testing.assert_allclose(_outputs(path, images(33, 64))["probability"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["unet", "segnet", "fcn"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_float32_copy_of_every_decoder(policy: str, name: str) -> None:
    model = build_model(name, encoder="small", encoder_weights=None, decoder_channels=2)
    copy = float32_copy(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    assert {layer.compute_dtype for layer in copy.get_layer("encoder").layers} == {"float32"}
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def halved(models: list[keras.Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half")
    # A variance beyond float16's 65504, as layers over large features have them.
    large = network(seed=9)
    variance = next(weight for weight in large.weights if weight.path.endswith("moving_variance"))
    variance.assign(variance * 0 + 1e6)
    export_models([models[0], large], path, calibration=Calibration(TEMPERATURE), threshold=THRESHOLD, half=True)
    export_models([models[0], large], path / "full", calibration=Calibration(TEMPERATURE), threshold=THRESHOLD)
    return path


def test_half_size_takes_half_the_bytes(halved: Path, models: list[keras.Model]) -> None:
    halves = [tf.saved_model.load(str(halved / "fold_0" / "1")), tf.saved_model.load(str(halved / "full/fold_0/1"))]
    half, full = (sum(weight.dtype.size * weight.shape.num_elements() for weight in one.weights) for one in halves)
    vectors = sum(4 * int(np.prod(weight.shape)) for weight in models[0].weights if len(weight.shape) < 2)
    assert half - vectors == (full - vectors) / 2
    files = [
        sum(file.stat().st_size for file in (path / "fold_0").rglob("*.data-*")) for path in (halved, halved / "full")
    ]
    # Beside the weights stands TensorFlow's description of the objects, some kB that do not shrink.
    assert files[0] < 0.65 * files[1]
    assert _disk_bytes(halved / "fold_0", halved / "ensemble") < 1.2 * (_disk_bytes(halved / "ensemble"))


@pytest.mark.parametrize("name", ["fold_0", "fold_1", "ensemble"])
def test_half_size_answers_as_full_size(halved: Path, name: str) -> None:
    half, full = (_outputs(path / name / "1", images(33, 64)) for path in (halved, halved / "full"))
    difference = np.abs(half["probability"] - full["probability"]).max()
    assert 0 < difference < 2e-3
    assert half["probability"].std() > 0.003


def test_half_size_in_a_process_without_the_package(halved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in_31_33.npy", images(31, 33))
    command = [sys.executable, "-I", "-c", FOREIGN_PROCESS, str(halved), str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = _outputs(halved / "ensemble" / "1", images(31, 33))["probability"]
    outputs = np.load(tmp_path / "out_ensemble_31_33.npz")
    np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=1e-6)


def test_kernel_beyond_half_precision(tmp_path: Path) -> None:
    model = constant(0.0)
    model.layers[-1].kernel.assign(np.full((1, 1, 3, 1), -1e5, np.float32))
    with pytest.raises(BundleError, match=r"`half`.*65504.*kernel with 100000.*half=False"):
        export_models([model], tmp_path, calibration=Calibration(), threshold=0.5, half=True)


def test_only_what_computes_in_reduced_precision_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[keras.Model] = []

    def copy(model: keras.Model) -> keras.Model:
        copied.append(model)
        return float32_copy(model)

    monkeypatch.setattr("lim_keras.export.bundle.float32_copy", copy)
    inner = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1, dtype="mixed_bfloat16")])
    image = keras.Input((None, None, 3))
    mixed = keras.Model(image, keras.layers.Conv2D(1, 1, dtype="float32")(inner(image)))
    for model in (network(seed=7), mixed):
        FoldGraph(model)
    assert copied == [mixed]


def test_copies_do_not_follow_the_model() -> None:
    model = constant(1.0)
    copy = float32_copy(model)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    assert copy.get_weights()[1].item() == 1.0


def test_loads_as_tensorflow_serving_does(bundle_path: Path, models: list[keras.Model]) -> None:
    """The C++ server restores through the operations named in the graph, as a session of TensorFlow 1 does."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(bundle_path / "ensemble" / "1"))
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["image"].name: images(31, 33)}
        got = session.run(signature.outputs["probability"].name, feed)
    np.testing.assert_allclose(got, expected_folds(models, images(31, 33)).mean(axis=0), rtol=0, atol=1e-5)


def test_folds_compute_one_after_the_other(bundle_path: Path) -> None:
    """Two of them at once would take the memory of two."""
    tf1 = tf.compat.v1
    with tf1.Session(graph=tf.Graph()) as session:
        meta = tf1.saved_model.loader.load(session, ["serve"], str(bundle_path / "ensemble" / "1"))
        signature = meta.signature_def["serving_default"]
        traced, run = tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE), tf1.RunMetadata()
        feed = {signature.inputs["image"].name: images(256, 256)}
        session.run(signature.outputs["probability"].name, feed, options=traced, run_metadata=run)
    nodes = [node for device in run.step_stats.dev_stats for node in device.node_stats]
    order = []
    for node in sorted(nodes, key=lambda node: node.all_start_micros):
        calls = re.search(r"StatefulPartitionedCall/StatefulPartitionedCall(?:_(\d))?/.*conv", node.node_name)
        if calls and "ReadVariableOp" not in node.node_name:
            order.append(int(calls[1] or 0))
    assert set(order) == set(range(FOLDS)) and len(order) > 5 * FOLDS
    assert order == sorted(order)


def test_loads_as_a_keras_layer(bundle_path: Path, models: list[keras.Model]) -> None:
    layer = keras.layers.TFSMLayer(bundle_path / "ensemble" / "1", call_endpoint="serving_default")
    outputs = layer(images(33, 64))
    expected = expected_folds(models, images(33, 64))
    np.testing.assert_allclose(outputs["probability"], expected.mean(axis=0), rtol=0, atol=1e-5)
    assert sorted(outputs) == ["probability", "spread", "votes"]


def test_the_file_holds_the_documented_signatures(bundle_path: Path) -> None:
    content = (bundle_path / "ensemble" / "1" / "saved_model.pb").read_bytes()
    signatures = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def

    def described(tensors: Mapping[str, Any]) -> dict[str, tuple[tf.DType, list[int]]]:
        return {
            name: (tf.as_dtype(tensor.dtype), [side.size for side in tensor.tensor_shape.dim])
            for name, tensor in tensors.items()
        }

    outputs = dict.fromkeys(["probability", "spread"], (tf.float32, [-1, -1, -1, 1]))
    outputs["votes"] = (tf.int32, [-1, -1, -1, 1])
    plain, encoded = signatures["serving_default"], signatures["encoded"]
    assert described(plain.inputs) == {"image": (tf.float32, [-1, -1, -1, 3])}
    assert described(encoded.inputs) == {"image_bytes": (tf.string, [-1])}
    assert described(plain.outputs) == described(encoded.outputs) == outputs


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_wrong_threshold(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(BundleError, match=r"`threshold`.*0\.\.1"):
        _export(tmp_path, constant(0.0), constant(1.0), threshold=threshold)


def test_folds_must_agree_in_bands(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"one number of bands.*\{3, 4\}"):
        _export(tmp_path, constant(0.0, 3), constant(0.0, 4))


def test_no_folds(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="0 folds"):
        _export(tmp_path)


def test_two_classes_are_refused(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3))
    with pytest.raises(BundleError, match=r"`model`.*logits \(n, h, w, 1\)"):
        _export(tmp_path, keras.Model(image, keras.layers.Conv2D(2, 1)(image)))
