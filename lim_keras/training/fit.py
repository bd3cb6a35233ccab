"""Train one model: build it from the configuration, feed it, keep its best weights, go on where a killed run was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from lim_keras.config import LossSection, RunConfig
from lim_keras.data.augment import build_augmentation
from lim_keras.data.band_statistics import BandStatistics
from lim_keras.data.pipeline import resized_batches, sheet_batches, training_batches
from lim_keras.data.sampling import ResizedSampler, Sampler, WindowSampler
from lim_keras.data.store import TileStore
from lim_keras.data.tiles import TileSet
from lim_keras.losses import BinaryFocalLoss, DistillationLoss, FocalDiceLoss
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration
from lim_keras.metrics.keras_metrics import AllScores
from lim_keras.models import build_model
from lim_keras.models.encoders import NO_WEIGHTS, freeze_scales
from lim_keras.training.callbacks import Checkpoints, Validation
from lim_keras.training.distillation import Distillation, DistillationSampler, DistillationStore, MaskScores
from lim_keras.training.optimizer import build_optimizer, choose_precision, precision
from lim_keras.training.progress import RunProgress
from lim_keras.training.warm_start import warm_start_weights

MODEL = "model.keras"


def train_model(
    config: RunConfig,
    training: TileSet,
    validation: TileSet,
    folder: Path,
    *,
    statistics: BandStatistics,
    encoder_weights: str | None = None,
    teaching: Distillation | None = None,
    label: str = "fit",
    console: Console | None = None,
) -> Path:
    """Train one model, or go on with it, and write its best weights as `model.keras` (float32) into `folder`.

    Besides, `folder` gets `history.csv` (a line an epoch), `checkpoints/` and `tensorboard/`. Called again on the
    folder of a killed run it ends with the history of an unbroken one; on that of a finished run it does nothing.

    Args:
        config: the run.
        training: tiles that the weights are fitted to.
        validation: tiles that choose the epoch; no ground of theirs should be in `training`.
        folder: where to write.
        statistics: of the bands of the training tiles; they scale images that are not 8 bits.
        encoder_weights: "imagenet", "none" or a file; None takes the configuration's.
        teaching: what a teacher says of the training tiles, for a student; None: the masks alone.
        label: what the progress bar calls the run.
        console: where progress goes; None is standard error.

    Returns:
        The path of `model.keras`.
    """
    result = folder / MODEL
    if result.exists():
        return result
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    if config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    stores = [
        _store(config, training, folder / "cache" / "t", teaching),
        _store(config, validation, folder / "cache" / "v"),
    ]
    with precision(choose_precision(config.training.precision, folder)):
        start = warm_start_weights(folder.parent)
        # All weights are there: an encoder's would be fetched in vain.
        weights = NO_WEIGHTS if start else encoder_weights or config.model.encoder_weights
        model = _network(config, statistics, weights)
        if start:
            model.set_weights(start)
        freeze_scales(model.get_layer("encoder"), config.training.frozen_encoder_scales)
        checkpoints = _run(config, model, stores[0], stores[1], folder, statistics, teaching, label, console)
        model.load_weights(checkpoints.best_weights)
    _write_float32(config, model, statistics, result)
    return result


def _run(
    config: RunConfig,
    model: keras.Model,
    training: TileStore,
    validation: TileStore,
    folder: Path,
    statistics: BandStatistics,
    teaching: Distillation | None,
    label: str,
    console: Console | None,
) -> Checkpoints:
    settings = config.training
    sampler, steps = build_sampler(config, training, statistics)
    loss = build_loss(config.loss)
    optimizer = build_optimizer(settings, model, steps)
    if teaching is None:
        model.compile(optimizer=optimizer, loss=loss, metrics=[AllScores()])
    else:
        sampler = DistillationSampler(sampler)
        model.compile(optimizer=optimizer, loss=_student_loss(config.loss, teaching), metrics=[MaskScores()])
    # What compile made of it: under mixed_float16 a wrapper that scales the loss and has a state of its own.
    model.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(folder / "checkpoints", settings.early_stopping, settings.schedule == "plateau")
    checkpoints.set_model(model)
    first = checkpoints.restore()
    if first == settings.epochs or checkpoints.stops:
        return checkpoints
    progress = RunProgress(label, settings.epochs, steps, settings.batch_size, console or Console(stderr=True))
    callbacks: list[Any] = [Validation(_validation_batches(config, validation, statistics), loss), progress]
    if settings.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    with progress.shown_from(first):
        model.fit(
            training_batches(sampler, settings.batch_size, steps, settings.epochs, first),
            initial_epoch=first,
            epochs=settings.epochs,
            steps_per_epoch=steps,
            callbacks=[*callbacks, checkpoints],
            shuffle=False,
            verbose=0,
        )
    return checkpoints


def build_sampler(config: RunConfig, store: TileStore, statistics: BandStatistics) -> tuple[Sampler, int]:
    """The sampler of the configuration over training tiles, and how many batches an epoch has."""
    sampling, settings = config.sampling, config.training
    low, high = statistics.range
    if sampling.mode == "resized":
        resized = ResizedSampler(
            store,
            sampling.size,
            config.seed,
            config.augmentation,
            low=low,
            high=high,
            colour_jitter=config.colour_jitter,
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
        augmentation=build_augmentation(config.augmentation, low, high, config.colour_jitter),
    )
    return windows, steps


def build_loss(settings: LossSection) -> BinaryFocalLoss:
    """The focal loss of the configuration, with soft Dice where it has a weight."""
    weights = settings.landslide_weight, settings.background_weight, settings.gamma
    if settings.dice_weight:
        return FocalDiceLoss(*weights, settings.dice_weight)
    return BinaryFocalLoss(*weights)


def _student_loss(settings: LossSection, teaching: Distillation) -> DistillationLoss:
    weights = settings.landslide_weight, settings.background_weight, settings.gamma
    return DistillationLoss(*weights, settings.dice_weight, teaching.weight)


def _validation_batches(config: RunConfig, store: TileStore, statistics: BandStatistics) -> tf.data.Dataset:
    size, batch = config.sampling.size, config.training.batch_size
    if config.sampling.mode == "resized":
        low, high = statistics.range
        return resized_batches(ResizedSampler(store, size, config.seed, low=low, high=high), batch)
    # Twice the side and a quarter of the batch: the same memory, and less of a window near its edge.
    return sheet_batches(store, 2 * size, max(1, batch // 4), config.seed)


def _store(config: RunConfig, tiles: TileSet, folder: Path, teaching: Distillation | None = None) -> TileStore:
    settings = config.sampling.gsd_m, config.gsd_m, config.training.cache, folder
    return TileStore(tiles, *settings) if teaching is None else DistillationStore(tiles, teaching, *settings)


def _network(config: RunConfig, statistics: BandStatistics, weights: str) -> keras.Model:
    section = config.model
    return build_model(
        section.name,
        section.encoder,
        len(statistics.mean),
        encoder_weights=weights,
        decoder_channels=section.decoder_channels,
        input_reduction=section.input_reduction,
        dropout=section.dropout,
        value_range=statistics.value_range,
    )


def _write_float32(config: RunConfig, model: keras.Model, statistics: BandStatistics, path: Path) -> None:
    """Exports and later runs need no trace of the precision that the weights were found in."""
    plain = _network(config, statistics, "none")
    plain.set_weights(model.get_weights())
    partial = path.with_name(f"partial_{path.name}")
    plain.save(partial)
    partial.replace(path)


class Predictor:
    """A trained Keras model as a function from raw pixels (n, h, w, bands) to probability (n, h, w) float32.

    Args:
        model: gives logits (n, h, w, 1).
        calibration: of the logits.
    """

    def __init__(self, model: keras.Model, calibration: Calibration = UNCALIBRATED) -> None:
        def forward(images: Any) -> Any:
            logits = tf.cast(model(images, training=False), tf.float32)[..., 0]
            return tf.sigmoid(calibration.logit(logits))

        # One trace for every size of image, and taken at once: TensorFlow would warn of five models' first calls.
        any_size = tf.TensorSpec((None, None, None, model.input_shape[-1]), tf.float32)
        self._forward = tf.function(forward, autograph=False).get_concrete_function(any_size)
        self._model = model  # a concrete function does not keep its variables alive

    def __call__(self, images: np.ndarray | Sequence[Any]) -> np.ndarray:
        """images: raw pixels (n, h, w, bands)."""
        return np.asarray(self._forward(tf.cast(images, tf.float32)).numpy())
