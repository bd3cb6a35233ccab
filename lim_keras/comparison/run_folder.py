"""Read run folders, finished or not, without their tiles and without TensorFlow."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from lim_keras.comparison.recorded_scores import RecordedScores, read_recorded_scores
from lim_keras.config import RunConfig, Section, fields
from lim_keras.config_file import load_config
from lim_keras.data.manifest import Candidate, read_candidates
from lim_keras.errors import ConfigError, DataError
from lim_keras.training.record import CONFIG, SUMMARIES, TEST, TILES, RunRecord

_MODEL, _OUT_OF_FOLD, _STATE = "model.keras", "out_of_fold", "checkpoints/state.json"

_DIGITS = 8

History = Mapping[str, Sequence[float]]
"""Values of each epoch, by column."""


@dataclass(frozen=True)
class TrainedModel:
    """Model of a fold, or the only model.

    Attributes:
        fold: its fold.
        is_finished: True if it is trained and has predicted its held-out tiles.
        history: columns of `history.csv`; empty before the end of the first epoch.
        keras_version: version of Keras that stored the model; "" if unknown.
    """

    fold: int
    is_finished: bool
    history: History
    keras_version: str

    @property
    def epochs(self) -> int:
        """Number of complete epochs."""
        return len(self.history.get("epoch", ()))

    @property
    def seconds(self) -> float:
        """Time of the complete epochs, seconds."""
        return math.fsum(one for one in self.history.get("seconds", ()) if math.isfinite(one))

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch with the highest validation F1, from 1; None before the first."""
        scores = [-1.0 if math.isnan(one) else one for one in self.history.get("val_f1", ())]
        return scores.index(max(scores)) + 1 if scores else None


@dataclass(frozen=True)
class RunFolder:
    """Content of a run folder.

    Attributes:
        folder: the folder.
        label: name that tells it from other runs.
        config: configuration of the run.
        tiles: lines of its manifest, test tiles included; their files are not opened.
        folds: fold of a tile, -1 for test tiles; tiles that train all models are absent.
        record: hashes of the tiles, and the weights that the run began with; None for runs of earlier versions.
        models: its models, by fold.
        scores: scores of a finished run; None before.
    """

    folder: Path
    label: str
    config: RunConfig
    tiles: tuple[Candidate, ...]
    folds: Mapping[str, int]
    record: RunRecord | None
    models: tuple[TrainedModel, ...]
    scores: RecordedScores | None

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Ids of the test tiles."""
        return tuple(tile.tile_id for tile in self.tiles if self.folds.get(tile.tile_id) == TEST)

    @property
    def settings(self) -> dict[str, Any]:
        """Value of every key by its dotted name, with the encoder weights that the run really began with."""
        keys = [key for key, field in fields() if not isinstance(field.default, Section) and key != "name"]
        values = {key: attrgetter(key)(self.config) for key in keys}
        weights = "" if self.record is None or self.record.sources is None else self.record.sources.encoder_weights
        if weights:
            known = weights if weights in ("imagenet", "none") else f"file {weights[:_DIGITS]}"
            values["model.encoder_weights"] = known
        return values

    @property
    def is_single(self) -> bool:
        """True for a run of one model."""
        return len(self.models) == 1

    @property
    def kind(self) -> str:
        """Kind of the run in words."""
        if not self.is_single:
            return f"{len(self.models)} folds"
        taught = self.record is not None and self.record.sources is not None and self.record.sources.teacher
        return "one model, distilled" if taught else "one model"

    @property
    def state(self) -> str:
        """State of the training in words."""
        if self.scores is not None:
            return "finished"
        epochs = self.config.training.epochs
        done = sum(model.is_finished for model in self.models)
        begun = [model for model in self.models if model.epochs and not model.is_finished]
        parts = [] if self.is_single else [f"{done} of {len(self.models)} folds"]
        parts += [f"{'' if self.is_single else f'fold {one.fold}: '}{one.epochs} of {epochs} epochs" for one in begun]
        return f"not finished: {', '.join(parts) or ('trained' if done else 'no epoch yet')}"

    @property
    def data_digest(self) -> str:
        """Digest of the contents of all tiles; "" if unknown. Runs of equal digests saw the same images and masks."""
        return "" if self.record is None else self.digest(self.record.tiles)

    def digest(self, tile_ids: Iterable[str]) -> str:
        """Return the digest of the contents of some tiles; "" if unknown."""
        if self.record is None or not self.record.tiles:
            return ""
        contents = [(name, self.content(name)) for name in sorted(tile_ids)]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:_DIGITS]

    def content(self, tile_id: str) -> tuple[str, str]:
        """Return the hashes of a tile's image and mask; "" where unknown."""
        known = {} if self.record is None else self.record.tiles.get(tile_id, {})
        return str(known.get("image", "")), str(known.get("mask", ""))


def read_run_folders(paths: Sequence[Path]) -> list[RunFolder]:
    """Read run folders, and give each a label of its own; a folder that is given twice is read once.

    Raises:
        DataError: a path is no run folder, or a file of it cannot be read.
    """
    unique = list({os.path.realpath(path): path for path in paths}.values())
    for path in unique:
        _check_run(path)
    configs = [_config(path) for path in unique]
    labels = _labels(unique, [config.name for config in configs])
    return [_read(*parts) for parts in zip(unique, labels, configs, strict=True)]


def _check_run(path: Path) -> None:
    missing = [name for name in (CONFIG, TILES) if not (path / name).is_file()]
    if not missing:
        return
    if not path.is_dir():
        raise DataError(f"{path}: expected a run folder. Received: {'a file' if path.exists() else 'no such folder'}.")
    inner = sorted(one.name for one in path.iterdir() if (one / CONFIG).is_file() and (one / TILES).is_file())
    if inner:
        raise DataError(
            f"{path}: expected a run folder. Received: a folder with {len(inner)} of them. Give {path / inner[0]}"
            f"{f', or {path}/* for all' if len(inner) > 1 else ''}."
        )
    if (path / "model.json").is_file():
        raise DataError(f"{path}: expected a run folder. Received: a bundle. Give the run that it was exported from.")
    raise DataError(
        f"{path}: expected a run folder, but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
        "Give the folder that `fit`, `cv` or `distill` wrote (runs/NAME)."
    )


def _config(path: Path) -> RunConfig:
    try:
        return load_config(path / CONFIG)
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: its configuration cannot be read. {reason}") from error


def _labels(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Name runs by their configuration; runs of one name by the end of their path that tells them apart."""
    often = Counter(names)
    parts = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        ends = ["/".join(one[-length:]) for one in parts]
        labels = [end if often[name] > 1 else name for name, end in zip(names, ends, strict=True)]
        if len(set(labels)) == len(labels):
            break
    return labels


def _read(path: Path, label: str, config: RunConfig) -> RunFolder:
    tiles, problems = read_candidates(path / TILES)
    if problems:
        raise DataError(f"{problems[0]} Restore the file, which the run wrote.")
    folds = {tile.tile_id: tile.fold for tile in tiles if tile.fold is not None}
    numbers = sorted(set(folds.values()) - {TEST}) or [0]
    models = tuple(_model(path / f"fold_{number}", number) for number in numbers)
    summary = next((path / name for name in SUMMARIES if (path / name).is_file()), None)
    scores = None if summary is None else read_recorded_scores(summary)
    return RunFolder(path, label, config, tuple(tiles), folds, RunRecord.read(path), models, scores)


def _model(folder: Path, fold: int) -> TrainedModel:
    finished = (folder / _OUT_OF_FOLD).is_dir()
    return TrainedModel(fold, finished, _history(folder), _keras_version(folder / _MODEL))


def _history(folder: Path) -> History:
    """Read the epochs of a model; a killed run may have no `history.csv` yet, but a state."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, csv.Error), (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        with suppress(OSError, ValueError, KeyError, TypeError):
            rows = json.loads((folder / _STATE).read_text(encoding="utf-8"))["history"]
    return {name: [float(row.get(name, math.nan)) for row in rows] for name in (rows[0] if rows else ())}


def _keras_version(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return str(json.loads(archive.read("metadata.json"))["keras_version"])
    return ""
