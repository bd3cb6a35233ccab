"""Training of one model: precision, optimizer, sampler, loss and fit; prediction with the trained model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lim_keras.config import LossSection, RunConfig, TrainingSection
from lim_keras.data.augment import build_augmentation
from lim_keras.data.photometric import build_photometric, followed_by
from lim_keras.data.pipeline import resized_batches, sheet_batches, training_batches
from lim_keras.data.sampling import NegativePool, ResizedSampler, Sampler, WindowSampler
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import make_folder, write_text
from lim_keras.losses import BinaryFocalLoss, DistillationLoss, FocalDiceLoss
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration
from lim_keras.metrics.keras_metrics import AllScores
from lim_keras.models import build_model
from lim_keras.models.encoders import NO_WEIGHTS, freeze_scales
from lim_keras.progress import ProgressCallback
from lim_keras.report.progress import ProgressBar
from lim_keras.training.callbacks import Checkpoints, TrainingProgress, Validation
from lim_keras.training.distillation import (
    Distillation,
    DistillationSampler,
    DistillationStore,
    MaskScores,
    NegativeStore,
)
from lim_keras.training.negatives import FoldNegatives, round_ends
from lim_keras.training.run import Run
from lim_keras.training.stored_models import save_model
from lim_keras.training.warm_start import average_with_start, warm_start_weights

FILE = "precision.txt"
"""File in a fold's folder with the policy chosen for "auto"; a resumed training keeps it on another machine."""

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
    """Time a 3 x 3 convolution of 64 channels and its gradient; return the shortest of three times, seconds."""
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
    """Set the Keras dtype policy during the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _EncoderRate:
    """Mixin of a Keras optimizer: warm-up, decoupled weight decay and a separate learning rate for the encoder.

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
        """Mark the encoder's variables and the kernels; weight decay applies to kernels only."""
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
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) and a separate learning rate for the encoder."""


class Sgd(_EncoderRate, keras.optimizers.SGD):
    """Stochastic gradient descent with Nesterov momentum and a separate learning rate for the encoder."""


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


MODEL = "model.keras"


def train_model(
    run: Run,
    fold: int,
    *,
    encoder_weights: str | None = None,
    distillation: Distillation | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Train the model of one fold and write its best weights as `model.keras` (float32) into the fold's folder.

    The folder also gets `history.csv` (one line an epoch), `checkpoints/` and `tensorboard/`. A resumed training
    gives the history of an uninterrupted one; a finished training is not repeated.

    Args:
        run: configuration, tiles and folder.
        fold: fold whose tiles select the best epoch; the model is trained on `run.training_tiles(fold)`.
        encoder_weights: "imagenet", "none" or a file; None: as configured.
        distillation: predictions of a teacher for the training tiles; None: train on the masks alone.
        progress: receives the number of images seen; None: bar on a terminal, one line an epoch elsewhere.

    Returns:
        Path of `model.keras`.

    Raises:
        TrainingError: the validation loss is not finite, or a checkpoint is damaged.
    """
    folder = run.fold_folder(fold)
    result = folder / MODEL
    if result.exists():
        return result
    make_folder(folder, "run")
    keras.utils.set_random_seed(run.config.seed)
    if run.config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    with precision(choose_precision(run.config.training.precision, folder)):
        model = _initial_model(run, encoder_weights)
        checkpoints = _fit(run, fold, model, distillation, progress or ProgressBar(transient=False))
        checkpoints.restore_best()
    _write_float32(run, model, result)
    return result


def _initial_model(run: Run, encoder_weights: str | None) -> keras.Model:
    start = warm_start_weights(run.folder)
    # A warm start sets all weights: the encoder needs no weights of its own.
    model = _network(run, NO_WEIGHTS if start else encoder_weights or run.config.model.encoder_weights)
    if start:
        model.set_weights(start)
    freeze_scales(model.get_layer("encoder"), run.config.training.frozen_encoder_scales)
    return model


def _fit(
    run: Run, fold: int, model: keras.Model, distillation: Distillation | None, progress: ProgressCallback
) -> Checkpoints:
    settings, folder = run.config.training, run.fold_folder(fold)
    store = _store(run, run.training_tiles(fold), folder / "cache" / "t", distillation)
    kind, steps = TileStore if distillation is None else NegativeStore, _sampler(run, store)[1]
    negatives = FoldNegatives.of(run.config, run.folder, folder, run.gsd_m, kind)
    _compile(run.config, model, steps, distillation)
    checkpoints = Checkpoints(folder / "checkpoints", settings.early_stopping, settings.schedule == "plateau")
    checkpoints.set_model(model)
    first = checkpoints.restore()
    if first == settings.epochs or checkpoints.stops:
        return checkpoints
    validation = _validation_batches(run, _store(run, run.held_out_tiles(fold), folder / "cache" / "v"))
    shown = TrainingProgress(_label(run, fold, distillation), settings, steps, progress)
    callbacks: list[Any] = [Validation(validation, build_loss(run.config.loss)), shown]
    if settings.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    with shown.task(first), disk_errors(folder):
        # The examples of a part are drawn ahead, so a part ends before its model decides on the next one.
        for begun, end in pairwise([0, *round_ends(run.config)]):
            start = max(begun, first)
            if start >= end or checkpoints.stops:
                continue
            predict = partial(Predictor, model) if start == begun else None
            sampler = _sampler(run, store, None if negatives is None else negatives.pool(begun, predict))[0]
            model.fit(
                training_batches(
                    sampler if distillation is None else DistillationSampler(sampler),
                    settings.batch_size,
                    steps,
                    end,
                    first_epoch=start,
                ),
                initial_epoch=start,
                epochs=end,
                steps_per_epoch=steps,
                callbacks=[*callbacks, checkpoints],
                shuffle=False,
                verbose=0,
            )
    return checkpoints


def _sampler(run: Run, store: TileStore, negatives: NegativePool | None = None) -> tuple[Sampler, int]:
    return build_sampler(run.config, store, run.statistics, negatives)


def _compile(config: RunConfig, model: keras.Model, steps: int, distillation: Distillation | None) -> None:
    optimizer = build_optimizer(config.training, model, steps)
    if distillation is None:
        model.compile(optimizer=optimizer, loss=build_loss(config.loss), metrics=[AllScores()])
    else:
        model.compile(optimizer=optimizer, loss=_student_loss(config.loss, distillation), metrics=[MaskScores()])
    # compile() wraps the optimizer under mixed_float16 to scale the loss; the wrapper has a state of its own.
    model.optimizer.build(model.trainable_variables)


def _label(run: Run, fold: int, distillation: Distillation | None) -> str:
    if len(run.held_out_folds) > 1:
        return f"fold {fold}"
    return "student" if distillation else "fit"


def build_sampler(
    config: RunConfig, store: TileStore, statistics: TileStatistics, negatives: NegativePool | None = None
) -> tuple[Sampler, int]:
    """Build the configured sampler over training tiles, and negative tiles where there are any.

    Returns:
        The sampler, and the number of batches in an epoch.
    """
    sampling, settings = config.sampling, config.training
    low, high = statistics.range
    photometric = build_photometric(config.photometric, low, high, statistics.dtype)
    if sampling.mode == "resized":
        resized = ResizedSampler(
            store,
            sampling.size,
            config.seed,
            config.augmentation,
            low=low,
            high=high,
            colour_jitter=config.colour_jitter,
            photometric=photometric,
        )
        return resized, settings.steps_per_epoch or max(1, len(resized) // settings.batch_size)
    steps = settings.steps_per_epoch or max(1, len(store) // settings.batch_size)
    windows = WindowSampler(
        store,
        sampling.size,
        steps * settings.batch_size,
        config.seed,
        landslide_share=sampling.landslide_share,
        scale_jitter=sampling.scale_jitter,
        paste=sampling.paste,
        augmentation=followed_by(build_augmentation(config.augmentation, low, high, config.colour_jitter), photometric),
        negatives=negatives,
    )
    return windows, steps


def build_loss(settings: LossSection) -> BinaryFocalLoss:
    """Build the configured focal loss, with soft Dice where its weight is above 0."""
    weights = settings.landslide_weight, settings.background_weight, settings.gamma
    if settings.dice_weight:
        return FocalDiceLoss(*weights, settings.dice_weight)
    return BinaryFocalLoss(*weights)


def _student_loss(settings: LossSection, distillation: Distillation) -> DistillationLoss:
    weights = settings.landslide_weight, settings.background_weight, settings.gamma
    return DistillationLoss(*weights, settings.dice_weight, distillation.weight)


def _validation_batches(run: Run, store: TileStore) -> tf.data.Dataset:
    size, batch, seed = run.config.sampling.size, run.config.training.batch_size, run.config.seed
    if run.config.sampling.mode == "resized":
        low, high = run.statistics.range
        return resized_batches(ResizedSampler(store, size, seed, low=low, high=high), batch)
    # Twice the side and a quarter of the batch: same memory, fewer pixels near a window's edge.
    return sheet_batches(store, 2 * size, max(1, batch // 4), seed)


def _store(run: Run, tiles: TileSet, folder: Path, distillation: Distillation | None = None) -> TileStore:
    settings = run.config.sampling.gsd_m, run.config.gsd_m, run.config.training.cache, folder
    return TileStore(tiles, *settings) if distillation is None else DistillationStore(tiles, distillation, *settings)


def _network(run: Run, weights: str) -> keras.Model:
    section = run.config.model
    return build_model(
        section.name,
        section.encoder,
        len(run.statistics.mean),
        encoder_weights=weights,
        decoder_channels=section.decoder_channels,
        input_reduction=section.input_reduction,
        dropout=section.dropout,
        value_range=run.statistics.value_range,
    )


def _write_float32(run: Run, model: keras.Model, path: Path) -> None:
    """Write the final weights in a float32 network, regardless of the precision of training."""
    plain = _network(run, NO_WEIGHTS)
    share = run.config.training.start_share
    plain.set_weights(average_with_start(run.folder, model.get_weights(), share) if share else model.get_weights())
    save_model(plain, path)


class Predictor:
    """Callable Keras model: raw pixels (n, h, w, bands) -> calibrated probability (n, h, w) float32.

    Args:
        model: returns logits (n, h, w, 1).
        calibration: applied to the logits.
    """

    def __init__(self, model: keras.Model, calibration: Calibration = UNCALIBRATED) -> None:
        def forward(images: Any) -> Any:
            logits = tf.cast(model(images, training=False), tf.float32)[..., 0]
            return tf.sigmoid(calibration.logit(logits))

        # Trace once for all image sizes: TensorFlow warns about repeated tracing.
        any_size = tf.TensorSpec((None, None, None, model.input_shape[-1]), tf.float32)
        self._forward = tf.function(forward, autograph=False).get_concrete_function(any_size)
        self._model = model  # the concrete function does not keep the variables alive

    def __call__(self, images: np.ndarray | Sequence[Any]) -> np.ndarray:
        """Predict raw pixels (n, h, w, bands)."""
        return np.asarray(self._forward(tf.cast(images, tf.float32)).numpy())
