"""Processes that work on tasks, a limited number of them at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, MutableSequence
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Task = TypeVar("Task")

KILLED = "ended by signal {}. If that is 9, memory may have run out: lower training.batch_size or `jobs`."
"""Reason for a negative exit code, to be formatted with the number of the signal."""

_POLL_S = 0.2


def in_processes(
    waiting: MutableSequence[Task],
    jobs: int,
    start: Callable[[Task], BaseProcess | None],
    watch: Callable[[], None] | None = None,
) -> Generator[tuple[Task, int]]:
    """Start a process for each task, at most `jobs` at a time; yield (task, exit code) of each one as it ends.

    Closing the generator stops the running processes. Memory that TensorFlow does not release ends with the process.

    Args:
        waiting: tasks in their order; they are removed as they start, and the caller may add others meanwhile.
        jobs: largest number of processes at a time.
        start: starts the process of a task; None: there is nothing to do for it.
        watch: called several times a second while processes run.
    """
    running: list[tuple[Task, BaseProcess]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                if (process := start(task)) is not None:
                    running.append((task, process))
            if running:
                yield from wait_for_end(running, watch)
    finally:
        for _, process in running:
            process.terminate()
            process.join()


def wait_for_end(
    running: list[tuple[Task, BaseProcess]], watch: Callable[[], None] | None = None
) -> list[tuple[Task, int]]:
    """Wait until a process ends; remove all ended processes and return their tasks and exit codes."""
    while all(process.is_alive() for _, process in running):
        if watch is not None:
            watch()
        time.sleep(_POLL_S)
    ended = [(task, process) for task, process in running if not process.is_alive()]
    running[:] = [pair for pair in running if pair not in ended]
    return [(task, process.exitcode or 0) for task, process in ended]


def spawn(name: str, target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that begins with a new interpreter, because TensorFlow does not survive a fork."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, name=name)
    process.start()
    return process


def end_with_parent() -> None:
    """End this process when the parent is killed, so that the next call does not train the same model twice."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def threads_each(processes: int) -> int:
    """Return the number of threads of each process; 0 (TensorFlow's default) for a single process."""
    return max(1, (os.cpu_count() or 1) // processes) if processes > 1 else 0
