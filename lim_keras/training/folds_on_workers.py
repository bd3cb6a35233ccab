"""Training of the folds of a run on the machines of a cluster."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lim_keras.errors import DataError, TrainingError
from lim_keras.lock import folder_lock
from lim_keras.progress import ProgressCallback
from lim_keras.report.progress import ProgressBar
from lim_keras.tensorflow_import import load_tensorflow
from lim_keras.training.cross_validation import check_failed, is_finished, say_finished, train_fold
from lim_keras.training.history import NewEpochs, epoch_line
from lim_keras.training.run import STATISTICS, Run
from lim_keras.workers import open_workers

_LOCK_S = 120.0  # the system frees the lock of a killed process; a cluster notices a lost caller within half a minute


@dataclass(frozen=True)
class FoldJob:
    """Training of one fold, on any machine that sees the run folder and the tiles.

    Attributes:
        folder: absolute path of the run folder.
        encoder_weights: "imagenet", "none", or absolute path of a file.
    """

    folder: str
    fold: int
    encoder_weights: str

    def __str__(self) -> str:
        return f"fold {self.fold}"


def train_folds_on_workers(
    run: Run, workers: str, *, encoder_weights: str | None = None, progress: ProgressCallback | None = None
) -> None:
    """Train every unfinished fold as a job of a cluster, each in a process of its own, with a GPU where there is one.

    A fold whose process or machine died goes on after its last complete epoch.

    Args:
        run: the run; all machines must see its folder and its tiles.
        workers: as in `lim_keras.workers.open_workers`.
        encoder_weights: "imagenet", "none" or a file; None: the value in the configuration.
        progress: receives the number of finished folds. None: each fold prints one line per epoch to standard error.

    Raises:
        ClusterError: the cluster cannot be used, or a machine does not see the files.
        TrainingError: folds failed; the message names them. The other folds are finished and kept.
    """
    bar, folds = ProgressBar(terminal=False), run.held_out_folds
    waiting = [fold for fold in folds if not is_finished(run, fold)]
    say_finished(run, None if progress else bar)
    if not waiting:
        return
    folder, weights = str(run.folder.absolute()), _weights(run, encoder_weights)
    jobs, failed = [FoldJob(folder, fold, weights) for fold in waiting], []
    lines = _EpochLines(run, waiting, None if progress else bar)
    # The results of a deterministic run depend on the number of threads, so the number of folds decides it alone.
    share = len(folds) if run.config.training.deterministic else len(waiting)
    done = len(folds) - len(waiting)
    with open_workers(workers) as cluster:
        cluster.check_files("run", folders=[run.folder])
        cluster.check_files("tiles", files=_first_files(run))
        ended = cluster.run(train_on_machine, jobs, gpus=1, once=True, share=share, watch=lines.print)
        with progress.begin("folds", len(folds), done, unit="folds") if progress else nullcontext():
            for index, result in ended:
                lines.print()
                if isinstance(result, Exception):
                    bar.print(f"{jobs[index]}: {result}")
                    failed.append(str(jobs[index]))
                elif progress:
                    progress.advance()
    check_failed(run, failed)


def train_on_machine(job: FoldJob) -> None:
    """Train a fold in this process, and predict its held-out tiles.

    Raises:
        TrainingError: this machine does not see the run folder, or as in `lim_keras.training.fit.train_model`.
        DataError: another process trains the fold.
    """
    folder = Path(job.folder)
    if not (folder / STATISTICS).is_file():
        raise TrainingError(
            f"{folder}: {socket.gethostname()} does not see this run folder. Give a `run` on a shared file system."
        )
    load_tensorflow()
    with _alone(folder, f"fold_{job.fold}"):
        train_fold(Run.load(folder), job.fold, encoder_weights=job.encoder_weights, progress=_Quiet())


class _Quiet:
    """Receiver of progress that shows nothing; the caller reads the history."""

    @contextmanager
    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> Iterator[None]:
        yield

    def advance(self, count: int = 1, note: str = "") -> None:
        pass


@contextmanager
def _alone(folder: Path, entry: str) -> Iterator[None]:
    """Hold the lock of a fold. The job of a caller that was killed may work on it for some seconds more."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        lock = folder_lock(folder, entry=entry)
        try:
            lock.__enter__()
            break
        except DataError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


class _EpochLines:
    """Lines about the epochs of folds that other machines train; none without a bar."""

    def __init__(self, run: Run, folds: list[int], bar: ProgressBar | None) -> None:
        self._bar, self._epochs = bar, run.config.training.epochs
        self._new = {fold: NewEpochs(run.fold_folder(fold)) for fold in folds} if bar else {}
        for fold, new in self._new.items():
            if bar and new.begun:
                bar.print(f"fold {fold}: continuing after epoch {new.begun} of {self._epochs}")

    def print(self) -> None:
        """Print the epochs that ended since the last call."""
        for fold, new in self._new.items():
            for figures in new.read():
                if self._bar:
                    self._bar.print(epoch_line(f"fold {fold}", int(figures["epoch"]), self._epochs, figures))


def _weights(run: Run, encoder_weights: str | None) -> str:
    """Return the encoder weights; a file by its absolute path, because jobs run in another folder."""
    weights = run.config.model.encoder_weights if encoder_weights is None else encoder_weights
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def _first_files(run: Run) -> list[Path]:
    """Return the files of the first and the last tile."""
    tiles = list(run.tiles)
    found = [path for tile in (tiles[0], tiles[-1]) for path in (tile.image, tile.mask)]
    return [path for path in found if path is not None and path.is_file()]
