"""Commands `predict` and `evaluate`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lim_keras.cli.options import SCENE_OPTIONS, scene_options
from lim_keras.config import EvaluationSection
from lim_keras.errors import BundleError, ServerError
from lim_keras.files import make_folder, prepare_file
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.protocol import SceneModel


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class ServerType(click.ParamType):  # type: ignore[type-arg]
    """Where a model is served."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An address that can be read."""
        from lim_keras.serving import ServerAddress

        try:
            return str(ServerAddress.parse(value))
        except ServerError as error:
            self.fail(str(error), param, ctx)


_OF_SERVER = {
    "request_mb": "--request-mb",
    "retries": "--retries",
    "timeout_s": "--timeout",
    "in_flight": "--in-flight",
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
def predict(bundle: Path, scenes: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Map the landslides in SCENES (files or folders) with BUNDLE (exported_models/NAME, or a .tflite file of it).

    For each scene: a probability map, a landslide mask, an inventory of polygons, a preview and a summary. Killed at
    any moment, the same command goes on where the last row of windows ended; a scene that cannot be used does not
    stop the others.
    """
    from lim_keras.inventory.batch import find_scenes, predict_scenes
    from lim_keras.report.progress import ProgressBar
    from lim_keras.report.tables import print_result, scene_table

    asked = _options(options)
    server = _server_options(options)
    found = find_scenes(scenes)
    model = _load(bundle) if server is None else _connect(bundle, *server)
    result = predict_scenes(model, found, out, asked, say=lambda line: print_result([line]), progress=ProgressBar())
    print_result([scene_table(result), f"summary: {result.summary}"])
    if result.failures:
        sys.exit(1)


def _load(bundle: Path) -> SceneModel:
    """A bundle, or a .tflite file, for which TensorFlow need not be there."""
    if bundle.is_file():
        if bundle.suffix != ".tflite":
            raise BundleError(
                f"{bundle}: expected the folder of a bundle, or a .tflite file; a model.json is enough with --server."
            )
        from lim_keras.bundle.litert import load_litert

        return load_litert(bundle)
    load_tensorflow()
    from lim_keras.bundle.saved_model import load_bundle

    return load_bundle(bundle)


def _server_options(given: dict[str, Any]) -> tuple[str, Any] | None:
    """Where the server is and how it is asked; None without a server."""
    from lim_keras.serving import ServerOptions

    chosen = {name: given[name] for name in _OF_SERVER if given[name] is not None}
    if given["server"] is None:
        if chosen:
            raise click.UsageError(f"{', '.join(_OF_SERVER[name] for name in chosen)}: only with --server.")
        return None
    return given["server"], ServerOptions(**chosen)


def _connect(bundle: Path, server: str, options: Any) -> SceneModel:
    """A bundle's model on a server, for which TensorFlow need not be there unless it is asked by gRPC."""
    from lim_keras.serving import connect

    if server.startswith("grpc:"):
        with suppress(ImportError):  # the transport says what is missing
            load_tensorflow()
    return click.get_current_context().with_resource(connect(bundle, server, options=options))


def _options(given: dict[str, Any]) -> Any:
    from lim_keras.inventory.options import PredictOptions, VectorFormat

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
        min_area_m2=given["min_area"],
        fill_holes_m2=given["fill_holes"],
        simplify_m=given["simplify"],
        min_slope_deg=given["min_slope"],
        drop_flat=given["drop_flat"],
        dem=given["dem"],
    )


_FILE_EVALUATE = click.Path(exists=True, dir_okay=False, path_type=Path)

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

_DEFAULTS = EvaluationSection()


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Tiles: a folder or tiles.csv.")
@click.option(
    "--tiles",
    type=_FILE_EVALUATE,
    help="Ids of the tiles to judge on, one a line. Default: the test tiles, else all not trained on.",
)
@click.option("--scene", type=_FILE_EVALUATE, help="A scene (GeoTIFF) to judge on; needs --truth.")
@click.option(
    "--truth",
    "--labels",
    "truth",
    type=_FILE_EVALUATE,
    help="Its landslides: polygons, or a raster on the same grid (1 landslide, 0 background, 255 no label).",
)
@click.option("--windows", type=click.IntRange(1), default=_DEFAULTS.windows, show_default=True, help="Random windows.")
@click.option("--bootstrap", type=click.IntRange(1), default=_DEFAULTS.bootstrap, show_default=True, help="Resamples.")
@click.option("--each-fold", is_flag=True, help="Judge each fold's model alone, too.")
@scene_options
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there.")
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the best and the worst places into this folder.",
)
def evaluate(
    bundle: Path,
    data: Path | None,
    tiles: Path | None,
    scene: Path | None,
    truth: Path | None,
    windows: int,
    bootstrap: int,
    each_fold: bool,
    json_file: Path | None,
    figures: Path | None,
    **reading: Any,
) -> None:
    """Judge BUNDLE (exported_models/NAME) at its stored threshold.

    Three protocols side by side: whole tiles, random windows, and a scene where one is given; each with 95 % intervals
    and with what a predictor scores that never looks at the image. A scene is also judged polygon by polygon. It is
    read as `predict` reads it, by the same options.
    """
    if (scene is None) != (truth is None):
        raise click.UsageError("--scene and --truth belong together; give both or neither.")
    if data is None and scene is None:
        raise click.UsageError("Nothing to judge on: give --data, or --scene and --truth.")
    if scene is None:
        _refuse_scene_options()
    if json_file:
        prepare_file(json_file, "--json")
    if figures:
        make_folder(figures, "--figures")
    load_tensorflow()
    from lim_keras.data.tiles import read_tile_ids
    from lim_keras.evaluation.bundle_report import evaluate_bundle
    from lim_keras.inference.options import MapOptions
    from lim_keras.report.figures import write_report_figures
    from lim_keras.report.progress import ProgressBar
    from lim_keras.report.tables import print_result, report_tables

    report = evaluate_bundle(
        bundle,
        data,
        tile_ids=None if tiles is None else read_tile_ids(tiles),
        scene=scene,
        truth=truth,
        settings=EvaluationSection(windows=windows, bootstrap=bootstrap),
        each_fold=each_fold,
        options=MapOptions(**reading),
        progress=ProgressBar(),
    )
    said: list[Any] = [*report_tables(report)]
    if json_file:
        said.append(f"figures as JSON: {report.write_json(json_file)}")
    if figures:
        said += [f"picture: {path}" for path in write_report_figures(report, figures)]
    print_result(said)


def _refuse_scene_options() -> None:
    """Without a scene, of the options that concern one --tta alone has a meaning."""
    context = click.get_current_context()
    given = [
        option
        for name, option in SCENE_OPTIONS.items()
        if name != "tta" and context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with --scene.")
