"""Warm start: training from the weights of a bundle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.config import ModelSection
from lim_keras.errors import BundleError, LeakError, TrainingError
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import DAMAGED_ARRAYS, atomic_folder, write_text
from lim_keras.training.run import START, Run

_FREE = ("encoder_weights", "dropout")
"""Keys of section `model` that do not change the shapes of the weights."""


@dataclass(frozen=True)
class WarmStart:
    """The model from which a run started.

    Attributes:
        name, config_hash: of its bundle.
        training_tiles: ids of the tiles that it was trained on.
        weights: SHA-256 over the hashes of its variable files; `config_hash` is the same for a repeated training.
    """

    name: str
    config_hash: str
    training_tiles: tuple[str, ...]
    weights: str

    def __str__(self) -> str:
        return f"{self.name} (configuration {self.config_hash[:12]}, weights {self.weights[:12]})"

    @classmethod
    def of(cls, run: Run) -> WarmStart | None:
        """Read the start of a run; None where it has none."""
        path = run.folder / START / "start.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = content.get("weights", "unknown")  # older run folders have no such key
            return cls(content["name"], content["config_hash"], tuple(content["training_tiles"]), weights)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TrainingError(
                f"{path}: is damaged ({type(error).__name__}). Give another `run` folder, or delete this one."
            ) from error

    @classmethod
    def at(cls, info: BundleInfo) -> WarmStart:
        """Describe the model of a bundle."""
        records = [record.sha256 for name, record in sorted(info.files.items()) if "/variables/" in name]
        weights = hashlib.sha256("\n".join(records).encode()).hexdigest()
        return cls(info.name, info.config_hash, info.training_tiles, weights)


def prepare_warm_start(run: Run, start_from: str | os.PathLike[str]) -> None:
    """Store the weights of a bundle in the run folder, from which every model of the run starts.

    Args:
        run: a run without trained models, or one that was created with the same start.
        start_from: bundle of one model with the network, bands and data type of the run.

    Raises:
        BundleError: the bundle has several models or another network.
        LeakError: its model was trained on test or validation tiles of the run.
        TrainingError: the run was created without this start.
    """
    bundle = Path(start_from)
    info = BundleInfo.read(bundle)
    before = WarmStart.of(run)
    start = WarmStart.at(info)
    if before == start:
        return
    if before is not None or any(run.fold_folder(fold).exists() for fold in run.held_out_folds):
        known = f"from {before}" if before else "without `start_from`"
        raise TrainingError(
            f"{run.folder} holds a run that was started {known}. Received: `start_from` {bundle}, {start}. "
            "Give another folder as `run`, or the same start."
        )
    _check_network(run, info, bundle)
    _check_leaks(run, info, bundle)
    weights = [np.asarray(weight, np.float32) for weight in load_bundle(bundle).saved_model.weights]
    folder = run.folder / START
    with disk_errors(folder), atomic_folder(folder) as draft:
        np.savez(draft / "weights.npz", *weights)
        write_text(draft / "start.json", json.dumps(asdict(start), indent=2))
        _read_weights(draft / "weights.npz")


def warm_start_weights(run_folder: Path) -> list[NDArray[np.float32]] | None:
    """Read the weights that `prepare_warm_start` stored, in the order of the network; None where there are none."""
    path = run_folder / START / "weights.npz"
    if not path.exists():
        return None
    return _read_weights(path)


def average_with_start(
    run_folder: Path, trained: Sequence[NDArray[np.float32]], share: float
) -> list[NDArray[np.float32]]:
    """Average trained weights with those that the run started from (Wortsman et al. 2022, CVPR).

    Args:
        run_folder: folder of the run, into which `prepare_warm_start` stored weights.
        trained: weights in the order of the network.
        share: of the stored weights, 0 to 1.

    Returns:
        The averages, in the same order and shapes.

    Raises:
        TrainingError: the run folder has no stored weights, or they cannot be read.
    """
    start = _read_weights(run_folder / START / "weights.npz")
    return [
        (share * before + (1 - share) * after).astype(np.float32) for before, after in zip(start, trained, strict=True)
    ]


def _read_weights(path: Path) -> list[NDArray[np.float32]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return [kept[f"arr_{number}"] for number in range(len(kept.files))]
    except DAMAGED_ARRAYS as error:
        raise TrainingError(
            f"{path}: the stored weights cannot be read ({error}). Give another folder as `run`."
        ) from error


def _check_network(run: Run, info: BundleInfo, bundle: Path) -> None:
    if info.folds != 1:
        raise BundleError(
            f"{bundle}: expected a bundle of one model to start from, of fit or distill. Received: {info.folds} models"
        )
    ours, theirs = _network(run.config.model.model_dump()), _network(dict(info.model))
    ours |= {"bands": run.tiles.bands, "dtype": run.statistics.dtype}
    theirs |= {"bands": info.bands, "dtype": info.dtype}
    differing = [key for key in ours if ours[key] != theirs.get(key)]
    if differing:
        expected = ", ".join(f"{key} {theirs.get(key)}" for key in differing)
        received = ", ".join(f"{key} {ours[key]}" for key in differing)
        raise BundleError(
            f"{bundle}: the network or the images of the run differ from those of this bundle. Expected: {expected}. "
            f"Received: {received}. Change section `model` of the configuration, or the tiles."
        )


def _network(section: dict[str, Any]) -> dict[str, Any]:
    return {key: section.get(key) for key in ModelSection.model_fields if key not in _FREE}


def _check_leaks(run: Run, info: BundleInfo, bundle: Path) -> None:
    seen = sorted(run.folds.keys() & set(run.tiles.ids) & set(info.training_tiles))
    if seen:
        raise LeakError(
            f"{bundle}: was trained on {len(seen)} tiles that this run tests or validates on, such as "
            f"{', '.join(seen[:20])}. Choose other tiles as `validation_ids` and `test_ids`, or, if these are other "
            "tiles with the same names, rename them."
        )
