"""Encoders: Keras models from pixels 0..255 to feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image size.

To add a network of keras.applications, add a row to `applications.APPLICATIONS` and its name to `config.EncoderName`.
To add another, write a function that builds it and list it in `ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from lim_keras.config import ENCODER_STRIDE, GLOBAL_REASON, sees_whole_image
from lim_keras.errors import ModelError
from lim_keras.models.applications import APPLICATIONS, build_application
from lim_keras.models.applications import IMAGENET as IMAGENET
from lim_keras.models.applications import NO_WEIGHTS as NO_WEIGHTS
from lim_keras.models.applications import widen_kernel as widen_kernel
from lim_keras.models.efficientnet_lite import SCALES, build_efficientnet_lite
from lim_keras.models.layers import FusedBatchNormalization

STRIDE = ENCODER_STRIDE

_SMALL_CHANNELS = (16, 24, 32, 48, 64)


def build_encoder(
    name: str, bands: int = 3, weights: str | Path | None = IMAGENET, *, before_pooling: bool = False
) -> keras.Model:
    """Build an encoder from (n, h, w, bands) values 0..255 to a list of five feature maps, finest first.

    Args:
        name: key of `ENCODERS`.
        bands: number of image bands; the first three are red, green, blue. If the number is not three, the first
            ImageNet kernel is adapted (see `widen_kernel`).
        weights: "imagenet" (Keras downloads them), a local weights file without top (of keras.applications, or .npz for
            EfficientNet-Lite), or "none".
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
    if sees_whole_image(name):
        raise ModelError(f"Encoder `{name}` cannot be used: {GLOBAL_REASON}. Expected one of {', '.join(ENCODERS)}.")
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
    for layer in keras.Model(network.inputs, network.outputs[:scales]).layers:
        layer.trainable = False


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


@dataclass(frozen=True)
class Encoder:
    """Entry of `ENCODERS`; `build` takes bands, weights (None: random) and `before_pooling`.

    `pools`: the encoder halves its maps by max pooling.
    """

    build: Callable[[int, str | Path | None, bool], keras.Model]
    pools: bool = True


ENCODERS = {
    name: Encoder(partial(build_application, name), pools=bool(APPLICATIONS[name].before_pooling))
    for name in ("vgg16", "mobilenetv2")
}
ENCODERS |= {name: Encoder(partial(build_efficientnet_lite, name), pools=False) for name in SCALES}
ENCODERS["small"] = Encoder(_small)
ENCODERS |= {
    name: Encoder(partial(build_application, name), pools=bool(known.before_pooling))
    for name, known in APPLICATIONS.items()
    if name not in ENCODERS
}
"""Encoders by name: that of the paper, those for edge devices, a small one for tests and the demo, and others."""
