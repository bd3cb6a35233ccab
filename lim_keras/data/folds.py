"""Stratified folds that keep groups together, and the audit for test tiles in the training set."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lim_keras.config import SplitMethod, SplitSection
from lim_keras.data.positions import Positions
from lim_keras.data.spatial_folds import KnownPositions, SpatialFolds, assign_spatial_folds, locate
from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import ConfigError, DataError, LeakError
from lim_keras.ownership import file_hash

Names = npt.NDArray[np.str_]

_MAX_LISTED = 20


def assign_folds(tiles: TileSet, folds: int, seed: int, split: SplitSection | SplitMethod = "random") -> dict[str, int]:
    """Assign every tile to a fold, stratified by kind; groups stay whole.

    Args:
        tiles: tiles without the test tiles.
        folds: number of folds, at least 2.
        seed: seed of the split.
        split: "random", "spatial", or the section `split` of a configuration with the size of blocks; its buffer is not
            used.

    Returns:
        Fold, 0 to folds - 1, by tile id.

    Raises:
        ConfigError: `folds` is out of range.
        DataError: a kind has fewer tiles or groups than folds, or large groups leave a fold without tiles of a kind;
            or, for spatial folds, tiles have no position, or lie in too few places.

    Examples:
        >>> lk.assign_folds(tiles, 5, 2022, SplitSection(method="spatial", block_m=2000))
    """
    section = SplitSection(method=split) if isinstance(split, str) else split
    if section.method == "spatial":
        return spatial_folds(tiles, folds, seed, section).folds
    return _assign(tiles, folds, seed, _fewer_folds)


def spatial_folds(
    tiles: TileSet, folds: int, seed: int, split: SplitSection, positions: Positions | None = None
) -> SpatialFolds:
    """Assign folds as `assign_folds` does for spatial folds, and return the blocks with them.

    Args:
        tiles, folds, seed, split: as for `assign_folds`.
        positions: positions of the tiles; None: they are read.
    """
    _check_number(folds)
    known = KnownPositions(positions or locate(tiles), lambda fewer: f"set the configuration's key folds to {fewer}")
    return assign_spatial_folds(tiles, folds, seed, split, known)


def _assign(tiles: TileSet, folds: int, seed: int, cure: Callable[[TileSet, int], str]) -> dict[str, int]:
    """Assign tiles to folds; `cure` makes the advice of an error from the tiles and the largest number of folds."""
    _check_number(folds)
    kinds, groups = np.array([tile.kind for tile in tiles]), np.array(_groups(tiles))
    _check_enough(tiles, kinds, groups, folds, cure)
    assigned: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(_split(kinds, groups, folds, seed)):
        missing = set(kinds) - set(kinds[held_out])
        if missing:
            raise DataError(
                f"{tiles.root}: fold {fold} of {folds} gets no {missing.pop()} tile, because groups stay together; "
                f"the largest group has {max(Counter(groups.tolist()).values())} tiles. {cure(tiles, folds - 1)}"
            )
        assigned |= {tiles[int(position)].tile_id: fold for position in held_out}
    return {tile_id: assigned[tile_id] for tile_id in tiles.ids}


def _check_number(folds: int) -> None:
    if folds < 2:
        raise ConfigError(f"Invalid value for argument `folds`. Expected a whole number >= 2. Received: {folds}")


def validation_split(
    tiles: TileSet,
    fraction: float,
    seed: int,
    split: SplitSection | SplitMethod = "random",
) -> list[str]:
    """Choose validation tiles: stratified by kind, groups kept whole.

    The tiles are split into n folds, and k folds are chosen. k / n is the closest fraction with n <= 5, or 1 / n if
    `fraction` is below 1 / 5. In the chosen folds, the largest group holds the smallest share of the landslide pixels,
    so that no single large landslide determines epoch and threshold.

    Args:
        tiles: tiles without the test tiles.
        fraction: share of the tiles, above 0, at most 0.5.
        seed: seed of the split.
        split: as for `assign_folds`.

    Returns:
        Tile ids.

    Raises:
        ConfigError: `fraction` is out of range.
        DataError: as in `assign_folds`.
    """
    section = SplitSection(method=split) if isinstance(split, str) else split
    if section.method == "spatial":
        return spatial_validation(tiles, fraction, seed, section)[0]
    share = _share(fraction)
    return _choose(tiles, _assign(tiles, share.denominator, seed, _other_validation), share)


def spatial_validation(
    tiles: TileSet, fraction: float, seed: int, split: SplitSection, positions: Positions | None = None
) -> tuple[list[str], SpatialFolds]:
    """Choose validation tiles as `validation_split` does from spatial folds, and return the folds with them.

    Args:
        tiles, fraction, seed, split: as for `validation_split`.
        positions: positions of the tiles; None: they are read.
    """
    share = _share(fraction)
    known = KnownPositions(positions or locate(tiles), _smaller_share)
    found = assign_spatial_folds(tiles, share.denominator, seed, split, known)
    return _choose(tiles, found.folds, share), found


def _share(fraction: float) -> Fraction:
    if not 0 < fraction <= 0.5:
        raise ConfigError(
            f"Invalid value for argument `fraction`. Expected a number > 0 and <= 0.5. Received: {fraction}"
        )
    return Fraction(fraction).limit_denominator(max(5, round(1 / fraction)))


def _choose(tiles: TileSet, assigned: Mapping[str, int], share: Fraction) -> list[str]:
    """Choose the folds in which the largest group holds the smallest share of the landslide pixels."""
    pixels: list[Counter[str]] = [Counter() for _ in range(share.denominator)]
    for tile, group in zip(tiles, _groups(tiles), strict=True):
        pixels[assigned[tile.tile_id]][group] += tile.landslide_px
    largest_shares = [max(fold.values()) / fold.total() if fold.total() else 1.0 for fold in pixels]
    chosen = sorted(range(share.denominator), key=largest_shares.__getitem__)[: share.numerator]
    return [tile_id for tile_id, fold in assigned.items() if fold in chosen]


def audit_leaks(train: TileSet, test: TileSet) -> None:
    """Check that no test tile and training tile share id, image path, image content, group or ground.

    Raises:
        LeakError: tiles share one of these; the message lists the first 20 pairs and counts the rest.
    """
    leaks = find_leaks(train, test)
    if leaks:
        raise LeakError(
            "Test tiles would be trained on; remove them from one side, or, to measure how much they flatter the "
            f"scores, allow it as `allow_leak`:\n  {listed_leaks(leaks)}"
        )


def listed_leaks(leaks: Sequence[str]) -> str:
    """List the first 20 leaks, a line each, and count the rest."""
    rest = len(leaks) - _MAX_LISTED
    return "\n  ".join([*leaks[:_MAX_LISTED], *([f"and {rest} more"] if rest > 0 else [])])


def find_leaks(train: TileSet, test: TileSet, part: str = "test") -> list[str]:
    """Find what test tiles share with training tiles, a sentence each; arguments and rules as in `audit_leaks`.

    Args:
        part: name of the side of `test` in the sentences, "test" or "validation".
    """
    keys: dict[str, Callable[[Tile], Hashable]] = {
        "id": lambda tile: tile.tile_id,
        "file": lambda tile: tile.image.resolve(),
        "content": _ContentKey(train, test),
        "group": lambda tile: tile.group,
    }
    leaks: list[str] = []
    for name, key in keys.items():
        training_ids = {key(tile): tile.tile_id for tile in train}
        for tile in test:
            value = key(tile)
            if value and value in training_ids:
                leaks.append(f"{part} tile {tile.tile_id} and training tile {training_ids[value]} have the same {name}")
    return [*leaks, *_overlaps(train, test, part)]


def _overlaps(train: TileSet, test: TileSet, part: str) -> list[str]:
    """Find test tiles whose outline on the ground overlaps that of a training tile."""
    if not any(tile.crs for tile in train) or not any(tile.crs for tile in test):
        return []
    twice = set(train.ids) & set(test.ids)  # reported as equal ids
    sides = [[tile for tile in side if tile.crs and tile.tile_id not in twice] for side in (train, test)]
    positions = Positions.read([*sides[0], *sides[1]])
    found = positions.overlaps(*[[tile.tile_id for tile in side] for side in sides[::-1]])
    return [f"{part} tile {one} and training tile {other} overlap by {share:.0%}" for one, other, share in found]


class _ContentKey:
    """SHA-256 of an image file; "" if only one of the two sets has files of its size, without reading the file."""

    def __init__(self, train: TileSet, test: TileSet) -> None:
        self._sizes = {tile.image.stat().st_size for tile in train} & {tile.image.stat().st_size for tile in test}

    def __call__(self, tile: Tile) -> str:
        if tile.image.stat().st_size not in self._sizes:
            return ""
        return file_hash(tile.image)


def _groups(tiles: TileSet) -> list[str]:
    # A tile without a group is its own group; the prefix prevents a clash between its id and a group name.
    return [f"group {tile.group}" if tile.group else f"tile {tile.tile_id}" for tile in tiles]


def _split(kinds: Names, groups: Names, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    grouped = len(set(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    splits: Iterator[tuple[Any, Any]] = splitter.split(np.zeros(len(kinds)), kinds, groups if grouped else None)
    return splits


def _check_enough(tiles: TileSet, kinds: Names, groups: Names, folds: int, cure: Callable[[TileSet, int], str]) -> None:
    if not len(tiles):
        raise DataError(f"{tiles.root}: expected tiles to make folds of. Received: none")
    units = {kind: len(set(groups[kinds == kind])) for kind in Counter(kinds.tolist())}
    kind, least = min(units.items(), key=lambda unit: unit[1])
    if least < folds:
        raise DataError(
            f"{tiles.root}: expected at least {folds} {kind} tiles of different groups, because the tiles are split "
            f"into {folds} parts. Received: {least}. {cure(tiles, least)}"
        )


def _fewer_folds(tiles: TileSet, most: int) -> str:
    if most < 2:
        return "Give more tiles of other groups."
    return f"Give more tiles of other groups, or set the configuration's key folds to {most}."


def _other_validation(tiles: TileSet, most: int) -> str:
    if sum(tile.landslide_px > 0 for tile in tiles) < 2:
        return "Give more tiles with landslides."
    if most < 2:
        return "Give more tiles of other groups, or choose the validation tiles as `validation_ids`."
    return (
        "Give more tiles of other groups, choose the validation tiles as `validation_ids`, or set the configuration's "
        f"key training.validation_fraction to {1 / most:.2g}."
    )


def _smaller_share(folds: int) -> str:
    return (
        "choose the validation tiles as `validation_ids`, or set the configuration's key training.validation_fraction "
        f"to {1 / folds:.2g}"
    )


def check_classes(tiles: TileSet, part: str, cure: str) -> None:
    """Check that tiles hold landslide pixels and background pixels.

    Args:
        tiles: tiles of one side of a split.
        part: its name, for the error, such as "the validation tiles".
        cure: advice, for the error.

    Raises:
        DataError: there are no pixels of one class.
    """
    landslide = sum(tile.landslide_px for tile in tiles)
    background = sum(tile.valid_px for tile in tiles) - landslide
    if landslide and background:
        return
    missing = "landslide" if background else "background" if landslide else "labelled"
    listed = ", ".join(tiles.ids[:_MAX_LISTED]) + (", ..." if len(tiles) > _MAX_LISTED else "")
    received = f"no {missing} pixel in {len(tiles)} tiles ({listed})" if len(tiles) else "no tile"
    raise DataError(f"{tiles.root}: expected landslide and background pixels in {part}. Received: {received}. {cure}")
