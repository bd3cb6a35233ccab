"""Commands on tiles: `data`, `fit`, `cv`, `distill` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras import api
from lim_keras.cli.options import (
    FOLDER,
    NEW_FILE,
    NEW_FOLDER,
    TILES,
    Command,
    run_options,
    validation_option,
    wait_option,
)
from lim_keras.cli.output import show

if TYPE_CHECKING:
    from lim_keras.training.finalize import RunResult


@click.group()
def data() -> None:
    """Report on tiles: counts, imbalance ratios, centre bias, overlaps."""


@data.command(cls=Command, short_help="Count tiles and pixels; measure imbalance and centre bias.")
@click.argument("tiles", metavar="DATA", type=TILES)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Height and width of the resized masks that are counted, pixels.",
)
@click.option(
    "--augmentation",
    type=click.Choice(["paper", "dihedral", "none"]),
    default="paper",
    show_default=True,
    help="Augmentation for the counts after augmentation.",
)
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for all counts and ratios.")
@wait_option
def stats(tiles: Path, **options: Any) -> None:
    """Count the tiles of DATA (a folder or a tiles.csv) and their pixels, and measure imbalance and centre bias."""
    from lim_keras.report.tables import dataset_tables

    show(dataset_tables(api.dataset_report(tiles, **options)))


@data.command(cls=Command, short_help="Write a tiles.csv that groups tiles of the same ground.")
@click.argument("tiles", metavar="DATA", type=TILES)
@click.option(
    "--out",
    required=True,
    type=NEW_FILE,
    help="Manifest to write, a new file, with the groups in its column `group`.",
)
def overlaps(tiles: Path, out: Path) -> None:
    """Find tiles of DATA that show the same ground, and write a tiles.csv that keeps them in one fold.

    Tiles without a georeference are compared by their pixels: about a minute for 2,000 tiles.
    """
    from lim_keras.data import group_overlaps, write_manifest
    from lim_keras.files import check_new_file
    from lim_keras.report.tables import overlap_table

    check_new_file(out, "out")
    known = api.read_tiles(tiles)
    found = api.find_overlaps(known)
    grouped = group_overlaps(known, found)
    check_new_file(out, "out")  # again, because the search may take minutes
    write_manifest(grouped, out)
    show([overlap_table(grouped, found), f"manifest: {out}"])


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
    """Train one model as CONFIG says, choose its threshold on the validation tiles, score it on the test tiles, and
    export it.

    The same command continues an interrupted run after its last complete epoch.
    """
    api.fit(api.load_config(config, overrides), tiles, on_result=_print, **options)


@click.command(cls=Command)
@run_options
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Folds trained at a time.")
@wait_option
def cv(config: Path, tiles: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Train k models as CONFIG says by stratified, grouped cross-validation; export them and their ensemble (FCN-FLK).

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
    """Train one model as CONFIG says on the masks and on the probabilities of the ensemble BUNDLE, and export it.

    For each tile, the student learns from the fold model that was not trained on it. The same command continues an
    interrupted run after its last complete epoch.
    """
    api.distill(teacher, api.load_config(config, overrides), tiles, on_result=_print, **options)


def _print(result: RunResult) -> None:
    from lim_keras.report.tables import run_tables

    show([*run_tables(result.evaluation), f"run: {result.run}", f"bundle: {result.bundle}"])
