"""The halo by hand and against gradients; the memory by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.errors import ModelError
from lim_keras.models import build_model, network_stride
from lim_keras.models.layers import BilinearUpsampling
from lim_keras.models.receptive_field import ReceptiveField, receptive_field


def test_two_convolutions_by_hand() -> None:
    # 3 x 3 reaches 1 px, dilated by 4 it reaches 4 px: 5 in all. Memory: 3 bands in and 2 channels, or 2 and 2
    # channels, at 4 bytes: at most 20 bytes a pixel.
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 3, padding="same")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 3, padding="same", dilation_rate=4)(x))
    assert receptive_field(model, 1) == ReceptiveField(halo=5, bytes_per_pixel=20.0)


def test_pooling_and_upsampling_by_hand() -> None:
    # Stride 2, pixels 0 and 1. They lie at -1/4 and 1/4 of the pooled map, between its positions -1, 0 and 1, the
    # convolution makes those of -2 to 2, and these are pooled of the pixels -4 to 5: 4 to each side.
    image = keras.Input((None, None, 1))
    x = keras.layers.MaxPooling2D()(image)
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    model = keras.Model(image, BilinearUpsampling(2)(x))
    assert receptive_field(model, 2).halo == 4


def test_padding_before_a_strided_convolution_by_hand() -> None:
    # MobileNetV2 pads by one row above and one below, then convolves 3 x 3 by 2 without padding: position 0 of the
    # result is made of the pixels -1 to 1, and stands for the pixels 0 and 1. Upsampled by 2, these lie between the
    # positions -1, 0 and 1, which are made of the pixels -3 to 3.
    image = keras.Input((None, None, 1))
    x = keras.layers.ZeroPadding2D(1)(image)
    x = keras.layers.Conv2D(1, 3, strides=2)(x)
    model = keras.Model(image, BilinearUpsampling(2)(x))
    assert receptive_field(model, 2).halo == 3


def test_upsampling_by_eight_by_hand() -> None:
    # Stride 8, pixels 0 to 7: -7/16 to 7/16 of the pooled map, positions -1 to 1: pixels -8 to 15.
    image = keras.Input((None, None, 1))
    model = keras.Model(image, BilinearUpsampling(8)(keras.layers.MaxPooling2D(8)(image)))
    assert receptive_field(model, 8).halo == 8


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("name", ["fcn", "fcn_fl", "unet", "segnet"])
def test_no_gradient_comes_from_beyond_the_halo(name: str, reduction: int) -> None:
    keras.utils.set_random_seed(1)
    model = build_model(name, "small", encoder_weights="none", decoder_channels=4, input_reduction=reduction)
    rng = np.random.default_rng(1)
    kernel, bias = model.get_layer("score").get_weights()
    model.get_layer("score").set_weights([rng.normal(size=kernel.shape), bias])
    stride = network_stride(reduction)
    halo = receptive_field(model, stride).halo
    side = 2 * (-(-halo // stride) + 1) * stride
    start = side // 2
    image = tf.constant(rng.uniform(0, 255, (1, side, side, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(image)
        core = tf.reduce_sum(model(image, training=False)[:, start : start + stride, start : start + stride])
    reached = np.argwhere((tape.gradient(core, image).numpy()[0] != 0).any(axis=-1))
    first, last = reached.min(), reached.max()
    assert first >= start - halo and last < start + stride + halo
    # and the bound is no guess: something comes from its outer part (ReLUs and maxima leave gaps in a random network)
    assert max(start - first, last - (start + stride - 1)) > 0.6 * halo


def test_memory_of_the_paper_network() -> None:
    # VGG16's first two convolutions at full size: 64 channels each, and the 3 bands that CropLike waits for: 131 x 4.
    assert receptive_field(build_model("fcn_fl", "vgg16", encoder_weights="none"), 32).bytes_per_pixel == 524


def test_an_unknown_layer_is_named() -> None:
    image = keras.Input((None, None, 1))
    model = keras.Model(image, keras.layers.UpSampling2D(name="larger")(keras.layers.MaxPooling2D()(image)))
    with pytest.raises(ModelError, match="larger of type UpSampling2D"):
        receptive_field(model, 2)
