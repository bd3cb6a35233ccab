"""Map scenes and evaluate models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from lim_keras.api.bundles import CONVERSIONS, TileIds, as_count, as_ids, as_path, load_bundle, public
from lim_keras.api.places import report_places
from lim_keras.api.tiles import as_tiles
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath, locked_folder
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.protocol import SceneModel
    from lim_keras.bundle.runtimes import Runtime
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.config import EvaluationSection
    from lim_keras.data.tiles import TileSet
    from lim_keras.evaluation.bundle_report import BundleReport
    from lim_keras.evaluation.scene import SceneResult
    from lim_keras.inference.predict_maps import MapOptions
    from lim_keras.inventory.batch import BatchResult
    from lim_keras.inventory.options import PredictOptions
    from lim_keras.inventory.predict_scene import ScenePrediction
    from lim_keras.progress import ProgressCallback
    from lim_keras.raster.reader import RasterReader, RasterSource
    from lim_keras.report.preview import Preview

    Model: TypeAlias = SceneModel | StrPath
    Bands: TypeAlias = Sequence[int | str]
    Nodata: TypeAlias = float | Literal["file", "none"]


@public
def predict_scene(
    bundle: Model,
    scene: RasterSource,
    out: StrPath,
    *,
    threshold: float | None = None,
    min_area_m2: float = 0.0,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    dem: StrPath | None = None,
    min_slope_deg: float | None = None,
    drop_flat: bool = False,
    probability: Literal["percent", "float32"] = "percent",
    spread: bool = False,
    geojson: bool = False,
    parquet: bool = False,
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
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> ScenePrediction:
    """Map the landslides of one scene.

    A repeated call with the same arguments keeps a finished scene and continues an interrupted one. Files that no
    earlier call wrote, or that changed since, are never replaced.

    Args:
        bundle: loaded model, or the bundle, file or address that `load_bundle` takes.
        scene: raster of any size: path, URL, GDAL name, or open rasterio dataset; or the path of a Sentinel-2 product.
        out: folder of the results.
        threshold: smallest probability of landslide, 0 to 1; None: that of the bundle.
        min_area_m2: smallest area of a landslide, m2; smaller ones are left out.
        fill_holes_m2: holes up to this area are filled, m2.
        simplify_m: tolerance of simplified outlines, m; 0: outlines follow the edges of pixels.
        dem: elevation model of any CRS and resolution, in metres or feet; slopes are measured on it.
        min_slope_deg: smallest mean slope of a landslide, degrees; those below it are flagged; needs `dem`.
        drop_flat: leave flagged landslides out; needs `min_slope_deg`.
        probability: data type of the probability map: "percent" (uint8, 0 to 100) or "float32".
        spread: add the standard deviation of the folds to the probability map as its second band.
        geojson: write the inventory as GeoJSON, too.
        parquet: write the inventory as GeoParquet, too.
        bands: bands to read, by number from 1, description or colour, in the order of the bundle; None: all. Of a
            product by ESA's names and numbers; None: B04, B03, B02.
        scale: raw values (low, high) to map to the full range of the model's data type; None: no scaling, or that of
            the true-colour image for a product and a model of 8-bit images.
        nodata: value that replaces the nodata value of the file; "file": use nodata value, mask and alpha of the file;
            "none": ignore them all.
        gsd_m: ground sample distance of a scene whose file does not record it, metres.
        resample: resample the scene to square pixels of the bundle's ground sample distance, if the distances differ by
            a factor above 1.5, or the scene's pixels are stretched by more than 1.2:1 on the ground.
        tta: average over the eight symmetries of each window; takes eight times as long.
        exact: give windows the network's whole receptive field as halo. False: the halo that was measured to change no
            probability by more than 0.001, if the bundle has one.
        memory: memory that the process may take: bytes, or text such as "4G"; None: 1.5 GiB for
            one network, 2.5 GiB for five. With a value, the memory of a small window is measured first.
        tile: height and width of a window, pixels; None: as the memory allows.
        runtime: library that computes, see `load_bundle`; "auto": the fastest that is installed and gives the bundle's
            stored answer. For the folder of a bundle only.
        wait: wait for the end of another call that works in `out`, instead of raising an error.
        progress: receives the number of predicted pixels; None: a bar on a terminal.

    Returns:
        The result: `inventory` (geopandas.GeoDataFrame), `files` and `summary`.

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigError: invalid arguments.
        DataError: the scene does not fit the model, a file cannot be read or written, another call works in `out`, or
            the results would replace files of the user.

    Warns:
        DomainWarning: the scene differs from the training data.
        LimKerasWarning: files of a finished scene changed since they were written.

    Examples:
        >>> result = lk.predict_scene("exported_models/bijie_edge", "scene.tif", "maps", min_area_m2=100, dem="dem.tif")
        >>> result.inventory.area.sum()
    """
    options = _predict_options(locals())
    from lim_keras.bundle.replaceable import check_outside_bundles
    from lim_keras.inventory.predict_scene import predict_scene as predict

    source, folder, shown = _raster("scene", scene), as_path("out", out), as_progress(progress)
    check_outside_bundles(folder, "out")
    with locked_folder(folder, wait=wait, argument="out"):
        return predict(_model(bundle, runtime), source, folder, options, read_preview=_read_preview, progress=shown)


@public
def predict_scenes(
    bundle: Model,
    scenes: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    threshold: float | None = None,
    min_area_m2: float = 0.0,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    dem: StrPath | None = None,
    min_slope_deg: float | None = None,
    drop_flat: bool = False,
    probability: Literal["percent", "float32"] = "percent",
    spread: bool = False,
    geojson: bool = False,
    parquet: bool = False,
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
    wait: bool = False,
    say: Callable[[str], None] | None = None,
    progress: ProgressCallback | None = None,
) -> BatchResult:
    """Map the landslides of many scenes; one that cannot be used does not stop the others.

    Args:
        bundle: loaded model, or the bundle, file or address that `load_bundle` takes.
        scenes: rasters, Sentinel-2 products and folders of them, or one of them.
        out: folder of the results.
        threshold: this argument and all others up to `wait` are as for `predict_scene`.
        say: called with a line of text for every scene that is done or failed.
        progress: receives the number of predicted pixels of each scene; None: a bar on a terminal.

    Returns:
        The result: `predictions` (one result a scene), `failures` (reason by scene) and `summary` (the file).

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigError: invalid arguments.
        DataError: no scene exists, two would write the same files, another call works in `out`, or the results would
            replace scenes or files of the user.

    Examples:
        >>> lk.predict_scenes("exported_models/bijie_edge", "scenes", "maps", min_area_m2=100).failures
    """
    options = _predict_options(locals())
    from lim_keras.bundle.replaceable import check_outside_bundles
    from lim_keras.inventory.batch import find_scenes
    from lim_keras.inventory.batch import predict_scenes as predict

    found = find_scenes(scene_paths(scenes))
    folder = as_path("out", out)
    check_outside_bundles(folder, "out")
    with locked_folder(folder, wait=wait, argument="out"):
        model, shown = _model(bundle, runtime), as_progress(progress)
        return predict(model, found, folder, options, read_preview=_read_preview, say=say or str, progress=shown)


@public
def evaluate(
    bundle: Bundle | StrPath,
    tiles: TileSet | StrPath | None = None,
    *,
    tile_ids: TileIds | None = None,
    scene: StrPath | None = None,
    truth: StrPath | None = None,
    windows: int = 400,
    bootstrap: int = 1000,
    each_fold: bool = False,
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
    """Evaluate a bundle on whole tiles, on random windows, and on a scene, at its stored threshold.

    Args:
        bundle: folder of a bundle, or the loaded bundle.
        tiles: tiles, or their path, see `read_tiles`; None: evaluate on the scene alone.
        tile_ids: ids of the tiles to evaluate on, or a file of them; None: the test tiles, else all that were not
            trained on.
        scene: raster to evaluate on; needs `truth`.
        truth: its landslides: polygons, or a raster on the same grid (1 landslide, 0 background, 255 no label).
        windows: number of random windows.
        bootstrap: number of resamples for each 95 % interval.
        each_fold: evaluate each fold's model alone, too.
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
        ConfigError: neither tiles nor a scene with its truth.
        DataError: tiles or rasters cannot be used, or do not fit the bundle.

    Examples:
        >>> report = lk.evaluate("exported_models/bijie_edge", "bijie_tiles.csv")
        >>> report.to_dict()["protocols"]["tiles"]
    """
    if (scene is None) != (truth is None):
        raise ConfigError("`scene` and `truth` belong together. Give both or neither.")
    if tiles is None and scene is None:
        raise ConfigError("Nothing to evaluate on. Give `tiles`, or `scene` and `truth`.")
    options = _map_options(locals())
    settings = _settings(windows, bootstrap)
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
            scene=None if scene is None else as_path("scene", scene),
            truth=None if truth is None else as_path("truth", truth),
            settings=settings,
            each_fold=each_fold,
            options=options,
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
    options = _map_options(locals())
    from lim_keras.evaluation.scene import evaluate_scene as run

    return run(
        _model(bundle, runtime),
        _raster("scene", scene),
        as_path("truth", truth),
        settings=_settings(400, bootstrap),
        options=options,
        progress=as_progress(progress),
    )


def _read_preview(scene: RasterReader, *, bands: Sequence[int], gsd_m: float | None) -> Preview:
    """Read the picture of a preview; matplotlib is imported in the thread that reads it."""
    from lim_keras.report.preview import read_preview

    return read_preview(scene, bands=bands, gsd_m=gsd_m)


def _model(bundle: Model, runtime: Runtime) -> SceneModel:
    from lim_keras.bundle.protocol import runtime_of
    from lim_keras.bundle.runtimes import check_runtime

    check_runtime(runtime)
    if hasattr(bundle, "predict_all"):
        loaded = cast("SceneModel", bundle)
        if runtime not in ("auto", used := runtime_of(loaded)):
            raise ConfigError(
                f"Invalid value for `runtime`. The model is loaded with {used or 'another library'}. Received: "
                f"{runtime}. Leave `runtime` out, or give the bundle's folder."
            )
        return loaded
    of_server = isinstance(bundle, str) and bundle.startswith(("grpc://", "http://", "https://"))
    return load_bundle(bundle, runtime=None if of_server and runtime == "auto" else runtime)


def _raster(name: str, source: RasterSource) -> RasterSource:
    if (isinstance(source, str | PathLike) and source != "") or hasattr(source, "crs"):
        return source
    raise ConfigError(
        f"Invalid value for `{name}`. Expected a path, URL or open rasterio dataset. Received: "
        f"{type(source).__name__}. For an array, call `predict(images)` of the loaded bundle."
    )


def scene_paths(scenes: StrPath | Iterable[StrPath]) -> list[Path]:
    """Convert the argument `scenes` to paths; raise ConfigError if there are none."""
    if isinstance(scenes, str | PathLike) or not isinstance(scenes, Iterable):
        return [as_path("scenes", scenes)]
    paths = [as_path("scenes", one) for one in scenes]
    if not paths:
        raise ConfigError("Invalid value for `scenes`. Expected at least one raster or folder. Received: none.")
    return paths


def as_progress(progress: ProgressCallback | None) -> ProgressCallback:
    """Return a callback, by default a bar on a terminal."""
    from lim_keras.report.progress import ProgressBar

    return progress or ProgressBar()


def _map_options(given: dict[str, Any]) -> MapOptions:
    """Build the options of the maps from the arguments of a public function."""
    from lim_keras.inference.predict_maps import MapOptions

    return MapOptions(**_known(MapOptions, given))


def _predict_options(given: dict[str, Any]) -> PredictOptions:
    """Build the options of a prediction from the arguments of a public function."""
    from lim_keras.inventory.options import PredictOptions

    if given["probability"] not in ("percent", "float32"):
        raise ConfigError(
            f"Invalid value for `probability`. Expected percent or float32. Received: {given['probability']!r}."
        )
    dem = None if given["dem"] is None else as_path("dem", given["dem"])
    formats = ("gpkg", *(name for name in ("geojson", "parquet") if given[name]))
    return PredictOptions(**_known(PredictOptions, given) | {"dem": dem, "formats": formats})


def _known(options: type[MapOptions], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a public function that are fields of an options class, converted to their types."""
    known = {field.name: given[field.name] for field in fields(options) if field.name in given}
    optional = {field.name for field in fields(options) if field.default is None}
    for name, value in known.items():
        if name in CONVERSIONS and not (value is None and name in optional):
            known[name] = CONVERSIONS[name](name, value)
    return known


def _settings(windows: int, bootstrap: int) -> EvaluationSection:
    from lim_keras.config import EvaluationSection

    return EvaluationSection(windows=as_count("windows", windows), bootstrap=as_count("bootstrap", bootstrap))
