"""Optimizers with a slower encoder, and the choice of precision."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from lim_keras.config import TrainingSection
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


class _Stepping(Protocol):
    iterations: Any

    def _get_variable_index(self, variable: Any) -> int: ...


class _TwoSpeeds:
    """Mixed into a Keras optimizer: warm-up, decoupled weight decay and a learning rate of the encoder's own.

    Weight decay is ours rather than Keras's, as Keras's would go on shrinking the encoder while it is frozen, and
    would shrink batch normalisation.
    """

    def __init__(
        self,
        *,
        decay: float,
        encoder_variables: Iterable[Any],
        encoder_factor: float,
        freeze_steps: int,
        warmup_steps: int,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._decay, self._freeze_steps, self._warmup_steps = decay, freeze_steps, warmup_steps
        self._encoder_factor = encoder_factor
        self._encoder_ids = {id(variable) for variable in encoder_variables}

    def build(self, variables: list[Any]) -> None:
        """Note which variables are the encoder's and which are kernels, which alone decay."""
        super().build(variables)  # type: ignore[misc]
        self._of_encoder = [id(variable) in self._encoder_ids for variable in variables]
        self._decays = [len(variable.shape) > 1 for variable in variables]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable at its own speed."""
        position = self._get_variable_index(variable)
        rate = learning_rate * self._speed(position)
        if self._decay and self._decays[position]:
            variable.assign_sub(variable * tf.cast(rate * self._decay, variable.dtype))
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _speed(self: Any, position: int) -> Any:
        step = tf.cast(self.iterations, tf.float32)
        speed = tf.minimum(1.0, (step + 1) / self._warmup_steps) if self._warmup_steps else tf.constant(1.0)
        if not self._of_encoder[position]:
            return speed
        return tf.where(step < self._freeze_steps, 0.0, speed * self._encoder_factor)


class AdamW(_TwoSpeeds, keras.optimizers.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) and two speeds."""


class Sgd(_TwoSpeeds, keras.optimizers.SGD):
    """Stochastic gradient descent with Nesterov momentum and two speeds."""


def build_optimizer(settings: TrainingSection, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of a run; its schedule ends with the last step of the last epoch."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps_per_epoch * settings.epochs)
    speeds = {
        "decay": settings.weight_decay,
        "encoder_variables": model.get_layer("encoder").trainable_variables,
        "encoder_factor": settings.encoder_learning_rate_factor,
        "freeze_steps": settings.freeze_encoder_epochs * steps_per_epoch,
        "warmup_steps": settings.warmup_steps,
    }
    if settings.optimizer == "adamw":
        return AdamW(learning_rate=rate, **speeds)
    return Sgd(learning_rate=rate, momentum=settings.momentum, nesterov=True, **speeds)
