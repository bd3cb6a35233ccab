"""Ground that several samples show, and how it falls on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lim_keras.data.overlap import find_overlaps, group_overlaps
from lim_keras.data.tiles import TileSet
from lim_keras.progress import ProgressCallback

_SEED = 2022


@dataclass(frozen=True, slots=True)
class SharedGround:
    """Landslide tiles that show ground of another one.

    Attributes:
        tiles: number of landslide tiles.
        shared: number of those in a group.
        groups: number of groups.
        apart: share of `shared` that random folds separate from a tile of their group, 0..1.
    """

    tiles: int
    shared: int
    groups: int
    apart: float


def shared_ground(tiles: TileSet, folds: int, progress: ProgressCallback | None = None) -> SharedGround:
    """Count the landslide tiles that share ground: those with a group, or, if no tile has one, those that overlap.

    Args:
        tiles: all tiles.
        folds: number of random folds.
        progress: receives the progress of the search for overlaps.
    """
    landslides = tiles.of_kind("landslide")
    if not any(tile.group for tile in tiles):
        landslides = group_overlaps(landslides, find_overlaps(landslides, progress=progress))
    sizes = Counter(tile.group for tile in landslides if tile.group)
    names = [tile.group if sizes[tile.group] > 1 else f"alone {k}" for k, tile in enumerate(landslides)]
    shared = [size for size in sizes.values() if size > 1]
    apart = share_apart(names, folds) * len(names) / max(sum(shared), 1)
    return SharedGround(len(names), sum(shared), len(shared), apart)


def share_apart(origins: Sequence[str], folds: int) -> float:
    """Return the share of samples with another sample of the same origin in another fold, in random folds.

    Args:
        origins: origin of each sample: its tile, or its ground.
        folds: number of folds of equal size.
    """
    fold = np.random.default_rng(_SEED).permutation(len(origins)) % folds
    together = Counter(zip(origins, fold.tolist(), strict=True))
    in_all = Counter(origins)
    apart = [in_all[name] > together[name, number] for name, number in zip(origins, fold.tolist(), strict=True)]
    return float(np.mean(apart)) if apart else 0.0
