"""Finalize a run: threshold, calibration, test scores, bundle and curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from lim_keras.bundle.info import BandStatistics, ModelFacts
from lim_keras.data.centre_bias import mean_mask
from lim_keras.data.tile import read_tile
from lim_keras.data.tiles import TileSet
from lim_keras.evaluation.evaluation import Evaluation, evaluate, pool_evaluations
from lim_keras.evaluation.evaluator import Evaluator, ProtocolResult
from lim_keras.export.bundle import write_bundle
from lim_keras.files import write_text
from lim_keras.metrics.calibration import Calibration, best_threshold, fit_calibration, pool_histograms
from lim_keras.metrics.image_blind import ImageBlindMask
from lim_keras.models import network_stride
from lim_keras.report.figures import training_curves
from lim_keras.report.tables import run_tables
from lim_keras.training.cross_validation import read_out_of_fold
from lim_keras.training.fit import MODEL, Predictor
from lim_keras.training.run import TEST, Run
from lim_keras.training.warm_start import WarmStart

EXPORTS = Path("exported_models")

_BLIND_SIZE = 256


@dataclass(frozen=True)
class RunResult:
    """What a run has come to.

    threshold, calibration: fitted on the pooled out-of-fold predictions. out_of_fold: a fold's own predictions of its
    held-out tiles, by fold. test: of the ensemble (or the only model), by protocol. test_folds: of each fold alone.
    """

    threshold: float
    calibration: Calibration
    out_of_fold: dict[int, Evaluation]
    test: dict[str, Evaluation]
    test_folds: dict[int, dict[str, Evaluation]]

    @property
    def pooled(self) -> Evaluation:
        """Every tile once, predicted by the model that has not seen it."""
        return pool_evaluations(self.out_of_fold.values())


def finalize(run: Run, bundle: Path | None = None) -> list[Any]:
    """Fit threshold and calibration, judge on the test tiles, export, draw; returns tables and lines to print.

    Args:
        run: all of its folds are finished.
        bundle: where to export to; None is exported_models/<name>.
    """
    models = [keras.saving.load_model(run.fold_folder(fold) / MODEL, compile=False) for fold in run.held_out_folds]
    blind = blind_mask(run)
    outcome = evaluate_run(run, models, blind)
    path = bundle or EXPORTS / run.config.name
    write_bundle(path, _facts(run, outcome, path.name), models, blind, half=run.config.export.half_size)
    summary = "cv.json" if len(models) > 1 else "fit.json"
    write_text(run.folder / summary, json.dumps(_summary(run, outcome), indent=2))
    training_curves({f"fold {fold}": read_history(run, fold) for fold in run.held_out_folds}, run.folder / "curves.png")
    return [*_tables(run, outcome), f"run: {run.folder}", f"bundle: {path}"]


def evaluate_run(run: Run, models: Sequence[keras.Model], blind: ImageBlindMask | None) -> RunResult:
    """Threshold and calibration from out-of-fold predictions only, then the test tiles at that threshold.

    Held-out tiles of a single fit are few, and may hold twice the landslides that the data do: what they say is weighed
    to the share of all tiles but the test tiles. Out-of-fold predictions of a cross-validation have that share.
    """
    draws = run.config.evaluation.bootstrap
    raw = [evaluate(read_out_of_fold(run, fold), "windows", 0.5, draws=1) for fold in run.held_out_folds]
    histogram = pool_histograms(part.histogram for part in raw).at_share(run.landslide_share)
    calibration = fit_calibration(histogram)
    threshold, _ = best_threshold(histogram, calibration)
    out_of_fold = {
        fold: evaluate(read_out_of_fold(run, fold, calibration), "windows", threshold, draws=draws)
        for fold in run.held_out_folds
    }
    tiles = run.test_tiles
    if tiles is None:
        return RunResult(threshold, calibration, out_of_fold, {}, {})
    judged = _judge(run, threshold, blind, [Predictor(model, calibration) for model in models], tiles)
    test = {protocol: one.evaluation for protocol, one in judged.items()}
    folds = {
        fold: {protocol: one.folds[number] for protocol, one in judged.items()}
        for number, fold in enumerate(run.held_out_folds if len(models) > 1 else ())
    }
    return RunResult(threshold, calibration, out_of_fold, test, folds)


def _judge(
    run: Run, threshold: float, blind: ImageBlindMask | None, predictors: Sequence[Predictor], tiles: TileSet
) -> dict[str, ProtocolResult]:
    config = run.config
    judge = Evaluator(
        predictors,
        threshold,
        config.sampling.mode,
        config.sampling.size,
        run.gsd_m,
        blind,
        config.evaluation,
        config.seed,
    )
    return {"tiles": judge.tiles(tiles), "windows": judge.windows(tiles)}


def blind_mask(run: Run) -> ImageBlindMask | None:
    """The image-blind mask of the run's landslide tiles, test tiles apart; None where there is no landslide tile."""
    landslides = run.seen_tiles.of_kind("landslide")
    if not len(landslides):
        return None
    masks = [read_tile(tile)[1] for tile in landslides]
    sampling = run.config.sampling
    size = sampling.size if sampling.mode == "resized" else None
    return ImageBlindMask.fit(mean_mask(masks, _BLIND_SIZE), masks, size)


def read_history(run: Run, fold: int) -> dict[str, list[float]]:
    """The columns of a fold's history.csv."""
    with (run.fold_folder(fold) / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _facts(run: Run, outcome: RunResult, name: str) -> ModelFacts:
    config, statistics, start = run.config, run.statistics, WarmStart.of(run)
    figures = {"out_of_fold": outcome.pooled.figures().model}
    figures |= {f"test_{protocol}": evaluation.figures().model for protocol, evaluation in outcome.test.items()}
    columns = zip(statistics.mean, statistics.std, statistics.minimum, statistics.maximum, strict=True)
    return ModelFacts(
        name=name,
        model=config.model.model_dump(),
        sampling=config.sampling.model_dump(),
        bands=run.tiles.bands,
        dtype=statistics.dtype,
        gsd_m=run.gsd_m,
        stride=network_stride(config.model.input_reduction),
        statistics=tuple(BandStatistics(mean=m, std=s, min=low, max=high) for m, s, low, high in columns),
        threshold=outcome.threshold,
        temperature=outcome.calibration.temperature,
        bias=outcome.calibration.bias,
        metrics=figures,
        config_hash=config.digest(),
        training_tiles=_training_ids(run, start),
        started_from="" if start is None else str(start),
        test_tiles=tuple(name for name in run.tiles.ids if run.folds.get(name) == TEST),
        held_out={name: fold for name in run.tiles.ids if (fold := run.folds.get(name, TEST)) != TEST},
        data_terms=config.data_terms,
        data_link=config.data_link,
    )


def _training_ids(run: Run, start: WarmStart | None) -> tuple[str, ...]:
    """Tiles that some model of the run was fitted to, or the model that it started at."""
    seen = {name for fold in run.held_out_folds for name in run.training_tiles(fold).ids}
    ours = tuple(name for name in run.tiles.ids if name in seen)
    return ours if start is None else (*ours, *sorted(set(start.training_tiles) - set(ours)))


def _summary(run: Run, outcome: RunResult) -> dict[str, Any]:
    return {
        "name": run.config.name,
        "config_hash": run.config.digest(),
        "threshold": outcome.threshold,
        "temperature": outcome.calibration.temperature,
        "bias": outcome.calibration.bias,
        "out_of_fold": {str(fold): part.to_dict() for fold, part in outcome.out_of_fold.items()},
        "pooled_out_of_fold": outcome.pooled.to_dict(),
        "test": {protocol: part.to_dict() for protocol, part in outcome.test.items()},
        "test_folds": {
            str(fold): {protocol: part.to_dict() for protocol, part in parts.items()}
            for fold, parts in outcome.test_folds.items()
        },
    }


def _tables(run: Run, outcome: RunResult) -> list[Any]:
    tables = run_tables(run.config.name, outcome.out_of_fold, outcome.test, outcome.test_folds)
    temperature, bias = outcome.calibration.temperature, outcome.calibration.bias
    chosen = f"threshold {outcome.threshold:.3f}, temperature {temperature:.3f}, bias {bias:.3f}"
    tiles = "out-of-fold" if len(outcome.out_of_fold) > 1 else "validation"
    return [*tables, f"{chosen} (from {tiles} tiles)"]
