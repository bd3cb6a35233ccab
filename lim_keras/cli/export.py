"""`lim-keras export`: files of a bundle for other runtimes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lim_keras.cli.runs import print_result
from lim_keras.cli.startup import load_tensorflow

VARIANTS = ("float32", "float16", "dynamic", "int8")


class VariantsType(click.ParamType):  # type: ignore[type-arg]
    """Kinds of numbers, separated by commas."""

    name = "KIND,KIND,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to variants, each once."""
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not set(kinds) <= set(VARIANTS):
            self.fail(f"{value!r}: expected some of {','.join(VARIANTS)}", param, ctx)
        return kinds


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tflite", type=VariantsType(), required=True, help=f"Files to make: {','.join(VARIANTS)}.")
@click.option("--tile", type=click.IntRange(1), help="Pixels a side of their windows [default: as the network needs].")
@click.option("--fold", type=click.IntRange(0), help="Export this fold alone [default: the ensemble, as one file].")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Tiles, to calibrate int8 and to test.")
@click.option(
    "--tiles",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ids of the tiles to test on, one a line. Default: the test tiles, else all not trained on.",
)
@click.option("--allow-drop", is_flag=True, help="Keep files that differ from the SavedModel beyond their limit.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder [default: BUNDLE/tflite].")
@click.option("--threads", type=click.IntRange(1), help="Of LiteRT [default: one a core].")
def export(bundle: Path, tflite: tuple[Any, ...], tiles: Path | None, **options: Any) -> None:
    """Make LiteRT (TFLite) files of BUNDLE (exported_models/NAME), which need no TensorFlow.

    Each file is run on the test tiles and compared with the SavedModel; one that differs more than its kind may is
    refused.
    """
    if tiles is not None and options["data"] is None:
        raise click.UsageError("--tiles names tiles of --data; give both.")
    load_tensorflow()
    from lim_keras.data.tiles import read_tile_ids
    from lim_keras.export.tflite import Asked, export_litert

    ids = None if tiles is None else tuple(read_tile_ids(tiles))
    result = export_litert(bundle, Asked(tflite, test_ids=ids, **options))
    print_result(result.tables())
    if result.refused:
        click.echo(
            f"Error: refused, beyond the limit: {', '.join(result.refused)}. --allow-drop keeps such files.", err=True
        )
        sys.exit(1)
