"""Beginning of a run: the split of its tiles, checked, and its folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from lim_keras.config import RunConfig
from lim_keras.data.folds import check_classes
from lim_keras.data.photometric import check_photometric
from lim_keras.data.tiles import TileSet
from lim_keras.errors import LeakError
from lim_keras.training.negatives import keep_negatives, read_run_negatives, warn_of_copies
from lim_keras.training.record import Sources
from lim_keras.training.run import RUNS, Run
from lim_keras.training.split import (
    FOLD_MAP,
    HELD_OUT,
    SplitTiles,
    set_test_apart,
    split_into_folds,
    split_validation,
    warn_of_shared_ground,
)

_LABEL = "In masks, landslide is 1 (or 255) and background is 0. Give tiles of both classes."
_CHOOSE = "Choose other tiles as `validation_ids`, with both classes on both sides, or give more tiles with landslides."
_MARK_EMPTY = (
    "Give the kind non-landslide to tiles without landslide pixels, set the configuration's key folds to a lower "
    "number, or give more tiles with landslides."
)
"""Cures of tiles without pixels of a class: in the whole set, on one side of a validation split, in a fold."""


def begin_fit(
    config: RunConfig,
    tiles: TileSet,
    *,
    run: str | os.PathLike[str] | None = None,
    test_ids: Collection[str] = (),
    validation_ids: Collection[str] | None = None,
    sources: Sources | None = None,
    allow_leak: bool = False,
) -> Run:
    """Create or resume a run of one model.

    Args:
        config: configuration of the run.
        tiles: all tiles, test and validation tiles included.
        run: run folder; None: runs/<name>.
        test_ids: ids of tiles that no model is trained on.
        validation_ids: ids of tiles that select epoch and threshold; None: `training.validation_fraction` of the tiles.
        sources: weights that the run uses; None: a resumed run is not compared with them.
        allow_leak: warn where test tiles share ground with others, instead of an error.

    Raises:
        DataError: unknown ids, no landslide tile among the validation or the training tiles, or, for spatial folds,
            tiles without a position or in too few places.
        LeakError: a test tile is also a validation tile, or shares id, file, content, group or ground with other tiles.
        TrainingError: the folder holds another run.
    """
    apart = set_test_apart(tiles, test_ids, allow_leak=allow_leak)
    check_classes(apart.rest, "the tiles", _LABEL)
    if validation_ids is not None:
        _check_validation(tiles.subset(validation_ids), apart.test)
    parts = split_validation(config, tiles, apart, validation_ids)
    held_out = [name for name, fold in parts.folds.items() if fold == HELD_OUT]
    training = apart.rest.without(held_out).without(parts.split.left_out(HELD_OUT))
    check_classes(apart.rest.subset(held_out), "the validation tiles", _CHOOSE)
    check_classes(training, f"the tiles left for training{_beyond(parts, HELD_OUT)}", _cure(parts, HELD_OUT, _CHOOSE))
    if validation_ids is not None:
        warn_of_shared_ground(training, apart.rest.subset(held_out))
    return _open(_folder(run, config), config, tiles, parts, sources)


def begin_cross_validation(
    config: RunConfig,
    tiles: TileSet,
    *,
    run: str | os.PathLike[str] | None = None,
    test_ids: Collection[str] = (),
    sources: Sources | None = None,
    allow_leak: bool = False,
) -> Run:
    """Create or resume a run of `config.folds` models; arguments and errors as in `begin_fit`."""
    apart = set_test_apart(tiles, test_ids, allow_leak=allow_leak)
    check_classes(apart.rest, "the tiles", _LABEL)
    parts = split_into_folds(config, tiles, apart)
    for fold in range(config.folds):
        held_out = apart.rest.subset([name for name, of in parts.folds.items() if of == fold])
        training = apart.rest.without(held_out.ids).without(parts.split.left_out(fold))
        check_classes(held_out, f"the tiles of each fold, fold {fold}", _MARK_EMPTY)
        part = f"the training tiles of each fold, fold {fold}{_beyond(parts, fold)}"
        check_classes(training, part, _cure(parts, fold, _MARK_EMPTY))
    return _open(_folder(run, config), config, tiles, parts, sources)


def _beyond(parts: SplitTiles, fold: int) -> str:
    """Name the tiles that the buffer of a fold leaves out, for an error."""
    lost = len(parts.split.left_out(fold))
    return f" ({lost} tiles are left out, because they overlap held-out tiles or lie in the buffer)" if lost else ""


def _cure(parts: SplitTiles, fold: int, otherwise: str) -> str:
    return "Give a smaller buffer as `buffer_m`, or more tiles." if parts.split.left_out(fold) else otherwise


def _open(folder: Path, config: RunConfig, tiles: TileSet, parts: SplitTiles, sources: Sources | None) -> Run:
    """Open the run folder, and draw the map of spatial folds into it."""
    check_photometric(config.photometric, tiles.bands, tiles.dtype)
    negatives = read_run_negatives(config, tiles)
    warn_of_copies(folder, negatives, tiles)
    run = Run.open(folder, config, tiles, parts.folds, sources, parts.split)
    keep_negatives(folder, negatives)
    if parts.positions is not None and not (folder / FOLD_MAP).is_file():
        from lim_keras.report.folds import fold_map

        fold_map(tiles, parts.positions, run.folds, run.split.all_left_out, folder / FOLD_MAP)
    return run


def _check_validation(validation: TileSet, test: Collection[str]) -> None:
    both = sorted(set(test) & set(validation.ids))
    if both:
        raise LeakError(f"{len(both)} validation tiles are test tiles too, such as {', '.join(both[:20])}.")


def _folder(run: str | os.PathLike[str] | None, config: RunConfig) -> Path:
    return RUNS / config.name if run is None else Path(run)
