"""FCN-8s and FCN-FL: which scales they add, and that they see a scene alike wherever they stand."""

import keras
import numpy as np
import pytest

from lim_keras.models import build_model
from lim_keras.models.decoders import decode_fcn, decode_fcn_fl

DECODERS = {"fcn": decode_fcn, "fcn_fl": decode_fcn_fl}


def trained(name: str, **arguments: object) -> keras.Model:
    """A small network with a score layer that is not zero."""
    keras.utils.set_random_seed(3)
    model = build_model(name, "small", encoder_weights="none", decoder_channels=8, **arguments)
    kernel, bias = model.get_layer("score").get_weights()
    rng = np.random.default_rng(0)
    model.get_layer("score").set_weights([rng.normal(size=kernel.shape), bias + 0.1])
    return model


@pytest.mark.parametrize("name, scales", [("fcn", [8, 16, 32]), ("fcn_fl", [2, 4, 8, 16, 32])])
def test_scales_that_are_fused(name, scales):
    layers = {layer.name for layer in build_model(name, "small", encoder_weights="none").layers}
    assert sorted(int(layer.split("_")[1]) for layer in layers if layer.endswith("_conv")) == scales
    assert {layer for layer in layers if layer.endswith("_add")} == {f"scale_{scale}_add" for scale in scales[:-1]}


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_brings_five_maps_to_the_size_of_the_image(name):
    features = [
        keras.Input((64 // 2**n, 96 // 2**n, depth)) for n, depth in zip(range(1, 6), (3, 4, 5, 6, 7), strict=True)
    ]
    logits = DECODERS[name](features, 8)
    assert logits.shape == (None, 64, 96, 1)


@pytest.mark.parametrize("name, unused", [("fcn", (0, 1)), ("fcn_fl", ())])
def test_finest_maps_matter_to_fcn_fl_only(name, unused):
    inputs = [keras.Input((None, None, 4)) for _ in range(5)]
    logits = DECODERS[name](inputs, 8)
    model = keras.Model(inputs, logits)
    model.get_layer("score").set_weights([np.ones((1, 1, 8, 1)), np.zeros(1)])
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, 32 // 2**n, 32 // 2**n, 4)).astype(np.float32) for n in range(5)]
    before = np.asarray(model(maps))
    for scale in range(5):
        changed = [m + 3 * (number == scale) * np.sign(m) for number, m in enumerate(maps)]
        same = np.array_equal(np.asarray(model(changed)), before)
        assert same == (scale in unused)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_is_for_training_only(dropout):
    model = trained("fcn_fl", dropout=dropout)
    assert ("dropout" in {layer.name for layer in model.layers}) == (dropout > 0)
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(image, training=False), model(image, training=False))


@pytest.mark.parametrize("name, reduction, stride", [("fcn", 1, 32), ("fcn_fl", 1, 32), ("fcn_fl", 2, 64)])
def test_a_step_of_the_stride_moves_the_prediction_along(name, reduction, stride):
    """The middle of both images is predicted alike, because borders are beyond its receptive field."""
    model = trained(name, input_reduction=reduction)
    scene = np.random.default_rng(1).integers(0, 255, (1, 512 + stride, 512 + stride, 3)).astype(np.float32)
    one, other = (np.asarray(model(scene[:, at : at + 512, at : at + 512], training=False)) for at in (0, stride))
    middle = slice(224, 288)
    moved = slice(224 - stride, 288 - stride)
    np.testing.assert_allclose(other[:, moved, moved], one[:, middle, middle], atol=2e-5)
    assert one.std() > 0.01
