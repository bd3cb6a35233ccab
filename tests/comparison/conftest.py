"""Run folders as training writes them, with predictions that are made by hand instead of trained."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lim_keras.config import RunConfig
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import TileSet, read_tile
from lim_keras.evaluation.evaluation import Evaluation, Prediction, RunEvaluation, Sample, evaluate
from lim_keras.metrics.calibration import Calibration, everywhere
from lim_keras.seals import sealed_json
from lim_keras.training.begin import begin_cross_validation, begin_fit
from lim_keras.training.run import Run

LOGIT = 3.0


def predictions(tiles: TileSet, missed: int) -> list[Prediction]:
    """Find every landslide pixel but the first `missed` of each tile, with one certainty."""
    found = []
    for tile in tiles:
        image, mask = read_tile(tile)
        logit = np.where(mask == 1, LOGIT, -LOGIT)
        logit.ravel()[np.flatnonzero(mask == 1)[:missed]] = -LOGIT
        sample = Sample(tile.tile_id, tile.kind, tile.group, image, mask)
        found.append(Prediction(sample, 1 / (1 + np.exp(-logit)), everywhere(mask.shape)))
    return found


def summary(run: Run, missed: int) -> dict:
    """Score the run as its last step does, which needs TensorFlow."""

    def scored(tiles: TileSet, protocol: str) -> Evaluation:
        return evaluate(predictions(tiles, missed), protocol, 0.5, draws=30)

    folds = {fold: scored(run.held_out_tiles(fold), "windows") for fold in run.held_out_folds}
    test = {} if run.test_tiles is None else {"tiles": scored(run.test_tiles, "tiles")}
    test_folds = dict.fromkeys(run.held_out_folds, test) if len(folds) > 1 and test else {}
    result = RunEvaluation(run.config.name, 0.5, Calibration(), folds, test, test_folds)
    return {
        "name": run.config.name,
        "threshold": 0.5,
        "temperature": 1.0,
        "bias": 0.0,
        "out_of_fold": {str(fold): one.to_dict() for fold, one in folds.items()},
        "pooled_out_of_fold": result.pooled.to_dict(),
        "test": {name: one.to_dict() for name, one in test.items()},
        "test_folds": {str(k): {name: one.to_dict() for name, one in parts.items()} for k, parts in test_folds.items()},
        "versions": {"lim_keras": "0.2.0", "keras": "3.15.1"},
    }


def train(run: Run, fold: int, missed: int, epochs: int) -> None:
    """Write what the training of a fold writes, besides its weights."""
    folder = run.fold_folder(fold)
    (folder / "out_of_fold").mkdir(parents=True)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("epoch", "loss", "f1", "val_loss", "val_f1", "seconds"))
        writer.writerows((k + 1, 1 / (k + 1), 0.5, 1.1 / (k + 1), 0.4 + 0.1 * k, 30.0) for k in range(epochs))
    for one in predictions(run.held_out_tiles(fold), missed):
        logit = np.log(one.probability / (1 - one.probability)).astype(np.float16)
        np.savez(folder / "out_of_fold" / f"{one.sample.name}.npz", logit=logit, mask=one.sample.mask)


@pytest.fixture
def tiles(tmp_path: Path, bijie_folder: Callable[..., Path]) -> Path:
    return bijie_folder(tmp_path / "data", 6, 6)


@pytest.fixture
def make_run(tmp_path: Path, tiles: Path) -> Callable[..., Path]:
    """make_run("a", missed=5): folder of a finished cross-validation of two folds, with two test tiles."""

    def make(
        name: str, *, missed: int = 0, folds: int = 2, data: Path | None = None, finished: bool = True, **settings
    ) -> Path:
        config = RunConfig(name=settings.pop("config_name", name), folds=max(folds, 2), **settings)
        known = read_tiles(data or tiles)
        begin = begin_fit if folds == 1 else begin_cross_validation
        run = begin(config, known, run=tmp_path / "runs" / name, test_ids=["ls_5", "nls_5"])
        for fold in run.held_out_folds if finished else run.held_out_folds[:1]:
            train(run, fold, missed, 3)
        if finished:
            path = run.folder / ("fit.json" if folds == 1 else "cv.json")
            path.write_text(sealed_json(summary(run, missed)))
        return run.folder

    return make
