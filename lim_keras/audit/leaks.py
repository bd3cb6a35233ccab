"""Leaks between the sides of a split: equal ids, files, contents, ground and groups, and neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np
import shapely

from lim_keras.audit.catalogue import check, skipped
from lim_keras.audit.measures import TileMeasures
from lim_keras.audit.split import Split, separated
from lim_keras.data.findings import Check, Evidence
from lim_keras.data.overlap import Overlap
from lim_keras.data.positions import TOLERANCE, Positions
from lim_keras.data.tiles import TileSet

_PAIRS = 100_000
"""Largest number of neighbours that is listed."""


def leak_checks(
    measures: Sequence[TileMeasures],
    tiles: TileSet,
    split: Split,
    overlaps: Sequence[Overlap],
    *,
    trained_tests: Collection[str] = (),
    min_distance_m: float | None = None,
) -> list[Check]:
    """Check for leaks.

    Args:
        measures: measures of the tiles, in their order.
        tiles: the tiles.
        split: sides of the tiles.
        overlaps: tiles that share ground.
        trained_tests: test tiles that trained a model of the run.
        min_distance_m: smallest distance between tiles of two sides, metres; None: only report the smallest distance.
    """
    same_content = _pairs(tiles, split, lambda k: measures[k].pixels, "equal pixels")
    listed = {frozenset((one.tile_id, one.other)) for one in same_content}
    ground = [
        Evidence(
            one.first,
            one.share,
            f"{one.share:.0%} of the smaller tile, {split.describe(tiles[one.first], tiles[one.second])}",
            one.second,
        )
        for one in overlaps
        if frozenset((one.first, one.second)) not in listed and split.are_apart(tiles[one.first], tiles[one.second])
    ]
    found = {
        "leak_id": [Evidence(name, 1.0, "trained a model of the run") for name in trained_tests],
        "leak_path": _pairs(tiles, split, lambda k: tiles[k].image.resolve(), "the same file"),
        "leak_content": same_content,
        "leak_ground": ground,
        "leak_group": []
        if split.planned and not split.tests
        else _pairs(tiles, split, lambda k: tiles[k].group, "group"),
    }
    checks = [check(name, evidence, status="leak" if evidence else None) for name, evidence in found.items()]
    return [*checks, _distances(tiles, split, min_distance_m)]


def _pairs(tiles: TileSet, split: Split, key: Callable[[int], Hashable], what: str) -> list[Evidence]:
    """Return the tiles with an equal key on another side."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position in range(len(tiles)):
        value = key(position)
        if value:
            members[value].append(position)
    return [
        Evidence(tiles[k].tile_id, 1.0, f"{what}, {split.describe(tiles[k], tiles[other])}", tiles[other].tile_id)
        for positions in members.values()
        if len(positions) > 1
        for other, k in separated(tiles, split, positions)
    ]


def _distances(tiles: TileSet, split: Split, limit_m: float | None) -> Check:
    """Check distances between georeferenced tiles of two sides."""
    if split.planned and not split.tests:
        return skipped("leak_distance", "there are neither folds nor test tiles yet")
    positions = Positions.read(tiles)
    if len(positions.ids) < 2:
        return skipped("leak_distance", "no georeferenced tiles")
    bounds = shapely.bounds(positions.outlines)
    reach = float(np.median((bounds[:, 2:] - bounds[:, :2]).max(axis=1))) if limit_m is None else limit_m
    evidence: list[Evidence] = []
    nearest = float("inf")
    for one, other, distance in positions.within(reach):
        if split.are_apart(tiles[one], tiles[other]):
            nearest = min(nearest, distance)
            if limit_m is not None and distance < limit_m * (1 - TOLERANCE) and len(evidence) < _PAIRS:
                text = f"{distance:,.1f} m, {split.describe(tiles[one], tiles[other])}"
                evidence.append(Evidence(one, -distance, text, other))
    note = f"smallest distance {nearest:,.1f} m" if np.isfinite(nearest) else f"all are {reach:,.0f} m apart or more"
    return check("leak_distance", evidence, status="leak" if evidence else None, note=note)
