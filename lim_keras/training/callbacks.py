"""Keras callbacks of a training: validation, checkpoints with exact resume, progress."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lim_keras.config import TrainingSection
from lim_keras.errors import TrainingError
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import delete_drafts, make_folder, write_text
from lim_keras.losses import BinaryFocalLoss
from lim_keras.metrics.calibration import ProbabilityHistogram, best_threshold
from lim_keras.ownership import file_hash
from lim_keras.progress import ProgressCallback
from lim_keras.report.progress import ProgressBar
from lim_keras.training.history import HISTORY, epoch_line
from lim_keras.training.stored_models import save_weights

STATE = "state.json"
_PLATEAU_EPOCHS, _PLATEAU_FACTOR = 3, 0.3
_WEIGHTS = re.compile(r"(best|latest)_\d{4,}\.weights\.h5")


@dataclass
class Progress:
    """State of training after an epoch, in `state.json`. The file is written after the weights: they are then complete.

    seeds: state of the random generators inside the model (dropout), which Keras does not save with the weights.
    files: SHA-256 of the files of weights, by name; older versions did not store it.
    """

    epoch: int = 0
    best_f1: float = -1.0
    best_epoch: int = -1
    seeds: list[list[int]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epochs_since_best(self) -> int:
        """Number of epochs since the best validation F1."""
        return self.epoch - 1 - self.best_epoch


class Validation(keras.callbacks.Callback):
    """Log `val_loss`, `val_f1`, `val_threshold` and `val_average_precision` after each epoch.

    `val_f1` is the landslide F1 over all validation pixels at `val_threshold`, the threshold of highest F1. With a
    fixed threshold of 0.5, the class weights would decide which epoch is best.
    """

    def __init__(self, batches: tf.data.Dataset, loss: BinaryFocalLoss) -> None:
        super().__init__()
        self._batches, self._loss = batches, loss
        self._forward: Any = None

    def set_model(self, model: keras.Model) -> None:
        """Trace the forward pass, once for the training."""
        if self._forward is not None and self.model is model:  # a later part of the training
            return
        super().set_model(model)

        @tf.function(reduce_retracing=True, autograph=False)
        def forward(images: Any, masks: Any) -> tuple[Any, Any]:
            logits = model(images, training=False)
            return tf.sigmoid(tf.cast(logits, tf.float32)), self._loss(masks, logits)

        self._forward = forward

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Evaluate all validation batches."""
        histogram = ProbabilityHistogram()
        losses, weights = [], []
        for images, masks in self._batches:
            probability, loss = self._forward(images, masks)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"Epoch {epoch + 1}: expected a finite validation loss. Received: {float(loss)}; the training has "
                    "diverged. Lower training.learning_rate or use precision float32, with another folder as `run`."
                )
            labels = masks.numpy()
            histogram.add(probability.numpy(), labels)
            losses.append(float(loss))
            weights.append(float((labels != 255).sum()))
        threshold, f1 = best_threshold(histogram)
        if logs is not None:
            logs["val_loss"] = float(np.average(losses, weights=weights))
            logs["val_f1"], logs["val_threshold"] = f1, threshold
            logs["val_average_precision"] = histogram.average_precision()


class Checkpoints(keras.callbacks.Callback):
    """Save weights, optimizer, best weights and history after every epoch.

    Files are written under the name of their epoch, then `state.json` is replaced, then older files are deleted. If the
    process is killed at any moment, one complete state is left.
    """

    def __init__(self, folder: Path, patience: int | None = None, plateau: bool = False) -> None:
        super().__init__()
        self._folder, self._patience, self._plateau = folder, patience, plateau
        self.progress = Progress()
        self._started = time.monotonic()

    @property
    def best_weights(self) -> Path:
        """Weights of the epoch with the best validation F1."""
        return self._folder / f"best_{self.progress.best_epoch:04d}.weights.h5"

    def restore(self) -> int:
        """Restore model, optimizer and history of the last complete epoch; return the number of finished epochs."""
        state = self._folder / STATE
        delete_drafts(self._folder)
        if not state.exists():
            return 0
        try:
            self.progress = Progress(**json.loads(state.read_text(encoding="utf-8")))
            self._load(self._latest)
            for variable, seed in zip(_seed_variables(self.model), self.progress.seeds, strict=True):
                variable.assign(seed)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                f"{self._folder}: the checkpoint cannot be read ({error}). Remove that folder to train from the start."
            ) from error
        self._write_history()  # the process may have been killed between state and history
        return self.progress.epoch

    def restore_best(self) -> None:
        """Restore the weights of the epoch with the best validation F1."""
        try:
            self._load(self.best_weights)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                f"{self.best_weights}: the checkpoint cannot be read ({error}). Remove the folder "
                f"{self._folder} to train from the start."
            ) from error

    def _load(self, path: Path) -> None:
        recorded = self.progress.files.get(path.name)
        if recorded is not None and file_hash(path) != recorded:
            raise ValueError(f"{path.name} is not what was saved; its SHA-256 differs")
        self.model.load_weights(path)

    @property
    def stops(self) -> bool:
        """Tell whether early stopping has ended the training."""
        return self._patience is not None and self.progress.epochs_since_best >= self._patience

    @property
    def _latest(self) -> Path:
        return self._folder / f"latest_{self.progress.epoch:04d}.weights.h5"

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the timer of the epoch."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save the state."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        progress = self.progress
        progress.epoch = epoch + 1
        if figures["val_f1"] > progress.best_f1:
            progress.best_f1, progress.best_epoch = figures["val_f1"], epoch
        self._lower_learning_rate()
        seconds = time.monotonic() - self._started
        progress.history.append({"epoch": epoch + 1, **figures, "seconds": round(seconds, 1)})
        progress.seeds = [np.asarray(variable).tolist() for variable in _seed_variables(self.model)]
        self._write()
        if self.stops:
            self.model.stop_training = True

    def _lower_learning_rate(self) -> None:
        since = self.progress.epochs_since_best
        if self._plateau and since > 0 and since % _PLATEAU_EPOCHS == 0:
            rate = self.model.optimizer.learning_rate
            rate.assign(rate * _PLATEAU_FACTOR)

    def _write(self) -> None:
        make_folder(self._folder)
        progress = self.progress
        files = {self._latest.name: save_weights(self.model, self._latest)}
        if progress.best_epoch == progress.epoch - 1:
            files[self.best_weights.name] = save_weights(self.model, self.best_weights)
        elif self.best_weights.name in progress.files:
            files[self.best_weights.name] = progress.files[self.best_weights.name]
        progress.files = files
        write_text(self._folder / STATE, json.dumps(asdict(progress)))
        self._write_history()
        # Other files in the folder are the user's.
        ours = {path for path in self._folder.iterdir() if _WEIGHTS.fullmatch(path.name)}
        with disk_errors(self._folder):
            for stale in ours - {self._latest, self.best_weights}:
                stale.unlink()

    def _write_history(self) -> None:
        write_text(self._folder.parent / HISTORY, history_csv(self.progress.history))


def _seed_variables(model: keras.Model) -> list[Any]:
    kept = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in kept]


def history_csv(history: list[dict[str, float]]) -> str:
    """Format the epochs as CSV with a header."""
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return text.getvalue()


class TrainingProgress(keras.callbacks.Callback):
    """Report images seen, loss and validation F1; a `ProgressBar` without a terminal prints one line per epoch.

    Args:
        label: name of the model, such as "fold 2".
        settings: epochs and batch size.
        steps: number of steps in an epoch.
        progress: receiver of the reports.
    """

    def __init__(self, label: str, settings: TrainingSection, steps: int, progress: ProgressCallback) -> None:
        super().__init__()
        self._label, self._settings, self._images = label, settings, steps * settings.batch_size
        self._progress = progress
        self._last = ""

    @contextmanager
    def task(self, finished_epochs: int) -> Iterator[None]:
        """Report the training while the block runs."""
        epochs = self._settings.epochs
        if finished_epochs:
            self._print(f"{self._label}: continuing after epoch {finished_epochs} of {epochs}")
        done = finished_epochs * self._images
        with self._progress.begin(self._label, epochs * self._images, done, unit="images"):
            yield

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the images of a batch."""
        loss = f"loss {float(logs['loss']):.4f}" if logs else ""
        self._progress.advance(self._settings.batch_size, f"{loss}  {self._last}".strip())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the figures of the epoch."""
        figures = logs or {}
        self._last = f"val F1 {figures.get('val_f1', float('nan')):.3f}"
        if isinstance(self._progress, ProgressBar) and not self._progress.visible:
            self._print(epoch_line(self._label, epoch + 1, self._settings.epochs, figures))

    def _print(self, line: str) -> None:
        if isinstance(self._progress, ProgressBar):
            self._progress.print(line)
