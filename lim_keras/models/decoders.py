"""Decoders: FCN-8s, FCN-FL, U-Net and SegNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lim_keras.models.layers import FusedBatchNormalization, project, score, upsample


def decode_fcn(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """Build FCN-8s (Shelhamer et al. 2017): add features of 1/32, 1/16 and 1/8, score them, upsample by 8.

    Args:
        features: five maps, finest first, at 1/2 .. 1/32.
        channels: channels of the projected features.
        dropout: share of channels dropped before the score.

    Returns:
        Logits (n, h, w, 1) at the encoder's input resolution.
    """
    return _add_and_score(features, channels, dropout, finest=2)


def decode_fcn_fl(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """Build FCN-FL (Fig. 4 of Chen et al. 2022): FCN with all five scales; arguments as in `decode_fcn`."""
    return _add_and_score(features, channels, dropout, finest=0)


def _add_and_score(features: Sequence[Any], channels: int, dropout: float, finest: int) -> Any:
    x = None
    for scale in reversed(range(finest, len(features))):
        x = _fuse(features[scale], x, channels, f"scale_{2 ** (scale + 1)}")
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name="dropout")(x)
    return upsample(score(x), 2 ** (finest + 1), "logits")


def _fuse(features: Any, below: Any, channels: int, name: str) -> Any:
    x = project(features, channels, name)
    if below is not None:
        below = keras.layers.ReLU(name=f"{name}_below_relu")(below)
        x = keras.layers.Add(name=f"{name}_add")([x, upsample(below, 2, f"{name}_up")])
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.SeparableConv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_refine")(x)
    return FusedBatchNormalization(momentum=0.9, name=f"{name}_refine_bn")(x)


_WIDEST = 8
"""Channels of the coarsest stages, as a multiple of `channels`."""


def decode_unet(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """Build U-Net's expanding path (Ronneberger et al. 2015): upsample by 2, concatenate the skip, convolve twice.

    Arguments and result are as in `decode_fcn`. Stages have `channels` channels at 1/1 and 1/2, and twice as many at
    each coarser scale, up to 8 x `channels`. Upsampling is bilinear. Skips are batch-normalised, because VGG16 features
    reach values in the hundreds and would dominate the upsampled map. There is no skip at 1/1, because the encoder's
    finest map is at 1/2. The scored features are not rectified (see `score`).
    """
    x = None
    for scale in reversed(range(len(features))):
        name = f"scale_{2 ** (scale + 1)}"
        skip = FusedBatchNormalization(momentum=0.9, name=f"{name}_skip_bn")(features[scale])
        if x is not None:
            x = keras.layers.ReLU(name=f"{name}_below_relu")(x)
            skip = keras.layers.Concatenate(name=f"{name}_concat")([skip, upsample(x, 2, f"{name}_up")])
        x = _convolve_twice(skip, channels * min(2**scale, _WIDEST), name)
    x = keras.layers.ReLU(name="scale_1_below_relu")(x)
    x = _convolve_twice(upsample(x, 2, "scale_1_up"), channels, "scale_1")
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name="dropout")(x)
    return score(x)


def _convolve_twice(x: Any, channels: int, name: str) -> Any:
    return _convolve(_convolve(x, channels, f"{name}_a"), channels, f"{name}_b", rectified=False)


def _convolve(x: Any, channels: int, name: str, rectified: bool = True) -> Any:
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = FusedBatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if rectified else x


_SCALES = 5


@keras.saving.register_keras_serializable(package="lim_keras")
class MaxUnpool(keras.layers.Layer):
    """Put each value at the position of the maximum in its 2 x 2 block of the reference, and zeros elsewhere.

    If maxima are equal, the first one in row order counts, as in pooling indices. The layer finds positions by
    comparison, not by `max_pool_with_argmax`, so that LiteRT can run it. The reference gets no gradient.
    """

    def call(self, values: Any, reference: Any) -> Any:
        """Unpool values (n, h, w, c) by the map before pooling (n, 2 h, 2 w, c) to (n, 2 h, 2 w, c)."""
        corners = [reference[:, row::2, column::2, :] for row in (0, 1) for column in (0, 1)]
        maximum = tf.maximum(tf.maximum(corners[0], corners[1]), tf.maximum(corners[2], corners[3]))
        vacant = tf.ones_like(maximum, tf.bool)
        placed = []
        for corner in corners:
            here = tf.logical_and(vacant, tf.equal(corner, maximum))
            placed.append(tf.where(here, values, tf.zeros_like(values)))
            vacant = tf.logical_and(vacant, tf.logical_not(here))
        return tf.nn.depth_to_space(tf.concat(placed, axis=-1), 2)

    def compute_output_shape(
        self, values_shape: Sequence[int | None], reference_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        """Return the reference's height and width with the values' batch and channels."""
        return (values_shape[0], reference_shape[1], reference_shape[2], values_shape[3])


def decode_segnet(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """Build SegNet's decoder (Badrinarayanan et al. 2017): unpool by the encoder's positions, convolve twice.

    Arguments and result are as in `decode_fcn`. For a max-pooling encoder, `features` also holds the five maps before
    pooling, at 1/1 .. 1/16, which give the positions. For an encoder with strided convolutions (MobileNetV2), each
    unpooling uses the position of the maximum in every 2 x 2 block of the encoder's map at that scale. The step to 1/1,
    where this encoder has no map, is bilinear. Unpooling works channel by channel, so each stage has as many channels
    as the encoder at that scale; the last stage has `channels`. Every stage has two convolutions; in the paper, some
    have three. The last convolution is not rectified (see `score`).
    """
    pooled, references = features[:_SCALES], list(features[_SCALES:]) or [None, *features[: _SCALES - 1]]
    x = pooled[-1]
    if x.shape[-1] != references[-1].shape[-1]:
        x = _convolve(x, references[-1].shape[-1], "scale_32")
    for scale in reversed(range(_SCALES)):
        name = f"scale_{2**scale}"
        finer = references[scale - 1] if scale > 0 else None
        width = channels if finer is None else finer.shape[-1]
        x = _double(x, references[scale], name)
        x = _convolve(x, x.shape[-1], f"{name}_a")
        x = _convolve(x, width, f"{name}_b", rectified=scale > 0)
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name="dropout")(x)
    return score(x)


def _double(x: Any, reference: Any, name: str) -> Any:
    if reference is None:
        return upsample(x, 2, f"{name}_up")
    return MaxUnpool(name=f"{name}_unpool")(x, reference)


@dataclass(frozen=True)
class Decoder:
    """Function that builds a decoder, like `decode_fcn`. `unpools`: it uses the encoder's maps before pooling."""

    decode: Callable[[Sequence[Any], int, float], Any]
    unpools: bool = False


DECODERS = {
    "fcn": Decoder(decode_fcn),
    "fcn_fl": Decoder(decode_fcn_fl),
    "unet": Decoder(decode_unet),
    "segnet": Decoder(decode_segnet, unpools=True),
}
"""Networks by name; `config.ModelName` lists the same names."""
