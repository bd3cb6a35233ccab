"""Encoders: Keras models from pixels 0..255 to feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image size.

To add an encoder, write a function that builds it, list it in `ENCODERS` and add its name to `config.EncoderName`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lim_keras.config import ENCODER_STRIDE
from lim_keras.errors import ModelError
from lim_keras.models.layers import FusedBatchNormalization

NO_WEIGHTS = "none"
IMAGENET = "imagenet"
STRIDE = ENCODER_STRIDE

_VGG16_POOLS = [f"block{block}_pool" for block in range(1, 6)]
_VGG16_BEFORE_POOLS = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
_MOBILENETV2_FEATURES = [
    "expanded_conv_project_BN",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project_BN",
]
_SMALL_CHANNELS = (16, 24, 32, 48, 64)


def build_encoder(
    name: str, bands: int = 3, weights: str | Path | None = IMAGENET, *, before_pooling: bool = False
) -> keras.Model:
    """Build an encoder from (n, h, w, bands) values 0..255 to a list of five feature maps, finest first.

    Args:
        name: key of `ENCODERS`.
        bands: number of image bands; the first three are red, green, blue. If the number is not three, the first
            ImageNet kernel is adapted (see `widen_kernel`).
        weights: "imagenet" (Keras downloads them), a local keras.applications weights file without top, or "none".
        before_pooling: append the five maps before max pooling, which SegNet needs.
    """
    _check_name(name)
    if bands < 1:
        raise ModelError(f"Invalid value for argument `bands`. Expected an integer >= 1. Received: {bands}")
    if before_pooling and not has_pooling(name):
        raise ModelError(f"Encoder `{name}` has no pooling layers: its maps are halved by strided convolutions.")
    return ENCODERS[name].build(bands, None if weights == NO_WEIGHTS else weights, before_pooling)


def has_pooling(name: str) -> bool:
    """Tell whether the encoder halves its maps by max pooling, so that pooling positions exist."""
    _check_name(name)
    return ENCODERS[name].pools


def _check_name(name: str) -> None:
    if name not in ENCODERS:
        expected = ", ".join(ENCODERS)
        raise ModelError(f"Invalid value for argument `encoder`. Expected one of {expected}. Received: {name}")


def freeze_scales(encoder: keras.Model, scales: int) -> None:
    """Freeze the layers of the finest `scales` feature maps, 0 (train all) to 5 (train none).

    These layers take the most time. They detect edges and colours, which need the least training.
    """
    if not scales:
        return
    network = next((layer for layer in encoder.layers if isinstance(layer, keras.Model)), encoder)
    # Layers are in the order of computation; maps before pooling come after the five.
    last = network.outputs[scales - 1]._keras_history.operation
    for layer in network.layers[: network.layers.index(last) + 1]:
        layer.trainable = False


def _vgg16(bands: int, weights: str | Path | None, before_pooling: bool) -> keras.Model:
    base = _pretrained(keras.applications.VGG16, bands, weights, "block1_conv1")
    image = keras.Input((None, None, bands), name="image")
    # The ImageNet weights expect Caffe's convention: blue, green, red, minus the mean of ImageNet.
    means = ([103.939, 116.779, 123.68] + [116.0] * bands)[:bands]
    ordered = image if bands < 3 else _blue_green_red(image, bands)
    x = keras.layers.Rescaling(1.0, [-mean for mean in means], name="normalise")(ordered)
    outputs = [base.get_layer(layer).output for layer in _outputs(_VGG16_POOLS, _VGG16_BEFORE_POOLS, before_pooling)]
    features = keras.Model(base.input, outputs, name="vgg16")(x)
    return keras.Model(image, features, name="encoder")


def _blue_green_red(image: Any, bands: int) -> Any:
    colours = image[..., 2::-1]
    return colours if bands == 3 else keras.layers.Concatenate(name="bgr")([colours, image[..., 3:]])


def _mobilenetv2(bands: int, weights: str | Path | None, before_pooling: bool) -> keras.Model:
    base = _with_fused_normalisation(_pretrained(keras.applications.MobileNetV2, bands, weights, "Conv1"))
    image = keras.Input((None, None, bands), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalise")(image)
    outputs = [base.get_layer(layer).output for layer in _MOBILENETV2_FEATURES]
    features = keras.Model(base.input, outputs, name="mobilenetv2")(x)
    return keras.Model(image, features, name="encoder")


def _with_fused_normalisation(base: keras.Model) -> keras.Model:
    """Copy a network; replace batch normalisation by the fused layer, with a momentum for short training."""

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        # With the momentum 0.999 of keras.applications, ImageNet statistics would persist for thousands of steps.
        return FusedBatchNormalization.from_config(layer.get_config() | {"momentum": 0.97})

    network = keras.models.clone_model(base, clone_function=copied)
    network.set_weights(base.get_weights())
    return network


def _small(bands: int, weights: str | Path | None, before_pooling: bool) -> keras.Model:
    if weights not in (None, IMAGENET):
        raise ModelError(f"Encoder `small` has no published weights. Expected `none`. Received: {weights}")
    image = keras.Input((None, None, bands), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalise")(image)
    pooled, unpooled = [], []
    for block, channels in enumerate(_SMALL_CHANNELS, start=1):
        x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"block{block}_conv")(x)
        x = FusedBatchNormalization(momentum=0.9, name=f"block{block}_bn")(x)
        x = keras.layers.ReLU(name=f"block{block}_relu")(x)
        unpooled.append(x)
        x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
        pooled.append(x)
    return keras.Model(image, _outputs(pooled, unpooled, before_pooling), name="encoder")


def _outputs(pooled: list[Any], unpooled: list[Any], before_pooling: bool) -> list[Any]:
    return pooled + unpooled if before_pooling else pooled


def _pretrained(
    application: Callable[..., keras.Model], bands: int, weights: str | Path | None, first: str
) -> keras.Model:
    source = _load(application, weights)
    if bands == 3:
        return source
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels")
        wide = application(include_top=False, weights=None, input_shape=(None, None, bands))
    if weights is not None:
        for layer, twin in zip(source.layers, wide.layers, strict=True):
            values = layer.get_weights()
            if layer.name == first:
                values[0] = widen_kernel(values[0], bands)
            twin.set_weights(values)
    return wide


def _load(application: Callable[..., keras.Model], weights: str | Path | None) -> keras.Model:
    if weights is not None and weights != IMAGENET and not Path(weights).is_file():
        raise ModelError(
            f"Encoder weights {weights} not found. Expected `{IMAGENET}`, `{NO_WEIGHTS}` or the path of a weights file."
        )
    shape = (None, None, 3)
    if weights is None:
        return application(include_top=False, weights=None, input_shape=shape)
    if weights == IMAGENET:
        return _with_imagenet_weights(application, shape)
    try:
        with warnings.catch_warnings():
            # Keras only warns if layers keep random weights; turn this warning into an error.
            warnings.filterwarnings("error", "Skipping nested container")
            return application(include_top=False, weights=str(weights), input_shape=shape)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ModelError(f"Encoder weights {weights} do not fit {application.__name__}: {error}") from error


def _with_imagenet_weights(application: Callable[..., keras.Model], shape: tuple[int | None, ...]) -> keras.Model:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`input_shape` is undefined")  # the weights fit any size
            return application(include_top=False, weights=IMAGENET, input_shape=shape)
    except Exception as error:  # Keras raises no narrower class where a download fails
        raise ModelError(
            f"The ImageNet weights of {application.__name__} cannot be downloaded ({error}). Give a file of them, or "
            f"`{NO_WEIGHTS}`, as `encoder_weights`."
        ) from error


def widen_kernel(kernel: np.ndarray, bands: int) -> np.ndarray:
    """Adapt a kernel (kh, kw, 3, filters) to (kh, kw, bands, filters).

    Additional bands get the mean of the three colour kernels. The factor 3 / bands keeps the scale of the activations.
    """
    mean = kernel.mean(axis=2, keepdims=True)
    wide = np.concatenate([kernel, np.repeat(mean, max(bands - 3, 0), axis=2)], axis=2)[:, :, :bands]
    return np.asarray(wide * (3.0 / bands), np.float32)


@dataclass(frozen=True)
class Encoder:
    """Entry of `ENCODERS`; `build` takes bands, weights (None: random) and `before_pooling`.

    `pools`: the encoder halves its maps by max pooling.
    """

    build: Callable[[int, str | Path | None, bool], keras.Model]
    pools: bool = True


ENCODERS = {
    "vgg16": Encoder(_vgg16),
    "mobilenetv2": Encoder(_mobilenetv2, pools=False),
    "small": Encoder(_small),
}
"""Encoders by name: that of the paper, one for edge devices, and a small one for tests and the demo."""
