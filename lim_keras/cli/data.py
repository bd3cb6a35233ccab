"""Commands `data` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from lim_keras import api
from lim_keras.cli.options import NEW_FILE, NEW_FOLDER, TILES, Command


@click.group()
def data() -> None:
    """Report on tiles: counts, imbalance ratios, centre bias, overlaps."""


@data.command(cls=Command)
@click.argument("tiles", metavar="DATA", type=TILES)
@click.option(
    "--size", type=click.IntRange(1), default=256, show_default=True, help="Side of the counted masks, pixels."
)
@click.option(
    "--augmentation",
    type=click.Choice(["paper", "dihedral", "none"]),
    default="paper",
    show_default=True,
    help="Augmentation before the second count.",
)
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for all counts and ratios.")
def stats(tiles: Path, size: int, augmentation: Literal["paper", "dihedral", "none"], json_file: Path | None) -> None:
    """Count the tiles of DATA (a folder or a tiles.csv) and their pixels, and measure imbalance and centre bias."""
    from lim_keras.report.tables import dataset_tables, print_result

    report = api.dataset_report(tiles, size=size, augmentation=augmentation, json_file=json_file)
    print_result(dataset_tables(report))


@data.command(cls=Command)
@click.argument("tiles", metavar="DATA", type=TILES)
@click.option("--out", required=True, type=NEW_FILE, help="Manifest to write, with the groups in its column `group`.")
def overlaps(tiles: Path, out: Path) -> None:
    """Find tiles of DATA that show the same ground, and write a tiles.csv that keeps them in one fold.

    Tiles without a georeference are compared by their pixels: about a minute for 2,000 tiles.
    """
    from lim_keras.data import group_overlaps, write_manifest
    from lim_keras.report.tables import overlap_table, print_result

    known = api.read_tiles(tiles)
    found = api.find_overlaps(known)
    grouped = group_overlaps(known, found)
    write_manifest(grouped, out)
    print_result([overlap_table(grouped, found), f"manifest: {out}"])


@click.command(cls=Command)
@click.option("--out", type=NEW_FOLDER, default=Path("demo"), show_default=True, help="Folder of all results.")
@click.option("--jobs", type=click.IntRange(min=1), default=3, show_default=True, help="Folds trained at a time.")
def demo(out: Path, jobs: int) -> None:
    """Make a synthetic world, train five small models on its tiles, evaluate their ensemble on a second world, and map
    it.
    """
    from lim_keras.report.tables import print_result

    result = api.run_demo(out, jobs=jobs, say=print_result)
    print_result([f"landslide F1 on held-out tiles {result.f1:.3f}; {result.seconds:.0f} s; everything is in {out}"])
