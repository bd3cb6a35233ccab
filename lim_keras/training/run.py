"""Run folder: configuration, tiles and folds of a training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from lim_keras.config import RunConfig, Section, fields, load_config
from lim_keras.data.folds import assign_folds, audit_leaks, validation_split
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_folds, write_manifest
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LeakError, TrainingError
from lim_keras.files import write_text

CONFIG, TILES, STATISTICS = "config.yaml", "tiles.csv", "statistics.json"

TEST = -1
"""Fold number of test tiles."""

HELD_OUT = 0
"""Fold number of the validation tiles in a run of one model; its training tiles have no fold."""

RUNS = Path("runs")
"""Parent folder of runs for which no path is given."""

_ONE_SCALE = 1.01
"""Largest ratio between ground sample distances that count as equal."""


@dataclass(frozen=True)
class Run:
    """One training run: its inputs and its folder.

    Attributes:
        folder: the run folder.
        config: configuration with overrides applied.
        tiles: all tiles, test tiles included.
        folds: fold whose model is not trained on a tile; `TEST` for test tiles. Tiles that train all models are absent.
        statistics: band statistics of all tiles but the test tiles.
    """

    folder: Path
    config: RunConfig
    tiles: TileSet
    folds: Mapping[str, int]
    statistics: TileStatistics

    @classmethod
    def open(cls, folder: Path, config: RunConfig, tiles: TileSet, folds: Mapping[str, int]) -> Run:
        """Create the run folder, or resume the run that it holds.

        Raises:
            TrainingError: the folder holds a run with another configuration, other tiles or other folds.
        """
        if (folder / STATISTICS).exists():
            begun = cls.load(folder)
            _check_same(begun, config, folds)
            return begun
        folder.mkdir(parents=True, exist_ok=True)
        config.write(folder / CONFIG)
        write_manifest(tiles, folder / TILES, dict(folds))
        known = TileStatistics.measure(
            tiles.subset([name for name in tiles.ids if folds.get(name) != TEST]), config.seed
        )
        # Written last: it marks a complete run folder.
        write_text(folder / STATISTICS, json.dumps(known.to_dict(), indent=2))
        return cls(folder, config, tiles, dict(folds), known)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run folder; tiles were checked when it was created and are not decoded again."""
        folds = read_folds(folder / TILES)
        statistics = TileStatistics.from_dict(json.loads((folder / STATISTICS).read_text(encoding="utf-8")))
        return cls(folder, load_config(folder / CONFIG), read_tiles(folder / TILES, decode=False), folds, statistics)

    def fold_folder(self, fold: int) -> Path:
        """Folder with history, checkpoints, model and out-of-fold predictions of one fold."""
        return self.folder / f"fold_{fold}"

    @property
    def held_out_folds(self) -> list[int]:
        """Folds to train a model for: all folds of a cross-validation, `HELD_OUT` for a run of one model."""
        return sorted(set(self.folds.values()) - {TEST})

    @property
    def seen_tiles(self) -> TileSet:
        """All but the test tiles."""
        return self._select(lambda fold: fold != TEST)

    @property
    def gsd_m(self) -> float | None:
        """Ground sample distance of the models' input, metres; None if unknown.

        It is `sampling.gsd_m` if set, else the distance common to all tiles (`gsd_m` for files without), else `gsd_m`.
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
        """Share of landslide pixels among labelled pixels of all but the test tiles.

        Pixels are weighted by their ground area. If tiles are resized to one size, every tile has the same weight.
        """
        tiles = [tile for tile in self.seen_tiles if tile.valid_px]
        if self.config.sampling.mode == "resized":
            return float(np.mean([tile.landslide_px / tile.valid_px for tile in tiles]))
        pixel_m2 = np.square([tile.gsd_m or self.config.gsd_m or 1.0 for tile in tiles])
        landslide, labelled = [tile.landslide_px for tile in tiles], [tile.valid_px for tile in tiles]
        return float(np.dot(landslide, pixel_m2) / np.dot(labelled, pixel_m2))

    def training_tiles(self, fold: int) -> TileSet:
        """Tiles that the model of this fold is trained on."""
        return self._select(lambda held_out: held_out not in (TEST, fold))

    def held_out_tiles(self, fold: int) -> TileSet:
        """Tiles that the model of this fold is not trained on."""
        return self._select(lambda held_out: held_out == fold)

    @property
    def test_tiles(self) -> TileSet | None:
        """Test tiles, which no model is trained on; None if there are none."""
        return self._select(lambda fold: fold == TEST) if TEST in self.folds.values() else None

    def _select(self, wanted: Callable[[int | None], bool]) -> TileSet:
        return self.tiles.subset([name for name in self.tiles.ids if wanted(self.folds.get(name))])


def _check_same(begun: Run, config: RunConfig, folds: Mapping[str, int]) -> None:
    if begun.config != config:
        values = {key: attrgetter(key) for key, field in fields() if not isinstance(field.default, Section)}
        differing = [key for key, value in values.items() if value(begun.config) != value(config)]
        raise TrainingError(
            f"{begun.folder} holds a run of another configuration; {', '.join(differing)} differ. "
            "Give another folder as `run`, or the same settings."
        )
    if dict(begun.folds) != dict(folds):
        raise TrainingError(
            f"{begun.folder} holds a run on other tiles or folds. Give another folder as `run`, or the same data."
        )


def begin_fit(
    config: RunConfig,
    tiles: TileSet,
    *,
    run: str | os.PathLike[str] | None = None,
    test_ids: Collection[str] = (),
    validation_ids: Collection[str] | None = None,
) -> Run:
    """Create or resume a run of one model.

    Args:
        config: configuration of the run.
        tiles: all tiles, test and validation tiles included.
        run: run folder; None: runs/<name>.
        test_ids: ids of tiles that no model is trained on.
        validation_ids: ids of tiles that select epoch and threshold; None: `training.validation_fraction` of the tiles.

    Raises:
        DataError: unknown ids, or no landslide tile among the validation or the training tiles.
        LeakError: a test tile is also a validation or training tile.
        TrainingError: the folder holds another run.
    """
    rest, folds = _set_test_apart(tiles, test_ids)
    if validation_ids is None:
        held_out = set(validation_split(rest, config.training.validation_fraction, config.seed))
    else:
        held_out = set(validation_ids)
        _check_validation(tiles.subset(held_out), rest, folds)
    folds |= dict.fromkeys(sorted(held_out), HELD_OUT)
    return _open(run, config, tiles, folds)


def begin_cross_validation(
    config: RunConfig, tiles: TileSet, *, run: str | os.PathLike[str] | None = None, test_ids: Collection[str] = ()
) -> Run:
    """Create or resume a run of `config.folds` models; arguments and errors as in `begin_fit`."""
    rest, folds = _set_test_apart(tiles, test_ids)
    folds |= assign_folds(rest, config.folds, config.seed)
    return _open(run, config, tiles, folds)


def _set_test_apart(tiles: TileSet, test_ids: Collection[str]) -> tuple[TileSet, dict[str, int]]:
    if not test_ids:
        return tiles, {}
    test = tiles.subset(test_ids)
    rest = tiles.without(test.ids)
    if not len(rest):
        raise DataError(f"Every tile of {tiles.root} is a test tile. Expected some to be left for training.")
    audit_leaks(train=rest, test=test)
    return rest, dict.fromkeys(test.ids, TEST)


def _check_validation(validation: TileSet, rest: TileSet, test: Collection[str]) -> None:
    both = sorted(set(test) & set(validation.ids))
    if both:
        raise LeakError(f"{len(both)} validation tiles are test tiles too, such as {', '.join(both[:20])}.")
    training = rest.without(validation.ids)
    for tiles, name in ((validation, "the validation tiles"), (training, "the tiles left for training")):
        if not len(tiles.of_kind("landslide")):
            raise DataError(f"Expected landslide tiles among {name}. Received: none in {len(tiles)}")


def _open(run: str | os.PathLike[str] | None, config: RunConfig, tiles: TileSet, folds: dict[str, int]) -> Run:
    return Run.open(RUNS / config.name if run is None else Path(run), config, tiles, folds)
