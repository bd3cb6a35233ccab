"""Commands that make tiles: `data tile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import BANDS, NEW_FILE, NEW_FOLDER, NODATA, SCALE, Command, Parsed, wait_option
from lim_keras.cli.output import show


def _background(text: str) -> float | str:
    if text == "all":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected `all` or a number, such as 2") from None


@click.command(cls=Command, short_help="Cut tiles from scenes and mapped landslides.")
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--labels",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Landslides: polygons in any format, layer and CRS, or a raster of labels.",
)
@click.option("--out", required=True, type=NEW_FOLDER, help="Folder of the tiles.")
@click.option(
    "--size", type=click.IntRange(1), default=512, show_default=True, help="Height and width of a tile, pixels."
)
@click.option(
    "--overlap",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Common rows or columns of neighbouring background tiles, and of the tiles of one large landslide, pixels.",
)
@click.option(
    "--gsd",
    "gsd_m",
    type=click.FloatRange(0, min_open=True),
    help="Ground sample distance of the tiles, metres: finer scenes are averaged, coarser ones are interpolated "
    "[default: that of each scene].",
)
@click.option(
    "--background",
    type=Parsed("all|RATIO", _background),
    default="2",
    show_default=True,
    help="Number of background tiles for each landslide tile, or all that there is room for.",
)
@click.option(
    "--hard-negatives",
    type=click.Path(exists=True, path_type=Path),
    metavar="BUNDLE",
    help="Bundle or .tflite file; background on which it finds landslides is taken first.",
)
@click.option(
    "--min-valid",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Smallest share of the pixels of a tile that have data and a label.",
)
@click.option("--layer", help="Layer of --labels [default: the one that holds polygons].")
@click.option(
    "--where",
    metavar="SQL",
    help="Take only the polygons whose attributes meet this condition, such as \"type = 'debris flow'\".",
)
@click.option(
    "--ignore-where",
    metavar="SQL",
    help='Polygons that meet this condition, such as "certainty < 2", are uncertain: no label (255) there.',
)
@click.option(
    "--aoi",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Polygons of the area in which landslides were mapped; outside of it there is no label (255).",
)
@click.option(
    "--touched",
    is_flag=True,
    help="Pixels that an outline touches are landslide [default: those whose centre is inside].",
)
@click.option(
    "--bands",
    type=BANDS,
    help="Bands to read: numbers from 1, descriptions or colours [default: all but alpha; of "
    "Sentinel-2 products B04,B03,B02].",
)
@click.option(
    "--scale",
    type=SCALE,
    help="Map raw values LOW..HIGH to 0..255, 8 bits [default: values and data type stay as they are].",
)
@click.option(
    "--nodata",
    type=NODATA,
    metavar="VALUE|nan|none",
    default="file",
    help="Value that replaces the nodata value of the files; none: ignore nodata value, mask and alpha "
    "[default: use those of the file].",
)
@click.option("--prefix", default="", help="First part of the name of every tile.")
@click.option("--seed", type=click.IntRange(0), default=2022, show_default=True, help="Seed of all random choices.")
@click.option("--jobs", type=click.IntRange(1), help="Tiles that are cut at a time [default: one for each core].")
@click.option("--dry-run", is_flag=True, help="Print the report on the tiles without writing them.")
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for the report.")
@wait_option
def tile(scenes: tuple[Path, ...], labels: Path, out: Path, **options: Any) -> None:
    """Cut image and mask tiles from each SCENE (files or folders) and mapped landslides, ready for `fit` and `cv`.

    Every landslide lies in a tile, at a random position. The same command continues an interrupted call; equal inputs
    and seeds give equal files.
    """
    from lim_keras.report.tiling import tiling_tables

    result = api.tile_scenes(scenes, labels, out, **options)
    lines = ["dry run: nothing was written"] if result.tiles is None else [f"tiles: {out}"]
    show([*tiling_tables(result.report), *lines])
