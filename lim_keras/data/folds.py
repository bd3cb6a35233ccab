"""Folds that keep the share of landslide tiles and do not leak, and the audit that proves it of the test tiles."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import ConfigError, DataError, LeakError

Names = npt.NDArray[np.str_]

_MOST_LISTED = 20


def assign_folds(tiles: TileSet, folds: int, seed: int) -> dict[str, int]:
    """The fold, 0 to folds - 1, of every tile: stratified by kind, and groups kept whole where the manifest has any.

    Args:
        tiles: without the test tiles.
        folds: how many, >= 2.
        seed: decides which tile goes where.

    Raises:
        DataError: a kind has fewer tiles, or groups of tiles, than there are folds, or groups are so large that a fold
            is left without tiles of a kind.
    """
    kinds = np.array([tile.kind for tile in tiles])
    groups = np.array(_groups(tiles))
    _check_enough(tiles, kinds, groups, folds)
    assigned: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(_split(kinds, groups, folds, seed)):
        missing = set(kinds) - set(kinds[held_out])
        if missing:
            raise DataError(
                f"{tiles.root}: fold {fold} of {folds} gets no {missing.pop()} tile, because tiles that share ground "
                f"stay together; the largest group has {max(Counter(groups.tolist()).values())} tiles. Use fewer folds."
            )
        assigned |= {tiles[int(position)].tile_id: fold for position in held_out}
    return {tile_id: assigned[tile_id] for tile_id in tiles.ids}


def validation_split(tiles: TileSet, fraction: float, seed: int) -> list[str]:
    """Choose validation tiles: stratified by kind, groups kept whole.

    The tiles are split into n folds, of which k are taken; k / n is the closest fraction with n <= 5, or 1 / n for
    fractions below 1 / 5. The folds taken are those whose landslide pixels are spread most evenly over groups, so that
    no single large landslide decides on epoch and threshold.

    Args:
        tiles: without the test tiles.
        fraction: share of the tiles, above 0, at most 0.5.
        seed: seed of the split.

    Returns:
        Tile ids.

    Raises:
        ConfigError: `fraction` is out of range.
        DataError: as in `assign_folds`.
    """
    if not 0 < fraction <= 0.5:
        raise ConfigError(
            f"Invalid value for argument `fraction`. Expected a number > 0 and <= 0.5. Received: {fraction}"
        )
    share = Fraction(fraction).limit_denominator(max(5, round(1 / fraction)))
    assigned = assign_folds(tiles, share.denominator, seed)
    pixels: list[Counter[str]] = [Counter() for _ in range(share.denominator)]
    for tile, group in zip(tiles, _groups(tiles), strict=True):
        pixels[assigned[tile.tile_id]][group] += tile.landslide_px
    largest_shares = [max(fold.values()) / fold.total() if fold.total() else 1.0 for fold in pixels]
    chosen = sorted(range(share.denominator), key=largest_shares.__getitem__)[: share.numerator]
    return [tile_id for tile_id, fold in assigned.items() if fold in chosen]


def audit_leaks(train: TileSet, test: TileSet) -> None:
    """Check that no test tile is among the training tiles, whatever it is called there.

    Compared are id, resolved path of the image, SHA-256 of the image file, and group.

    Raises:
        LeakError: it lists the first 20 pairs, then a count of the rest.
    """
    marks: dict[str, Callable[[Tile], Hashable]] = {
        "id": lambda tile: tile.tile_id,
        "file": lambda tile: tile.image.resolve(),
        "content": _ContentMark(train, test),
        "group": lambda tile: tile.group,
    }
    leaks: list[str] = []
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


class _ContentMark:
    """A file's SHA-256, or "" without reading it where no file of the other side has its length."""

    def __init__(self, train: TileSet, test: TileSet) -> None:
        self._sizes = {tile.image.stat().st_size for tile in train} & {tile.image.stat().st_size for tile in test}

    def __call__(self, tile: Tile) -> str:
        return _content_hash(tile.image) if tile.image.stat().st_size in self._sizes else ""


def _groups(tiles: TileSet) -> list[str]:
    # A tile without a group is a group of its own; the prefix keeps it apart from a group named like its id.
    return [f"group {tile.group}" if tile.group else f"tile {tile.tile_id}" for tile in tiles]


def _split(kinds: Names, groups: Names, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    grouped = len(set(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    splits: Iterator[tuple[Any, Any]] = splitter.split(np.zeros(len(kinds)), kinds, groups if grouped else None)
    return splits


def _check_enough(tiles: TileSet, kinds: Names, groups: Names, folds: int) -> None:
    if folds < 2:
        raise DataError(f"Invalid value for argument `folds`. Expected a whole number >= 2. Received: {folds}")
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
