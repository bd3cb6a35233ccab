"""Lines about the epochs of a training, while it runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HISTORY = "history.csv"
"""In a fold's folder: one line per epoch."""


def epoch_line(label: str, epoch: int, epochs: int, figures: Mapping[str, float]) -> str:
    """Format the figures of an epoch.

    Args:
        label: name of the model, such as "fold 2".
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the training.
    """
    return (
        f"{label}: epoch {epoch}/{epochs}  loss {figures['loss']:.4f}  val F1 {figures['val_f1']:.3f} at "
        f"{figures['val_threshold']:.2f}  average precision {figures['val_average_precision']:.3f}"
    )


class NewEpochs:
    """Epochs that another process adds to the history of a fold.

    Args:
        folder: the fold's folder, which need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._seen = folder / HISTORY, 0
        self.begun = len(self.read())

    def read(self) -> list[dict[str, float]]:
        """Return the epochs that were added since the last call."""
        epochs: list[dict[str, float]] = []
        with suppress(OSError, ValueError, TypeError, csv.Error), self._file.open(encoding="utf-8", newline="") as file:
            epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        new, self._seen = epochs[self._seen :], max(self._seen, len(epochs))
        return new
