"""`lim-keras distill`: train one small model on what an ensemble says."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras.cli.runs import begin_at, print_result, run_options
from lim_keras.cli.startup import load_tensorflow, require_tensorflow


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
    from lim_keras.training.commands import begin_fit

    run = begin_fit(config, data, folder=folder, overrides=overrides, test=test, validation=validation)
    load_tensorflow()
    from lim_keras.training.conclude import conclude
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.teaching import prepare_teaching

    begin_at(run, start)
    teaching = prepare_teaching(run, teacher)
    train_fold(run, 0, encoder_weights, "student", teaching=teaching)
    print_result(conclude(run, bundle))
