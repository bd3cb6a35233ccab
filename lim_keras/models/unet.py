"""U-Net: a decoder that sets the encoder's features beside what comes up from below, scale by scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from lim_keras.models.layers import FusedBatchNormalization, score, upsample

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
