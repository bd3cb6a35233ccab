"""Commands `fit`, `cv` and `distill`."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras.cli.options import begin_at, run_options
from lim_keras.tensorflow_import import load_tensorflow, require_tensorflow


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
    from lim_keras.training.run import begin_fit

    run = begin_fit(config, data, folder=folder, overrides=overrides, test=test, validation=validation)
    load_tensorflow()
    from lim_keras.report.tables import print_result
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.finalize import finalize

    begin_at(run, start)
    train_fold(run, 0, encoder_weights)
    print_result(finalize(run, bundle))


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

    run = begin_cross_validation(config, data, folder=folder, overrides=overrides, test=test)
    begin_at(run, start)
    train_folds(run, jobs=jobs, encoder_weights=encoder_weights)
    load_tensorflow()

    from lim_keras.report.tables import print_result
    from lim_keras.training.finalize import finalize

    print_result(finalize(run, bundle))


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
    from lim_keras.training.run import begin_fit

    run = begin_fit(config, data, folder=folder, overrides=overrides, test=test, validation=validation)
    load_tensorflow()
    from lim_keras.report.tables import print_result
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.distillation import prepare_distillation
    from lim_keras.training.finalize import finalize

    begin_at(run, start)
    teaching = prepare_distillation(run, teacher)
    train_fold(run, 0, encoder_weights, "student", teaching=teaching)
    print_result(finalize(run, bundle))
