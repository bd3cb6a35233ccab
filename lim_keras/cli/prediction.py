"""Command `predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lim_keras import api
from lim_keras.cli.options import (
    DEM,
    NEW_FOLDER,
    NEW_PLACE,
    SCENES,
    Command,
    Parsed,
    refuse_without,
    rule_options,
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
@rule_options
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
@click.option(
    "--merge", is_flag=True, help="Make the final files from all parts. Give the other options of the parts again."
)
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

    SCENES are rasters (paths or URLs), STAC items, Sentinel-2 products (SAFE folders or .zip files), and folders of
    rasters and products. Each scene gets a probability map, a landslide mask, an inventory of polygons, a preview and
    a summary. The same command continues an interrupted prediction; a scene that cannot be used does not stop the
    others.
    """
    limits = {name: options.pop(name) for name in _OF_SERVER}
    model: Path | ServerModel
    if server is None:
        refuse_without("--server", _OF_SERVER)
        model = bundle
    elif options["runtime"] != "auto":
        raise click.UsageError("--runtime: not with --server, because the server computes. Leave it out.")
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
