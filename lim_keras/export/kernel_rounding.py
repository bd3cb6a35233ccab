"""Depthwise kernels rounded to eight bits so that each keeps the sum of its weights.

A converter rounds every weight of a kernel by itself. The first depthwise filters of MobileNetV2 look for edges: their
weights are large and sum to nearly zero, and what nine rounding errors add to that sum is multiplied by the brightness
of the image. In one trained model two such filters made more error than all other weights together. Weights that
are already multiples of the converter's step are left alone by it: rounding with care before the conversion is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.export.signatures import SIGNATURE

_LARGEST = 127  # of a signed eight-bit weight, as converters use them: symmetric around 0


@contextmanager
def rounded_depthwise_kernels(models: Sequence[Any]) -> Iterator[None]:
    """While this lasts, depthwise kernels of loaded SavedModels are rounded by `rounded_keeping_sums`.

    Args:
        models: what `tf.saved_model.load` gave. Kernels (height, width, channels, 1) of more than one pixel and more
            than one channel are taken as depthwise, as TensorFlow lays them out.
    """
    kernels = [
        variable
        for model in models
        for variable in model.signatures[SIGNATURE].variables
        if _is_depthwise(tuple(variable.shape))
    ]
    exact = [variable.numpy() for variable in kernels]
    try:
        for variable, kernel in zip(kernels, exact, strict=True):
            variable.assign(rounded_keeping_sums(kernel).astype(kernel.dtype))
        yield
    finally:
        for variable, kernel in zip(kernels, exact, strict=True):
            variable.assign(kernel)


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] * shape[1] > 1 and shape[2] > 1 and shape[3] == 1


def rounded_keeping_sums(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """Multiples of one 127th of each channel's largest weight, by less than one such step from `kernel`.

    Where the nearest multiples change a channel's sum by more than half a step, those weights that lie closest to
    the middle between two multiples go to the other one. The largest weight stays, as it defines the step.

    Args:
        kernel: (height, width, channels, 1).
    """
    weights = kernel.astype(np.float64).reshape(-1, kernel.shape[2])
    step = np.abs(weights).max(axis=0) / _LARGEST
    exact = weights / np.where(step > 0, step, 1.0)
    nearest = np.rint(exact)
    for channel in range(exact.shape[1]):
        excess = round(float((nearest[:, channel] - exact[:, channel]).sum()))
        if excess:
            rounded_up = (nearest[:, channel] - exact[:, channel]) * np.sign(excess)
            others = np.argsort(-rounded_up)[: abs(excess)]
            nearest[others, channel] -= np.sign(excess)
    rounded: NDArray[np.float32] = (nearest * step).reshape(kernel.shape).astype(np.float32)
    return rounded
