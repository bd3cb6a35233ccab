"""Whole networks: any size, zero logits at first, raw pixels of any range, saved and reloaded safely."""

import doctest
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

import lim_keras.models
from lim_keras.config import EncoderName, ModelName
from lim_keras.errors import ModelError
from lim_keras.models import build_model, network_stride
from lim_keras.models.decoders import DECODERS
from lim_keras.models.encoders import ENCODERS

NAMES = ["fcn", "fcn_fl", "unet", "segnet"]


def small(name: str = "fcn_fl", bands: int = 3, **arguments: object) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_model(name, "small", bands, encoder_weights="none", decoder_channels=4, **arguments)


def with_opinion(model: keras.Model) -> keras.Model:
    """The score layer starts at zero; give it weights."""
    layer = model.get_layer("score")
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    return model


def pixels(height: int, width: int, bands: int = 3, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, bands)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_any_size_in_graph_mode_with_sizes_unknown(name):
    model = with_opinion(small(name))
    graph = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)],
    )
    for size in [(1, 1), (31, 33), (1, 70), (64, 32)]:
        images = pixels(*size)
        logits = graph(images)
        assert logits.shape == (1, *size, 1) and logits.dtype == tf.float32
        np.testing.assert_allclose(logits, model(images, training=False), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_zero_at_first(name):
    np.testing.assert_array_equal(small(name)(pixels(40, 50)), np.zeros((1, 40, 50, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_scored_is_not_rectified(name):
    """Every channel takes both signs: no logit is capped at the score's bias, out of a gradient's reach."""
    model = small(name)
    scored = keras.Model(model.input, model.get_layer("score").input)
    channels = np.reshape(scored(pixels(64, 64, count=2), training=True), (-1, 4))
    assert (channels.min(axis=0) < -0.1).all() and (channels.max(axis=0) > 0.1).all()


def test_padding_does_not_depend_on_where_the_size_is_known():
    model = with_opinion(small())
    fixed = keras.Input((31, 33, 3))
    static = keras.Model(fixed, model(fixed))
    np.testing.assert_allclose(static(pixels(31, 33)), model(pixels(31, 33)), atol=1e-5)
    assert static.output_shape == (None, 31, 33, 1) and model.output_shape == (None, None, None, 1)


@pytest.mark.parametrize("encoder", ["mobilenetv2", "vgg16"])
def test_every_encoder_is_found_by_its_name(encoder):
    model = build_model("fcn_fl", encoder, encoder_weights="none", decoder_channels=4)
    assert model.get_layer("encoder").trainable_variables
    assert model(pixels(32, 40)).shape == (1, 32, 40, 1)


# Reduction.


def test_reduction_averages_squares_before_the_encoder():
    plain, reduced = with_opinion(small()), with_opinion(small(input_reduction=2))
    shared = {weight.path: weight for weight in plain.weights}
    for weight in reduced.weights:
        weight.assign(shared[weight.path])
    image = pixels(64, 128)
    means = image.reshape(1, 32, 2, 64, 2, 3).mean(axis=(2, 4))
    coarse = np.asarray(plain(means))
    fine = np.asarray(reduced(image))
    assert fine.shape == (1, 64, 128, 1)
    # bilinear: the mean of a square of four fine logits is a mix of the coarse one and its neighbours
    squares = fine.reshape(1, 32, 2, 64, 2).mean(axis=(2, 4))
    padded = np.pad(coarse[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    # along an axis a coarse pixel gives 1/4 3/4 3/4 1/4, so its own pair holds 3/4 of it and 1/8 of each neighbour
    blur = np.array([1, 6, 1]) / 8
    rows = sum(weight * padded[:, at : at + 32] for at, weight in enumerate(blur))
    expected = sum(weight * rows[:, :, at : at + 64] for at, weight in enumerate(blur))
    np.testing.assert_allclose(squares, expected, atol=1e-4)


def test_reduction_of_odd_sizes():
    assert small(input_reduction=4)(pixels(5, 131)).shape == (1, 5, 131, 1)
    assert [network_stride(reduction) for reduction in (1, 2, 4)] == [32, 64, 128]


# Value range.


def test_raw_values_of_any_range_are_brought_to_8_bits():
    plain = with_opinion(small(bands=2))
    reflectance = with_opinion(small(bands=2, value_range=[(0.0, 10200.0), (1000.0, 1255.0)]))
    images = pixels(32, 32, 2)
    # band 1: 40 times as large; band 2: 1000 more
    np.testing.assert_allclose(reflectance(images * [40, 1] + [0, 1000]), plain(images), atol=1e-3)


# Saving.


@pytest.mark.parametrize("name", NAMES)
def test_saved_models_load_in_safe_mode(name, tmp_path):
    model = with_opinion(small(name, value_range=[(0, 3000)] * 3, input_reduction=2, dropout=0.1))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    images = pixels(33, 47) * 10
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))


# Precision.


def test_mixed_precision_gives_float32_logits():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = with_opinion(small())
    finally:
        keras.config.set_dtype_policy(before)
    plain = with_opinion(small())
    plain.set_weights(model.get_weights())
    logits = model(pixels(64, 64))
    assert logits.dtype == tf.float32
    assert np.abs(np.asarray(logits) - np.asarray(plain(pixels(64, 64)))).mean() < 0.05


# Names.


def test_configurations_know_the_same_names():
    assert list(ENCODERS) == list(get_args(EncoderName))
    assert list(DECODERS) == list(get_args(ModelName))


def test_examples_of_docstrings():
    result = doctest.testmod(lim_keras.models)
    assert result.failed == 0 and result.attempted == 2


# Bad arguments.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "deeplab"}, r"`name`\. Expected one of fcn, fcn_fl, unet, segnet\. Received: deeplab"),
        ({"encoder": "resnet"}, r"`encoder`\. Expected one of .*Received: resnet"),
        ({"decoder_channels": 0}, r"`decoder_channels`\. Expected >= 1\. Received: 0"),
        ({"input_reduction": 3}, r"`input_reduction`\. Expected 1, 2 or 4\. Received: 3"),
        ({"dropout": 1.0}, r"`dropout`\. Expected 0 <= dropout < 1\. Received: 1\.0"),
        ({"value_range": [(0, 1)]}, r"`value_range`\. Expected 3 pairs low < high\. Received: \[\(0, 1\)\]"),
        ({"value_range": [(0, 1), (2, 2), (0, 1)]}, r"`value_range`\. Expected 3 pairs low < high"),
        ({"bands": 0}, r"`bands`\. Expected an integer >= 1\. Received: 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ModelError, match=message):
        build_model(**{"name": "fcn_fl", "encoder": "small", "encoder_weights": "none", **arguments})
