"""Public functions that evaluate models."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

from lim_keras.api.arguments import (
    TileIds,
    as_count,
    as_ids,
    as_path,
    as_progress,
    as_raster,
    as_raster_path,
    map_options,
    public,
)
from lim_keras.api.bundles import as_model
from lim_keras.api.places import report_places
from lim_keras.api.tiles import as_tiles
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.api.arguments import Bands, Model
    from lim_keras.bundle.object_rule import WorkingPointName
    from lim_keras.bundle.runtimes import Runtime
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.config import EvaluationSection
    from lim_keras.data.tiles import TileSet
    from lim_keras.evaluation.bundle_report import BundleReport
    from lim_keras.evaluation.scene import SceneResult
    from lim_keras.inventory.options import PredictOptions
    from lim_keras.progress import ProgressCallback
    from lim_keras.raster.reader import RasterSource
    from lim_keras.raster.validity import Nodata


@public
def evaluate(
    bundle: Bundle | StrPath,
    tiles: TileSet | StrPath | None = None,
    *,
    tile_ids: TileIds | None = None,
    scene: StrPath | None = None,
    truth: StrPath | None = None,
    negatives: TileSet | StrPath | None = None,
    windows: int = 400,
    bootstrap: int = 1000,
    each_fold: bool = False,
    working_point: WorkingPointName | None = None,
    all_regions: bool = False,
    bands: Bands | None = None,
    scale: tuple[float, float] | None = None,
    nodata: Nodata = "file",
    gsd_m: float | None = None,
    resample: bool = False,
    tta: bool = False,
    exact: bool = False,
    memory: int | str | None = None,
    tile: int | None = None,
    json_file: StrPath | None = None,
    figures: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> BundleReport:
    """Evaluate a bundle on whole tiles, on random windows, on a scene, and on images without landslides.

    Pixels are scored at the stored threshold, polygons and alarms by the object rule, if the bundle has one.

    Args:
        bundle: folder of a bundle, or the loaded bundle.
        tiles: tiles, or their path, see `read_tiles`; None: evaluate on the scene alone.
        tile_ids: ids of the tiles to evaluate on, or a file of them; None: the test tiles, else all that were not
            trained on.
        scene: raster to evaluate on; needs `truth`.
        truth: its landslides: polygons, or a raster on the same grid (1 landslide, 0 background, 255 no label).
        negatives: images without any landslide: a folder of images, or tiles. The area that the model calls landslide
            and its alarms are counted by group of images.
        windows: number of random windows.
        bootstrap: number of resamples for each 95 % interval.
        each_fold: evaluate each fold's model alone, too.
        working_point: which values of the bundle's object rule choose polygons and alarms: "sensitive", "balanced" or
            "strict"; None: "balanced" if the bundle has a rule.
        all_regions: do not use the object rule: every region is a landslide.
        bands: this argument and all others up to `tile` are as for `predict_scene`. `tta` applies to tiles and windows,
            too.
        json_file: JSON file for all scores.
        figures: folder for pictures of the best and the worst samples. Files of other origin, and files that changed
            since an earlier call wrote them, are never replaced, neither here nor as `json_file`.
        wait: wait for the end of another call that writes the same files; False: raise an error.
        progress: receives the progress of each protocol; None: a bar on a terminal.

    Returns:
        The scores of each protocol with 95 % intervals; `to_dict()` gives them all.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        ConfigError: neither tiles, nor negatives, nor a scene with its truth.
        DataError: tiles or rasters cannot be used, or do not fit the bundle.

    Examples:
        >>> report = lk.evaluate("exported_models/bijie_edge", "bijie_tiles.csv")
        >>> report.to_dict()["protocols"]["tiles"]
    """
    if (scene is None) != (truth is None):
        raise ConfigError("`scene` and `truth` belong together. Give both or neither.")
    if tiles is None and scene is None and negatives is None:
        raise ConfigError("Nothing to evaluate on. Give `tiles`, `negatives`, or `scene` and `truth`.")
    options = map_options(locals())
    choice, settings = _choice(working_point, all_regions), _settings(windows, bootstrap)
    from lim_keras.data.tiles import TileSet

    images = negatives if negatives is None or isinstance(negatives, TileSet) else as_path("negatives", negatives)
    ids = as_ids("tile_ids", tile_ids)
    json_path = None if json_file is None else as_path("json_file", json_file)
    folder = None if figures is None else as_path("figures", figures)
    protocols = [*(() if tiles is None else ("tiles", "windows")), *(() if scene is None else ("scene",))]
    with report_places(json_path, folder, protocols, wait=wait):
        load_tensorflow()
        from lim_keras.evaluation.bundle_report import evaluate_bundle

        report = evaluate_bundle(
            as_path("bundle", bundle) if isinstance(bundle, str | PathLike) else bundle,
            None if tiles is None else as_tiles(tiles, progress),
            tile_ids=ids,
            scene=None if scene is None else as_raster_path("scene", scene),
            truth=None if truth is None else as_path("truth", truth),
            negatives=images,
            settings=settings,
            each_fold=each_fold,
            options=options,
            choice=choice,
            progress=as_progress(progress),
        )
        if json_path is not None:
            report.write_json(json_path)
        if folder is None:
            return report
        from lim_keras.report.figures import write_report_figures

        return replace(report, pictures=tuple(write_report_figures(report, folder)))


@public
def evaluate_scene(
    bundle: Model,
    scene: RasterSource,
    truth: StrPath,
    *,
    bootstrap: int = 1000,
    working_point: WorkingPointName | None = None,
    all_regions: bool = False,
    bands: Bands | None = None,
    scale: tuple[float, float] | None = None,
    nodata: Nodata = "file",
    gsd_m: float | None = None,
    resample: bool = False,
    tta: bool = False,
    exact: bool = False,
    memory: int | str | None = None,
    tile: int | None = None,
    runtime: Runtime = "auto",
    progress: ProgressCallback | None = None,
) -> SceneResult:
    """Map a scene and compare it with mapped landslides, pixel by pixel and polygon by polygon.

    Args:
        bundle: loaded model, or the bundle, file or address that `load_bundle` takes.
        scene: raster of any size, as for `predict_scene`.
        truth: its landslides: polygons, or a raster on the same grid (1 landslide, 0 background, 255 no label).
        bootstrap: number of resamples for each 95 % interval.
        working_point: which values of the bundle's object rule choose the polygons: "sensitive", "balanced"
            or "strict"; None: "balanced" if the bundle has a rule.
        all_regions: do not use the object rule: every region is a landslide.
        bands: this argument and all others up to `runtime` are as for `predict_scene`.
        progress: receives the number of predicted pixels; None: a bar on a terminal.

    Returns:
        The scores by pixel (`evaluation`) and by polygon (`detections`).

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigError: invalid arguments.
        DataError: the scene does not fit the model, or the truth does not fit the scene.

    Examples:
        >>> result = lk.evaluate_scene("exported_models/bijie_edge", "scene.tif", truth="landslides.gpkg")
        >>> result.evaluation.scores().model["f1"]
    """
    options = map_options(locals())
    from lim_keras.evaluation.scene import evaluate_scene as run

    return run(
        as_model(bundle, runtime),
        as_raster("scene", scene),
        as_path("truth", truth),
        settings=_settings(400, bootstrap),
        options=options,
        choice=_choice(working_point, all_regions),
        progress=as_progress(progress),
    )


def _choice(working_point: WorkingPointName | None, all_regions: bool) -> PredictOptions:
    from lim_keras.inventory.options import PredictOptions

    return PredictOptions(working_point=working_point, all_regions=bool(all_regions))


def _settings(windows: int, bootstrap: int) -> EvaluationSection:
    from lim_keras.config import EvaluationSection

    return EvaluationSection(windows=as_count("windows", windows), bootstrap=as_count("bootstrap", bootstrap))
