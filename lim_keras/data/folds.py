"""Folds that keep the share of landslide tiles and do not leak, and the audit that proves it of the test tiles."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import DataError, LeakError

_MOST_LISTED = 20


def assign_folds(tiles: TileSet, folds: int, seed: int) -> dict[str, int]:
    """The fold, 0 to folds - 1, of every tile: stratified by kind, and groups kept whole where the manifest has any.

    Args:
        tiles: without the test tiles.
        folds: how many, >= 2.
        seed: decides which tile goes where.

    Raises:
        DataError: a kind has fewer tiles, or groups of tiles, than there are folds.
    """
    kinds = np.array([tile.kind for tile in tiles])
    groups = np.array(_groups(tiles))
    _check_enough(tiles, kinds, groups, folds)
    assigned: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(_split(kinds, groups, folds, seed)):
        assigned |= {tiles[int(position)].tile_id: fold for position in held_out}
    return {tile_id: assigned[tile_id] for tile_id in tiles.ids}


def validation_split(tiles: TileSet, fraction: float, seed: int) -> list[str]:
    """Ids of about `fraction` (0 to 0.5) of the tiles, stratified by kind, whole groups: one fold of round(1 / fraction).

    Raises:
        DataError: as in `assign_folds`.
    """
    assigned = assign_folds(tiles, max(2, round(1 / fraction)), seed)
    return [tile_id for tile_id, fold in assigned.items() if fold == 0]


def audit_leaks(train: TileSet, test: TileSet) -> None:
    """Check that no test tile is among the training tiles, whatever it is called there.

    Compared are id, resolved path of the image, SHA-256 of the image file, and group.

    Raises:
        LeakError: it lists the first 20 pairs, then a count of the rest.
    """
    leaks: list[str] = []
    marks: dict[str, Callable[[Tile], str | Path]] = {
        "id": lambda tile: tile.tile_id,
        "file": lambda tile: tile.image.resolve(),
        "content": lambda tile: _content_hash(tile.image),
        "group": lambda tile: tile.group,
    }
    for name, mark in marks.items():
        seen = {mark(tile): tile.tile_id for tile in train}
        for tile in test:
            twin = seen.get(mark(tile)) if mark(tile) else None
            if twin is not None:
                leaks.append(f"test tile {tile.tile_id} and training tile {twin} have the same {name}")
    if leaks:
        rest = len(leaks) - _MOST_LISTED
        lines = leaks[:_MOST_LISTED] + ([f"and {rest} more"] if rest > 0 else [])
        raise LeakError("Test tiles would be trained on; take them out of one side:\n  " + "\n  ".join(lines))


def _groups(tiles: TileSet) -> list[str]:
    # A tile without a group is a group of its own; the prefix keeps it apart from a group named like its id.
    return [f"group {tile.group}" if tile.group else f"tile {tile.tile_id}" for tile in tiles]


def _split(kinds: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    places = np.zeros(len(kinds))
    if len(set(groups)) < len(groups):
        splits: Iterator[tuple[Any, Any]] = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
            places, kinds, groups
        )
        return splits
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(places, kinds)
    return splits


def _check_enough(tiles: TileSet, kinds: np.ndarray, groups: np.ndarray, folds: int) -> None:
    if not len(tiles):
        raise DataError(f"{tiles.root}: expected tiles to make folds of. Received: none")
    for kind in Counter(kinds.tolist()):
        units = len(set(groups[kinds == kind]))
        if units < folds:
            raise DataError(
                f"{tiles.root}: expected at least {folds} {kind} tiles that do not share ground, one for each fold. "
                f"Received: {units}. Give more tiles, or fewer folds."
            )


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
