"""Group of commands on tiles: `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.audit import audit
from lim_keras.cli.options import NEW_FILE, NEW_FOLDER, TILES, Command, Parsed, wait_option
from lim_keras.cli.output import show
from lim_keras.cli.tiling import tile


@click.group()
def data() -> None:
    """Make tiles from scenes and other data sets, and report on them: counts, imbalance, overlaps, defects."""


data.add_command(tile)


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


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"{text!r}: expected band numbers from 1 separated by commas, such as 4,3,2")
    return tuple(map(int, parts))


def _mask_value(text: str) -> Any:
    """Parse a mask value, a range such as 128-255, or a colour such as 255,0,0."""
    try:
        if "," in text:
            red, green, blue = (float(part) for part in text.split(","))
            return red, green, blue
        low, dash, high = text.partition("-")
        if low and dash and float(low) <= float(high):
            return float(low), float(high)
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a value, a range such as 128-255, or a colour R,G,B") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@data.command(cls=Command, short_help="Convert Landslide4Sense, mask folders, COCO or YOLO to tiles.")
@click.argument("source", type=TILES)
@click.option(
    "--out", required=True, type=NEW_FOLDER, help="Folder to write: new, empty, or an unchanged earlier conversion."
)
@click.option(
    "--format",
    type=click.Choice(["landslide4sense", "pairs", "coco", "yolo"]),
    help="Format of SOURCE [default: told by its files].",
)
@click.option(
    "--bands",
    type=Parsed("B,B,...", _numbers),
    default=(),
    help="Bands of Landslide4Sense to keep, such as 4,3,2 [default: all].",
)
@click.option(
    "--landslide",
    type=Parsed("VALUE|LOW-HIGH|R,G,B", _mask_value),
    multiple=True,
    help="Value, range or colour of landslide in masks; may be repeated. All other values are background [default: 1, "
    "or 255 in masks of 0 and 255].",
)
@click.option(
    "--ignore",
    type=Parsed("VALUE|LOW-HIGH|R,G,B", _mask_value),
    multiple=True,
    help="Value, range or colour without a label in masks; may be repeated.",
)
@click.option(
    "--classes",
    type=Parsed("NAME,...", _names),
    default=(),
    help="COCO or YOLO classes that are landslides, by name or number [default: the only class].",
)
@click.option(
    "--ignore-classes",
    type=Parsed("NAME,...", _names),
    default=(),
    help="COCO or YOLO classes whose pixels have no label.",
)
@click.option("--dry-run", is_flag=True, help="Count, and write nothing.")
@wait_option
def convert(source: Path, out: Path, **options: Any) -> None:
    """Convert the data set SOURCE to a folder with tiles.csv, images and masks.

    SOURCE is a folder (Landslide4Sense HDF5; images and masks; COCO; YOLO segmentation), a COCO file or a data.yaml.
    """
    from lim_keras.report.conversion import conversion_tables

    result = api.convert_tiles(source, out, **options)
    show([*conversion_tables(result), "dry run: nothing was written" if result.out is None else f"tiles: {out}"])


data.add_command(audit)
