"""Train the folds of a run, and predict their held-out tiles."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from rich.console import Console
from scipy.special import expit

from lim_keras.data.store import TileStore
from lim_keras.errors import LimKerasError, TrainingError
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.evaluation.protocols import sheet_predictions, tile_predictions
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration
from lim_keras.metrics.image_blind import everywhere
from lim_keras.models import network_stride
from lim_keras.training.fit import MODEL, Predictor
from lim_keras.training.run import OUT_OF_FOLD, Run

if TYPE_CHECKING:
    from lim_keras.training.distillation import Distillation


_LEAST = 1e-6  # float32 has few steps between this and 1 - this; its logit is 14


def predict_out_of_fold(run: Run, fold: int) -> None:
    """Predict the held-out tiles of a fold with its model and keep the probabilities; does nothing where they are kept.

    A model of windows predicts its tiles among each other on sheets, at the data's own share of landslides; a model of
    whole resized tiles predicts whole resized tiles, as a scene has none of these to fit a threshold on.
    """
    folder = run.fold_folder(fold) / OUT_OF_FOLD
    if folder.exists():
        return
    partial = folder.with_name(f"{OUT_OF_FOLD}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    predict = Predictor(keras.saving.load_model(run.fold_folder(fold) / MODEL, compile=False))
    for prediction in out_of_fold_predictions(run, fold, predict):
        # Logits: as float16, probabilities near 1 would all become 1.
        inside = np.clip(prediction.probability, _LEAST, 1 - _LEAST)
        logit = np.log(inside / (1 - inside)).astype(np.float16)
        np.savez(partial / f"{prediction.place.name}.npz", logit=logit, mask=prediction.place.mask)
    partial.rename(folder)


def out_of_fold_predictions(run: Run, fold: int, predict: Predictor) -> Iterator[Prediction]:
    """Predictions of the held-out tiles of a fold, in the manner that its models were trained for."""
    config = run.config
    store = TileStore(run.held_out_tiles(fold), config.sampling.gsd_m, config.gsd_m, cache="recent")
    if config.sampling.mode == "resized":
        return tile_predictions(predict, store, size=config.sampling.size)
    return sheet_predictions(
        predict, store, seed=config.seed, multiple=max(64, network_stride(config.model.input_reduction))
    )


def read_out_of_fold(run: Run, fold: int, calibration: Calibration = UNCALIBRATED) -> Iterator[Prediction]:
    """The kept probabilities of a fold's held-out tiles, calibrated; the places carry no images."""
    for tile in run.held_out_tiles(fold):
        with np.load(run.fold_folder(fold) / OUT_OF_FOLD / f"{tile.tile_id}.npz") as kept:
            logit, labels = kept["logit"].astype(np.float32), kept["mask"]
        probability = expit(calibration.logit(logit).astype(np.float32))
        place = Sample(tile.tile_id, tile.kind, tile.group, labels[..., np.newaxis], labels)
        yield Prediction(place, probability, everywhere(labels.shape))


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
    teaching: Distillation | None = None,
) -> None:
    """Train the model of one fold in this process and predict its held-out tiles; see `train_model`."""
    from lim_keras.training.fit import train_model

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
    predict_out_of_fold(run, fold)


def _start(folder: Path, fold: int, encoder_weights: str | None, jobs: int, sharing: int) -> BaseProcess:
    context = multiprocessing.get_context("spawn")
    arguments = (str(folder), fold, encoder_weights, jobs, sharing)
    process = context.Process(target=_work, args=arguments, name=f"fold_{fold}")
    process.start()
    return process


def _work(folder: str, fold: int, encoder_weights: str | None, jobs: int, sharing: int) -> None:
    from lim_keras.tensorflow_import import load_tensorflow

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
