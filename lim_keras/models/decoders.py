"""Decoders: FCN-8s, FCN-FL, U-Net and SegNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from lim_keras.models.layers import FusedBatchNormalization, project, score, upsample


def decode_fcn(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """FCN-8s (Shelhamer et al. 2017): scores of 1/32, 1/16 and 1/8 are added, then upsampled by 8.

    Args:
        features: five maps, finest first, at 1/2 .. 1/32.
        channels: width of the projected features before they are scored.
        dropout: share of channels that is dropped before the score.

    Returns:
        Logits (n, h, w, 1) at the encoder's input resolution.
    """
    return _add_and_score(features, channels, dropout, finest=2)


def decode_fcn_fl(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """FCN-FL (Fig. 4 of Chen et al. 2022): as FCN, down to 1/4 and 1/2, so that decoder and encoder are symmetric.

    Arguments and result as in `decode_fcn`.
    """
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


def decode_unet(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """U-Net's expanding path (Ronneberger et al. 2015): upsample by 2, concatenate the skip, convolve twice.

    Stages are `channels` wide at 1/1 and 1/2, and twice as wide at each coarser scale, up to 8 x `channels`. Upsampling
    is learned, from bilinear weights on. Skips are batch-normalised first: VGG16 features are in the hundreds and would
    drown the upsampled map beside them. At 1/1 there is no skip, as the encoder's finest map is at 1/2. What is scored
    is not rectified: see `score`.

    Args:
        features: five maps, finest first, at 1/2 .. 1/32.
        channels: width of the two finest stages.
        dropout: share of channels that is dropped before the score.

    Returns:
        Logits (n, h, w, 1) at the encoder's input resolution.
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
    x = keras.layers.ReLU(name=f"{name}_a_relu")(_convolve(x, channels, f"{name}_a"))
    return _convolve(x, channels, f"{name}_b")


def _convolve(x: Any, channels: int, name: str) -> Any:
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return FusedBatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


_SCALES = 5


@keras.saving.register_keras_serializable(package="lim_keras")
class MaxUnpool(keras.layers.Layer):
    """Put each value back where a 2 x 2 max pooling of the reference found its maximum, zeros elsewhere.

    The positions are those of pooling indices: one of four per value and channel, the first in row order where several
    are equal (after a ReLU, often four zeros). They are compared anew instead of carried along, which needs neither
    `max_pool_with_argmax` nor a scatter: slices, comparisons and a depth-to-space, all of which TensorFlow Lite has
    built in. No gradient reaches the reference, as none reaches an index.
    """

    def call(self, values: Any, reference: Any) -> Any:
        """values: (n, h, w, c); reference: (n, 2 h, 2 w, c), the map before pooling; returns (n, 2 h, 2 w, c)."""
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
        """The reference's height and width, the values' batch and channels."""
        return (values_shape[0], reference_shape[1], reference_shape[2], values_shape[3])


def decode_segnet(features: Sequence[Any], channels: int, dropout: float = 0.0) -> Any:
    """SegNet's decoder (Badrinarayanan et al. 2017): unpool by the encoder's positions, then convolve twice.

    With a max-pooling encoder the positions are the pooling indices themselves, from 1/16 to 1/1. An encoder that
    halves its maps by strided convolutions (MobileNetV2) has none: there each unpooling takes the positions of the
    strongest response in every 2 x 2 block of the encoder's map at that scale, as if that map had been max-pooled, and
    the last step, to 1/1, where the encoder has no map, is bilinear. Either way positions are all that crosses from
    encoder to decoder. Unpooling goes channel by channel, so the encoder's widths are the decoder's. SegNet repeats the
    encoder's two or three convolutions a stage; here every stage has two. The last is not rectified: see `score`.

    Args:
        features: five maps, finest first, at 1/2 .. 1/32; after them, with a max-pooling encoder, the five maps that
            the poolings took in, at 1/1 .. 1/16.
        channels: width of the last stage.
        dropout: share of channels that is dropped before the score.

    Returns:
        Logits (n, h, w, 1) at the encoder's input resolution.
    """
    pooled, references = features[:_SCALES], list(features[_SCALES:]) or [None, *features[: _SCALES - 1]]
    x = pooled[-1]
    if x.shape[-1] != references[-1].shape[-1]:
        x = _convolve_segnet(x, references[-1].shape[-1], "scale_32")
    for scale in reversed(range(_SCALES)):
        name = f"scale_{2**scale}"
        finer = references[scale - 1] if scale > 0 else None
        width = channels if finer is None else finer.shape[-1]
        x = _double(x, references[scale], name)
        x = _convolve_segnet(x, x.shape[-1], f"{name}_a")
        x = _convolve_segnet(x, width, f"{name}_b", rectified=scale > 0)
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name="dropout")(x)
    return score(x)


def _double(x: Any, reference: Any, name: str) -> Any:
    if reference is None:
        return upsample(x, 2, f"{name}_up")
    return MaxUnpool(name=f"{name}_unpool")(x, reference)


def _convolve_segnet(x: Any, channels: int, name: str, rectified: bool = True) -> Any:
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = FusedBatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if rectified else x
