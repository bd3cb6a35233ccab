"""Command `report`."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras import api
from lim_keras.cli.options import NEW_FILE, SCENE, Command, wait_option
from lim_keras.cli.output import show


@click.command(cls=Command)
@click.argument("runs", metavar="RUN...", type=SCENE, nargs=-1, required=True)
@click.option(
    "--out",
    type=NEW_FILE,
    default=Path("report.html"),
    show_default=True,
    help="HTML page with all pictures in it.",
)
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file with all figures.")
@wait_option
def report(runs: tuple[Path, ...], out: Path, json_file: Path | None, wait: bool) -> None:
    """Report on the training run in the folder RUN, or compare several runs with the first one.

    The page shows scores with intervals, folds, curves, calibration, best and worst tiles, imbalance, settings that
    differ and versions. Runs that are not finished are shown as far as they are.
    """
    from lim_keras.comparison.parts import difference_table, overview_table, summary_lines
    from lim_keras.report.part_tables import terminal_table

    comparison = api.report_runs(runs, out=out, json_file=json_file, wait=wait)
    differences = difference_table(comparison, short=True)
    tables = [overview_table(comparison), *([] if differences is None else [differences])]
    files = [f"page: {out}", *([f"json: {json_file}"] if json_file else [])]
    show([*map(terminal_table, tables), *summary_lines(comparison), *files])
