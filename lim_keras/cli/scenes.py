"""Commands `predict` and `evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lim_keras import api
from lim_keras.cli.options import (
    FILE,
    FOLDER,
    NEW_FILE,
    NEW_FOLDER,
    READING,
    TILES,
    Command,
    Parsed,
    refuse_without,
    scene_options,
    with_options,
)

if TYPE_CHECKING:
    from lim_keras.serving import ServerModel

_OF_SERVER = ("request_mb", "retries", "timeout_s", "in_flight")


def _server(text: str) -> str:
    from lim_keras.serving import ServerAddress

    return str(ServerAddress.parse(text))


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=NEW_FOLDER, help="Folder of the results.")
@click.option("--dem", type=FILE, help="Elevation model for slopes, of any CRS and resolution, in metres or feet.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Smallest probability of landslide [default: the bundle's]."
)
@click.option(
    "--min-area",
    "min_area_m2",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Leave out landslides of a smaller area, m2.",
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
    help="Tolerance of simplified outlines, m; neighbours keep their common edges.",
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
@click.option("--spread", is_flag=True, help="Standard deviation of the folds as second band of the probability map.")
@click.option("--geojson", is_flag=True, help="Write the inventory as GeoJSON, too.")
@click.option("--parquet", is_flag=True, help="Write the inventory as GeoParquet, too.")
@scene_options
@click.option(
    "--server",
    type=Parsed("URL", _server),
    help="Predict on a TensorFlow Serving server: http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, each with "
    "/versions/3 or /labels/canary if wanted. Of BUNDLE only model.json is read.",
)
@click.option(
    "--request-mb",
    type=click.FloatRange(0.01),
    help="Size of a request or an answer, MiB [default: 32 for REST, 64 for gRPC].",
)
@click.option(
    "--retries", type=click.IntRange(0), help="Attempts after the first if the server is away or busy [default: 5]."
)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.001), help="Seconds that a request may take [default: 120]."
)
@click.option("--in-flight", type=click.IntRange(1), help="Requests at a time [default: 4].")
def predict(bundle: Path, scenes: tuple[Path, ...], out: Path, server: str | None, **options: Any) -> None:
    """Map the landslides in SCENES (files or folders) with BUNDLE (exported_models/NAME, or a .tflite file of it).

    Each scene gets a probability map, a landslide mask, an inventory of polygons, a preview and a summary. The same
    command continues an interrupted prediction; a scene that cannot be used does not stop the others.
    """
    from lim_keras.report.tables import print_result, scene_table

    limits = {name: options.pop(name) for name in _OF_SERVER}
    model: Path | ServerModel
    if server is None:
        refuse_without("--server", _OF_SERVER)
        model = bundle
    else:
        served = cast("ServerModel", api.load_bundle(server, info=bundle, **limits))
        model = click.get_current_context().with_resource(served)

    def say(line: str) -> None:
        print_result([with_options(line, click.get_current_context())])

    result = api.predict_scenes(model, scenes, out, say=say, **options)
    print_result([scene_table(result), f"summary: {result.summary}"])
    if result.failures:
        sys.exit(1)


@click.command(cls=Command)
@click.argument("bundle", type=FOLDER)
@click.option("--data", "tiles", type=TILES, help="Tiles: a folder or a tiles.csv.")
@click.option(
    "--tiles",
    "tile_ids",
    type=FILE,
    help="File with the ids of tiles to evaluate on, one a line [default: the test tiles, else all not trained on].",
)
@click.option("--scene", type=FILE, help="Scene to evaluate on, a GeoTIFF; needs --truth.")
@click.option(
    "--truth",
    "--labels",
    "truth",
    type=FILE,
    help="Landslides of --scene: polygons, or a raster on its grid (1 landslide, 0 background, 255 no label).",
)
@click.option("--windows", type=click.IntRange(1), default=400, show_default=True, help="Number of random windows.")
@click.option(
    "--bootstrap", type=click.IntRange(1), default=1000, show_default=True, help="Resamples behind each 95 % interval."
)
@click.option("--each-fold", is_flag=True, help="Evaluate each fold's model alone, too.")
@scene_options
@click.option("--json", "json_file", type=NEW_FILE, help="JSON file for all scores.")
@click.option("--figures", type=NEW_FOLDER, help="Folder for pictures of the best and the worst samples.")
def evaluate(bundle: Path, tiles: Path | None, json_file: Path | None, figures: Path | None, **options: Any) -> None:
    """Evaluate BUNDLE (exported_models/NAME) at its stored threshold.

    Three protocols side by side: whole tiles, random windows, and a scene where one is given; each with 95 % intervals
    and with the score of an image-blind predictor. A scene is also evaluated polygon by polygon; it is read as by
    `predict`.
    """
    from lim_keras.report.tables import print_result, report_tables

    if options["scene"] is None:
        refuse_without("--scene", [name for name in READING if name != "tta"])
    report = api.evaluate(bundle, tiles, json_file=json_file, figures=figures, **options)
    written = [f"figures as JSON: {json_file}"] if json_file else []
    print_result([*report_tables(report), *written, *(f"picture: {path}" for path in report.pictures)])
