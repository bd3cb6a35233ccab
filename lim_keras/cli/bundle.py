"""Commands `export`, `info` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import FILE, FOLDER, NEW_FOLDER, TILES, Command, Parsed, refuse_without

_VARIANTS = ("float32", "float16", "dynamic", "int8")
_OF_TFLITE = ("tile", "fold", "tiles", "tile_ids", "allow_drop", "out", "threads")


def _variants(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(kinds) <= set(_VARIANTS):
        raise ValueError(f"{text!r}: expected some of {','.join(_VARIANTS)}")
    return kinds


@click.command(cls=Command)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--tflite",
    "variants",
    type=Parsed("KIND,KIND,...", _variants),
    help=f"LiteRT files to make: {','.join(_VARIANTS)}.",
)
@click.option("--tile", type=click.IntRange(1), help="Height and width of their input in pixels [default: any].")
@click.option(
    "--fold", type=click.IntRange(0), help="Fold to export, counted from 0 [default: the ensemble, as one file]."
)
@click.option("--data", "tiles", type=TILES, help="Tiles to calibrate int8 and to test: a folder or a tiles.csv.")
@click.option(
    "--tiles",
    "tile_ids",
    type=FILE,
    help="File with the ids of the tiles to test on, one a line [default: the test tiles, else all not trained on].",
)
@click.option("--allow-drop", is_flag=True, help="Keep files that differ from the SavedModel beyond their limit.")
@click.option("--out", type=NEW_FOLDER, help="Folder of the LiteRT files [default: BUNDLE/tflite].")
@click.option("--threads", type=click.IntRange(1), help="Threads of LiteRT in the test [default: one a core].")
@click.option(
    "--serving",
    "repository",
    type=NEW_FOLDER,
    help="Model repository of TensorFlow Serving that gets a version of the bundle.",
)
@click.option("--base-path", help="Folder of --serving as the server sees it [default: /models, as in a container].")
@click.option("--promote", is_flag=True, help="Make the newest version in --serving stable.")
def export(
    bundle: Path,
    variants: tuple[Any, ...] | None,
    repository: Path | None,
    base_path: str | None,
    promote: bool,
    **litert: Any,
) -> None:
    """Export BUNDLE (exported_models/NAME) to LiteRT files, to a TensorFlow Serving repository, or to both.

    --tflite: LiteRT (TFLite) files, which run without TensorFlow. Each is compared with the SavedModel on the test
    tiles; one that differs more than the limit of its kind is refused.

    --serving: a model repository for TensorFlow Serving, with version labels, warm-up requests and a compose file.
    With both options, no version is added if a LiteRT file fails or is refused.
    """
    if variants is None and repository is None:
        raise click.UsageError("Missing option '--tflite' or '--serving': say what to make.")
    if variants is None:
        refuse_without("--tflite", _OF_TFLITE)
    if repository is None:
        refuse_without("--serving", ("base_path", "promote"))
    # The repository comes last: it gets one more version at each call, while files are replaced.
    if variants is not None:
        _export_litert(bundle, variants, **litert)
    if repository is not None:
        _export_serving(bundle, repository, base_path, promote)


def _export_litert(bundle: Path, variants: tuple[Any, ...], **options: Any) -> None:
    from lim_keras.report.bundle_tables import litert_table
    from lim_keras.report.tables import print_result

    result = api.export_litert(bundle, variants, **options)
    print_result([litert_table(result.figures, result.refused), f"folder: {result.folder}"])
    if result.refused:
        click.echo(
            f"Error: refused, beyond the limit: {', '.join(result.refused)}. --allow-drop keeps such files.", err=True
        )
        sys.exit(1)


def _export_serving(bundle: Path, repository: Path, base_path: str | None, promote: bool) -> None:
    from lim_keras.report.bundle_tables import serving_table
    from lim_keras.report.tables import print_result

    result = api.export_serving(bundle, repository, base_path=base_path, promote=promote)
    done = "labels moved" if result.added is None else f"version {result.added} added"
    served = result.served
    versions = {"stable": served.stable, "canary": served.canary}
    table = serving_table(result.folder / "models.config", result.models, **versions, loaded=served.loaded)
    print_result([table, f"{done}: {result.folder}"])


@click.command(cls=Command)
@click.argument("bundle", type=NEW_FOLDER)
def info(bundle: Path) -> None:
    """Print what BUNDLE (exported_models/NAME) records: model, data, scores and files. No model is loaded."""
    from lim_keras.report.bundle_tables import info_tables
    from lim_keras.report.tables import print_result

    print_result(info_tables(api.bundle_info(bundle)))


@click.command(cls=Command)
@click.argument("bundle", type=NEW_FOLDER)
def verify(bundle: Path) -> None:
    """Check BUNDLE (exported_models/NAME): every file, every model's signature, and the answer to a stored image.

    Each difference is a line on standard error; the exit code is 1 if there is one. Graphs are run only if their files
    are as recorded.
    """
    differences = api.verify_bundle(bundle)
    for line in differences:
        click.echo(f"Difference: {line}", err=True)
    if differences:
        sys.exit(1)
    files = len(api.bundle_info(bundle).files)
    click.echo(f"{bundle}: {files} files, signatures and the stored answer are as exported.")
