"""Encoders of keras.applications: one table of feature layers and of the scaling that the ImageNet weights expect."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lim_keras.errors import ModelError
from lim_keras.models.layers import FusedBatchNormalization

NO_WEIGHTS = "none"
IMAGENET = "imagenet"

_MOMENTUM = 0.97
"""With 0.999 of keras.applications, ImageNet statistics would persist for thousands of steps."""

_NEW, _LAST, _BEFORE = "new convolution", "output", "before "
"""Entries of `Application.features` that are no layer names: a map that the network lacks, its last output, and the
input of the layer whose name follows."""

_NEW_CHANNELS = 32


@dataclass(frozen=True, slots=True)
class Scaling:
    """Linear map of pixels 0..255 of each band to the network's input: `scale` * value + `offset`.

    Attributes:
        scale, offset: for red, green and blue (blue, green and red if `blue_first`).
        further: scale and offset of the fourth and further bands.
        blue_first: the first three bands are reversed before they are scaled.
    """

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    further: tuple[float, float]
    blue_first: bool = False

    def layer(self, bands: int) -> keras.layers.Rescaling:
        """Return the layer for a number of bands."""
        scale = ([*self.scale] + [self.further[0]] * bands)[:bands]
        offset = ([*self.offset] + [self.further[1]] * bands)[:bands]
        if len({*scale}) == 1 and len({*offset}) == 1:
            return keras.layers.Rescaling(scale[0], offset[0], name="normalise")
        return keras.layers.Rescaling(scale[0] if len({*scale}) == 1 else scale, offset, name="normalise")


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, values 0..1

SYMMETRIC = Scaling((1 / 127.5,) * 3, (-1.0,) * 3, (1 / 127.5, -1.0))
"""To -1..1."""

CAFFE = Scaling((1.0,) * 3, (-103.939, -116.779, -123.68), (1.0, -116.0), blue_first=True)
"""Blue, green, red, minus the mean of ImageNet."""

STANDARDISED = Scaling(
    (1 / (255 * _STD[0]), 1 / (255 * _STD[1]), 1 / (255 * _STD[2])),
    (-_MEAN[0] / _STD[0], -_MEAN[1] / _STD[1], -_MEAN[2] / _STD[2]),
    (1 / (255 * 0.226), -0.449 / 0.226),
)
"""Minus the mean of ImageNet, over its standard deviation."""


@dataclass(frozen=True)
class Application:
    """Row of `APPLICATIONS`.

    Attributes:
        network: name of the function in keras.applications.
        features: names of the layers whose outputs are the maps at 1/2 .. 1/32.
        scaling: scaling of pixels that the ImageNet weights expect.
        first: name of the layer whose first weight is the kernel over the image's bands.
        before_pooling: names of the layers before max pooling, at 1/1 .. 1/16; empty if strides halve the maps.
    """

    network: str
    features: tuple[str, str, str, str, str]
    scaling: Scaling
    first: str
    before_pooling: tuple[str, ...] = ()

    def function(self) -> Callable[..., keras.Model]:
        """Return the function of keras.applications, without top and without scaling of its own."""
        build = getattr(keras.applications, self.network)
        arguments: dict[str, Any] = {"include_top": False}
        if self.network.startswith("ConvNeXt"):
            # Keras normalises three bands only, so weights for other bands would not fit.
            arguments["include_preprocessing"] = False
        return partial(build, **arguments)


def _vgg(network: str, last: Sequence[str]) -> Application:
    pools = [f"block{block}_pool" for block in range(1, 6)]
    return Application(network, (*pools,), CAFFE, "block1_conv1", tuple(last))  # type: ignore[arg-type]


def _convnext(network: str, prefix: str) -> Application:
    strided = [f"{_BEFORE}{prefix}_downsampling_block_{number}" for number in range(3)]
    return Application(network, (_NEW, *strided, _LAST), STANDARDISED, f"{prefix}_stem")  # type: ignore[arg-type]


APPLICATIONS = {
    "vgg16": _vgg("VGG16", ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]),
    "vgg19": _vgg("VGG19", ["block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"]),
    "mobilenet": Application(
        "MobileNet",
        ("conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        SYMMETRIC,
        "conv1",
    ),
    "mobilenetv2": Application(
        "MobileNetV2",
        (
            "expanded_conv_project_BN",
            "block_3_expand_relu",
            "block_6_expand_relu",
            "block_13_expand_relu",
            "block_16_project_BN",
        ),
        SYMMETRIC,
        "Conv1",
    ),
    "resnet50": Application(
        "ResNet50",
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        CAFFE,
        "conv1_conv",
    ),
    "resnet101": Application(
        "ResNet101",
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
        CAFFE,
        "conv1_conv",
    ),
    "resnet50v2": Application(
        "ResNet50V2",
        ("conv1_conv", "conv2_block3_1_relu", "conv3_block4_1_relu", "conv4_block6_1_relu", "post_relu"),
        SYMMETRIC,
        "conv1_conv",
    ),
    "densenet121": Application(
        "DenseNet121", ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu"), STANDARDISED, "conv1_conv"
    ),
    "convnext_tiny": _convnext("ConvNeXtTiny", "convnext_tiny"),
    "convnext_small": _convnext("ConvNeXtSmall", "convnext_small"),
}
"""Encoders by name: layers in which every operation is local, so that the receptive field is finite."""


def build_application(name: str, bands: int, weights: str | Path | None, before_pooling: bool) -> keras.Model:
    """Build an encoder of `APPLICATIONS`; arguments as in `encoders.build_encoder`, `weights` None for random ones."""
    known = APPLICATIONS[name]
    base = _with_fused_normalisation(_pretrained(known, bands, weights))
    image = keras.Input((None, None, bands), name="image")
    ordered = _blue_green_red(image, bands) if known.scaling.blue_first and bands >= 3 else image
    x = known.scaling.layer(bands)(ordered)
    layers = known.features + (known.before_pooling if before_pooling else ())
    outputs = [_feature(base, layer) for layer in layers]
    return keras.Model(image, keras.Model(base.input, outputs, name=name)(x), name="encoder")


def _feature(base: keras.Model, layer: str) -> Any:
    if layer == _LAST:
        return base.output
    if layer == _NEW:  # networks that begin with a convolution of stride 4 have no map at 1/2
        return _half(base.input)
    if layer.startswith(_BEFORE):
        return base.get_layer(layer.removeprefix(_BEFORE)).input
    return base.get_layer(layer).output


def _half(image: Any) -> Any:
    x = keras.layers.Conv2D(_NEW_CHANNELS, 3, strides=2, padding="same", use_bias=False, name="half_conv")(image)
    x = FusedBatchNormalization(momentum=_MOMENTUM, name="half_bn")(x)
    return keras.layers.ReLU(name="half_relu")(x)


def _blue_green_red(image: Any, bands: int) -> Any:
    colours = image[..., 2::-1]
    return colours if bands == 3 else keras.layers.Concatenate(name="bgr")([colours, image[..., 3:]])


def _with_fused_normalisation(base: keras.Model) -> keras.Model:
    """Copy a network; replace batch normalisation by the fused layer, with a momentum for short training."""
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in base.layers):
        return base

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        return FusedBatchNormalization.from_config(layer.get_config() | {"momentum": _MOMENTUM})

    network = keras.models.clone_model(base, clone_function=copied)
    network.set_weights(base.get_weights())
    return network


def _pretrained(known: Application, bands: int, weights: str | Path | None) -> keras.Model:
    source = _load(known, weights)
    if bands == 3:
        return source
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels")
        wide = known.function()(weights=None, input_shape=(None, None, bands))
    if weights is not None:
        for layer, twin in zip(source.layers, wide.layers, strict=True):
            values = layer.get_weights()
            if layer.name == known.first:
                values[0] = widen_kernel(values[0], bands)
            twin.set_weights(values)
    return wide


def _load(known: Application, weights: str | Path | None) -> keras.Model:
    if weights is not None and weights != IMAGENET and not Path(weights).is_file():
        raise ModelError(
            f"Encoder weights {weights} not found. Expected `{IMAGENET}`, `{NO_WEIGHTS}` or the path of a weights file."
        )
    build, shape = known.function(), (None, None, 3)
    if weights is None:
        return build(weights=None, input_shape=shape)
    if weights == IMAGENET:
        return _with_imagenet_weights(known, shape)
    try:
        with warnings.catch_warnings():
            # Keras only warns if layers keep random weights; turn this warning into an error.
            warnings.filterwarnings("error", "Skipping nested container")
            return build(weights=str(weights), input_shape=shape)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ModelError(f"Encoder weights {weights} do not fit {known.network}: {error}") from error


def _with_imagenet_weights(known: Application, shape: tuple[int | None, ...]) -> keras.Model:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`input_shape` is undefined")  # the weights fit any size
            return known.function()(weights=IMAGENET, input_shape=shape)
    except Exception as error:  # Keras raises no narrower class where a download fails
        raise ModelError(
            f"The ImageNet weights of {known.network} cannot be downloaded ({error}). Give a file of them, or "
            f"`{NO_WEIGHTS}`, as `encoder_weights`."
        ) from error


def widen_kernel(kernel: np.ndarray, bands: int) -> np.ndarray:
    """Adapt a kernel (kh, kw, 3, filters) to (kh, kw, bands, filters).

    Additional bands get the mean of the three colour kernels. The factor 3 / bands keeps the scale of the activations.
    """
    mean = kernel.mean(axis=2, keepdims=True)
    wide = np.concatenate([kernel, np.repeat(mean, max(bands - 3, 0), axis=2)], axis=2)[:, :, :bands]
    return np.asarray(wide * (3.0 / bands), np.float32)
