"""The arithmetic that a network is trained in: what the configuration says, or the faster of two on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from lim_keras.files import write_text

AUTO = "auto"
FILE = "precision.txt"
"""In a fold's folder: what "auto" came to, so that a training that goes on elsewhere goes on in the same arithmetic."""

_REDUCED, _FULL = "mixed_bfloat16", "float32"
_WORTH = 1.2
_REPEATS = 3


def choose_precision(asked: str, folder: Path) -> str:
    """Keras dtype policy for a training in `folder`.

    "auto" becomes mixed_bfloat16 where a convolution and its gradient are at least 1.2 times as fast in bfloat16 as in
    float32, else float32. It is measured, as TensorFlow computes bfloat16 on every processor: on one with AVX2 alone
    15 times slower than float32, on one with instructions for it faster.

    Args:
        asked: `training.precision` of the configuration.
        folder: of the training; a choice made here before is kept.
    """
    if asked != AUTO:
        return asked
    kept = folder / FILE
    if not kept.exists():
        faster = seconds_of_convolution("float32") >= _WORTH * seconds_of_convolution("bfloat16")
        write_text(kept, _REDUCED if faster else _FULL)
    return kept.read_text(encoding="utf-8")


def seconds_of_convolution(dtype: str) -> float:
    """Seconds that a 3 x 3 convolution of 64 channels and its gradient take, the best of three."""
    # A GPU is not busy with the 0.2 x 10^9 operations that take a slow processor a quarter of a second.
    side = 512 if tf.config.list_physical_devices("GPU") else 32
    images = tf.zeros((1, side, side, 64), dtype)
    kernel = tf.zeros((3, 3, 64, 64), dtype)

    @tf.function(autograph=False, reduce_retracing=True)
    def step() -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            features = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tuple(tape.gradient(features, [images, kernel]))

    def timed() -> float:
        started = time.perf_counter()
        step()[0].numpy()
        return time.perf_counter() - started

    timed()  # traces
    return min(timed() for _ in range(_REPEATS))


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers that are made while this lasts compute by `policy`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
