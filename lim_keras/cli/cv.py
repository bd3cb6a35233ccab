"""`lim-keras cv`: train the folds of a cross-validation and their ensemble."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras.cli.runs import begin_at, print_result, run_options
from lim_keras.cli.startup import load_tensorflow, require_tensorflow


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
    from lim_keras.training.commands import begin_cross_validation
    from lim_keras.training.cross_validation import train_folds

    run = begin_cross_validation(config, data, folder=folder, overrides=overrides, test=test)
    begin_at(run, start)
    train_folds(run, jobs=jobs, encoder_weights=encoder_weights)
    load_tensorflow()

    from lim_keras.training.conclude import conclude

    print_result(conclude(run, bundle))
