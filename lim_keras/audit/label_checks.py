"""Checks of masks: empty, full, tiny, inverted and shifted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lim_keras.audit.catalogue import check, skipped
from lim_keras.audit.mask_shift import REACH, STRONG, WEAK, Array, ShiftEstimate, agrees, common_shift
from lim_keras.audit.measures import TileMeasures
from lim_keras.data.findings import Check, Evidence
from lim_keras.data.tiles import LANDSLIDE, Labels, Tile

_HARDLY_PX, _HARDLY_SHARE = 16, 2e-4
"""Landslide pixels, and share of the labelled pixels, below which a mask holds hardly any landslide."""

_LABELLED_SHARE = 0.05
_FULL, _INVERTED = 0.995, 0.6


def label_checks(measures: Sequence[TileMeasures], shifts: ShiftMeter) -> list[Check]:
    """Check the masks of all tiles."""
    tiles = [one.tile for one in measures]
    landslides = [tile for tile in tiles if tile.landslide_px]
    return [
        check("empty_masks", [_evidence(one, 1.0) for one in tiles if _is_empty(one)]),
        check("unlabelled", [_evidence(one, 1 - _labelled(one)) for one in tiles if _labelled(one) < _LABELLED_SHARE]),
        check("tiny_labels", [_evidence(one, -one.landslide_px) for one in landslides if _is_tiny(one)]),
        check("full_masks", [_evidence(one, _share(one)) for one in landslides if _share(one) >= _FULL]),
        check("inverted_masks", shifts.inverted),
        *shifts.checks(),
    ]


def _share(tile: Tile) -> float:
    return tile.landslide_px / tile.valid_px


def _labelled(tile: Tile) -> float:
    return tile.valid_px / (tile.width * tile.height)


def _is_empty(tile: Tile) -> bool:
    return tile.kind == "landslide" and not tile.landslide_px


def _is_tiny(tile: Tile) -> bool:
    return tile.landslide_px < max(_HARDLY_PX, _HARDLY_SHARE * tile.valid_px)


def _evidence(tile: Tile, value: float) -> Evidence:
    text = f"{tile.landslide_px:,} landslide of {tile.valid_px:,} labelled px"
    return Evidence(tile.tile_id, value, f"{text}, {_labelled(tile):.0%} of the tile labelled")


@dataclass
class ShiftMeter:
    """Agreement of masks and images over the set, measured tile by tile.

    Attributes:
        total: sum of the agreements of all tiles.
        estimates: best shift of each tile whose agreement could be measured.
        inverted: tiles whose masks look inverted.
    """

    total: Array = field(default_factory=lambda: np.zeros((2 * REACH + 1, 2 * REACH + 1)))
    estimates: dict[str, ShiftEstimate] = field(default_factory=dict)
    inverted: list[Evidence] = field(default_factory=list)

    def add(self, one: TileMeasures) -> None:
        """Count one tile."""
        if one.shift is not None:
            self.total += one.shift.agreement
            self.estimates[one.tile_id] = one.shift.best
        if one.mask is not None and _looks_inverted(one.tile, one.mask):
            self.inverted.append(_evidence(one.tile, _share(one.tile)))

    def checks(self) -> list[Check]:
        """Return the check of single masks and that of the shift that all have in common."""
        number = len(self.estimates)
        if not number:
            reason = f"no landslide tile of at least {2 * REACH} px with an outline"
            return [skipped("shifted_masks", reason), skipped("common_shift", reason)]
        common = common_shift(self.total, number)
        strong = [one for one in self.estimates.values() if one.exceeds(STRONG)]
        known = strong + ([] if common is None else [common])
        found = {
            tile_id: one
            for tile_id, one in self.estimates.items()
            if one.exceeds(STRONG) or (one.exceeds(WEAK) and any(agrees(one, other) for other in known))
        }
        evidence = [Evidence(name, one.margin, f"mask should move {one}") for name, one in found.items()]
        note = f"{number:,} outlines compared, shifts up to {REACH} px"
        shared = "" if common is None else f"masks should move {common}"
        return [
            check("shifted_masks", evidence, note=note),
            check("common_shift", (), status="found" if shared else None, note=shared or note),
        ]


def _looks_inverted(tile: Tile, mask: Labels) -> bool:
    """Return whether most of the tile is landslide, and its edge nearly all, with background inside."""
    share = _share(tile) if tile.valid_px else 0.0
    if not _INVERTED < share < _FULL:
        return False
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool((edge == LANDSLIDE).mean() > max(0.8, share))
