"""Final step of a run: threshold, calibration, test scores, bundle and curves."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from lim_keras import __version__
from lim_keras.bundle.info import BandStatistics, FamiliarityFacts, ModelFacts
from lim_keras.bundle.object_rule import FittedRule
from lim_keras.data.centre_bias import mean_mask
from lim_keras.data.split_facts import SplitFacts
from lim_keras.data.tiles import read_tile
from lim_keras.errors import BundleError, LimKerasWarning
from lim_keras.evaluation.evaluation import RunEvaluation, evaluate
from lim_keras.evaluation.evaluator import Evaluator
from lim_keras.evaluation.object_rule import fit_object_rule
from lim_keras.export.bundle import is_exported, software_versions, write_bundle
from lim_keras.export.familiarity import familiarity_of
from lim_keras.files import write_text
from lim_keras.metrics.calibration import Calibration, ImageBlindMask, best_threshold, fit_calibration, pool_histograms
from lim_keras.models import network_stride
from lim_keras.report.figures import training_curves
from lim_keras.seals import sealed_json
from lim_keras.training.cross_validation import read_out_of_fold, stored_maps
from lim_keras.training.fit import MODEL, Predictor
from lim_keras.training.negatives import check_negatives, negative_ids
from lim_keras.training.run import CURVES, EXPORTS, SUMMARIES, TEST, Run
from lim_keras.training.stored_models import read_model
from lim_keras.training.warm_start import WarmStart

_BLIND_SIZE = 256

LEAKED = "_flattered_by_leak"
"""Ending of the names of test scores in model.json where test tiles share ground with training tiles."""


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        run: run folder.
        bundle: exported bundle.
        evaluation: scores, threshold and calibration.
        split: facts of spatial folds, and leaks that were allowed.
    """

    run: Path
    bundle: Path
    evaluation: RunEvaluation
    split: SplitFacts


def finalize(
    run: Run,
    bundle: str | os.PathLike[str] | None = None,
    *,
    score_test_tiles: bool = True,
    measure: bool = True,
) -> RunResult:
    """Fit threshold and calibration, evaluate on the test tiles, export the bundle and draw the training curves.

    Args:
        run: a run with all folds finished.
        bundle: folder of the bundle; None: exported_models/<name>.
        score_test_tiles: score the test tiles, if the run has any.
        measure: measure halos below the full one, and fit the familiarity (`lim_keras.export.familiarity`). For a large
            network, this takes minutes on a CPU.

    Raises:
        DataError: the held-out tiles hold no landslide or no background pixel.
        TrainingError: tiles changed since the run began.
    """
    models = [read_model(run.fold_folder(fold) / MODEL) for fold in run.held_out_folds]
    blind = blind_mask(run)
    evaluation = evaluate_run(run, models, blind, score_test_tiles=score_test_tiles)
    run.check_tiles()
    check_negatives(run.folder)
    path = EXPORTS / run.config.name if bundle is None else Path(bundle)
    facts = _facts(run, evaluation, path.name)
    if not is_exported(path, facts):  # a second call keeps the bundle, with the LiteRT files that were added to it
        tiles = run.seen_tiles if measure else None
        familiarity = _familiarity(run, models[0], path) if measure else None
        half = run.config.export.half_size
        write_bundle(path, facts, models, blind, half, tiles=tiles, familiarity=familiarity)
    summary = SUMMARIES[len(models) == 1]
    write_text(run.folder / summary, sealed_json(_summary(run, evaluation)))
    training_curves({f"fold {fold}": read_history(run, fold) for fold in run.held_out_folds}, run.folder / CURVES)
    return RunResult(run.folder, path, evaluation, run.split)


def _familiarity(run: Run, network: keras.Model, bundle: Path) -> tuple[bytes, FamiliarityFacts] | None:
    """Fit the familiarity of the first network; warn where that fails, because the bundle predicts without it."""
    first = run.held_out_folds[0]
    try:
        return familiarity_of(network, run.training_tiles(first), run.held_out_tiles(first), run.gsd_m)
    except BundleError as error:
        warnings.warn(f"{bundle}: has no familiarity. {error}", LimKerasWarning, stacklevel=3)
        return None


def evaluate_run(
    run: Run, models: Sequence[keras.Model], blind: ImageBlindMask | None, *, score_test_tiles: bool = True
) -> RunEvaluation:
    """Fit threshold, calibration and object rule on out-of-fold predictions, then score the test tiles.

    The histogram is reweighted to the share of landslide pixels in all tiles except the test tiles, because the few
    held-out tiles of a single fit may have another share.
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
    rule = fit_rule(run, threshold, calibration)
    evaluation = RunEvaluation(run.config.name, threshold, calibration, out_of_fold, object_rule=rule)
    if run.test_tiles is None or not score_test_tiles:
        return evaluation
    config, predictors = run.config, [Predictor(model, calibration) for model in models]
    sampling = config.sampling.mode, config.sampling.size, run.gsd_m
    evaluator = Evaluator(predictors, threshold, *sampling, blind, config.evaluation, config.seed)
    results = {"tiles": evaluator.tiles(run.test_tiles), "windows": evaluator.windows(run.test_tiles)}
    test = {protocol: result.evaluation for protocol, result in results.items()}
    folds = {
        fold: {protocol: result.folds[number] for protocol, result in results.items()}
        for number, fold in enumerate(run.held_out_folds if len(models) > 1 else ())
    }
    return replace(evaluation, test=test, test_folds=folds)


def fit_rule(run: Run, threshold: float, calibration: Calibration) -> FittedRule | None:
    """Fit the object rule to the out-of-fold predictions on sheets; None for models of resized tiles.

    On a resized tile, regions have another size than in a scene.
    """
    if run.config.sampling.mode == "resized":
        return None
    return fit_object_rule(
        stored_maps(run, calibration),
        threshold=threshold,
        gsd_m=run.gsd_m,
        source="out_of_fold" if len(run.held_out_folds) > 1 else "held_out",
        draws=run.config.evaluation.bootstrap,
        seed=run.config.seed,
    )


def blind_mask(run: Run) -> ImageBlindMask | None:
    """Fit the image-blind mask to all landslide tiles except the test tiles; None if there are no such tiles."""
    landslides = run.seen_tiles.of_kind("landslide")
    if not len(landslides):
        return None
    masks = [read_tile(tile)[1] for tile in landslides]
    sampling = run.config.sampling
    size = sampling.size if sampling.mode == "resized" else None
    return ImageBlindMask.fit(mean_mask(masks, _BLIND_SIZE), masks, size)


def read_history(run: Run, fold: int) -> dict[str, list[float]]:
    """Read the columns of a fold's history.csv."""
    with (run.fold_folder(fold) / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _facts(run: Run, evaluation: RunEvaluation, name: str) -> ModelFacts:
    config, statistics, start = run.config, run.statistics, WarmStart.of(run)
    figures = {"out_of_fold": evaluation.pooled.scores().model}
    mark = LEAKED if run.split.leaks else ""
    figures |= {f"test_{protocol}{mark}": test.scores().model for protocol, test in evaluation.test.items()}
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
        threshold=evaluation.threshold,
        temperature=evaluation.calibration.temperature,
        bias=evaluation.calibration.bias,
        metrics=figures,
        config_hash=config.digest(),
        training_tiles=_training_ids(run, start),
        started_from="" if start is None else str(start),
        test_tiles=tuple(name for name in run.tiles.ids if run.folds.get(name) == TEST),
        held_out={name: fold for name in run.tiles.ids if (fold := run.folds.get(name, TEST)) != TEST},
        data_terms=config.data_terms,
        data_link=config.data_link,
        object_rule=evaluation.object_rule,
    )


def _training_ids(run: Run, start: WarmStart | None) -> tuple[str, ...]:
    """Return the ids of the training tiles of every model of the run and of its warm start, negative tiles included."""
    seen = {name for fold in run.held_out_folds for name in run.training_tiles(fold).ids}
    ours = (*(name for name in run.tiles.ids if name in seen), *negative_ids(run.folder))
    return ours if start is None else (*ours, *sorted(set(start.training_tiles) - set(ours)))


def _summary(run: Run, evaluation: RunEvaluation) -> dict[str, Any]:
    return {
        "name": run.config.name,
        "config_hash": run.config.digest(),
        "threshold": evaluation.threshold,
        "temperature": evaluation.calibration.temperature,
        "bias": evaluation.calibration.bias,
        **({} if (rule := evaluation.object_rule) is None else {"object_rule": json.loads(rule.model_dump_json())}),
        "out_of_fold": {str(fold): part.to_dict() for fold, part in evaluation.out_of_fold.items()},
        "pooled_out_of_fold": evaluation.pooled.to_dict(),
        "test": {protocol: part.to_dict() for protocol, part in evaluation.test.items()},
        "test_folds": {
            str(fold): {protocol: part.to_dict() for protocol, part in parts.items()}
            for fold, parts in evaluation.test_folds.items()
        },
        **({"split": split} if (split := run.split.to_dict()) else {}),
        "versions": {"lim_keras": __version__, **software_versions()},
    }
