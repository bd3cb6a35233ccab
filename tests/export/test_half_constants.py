"""float16 constants in .tflite files: which are halved, and that LiteRT computes with what they became."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from lim_keras.export.graph_edits import LARGE, halve_large_constants

CHANNELS = 40  # 3 x 3 x 40 x 40 = 14,400 numbers


class Network(tf.Module):
    """A large and a small kernel."""

    def __init__(self, large: np.ndarray, small: np.ndarray) -> None:
        super().__init__()
        self.large, self.small = tf.constant(large), tf.constant(small)

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, CHANNELS))], autograph=False)
    def run(self, image):
        return {"sum": tf.nn.conv2d(tf.nn.conv2d(image, self.large, 1, "SAME"), self.small, 1, "SAME")}


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.ndarray, np.ndarray], bytes]:
    def converted(large: np.ndarray, small: np.ndarray) -> bytes:
        folder = str(tmp_path_factory.mktemp("network"))
        network = Network(large, small)
        tf.saved_model.save(network, folder, signatures={"serving_default": network.run})
        return bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())

    return converted


@pytest.fixture(scope="module")
def kernels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 3, CHANNELS, CHANNELS)).astype("f4"), rng.normal(size=(1, 1, CHANNELS, 4)).astype("f4")


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    return Interpreter(model_content=content, num_threads=1).get_signature_runner()(image=image)["sum"]


def test_large_constants_are_halved_and_small_ones_are_not(convert, kernels) -> None:
    large, small = kernels
    exact = convert(large, small)
    half = halve_large_constants(exact)
    assert large.size >= LARGE > small.size
    assert len(exact) - len(half) == pytest.approx(2 * large.size, abs=1000)
    image = np.random.default_rng(1).uniform(size=(1, 20, 30, CHANNELS)).astype("f4")
    said = run(half, image)
    np.testing.assert_allclose(said, run(convert(large.astype("f2").astype("f4"), small), image), rtol=1e-4, atol=1e-3)
    # neither the exact large kernel nor a rounded small one gives that
    for other in ((large, small), (large.astype("f2").astype("f4"), small.astype("f2").astype("f4"))):
        assert np.abs(said - run(convert(*other), image)).max() > 3e-3


def test_constants_that_share_their_numbers(convert, kernels) -> None:
    """The converter stores equal constants once; each of their tensors is widened."""
    large = kernels[0]
    exact = convert(large, large)
    half = halve_large_constants(exact)
    assert len(half) < len(exact) - large.size
    image = np.random.default_rng(1).uniform(size=(1, 9, 9, CHANNELS)).astype("f4")
    rounded = large.astype("f2").astype("f4")
    np.testing.assert_allclose(run(half, image), run(convert(rounded, rounded), image), rtol=1e-4, atol=0.05)


def test_nothing_to_halve(convert, kernels) -> None:
    small = kernels[1]
    image = np.random.default_rng(1).uniform(size=(1, 9, 9, CHANNELS)).astype("f4")
    content = convert(np.zeros((1, 1, CHANNELS, CHANNELS), "f4") + np.eye(CHANNELS, dtype="f4"), small)
    np.testing.assert_array_equal(run(halve_large_constants(content), image), run(content, image))
