"""Commands `fit`, `cv` and `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lim_keras.cli.options import begin_at, run_options
from lim_keras.tensorflow_import import load_tensorflow, require_tensorflow

if TYPE_CHECKING:
    from lim_keras.config import RunConfig
    from lim_keras.data.tiles import TileSet
    from lim_keras.training.finalize import RunResult
    from lim_keras.training.run import Run


@click.command()
@run_options
@click.option(
    "--val",
    "validation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ids of the validation tiles [default: training.validation_fraction of the tiles, whole groups].",
)
def fit(
    config: Path,
    data: Path,
    test: Path | None,
    encoder_weights: str | None,
    start: Path | None,
    folder: Path | None,
    bundle: Path | None,
    overrides: tuple[str, ...],
    validation: Path | None,
) -> None:
    """Train one model with CONFIG, choose its threshold on the validation tiles, judge it on the test tiles, export it.

    Killed at any moment, the same command goes on where the last complete epoch ended.
    """
    require_tensorflow()  # before the tiles are read
    run = _begin_fit(config, overrides, data, folder, test, validation)
    load_tensorflow()
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.finalize import finalize

    begin_at(run, start)
    train_fold(run, 0, encoder_weights=encoder_weights)
    _print(finalize(run, bundle))


@click.command()
@run_options
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Folds trained at a time.")
def cv(
    config: Path,
    data: Path,
    test: Path | None,
    encoder_weights: str | None,
    start: Path | None,
    folder: Path | None,
    bundle: Path | None,
    overrides: tuple[str, ...],
    jobs: int,
) -> None:
    """Train k models with CONFIG by stratified, grouped cross-validation; export them and their ensemble (FCN-FLK).

    Threshold and temperature come from the out-of-fold predictions. Called again, finished folds are not trained again.
    """
    require_tensorflow()  # the folds are processes of their own: each would fail by itself
    from lim_keras.training.cross_validation import train_folds
    from lim_keras.training.run import begin_cross_validation

    settings, tiles, test_ids = _read(config, overrides, data, test)
    run = begin_cross_validation(settings, tiles, run=folder, test_ids=test_ids)
    begin_at(run, start)
    train_folds(run, jobs=jobs, encoder_weights=encoder_weights)
    load_tensorflow()

    from lim_keras.training.finalize import finalize

    _print(finalize(run, bundle))


@click.command()
@click.argument("teacher", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path))
@run_options
@click.option(
    "--val",
    "validation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ids of the validation tiles [default: training.validation_fraction of the tiles, whole groups].",
)
def distill(
    teacher: Path,
    config: Path,
    data: Path,
    test: Path | None,
    encoder_weights: str | None,
    start: Path | None,
    folder: Path | None,
    bundle: Path | None,
    overrides: tuple[str, ...],
    validation: Path | None,
) -> None:
    """Train one model with CONFIG on the masks and on what the ensemble BUNDLE says, and export it.

    Of each tile the student hears the fold that has not seen it. Killed at any moment, the same command goes on where
    the last complete epoch ended.
    """
    require_tensorflow()  # before the tiles are read
    run = _begin_fit(config, overrides, data, folder, test, validation)
    load_tensorflow()
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.distillation import prepare_distillation
    from lim_keras.training.finalize import finalize

    begin_at(run, start)
    distillation = prepare_distillation(run, teacher)
    train_fold(run, 0, encoder_weights=encoder_weights, distillation=distillation)
    _print(finalize(run, bundle))


def _read(
    config: Path, overrides: tuple[str, ...], data: Path, test: Path | None
) -> tuple[RunConfig, TileSet, list[str]]:
    from lim_keras.config import load_config
    from lim_keras.data.tiles import TileSet, read_tile_ids
    from lim_keras.report.progress import ProgressBar

    settings = load_config(config, overrides)
    return settings, TileSet.read(data, ProgressBar()), read_tile_ids(test) if test else []


def _begin_fit(
    config: Path,
    overrides: tuple[str, ...],
    data: Path,
    folder: Path | None,
    test: Path | None,
    validation: Path | None,
) -> Run:
    from lim_keras.data.tiles import read_tile_ids
    from lim_keras.training.run import begin_fit

    settings, tiles, test_ids = _read(config, overrides, data, test)
    validation_ids = read_tile_ids(validation) if validation else None
    return begin_fit(settings, tiles, run=folder, test_ids=test_ids, validation_ids=validation_ids)


def _print(result: RunResult) -> None:
    from lim_keras.report.tables import print_result, run_tables

    print_result([*run_tables(result.evaluation), f"run: {result.run}", f"bundle: {result.bundle}"])
