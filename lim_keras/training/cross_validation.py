"""Train the folds of a run, each in a process of its own, and carry on where an earlier call stopped."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lim_keras.errors import LimKerasError, TrainingError
from lim_keras.training.run import OUT_OF_FOLD, Run

if TYPE_CHECKING:  # it imports TensorFlow, which the process that starts the folds can do without
    from lim_keras.training.teaching import Teaching

_KILLED = "ended by signal {}. If that is 9, memory may have run out: lower training.batch_size or --jobs."


def train_folds(run: Run, *, jobs: int = 1, encoder_weights: str | None = None, console: Console | None = None) -> None:
    """Train every fold that is not finished; `jobs` of them at a time.

    A process of its own for each: a process that trained a model does not give its memory back. Folds that train at the
    same time share the cores; where fewer than `jobs` are left for the end, each has more of them.

    Raises:
        TrainingError: folds failed; the message names them. The others are finished and kept.
    """
    console = console or Console(stderr=True)
    waiting = [fold for fold in run.held_out_folds if not is_finished(run, fold)]
    done = [fold for fold in run.held_out_folds if fold not in waiting]
    if done:
        console.print(f"finished before: {', '.join(f'fold {fold}' for fold in done)}", highlight=False)
    running: dict[int, BaseProcess] = {}
    failed: list[int] = []
    last = len(waiting) % jobs or jobs
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                sharing = last if len(waiting) <= last else jobs
                fold = waiting.pop(0)
                running[fold] = _start(run.folder, fold, encoder_weights, jobs, sharing)
            for fold, code in _ended(running).items():
                failed += [fold] if code else []
                if code < 0:
                    console.print(f"fold {fold}: {_KILLED.format(-code)}", highlight=False, markup=False)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    if failed:
        names = ", ".join(f"fold {fold}" for fold in sorted(failed))
        raise TrainingError(
            f"{run.folder}: {names} failed, see above. The same command trains only what is not finished."
        )


def is_finished(run: Run, fold: int) -> bool:
    """Whether a fold has its model and its out-of-fold probabilities."""
    return (run.fold_folder(fold) / OUT_OF_FOLD).exists()


def train_fold(
    run: Run,
    fold: int,
    encoder_weights: str | None = None,
    label: str = "fit",
    console: Console | None = None,
    teaching: Teaching | None = None,
) -> None:
    """Train the model of one fold in this process and predict its held-out tiles; see `train_model`."""
    from lim_keras.training.fit import train_model
    from lim_keras.training.held_out import predict_held_out

    train_model(
        run.config,
        run.training_tiles(fold),
        run.held_out_tiles(fold),
        run.fold_folder(fold),
        statistics=run.statistics,
        encoder_weights=encoder_weights,
        teaching=teaching,
        label=label,
        console=console,
    )
    predict_held_out(run, fold)


def _start(folder: Path, fold: int, encoder_weights: str | None, jobs: int, sharing: int) -> BaseProcess:
    context = multiprocessing.get_context("spawn")
    arguments = (str(folder), fold, encoder_weights, jobs, sharing)
    process = context.Process(target=_work, args=arguments, name=f"fold_{fold}")
    process.start()
    return process


def _work(folder: str, fold: int, encoder_weights: str | None, jobs: int, sharing: int) -> None:
    from lim_keras.cli.startup import load_tensorflow

    threading.Thread(target=_end_with_parent, daemon=True).start()
    load_tensorflow()
    if sharing > 1:
        _share_cores(sharing)
    # Bars of several processes would overwrite each other: then a line an epoch.
    console = Console(stderr=True, force_terminal=False if jobs > 1 else None)
    try:
        train_fold(Run.load(Path(folder)), fold, encoder_weights, f"fold {fold}", console)
    except LimKerasError as error:
        console.print(f"fold {fold}: {error}", highlight=False, markup=False)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(1) from None  # the command itself says that it was interrupted


def _end_with_parent() -> None:
    """Without this a fold would train on after its command was killed, and beside the same fold of the next call."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _share_cores(sharing: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // sharing))


def _ended(running: dict[int, BaseProcess]) -> dict[int, int]:
    """Wait until a process has ended; forget those that have and return their exit codes by fold."""
    while all(process.is_alive() for process in running.values()):
        time.sleep(0.2)
    ended = [fold for fold, process in running.items() if not process.is_alive()]
    return {fold: running.pop(fold).exitcode or 0 for fold in ended}
