"""Commands `data` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from lim_keras.data.augment import AugmentationName
from lim_keras.tensorflow_import import load_tensorflow

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
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.tiles import TileSet
    from lim_keras.report.progress import ProgressBar
    from lim_keras.report.tables import dataset_tables, print_result

    figures = DatasetReport.measure(TileSet.read(tiles, ProgressBar()), size, augmentation)
    if json_file:
        figures.write_json(json_file)
    print_result(dataset_tables(figures))


@data.command()
@click.argument("tiles", metavar="DATA", type=_DATA)
@click.option("--out", required=True, type=_OUTPUT, help="Manifest to write, with the groups in its column `group`.")
def overlaps(tiles: Path, out: Path) -> None:
    """Find tiles of DATA that show the same ground, and write a tiles.csv that keeps them in one fold.

    Without georeference tiles are compared by their pixels: about a minute for 2,000 tiles.
    """
    from lim_keras.data.overlap import find_overlaps, group_overlaps
    from lim_keras.data.tiles import TileSet
    from lim_keras.report.progress import ProgressBar
    from lim_keras.report.tables import overlap_table, print_result

    known = TileSet.read(tiles, ProgressBar())
    found = find_overlaps(known, progress=ProgressBar())
    grouped = group_overlaps(known, found)
    grouped.write_manifest(out)
    print_result([overlap_table(grouped, found), f"manifest: {out}"])


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True)
# On two cores three folds and then two leave no core idle; twice two and one would.
@click.option("--jobs", type=click.IntRange(min=1), default=3, show_default=True, help="Folds trained at a time.")
def demo(out: Path, jobs: int) -> None:
    """Make a world, train five small models on its tiles, and judge their ensemble on a world they have not seen."""
    load_tensorflow()
    from lim_keras.demo import run_demo
    from lim_keras.report.tables import print_result

    result = run_demo(out, print_result, jobs)
    print_result([f"landslide F1 on held-out tiles {result.f1:.3f}; {result.seconds:.0f} s; everything is in {out}"])
