"""FCN-8s and FCN-FL: decoders that add the encoder's features, scale by scale, to what comes up from below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

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
