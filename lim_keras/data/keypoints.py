"""Keypoints of tiles, and the shifts between tiles that their matches propose.

SIFT descriptors (Lowe 2004), kept upright because tiles of one survey share their orientation, matched through one k-d
forest over all tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import Progress

Array = npt.NDArray[Any]
Shift = tuple[int, int]

MIN_SIDE = 16
"""Pixels; ground that is shared over less cannot be told from other ground."""

# SIFT runs at half size: four times faster, and the noise of single pixels is gone. A tile with a side below this has
# too few keypoints at half size.
_SMALL_SIDE = 200
_CONTRAST = 0.02
_PIXELS_PER_KEYPOINT = 300
_MIN_KEYPOINTS = 130
_NEIGHBOURS = 8
_TREES = 4
_CHECKS = 32
_CHUNK = 20_000
# Squared distances of square-rooted descriptors of unit sum. Of matches of the same pixels after two JPEG encodings,
# nine in ten lie below .05 and nearly all below .25; of the many that only look alike, few below .07.
_SAME = 0.07
_ALIKE = 0.25
_SHIFTS_PER_PAIR = 6


@dataclass(frozen=True, slots=True)
class Keypoints:
    """positions: (n, 2) float32, x and y in tile pixels. descriptors: (n, 128) float32 of unit length."""

    positions: Array
    descriptors: Array


def find_keypoints(gray: Array) -> Keypoints:
    """The strongest keypoints of a (height, width) uint8 image, up to one in 300 pixels; none where it is flat."""
    nothing = Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    if min(gray.shape) < MIN_SIDE:  # below some size OpenCV's SIFT breaks down
        return nothing
    shrink = 1 if min(gray.shape) < _SMALL_SIDE else 2
    # Cut to whole multiples first, so that the half-size grid lies on the full one exactly.
    height, width = (side - side % shrink for side in gray.shape)
    small = cv2.resize(gray[:height, :width], (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(contrastThreshold=_CONTRAST)
    quota = max(_MIN_KEYPOINTS, gray.size // _PIXELS_PER_KEYPOINT)
    points, descriptors = sift.compute(small, _upright(sift.detect(small, None))[:quota])
    if not points:
        return nothing
    positions = np.array([point.pt for point in points], np.float32) * shrink
    totals = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    return Keypoints(positions, np.sqrt(descriptors / totals).astype(np.float32))


def _upright(points: Sequence[cv2.KeyPoint]) -> list[cv2.KeyPoint]:
    """The keypoints without orientation, strongest first; two that differed in orientation only are one."""
    strongest = sorted(points, key=lambda point: (-point.response, point.pt, point.size))
    distinct = {(*point.pt, point.size): point for point in strongest}
    return [cv2.KeyPoint(x, y, size, 0.0, point.response, point.octave) for (x, y, size), point in distinct.items()]


def propose_shifts(tiles: Sequence[Keypoints], bars: Progress) -> dict[tuple[int, int], list[Shift]]:
    """For every two tiles, the shifts that their matching keypoints propose, those with most matches first.

    Returns:
        (i, j), i < j, places in `tiles`, to (dx, dy): what lies at (x, y) in tile i lies at (x + dx, y + dy) in tile j.
    """
    owner = np.repeat(np.arange(len(tiles)), [len(tile.positions) for tile in tiles])
    if len(owner) < _NEIGHBOURS:
        return {}
    positions = np.concatenate([tile.positions for tile in tiles])
    first, second, distances = _match(np.concatenate([tile.descriptors for tile in tiles]), owner, bars)
    shifts = np.rint(positions[second] - positions[first]).astype(np.int64)
    agreed, votes = _agree(np.column_stack([owner[first], owner[second], shifts]), distances)
    proposed: dict[tuple[int, int], list[Shift]] = {}
    for i, j, dx, dy in agreed[np.argsort(-votes, kind="stable")].tolist():
        proposed.setdefault((i, j), []).append((dx, dy))
    return {pair: pair_shifts[:_SHIFTS_PER_PAIR] for pair, pair_shifts in proposed.items()}


def _match(descriptors: Array, owner: Array, bars: Progress) -> tuple[Array, Array, Array]:
    """Rows that match across tiles, each match once, the row of the earlier tile first; and their distances."""
    # The forest's splits are drawn at random: seeded, the same tiles give the same matches.
    cv2.setRNGSeed(0)
    forest = cv2.flann.Index(descriptors, {"algorithm": 1, "trees": _TREES})
    matches, distances = [], []
    for start in bars.track(range(0, len(descriptors), _CHUNK), description="matching keypoints"):
        chunk = descriptors[start : start + _CHUNK]
        neighbours, squared = forest.knnSearch(chunk, _NEIGHBOURS, params={"checks": _CHECKS})
        here, there = np.repeat(np.arange(start, start + len(chunk)), _NEIGHBOURS), neighbours.ravel()
        kept = (squared.ravel() < _ALIKE) & (owner[here] != owner[there])
        # Rows are in tile order, so the smaller row is of the earlier tile.
        low, high = np.minimum(here[kept], there[kept]), np.maximum(here[kept], there[kept])
        matches.append(low * len(descriptors) + high)
        distances.append(squared.ravel()[kept])
    # Two keypoints that are each other's neighbour are one match, not two.
    once, index = np.unique(np.concatenate(matches), return_index=True)
    return once // len(descriptors), once % len(descriptors), np.concatenate(distances)[index]


def _agree(shifts: Array, distances: Array) -> tuple[Array, Array]:
    """Of the (n, 4) rows i, j, dx, dy each distinct one with two matches, or one that is the same; and how many."""
    if not len(shifts):
        return shifts, np.zeros(0, np.int64)
    order = np.lexsort(shifts.T)
    shifts, distances = shifts[order], distances[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(shifts, axis=0) != 0).any(axis=1)])
    votes = np.diff(np.r_[starts, len(shifts)])
    good = (votes > 1) | (np.minimum.reduceat(distances, starts) < _SAME)
    return shifts[starts[good]], votes[good]
