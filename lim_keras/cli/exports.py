"""Command `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import (
    FILE,
    FOLDER,
    NEW_FOLDER,
    TILES,
    Command,
    Parsed,
    refuse_without,
    wait_option,
)
from lim_keras.cli.output import show

_VARIANTS = ("float32", "float16", "dynamic", "int8")

_OF_SERVING = ("base_path", "promote")
_OF_TFLITE = ("tile_ids", "allow_drop", "threads")
_OF_FILES = ("tile", "fold", "out")


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
@click.option("--onnx", "onnx", is_flag=True, help="ONNX file, for ONNX Runtime and QGIS (plugin Deepness).")
@click.option(
    "--tile",
    type=click.IntRange(1),
    help="Height and width of the input of LiteRT and ONNX files, pixels [default: any].",
)
@click.option(
    "--fold", type=click.IntRange(0), help="Fold to export, counted from 0 [default: the ensemble, as one file]."
)
@click.option(
    "--data",
    "tiles",
    type=TILES,
    help="Tiles to calibrate int8, to test LiteRT files, and for --measure-halo, --object-rule and --familiarity: a "
    "folder or a tiles.csv.",
)
@click.option(
    "--tiles",
    "tile_ids",
    type=FILE,
    help="File of tile ids to test on, one a line [default: test tiles, else all tiles not used in training].",
)
@click.option("--allow-drop", is_flag=True, help="Keep files that differ from the SavedModel by more than their limit.")
@click.option(
    "--out", type=NEW_FOLDER, help="Folder of the LiteRT and ONNX files [default: BUNDLE/tflite, BUNDLE/onnx]."
)
@click.option("--threads", type=click.IntRange(1), help="LiteRT threads in the test [default: one per core].")
@click.option(
    "--serving",
    "repository",
    type=NEW_FOLDER,
    help="TensorFlow Serving model repository; the bundle is added as a new version.",
)
@click.option("--base-path", help="Path of the --serving folder on the server [default: unchanged; /models if new].")
@click.option("--promote", is_flag=True, help="Make the newest version in --serving stable.")
@click.option(
    "--measure-halo",
    "measure",
    is_flag=True,
    help="Measure on the training tiles in --data which smaller halos predict can use.",
)
@click.option(
    "--object-rule",
    "rule_tiles",
    type=FILE,
    help="File of tile ids, one a line: fit the object rule to these tiles of --data. The model must not have been "
    "trained on them.",
)
@click.option(
    "--familiarity",
    is_flag=True,
    help="Fit the comparison of scenes with the training imagery to the tiles in --data, so that predict can warn.",
)
@wait_option
def export(
    bundle: Path,
    variants: tuple[Any, ...] | None,
    onnx: bool,
    repository: Path | None,
    measure: bool,
    rule_tiles: Path | None,
    familiarity: bool,
    wait: bool,
    **options: Any,
) -> None:
    """Export BUNDLE (exported_models/NAME) to LiteRT, ONNX or TensorFlow Serving, or add measurements to it.

    --tflite: LiteRT (TFLite) files, which run without TensorFlow. Each file is compared with the SavedModel on the
    test tiles. A file that differs by more than the limit of its kind is refused.

    --onnx: an ONNX file, for images of any size or, for QGIS, of --tile px. A file that differs from the SavedModel is
    refused.

    --serving: a model repository for TensorFlow Serving, with version labels, warm-up requests and a compose file.
    With --tflite as well, no version is added if a LiteRT file fails or is refused.

    --measure-halo: smaller halos that keep maps near those of the whole receptive field.

    --object-rule: the rule that decides which regions of a map are landslides, chosen on held-out tiles.

    --familiarity: the comparison of a scene with the training imagery, by which predict warns of unfamiliar scenes.

    fit, cv and distill add these three to new bundles. The options add them to an older bundle; --object-rule also fits
    the rule to other tiles.
    """
    if variants is None and repository is None and not (measure or familiarity or onnx or rule_tiles):
        raise click.UsageError(
            "Missing option '--tflite', '--onnx', '--serving', '--measure-halo', '--object-rule' or '--familiarity': "
            "say what to make."
        )
    if variants is None:
        refuse_without("--tflite", _OF_TFLITE)
        if not onnx:
            refuse_without("--tflite or --onnx", _OF_FILES)
        if not (measure or familiarity or rule_tiles):
            refuse_without("--tflite, --measure-halo, --object-rule or --familiarity", ["tiles"])
    if (measure or familiarity) and options["tiles"] is None:
        name = "--measure-halo" if measure else "--familiarity"
        raise click.UsageError(f"{name} needs the tiles that BUNDLE was trained on. Give --data.")
    if rule_tiles is not None and options["tiles"] is None:
        raise click.UsageError("--object-rule needs the tiles that it names. Give --data.")
    if repository is None:
        refuse_without("--serving", _OF_SERVING)
    serving = {name: options.pop(name) for name in _OF_SERVING}
    if measure:
        _measure_halo(bundle, options["tiles"], wait)
    if rule_tiles is not None:
        _fit_rule(bundle, options["tiles"], rule_tiles, wait)
    if familiarity:
        facts = api.add_familiarity(bundle, options["tiles"], wait=wait)
        show([f"familiarity: {facts.training_cells} training and {facts.held_out_cells} held-out cells"])
    # The repository comes last: a repeated call replaces files, but adds one more version.
    if variants is not None:
        _export_litert(bundle, variants, wait=wait, **options)
    if onnx:
        made = api.export_onnx(bundle, wait=wait, **{name: options[name] for name in _OF_FILES})
        show([f"{made.path}: {made.bytes / 1e6:.1f} MB, within {made.max_difference:.1g} of the SavedModel"])
    if repository is not None:
        _export_serving(bundle, repository, wait=wait, **serving)


def _measure_halo(bundle: Path, tiles: Path, wait: bool) -> None:
    from lim_keras.report.bundle_tables import format_halo

    measured = api.measure_halo(bundle, tiles, wait=wait)
    lines = [f"halo within {one.tolerance:g}: {format_halo(one)}" for one in measured]
    show(lines or [f"{bundle}: no smaller halo meets a tolerance; predictions take the whole receptive field."])


def _fit_rule(bundle: Path, tiles: Path, ids: Path, wait: bool) -> None:
    from lim_keras.report.bundle_tables import rule_table

    show([rule_table(api.fit_object_rule(bundle, tiles, ids, wait=wait))])


def _export_litert(bundle: Path, variants: tuple[Any, ...], **options: Any) -> None:
    from lim_keras.report.bundle_tables import litert_table

    result = api.export_litert(bundle, variants, **options)
    show([litert_table(result.figures, result.refused), f"folder: {result.folder}"])
    if result.refused:
        click.echo(
            f"Error: refused, beyond the limit: {', '.join(result.refused)}. --allow-drop keeps such files.", err=True
        )
        sys.exit(1)


def _export_serving(bundle: Path, repository: Path, **options: Any) -> None:
    from lim_keras.report.bundle_tables import serving_table

    result = api.export_serving(bundle, repository, **options)
    done = "labels moved" if result.added is None else f"version {result.added} added"
    served = result.served
    versions = {"stable": served.stable, "canary": served.canary}
    table = serving_table(result.folder / "models.config", result.models, **versions, loaded=served.loaded)
    show([table, f"{done}: {result.folder}"])
