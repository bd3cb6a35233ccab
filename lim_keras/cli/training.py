"""Commands that train: `fit`, `cv`, `distill` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras import api
from lim_keras.cli.options import (
    FOLDER,
    NEW_FOLDER,
    Command,
    run_options,
    validation_option,
    wait_option,
    workers_option,
)
from lim_keras.cli.output import show

if TYPE_CHECKING:
    from lim_keras.training.finalize import RunResult


@click.command(cls=Command)
@click.option("--out", type=NEW_FOLDER, default=Path("demo"), show_default=True, help="Folder of all results.")
@click.option("--jobs", type=click.IntRange(min=1), default=3, show_default=True, help="Folds trained at a time.")
@wait_option
def demo(out: Path, jobs: int, wait: bool) -> None:
    """Make a synthetic world, train five small models on its tiles, evaluate their ensemble on a second world, and map
    it.
    """
    result = api.run_demo(out, jobs=jobs, wait=wait, say=show)
    show([f"landslide F1 on held-out tiles {result.f1:.3f}; {result.seconds:.0f} s; everything is in {out}"])


@click.command(cls=Command)
@run_options
@validation_option
@wait_option
def fit(config: Path, tiles: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Train one model by CONFIG, choose its threshold on the validation tiles, score it on the test tiles, and export
    it.

    The same command continues an interrupted run after its last complete epoch.
    """
    api.fit(api.load_config(config, overrides), tiles, on_result=_print, **options)


@click.command(cls=Command)
@run_options
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Folds trained at a time.")
@workers_option
@wait_option
def cv(config: Path, tiles: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Train k models by CONFIG in stratified, grouped cross-validation; export them and their ensemble (FCN-FLK).

    Threshold and temperature come from out-of-fold predictions. The same command continues an interrupted run; finished
    folds are kept.
    """
    api.cross_validate(api.load_config(config, overrides), tiles, on_result=_print, **options)


@click.command(cls=Command)
@click.argument("teacher", metavar="BUNDLE", type=FOLDER)
@run_options
@validation_option
@wait_option
def distill(teacher: Path, config: Path, tiles: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Train one model by CONFIG on the masks and on the probabilities of the ensemble BUNDLE, and export it.

    For each tile, the student learns from the fold model that was not trained on it. The same command continues an
    interrupted run after its last complete epoch.
    """
    api.distill(teacher, api.load_config(config, overrides), tiles, on_result=_print, **options)


def _print(result: RunResult) -> None:
    from lim_keras.report.folds import split_tables
    from lim_keras.report.tables import run_tables

    split = split_tables(result.evaluation.name, result.split)
    pictures = [f"map of the folds: {path}" for path in (result.run / "folds.png",) if path.exists()]
    lines = [f"run: {result.run}", *pictures, f"bundle: {result.bundle}"]
    show([*split, *run_tables(result.evaluation), *lines])
