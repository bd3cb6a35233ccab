"""Sides of a split: which tiles train a model that is evaluated on which others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from lim_keras.data.tiles import Tile, TileSet

Side = tuple[int, int, str]
"""Models that a tile trains and models that are evaluated on it, as bits; and its group, if folds are yet to come."""


@dataclass(frozen=True)
class Split:
    """Models by tile.

    Attributes:
        trains, tests: models that each tile trains, and that are evaluated on it, as bits of a number, by tile id.
        planned: whether tiles without a model will be split at random by group later.
        names: description of the side of each tile, for the report.
    """

    trains: Mapping[str, int]
    tests: Mapping[str, int]
    planned: bool
    names: Mapping[str, str]

    @classmethod
    def of_models(cls, models: Mapping[int, tuple[Collection[str], Collection[str]]], test: Collection[str]) -> Self:
        """Make a split from the training and held-out ids of each model, and the test tiles of all models."""
        trains: dict[str, int] = {}
        tests: dict[str, int] = {}
        names: dict[str, str] = {}
        for bit, (fold, (training, held_out)) in enumerate(sorted(models.items())):
            for tile_id in training:
                trains[tile_id] = trains.get(tile_id, 0) | 1 << bit
                names.setdefault(tile_id, "training")
            for tile_id in held_out:
                tests[tile_id] = tests.get(tile_id, 0) | 1 << bit
                names[tile_id] = f"fold {fold}"
        for tile_id in test:
            tests[tile_id] = (1 << len(models)) - 1
            names[tile_id] = "test"
        return cls(trains, tests, planned=False, names=names)

    @classmethod
    def of_folds(cls, folds: Mapping[str, int], ids: Collection[str], test: Collection[str]) -> Self:
        """Make a split from fold numbers, -1 for test tiles; tiles without a fold train all models."""
        tested = {*test, *(tile_id for tile_id, fold in folds.items() if fold < 0)}
        numbers = sorted({fold for fold in folds.values() if fold >= 0})
        rest = [tile_id for tile_id in ids if tile_id not in tested]
        held_out = {fold: [one for one in rest if folds.get(one) == fold] for fold in numbers}
        models = {fold: ([one for one in rest if folds.get(one) != fold], held_out[fold]) for fold in numbers}
        return cls.of_models(models, tested)

    @classmethod
    def planned_folds(cls, ids: Collection[str], test: Collection[str]) -> Self:
        """Make the split of test tiles from the rest, which has no folds yet."""
        tested = set(test)
        trains = {tile_id: 1 for tile_id in ids if tile_id not in tested}
        names = {tile_id: "test" if tile_id in tested else "training" for tile_id in ids}
        return cls(trains, dict.fromkeys(tested, 1), planned=True, names=names)

    def side(self, tile: Tile) -> Side:
        """Return the side of a tile; the split never separates tiles of equal sides."""
        trains, tests = self.trains.get(tile.tile_id, 0), self.tests.get(tile.tile_id, 0)
        group = (tile.group or f"\0{tile.tile_id}") if self.planned and trains else ""
        return trains, tests, group

    def are_apart(self, first: Tile, second: Tile) -> bool:
        """Return whether one of two tiles trains a model that is evaluated on the other, or may do so."""
        one, other = self.side(first), self.side(second)
        if one[0] & other[1] or one[1] & other[0]:
            return True
        return self.planned and bool(one[0] and other[0]) and one[2] != other[2]

    def describe(self, first: Tile, second: Tile) -> str:
        """Return the sides of two tiles, such as "fold 0 and test"."""
        names = [self.names.get(tile.tile_id, "unused") for tile in (first, second)]
        if self.planned and names[0] == names[1]:
            return "folds may separate them"
        return f"{names[0]} and {names[1]}"


def separated(tiles: TileSet, split: Split, members: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions (other, tile): each member with the first member on another side.

    The time grows with the number of members times the number of sides.
    """
    first_of: dict[Side, int] = {}
    for position in sorted(members):
        side = split.side(tiles[position])
        for other in first_of.values():
            if split.are_apart(tiles[other], tiles[position]):
                yield other, position
                break
        first_of.setdefault(side, position)
