"""One progress bar for a run on a terminal, one line an epoch in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress(keras.callbacks.Callback):
    """Shows steps done, images a second, loss, validation F1 and the time left.

    Args:
        label: what is trained, such as "fold 2".
        epochs: epochs of the whole run.
        steps: steps an epoch.
        batch_size: images a step.
        console: where to; not a terminal means one line an epoch.
    """

    def __init__(self, label: str, epochs: int, steps: int, batch_size: int, console: Console) -> None:
        super().__init__()
        self._label, self._epochs, self._steps, self._batch_size = label, epochs, steps, batch_size
        self._console = console
        self._bar: Progress | None = None
        self._task: Any = None
        self._last = ""

    @contextmanager
    def shown_from(self, first_epoch: int) -> Iterator[None]:
        """Show the run from the epoch that it goes on with, and give the terminal back whatever happens."""
        if first_epoch:
            self._console.print(f"{self._label}: going on after epoch {first_epoch} of {self._epochs}", highlight=False)
        if not self._console.is_terminal:
            yield
            return
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TextColumn("{task.fields[figures]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self._console) as self._bar:
            self._task = self._bar.add_task(
                self._label, total=self._epochs * self._steps, completed=first_epoch * self._steps, figures=""
            )
            yield

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Advance by a step."""
        if self._bar is not None and logs:
            speed = self._bar.tasks[0].speed or 0.0
            figures = f"{speed * self._batch_size:.0f} images/s  loss {float(logs['loss']):.4f}  {self._last}"
            self._bar.update(self._task, advance=1, figures=figures)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Say how the epoch went."""
        figures = logs or {}
        self._last = f"val F1 {figures.get('val_f1', float('nan')):.3f}"
        if self._bar is None:
            self._console.print(
                f"{self._label}: epoch {epoch + 1}/{self._epochs}  loss {figures['loss']:.4f}  {self._last} "
                f"at {figures['val_threshold']:.2f}  average precision {figures['val_average_precision']:.3f}",
                highlight=False,
            )
