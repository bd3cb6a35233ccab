"""Progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class SceneProgress:
    """One bar a scene, with its rate and what is left; nothing where standard error is no terminal."""

    def __init__(self, console: Console, label: str = "") -> None:
        self.label = label
        self._console = console
        self._bar: Progress | None = None

    @contextmanager
    def begin(self, pixels: int, done: int) -> Iterator[None]:
        """Show the bar while the block runs."""
        if not self._console.is_terminal or self._console.quiet:
            yield
            return
        columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %")]
        columns += [TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self._console, transient=True) as self._bar:
            self._bar.add_task(self.label, total=pixels, completed=done, rate="")
            yield
        self._bar = None

    def advance(self, pixels: int) -> None:
        """More pixels are predicted."""
        if self._bar is not None:
            speed = self._bar.tasks[0].speed or 0.0
            self._bar.update(self._bar.tasks[0].id, advance=pixels, rate=f"{speed / 1e6:.2f} Mpx/s")
