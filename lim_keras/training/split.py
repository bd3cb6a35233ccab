"""Split of the tiles of a run: held-out tiles, tiles that a buffer leaves out, and leaks that the user allowed."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lim_keras.config import RunConfig
from lim_keras.data.folds import (
    assign_folds,
    audit_leaks,
    find_leaks,
    listed_leaks,
    spatial_folds,
    spatial_validation,
    validation_split,
)
from lim_keras.data.positions import Positions
from lim_keras.data.spatial_folds import SpatialFolds, locate
from lim_keras.data.split_facts import FoldFacts, SplitFacts
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.training.record import TEST as TEST

SPLIT, FOLD_MAP = "split.json", "folds.png"
"""Files of the run folder: the split of spatial folds or of allowed leaks, and the map of spatial folds."""

HELD_OUT = 0
"""Fold number of the validation tiles in a run of one model; its training tiles have no fold."""


@dataclass(frozen=True)
class SplitTiles:
    """Tiles of a run, split into test tiles and folds.

    Attributes:
        rest: all tiles but the test tiles.
        folds: fold by tile id, as in `Run`.
        split: facts of the split.
        positions: positions of all tiles; None for random folds.
    """

    rest: TileSet
    folds: dict[str, int]
    split: SplitFacts
    positions: Positions | None = None


@dataclass(frozen=True)
class TestSide:
    """Test tiles set apart: the other tiles, the test tiles' ids, and leaks between them that the user allowed."""

    rest: TileSet
    test: tuple[str, ...]
    leaks: tuple[str, ...]


def set_test_apart(tiles: TileSet, test_ids: Collection[str], *, allow_leak: bool) -> TestSide:
    """Set the test tiles apart and look for leaks.

    Raises:
        DataError: unknown ids, or no tile is left.
        LeakError: test tiles share ground, files or groups with others, and `allow_leak` is False.
    """
    if not test_ids:
        return TestSide(tiles, (), ())
    test = tiles.subset(test_ids)
    rest = tiles.without(test.ids)
    if not len(rest):
        raise DataError(f"Every tile of {tiles.root} is a test tile. Expected some to be left for training.")
    if not allow_leak:
        audit_leaks(train=rest, test=test)
        return TestSide(rest, test.ids, ())
    leaks = find_leaks(train=rest, test=test)
    if leaks:
        warnings.warn(
            f"{tiles.root}: test tiles are trained on, as allowed; the scores on the test tiles are flattered and say "
            f"nothing about other places:\n  {listed_leaks(leaks)}",
            LimKerasWarning,
            stacklevel=5,
        )
    return TestSide(rest, test.ids, tuple(leaks))


def split_into_folds(config: RunConfig, tiles: TileSet, apart: TestSide) -> SplitTiles:
    """Assign the tiles to `config.folds` folds; errors as in `assign_folds`."""
    test = dict.fromkeys(apart.test, TEST)
    if config.split.method == "random":
        folds = assign_folds(apart.rest, config.folds, config.seed)
        return SplitTiles(apart.rest, test | folds, SplitFacts(leaks=apart.leaks))
    positions = _locate(config, tiles, apart)
    found = spatial_folds(apart.rest, config.folds, config.seed, config.split, positions)
    return _measured(config, apart, test | found.folds, positions, found)


def split_validation(
    config: RunConfig, tiles: TileSet, apart: TestSide, validation_ids: Collection[str] | None
) -> SplitTiles:
    """Hold validation tiles out: those of `validation_ids`, or `training.validation_fraction` of the tiles."""
    test, fraction = dict.fromkeys(apart.test, TEST), config.training.validation_fraction
    if config.split.method == "random":
        held_out = validation_split(apart.rest, fraction, config.seed) if validation_ids is None else validation_ids
        return SplitTiles(apart.rest, test | _held_out(held_out), SplitFacts(leaks=apart.leaks))
    positions, found = _locate(config, tiles, apart), None
    if validation_ids is None:
        validation_ids, found = spatial_validation(apart.rest, fraction, config.seed, config.split, positions)
    return _measured(config, apart, test | _held_out(validation_ids), positions, found)


def warn_of_shared_ground(train: TileSet, validation: TileSet) -> None:
    """Warn where chosen validation tiles share groups, ground or files with training tiles."""
    leaks = find_leaks(train, validation, "validation")
    if leaks:
        warnings.warn(
            f"{train.root}: validation tiles are trained on in part. Epoch and threshold are chosen on ground that the "
            f"model knows; test tiles are not affected:\n  {listed_leaks(leaks)}",
            LimKerasWarning,
            stacklevel=5,
        )


def _held_out(ids: Collection[str]) -> dict[str, int]:
    return dict.fromkeys(sorted(set(ids)), HELD_OUT)


def _locate(config: RunConfig, tiles: TileSet, apart: TestSide) -> Positions:
    """Read the positions of all tiles; test tiles need one only where a buffer surrounds them."""
    return locate(tiles, tiles.ids if config.split.buffer_m else apart.rest.ids)


def _measured(
    config: RunConfig, apart: TestSide, folds: dict[str, int], positions: Positions, found: SpatialFolds | None
) -> SplitTiles:
    """Apply the buffer to each fold, and measure the folds."""
    buffer_m = config.split.buffer_m
    around = apart.test if buffer_m and not apart.leaks else ()
    numbers = sorted(set(folds.values()) - {TEST})
    facts = {number: _facts(apart.rest, folds, number, positions, around, buffer_m) for number in numbers}
    units, number = ("", 0) if found is None else (found.size, found.units)
    return SplitTiles(apart.rest, folds, SplitFacts("spatial", units, number, buffer_m, facts, apart.leaks), positions)


def _facts(
    rest: TileSet,
    folds: Mapping[str, int],
    fold: int,
    positions: Positions,
    around: tuple[str, ...],
    buffer_m: float,
) -> FoldFacts:
    """Measure a fold; `around` are other tiles that the buffer surrounds."""
    held_out = rest.subset([name for name in rest.ids if folds.get(name) == fold])
    others = rest.without(held_out.ids).ids
    lost = positions.near(others, [*held_out.ids, *around], buffer_m)
    left = set(others) - set(lost)
    labelled = sum(tile.valid_px for tile in held_out)
    return FoldFacts(
        tiles=len(held_out),
        landslide_tiles=len(held_out.of_kind("landslide")),
        landslide_share=sum(tile.landslide_px for tile in held_out) / labelled if labelled else 0.0,
        training_tiles=len(left),
        left_out=tuple(lost),
        nearest_m=positions.distance(held_out.ids, others),
        nearest_training_m=positions.distance(held_out.ids, left),
    )
