"""Encoders: five maps of raw pixels, scaling inside the graph, any number of bands, weights that fit."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.errors import ModelError
from lim_keras.models.encoders import build_encoder, freeze_scales, has_pooling, widen_kernel


@pytest.fixture(scope="module")
def weights() -> Path:
    folder = os.environ.get("LIM_KERAS_WEIGHTS")
    if not folder:
        pytest.skip("LIM_KERAS_WEIGHTS does not name the folder of the ImageNet weights")
    return Path(folder)


def photograph(side: int = 64, bands: int = 3) -> np.ndarray:
    """Smooth values 0..255, (1, side, side, bands)."""
    rows, columns = np.mgrid[:side, :side] / side
    waves = [127 + 90 * np.sin(6 * rows + band) + 38 * np.cos(9 * columns - band) for band in range(bands)]
    return np.stack(waves, -1)[None].astype(np.float32)


# Shapes.


@pytest.mark.parametrize(
    "name, channels",
    [("vgg16", (64, 128, 256, 512, 512)), ("mobilenetv2", (16, 144, 192, 576, 320)), ("small", (16, 24, 32, 48, 64))],
)
def test_five_maps_each_half_the_one_before(name, channels):
    encoder = build_encoder(name, weights="none")
    assert encoder.name == "encoder"
    maps = encoder(np.zeros((1, 96, 64, 3), np.float32))
    sides = [(48, 32), (24, 16), (12, 8), (6, 4), (3, 2)]
    assert [tuple(m.shape[1:]) for m in maps] == [(*side, depth) for side, depth in zip(sides, channels, strict=True)]


@pytest.mark.parametrize("name", ["small", "vgg16"])
def test_maps_before_their_pooling(name):
    maps = build_encoder(name, weights="none", before_pooling=True)(photograph())
    assert len(maps) == 10 and has_pooling(name)
    for pooled, before in zip(maps[:5], maps[5:], strict=True):
        np.testing.assert_array_equal(keras.ops.max_pool(before, 2), pooled)


def test_mobilenetv2_has_no_pooling():
    assert not has_pooling("mobilenetv2")
    with pytest.raises(ModelError, match="Encoder `mobilenetv2` has no pooling layers"):
        build_encoder("mobilenetv2", weights="none", before_pooling=True)


@pytest.mark.parametrize("name", ["small", "vgg16", "mobilenetv2"])
@pytest.mark.parametrize("bands", [1, 4])
def test_any_number_of_bands(name, bands):
    assert build_encoder(name, bands, "none")(photograph(32, bands))[0].shape[1:3] == (16, 16)


# Scaling.


@pytest.mark.parametrize(
    "name, application, file, layers",
    [
        ("vgg16", "vgg16", "vgg16_imagenet_notop.weights.h5", [f"block{n}_pool" for n in range(1, 6)]),
        (
            "mobilenetv2",
            "mobilenet_v2",
            "mobilenetv2_1.00_notop.weights.h5",
            ["expanded_conv_project_BN", *(f"block_{n}_expand_relu" for n in (3, 6, 13)), "block_16_project_BN"],
        ),
    ],
)
@pytest.mark.real_data
def test_features_are_those_of_keras_applications_on_its_own_preprocessing(weights, name, application, file, layers):
    module = getattr(keras.applications, application)
    build = module.VGG16 if name == "vgg16" else module.MobileNetV2
    original = build(include_top=False, weights=str(weights / file), input_shape=(None, None, 3))
    original = keras.Model(original.input, [original.get_layer(layer).output for layer in layers])
    image = photograph()
    expected = original(module.preprocess_input(image.copy()))
    for got, wanted in zip(build_encoder(name, 3, weights / file)(image), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.real_data
def test_further_bands_that_repeat_the_mean_change_little(weights):
    """Each band the mean colour: the widened first kernel sees (sum of 3) * (bands / 3) * (3 / bands), so as before."""
    file = weights / "mobilenetv2_1.00_notop.weights.h5"
    grey = photograph(32, 1)
    three, five = (build_encoder("mobilenetv2", bands, file)(grey.repeat(bands, axis=-1)) for bands in (3, 5))
    for got, wanted in zip(five, three, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-3 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", ["small", "vgg16", "mobilenetv2"])
def test_frozen_scales_have_no_gradient(name):
    """The finest maps are made by frozen layers alone, and all others need one that learns."""
    encoder = build_encoder(name, weights="none", before_pooling=has_pooling(name))
    all_of_them = len(encoder.trainable_variables)
    freeze_scales(encoder, 0)
    assert len(encoder.trainable_variables) == all_of_them
    freeze_scales(encoder, 2)
    with tf.GradientTape(persistent=True) as tape:
        maps = encoder(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32"))
    for scale, features in enumerate(maps[:5]):
        gradients = tape.gradient(features, encoder.trainable_variables)
        assert any(gradient is not None for gradient in gradients) == (scale >= 2)
    freeze_scales(encoder, 5)
    assert not encoder.trainable_variables


def test_small_scales_too():
    # Conv without bias on an image of 127.5, which scales to 0, gives 0; batch normalisation starts with mean 0
    for got in build_encoder("small")(np.full((1, 32, 32, 3), 127.5, np.float32)):
        np.testing.assert_array_equal(got, np.zeros(got.shape))


# Widening.


def test_widen_kernel_by_hand():
    kernel = np.float32([3, 6, 9]).reshape(1, 1, 3, 1)
    # mean 6; four bands: times 3 / 4
    np.testing.assert_allclose(widen_kernel(kernel, 4).ravel(), [2.25, 4.5, 6.75, 4.5])
    np.testing.assert_allclose(widen_kernel(kernel, 6).ravel(), [1.5, 3, 4.5, 3, 3, 3])
    np.testing.assert_allclose(widen_kernel(kernel, 3).ravel(), [3, 6, 9])
    # fewer bands: the first ones, times 3 / bands
    np.testing.assert_allclose(widen_kernel(kernel, 1).ravel(), [9])
    np.testing.assert_allclose(widen_kernel(kernel, 2).ravel(), [4.5, 9])


def test_widen_kernel_keeps_the_response_to_grey():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    for bands in (4, 7, 13):
        wide = widen_kernel(kernel, bands)
        assert wide.shape == (3, 3, bands, 8) and wide.dtype == np.float32
        np.testing.assert_allclose(wide.sum(axis=2), kernel.sum(axis=2), atol=1e-5)


# Bad arguments.


def test_unknown_encoder():
    with pytest.raises(ModelError, match=r"`encoder`\. Expected one of vgg16, mobilenetv2, .*, small, "):
        build_encoder("resnet")


def test_no_bands():
    with pytest.raises(ModelError, match=r"`bands`\. Expected an integer >= 1\. Received: 0"):
        build_encoder("small", 0)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.h5 not found\. Expected `imagenet`, `none` or the path"):
        build_encoder("mobilenetv2", 3, tmp_path / "absent.h5")


def test_weights_of_something_else(tmp_path):
    image = keras.Input((8, 8, 3))
    other = tmp_path / "other.weights.h5"
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save_weights(other)
    with pytest.raises(ModelError, match=r"other\.weights\.h5 do not fit MobileNetV2"):
        build_encoder("mobilenetv2", 3, other)


def test_weights_that_are_no_weights(tmp_path):
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"not an HDF5 file")
    with pytest.raises(ModelError, match=r"broken\.weights\.h5 do not fit VGG16"):
        build_encoder("vgg16", 3, broken)


def test_small_has_no_weights(tmp_path):
    with pytest.raises(ModelError, match=r"Encoder `small` has no published weights\. Expected `none`"):
        build_encoder("small", 3, "other.h5")
