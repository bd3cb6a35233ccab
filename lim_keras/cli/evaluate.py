"""`lim-keras evaluate`: judge an exported bundle."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lim_keras.cli.runs import print_result
from lim_keras.cli.scenes import SCENE_OPTIONS, scene_options
from lim_keras.cli.startup import load_tensorflow
from lim_keras.config import EvaluationSection
from lim_keras.files import make_folder, prepare_file

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DEFAULTS = EvaluationSection()


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Tiles: a folder or tiles.csv.")
@click.option(
    "--tiles",
    type=_FILE,
    help="Ids of the tiles to judge on, one a line. Default: the test tiles, else all not trained on.",
)
@click.option("--scene", type=_FILE, help="A scene (GeoTIFF) to judge on; needs --truth.")
@click.option(
    "--truth",
    "--labels",
    "truth",
    type=_FILE,
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
    from lim_keras.evaluation.bundles import judge_bundle
    from lim_keras.inference.options import PredictOptions

    report = judge_bundle(
        bundle,
        data,
        tile_list=tiles,
        scene=scene,
        truth=truth,
        settings=EvaluationSection(windows=windows, bootstrap=bootstrap),
        each_fold=each_fold,
        options=PredictOptions(**reading),
        show_progress=sys.stderr.isatty(),
    )
    said: list[Any] = report.tables()
    if json_file:
        said.append(f"figures as JSON: {report.write_json(json_file)}")
    if figures:
        said += [f"picture: {path}" for path in report.write_figures(figures)]
    print_result(said)


def _refuse_scene_options() -> None:
    """Without a scene, of the options that concern one --tta alone has a meaning."""
    context = click.get_current_context()
    given = [
        option
        for name, option in SCENE_OPTIONS.items()
        if name != "symmetries" and context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with --scene.")
