"""Commands on exported models: `predict`, `evaluate`, `export`, `info` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lim_keras import api
from lim_keras.cli.options import (
    DEM,
    FILE,
    FOLDER,
    NEW_FILE,
    NEW_FOLDER,
    NEW_PLACE,
    RASTER,
    READING,
    SCENES,
    TILES,
    Command,
    Parsed,
    refuse_without,
    scene_options,
    wait_option,
    with_options,
    workers_option,
)
from lim_keras.cli.output import show

if TYPE_CHECKING:
    from lim_keras.serving import ServerModel


_OF_SERVER = ("request_mb", "retries", "timeout_s", "in_flight")


def _server(text: str) -> str:
    from lim_keras.serving import ServerAddress

    return str(ServerAddress.parse(text))


def _part(text: str) -> str:
    from lim_keras.inference.scene_plan import ScenePart

    return str(ScenePart.parse(text))


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("scenes", nargs=-1, required=True, type=SCENES)
@click.option(
    "--out",
    required=True,
    type=NEW_PLACE,
    help="Folder of the results, or its address in object storage (s3://BUCKET/PREFIX, gs://, az://).",
)
@click.option("--dem", type=DEM, help="Elevation model for slopes, of any CRS and resolution, in metres or feet.")
@click.option(
    "--working-point",
    type=click.Choice(["sensitive", "balanced", "strict"]),
    help="Working point of the bundle's object rule, which decides which regions are landslides: sensitive finds more "
    "landslides, strict gives fewer false alarms [default: balanced, if the bundle has a rule].",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Smallest probability of a landslide pixel [default: the working point's, else the bundle's].",
)
@click.option(
    "--peak",
    type=click.FloatRange(0, 1),
    help="Leave out regions whose highest probability is lower; 0: none [default: the working point's, else 0].",
)
@click.option(
    "--min-area",
    "min_area_m2",
    type=click.FloatRange(0),
    help="Leave out regions of a smaller area, m2 [default: the working point's, else 0].",
)
@click.option(
    "--all",
    "all_regions",
    is_flag=True,
    help="Do not use the bundle's object rule: every region of pixels that reach the threshold is a landslide.",
)
@click.option(
    "--fill-holes",
    "fill_holes_m2",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Fill holes up to this area, m2.",
)
@click.option(
    "--simplify",
    "simplify_m",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Tolerance of outline simplification, m; common edges of neighbours stay common.",
)
@click.option(
    "--min-slope",
    "min_slope_deg",
    type=click.FloatRange(0, 90),
    help="Flag landslides of a lower mean slope, degrees; needs --dem.",
)
@click.option("--drop-flat", is_flag=True, help="Leave out landslides that --min-slope flags.")
@click.option(
    "--probability",
    type=click.Choice(["percent", "float32"]),
    default="percent",
    show_default=True,
    help="Data type of the probability map.",
)
@click.option(
    "--spread", is_flag=True, help="Add the standard deviation of the folds as a second band of the probability map."
)
@click.option(
    "--familiarity",
    is_flag=True,
    help="Map how familiar each cell of the scene is to the model, and add a column of it to the inventory.",
)
@click.option("--asset", metavar="NAME", help="Asset of STAC items [default: true colour, else the only raster].")
@click.option("--geojson", is_flag=True, help="Write the inventory as GeoJSON, too.")
@click.option("--parquet", is_flag=True, help="Write the inventory as GeoParquet, too.")
@scene_options
@click.option(
    "--runtime",
    type=click.Choice(["auto", "tensorflow", "litert", "openvino", "openvino-bf16"]),
    default="auto",
    show_default=True,
    help="Library that computes. auto: the fastest that is installed and gives the bundle's stored answer. "
    "openvino-bf16: faster and less exact, on processors with bfloat16.",
)
@click.option(
    "--part",
    type=Parsed("K/N", _part),
    help="Predict part K of N only, such as 3/20. Calls for the other parts may run at the same time, also on other "
    "machines that see the same files. No final file is written before --merge.",
)
@click.option("--merge", is_flag=True, help="Make the final files from all parts; give all other options as for them.")
@workers_option
@click.option(
    "--work",
    type=NEW_FOLDER,
    help="Folder for unfinished results, with --out in object storage [default: the user's cache folder].",
)
@wait_option
@click.option(
    "--server",
    type=Parsed("URL", _server),
    help="Predict on a TensorFlow Serving server: http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME; either may "
    "end with /versions/3 or /labels/canary. Only model.json of BUNDLE is read.",
)
@click.option(
    "--request-mb",
    type=click.FloatRange(0.01),
    help="Largest size of a request or an answer, MiB [default: 32 for REST, 64 for gRPC].",
)
@click.option("--retries", type=click.IntRange(0), help="Further attempts if the server is away or busy [default: 5].")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.001), help="Seconds that a request may take [default: 120]."
)
@click.option("--in-flight", type=click.IntRange(1), help="Largest number of requests at a time [default: 4].")
def predict(bundle: Path, scenes: tuple[Path | str, ...], out: Path | str, server: str | None, **options: Any) -> None:
    """Map the landslides in SCENES with BUNDLE (exported_models/NAME, or a .tflite file of it).

    SCENES are rasters (paths or URLs), STAC items, Sentinel-2 products (SAFE folders or .zip files) and folders of
    them. Each scene gets a probability map, a landslide mask, an inventory of polygons, a preview and a summary. The
    same command continues an interrupted prediction; a scene that cannot be used does not stop the others.
    """
    limits = {name: options.pop(name) for name in _OF_SERVER}
    model: Path | ServerModel
    if server is None:
        refuse_without("--server", _OF_SERVER)
        model = bundle
    elif options["runtime"] != "auto":
        raise click.UsageError("--runtime: not for --server, whose machine computes. Leave it out.")
    elif options["part"] is not None or options["merge"] or options["workers"] is not None:
        raise click.UsageError("--part, --merge and --workers are not for --server. Leave them out.")
    else:
        served = cast("ServerModel", api.load_bundle(server, info=bundle, **limits))
        model = click.get_current_context().with_resource(served)

    def say(line: str) -> None:
        show([with_options(line, click.get_current_context())])

    result = api.predict_scenes(model, scenes, out, say=say, **options)
    from lim_keras.report.tables import scene_table

    if options["part"] is None:
        show([scene_table(result), f"summary: {result.summary}"])
    elif not (result.predictions or result.failures):
        show([f"part {options['part']}: nothing to do, because the scenes have fewer rows of windows than parts."])
    if result.failures:
        sys.exit(1)


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
@click.option(
    "--working-point",
    type=click.Choice(["sensitive", "balanced", "strict"]),
    help="Values of the bundle's object rule by which --scene and --negatives are counted [default: balanced, if the "
    "bundle has a rule].",
)
@click.option("--all", "all_regions", is_flag=True, help="Count every region on --scene and --negatives.")
@scene_options
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for all scores.")
@click.option("--figures", type=NEW_FOLDER, help="Folder for pictures of the best and the worst samples.")
@wait_option
def evaluate(bundle: Path, tiles: Path | None, json_file: Path | None, figures: Path | None, **options: Any) -> None:
    """Evaluate BUNDLE (exported_models/NAME) on tiles, on a scene, or on images without landslides.

    --data: whole tiles and random windows. --scene and --truth: a scene, by pixel and by polygon. --negatives: false
    alarms on images without any landslide. Pixels are scored at the bundle's threshold, polygons and false alarms by
    its object rule, if it has one. Each score on tiles and scenes has a 95 % interval, and stands beside that of an
    image-blind baseline.
    """
    from lim_keras.report.tables import report_tables

    if options["scene"] is None and options["negatives"] is None:
        refuse_without("--scene or --negatives", ["working_point", "all_regions"])
    if options["scene"] is None:
        refuse_without("--scene", [name for name in READING if name != "tta"])
    report = api.evaluate(bundle, tiles, json_file=json_file, figures=figures, **options)
    written = [f"figures as JSON: {json_file}"] if json_file else []
    show([*report_tables(report), *written, *(f"picture: {path}" for path in report.pictures)])


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
