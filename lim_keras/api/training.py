"""Train models and export them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lim_keras.api.arguments import StrPath, TileIds, as_ids, as_path, public
from lim_keras.api.data import as_tiles
from lim_keras.errors import ConfigError
from lim_keras.tensorflow_import import load_tensorflow, require_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.config import RunConfig
    from lim_keras.data.tiles import TileSet
    from lim_keras.progress import ProgressCallback
    from lim_keras.training.finalize import RunResult
    from lim_keras.training.run import Run

    Config = RunConfig | StrPath
    Tiles = TileSet | StrPath
    OnResult = Callable[[RunResult], object]


@public
def load_config(path: StrPath, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run.

    Args:
        path: YAML file.
        overrides: `key=value` each, such as "training.epochs=3"; of one key, the last wins.

    Raises:
        ConfigError: unknown keys or invalid values; the message names each with what was expected.

    Examples:
        >>> config = lk.load_config("configs/bijie_edge.yaml", ["training.epochs=3"])
    """
    from lim_keras.config import load_config as load

    return load(as_path("path", path), overrides)


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
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train one model, choose its threshold on the validation tiles, score it on the test tiles, and export it.

    Called again with the same arguments, a run that was interrupted continues after its last complete epoch.

    Args:
        config: configuration, or its YAML file.
        tiles: tiles, or where they are; see `read_tiles`.
        test_ids: ids of tiles that no model may see, or a file of them; None: no test tiles.
        validation_ids: ids of the tiles that choose epoch and threshold, or a file of them; None:
            `training.validation_fraction` of the tiles, whole groups.
        run: run folder; None: runs/NAME, as the configuration is named.
        export: folder of the bundle; None: exported_models/NAME.
        encoder_weights: "imagenet", "none" or a file; None: as the configuration says.
        start_from: bundle of one model whose weights training starts from; it must not have seen test or validation
            tiles.
        on_result: called with the scores before the bundle is loaded.
        progress: receives the progress; None: a bar on a terminal, a line an epoch elsewhere.

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
    prepared = _begin_fit(config, tiles, run, export, test_ids, validation_ids, progress)
    _train_one(prepared, encoder_weights, start_from, progress)
    return _finish(prepared, export, on_result)


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
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train k models by stratified, grouped cross-validation, and export them with their ensemble (FCN-FLK).

    Threshold and temperature come from out-of-fold predictions. Each fold is trained in a process of its own. Called
    again with the same arguments, only unfinished folds are trained. A script must guard the call with
    `if __name__ == "__main__":`, as the processes import it.

    Args:
        config: configuration, or its YAML file.
        tiles: tiles, or where they are; see `read_tiles`.
        test_ids: ids of tiles that no model may see, or a file of them; None: no test tiles.
        run: run folder; None: runs/NAME, as the configuration is named.
        export: folder of the bundle; None: exported_models/NAME.
        jobs: folds trained at a time.
        encoder_weights: "imagenet", "none" or a file; None: as the configuration says.
        start_from: bundle of one model whose weights each fold starts from; it must not have seen any tile of the run.
        on_result: called with the scores before the bundle is loaded.
        progress: receives the number of finished folds; None: a bar on a terminal, a line an epoch elsewhere.

    Returns:
        The loaded ensemble.

    Raises:
        ConfigError, DataError, LeakError: as for `fit`.
        TrainingError: the run folder holds another run, or folds failed; the others are kept.

    Examples:
        >>> bundle = lk.cross_validate("configs/bijie.yaml", "bijie_tiles.csv", test_ids="test.txt", run="runs/bijie")
    """
    if jobs < 1:
        raise ConfigError(f"Invalid value for `jobs`. Expected 1 or more. Received: {jobs}.")
    require_tensorflow()  # each fold is a process of its own and would fail by itself
    from lim_keras.training.run import begin_cross_validation

    _check_export(export)
    prepared = begin_cross_validation(
        _config(config), as_tiles(tiles, progress), run=run, test_ids=as_ids("test_ids", test_ids) or ()
    )
    _warm_start(prepared, start_from)
    from lim_keras.training.cross_validation import train_folds

    train_folds(prepared, jobs=jobs, encoder_weights=encoder_weights, progress=progress)
    return _finish(prepared, export, on_result)


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
    on_result: OnResult | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Train one small model on the masks and on the probabilities of an ensemble, and export it.

    For each tile, the student learns from the fold model that was not trained on it.

    Args:
        teacher: folder of a bundle that `cross_validate` exported.
        config: configuration, or its YAML file; its section `distillation` weights the teacher.
        tiles: tiles, or where they are; see `read_tiles`.
        test_ids: as for `fit`, and so are all arguments that follow.

    Returns:
        The loaded bundle.

    Raises:
        BundleError: the teacher takes other images, or does not know which fold has not seen a tile.
        ConfigError: the sampling or augmentation does not allow a teacher.
        DataError, LeakError, TrainingError: as for `fit`.

    Examples:
        >>> student = lk.distill("exported_models/bijie", "configs/edge.yaml", "bijie_tiles.csv", test_ids="test.txt")
    """
    ensemble = as_path("teacher", teacher)
    prepared = _begin_fit(config, tiles, run, export, test_ids, validation_ids, progress)
    _train_one(prepared, encoder_weights, start_from, progress, ensemble)
    return _finish(prepared, export, on_result)


def _begin_fit(
    config: Config,
    tiles: Tiles,
    run: StrPath | None,
    export: StrPath | None,
    test_ids: TileIds | None,
    validation_ids: TileIds | None,
    progress: ProgressCallback | None,
) -> Run:
    require_tensorflow()  # before the tiles are read
    from lim_keras.training.run import begin_fit

    _check_export(export)
    return begin_fit(
        _config(config),
        as_tiles(tiles, progress),
        run=run,
        test_ids=as_ids("test_ids", test_ids) or (),
        validation_ids=as_ids("validation_ids", validation_ids),
    )


def _train_one(
    run: Run,
    encoder_weights: str | None,
    start_from: StrPath | None,
    progress: ProgressCallback | None,
    teacher: Path | None = None,
) -> None:
    load_tensorflow()
    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.run import HELD_OUT

    _warm_start(run, start_from)
    distillation = None
    if teacher is not None:
        from lim_keras.training.distillation import prepare_distillation

        distillation = prepare_distillation(run, teacher)
    train_fold(run, HELD_OUT, encoder_weights=encoder_weights, distillation=distillation, progress=progress)


def _warm_start(run: Run, bundle: StrPath | None) -> None:
    if bundle is not None:
        load_tensorflow()
        from lim_keras.training.warm_start import prepare_warm_start

        prepare_warm_start(run, as_path("start_from", bundle))


def _finish(run: Run, export: StrPath | None, on_result: OnResult | None) -> Bundle:
    load_tensorflow()
    from lim_keras.bundle.saved_model import load_bundle
    from lim_keras.training.finalize import finalize

    result = finalize(run, export)
    if on_result is not None:
        on_result(result)
    return load_bundle(result.bundle)


def _config(config: Config) -> RunConfig:
    from lim_keras.config import RunConfig

    return config if isinstance(config, RunConfig) else load_config(config)


def _check_export(folder: StrPath | None) -> None:
    """Refuse a folder before training rather than after it."""
    from lim_keras.bundle.info import check_bundle_folder

    if folder is not None:
        check_bundle_folder(as_path("export", folder))
