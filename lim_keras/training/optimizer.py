"""Optimizers with a learning rate of the encoder's own, and the choice of precision."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lim_keras.config import TrainingSection
from lim_keras.files import write_text

FILE = "precision.txt"
"""In a fold's folder: the policy chosen for "auto", so that a resumed training keeps it on another machine."""

_REDUCED, _FULL = "mixed_bfloat16", "float32"

_LEAST_SPEEDUP = 1.2

_REPEATS = 3


def choose_precision(asked: str, folder: Path) -> str:
    """Choose the Keras dtype policy of a training.

    "auto" is mixed_bfloat16 where a convolution and its gradient run at least 1.2 times as fast in bfloat16, else
    float32. The speed is measured, because TensorFlow emulates bfloat16 on processors without instructions for it.

    Args:
        asked: `training.precision` of the configuration.
        folder: folder of the training; an earlier choice in it is kept.
    """
    if asked != "auto":
        return asked
    kept = folder / FILE
    if not kept.exists():
        faster = seconds_of_convolution("float32") >= _LEAST_SPEEDUP * seconds_of_convolution("bfloat16")
        write_text(kept, _REDUCED if faster else _FULL)
    return kept.read_text(encoding="utf-8")


def seconds_of_convolution(dtype: str) -> float:
    """Measure a 3 x 3 convolution of 64 channels with its gradient; return the best of three times, seconds."""
    # A size that keeps a GPU busy would take a CPU too long.
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
    """Build layers with a dtype policy while the block runs."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _EncoderRate:
    """Mixin of a Keras optimizer: warm-up, decoupled weight decay and a learning rate of the encoder's own.

    Keras's own weight decay would shrink a frozen encoder and batch normalisation.
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
        """Find the encoder's variables, and the kernels, which alone decay."""
        super().build(variables)  # type: ignore[misc]
        self._of_encoder = [id(variable) in self._encoder_ids for variable in variables]
        self._decays = [len(variable.shape) > 1 for variable in variables]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable at its own rate."""
        position = self._get_variable_index(variable)
        rate = learning_rate * self._rate_factor(position)
        if self._decay and self._decays[position]:
            variable.assign_sub(variable * tf.cast(rate * self._decay, variable.dtype))
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _rate_factor(self: Any, position: int) -> Any:
        step = tf.cast(self.iterations, tf.float32)
        factor = tf.minimum(1.0, (step + 1) / self._warmup_steps) if self._warmup_steps else tf.constant(1.0)
        if not self._of_encoder[position]:
            return factor
        return tf.where(step < self._freeze_steps, 0.0, factor * self._encoder_factor)


class AdamW(_EncoderRate, keras.optimizers.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) and a learning rate of the encoder's own."""


class Sgd(_EncoderRate, keras.optimizers.SGD):
    """Stochastic gradient descent with Nesterov momentum and a learning rate of the encoder's own."""


def build_optimizer(settings: TrainingSection, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Build the configured optimizer; its schedule ends with the last step of the last epoch."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps_per_epoch * settings.epochs)
    rates = {
        "decay": settings.weight_decay,
        "encoder_variables": model.get_layer("encoder").trainable_variables,
        "encoder_factor": settings.encoder_learning_rate_factor,
        "freeze_steps": settings.freeze_encoder_epochs * steps_per_epoch,
        "warmup_steps": settings.warmup_steps,
    }
    if settings.optimizer == "adamw":
        return AdamW(learning_rate=rate, **rates)
    return Sgd(learning_rate=rate, momentum=settings.momentum, nesterov=True, **rates)
