"""Public functions that map scenes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lim_keras.api.arguments import as_progress, as_raster, as_raster_path, known_options, public, scene_paths
from lim_keras.api.bundles import as_model, described_model
from lim_keras.api.places import results_place
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath

if TYPE_CHECKING:
    from lim_keras.api.arguments import Bands, Model
    from lim_keras.bundle.object_rule import WorkingPointName
    from lim_keras.bundle.runtimes import Runtime
    from lim_keras.inventory.batch import BatchResult
    from lim_keras.inventory.options import PredictOptions
    from lim_keras.inventory.scene_prediction import Execution, ScenePrediction
    from lim_keras.progress import ProgressCallback
    from lim_keras.raster.reader import RasterReader, RasterSource
    from lim_keras.raster.validity import Nodata
    from lim_keras.report.preview import Preview


@public
def predict_scene(
    bundle: Model,
    scene: RasterSource,
    out: StrPath,
    *,
    working_point: WorkingPointName | None = None,
    threshold: float | None = None,
    peak: float | None = None,
    min_area_m2: float | None = None,
    all_regions: bool = False,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    dem: StrPath | None = None,
    min_slope_deg: float | None = None,
    drop_flat: bool = False,
    probability: Literal["percent", "float32"] = "percent",
    spread: bool = False,
    familiarity: bool = False,
    geojson: bool = False,
    parquet: bool = False,
    asset: str | None = None,
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
    part: str | None = None,
    merge: bool = False,
    workers: str | None = None,
    work: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> ScenePrediction:
    """Map the landslides of one scene.

    A repeated call with the same arguments keeps a finished scene and continues an interrupted one. Files that no
    earlier call wrote, or that changed since, are never replaced.

    Args:
        bundle: loaded model, or the bundle, file or address that `load_bundle` takes.
        scene: raster of any size: path, URL, GDAL name, or open rasterio dataset; or the path of a Sentinel-2 product;
            or the path or URL of a STAC item, after whose id results are named.
        out: folder of the results, or its address in object storage (`s3://bucket/prefix`, `gs://`, `az://`), where no
            object is ever replaced.
        working_point: point of the bundle's object rule, which decides which regions are landslides: "sensitive" (finds
            more), "balanced" or "strict" (fewer false alarms). None: "balanced" if the bundle has a rule, else all
            regions.
        threshold: smallest probability of a landslide pixel, 0 to 1; None: that of the working point, else of the
            bundle.
        peak: a region of pixels that reach the threshold is left out if its highest probability is lower than this, 0
            to 1; 0: no limit. None: that of the working point, else no limit.
        min_area_m2: smallest area of a landslide, m2; smaller ones are left out. None: that of the working point,
            else 0.
        all_regions: do not use the bundle's object rule: every region is a landslide.
        fill_holes_m2: holes up to this area are filled, m2.
        simplify_m: tolerance of simplified outlines, m; 0: outlines follow the edges of pixels.
        dem: elevation model of any CRS and resolution, in metres or feet; slopes are measured on it.
        min_slope_deg: smallest mean slope of a landslide, degrees; those below it are flagged; needs `dem`.
        drop_flat: leave flagged landslides out; needs `min_slope_deg`.
        probability: data type of the probability map: "percent" (uint8, 0 to 100) or "float32".
        spread: add the standard deviation of the folds to the probability map as its second band.
        familiarity: write a map of how familiar each cell of the scene is to the model, and a column of the inventory;
            needs a bundle that knows it, and reads the scene once more.
        geojson: write the inventory as GeoJSON, too.
        parquet: write the inventory as GeoParquet, too.
        asset: name of the asset, for a STAC item; None: the one in true colour, else the only raster.
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
        part: "K/N": predict part K of N only, in this process; other calls, also on other machines that see the same
            files, predict the others at the same time. No final file is written. None: the whole scene.
        merge: make the final files from all parts; give all other arguments as for the parts.
        workers: predict on the machines of a Ray cluster, which see bundle, scene and `out` under the same paths:
            "ray://HOST:PORT", or "auto": the cluster that the environment variable RAY_ADDRESS names, otherwise a Ray
            that is started on this machine for this call. A repeated call keeps finished parts. None: this process.
        work: folder for unfinished results, if `out` is in object storage; None: the user's cache folder. With `part`,
            `merge` and `workers`, it has to be on a file system that all machines share.
        wait: wait for the end of another call that works in `out`, instead of raising an error.
        progress: receives the number of predicted pixels; None: a bar on a terminal.

    Returns:
        The result: `inventory` (geopandas.GeoDataFrame), `files` and `summary`. With `part`, there is no inventory, and
        `files` are those of the part. With results in object storage, `files` are addresses.

    Raises:
        BundleError: the bundle is missing or damaged.
        ClusterError: the cluster of `workers` cannot be used, or could not do a part.
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
    _check_workers(workers, options, bundle, scene)
    from lim_keras.inventory.predict_scene import predict_scene as predict

    source = as_raster("scene", scene, asset)
    place = results_place(out, work, options, wait=wait, shared=workers is not None)
    with place as folder, _execution(workers, progress) as execution:
        model = described_model(bundle, runtime) if merge or workers else as_model(bundle, runtime)
        if isinstance(folder, Path):
            return predict(model, source, folder, options, execution=execution)
        from lim_keras.inventory.remote_scenes import predict_remote_scene as upload

        return upload(model, source, folder, options, execution=execution)


@public
def predict_scenes(
    bundle: Model,
    scenes: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    working_point: WorkingPointName | None = None,
    threshold: float | None = None,
    peak: float | None = None,
    min_area_m2: float | None = None,
    all_regions: bool = False,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    dem: StrPath | None = None,
    min_slope_deg: float | None = None,
    drop_flat: bool = False,
    probability: Literal["percent", "float32"] = "percent",
    spread: bool = False,
    familiarity: bool = False,
    geojson: bool = False,
    parquet: bool = False,
    asset: str | None = None,
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
    part: str | None = None,
    merge: bool = False,
    workers: str | None = None,
    work: StrPath | None = None,
    wait: bool = False,
    say: Callable[[str], None] | None = None,
    progress: ProgressCallback | None = None,
) -> BatchResult:
    """Map the landslides of many scenes; one that cannot be used does not stop the others.

    Args:
        bundle: loaded model, or the bundle, file or address that `load_bundle` takes.
        scenes: rasters, Sentinel-2 products, STAC items, and folders of rasters and products, or one of them.
        out: folder of the results, or its address in object storage (`s3://bucket/prefix`, `gs://`, `az://`), where no
            object is ever replaced.
        working_point: this argument and all others up to `wait` are as for `predict_scene`.
        say: called with a line of text for every scene that is done or failed.
        progress: receives the number of predicted pixels of each scene; None: a bar on a terminal.

    Returns:
        The result: `predictions` (one result a scene), `failures` (reason by scene) and `summary` (the file, which a
        call with `part` does not write).

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigError: invalid arguments.
        DataError: no scene exists, two would write the same files, another call works in `out`, or the results would
            replace scenes or files of the user.

    Examples:
        >>> lk.predict_scenes("exported_models/bijie_edge", "scenes", "maps", min_area_m2=100).failures
    """
    options = _predict_options(locals())
    _check_workers(workers, options, bundle)
    from lim_keras.inventory.batch import find_scenes
    from lim_keras.inventory.batch import predict_scenes as predict

    found = find_scenes(scene_paths(scenes, asset))
    place = results_place(out, work, options, wait=wait, shared=workers is not None)
    with place as folder, _execution(workers, progress, say or str) as execution:
        model = described_model(bundle, runtime) if merge or workers else as_model(bundle, runtime)
        if isinstance(folder, Path):
            return predict(model, found, folder, options, execution=execution)
        from lim_keras.inventory.remote_scenes import predict_remote_scenes as upload

        return upload(model, found, folder, options, execution=execution)


def _check_workers(
    workers: str | None, options: PredictOptions, bundle: Model, scene: RasterSource | None = None
) -> None:
    """Check the argument `workers`, and what excludes it, before any work."""
    if workers is None:
        return
    from lim_keras.workers import parse_address

    parse_address(workers)
    if options.part is not None or options.merge:
        raise ConfigError("`workers` excludes `part` and `merge`: it makes and merges the parts by itself.")
    if options.memory is not None:
        raise ConfigError(
            "`workers` and `memory` exclude each other, because all parts have windows of the same size. Give `tile`, "
            "or leave both out."
        )
    if hasattr(bundle, "predict_all") and not isinstance(getattr(bundle, "path", None), str | os.PathLike):
        raise ConfigError("`workers` needs the folder of a bundle or a .tflite file, which other processes load.")
    if scene is not None and not isinstance(scene, str | os.PathLike):
        raise ConfigError("`workers` needs the path or the URL of the scene, because other processes open it.")


@contextmanager
def _execution(
    workers: str | None, progress: ProgressCallback | None, say: Callable[[str], object] = str
) -> Iterator[Execution]:
    """Yield how to carry out a prediction; the connection to its machines is closed at the end."""
    from lim_keras.inventory.scene_prediction import Execution

    with ExitStack() as stack:
        machines = None
        if workers is not None:
            from lim_keras.inventory.scene_workers import SceneWorkers

            machines = stack.enter_context(SceneWorkers(workers))
        yield Execution(read_preview=_read_preview, workers=machines, say=say, progress=as_progress(progress))


def _read_preview(scene: RasterReader, *, bands: Sequence[int], gsd_m: float | None) -> Preview:
    """Read the picture of a preview; matplotlib is imported in the thread that reads it."""
    from lim_keras.report.preview import read_preview

    return read_preview(scene, bands=bands, gsd_m=gsd_m)


def _predict_options(given: dict[str, Any]) -> PredictOptions:
    """Build the options of a prediction from the arguments of a public function."""
    from lim_keras.inventory.options import PredictOptions

    if given["probability"] not in ("percent", "float32"):
        raise ConfigError(
            f"Invalid value for `probability`. Expected percent or float32. Received: {given['probability']!r}."
        )
    dem = None if given["dem"] is None else as_raster_path("dem", given["dem"])
    formats = ("gpkg", *(name for name in ("geojson", "parquet") if given[name]))
    return PredictOptions(**known_options(PredictOptions, given) | {"dem": dem, "formats": formats})
