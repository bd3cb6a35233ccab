"""Start training from the weights of a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.config import ModelSection
from lim_keras.errors import BundleError, LeakError, TrainingError
from lim_keras.files import write_text
from lim_keras.training.run import Run

START = "start"
"""In the run folder: `weights.npz`, those of the network in its own order, and `start.json`, `WarmStart`."""

_FREE = ("encoder_weights", "dropout")
"""Keys of the model's configuration that its weights do not depend on."""


@dataclass(frozen=True)
class WarmStart:
    """The model that a run started at.

    name, config_hash: of its bundle. training_tiles: what it had been fitted to. weights: SHA-256 of the records of its
    variable files, as a model trained again has the same name and configuration.
    """

    name: str
    config_hash: str
    training_tiles: tuple[str, ...]
    weights: str

    def __str__(self) -> str:
        return f"{self.name} (configuration {self.config_hash[:12]}, weights {self.weights[:12]})"

    @classmethod
    def of(cls, run: Run) -> WarmStart | None:
        """What a run started at; None: at its encoder's weights."""
        try:
            content = json.loads((run.folder / START / "start.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        weights = content.get("weights", "unknown")  # as in runs that were begun before weights were noted
        return cls(content["name"], content["config_hash"], tuple(content["training_tiles"]), weights)

    @classmethod
    def at(cls, info: BundleInfo) -> WarmStart:
        """A start at the model of a bundle."""
        records = [record.sha256 for name, record in sorted(info.files.items()) if "/variables/" in name]
        weights = hashlib.sha256("\n".join(records).encode()).hexdigest()
        return cls(info.name, info.config_hash, info.training_tiles, weights)


def prepare_warm_start(run: Run, bundle: Path) -> None:
    """Let every model of the run start at the weights of a bundle's only model; they are kept in the run folder.

    Args:
        run: nothing of it is trained yet, or it was begun with the same start.
        bundle: of `fit` or `distill`; its network, bands and data type are the run's.

    Raises:
        BundleError: the bundle holds several models, or one that is not the run's network.
        LeakError: it was fitted to tiles that the run judges by.
        TrainingError: the run was begun without this start.
    """
    info = BundleInfo.read(bundle)
    before = WarmStart.of(run)
    start = WarmStart.at(info)
    if before == start:
        return
    if before is not None or any(run.fold_folder(fold).exists() for fold in run.held_out_folds):
        known = f"at {before}" if before else "without --start-from"
        raise TrainingError(
            f"{run.folder} holds a run that was begun {known}. Received: --start-from {bundle}, "
            f"{start}. Give another folder with --run, or the same start."
        )
    _check_network(run, info, bundle)
    _check_leaks(run, info, bundle)
    weights = [np.asarray(weight, np.float32) for weight in load_bundle(bundle).saved_model.weights]
    partial = run.folder / f"{START}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    np.savez(partial / "weights.npz", *weights)
    write_text(partial / "start.json", json.dumps(asdict(start), indent=2))
    partial.rename(run.folder / START)


def warm_start_weights(run_folder: Path) -> list[NDArray[np.float32]] | None:
    """The weights that `prepare_warm_start` kept, in the network's order; None where a run starts at its encoder's."""
    path = run_folder / START / "weights.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return [kept[f"arr_{number}"] for number in range(len(kept.files))]


def _check_network(run: Run, info: BundleInfo, bundle: Path) -> None:
    if info.folds != 1:
        raise BundleError(
            f"{bundle}: expected a bundle of one model to start from, such as `fit` or `distill` gives. Received: "
            f"{info.folds} models"
        )
    ours, theirs = _network(run.config.model.model_dump()), _network(dict(info.model))
    ours |= {"bands": run.tiles.bands, "dtype": run.statistics.dtype}
    theirs |= {"bands": info.bands, "dtype": info.dtype}
    differing = [key for key in ours if ours[key] != theirs.get(key)]
    if differing:
        expected = ", ".join(f"{key} {theirs.get(key)}" for key in differing)
        received = ", ".join(f"{key} {ours[key]}" for key in differing)
        raise BundleError(
            f"{bundle}: a run that starts from it has its network and its kind of images. Expected: {expected}. "
            f"Received: {received}. Change the configuration's `model`, or the tiles."
        )


def _network(section: dict[str, Any]) -> dict[str, Any]:
    return {key: section.get(key) for key in ModelSection.model_fields if key not in _FREE}


def _check_leaks(run: Run, info: BundleInfo, bundle: Path) -> None:
    judged = {name for name in run.tiles.ids if name in run.folds}
    seen = sorted(judged & set(info.training_tiles))
    if seen:
        raise LeakError(
            f"{bundle}: was fitted to {len(seen)} tiles that this run tests or validates on, such as "
            f"{', '.join(seen[:20])}. Hold out the tiles that it was not fitted to (--val, --test), or, if these only "
            "have the same names, rename them."
        )
