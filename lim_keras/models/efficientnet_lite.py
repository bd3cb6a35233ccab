"""EfficientNet-Lite0 to 4: EfficientNet (Tan & Le 2019) without squeeze-and-excite, for arithmetic of eight bits.

Squeeze-and-excite multiplies maps by a mean over the whole image, and swish has no small range: both cost accuracy in
eight bits. The Lite networks have neither; activations are ReLU6; stem, first and last stage have a fixed size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import ModelError
from lim_keras.files import DAMAGED_ARRAYS
from lim_keras.models.applications import IMAGENET, NO_WEIGHTS, widen_kernel
from lim_keras.models.layers import FusedBatchNormalization

_STEM_CHANNELS = 32
_EPSILON = 1e-3
_MOMENTUM = 0.97
_ZERO, _RANGE = 127.0, 128.0  # of pixels: (value - 127) / 128

_NORMALISATION = ("gamma", "beta", "mean", "variance")  # in the order of Keras
_CONVOLUTION = ("kernel",)

_MAX_LISTED = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width; the first of them has the stride."""

    kernel: int
    repeats: int
    channels: int
    stride: int
    expansion: int = 6


STAGES = (
    Stage(3, 1, 16, 1, expansion=1),
    Stage(3, 2, 24, 2),
    Stage(5, 2, 40, 2),
    Stage(3, 3, 80, 2),
    Stage(5, 3, 112, 1),
    Stage(5, 4, 192, 2),
    Stage(3, 1, 320, 1),
)
"""Stages of EfficientNet-Lite0 (Table 1 of Tan & Le 2019)."""

SCALES: Mapping[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
"""Factors of channels and of repeats, by the encoder's name."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Inverted residual: expansion 1 x 1, depthwise convolution, linear projection 1 x 1."""

    kernel: int
    channels: int
    stride: int
    expansion: int


def build_efficientnet_lite(name: str, bands: int, weights: str | Path | None, before_pooling: bool) -> keras.Model:
    """Build an encoder of `SCALES`; arguments as in `encoders.build_encoder`, `weights` None for random ones.

    The map at 1/2 is the output of the first block, the maps at 1/4 to 1/16 are the expanded maps before the next
    stride, and the map at 1/32 is the output of the last block.

    Raises:
        ModelError: `weights` is "imagenet", is no file, or does not fit.
    """
    network = _network(name, bands)
    if weights is not None:
        _set_weights(network, _weights_file(name, weights), bands)
    image = keras.Input((None, None, bands), name="image")
    x = keras.layers.Rescaling(1 / _RANGE, -_ZERO / _RANGE, name="normalise")(image)
    return keras.Model(image, network(x), name="encoder")


def _blocks(name: str) -> Iterator[_Block]:
    width, depth = SCALES[name]
    for number, stage in enumerate(STAGES):
        fixed = number in (0, len(STAGES) - 1)
        for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * depth)):
            channels = _multiple_of_eight(stage.channels * width)
            yield _Block(stage.kernel, channels, 1 if repeat else stage.stride, stage.expansion)


def _multiple_of_eight(channels: float) -> int:
    """Round to the nearest multiple of 8 that is at least nine tenths of the number."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _network(name: str, bands: int) -> keras.Model:
    image = keras.Input((None, None, bands), name="scaled")
    x = keras.layers.Conv2D(_STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = _relu6(_normalised(x, "stem"), "stem")
    features: list[Any] = []
    for number, block in enumerate(_blocks(name)):
        shortcut, expanded = x, _expanded(x, block, f"block_{number}")
        if block.stride == 2:  # the finest map is not expanded: at 1/2, six times the channels cost the most
            features.append(expanded if features else x)
        x = _projected(expanded, block, f"block_{number}")
        if block.stride == 1 and shortcut.shape[-1] == block.channels:
            x = keras.layers.Add(name=f"block_{number}_add")([shortcut, x])
    return keras.Model(image, [*features, x], name=name)


def _expanded(x: Any, block: _Block, name: str) -> Any:
    if block.expansion == 1:
        return x
    channels = x.shape[-1] * block.expansion
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_expand")(x)
    return _relu6(_normalised(x, f"{name}_expand"), f"{name}_expand")


def _projected(x: Any, block: _Block, name: str) -> Any:
    convolution = keras.layers.DepthwiseConv2D(
        block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )
    x = _relu6(_normalised(convolution(x), f"{name}_depthwise"), f"{name}_depthwise")
    x = keras.layers.Conv2D(block.channels, 1, use_bias=False, name=f"{name}_project")(x)
    return _normalised(x, f"{name}_project")


def _normalised(x: Any, name: str) -> Any:
    return FusedBatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn")(x)


def _relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)


def _weights_file(name: str, weights: str | Path) -> Path:
    if weights == IMAGENET:
        raise ModelError(
            f"Keras has no ImageNet weights of `{name}`. Give a file FILE.npz of them, or `{NO_WEIGHTS}`, as "
            "`encoder_weights`."
        )
    path = Path(weights)
    if not path.is_file():
        raise ModelError(
            f"Encoder weights {path} not found. Expected `{NO_WEIGHTS}` or the path of a weights file FILE.npz."
        )
    return path


def _set_weights(network: keras.Model, path: Path, bands: int) -> None:
    """Set all weights from a file; read and check all of it before."""
    try:
        with path.open("rb") as file, _archive(np.load(file, allow_pickle=False)) as kept:
            values = {layer: _layer_values(layer, kept, bands) for layer in network.layers if layer.weights}
            _check_used(values, kept.files)
    except DAMAGED_ARRAYS as error:
        raise ModelError(
            f"Encoder weights {path} do not fit {network.name}: expected a file FILE.npz of arrays ({error})."
        ) from error
    except ModelError as error:
        raise ModelError(f"Encoder weights {path} do not fit {network.name}: {error}") from None
    for layer, arrays in values.items():
        layer.set_weights(arrays)


def _archive(loaded: Any) -> Any:
    if not hasattr(loaded, "files"):
        raise ValueError("it holds one array without a name")
    return loaded


def _stored_names(layer: keras.layers.Layer) -> list[str]:
    """Return the names of a layer's weights in the file, such as block_3/expand_bn/gamma, in the order of Keras."""
    stored = re.sub(r"^(block_\d+)_", r"\1/", layer.name)
    kinds = _NORMALISATION if isinstance(layer, keras.layers.BatchNormalization) else _CONVOLUTION
    return [f"{stored}/{kind}" for kind in kinds]


def _layer_values(layer: keras.layers.Layer, kept: Mapping[str, Any], bands: int) -> list[NDArray[np.float32]]:
    values = []
    for name, variable in zip(_stored_names(layer), layer.weights, strict=True):
        expected = tuple(variable.shape)
        if layer.name == "stem":
            expected = (*expected[:2], 3, expected[3])  # files have three bands
        if name not in kept:
            raise ModelError(f"layer {name}: expected an array of shape {expected}. Received: none")
        array = kept[name]
        if array.shape != expected:
            raise ModelError(f"layer {name}: expected an array of shape {expected}. Received: {array.shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ModelError(f"layer {name}: expected finite floating-point numbers. Received: others, {array.dtype}")
        if name.endswith("/variance") and (array < 0).any():
            raise ModelError(f"layer {name}: expected variances >= 0. Received: {array.min()}")
        wide = layer.name == "stem" and bands != 3
        values.append(widen_kernel(array.astype(np.float32), bands) if wide else array.astype(np.float32))
    return values


def _check_used(values: Mapping[keras.layers.Layer, Any], stored: list[str]) -> None:
    unused = sorted(set(stored) - {name for layer in values for name in _stored_names(layer)})
    if unused:
        more = "" if len(unused) <= _MAX_LISTED else f" and {len(unused) - _MAX_LISTED} more"
        raise ModelError(
            f"expected the arrays of its {len(values)} layers alone. Received as well: "
            f"{', '.join(unused[:_MAX_LISTED])}{more}"
        )
