"""A run folder: the resolved configuration, the tiles with their folds, and what each fold has brought so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lim_keras.config import RunConfig, load_config
from lim_keras.data.statistics import BandStatistics, band_statistics
from lim_keras.data.tiles import TileSet, read_folds
from lim_keras.errors import TrainingError
from lim_keras.files import write_text

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
