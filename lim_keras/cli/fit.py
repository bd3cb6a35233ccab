"""`lim-keras fit`: train one model."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras.cli.runs import begin_at, print_result, run_options
from lim_keras.cli.startup import load_tensorflow, require_tensorflow


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
    from lim_keras.training.commands import begin_fit

    run = begin_fit(config, data, folder=folder, overrides=overrides, test=test, validation=validation)
    load_tensorflow()
    from lim_keras.training.conclude import conclude
    from lim_keras.training.cross_validation import train_fold

    begin_at(run, start)
    train_fold(run, 0, encoder_weights)
    print_result(conclude(run, bundle))
