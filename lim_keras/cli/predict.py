"""`lim-keras predict`: scenes to landslide inventories."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras.cli.runs import print_result
from lim_keras.cli.scenes import SCENE_OPTIONS, scene_options
from lim_keras.cli.startup import load_tensorflow
from lim_keras.errors import BundleError, ServerError

if TYPE_CHECKING:
    from lim_keras.inference.outputs import SceneModel

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class ServerType(click.ParamType):  # type: ignore[type-arg]
    """Where a model is served."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An address that can be read."""
        from lim_keras.inference.server_address import ServerAddress

        try:
            return str(ServerAddress.parse(value))
        except ServerError as error:
            self.fail(str(error), param, ctx)


_OF_SERVER = {
    "request_mb": "--request-mb",
    "retries": "--retries",
    "timeout_s": "--timeout",
    "in_flight": "--in-flight",
    "rest_format": "--rest-format",
}
"""Options that concern a server only, by their names in `ServerOptions`."""


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option("--dem", type=_FILE, help="Elevation model, for slopes; any CRS and resolution, metres or feet.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Probability that is landslide [default: the bundle's].")
@click.option("--min-area", type=click.FloatRange(0), default=0.0, help="Leave out smaller landslides, m2.")
@click.option("--fill-holes", type=click.FloatRange(0), default=0.0, help="Fill holes up to this area, m2.")
@click.option("--simplify", type=click.FloatRange(0), default=0.0, help="Tolerance of outlines, m; topology is kept.")
@click.option("--min-slope", type=click.FloatRange(0, 90), help="Flag flatter landslides, degrees; needs --dem.")
@click.option("--drop-flat", is_flag=True, help="Drop what --min-slope flags.")
@click.option("--probability", type=click.Choice(["percent", "float32"]), default="percent", show_default=True)
@click.option("--spread", is_flag=True, help="Second band of the probability map: standard deviation of the folds.")
@click.option("--geojson", is_flag=True, help="Write the inventory as GeoJSON, too.")
@click.option("--parquet", is_flag=True, help="Write the inventory as GeoParquet, too.")
@scene_options
@click.option(
    "--server",
    type=ServerType(),
    help="Let a TensorFlow Serving server compute: http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, each with "
    "/versions/3 or /labels/canary if wanted. Of BUNDLE only model.json is read.",
)
@click.option(
    "--request-mb",
    type=click.FloatRange(0.01),
    help="MiB that a request or its answer may take [default: 32 for REST, 64 for gRPC].",
)
@click.option("--retries", type=click.IntRange(0), help="How often a server that is away is asked again [default: 5].")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.001), help="Seconds until a request has failed [default: 120]."
)
@click.option("--in-flight", type=click.IntRange(1), help="Requests at a time [default: 4].")
@click.option(
    "--rest-format",
    type=click.Choice(["column", "row"]),
    help="Of REST requests; the answers of column are four times longer [default: row].",
)
def predict(bundle: Path, scenes: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Map the landslides in SCENES (files or folders) with BUNDLE (exported_models/NAME, or a .tflite file of it).

    For each scene: a probability map, a landslide mask, an inventory of polygons, a preview and a summary. Killed at
    any moment, the same command goes on where the last row of windows ended; a scene that cannot be used does not
    stop the others.
    """
    from lim_keras.inference.batch import find_scenes, predict_scenes

    asked = _options(options)
    server = _server_options(options)
    found = find_scenes(scenes)
    model = _load(bundle) if server is None else _connect(bundle, *server)
    result = predict_scenes(model, found, out, asked, say=lambda line: print_result([line]))
    print_result(result.tables())
    if result.failures:
        sys.exit(1)


def _load(bundle: Path) -> SceneModel:
    """A bundle, or a .tflite file, for which TensorFlow need not be there."""
    if bundle.is_file():
        if bundle.suffix != ".tflite":
            raise BundleError(
                f"{bundle}: expected the folder of a bundle, or a .tflite file; a model.json is enough with --server."
            )
        from lim_keras.inference.litert import load_litert

        return load_litert(bundle)
    load_tensorflow()
    from lim_keras.export.bundle import load_bundle

    return load_bundle(bundle)


def _server_options(given: dict[str, Any]) -> tuple[str, Any] | None:
    """Where the server is and how it is asked; None without a server."""
    from lim_keras.inference.server import ServerOptions

    chosen = {name: given[name] for name in _OF_SERVER if given[name] is not None}
    if given["server"] is None:
        if chosen:
            raise click.UsageError(f"{', '.join(_OF_SERVER[name] for name in chosen)}: only with --server.")
        return None
    return given["server"], ServerOptions(**chosen)


def _connect(bundle: Path, server: str, options: Any) -> SceneModel:
    """A bundle's model on a server, for which TensorFlow need not be there unless it is asked by gRPC."""
    from lim_keras.inference.server import connect

    if server.startswith("grpc:"):
        with suppress(ImportError):  # the transport says what is missing
            load_tensorflow()
    return click.get_current_context().with_resource(connect(bundle, server, options))


def _options(given: dict[str, Any]) -> Any:
    from lim_keras.inference.options import PredictOptions, VectorFormat
    from lim_keras.inventory import InventoryOptions

    if given["min_slope"] is not None and given["dem"] is None:
        raise click.UsageError("--min-slope needs an elevation model: give --dem.")
    if given["drop_flat"] and given["min_slope"] is None:
        raise click.UsageError("--drop-flat needs --min-slope.")
    formats: list[VectorFormat] = ["gpkg"]
    formats += ["geojson"] if given["geojson"] else []
    formats += ["parquet"] if given["parquet"] else []
    return PredictOptions(
        threshold=given["threshold"],
        probability=given["probability"],
        spread=given["spread"],
        **{name: given[name] for name in SCENE_OPTIONS},
        formats=tuple(formats),
        inventory=InventoryOptions(
            min_area_m2=given["min_area"],
            fill_holes_m2=given["fill_holes"],
            simplify_m=given["simplify"],
            min_slope=given["min_slope"],
            drop_below_slope=given["drop_flat"],
        ),
        dem=given["dem"],
    )
