"""Distillation: soft targets of a teacher for each training tile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.data.sampling import Example, Sampler
from lim_keras.data.store import TileStore, resample
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, ConfigError, LeakError
from lim_keras.evaluation.protocols import sheet_predictions
from lim_keras.inference.tta import with_tta
from lim_keras.metrics.keras_metrics import AllScores
from lim_keras.training.run import HELD_OUT, Run

TEACHER = "teacher"
"""In the run folder: `<tile>.npy`, the teacher's probability (height, width) uint8 in 255ths."""

_HIGHEST = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}

_SURE = 255

_GRID = 64

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Distillation:
    """What a teacher has said. folder: of its answers. weight: their share of the target, 0..1."""

    folder: Path
    weight: float


def prepare_distillation(run: Run, teacher: Path) -> Distillation:
    """Ask the teacher about the run's training tiles, and keep its answers in the run folder.

    Tiles are predicted among each other on sheets, as pieces of a scene, by the fold that they were held out from;
    tiles that no fold was fitted to by the ensemble. Answers that are there already are kept.

    Args:
        run: of one model, on windows.
        teacher: bundle of a cross-validation.

    Raises:
        ConfigError: the run's sampling or augmentation cannot carry a teacher's answers along.
        BundleError: the teacher takes other images, or does not know which fold has not seen a tile.
        LeakError: the teacher was fitted to a test tile of the run.
    """
    _check_config(run)
    info = BundleInfo.read(teacher)
    tiles = run.training_tiles(HELD_OUT)
    _check_teacher(run, info, teacher, tiles)
    folder = run.folder / TEACHER
    if not folder.exists():
        partial = folder.with_name(f"{TEACHER}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for fold, names in _by_fold(info, tiles).items():
            predict = _predict(teacher, fold, run.config.distillation.symmetries)
            _answer(run, predict, tiles.subset(names), partial)
        partial.rename(folder)
    return Distillation(folder, run.config.distillation.teacher_weight)


def _check_config(run: Run) -> None:
    config = run.config
    if config.sampling.mode != "windows" or config.augmentation == "paper":
        raise ConfigError(
            "A student is taught on windows. Expected sampling.mode windows and augmentation dihedral or none. "
            f"Received: {config.sampling.mode} and {config.augmentation}"
        )


def _check_teacher(run: Run, info: BundleInfo, teacher: Path, tiles: TileSet) -> None:
    if (info.bands, info.dtype) != (tiles.bands, tiles.dtype):
        raise BundleError(
            f"{teacher}: expected a teacher for images of {tiles.bands} bands of {tiles.dtype}. "
            f"Received: {info.bands} bands of {info.dtype}"
        )
    known = set(info.training_tiles)
    seen = sorted(known & set(run.test_tiles.ids)) if run.test_tiles else []
    if seen:
        raise LeakError(
            f"{teacher}: the teacher was fitted to {len(seen)} test tiles, such as {', '.join(seen[:20])}; its answers "
            "would bring them into training. Train it with the same --test."
        )
    memorised = [name for name in tiles.ids if name in known and name not in info.held_out]
    if info.folds < 2 or memorised:
        raise BundleError(
            f"{teacher}: expected a bundle of `lim-keras cv`, which says for every tile which fold has not seen it. "
            f"Received: {info.folds} fold(s), {len(memorised)} tiles of which every fold knows the mask."
        )


def _by_fold(info: BundleInfo, tiles: TileSet) -> dict[int | None, list[str]]:
    """Tiles by the fold that has not seen them; None: the ensemble, none of whose folds has."""
    groups: dict[int | None, list[str]] = {}
    for name in tiles.ids:
        groups.setdefault(info.held_out.get(name), []).append(name)
    return groups


def _predict(teacher: Path, fold: int | None, symmetries: bool) -> Predict:
    bundle = load_bundle(teacher, fold)
    if not symmetries:
        return bundle.predict
    averaged = with_tta(bundle.predict_all, bundle.info.stride)
    return lambda images: averaged(images).probability


def _answer(run: Run, predict: Predict, tiles: TileSet, folder: Path) -> None:
    config = run.config
    store = TileStore(tiles, config.sampling.gsd_m, config.gsd_m, cache="recent")
    for prediction in sheet_predictions(predict, store, seed=config.seed, multiple=_GRID):
        sure = np.rint(prediction.probability * _SURE).astype(np.uint8)
        np.save(folder / f"{prediction.place.name}.npy", sure)


class DistillationStore(TileStore):
    """Tiles with what the teacher says of them as one more band, in the images' own data type.

    As a band it goes wherever the pixels go: cut, pasted, resized and turned with them.

    Args:
        teaching: the teacher's answers.
        others: as in `TileStore`.
    """

    def __init__(self, tiles: TileSet, teaching: Distillation, *arguments: Any, **named: Any) -> None:
        super().__init__(tiles, *arguments, **named)
        self._teaching = teaching

    def _decode(self, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        image, mask = super()._decode(position)
        sure = np.load(self._teaching.folder / f"{self.tiles[position].tile_id}.npy")
        if sure.shape != mask.shape:
            sure = resample(sure[..., np.newaxis], mask, mask.shape)[0][..., 0]
        scaled = sure * np.float32(_HIGHEST[str(image.dtype)] / _SURE)
        return np.dstack([image, scaled.astype(image.dtype)]), mask


class DistillationSampler:
    """Samples of a `DistillationStore`: image (s, s, bands); labels (s, s, 2) uint8, mask and teacher."""

    def __init__(self, sampler: Sampler) -> None:
        self.size = sampler.size
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def example(self, epoch: int, position: int) -> Example:
        """The same epoch and position always give the same example."""
        image, mask = self._sampler.example(epoch, position)
        sure = np.rint(image[..., -1] * np.float32(_SURE / _HIGHEST[str(image.dtype)]))
        return image[..., :-1], np.stack([mask, sure.astype(np.uint8)], axis=-1)


@keras.saving.register_keras_serializable("lim_keras")
class MaskScores(AllScores):
    """Every score against the mask, the first plane of a student's labels."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; y_true: (n, h, w, 2)."""
        super().update_state(y_true[..., :1], y_pred, sample_weight)
