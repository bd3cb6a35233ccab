"""Group of commands on tiles: `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import NEW_FILE, TILES, Command, wait_option
from lim_keras.cli.output import show


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
