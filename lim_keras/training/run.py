"""Run folder: configuration, tiles and folds of a training."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from operator import attrgetter
from pathlib import Path

import numpy as np

from lim_keras.config import RunConfig, Section, fields
from lim_keras.config_file import load_config
from lim_keras.data.contents import tile_contents
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import manifest_text, read_folds
from lim_keras.data.split_facts import SplitFacts
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import TileSet
from lim_keras.errors import LimKerasError, LimKerasWarning, TrainingError
from lim_keras.files import make_folder, write_text
from lim_keras.ownership import check_replaceable_files, file_hash
from lim_keras.seals import check_sealed
from lim_keras.training.negatives import FOLDER as NEGATIVES
from lim_keras.training.record import CONFIG as CONFIG
from lim_keras.training.record import RECORD, RunRecord, Sources
from lim_keras.training.record import STATISTICS as STATISTICS
from lim_keras.training.record import SUMMARIES as SUMMARIES
from lim_keras.training.record import TILES as TILES
from lim_keras.training.split import (
    FOLD_MAP,
    SPLIT,
)
from lim_keras.training.split import HELD_OUT as HELD_OUT
from lim_keras.training.split import TEST as TEST

START, TEACHER, CURVES = "start", "teacher", "curves.png"
"""Names in the run folder: weights of a warm start (`weights.npz`, in the order of the network, and `start.json`),
predictions of a teacher, and the training curves."""

RUNS, EXPORTS = Path("runs"), Path("exported_models")
"""Parent folders of runs and of bundles for which no path is given."""

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
        split: tiles that a buffer leaves out, and other facts of spatial folds and allowed leaks.
    """

    folder: Path
    config: RunConfig
    tiles: TileSet
    folds: Mapping[str, int]
    statistics: TileStatistics
    split: SplitFacts = field(default_factory=SplitFacts)

    @classmethod
    def open(
        cls,
        folder: Path,
        config: RunConfig,
        tiles: TileSet,
        folds: Mapping[str, int],
        sources: Sources | None = None,
        split: SplitFacts | None = None,
    ) -> Run:
        """Create the run folder, or resume the run that it holds, with the split that it holds.

        Raises:
            TrainingError: the folder holds a run with another configuration, other folds, tiles whose files have
                changed, or other weights; or it holds files of the user that the run would replace.
        """
        contents = tile_contents(tiles)
        if (folder / STATISTICS).exists():
            return cls._resume(folder, config, tiles, folds, RunRecord({}, contents, sources))
        return cls._begin(folder, config, tiles, folds, RunRecord({}, contents, sources), split or SplitFacts())

    @classmethod
    def _begin(
        cls,
        folder: Path,
        config: RunConfig,
        tiles: TileSet,
        folds: Mapping[str, int],
        record: RunRecord,
        split: SplitFacts,
    ) -> Run:
        begun = RunRecord.read(folder)
        _check_free(folder, begun)
        known = TileStatistics.measure(
            tiles.subset([name for name in tiles.ids if folds.get(name) != TEST]), config.seed
        )
        make_folder(folder, "run")
        for name in () if begun is None else begun.files:  # left by a call that was killed at its start
            (folder / name).unlink(missing_ok=True)
        texts = {
            CONFIG: config.to_yaml(),
            TILES: manifest_text(tiles, folder, dict(folds)),
            **({SPLIT: text} if (text := split.to_json()) else {}),
            STATISTICS: json.dumps(known.to_dict(), indent=2),  # written last: it marks a complete run folder
        }
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
        replace(record, files=digests).write(folder)
        for name, text in texts.items():
            write_text(folder / name, text)
        return cls(folder, config, tiles, dict(folds), known, split)

    @classmethod
    def _resume(
        cls, folder: Path, config: RunConfig, tiles: TileSet, folds: Mapping[str, int], present: RunRecord
    ) -> Run:
        record = RunRecord.read(folder)
        if record is not None:
            record.check_files(folder)
        elif not _is_config(folder / CONFIG):
            _check_free(folder, None)
        _check_same(folder, config, folds)
        if record is None:
            _adopt(folder, present)
            return cls.load(folder)
        record.check_sources(folder, present.sources)
        check_sealed(folder, [CURVES, FOLD_MAP, *SUMMARIES], "run")
        record.check_tiles(folder, tiles, present.tiles)
        begun = cls.load(folder)
        if [(one.image, one.mask) for one in begun.tiles] != [(one.image, one.mask) for one in tiles]:
            record.check_tiles(folder, begun.tiles, tile_contents(begun.tiles))
        return begun

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run folder; tiles were checked when it was created and are not decoded again."""
        folds = read_folds(folder / TILES)
        statistics = TileStatistics.from_dict(json.loads((folder / STATISTICS).read_text(encoding="utf-8")))
        tiles, record = read_tiles(folder / TILES, decode=False), RunRecord.read(folder)
        written = record is not None and SPLIT in record.files  # else the file, if any, is the user's
        split = SplitFacts.read(folder / SPLIT) if written else SplitFacts()
        return cls(folder, load_config(folder / CONFIG), tiles, folds, statistics, split)

    def check_tiles(self) -> None:
        """Raise TrainingError if files of the tiles changed since the run began, for example while it trained."""
        record = RunRecord.read(self.folder)
        if record is not None:
            record.check_tiles(self.folder, self.tiles, tile_contents(self.tiles))

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
        return self._select(lambda held_out: held_out not in (TEST, fold)).without(self.split.left_out(fold))

    def held_out_tiles(self, fold: int) -> TileSet:
        """Tiles that the model of this fold is not trained on."""
        return self._select(lambda held_out: held_out == fold)

    @property
    def test_tiles(self) -> TileSet | None:
        """Test tiles, which no model is trained on; None if there are none."""
        return self._select(lambda fold: fold == TEST) if TEST in self.folds.values() else None

    def _select(self, wanted: Callable[[int | None], bool]) -> TileSet:
        return self.tiles.subset([name for name in self.tiles.ids if wanted(self.folds.get(name))])


def _check_free(folder: Path, begun: RunRecord | None) -> None:
    """Refuse a folder with files that a run would replace and that no earlier call wrote."""
    names: tuple[str, ...] = (CONFIG, TILES, SPLIT, STATISTICS, RECORD, START, TEACHER, NEGATIVES, CURVES, FOLD_MAP)
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    names += (*SUMMARIES, "fold_*")
    there = [found for name in names for found in present if fnmatch(found, name)]  # glob misses links to nothing
    ours = {} if begun is None else {**begun.files, RECORD: file_hash(folder / RECORD)}
    check_replaceable_files(folder, there, ours, argument="run")


def _is_config(path: Path) -> bool:
    try:
        load_config(path)
    except LimKerasError:
        return False
    return True


def _adopt(folder: Path, present: RunRecord) -> None:
    """Record the files of a run of an earlier version, which kept no record."""
    warnings.warn(
        f"{folder}: the run was begun by an earlier version, which did not record the contents of tiles. Changes of "
        "tiles until now cannot be found; later changes will be.",
        LimKerasWarning,
        stacklevel=4,
    )
    digests = {name: file_hash(folder / name) for name in (CONFIG, TILES, STATISTICS)}
    replace(present, files=digests).write(folder)


def check_begun(folder: Path, config: RunConfig, tiles: TileSet, present: RunRecord, test_ids: Collection[str]) -> bool:
    """Tell whether a folder holds a run, and check that it is one of this configuration, of these tiles and weights.

    Args:
        present: contents of the tiles, and the weights, as they are now; `files` is not used.
        test_ids: ids of the tiles that no model is trained on.

    Raises:
        TrainingError: it is another run, or its tiles changed since it began.
        DataError: the folder holds files of the user that a run would replace.
    """
    if not (folder / STATISTICS).exists():
        _check_free(folder, RunRecord.read(folder))
        return False
    record = RunRecord.read(folder)
    if record is not None:
        record.check_files(folder)
    elif not _is_config(folder / CONFIG):
        _check_free(folder, None)
    _check_config(folder, config)
    if record is not None:
        record.check_sources(folder, present.sources)
        record.check_tiles(folder, tiles, present.tiles)
    if {name for name, fold in read_folds(folder / TILES).items() if fold == TEST} != set(test_ids):
        raise TrainingError(f"{folder} holds a run with other test tiles. Give another folder as `run`, or the same.")
    return True


def _check_same(folder: Path, config: RunConfig, folds: Mapping[str, int]) -> None:
    _check_config(folder, config)
    if read_folds(folder / TILES) != dict(folds):
        raise TrainingError(
            f"{folder} holds a run on other tiles or folds. Give another folder as `run`, or the same data."
        )


def _check_config(folder: Path, config: RunConfig) -> None:
    begun = load_config(folder / CONFIG)
    if begun != config:
        values = {key: attrgetter(key) for key, field in fields() if not isinstance(field.default, Section)}
        differing = [key for key, value in values.items() if value(begun) != value(config)]
        raise TrainingError(
            f"{folder} holds a run of another configuration; {', '.join(differing)} differ. "
            "Give another folder as `run`, or the same settings."
        )
