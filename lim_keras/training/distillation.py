"""Distillation: soft targets of a teacher for each training tile."""

from __future__ import annotations

import os
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
from lim_keras.data.tiles import TileSet, TileStore, resample
from lim_keras.errors import BundleError, ConfigError, LeakError, TrainingError
from lim_keras.evaluation.evaluator import sheet_predictions
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import atomic_folder, write_text
from lim_keras.inference.maps import with_tta
from lim_keras.metrics.keras_metrics import AllScores
from lim_keras.training.record import bundle_digest
from lim_keras.training.run import HELD_OUT, TEACHER, Run

_HIGHEST = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Band value of probability 1 for each data type."""

_STEPS = 255

_OF_TEACHER = "teacher.txt"
"""File beside the predictions that holds the digest of the teacher."""

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Distillation:
    """Predictions of a teacher.

    Attributes:
        folder: holds `<tile>.npy`, the teacher's probability x 255, (height, width) uint8.
        weight: weight of the teacher in the target, 0..1.
    """

    folder: Path
    weight: float


def prepare_distillation(run: Run, teacher: str | os.PathLike[str]) -> Distillation:
    """Predict the run's training tiles with the teacher and store the probabilities in the run folder.

    The fold model that was not trained on a tile predicts it, on sheets (`sheet_predictions`). The ensemble predicts
    tiles that no fold model was trained on. Predictions that are already stored are reused.

    Args:
        run: run of one model, trained on windows.
        teacher: bundle of a cross-validation.

    Raises:
        ConfigError: `sampling.mode` or `augmentation` does not allow distillation.
        BundleError: the teacher takes other images, is a single model, or trained all its folds on a tile.
        LeakError: the teacher was trained on a test tile of the run.
    """
    teacher = Path(teacher)
    _check_config(run)
    info = BundleInfo.read(teacher)
    tiles = run.training_tiles(HELD_OUT)
    _check_teacher(run, info, teacher, tiles)
    folder = run.folder / TEACHER
    if folder.exists():
        _check_stored(folder, teacher, info)
    else:
        with disk_errors(folder), atomic_folder(folder) as draft:
            for fold, names in _by_fold(info, tiles).items():
                predict = _predict(teacher, fold, run.config.distillation.tta)
                _store_predictions(run, predict, tiles.subset(names), draft)
            write_text(draft / _OF_TEACHER, bundle_digest(info) + "\n")
    return Distillation(folder, run.config.distillation.teacher_weight)


def _check_stored(folder: Path, teacher: Path, info: BundleInfo) -> None:
    """Raise TrainingError if the stored predictions are of another teacher; older run folders do not name it."""
    kept = folder / _OF_TEACHER
    if kept.exists() and kept.read_text(encoding="utf-8").strip() != bundle_digest(info):
        raise TrainingError(
            f"{folder} holds the predictions of another teacher than {teacher}. Give another folder as `run`."
        )


def _check_config(run: Run) -> None:
    config = run.config
    if config.sampling.mode != "windows" or config.augmentation == "paper":
        raise ConfigError(
            "Distillation needs windows. Expected sampling.mode windows and augmentation dihedral or none. "
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
            f"{teacher}: the teacher was trained on {len(seen)} test tiles, such as {', '.join(seen[:20])}; its "
            "predictions would leak them into training. Train it with the same `test_ids`."
        )
    memorised = [name for name in tiles.ids if name in known and name not in info.held_out]
    if info.folds < 2 or memorised:
        raise BundleError(
            f"{teacher}: expected the bundle of a cross-validation, in which some fold has not seen each tile. "
            f"Received: {info.folds} fold(s), {len(memorised)} tiles that every fold was trained on."
        )


def _by_fold(info: BundleInfo, tiles: TileSet) -> dict[int | None, list[str]]:
    """Group tile ids by the fold that was not trained on them; None: no fold was trained on them."""
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


def _store_predictions(run: Run, predict: Predict, tiles: TileSet, folder: Path) -> None:
    config = run.config
    store = TileStore(tiles, config.sampling.gsd_m, config.gsd_m, cache="recent")
    for prediction in sheet_predictions(predict, store, seed=config.seed):
        path = folder / f"{prediction.sample.name}.npy"
        np.save(path, np.rint(prediction.probability * _STEPS).astype(np.uint8))
        _read_probability(path)


def _read_probability(path: Path) -> NDArray[np.uint8]:
    try:
        stored: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise TrainingError(
            f"{path}: the teacher's prediction cannot be read ({error}). Remove the folder {path.parent}: the same "
            "command predicts again."
        ) from error
    return stored


class DistillationStore(TileStore):
    """Tiles with the teacher's probability as an additional band, in the images' data type.

    As a band, the probability is cut, pasted, resized and rotated together with the pixels.

    Args:
        tiles: training tiles.
        distillation: the teacher's predictions.
        arguments: as in `TileStore`.
    """

    def __init__(self, tiles: TileSet, distillation: Distillation, *arguments: Any) -> None:
        super().__init__(tiles, *arguments)
        self._distillation = distillation

    def _decode(self, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        image, mask = super()._decode(position)
        teacher = _read_probability(self._distillation.folder / f"{self.tiles[position].tile_id}.npy")
        if teacher.shape != mask.shape:
            teacher = resample(teacher[..., np.newaxis], mask, mask.shape)[0][..., 0]
        scaled = teacher * np.float32(_HIGHEST[str(image.dtype)] / _STEPS)
        return np.dstack([image, scaled.astype(image.dtype)]), mask


class NegativeStore(TileStore):
    """Negative tiles with a teacher's probability of 0 as an additional band, as in `DistillationStore`.

    No teacher predicts these tiles, because their target is certain: they show no landslide.
    """

    def _decode(self, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        image, mask = super()._decode(position)
        return np.dstack([image, np.zeros(mask.shape, image.dtype)]), mask


class DistillationSampler:
    """Examples of a `DistillationStore`, and of a `NegativeStore` beside it.

    An example is an image (s, s, bands) and uint8 labels (s, s, 2): mask and teacher.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.size = sampler.size
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def example(self, epoch: int, position: int) -> Example:
        """Draw an example; it depends on epoch and position only."""
        image, mask = self._sampler.example(epoch, position)
        teacher = np.rint(image[..., -1] * np.float32(_STEPS / _HIGHEST[str(image.dtype)]))
        return image[..., :-1], np.stack([mask, teacher.astype(np.uint8)], axis=-1)


@keras.saving.register_keras_serializable("lim_keras")
class MaskScores(AllScores):
    """`AllScores` against the mask, the first plane of a student's labels."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; y_true: (n, h, w, 2)."""
        super().update_state(y_true[..., :1], y_pred, sample_weight)
