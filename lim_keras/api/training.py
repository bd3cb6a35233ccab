"""Public functions on training, and the demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lim_keras.api.arguments import TileIds, as_count, as_ids, as_number, as_path, public
from lim_keras.api.places import locked, run_places
from lim_keras.api.tiles import as_tiles, load_config
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow, require_tensorflow

if TYPE_CHECKING:
    from lim_keras.api.tiles import Tiles
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.config import RunConfig, SplitMethod, SplitSection
    from lim_keras.demo.run import DemoResult
    from lim_keras.progress import ProgressCallback
    from lim_keras.training.distillation import Distillation
    from lim_keras.training.finalize import RunResult
    from lim_keras.training.record import Sources
    from lim_keras.training.run import Run

    Config: TypeAlias = RunConfig | StrPath
    OnResult: TypeAlias = Callable[[RunResult], object]


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
        from lim_keras.demo.run import run_demo as run

        return run(folder, say or (lambda parts: None), jobs)


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
    folds: SplitMethod | None = None,
    buffer_m: float | None = None,
    allow_leak: bool = False,
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
        folds: "random", or "spatial": the validation tiles are whole blocks or clusters of neighbouring tiles;
            section `split` of the configuration sets their size. None: `split.method` in the configuration.
        buffer_m: spatial folds leave training tiles out that are nearer to a held-out tile than this, metres from
            outline to outline; None: `split.buffer_m` in the configuration.
        allow_leak: warn, instead of an error, where test tiles share groups, ground or files with other tiles, and mark
            the test scores as flattered.
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
    settings = _configuration(config, folds, buffer_m)
    from lim_keras.training.begin import begin_fit

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
            allow_leak=allow_leak,
        )
        _announce(prepared, progress)
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
    workers: str | None = None,
    encoder_weights: str | None = None,
    start_from: StrPath | None = None,
    folds: SplitMethod | None = None,
    buffer_m: float | None = None,
    allow_leak: bool = False,
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
        jobs: number of folds trained in parallel, in processes of this machine.
        workers: train the folds on the machines of a Ray cluster, with a GPU each where there are any:
            "ray://HOST:PORT", or "auto": the cluster that the environment variable RAY_ADDRESS names, otherwise a Ray
            that is started on this machine for this call. All machines must see the run folder and the tiles under the
            same paths. It excludes `jobs`. None: this machine, without Ray.
        encoder_weights: "imagenet", "none" or a file; None: the value in the configuration.
        start_from: single-model bundle that supplies the initial weights of each fold; tiles of the run must not be
            among its training tiles.
        folds: "random", or "spatial": folds of whole blocks or clusters of neighbouring tiles;
            section `split` of the configuration sets their size. None: `split.method` in the configuration.
        buffer_m: spatial folds leave training tiles out that are nearer to a held-out tile than this, metres from
            outline to outline; None: `split.buffer_m` in the configuration.
        allow_leak: warn, instead of an error, where test tiles share groups, ground or files with other tiles, and mark
            the test scores as flattered.
        wait: wait for the end of another call that works in the same folders; False: raise an error.
        on_result: callback that receives the scores before the bundle is loaded.
        progress: receives the number of finished folds; None: a bar on a terminal, otherwise one line per epoch.

    Returns:
        The loaded ensemble.

    Raises:
        ConfigError, DataError, LeakError: as for `fit`.
        ClusterError: the cluster cannot be used, or a machine does not see the files.
        TrainingError: the run folder holds another run, or folds failed; finished folds are kept.

    Examples:
        >>> bundle = lk.cross_validate("configs/bijie.yaml", "bijie_tiles.csv", test_ids="test.txt", run="runs/bijie")
    """
    jobs = as_count("jobs", jobs)
    _check_workers(workers, jobs)
    settings, tested = _configuration(config, folds, buffer_m), as_ids("test_ids", test_ids) or ()
    from lim_keras.training.begin import begin_cross_validation
    from lim_keras.training.cross_validation import train_folds

    with run_places(settings, _path("run", run), _path("export", export), wait=wait) as places:
        sources, known = _sources(settings, encoder_weights, start_from), as_tiles(tiles, progress)
        prepared = begin_cross_validation(
            settings, known, run=places.run, test_ids=tested, sources=sources, allow_leak=allow_leak
        )
        _announce(prepared, progress)
        _warm_start(prepared, start_from)
        if workers is None:
            train_folds(prepared, jobs=jobs, encoder_weights=encoder_weights, progress=progress)
        else:
            from lim_keras.training.folds_on_workers import train_folds_on_workers

            train_folds_on_workers(prepared, workers, encoder_weights=encoder_weights, progress=progress)
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
    folds: SplitMethod | None = None,
    buffer_m: float | None = None,
    allow_leak: bool = False,
    wait: bool = False,
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train one small model on the masks and on the probabilities of an ensemble, and export it.

    For each tile, the student learns from the fold model that was not trained on it. From negative tiles
    (`negatives.paths` of the configuration) it learns that there is no landslide; no teacher predicts them.

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
    ensemble, settings = as_path("teacher", teacher), _configuration(config, folds, buffer_m)
    from lim_keras.training.begin import begin_fit

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
            allow_leak=allow_leak,
        )
        _announce(prepared, progress)
        _warm_start(prepared, start_from)
        load_tensorflow()
        from lim_keras.training.distillation import prepare_distillation

        _train(prepared, encoder_weights, progress, prepare_distillation(prepared, ensemble))
        return _finish(prepared, places.bundle, on_result)


def _check_workers(workers: str | None, jobs: int) -> None:
    """Check the arguments `workers` and `jobs` before any work."""
    if workers is None:
        return
    from lim_keras.workers import parse_address

    parse_address(workers)
    if jobs > 1:
        raise ConfigError(
            "`jobs` and `workers` exclude each other. With `workers`, all folds train at the same time, as far as the "
            "cluster has cores or GPUs. Leave `jobs` out."
        )


def _configuration(config: Config, folds: SplitMethod | None, buffer_m: float | None) -> RunConfig:
    """Read and check the configuration of a run before TensorFlow is imported."""
    require_tensorflow()
    from lim_keras.config import RunConfig

    read = config if isinstance(config, RunConfig) else load_config(as_path("config", config))
    return read.model_copy(update={"split": _split(read.split, folds, buffer_m)})


def _split(section: SplitSection, folds: SplitMethod | None, buffer_m: float | None) -> SplitSection:
    """Set method and buffer of a section."""
    from lim_keras.config import LARGEST_BUFFER_M

    if folds not in (None, "random", "spatial"):
        raise ConfigError(
            "Invalid value for argument `folds`. Expected random or spatial; their number is the configuration's key "
            f"`folds`. Received: {folds!r}"
        )
    changes: dict[str, Any] = {} if folds is None else {"method": folds}
    if buffer_m is not None:
        number = as_number("buffer_m", buffer_m)
        if not 0 <= number <= LARGEST_BUFFER_M:
            raise ConfigError(
                f"Invalid value for argument `buffer_m`. Expected metres from 0 to {LARGEST_BUFFER_M:,}. "
                f"Received: {buffer_m}"
            )
        changes["buffer_m"] = number
    changed = section.model_copy(update=changes)
    if buffer_m is not None and changed.method == "random":
        raise ConfigError("Argument `buffer_m` needs spatial folds. Give spatial as `folds`, or no buffer.")
    return changed


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


def _announce(run: Run, progress: ProgressCallback | None) -> None:
    """Print a line on spatial folds to standard error before the training, unless a callback gets the progress."""
    if progress is None and run.split.folds:
        from lim_keras.report.progress import ProgressBar

        ProgressBar().print(run.split.headline)


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
