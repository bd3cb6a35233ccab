"""Progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class ProgressBar:
    """A `lim_keras.progress.ProgressCallback` that shows a bar on a terminal and nothing in a log.

    Args:
        console: console that shows the bar; None: standard error.
        terminal: False: never a bar; True: always a bar; None: a bar if standard error is a terminal.
        transient: the bar disappears when its task ends.
    """

    def __init__(self, console: Console | None = None, *, terminal: bool | None = None, transient: bool = True) -> None:
        self._console = console or Console(stderr=True, emoji=False, force_terminal=terminal)
        self._transient = transient
        self._bar: Progress | None = None

    @property
    def visible(self) -> bool:
        """True if tasks show a bar."""
        return self._console.is_terminal

    @contextmanager
    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> Iterator[None]:
        """Show the bar while the block runs, and restore the terminal after it."""
        if not self.visible:
            yield
            return
        columns = TextColumn("{task.description}", markup=False), BarColumn(), _Figures()
        times = TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, *times, console=self._console, transient=self._transient) as self._bar:
            self._bar.add_task(label, total=total, completed=done, unit=unit, note="")
            try:
                yield
            finally:
                self._bar = None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished steps; an empty note keeps the previous note."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, advance=count, note=note or task.fields["note"])

    def print(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Figures(ProgressColumn):
    """Steps done, rate and note; pixels are counted in percent and Mpx/s."""

    def render(self, task: Task) -> Text:
        unit, speed, note = task.fields["unit"], task.speed or 0.0, task.fields["note"]
        done, rate = f"{task.completed:.0f}/{task.total:.0f}", f"{speed:.0f} {unit or 'steps'}/s"
        if unit == "px":
            done, rate = f"{task.percentage:>3.0f} %", f"{speed / 1e6:.2f} Mpx/s"
        return Text(f"{done}  {rate}  {note}".rstrip())
