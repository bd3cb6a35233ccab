"""Run folder, and preparing a run from configuration and tiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lim_keras.config import RunConfig, load_config
from lim_keras.data.band_statistics import BandStatistics, band_statistics
from lim_keras.data.folds import assign_folds, audit_leaks, validation_split
from lim_keras.data.manifest import read_folds
from lim_keras.data.tiles import TileSet, read_tile_ids
from lim_keras.errors import DataError, LeakError, TrainingError
from lim_keras.files import write_text
from lim_keras.report.progress import ProgressBar

CONFIG, TILES, STATISTICS = "config.yaml", "tiles.csv", "statistics.json"

TEST = -1

HELD_OUT = 0
"""In a run of one model: the fold of its validation tiles; its training tiles are of no fold."""

OUT_OF_FOLD = "out_of_fold"
"""In the folder of a fold: `<tile>.npz` with `logit` (height, width) float16 and `mask`, what it is judged by."""

_ONE_SCALE = 1.01
"""Up to this ratio tiles have one ground sample distance."""


@dataclass(frozen=True)
class Run:
    """A run that is under way.

    folder: where it writes. config: what it does. tiles: all tiles, the test tiles too. folds: the fold that a tile is
    held out from, `TEST` for test tiles; tiles that every model may see are left out. statistics: bands of the tiles
    that are not test tiles.
    """

    folder: Path
    config: RunConfig
    tiles: TileSet
    folds: Mapping[str, int]
    statistics: BandStatistics

    @classmethod
    def open(cls, folder: Path, config: RunConfig, tiles: TileSet, folds: Mapping[str, int]) -> Run:
        """Begin a run in `folder`, or go on with the same one.

        Raises:
            TrainingError: the folder holds a run of another configuration, or of other tiles or folds.
        """
        if (folder / STATISTICS).exists():
            begun = cls.load(folder)
            _check_same(begun, config, folds)
            return begun
        folder.mkdir(parents=True, exist_ok=True)
        config.write(folder / CONFIG)
        tiles.write_manifest(folder / TILES, dict(folds))
        known = band_statistics(tiles.subset([name for name in tiles.ids if folds.get(name) != TEST]), config.seed)
        # Written last: a folder without it was not begun.
        write_text(folder / STATISTICS, json.dumps(known.to_dict(), indent=2))
        return cls(folder, config, tiles, dict(folds), known)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run that was begun; its tiles, which were checked then, are where the manifest says that they lie."""
        folds = read_folds(folder / TILES)
        statistics = BandStatistics.from_dict(json.loads((folder / STATISTICS).read_text(encoding="utf-8")))
        return cls(folder, load_config(folder / CONFIG), TileSet.read(folder / TILES, decode=False), folds, statistics)

    def fold_folder(self, fold: int) -> Path:
        """Where a fold keeps its history, checkpoints, model and out-of-fold probabilities."""
        return self.folder / f"fold_{fold}"

    @property
    def held_out_folds(self) -> list[int]:
        """Folds that a model is trained for: all of a cross-validation, the first of a single fit."""
        return sorted(set(self.folds.values()) - {TEST})

    @property
    def seen_tiles(self) -> TileSet:
        """All but the test tiles."""
        return self._where(lambda of_tile: of_tile != TEST)

    @property
    def gsd_m(self) -> float | None:
        """Ground sample distance of what the models see, metres; None: not known, or not the same in all tiles.

        That of `sampling`, else the one that the tiles' files say, where a file does not say that of the configuration.
        """
        config = self.config
        if config.sampling.gsd_m is not None:
            return config.sampling.gsd_m
        found = [distance for tile in self.seen_tiles if (distance := tile.gsd_m or config.gsd_m) is not None]
        if len(found) == len(self.seen_tiles) and max(found) <= _ONE_SCALE * min(found):
            return float(np.median(found))
        return config.gsd_m

    @property
    def landslide_share(self) -> float:
        """Landslide over labelled pixels of all but the test tiles, as the run's models see them.

        By ground that they cover, or, where whole tiles are resized to one size, by tile.
        """
        tiles = [tile for tile in self.seen_tiles if tile.valid_px]
        if self.config.sampling.mode == "resized":
            return float(np.mean([tile.landslide_px / tile.valid_px for tile in tiles]))
        pixel_m2 = np.square([tile.gsd_m or self.config.gsd_m or 1.0 for tile in tiles])
        landslide, labelled = [tile.landslide_px for tile in tiles], [tile.valid_px for tile in tiles]
        return float(np.dot(landslide, pixel_m2) / np.dot(labelled, pixel_m2))

    def training_tiles(self, fold: int) -> TileSet:
        """Tiles that the model of this fold may see."""
        return self._where(lambda of_tile: of_tile not in (TEST, fold))

    def held_out_tiles(self, fold: int) -> TileSet:
        """Tiles that the model of this fold has not been fitted to."""
        return self._where(lambda of_tile: of_tile == fold)

    @property
    def test_tiles(self) -> TileSet | None:
        """Tiles that no model has seen; None where none were named."""
        return self._where(lambda of_tile: of_tile == TEST) if TEST in self.folds.values() else None

    def _where(self, wanted: Any) -> TileSet:
        return self.tiles.subset([name for name in self.tiles.ids if wanted(self.folds.get(name))])


def _check_same(begun: Run, config: RunConfig, folds: Mapping[str, int]) -> None:
    if begun.config.digest() != config.digest():
        differing = _differences(begun.config.model_dump(), config.model_dump())
        raise TrainingError(
            f"{begun.folder} holds a run of another configuration; {', '.join(differing)} differ. "
            "Give another folder with --run, or the same settings."
        )
    if dict(begun.folds) != dict(folds):
        raise TrainingError(
            f"{begun.folder} holds a run on other tiles or folds. Give another folder with --run, or the same data."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in now.items():
        other = before.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += _differences(other, value, f"{prefix}{key}.")
        elif value != other:
            found.append(f"{prefix}{key}")
    return found


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
    tiles = TileSet.read(data, ProgressBar())
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
