"""Segmentation networks: functional Keras models from raw images of any size to logits of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from lim_keras.errors import ModelError
from lim_keras.models.decoders import DECODERS
from lim_keras.models.encoders import IMAGENET, STRIDE, build_encoder, has_pooling
from lim_keras.models.layers import BandRange, CropLike, PadToMultiple, upsample

__all__ = ["build_model", "network_stride"]


def network_stride(input_reduction: int = 1) -> int:
    """Return the stride of a network, pixels: an image shift by a multiple of it shifts the prediction equally."""
    return STRIDE * input_reduction


def build_model(
    name: str,
    encoder: str = "vgg16",
    bands: int = 3,
    *,
    encoder_weights: str | Path | None = IMAGENET,
    decoder_channels: int = 32,
    input_reduction: int = 1,
    dropout: float = 0.0,
    value_range: Sequence[tuple[float, float]] | None = None,
) -> keras.Model:
    """Build a landslide segmentation network.

    Args:
        name: "fcn" (FCN-8s), "fcn_fl" (FCN-FL, all five scales), "unet" or "segnet".
        encoder: such as "vgg16", "mobilenetv2" or "efficientnet_lite0": a key of `encoders.ENCODERS`.
        bands: number of image bands; the first three are red, green, blue.
        encoder_weights: "imagenet", a local weights file, or "none".
        decoder_channels: channels of the decoder.
        input_reduction: 1, 2 or 4: factor by which averaging shrinks the image before the encoder; the logits are
            enlarged to the image's size. With 2, the same computation covers four times the ground.
        dropout: share of decoder channels dropped before the score during training.
        value_range: (low, high) of each band in raw digital numbers, mapped to 0..255; None for 8-bit images.

    Returns:
        Functional model: `image` (n, h, w, bands) raw numbers, any h, w >= 1 -> logits (n, h, w, 1) float32.

    Raises:
        ModelError: an unknown name or an argument out of range.

    Examples:
        >>> model = build_model("fcn_fl", encoder="small", encoder_weights="none")
        >>> model.compute_output_shape((1, 100, 75, 3))
        (1, 100, 75, 1)

    Source: Fig. 4 of Chen et al. 2022 for FCN-FL.
    """
    _check(decoder_channels, input_reduction, dropout, value_range, bands)
    if name not in DECODERS:
        expected = ", ".join(DECODERS)
        raise ModelError(f"Invalid value for argument `name`. Expected one of {expected}. Received: {name}")
    decoder = DECODERS[name]
    with_pooling = decoder.unpools and has_pooling(encoder)
    image = keras.Input((None, None, bands), name="image")
    x: Any = image if value_range is None else BandRange(*zip(*value_range, strict=True), name="band_range")(image)
    x = PadToMultiple(network_stride(input_reduction), name="pad")(x)
    if input_reduction > 1:
        x = keras.layers.AveragePooling2D(input_reduction, name="reduce")(x)
    features = build_encoder(encoder, bands, encoder_weights, before_pooling=with_pooling)(x)
    x = decoder.decode(features, decoder_channels, dropout)
    if input_reduction > 1:
        x = upsample(x, input_reduction, "restore")
    return keras.Model(image, CropLike(name="crop", dtype="float32")(x, image), name=name)


def _check(
    channels: int, reduction: int, dropout: float, value_range: Sequence[tuple[float, float]] | None, bands: int
) -> None:
    if channels < 1:
        raise ModelError(f"Invalid value for argument `decoder_channels`. Expected >= 1. Received: {channels}")
    if reduction not in (1, 2, 4):
        raise ModelError(f"Invalid value for argument `input_reduction`. Expected 1, 2 or 4. Received: {reduction}")
    if not 0 <= dropout < 1:
        raise ModelError(f"Invalid value for argument `dropout`. Expected 0 <= dropout < 1. Received: {dropout}")
    if value_range is not None and (len(value_range) != bands or any(low >= high for low, high in value_range)):
        raise ModelError(
            f"Invalid value for argument `value_range`. Expected {bands} pairs low < high. Received: {value_range}"
        )
