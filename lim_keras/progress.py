"""Progress of long work, reported to a callback."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class ProgressCallback(Protocol):
    """Receive the progress of long work, for a bar, a log or a widget; `lim_keras.report.progress` has the bar.

    Examples:
        >>> class Log:
        ...     @contextlib.contextmanager
        ...     def begin(self, label, total, done=0, *, unit=""):
        ...         print(f"{label}: {done} of {total} {unit}")
        ...         yield
        ...
        ...     def advance(self, count=1, note=""):
        ...         print(f"{count} more")
        >>> lk.predict_scene("exported_models/bijie_edge", "scene.tif", "maps", progress=Log())
    """

    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> AbstractContextManager[object]:
        """Begin a task, which lasts as long as the returned context.

        Args:
            label: name of the task, such as "checking tiles".
            total: number of its steps.
            done: steps that an earlier run has finished.
            unit: name of a step, such as "tiles" or "px".
        """
        ...

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished steps of the current task; `note` holds figures to show beside the bar."""
        ...


def track(
    items: Iterable[Item], label: str, total: int, progress: ProgressCallback | None, unit: str = ""
) -> Iterator[Item]:
    """Yield the items and count each one as a finished step of a task."""
    if progress is None:
        yield from items
        return
    with progress.begin(label, total, unit=unit):
        for item in items:
            yield item
            progress.advance()
