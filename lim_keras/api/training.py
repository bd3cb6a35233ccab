"""Public functions on configurations, tiles and training, and the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lim_keras.api.bundles import TileIds, as_count, as_ids, as_path, public
from lim_keras.api.places import json_place, locked, run_places
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow, require_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.config import RunConfig
    from lim_keras.data.augment import AugmentationName
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.overlap import Overlap
    from lim_keras.data.tiles import TileSet
    from lim_keras.demo import DemoResult
    from lim_keras.progress import ProgressCallback
    from lim_keras.training.distillation import Distillation
    from lim_keras.training.finalize import RunResult
    from lim_keras.training.record import Sources
    from lim_keras.training.run import Run

    Config: TypeAlias = RunConfig | StrPath
    Tiles: TypeAlias = TileSet | StrPath
    OnResult: TypeAlias = Callable[[RunResult], object]


@public
def load_config(path: StrPath, overrides: str | Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run.

    Args:
        path: YAML file.
        overrides: one or more `key=value` strings, such as "training.epochs=3"; the last value of a key applies.

    Raises:
        ConfigError: unknown keys or invalid values; the message lists them all.

    Examples:
        >>> config = lk.load_config("configs/bijie_edge.yaml", ["training.epochs=3"])
    """
    from lim_keras.config import load_config as load

    return load(as_path("path", path), [overrides] if isinstance(overrides, str) else overrides)


@public
def read_tiles(path: StrPath, *, progress: ProgressCallback | None = None) -> TileSet:
    """Read labelled tiles and check every file.

    Args:
        path: a manifest tiles.csv, a folder that contains one, a folder with landslide/ and non-landslide/, or a folder
            with images/ and masks/.
        progress: receives the progress of the check; None: a bar on a terminal.

    Raises:
        DataError: files are missing or invalid; the message lists them all.

    Examples:
        >>> tiles = lk.read_tiles("bijie_tiles.csv")
        >>> len(tiles), tiles.bands, tiles.dtype
    """
    from lim_keras.data.layouts import read_tiles as read
    from lim_keras.report.progress import ProgressBar

    return read(as_path("path", path), progress=progress or ProgressBar())


@public
def dataset_report(
    tiles: Tiles,
    *,
    size: int = 256,
    augmentation: AugmentationName = "paper",
    json_file: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> DatasetReport:
    """Count tiles and pixels, and measure imbalance and centre bias.

    Args:
        tiles: tiles, or their path; see `read_tiles`.
        size: height and width to which masks are resized before they are counted, pixels.
        augmentation: "paper", "dihedral" or "none"; the counts after augmentation depend on it.
        json_file: JSON file to write all counts and ratios to; None: no file. A file that exists is replaced only if
            an earlier call wrote it and nothing changed it since.
        wait: wait for the end of another call that writes the same file; False: raise an error.
        progress: receives the progress of reading tiles; None: a bar on a terminal.

    Returns:
        All counts and ratios; `to_dict()` returns them for JSON.

    Raises:
        DataError: tiles are invalid, or there are none.
        ConfigError: unknown augmentation.

    Examples:
        >>> lk.dataset_report("bijie_tiles.csv").imbalance.ratios
    """
    size = as_count("size", size)
    from lim_keras.data.dataset_report import DatasetReport

    if json_file is None:
        return DatasetReport.measure(as_tiles(tiles, progress), size, augmentation)
    path = as_path("json_file", json_file)
    with json_place(path, wait=wait):
        report = DatasetReport.measure(as_tiles(tiles, progress), size, augmentation)
        report.write_json(path)
    return report


@public
def find_overlaps(tiles: Tiles, *, progress: ProgressCallback | None = None) -> list[Overlap]:
    """Find tiles that show the same ground.

    Georeferenced tiles are compared by their outlines; other tiles are compared by their pixels, which takes longer.

    Args:
        tiles: tiles with the same ground sample distance, or their path; see `read_tiles`.
        progress: receives the progress; None: bars on a terminal.

    Returns:
        Pairs of tile ids in tile order, each with the overlap as a share of the smaller tile's area, 0 to 1.

    Raises:
        DataError: a tile cannot be read.

    Examples:
        >>> tiles = lk.read_tiles("tiles")
        >>> lk.data.write_manifest(lk.data.group_overlaps(tiles, lk.find_overlaps(tiles)), "tiles.csv")
    """
    from lim_keras.data.overlap import find_overlaps as find
    from lim_keras.report.progress import ProgressBar

    return find(as_tiles(tiles, progress), progress=progress or ProgressBar())


@public
def run_demo(
    out: StrPath = "demo", *, jobs: int = 3, wait: bool = False, say: Callable[[list[Any]], None] | None = None
) -> DemoResult:
    """Train five small models on tiles of a synthetic world, then evaluate them on a second world and map it.

    Args:
        out: folder of all results; an interrupted demo continues.
        jobs: number of folds trained in parallel.
        wait: wait for the end of another call that works in the same folder; False: raise an error.
        say: callback that receives lists of tables and text lines during the demo; None: nothing is printed.

    Raises:
        DataError: the folder holds files that do not belong to a demo.

    Examples:
        >>> lk.run_demo("demo").f1
    """
    folder = as_path("out", out)
    jobs = as_count("jobs", jobs)
    with locked(folder, "out", wait=wait):
        load_tensorflow()
        from lim_keras.demo import run_demo as run

        return run(folder, say or (lambda parts: None), jobs)


def as_tiles(tiles: Tiles, progress: ProgressCallback | None) -> TileSet:
    """Return tiles as they are, or read them from a path."""
    from lim_keras.data.tiles import TileSet

    return tiles if isinstance(tiles, TileSet) else read_tiles(as_path("tiles", tiles), progress=progress)


@public
def fit(
    config: Config,
    tiles: Tiles,
    *,
    test_ids: TileIds | None = None,
    validation_ids: TileIds | None = None,
    run: StrPath | None = None,
    export: StrPath | None = None,
    encoder_weights: str | None = None,
    start_from: StrPath | None = None,
    wait: bool = False,
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train one model, choose its threshold on the validation tiles, score it on the test tiles, and export it.

    A repeated call with the same arguments continues an interrupted run after its last complete epoch.

    Args:
        config: configuration, or its YAML file.
        tiles: tiles, or their path; see `read_tiles`.
        test_ids: ids of the tiles to keep out of training, or a file of these ids; None: no test tiles.
        validation_ids: ids of the tiles used to choose epoch and threshold, or a file of these ids; None: a share
            `training.validation_fraction` of the tiles, with groups kept whole.
        run: run folder; None: runs/NAME, where NAME is `name` in the configuration.
        export: folder of the bundle; None: exported_models/NAME.
        encoder_weights: "imagenet", "none" or a file; None: the value in the configuration.
        start_from: single-model bundle that supplies the initial weights; test and validation tiles must not be among
            its training tiles.
        wait: wait for the end of another call that works in the same folders; False: raise an error.
        on_result: callback that receives the scores before the bundle is loaded.
        progress: receives the progress; None: a bar on a terminal, otherwise one line per epoch.

    Returns:
        The loaded bundle.

    Raises:
        ConfigError: invalid configuration or arguments.
        DataError: bad tiles or ids.
        LeakError: a test tile is also a training or validation tile.
        TrainingError: the run folder holds another run, or training diverged.

    Examples:
        >>> bundle = lk.fit("configs/bijie_edge.yaml", "bijie_tiles.csv", test_ids="test.txt")
    """
    settings = _configuration(config)
    from lim_keras.training.run import begin_fit

    tested, validated = as_ids("test_ids", test_ids) or (), as_ids("validation_ids", validation_ids)
    with run_places(settings, _path("run", run), _path("export", export), wait=wait) as places:
        sources = _sources(settings, encoder_weights, start_from)
        prepared = begin_fit(
            settings,
            as_tiles(tiles, progress),
            run=places.run,
            test_ids=tested,
            validation_ids=validated,
            sources=sources,
        )
        _warm_start(prepared, start_from)
        _train(prepared, encoder_weights, progress)
        return _finish(prepared, places.bundle, on_result)


@public
def cross_validate(
    config: Config,
    tiles: Tiles,
    *,
    test_ids: TileIds | None = None,
    run: StrPath | None = None,
    export: StrPath | None = None,
    jobs: int = 1,
    encoder_weights: str | None = None,
    start_from: StrPath | None = None,
    wait: bool = False,
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train k models by stratified, grouped cross-validation, and export them with their ensemble (FCN-FLK).

    Threshold and temperature are fitted to out-of-fold predictions. A repeated call with the same arguments trains only
    unfinished folds. Each fold is trained in its own process. The processes import the calling script, so a script must
    guard the call with `if __name__ == "__main__":`.

    Args:
        config: configuration, or its YAML file.
        tiles: tiles, or their path; see `read_tiles`.
        test_ids: ids of the tiles to keep out of training, or a file of these ids; None: no test tiles.
        run: run folder; None: runs/NAME, where NAME is `name` in the configuration.
        export: folder of the bundle; None: exported_models/NAME.
        jobs: number of folds trained in parallel.
        encoder_weights: "imagenet", "none" or a file; None: the value in the configuration.
        start_from: single-model bundle that supplies the initial weights of each fold; tiles of the run must not be
            among its training tiles.
        wait: wait for the end of another call that works in the same folders; False: raise an error.
        on_result: callback that receives the scores before the bundle is loaded.
        progress: receives the number of finished folds; None: a bar on a terminal, otherwise one line per epoch.

    Returns:
        The loaded ensemble.

    Raises:
        ConfigError, DataError, LeakError: as for `fit`.
        TrainingError: the run folder holds another run, or folds failed; finished folds are kept.

    Examples:
        >>> bundle = lk.cross_validate("configs/bijie.yaml", "bijie_tiles.csv", test_ids="test.txt", run="runs/bijie")
    """
    jobs = as_count("jobs", jobs)
    settings, tested = _configuration(config), as_ids("test_ids", test_ids) or ()
    from lim_keras.training.cross_validation import train_folds
    from lim_keras.training.run import begin_cross_validation

    with run_places(settings, _path("run", run), _path("export", export), wait=wait) as places:
        sources, known = _sources(settings, encoder_weights, start_from), as_tiles(tiles, progress)
        prepared = begin_cross_validation(settings, known, run=places.run, test_ids=tested, sources=sources)
        _warm_start(prepared, start_from)
        train_folds(prepared, jobs=jobs, encoder_weights=encoder_weights, progress=progress)
        return _finish(prepared, places.bundle, on_result)


@public
def distill(
    teacher: StrPath,
    config: Config,
    tiles: Tiles,
    *,
    test_ids: TileIds | None = None,
    validation_ids: TileIds | None = None,
    run: StrPath | None = None,
    export: StrPath | None = None,
    encoder_weights: str | None = None,
    start_from: StrPath | None = None,
    wait: bool = False,
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train one small model on the masks and on the probabilities of an ensemble, and export it.

    For each tile, the student learns from the fold model that was not trained on it.

    Args:
        teacher: folder of a bundle that `cross_validate` exported.
        config: configuration, or its YAML file; its section `distillation` sets the weight of the teacher.
        tiles: tiles, or their path; see `read_tiles`.
        test_ids: this argument and all others are as for `fit`.

    Returns:
        The loaded bundle.

    Raises:
        BundleError: bands or data type of teacher and tiles differ, or the teacher lacks the training tiles by fold.
        ConfigError: distillation does not support the configured sampling or augmentation.
        DataError, LeakError, TrainingError: as for `fit`.

    Examples:
        >>> student = lk.distill("exported_models/bijie", "configs/edge.yaml", "bijie_tiles.csv", test_ids="test.txt")
    """
    ensemble, settings = as_path("teacher", teacher), _configuration(config)
    from lim_keras.training.run import begin_fit

    tested, validated = as_ids("test_ids", test_ids) or (), as_ids("validation_ids", validation_ids)
    with run_places(settings, _path("run", run), _path("export", export), wait=wait) as places:
        sources = _sources(settings, encoder_weights, start_from, ensemble)
        prepared = begin_fit(
            settings,
            as_tiles(tiles, progress),
            run=places.run,
            test_ids=tested,
            validation_ids=validated,
            sources=sources,
        )
        _warm_start(prepared, start_from)
        load_tensorflow()
        from lim_keras.training.distillation import prepare_distillation

        _train(prepared, encoder_weights, progress, prepare_distillation(prepared, ensemble))
        return _finish(prepared, places.bundle, on_result)


def _configuration(config: Config) -> RunConfig:
    """Read and check the configuration of a run before TensorFlow is imported."""
    require_tensorflow()
    from lim_keras.config import RunConfig

    return config if isinstance(config, RunConfig) else load_config(as_path("config", config))


def _path(name: str, value: StrPath | None) -> Path | None:
    return None if value is None else as_path(name, value)


def _sources(
    config: RunConfig, encoder_weights: str | None, start_from: StrPath | None, teacher: Path | None = None
) -> Sources:
    from lim_keras.training.record import Sources

    start = None if start_from is None else as_path("start_from", start_from)
    return Sources.read(config, encoder_weights=encoder_weights, start_from=start, teacher=teacher)


def _train(
    run: Run, encoder_weights: str | None, progress: ProgressCallback | None, distillation: Distillation | None = None
) -> None:
    load_tensorflow()
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.run import HELD_OUT

    train_fold(run, HELD_OUT, encoder_weights=encoder_weights, distillation=distillation, progress=progress)


def _warm_start(run: Run, bundle: StrPath | None) -> None:
    if bundle is not None:
        load_tensorflow()
        from lim_keras.training.warm_start import prepare_warm_start

        prepare_warm_start(run, as_path("start_from", bundle))


def _finish(run: Run, export: Path, on_result: OnResult | None) -> Bundle:
    load_tensorflow()
    from lim_keras.bundle.saved_model import load_bundle
    from lim_keras.training.finalize import finalize

    result = finalize(run, export)
    if on_result is not None:
        on_result(result)
    return load_bundle(result.bundle)
