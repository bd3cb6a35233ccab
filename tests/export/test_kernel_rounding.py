"""Depthwise kernels in eight bits keep their sums, and with them what edge filters say of flat ground."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import SIGNATURE
from lim_keras.export.bundle import FoldGraph
from lim_keras.export.graph_edits import rounded_depthwise_kernels, rounded_keeping_sums
from lim_keras.export.tflite_check import convert

CHANNELS = 24


@pytest.fixture(scope="module")
def edges() -> np.ndarray:
    """Kernels (3, 3, channels, 1) of large weights that sum to 0, as the first ones of MobileNetV2."""
    kernels = np.random.default_rng(3).normal(0, 8, (3, 3, CHANNELS, 1))
    return (kernels - kernels.mean(axis=(0, 1))).astype(np.float32)


def test_sums_stay_and_weights_are_multiples_of_the_step(edges: np.ndarray) -> None:
    step = np.abs(edges).max(axis=(0, 1), keepdims=True) / 127
    rounded = rounded_keeping_sums(edges)
    assert np.abs(rounded / step - np.rint(rounded / step)).max() < 1e-4
    assert (np.abs(rounded - edges) < step).all()
    assert np.abs(rounded).max(axis=(0, 1)) == pytest.approx(np.abs(edges).max(axis=(0, 1)))
    plain = np.rint(edges / step) * step
    errors = [np.abs((kernel - edges).sum(axis=(0, 1))) / step[0, 0] for kernel in (rounded, plain)]
    assert errors[0].max() <= 0.5 + 1e-4 < errors[1].max()


def test_a_channel_of_zeros_stays() -> None:
    kernel = np.zeros((3, 3, 2, 1), np.float32)
    kernel[1, 1, 1] = -2.0
    np.testing.assert_array_equal(rounded_keeping_sums(kernel), kernel)


@pytest.fixture(scope="module")
def edge_finder(edges: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SavedModel that adds up edges of a bright image: probability 0.5 on flat ground, whatever its brightness."""
    image = keras.Input((None, None, 3))
    bright = keras.layers.Conv2D(CHANNELS, 1, kernel_initializer=keras.initializers.Constant(1 / 765))(image)
    found = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="edges")(bright)
    model = keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer="ones")(found))
    model.get_layer("edges").set_weights([edges])
    graph = FoldGraph(model)
    path = str(tmp_path_factory.mktemp("edges"))
    tf.saved_model.save(graph, path, signatures={SIGNATURE: graph.probability})
    return path


def _on_flat_ground(blob: bytes, value: int) -> float:
    runner = Interpreter(model_content=blob).get_signature_runner()
    output = runner.get_output_details()["probability"]
    scale, zero = output["quantization"]
    said = runner(image=np.full((1, 32, 32, 3), value, np.uint8))["probability"]
    return float((said[0, 16, 16, 0].astype(np.float32) - zero) * scale)


def test_edge_filters_say_nothing_of_flat_ground(
    edge_finder: str, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [np.random.default_rng(seed).integers(240, 256, (32, 32, 3)).astype(np.float32) for seed in range(4)]
    models, info = [tf.saved_model.load(edge_finder)], BundleInfo.read(bundle_path)
    said = _on_flat_ground(convert(models, "int8", 32, info, windows), 250)
    monkeypatch.setattr("lim_keras.export.graph_edits.rounded_keeping_sums", lambda kernel: kernel)
    plain = _on_flat_ground(convert(models, "int8", 32, info, windows), 250)
    assert abs(said - 0.5) < 0.02 < abs(plain - 0.5)


def test_the_loaded_model_is_as_before(edge_finder: str, edges: np.ndarray) -> None:
    model = tf.saved_model.load(edge_finder)
    (kernel,) = [one for one in model.signatures[SIGNATURE].variables if one.shape == edges.shape]
    with rounded_depthwise_kernels([model]):
        assert not np.array_equal(kernel.numpy(), edges)
    np.testing.assert_array_equal(kernel.numpy(), edges)
