"""Negative tiles of a run: keep their record in the run folder, and mine false alarms while it trains."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lim_keras.config import RunConfig
from lim_keras.data.contents import Contents, changed_tiles, tile_contents
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import manifest_text
from lim_keras.data.negatives import join_negatives
from lim_keras.data.overlap import find_copies
from lim_keras.data.sampling import NegativePool
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import LeakError, LimKerasWarning, TrainingError
from lim_keras.files import atomic_folder, make_folder, write_text
from lim_keras.seals import is_sealed, sealed_json

FOLDER, MINED = "negatives", "mined"
"""Folder of the record in the run folder, and of the minings in a fold's folder."""

_TILES, _CONTENTS = "tiles.csv", "contents.json"

_CROP = 1024
"""Largest side of what the model sees at once while mining, pixels; a multiple of every stride."""

_MAX_LISTED = 20


def read_run_negatives(config: RunConfig, tiles: TileSet) -> tuple[TileSet, Contents] | None:
    """Read and hash the negative tiles of a configuration; None if it names none.

    Raises:
        DataError: they cannot be read, show landslides, or do not fit the tiles.
        LeakError: a negative image is also an image of the tiles.
    """
    negatives = join_negatives(config.negatives.paths, tiles)
    if negatives is None:
        return None
    contents = tile_contents(negatives)
    ours = {content["image"]: name for name, content in tile_contents(tiles).items()}
    both = [f"{name} (tile {ours[one['image']]})" for name, one in contents.items() if one["image"] in ours]
    if both:
        raise LeakError(
            f"negatives.paths: {len(both)} negative tiles are images of other tiles of the run, such as "
            f"{', '.join(both[:_MAX_LISTED])}. Remove them from one of the two."
        )
    return negatives, contents


def warn_of_copies(folder: Path, found: tuple[TileSet, Contents] | None, tiles: TileSet) -> None:
    """Warn if negative tiles show the picture of a tile of the run, as copies with other compression do.

    Only the call that begins the run in `folder` compares them, because it reads all images.
    """
    if found is None or (folder / FOLDER).exists():
        return
    copies = [f"{image.image} ({tile.image})" for image, tile in find_copies(found[0], tiles)]
    if copies:
        more = ", ..." if len(copies) > _MAX_LISTED else ""
        warnings.warn(
            f"negatives.paths: {len(copies)} negative tiles show the same picture as other tiles of the run: "
            f"{', '.join(copies[:_MAX_LISTED])}{more}. A copy of a test tile makes its scores too good; a copy of a "
            "landslide tile teaches that it shows none. Remove them from negatives.paths.",
            LimKerasWarning,
            stacklevel=2,
        )


def keep_negatives(folder: Path, found: tuple[TileSet, Contents] | None) -> None:
    """Record the negative tiles in a new run folder, or compare them with the record of an earlier call.

    Raises:
        TrainingError: the run began with other negative tiles.
    """
    kept = folder / FOLDER
    if kept.exists() or any(folder.glob("fold_*")):
        known = _recorded(folder)
        changes = [] if found is None else changed_tiles(known, found[1], found[0])
        if changes or (found is None) != (not known):
            listed = ", ".join(changes[:_MAX_LISTED]) or ("no negative tiles" if found is None else "negative tiles")
            raise TrainingError(
                f"{folder} holds a run with other negative tiles. Changed since it began: {listed}. Give another "
                "folder as `run`, or restore the tiles."
            )
        return
    if found is None:
        return
    from lim_keras.export.disk_errors import disk_errors  # imports TensorFlow, which reports do without

    with disk_errors(kept), atomic_folder(kept) as draft:
        # Paths are relative to the folder that the draft will be.
        write_text(draft / _TILES, manifest_text(found[0], kept, {}))
        write_text(draft / _CONTENTS, sealed_json({"tiles": found[1]}))


def run_negatives(folder: Path) -> TileSet | None:
    """Read the negative tiles of a run folder; None if it has none."""
    path = folder / FOLDER / _TILES
    return read_tiles(path, decode=False) if path.exists() else None


def check_negatives(folder: Path) -> None:
    """Raise TrainingError if negative tiles changed since the run began, for example while it trained."""
    negatives = run_negatives(folder)
    if negatives is not None:
        keep_negatives(folder, (negatives, tile_contents(negatives)))


def _recorded(folder: Path) -> Contents:
    path = folder / FOLDER / _CONTENTS
    if not (folder / FOLDER).exists():
        return {}
    if not is_sealed(path):
        raise TrainingError(
            f"{path}: missing, or changed since the run began. Restore it, or give another folder as `run`."
        )
    recorded: Contents = json.loads(path.read_text(encoding="utf-8"))["tiles"]
    return recorded


def round_ends(config: RunConfig) -> list[int]:
    """Return the epochs after which a part of the training ends, the last epoch included."""
    epochs, section = config.training.epochs, config.negatives
    if not section.mine:
        return [epochs]
    return [epochs * number // section.rounds for number in range(1, section.rounds + 1)]


Predict = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
"""Function from raw pixels (1, h, w, bands) to the probability of landslide (1, h, w)."""


@dataclass(frozen=True)
class FoldNegatives:
    """Negative tiles of the training of a fold, at its ground sample distance.

    Attributes:
        config: configuration of the run.
        folder: the fold's folder.
        store: the tiles.
    """

    config: RunConfig
    folder: Path
    store: TileStore

    @classmethod
    def of(
        cls,
        config: RunConfig,
        run_folder: Path,
        folder: Path,
        gsd_m: float | None,
        store: type[TileStore] = TileStore,
    ) -> Self | None:
        """Read the negative tiles of a run folder for the fold with a folder of its own; None if it has none.

        Args:
            config: configuration of the run.
            run_folder: folder with the record of the tiles.
            folder: the fold's folder.
            gsd_m: ground sample distance of the model's input, metres, to which they are resampled; None: unknown.
            store: class of the store; it may add bands after those of the images, which the model does not see.
        """
        tiles = run_negatives(run_folder)
        if tiles is None:
            return None
        scale = gsd_m, config.negatives.gsd_m or config.gsd_m
        return cls(config, folder, store(tiles, *scale, config.training.cache, folder / "cache" / "n"))

    def pool(self, epoch: int, predict: Callable[[], Predict] | None) -> NegativePool:
        """Return the tiles for the part of the training that begins after `epoch` epochs.

        The false alarms of the model after these epochs are written to a file, so that a resumed training draws the
        same tiles.

        Args:
            epoch: number of finished epochs; 0: tiles are drawn evenly.
            predict: returns the model after `epoch` epochs; None: it is no longer there, and the file must exist.

        Raises:
            TrainingError: the file is missing or was changed.
        """
        share = self.config.negatives.share
        if not (epoch and self.config.negatives.mine):
            return NegativePool(self.store, share)
        path = self.folder / MINED / f"epoch_{epoch:04d}.json"
        if not path.exists() and predict is not None:
            alarms = false_alarms(predict(), self.store)
            make_folder(path.parent)
            probability = dict(zip(self.store.tiles.ids, alarms.tolist(), strict=True))
            write_text(path, sealed_json({"epoch": epoch, "mean_probability": probability}))
        if not is_sealed(path):
            raise TrainingError(
                f"{path}: the mined negatives are missing, or changed since they were written. Give another folder as "
                "`run`."
            )
        kept = json.loads(path.read_text(encoding="utf-8"))["mean_probability"]
        return NegativePool(self.store, share, np.array([kept[tile_id] for tile_id in self.store.tiles.ids]))


def false_alarms(predict: Predict, store: TileStore) -> NDArray[np.float64]:
    """Return the mean probability of landslide over the labelled pixels of each tile, (tiles,); 0 without any.

    Bands that the store adds to the images are left out.
    """
    tiles = (store.get(position) for position in range(len(store)))
    return np.array([_mean_probability(predict, image[..., : store.tiles.bands], mask) for image, mask in tiles])


def _mean_probability(predict: Predict, image: NDArray[Any], mask: NDArray[np.uint8]) -> float:
    total, count = 0.0, 0
    for top in range(0, mask.shape[0], _CROP):
        for left in range(0, mask.shape[1], _CROP):
            part = np.s_[top : top + _CROP, left : left + _CROP]
            labelled = mask[part] == 0
            total += float(np.sum(predict(image[part][np.newaxis])[0], where=labelled, dtype=np.float64))
            count += int(labelled.sum())
    return total / count if count else 0.0


def negative_ids(folder: Path) -> Sequence[str]:
    """Return the ids of the negative tiles of a run; empty if it has none."""
    negatives = run_negatives(folder)
    return () if negatives is None else negatives.ids
