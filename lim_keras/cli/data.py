"""`lim-keras data`: look at tiles before training on them."""

from pathlib import Path
from typing import get_args

import click

from lim_keras.cli.runs import print_result
from lim_keras.data.augment import AugmentationName

_DATA = click.Path(exists=True, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Look at tiles: counts, imbalance ratios, centre bias, shared ground."""


@data.command()
@click.argument("tiles", metavar="DATA", type=_DATA)
@click.option("--size", type=click.IntRange(1), default=256, show_default=True, help="Masks are counted at this side.")
@click.option("--augmentation", type=click.Choice(get_args(AugmentationName)), default="paper", show_default=True)
@click.option("--json", "json_file", type=_OUTPUT, help="Write every figure there.")
def stats(tiles: Path, size: int, augmentation: AugmentationName, json_file: Path | None) -> None:
    """Count the tiles of DATA (a folder or a tiles.csv), their pixels, and how far their framing gives them away."""
    from lim_keras.data.stats import DataStats
    from lim_keras.data.tiles import TileSet

    figures = DataStats.measure(TileSet.read(tiles, progress=True), size, augmentation)
    if json_file:
        figures.write_json(json_file)
    print_result(figures.tables())


@data.command()
@click.argument("tiles", metavar="DATA", type=_DATA)
@click.option("--out", required=True, type=_OUTPUT, help="Manifest to write, with the groups in its column `group`.")
def overlaps(tiles: Path, out: Path) -> None:
    """Find tiles of DATA that show the same ground, and write a tiles.csv that keeps them in one fold.

    Without georeference tiles are compared by their pixels: about a minute for 2,000 tiles.
    """
    from lim_keras.data.overlap import find_overlaps, group_overlaps, overlap_table
    from lim_keras.data.tiles import TileSet

    known = TileSet.read(tiles, progress=True)
    found = find_overlaps(known, progress=True)
    grouped = group_overlaps(known, found)
    grouped.write_manifest(out)
    print_result([overlap_table(grouped, found), f"manifest: {out}"])
