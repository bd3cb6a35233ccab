"""Command `data audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import FILE, FOLDER, NEW_FILE, TILES, Command, wait_option
from lim_keras.cli.output import show


@click.command(cls=Command, short_help="Report leaks, label errors, bad images and shortcuts; exit code 1 for a leak.")
@click.argument("tiles", metavar="DATA", type=TILES)
@click.option(
    "--run",
    type=FOLDER,
    help="Folder of a finished `cv` or `fit`: its folds are checked, and its predictions show doubtful labels.",
)
@click.option("--test", "test_ids", type=FILE, help="File with the ids of the test tiles, one a line.")
@click.option(
    "--min-distance",
    "min_distance_m",
    metavar="M",
    type=click.FloatRange(0),
    help="Smallest distance allowed between tiles of two sides of the split, metres [default: any].",
)
@click.option("--html", "html_file", type=NEW_FILE, help="HTML page with pictures, in one file.")
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file with all results.")
@wait_option
def audit(tiles: Path, **options: Any) -> None:
    """Audit the tiles of DATA (a folder or a tiles.csv).

    The audit reports leaks between folds and test tiles, wrong and shifted masks, damaged, blurred and repeated images,
    shortcuts, and, with --run, labels that the predictions contradict. Exit code 1 if there is a leak, 0 otherwise.
    """
    from lim_keras.report.audit_tables import audit_tables

    report = api.audit_tiles(tiles, **options)
    files = [f"{name}: {options[key]}" for name, key in (("page", "html_file"), ("json", "json_file")) if options[key]]
    show([*audit_tables(report), *files])
    if report.has_leak:
        click.get_current_context().exit(1)
