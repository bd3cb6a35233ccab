"""From files on disk to a run that is ready to train: configuration, checked tiles, folds, and the leak audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lim_keras.config import RunConfig, load_config
from lim_keras.data.folds import assign_folds, audit_leaks, validation_split
from lim_keras.data.tiles import TileSet, read_tile_ids
from lim_keras.errors import DataError, LeakError
from lim_keras.training.run import HELD_OUT, TEST, Run

RUNS = Path("runs")


def begin_fit(
    config: Path,
    data: Path,
    *,
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    test: Path | None = None,
    validation: Path | None = None,
) -> Run:
    """A run of one model.

    Args:
        config: YAML configuration.
        data: tiles, see `TileSet.read`.
        folder: of the run; None is runs/<name>.
        overrides: `key=value` each.
        test: list of the ids that no model may see.
        validation: list of the ids that choose epoch and threshold; None splits `training.validation_fraction` off.

    Raises:
        LimKerasError: bad configuration, bad data, or a leak between the lists.
    """
    settings = load_config(config, overrides)
    tiles, rest, folds = _set_test_apart(data, test)
    if validation is None:
        held_out = set(validation_split(rest, settings.training.validation_fraction, settings.seed))
    else:
        held_out = set(read_tile_ids(validation))
        _refuse_both(held_out, folds, validation)
        _check_kinds(tiles.subset(held_out), rest.without(held_out), validation)
    folds |= dict.fromkeys(sorted(held_out), HELD_OUT)
    return _open(folder, settings, tiles, folds)


def begin_cross_validation(
    config: Path, data: Path, *, folder: Path | None = None, overrides: Sequence[str] = (), test: Path | None = None
) -> Run:
    """A run of `folds` models; arguments and errors as in `begin_fit`."""
    settings = load_config(config, overrides)
    tiles, rest, folds = _set_test_apart(data, test)
    folds |= assign_folds(rest, settings.folds, settings.seed)
    return _open(folder, settings, tiles, folds)


def _set_test_apart(data: Path, test: Path | None) -> tuple[TileSet, TileSet, dict[str, int]]:
    tiles = TileSet.read(data, progress=True)
    if test is None:
        return tiles, tiles, {}
    apart = tiles.subset(read_tile_ids(test))
    rest = tiles.without(apart.ids)
    if not len(rest):
        raise DataError(f"{test}: names every tile of {data}. Expected some to be left for training.")
    audit_leaks(train=rest, test=apart)
    return tiles, rest, dict.fromkeys(apart.ids, TEST)


def _refuse_both(held_out: set[str], folds: dict[str, int], validation: Path) -> None:
    both = sorted(held_out & folds.keys())
    if both:
        raise LeakError(
            f"{validation}: {len(both)} validation tiles are test tiles too, such as {', '.join(both[:20])}."
        )


def _check_kinds(held_out: TileSet, training: TileSet, validation: Path) -> None:
    for tiles, part in ((held_out, "the validation tiles"), (training, "what they leave for training")):
        if not len(tiles.of_kind("landslide")):
            raise DataError(f"{validation}: expected landslide tiles among {part}. Received: none in {len(tiles)}")


def _open(folder: Path | None, config: RunConfig, tiles: TileSet, folds: dict[str, int]) -> Run:
    return Run.open(folder or RUNS / config.name, config, tiles, folds)
