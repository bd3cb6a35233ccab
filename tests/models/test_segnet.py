"""SegNet: unpooling by hand and against a slow oracle, both kinds of encoder, every size, TensorFlow Lite."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.models import build_model
from lim_keras.models.decoders import MaxUnpool, decode_segnet
from lim_keras.models.layers import BilinearUpsampling

CHANNELS = (3, 4, 5, 6, 7)


def _unpool_slowly(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """One value at a time: the first of the largest in each block takes it."""
    out = np.zeros(reference.shape, values.dtype)
    for n, i, j, c in np.ndindex(*values.shape):
        block = reference[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        row, column = divmod(int(np.argmax(block)), 2)
        out[n, 2 * i + row, 2 * j + column, c] = values[n, i, j, c]
    return out


def test_unpool_by_hand() -> None:
    #   reference     largest of each 2 x 2 block      values     put back
    #   1 2 | 0 0     2 (first row, second column)     5 6        0 5 | 6 0
    #   0 1 | 0 0     four zeros: the first                       0 0 | 0 0
    reference = np.array([[1, 2, 0, 0], [0, 1, 0, 0]], np.float32)[None, :, :, None]
    values = np.array([[5, 6]], np.float32)[None, :, :, None]
    expected = np.array([[0, 5, 6, 0], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(np.asarray(MaxUnpool()(values, reference))[0, :, :, 0], expected)


@pytest.mark.parametrize("seed", range(5))
def test_unpool_equals_slow_oracle_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 3, (2, 6, 8, 3)).astype(np.float32)  # three levels: most blocks hold ties
    values = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(MaxUnpool()(values, reference)), _unpool_slowly(values, reference))


def test_unpool_of_the_pooled_map_agrees_with_tensorflows_indices() -> None:
    reference = np.random.default_rng(0).random((2, 6, 8, 3)).astype(np.float32)
    pooled, positions = tf.nn.max_pool_with_argmax(reference, 2, 2, "VALID", include_batch_in_index=True)
    expected = np.zeros(reference.size, np.float32)
    expected[positions.numpy().ravel()] = pooled.numpy().ravel()
    got = np.asarray(MaxUnpool()(pooled, reference))
    np.testing.assert_array_equal(got, expected.reshape(reference.shape))


def test_positions_pass_no_gradient() -> None:
    reference, values = tf.random.uniform((1, 4, 4, 2), seed=1), tf.random.uniform((1, 2, 2, 2), seed=2)
    with tf.GradientTape() as tape:
        tape.watch([reference, values])
        total = tf.reduce_sum(MaxUnpool()(values, reference))
    to_reference, to_values = tape.gradient(total, [reference, values])
    assert to_reference is None
    # Every value is put back exactly once: d(sum) / d(value) = 1.
    np.testing.assert_array_equal(to_values.numpy(), np.ones((1, 2, 2, 2), np.float32))


def test_unpool_survives_saving() -> None:
    small, large = keras.Input((None, None, 2)), keras.Input((None, None, 2))
    model = keras.Model([small, large], MaxUnpool(name="unpool")(small, large))
    twin = keras.Model.from_config(model.get_config())
    assert isinstance(twin.get_layer("unpool"), MaxUnpool)
    assert twin.output_shape == (None, None, None, 2)


def _inputs(pooling: bool) -> list[keras.KerasTensor]:
    """Maps of a 64 x 96 image: five at 1/2 .. 1/32, and with pooling the five before, equally wide."""
    maps = [keras.Input((64 // 2**s, 96 // 2**s, c)) for s, c in enumerate(CHANNELS, start=1)]
    return maps + [keras.Input((64 // 2**s, 96 // 2**s, c)) for s, c in enumerate(CHANNELS)] if pooling else maps


@pytest.mark.parametrize("pooling", [True, False])
def test_logits_have_the_encoders_input_resolution(pooling: bool) -> None:
    features = _inputs(pooling)
    assert keras.Model(features, decode_segnet(features, 4)).output_shape == (None, 64, 96, 1)


@pytest.mark.parametrize(("pooling", "unpoolings"), [(True, 5), (False, 4)])
def test_each_step_up_has_positions_where_the_encoder_has_a_map(pooling: bool, unpoolings: int) -> None:
    features = _inputs(pooling)
    layers = keras.Model(features, decode_segnet(features, 4)).layers
    assert sum(isinstance(layer, MaxUnpool) for layer in layers) == unpoolings
    assert sum(isinstance(layer, BilinearUpsampling) for layer in layers) == 5 - unpoolings


def test_only_positions_cross_from_encoder_to_decoder() -> None:
    """Doubling a reference map keeps every maximum where it is, so the logits do not change; turning it over does."""
    features = _inputs(pooling=True)
    model = keras.Model(features, decode_segnet(features, 2))
    rng = np.random.default_rng(0)
    model.set_weights([np.abs(rng.normal(scale=0.3, size=w.shape)) for w in model.get_weights()])
    maps = [rng.random((1, *f.shape[1:])).astype(np.float32) for f in features]

    def logits(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.asarray(model.predict_on_batch(maps[:5] + [change(m) for m in maps[5:]]))

    same = logits(lambda m: m)
    np.testing.assert_array_equal(logits(lambda m: 2 * m), same)
    assert np.abs(logits(lambda m: -m) - same).max() > 1e-4


def test_starts_undecided() -> None:
    model = build_model("segnet", encoder="small", encoder_weights=None, decoder_channels=4)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(image), np.zeros((1, 32, 32, 1), np.float32))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 33), (33, 64)])
def test_any_size(height: int, width: int) -> None:
    model = build_model("segnet", encoder="small", encoder_weights=None, decoder_channels=4)
    logits = model.predict_on_batch(np.zeros((2, height, width, 3), np.float32))
    assert logits.shape == (2, height, width, 1)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("encoder", ["vgg16", "mobilenetv2"])
def test_on_every_encoder(encoder: str) -> None:
    model = build_model("segnet", encoder=encoder, encoder_weights="none", decoder_channels=4)
    assert model.output_shape == (None, None, None, 1)


def test_one_step_learns() -> None:
    model = build_model("segnet", encoder="small", encoder_weights=None, decoder_channels=4)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    label = (image[..., :1] > 128).astype(np.float32)
    losses = [float(model.train_on_batch(image, label)) for _ in range(4)]
    # The first loss is that of probability 1/2 everywhere: ln 2 = 0.6931.
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_unpool_converts_to_tensorflow_lite_with_built_in_operations() -> None:
    layer = MaxUnpool()

    class Unpool(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 2)), tf.TensorSpec((1, 8, 8, 2))])
        def __call__(self, values: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
            return layer(values, reference)

    module = Unpool()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    assert converter.target_spec.supported_ops == {tf.lite.OpsSet.TFLITE_BUILTINS}
    assert converter.convert()
