"""Layers: value ranges, padding, cropping and bilinear upsampling, each against numbers worked by hand or numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.models.layers import (
    BandRange,
    BilinearUpsampling,
    CropLike,
    FusedBatchNormalization,
    PadToMultiple,
    project,
    score,
    upsample,
)


def ramp(height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.arange(height * width * channels, dtype=np.float32).reshape(1, height, width, channels)


# Value range.


def test_band_range_by_hand():
    layer = BandRange([0, 100], [10, 300])
    # band 1: 5 of 0..10 is half, 127.5; band 2: 150 of 100..300 is a quarter, 63.75; outside the range goes on
    got = layer(np.float32([[[[5, 150], [20, 50]]]]))
    np.testing.assert_allclose(got, [[[[127.5, 63.75], [510, -63.75]]]])


def test_band_range_reads_reflectance_in_full_before_it_rounds():
    # bfloat16 holds 8 bits: 5003 would come in as 4992, 44 % of a step of 255ths too low
    layer = BandRange([4900.0], [5100.0], dtype="mixed_bfloat16")
    got = layer(np.full((1, 1, 1, 1), 5003, np.float32))
    assert got.dtype == tf.bfloat16
    # 103 / 200 * 255 = 131.325; bfloat16 has steps of 1 there
    assert float(tf.cast(got, tf.float32)[0, 0, 0, 0]) == 131


# Padding and cropping.


@pytest.mark.parametrize("height, width", [(1, 1), (8, 8), (7, 9), (16, 3)])
def test_padding_repeats_the_last_row_and_column(height, width):
    images = ramp(height, width, 2)
    below, beside = -height % 8, -width % 8
    expected = np.pad(images, ((0, 0), (0, below), (0, beside), (0, 0)), mode="edge")
    layer = PadToMultiple(8)
    np.testing.assert_array_equal(layer(images), expected)
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 2), tf.float32)])
    np.testing.assert_array_equal(dynamic(images), expected)
    assert layer.compute_output_shape((None, height, None, 2)) == (None, height + below, None, 2)


def test_crop_is_the_inverse_of_padding():
    images = ramp(5, 11)
    padded = PadToMultiple(8)(images)
    np.testing.assert_array_equal(CropLike()(padded, images), images)
    assert CropLike().compute_output_shape((None, 16, 16, 4), (None, 5, None, 3)) == (None, 5, None, 4)


def test_crop_gives_float32_whatever_the_precision():
    layer = CropLike(dtype="float32")
    assert layer(tf.ones((1, 8, 8, 1), tf.bfloat16), np.zeros((1, 5, 5, 3), np.float32)).dtype == tf.float32


@pytest.mark.parametrize("layer", [BandRange([0, 1], [2, 3]), PadToMultiple(16), CropLike(), BilinearUpsampling(4)])
def test_layers_go_through_their_configuration(layer):
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()


# Upsampling.


def upsampling(factor: int, channels: int = 1) -> keras.Model:
    features = keras.Input((None, None, channels))
    return keras.Model(features, upsample(features, factor, "up"))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_is_bilinear(factor):
    # a plane is interpolated exactly away from the border: pixel y of the result lies at (y + 1/2) / factor - 1/2
    rows, columns = np.mgrid[:6, :7].astype(np.float32)
    plane = (3 * rows - 2 * columns)[None, ..., None]
    got = np.asarray(upsampling(factor)(plane))[0, ..., 0]
    assert got.shape == (6 * factor, 7 * factor)
    fine_rows, fine_columns = ((np.arange(n * factor) + 0.5) / factor - 0.5 for n in (6, 7))
    expected = 3 * fine_rows[:, None] - 2 * fine_columns
    inner = slice(factor, -factor)
    np.testing.assert_allclose(got[inner, inner], expected[inner, inner], atol=1e-5)


def test_upsampling_by_two_by_hand():
    # between 0 and 4 lie 1 and 3; the outer pixels, beyond which nothing is known, are as their neighbours
    got = upsampling(2)(np.float32([[[[0], [4]]]]))
    np.testing.assert_allclose(got[0, ..., 0], [[0, 1, 3, 4], [0, 1, 3, 4]])


def test_upsampling_keeps_channels_apart():
    got = np.asarray(upsampling(2, 3)(np.float32([[[[1, 0, 5]]]])))
    assert not got[..., 1].any()
    np.testing.assert_allclose(got[..., 2], 5 * got[..., 0])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_upsampling_keeps_the_compute_type(policy):
    layer = BilinearUpsampling(2, dtype=policy)
    pixels = tf.constant(ramp(3, 4), layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        enlarged = layer(pixels)
    assert enlarged.dtype == layer.compute_dtype
    # each pixel is worth four of the result, and those that leave the edge for nowhere stay in it
    np.testing.assert_array_equal(tape.gradient(enlarged, pixels), np.full((1, 3, 4, 1), 4))


def test_upsampled_shapes_where_a_size_is_known():
    assert BilinearUpsampling(4).compute_output_shape((None, 5, None, 3)) == (None, 20, None, 3)
    assert upsample(keras.Input((5, None, 3)), 2, "up").shape == (None, 10, None, 3)


# Projection and score.


def test_projection_is_normalised():
    features = keras.Input((None, None, 5))
    model = keras.Model(features, project(features, 3, "scale_4"))
    large = (np.random.default_rng(0).random((2, 8, 8, 5)) * 900).astype(np.float32)
    got = np.asarray(model(large, training=True))
    np.testing.assert_allclose(got.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(got.std((0, 1, 2)), 1, atol=1e-2)
    assert [layer.name for layer in model.layers[1:]] == ["scale_4_conv", "scale_4_bn"]


def test_score_starts_at_zero():
    features = keras.Input((None, None, 5))
    got = keras.Model(features, score(features))(np.full((1, 2, 3, 5), 700, np.float32))
    np.testing.assert_array_equal(got, np.zeros((1, 2, 3, 1)))


# Batch normalisation.


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fused_normalisation_trains_as_that_of_keras(policy):
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.normal(3, 5, (2, 3, 5, 4)), tf.float32)
    towards = rng.normal(size=pixels.shape).astype(np.float32)
    results = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9, dtype=policy)
        layer.build(pixels.shape)
        layer.gamma.assign([1.0, 2.0, 3.0, 4.0])
        layer.beta.assign([-2.0, 0.0, 1.0, 2.0])
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * towards)
        gradients = tape.gradient(loss, [pixels, layer.gamma.value, layer.beta.value])
        after = layer(pixels, training=False)
        results.append([outputs, *gradients, layer.moving_mean, layer.moving_variance, after])
    tolerance = 2e-5 if policy == "float32" else 5e-2
    for expected, got in zip(*results, strict=True):
        assert tf.convert_to_tensor(got).dtype == tf.convert_to_tensor(expected).dtype
        as_float = [np.asarray(tf.cast(values, tf.float32)) for values in (got, expected)]
        np.testing.assert_allclose(*as_float, rtol=tolerance, atol=tolerance)


def test_fused_normalisation_by_hand():
    # 1, 3: mean 2, variance 1; momentum .9 of 0 and 1: .1 * 2 = .2 and .9 + .1 * 1 = 1
    layer = FusedBatchNormalization(momentum=0.9, epsilon=1e-12)
    got = layer(np.float32([[[[1.0]], [[3.0]]]]), training=True)
    np.testing.assert_allclose(np.ravel(got), [-1, 1], rtol=1e-5)
    np.testing.assert_allclose([layer.moving_mean[0], layer.moving_variance[0]], [0.2, 1.0], rtol=1e-6)


def test_frozen_normalisation_keeps_its_figures():
    layer = FusedBatchNormalization()
    layer.trainable = False
    np.testing.assert_allclose(layer(np.full((1, 2, 2, 1), 5, np.float32), training=True), 5 / 1.001**0.5, rtol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [0])
