"""Commands that examine exported models: `evaluate`, `info` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import (
    FILE,
    FOLDER,
    NEW_FILE,
    NEW_FOLDER,
    RASTER,
    READING,
    TILES,
    Command,
    refuse_without,
    rule_options,
    scene_options,
    wait_option,
)
from lim_keras.cli.output import show


@click.command(cls=Command)
@click.argument("bundle", type=FOLDER)
@click.option("--data", "tiles", type=TILES, help="Tiles: a folder or a tiles.csv.")
@click.option(
    "--tiles",
    "tile_ids",
    type=FILE,
    help="File of tile ids to evaluate on, one a line [default: test tiles, else all tiles not used in training].",
)
@click.option("--scene", type=RASTER, help="Scene to evaluate on, a raster or a Sentinel-2 product; needs --truth.")
@click.option(
    "--truth",
    "--labels",
    "truth",
    type=FILE,
    help="Landslides of --scene: polygons (GeoPackage, GeoJSON, Shapefile, KML, GML, ..., also in a .zip), or a raster "
    "on its grid (1 landslide, 0 background, 255 no label).",
)
@click.option(
    "--negatives",
    type=TILES,
    metavar="PATH",
    help="Images without any landslide: a folder of images, or tiles. Counts the false alarms by group of images.",
)
@click.option("--windows", type=click.IntRange(1), default=400, show_default=True, help="Number of random windows.")
@click.option(
    "--bootstrap", type=click.IntRange(1), default=1000, show_default=True, help="Resamples for each 95 % interval."
)
@click.option("--each-fold", is_flag=True, help="Evaluate each fold's model alone, too.")
@rule_options
@scene_options
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for all scores.")
@click.option("--figures", type=NEW_FOLDER, help="Folder for pictures of the best and the worst samples.")
@wait_option
def evaluate(bundle: Path, tiles: Path | None, json_file: Path | None, figures: Path | None, **options: Any) -> None:
    """Evaluate BUNDLE (exported_models/NAME) on tiles, on a scene, or on images without landslides.

    --data: whole tiles and random windows. --scene and --truth: a scene, by pixel and by polygon. --negatives: false
    alarms on images without any landslide. Pixels are scored at the bundle's threshold, polygons and false alarms by
    its object rule, if it has one (--working-point, --all). Each score on tiles and scenes has a 95 % interval, and
    stands beside that of an image-blind baseline.
    """
    from lim_keras.report.tables import report_tables

    if options["scene"] is None and options["negatives"] is None:
        refuse_without("--scene or --negatives", ["working_point", "all_regions"])
    if options["scene"] is None:
        refuse_without("--scene", [name for name in READING if name != "tta"])
    report = api.evaluate(bundle, tiles, json_file=json_file, figures=figures, **options)
    written = [f"figures as JSON: {json_file}"] if json_file else []
    show([*report_tables(report), *written, *(f"picture: {path}" for path in report.pictures)])


@click.command(cls=Command)
@click.argument("bundle", type=NEW_FOLDER)
def info(bundle: Path) -> None:
    """Print what BUNDLE (exported_models/NAME) records: model, data, scores and files. No model is loaded."""
    from lim_keras.report.bundle_tables import info_tables

    show(info_tables(api.bundle_info(bundle)))


@click.command(cls=Command)
@click.argument("bundle", type=NEW_FOLDER)
def verify(bundle: Path) -> None:
    """Check BUNDLE (exported_models/NAME): every file, every model's signature, and the answer to a stored image.

    Each difference is one line on standard error. Any difference gives exit code 1. Graphs run only if their files
    match the record.
    """
    differences = api.verify_bundle(bundle)
    for line in differences:
        click.echo(f"Difference: {line}", err=True)
    if differences:
        sys.exit(1)
    files = len(api.bundle_info(bundle).files)
    show([f"{bundle}: {files} files, signatures and the stored answer are as exported."])
