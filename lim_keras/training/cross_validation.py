"""Training of the folds of a run, each in its own process, and their out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lim_keras.data.sampling import pack
from lim_keras.data.tiles import IGNORED, TileStore
from lim_keras.errors import ConfigError, LimKerasError, TrainingError
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.evaluation.evaluator import SIDE, sheet_predictions, tile_predictions
from lim_keras.evaluation.object_rule import LabelledMap, tile_numbers
from lim_keras.files import DAMAGED_ARRAYS, atomic_folder
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration, everywhere
from lim_keras.progress import ProgressCallback
from lim_keras.report.progress import ProgressBar
from lim_keras.tensorflow_import import load_tensorflow
from lim_keras.training.processes import KILLED, end_with_parent, in_processes, spawn, threads_each
from lim_keras.training.run import Run

if TYPE_CHECKING:
    from lim_keras.training.distillation import Distillation

OUT_OF_FOLD = "out_of_fold"
"""In a fold's folder: `<tile>.npz` with `logit` (height, width) float16 and `mask` of each held-out tile."""

_SMALLEST = 1e-6  # probabilities are clipped to this and 1 - this, logits -14 and 14


def predict_out_of_fold(run: Run, fold: int) -> None:
    """Predict the held-out tiles of a fold with its model and store the logits; stored logits are kept.

    A model trained on windows predicts tiles laid out on sheets (`sheet_predictions`), which keep the landslide share
    of the data. A model trained on resized tiles predicts resized tiles.
    """
    from lim_keras.export.disk_errors import disk_errors
    from lim_keras.models import network_stride
    from lim_keras.training.fit import MODEL, Predictor
    from lim_keras.training.stored_models import read_model

    folder = run.fold_folder(fold) / OUT_OF_FOLD
    if folder.exists():
        return
    predict = Predictor(read_model(run.fold_folder(fold) / MODEL))
    sampling, seed = run.config.sampling, run.config.seed
    store = TileStore(run.held_out_tiles(fold), sampling.gsd_m, run.config.gsd_m, cache="recent")
    if sampling.mode == "resized":
        predictions = tile_predictions(predict, store, size=sampling.size)
    else:
        multiple = max(64, network_stride(run.config.model.input_reduction))
        predictions = sheet_predictions(predict, store, seed=seed, multiple=multiple)
    with disk_errors(folder), atomic_folder(folder) as draft:
        for prediction in predictions:
            # Store logits, because float16 would round probabilities near 1 to 1.
            inside = np.clip(prediction.probability, _SMALLEST, 1 - _SMALLEST)
            logit = np.log(inside / (1 - inside)).astype(np.float16)
            np.savez(draft / f"{prediction.sample.name}.npz", logit=logit, mask=prediction.sample.mask)
        for tile in run.held_out_tiles(fold):
            _read_prediction(draft / f"{tile.tile_id}.npz")


def read_out_of_fold(run: Run, fold: int, calibration: Calibration = UNCALIBRATED) -> Iterator[Prediction]:
    """Read the stored predictions of a fold's held-out tiles, calibrated; the samples have no images."""
    for tile in run.held_out_tiles(fold):
        stored, labels = _read_prediction(run.fold_folder(fold) / OUT_OF_FOLD / f"{tile.tile_id}.npz")
        probability = expit(calibration.logit(stored.astype(np.float32)).astype(np.float32))
        sample = Sample(tile.tile_id, tile.kind, tile.group, labels[..., np.newaxis], labels)
        yield Prediction(sample, probability, everywhere(labels.shape))


def stored_maps(run: Run, calibration: Calibration) -> Iterator[LabelledMap]:
    """Lay the stored predictions of all held-out tiles, calibrated, on sheets; those of a fold are together.

    The sheets are those on which the tiles were predicted. Pixels between tiles have no prediction and no label.
    """
    for fold in run.held_out_folds:
        tiles = list(run.held_out_tiles(fold))
        paths = [run.fold_folder(fold) / OUT_OF_FOLD / f"{tile.tile_id}.npz" for tile in tiles]
        shapes = [_read_prediction(path)[1].shape for path in paths]
        for sheet in pack([(height, width) for height, width in shapes], SIDE, run.config.seed):
            probability = np.zeros((sheet.height, sheet.width), np.float32)
            mask = np.full(probability.shape, IGNORED, np.uint8)
            for position, box in sheet.boxes.items():
                stored, mask[box.slices] = _read_prediction(paths[position])
                probability[box.slices] = expit(calibration.logit(stored.astype(np.float32)).astype(np.float32))
            groups = [tiles[position].group for position in sheet.boxes]
            yield LabelledMap(probability, mask, tile_numbers(sheet), groups)


def _read_prediction(path: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return stored["logit"], stored["mask"]
    except DAMAGED_ARRAYS as error:
        raise TrainingError(
            f"{path}: the stored prediction cannot be read ({error}). Remove the folder {path.parent}: the same "
            "command predicts its tiles again."
        ) from error


def train_folds(
    run: Run, *, jobs: int = 1, encoder_weights: str | None = None, progress: ProgressCallback | None = None
) -> None:
    """Train every unfinished fold, `jobs` of them at a time.

    Each fold has its own process, because TensorFlow does not release memory. The processes are spawned, so a calling
    script needs `if __name__ == "__main__":`. Folds share the cores evenly. If fewer than `jobs` folds remain at the
    end, each gets more cores, except in deterministic runs, whose results depend on the number of threads.

    Args:
        run: the run.
        jobs: number of folds trained in parallel.
        encoder_weights: "imagenet", "none" or a file; None: the value in the configuration.
        progress: receives the number of finished folds. If it is None and `jobs` is 1, each fold shows a bar on a
            terminal; otherwise each fold prints one line per epoch to standard error.

    Raises:
        ConfigError: `jobs` is below 1.
        TrainingError: folds failed; the message names them. The other folds are finished and kept.
    """
    if jobs < 1:
        raise ConfigError(f"Invalid value for argument `jobs`. Expected a whole number >= 1. Received: {jobs}")
    bar = ProgressBar()
    waiting = [fold for fold in run.held_out_folds if not is_finished(run, fold)]
    done = say_finished(run, bar if progress is None else None)
    ended = _train_in_processes(run, waiting, jobs, encoder_weights, bars=jobs == 1 and progress is None)
    failed = []
    total = len(run.held_out_folds)
    with closing(ended), progress.begin("folds", total, len(done), unit="folds") if progress else nullcontext():
        for fold, exit_code in ended:
            if exit_code < 0:
                bar.print(f"fold {fold}: {KILLED.format(-exit_code)}")
            if exit_code:
                failed.append(f"fold {fold}")
            elif progress:
                progress.advance()
    check_failed(run, failed)


def check_failed(run: Run, failed: Iterable[str]) -> None:
    """Raise TrainingError if folds failed; `failed`: their names."""
    if names := sorted(failed):
        raise TrainingError(
            f"{run.folder}: {', '.join(names)} failed, see above. The same command trains only what is not finished."
        )


def say_finished(run: Run, bar: ProgressBar | None) -> list[int]:
    """Return the finished folds, and print a line about them."""
    done = [fold for fold in run.held_out_folds if is_finished(run, fold)]
    if done and bar is not None:
        bar.print(f"finished before: {', '.join(f'fold {fold}' for fold in done)}")
    return done


def is_finished(run: Run, fold: int) -> bool:
    """Tell whether a fold has its model and its out-of-fold predictions."""
    return (run.fold_folder(fold) / OUT_OF_FOLD).exists()


def train_fold(
    run: Run,
    fold: int,
    *,
    encoder_weights: str | None = None,
    distillation: Distillation | None = None,
    progress: ProgressCallback | None = None,
) -> None:
    """Train the model of one fold in this process and predict its held-out tiles; arguments as in `train_model`."""
    from lim_keras.training.fit import train_model

    train_model(run, fold, encoder_weights=encoder_weights, distillation=distillation, progress=progress)
    predict_out_of_fold(run, fold)


def _train_in_processes(
    run: Run, waiting: list[int], jobs: int, encoder_weights: str | None, *, bars: bool
) -> Generator[tuple[int, int]]:
    """Yield (fold, exit code) of each process as it ends; closing the generator stops the running processes."""
    last = len(waiting) % jobs or jobs

    def start(fold: int) -> BaseProcess:
        together = last if len(waiting) < last else jobs
        if run.config.training.deterministic:
            together = min(jobs, len(run.held_out_folds))
        return _start(run, fold, encoder_weights, threads_each(together), bars)

    return in_processes(waiting, jobs, start)


def _start(run: Run, fold: int, encoder_weights: str | None, threads: int, bars: bool) -> BaseProcess:
    return spawn(f"fold_{fold}", _work, run.folder, fold, encoder_weights, threads, bars)


def _work(folder: Path, fold: int, encoder_weights: str | None, threads: int, bars: bool) -> None:
    end_with_parent()
    load_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    progress = ProgressBar(terminal=None if bars else False, transient=False)
    try:
        train_fold(Run.load(folder), fold, encoder_weights=encoder_weights, progress=progress)
    except LimKerasError as error:
        progress.print(f"fold {fold}: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(1) from None  # the parent process reports the interruption
