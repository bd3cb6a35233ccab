"""Keypoints of tiles, and the shifts between tiles that their matches propose.

SIFT descriptors (Lowe 2004), kept upright because tiles of one survey share their orientation, matched through one k-d
forest over all tiles.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import Progress

Array = npt.NDArray[Any]
Shift = tuple[int, int]

# SIFT runs at half size: four times faster, and the noise of single pixels is gone.
_SHRINK = 2
_CONTRAST = 0.02
_PIXELS_PER_KEYPOINT = 300
_MIN_KEYPOINTS = 40
_NEIGHBOURS = 8
_TREES = 4
_CHECKS = 48
_CHUNK = 20_000
# Squared distance of square-rooted descriptors of unit sum. Nine in ten matches of the same pixels after two JPEG
# encodings lie below .05; of other ground, fewer than one in a hundred lie below .1.
_MAX_DISTANCE = 0.1
_SHIFTS_PER_PAIR = 6


@dataclass(frozen=True, slots=True)
class Keypoints:
    """positions: (n, 2) float32, x and y in tile pixels. descriptors: (n, 128) float32 of unit length."""

    positions: Array
    descriptors: Array


def find_keypoints(gray: Array) -> Keypoints:
    """The strongest keypoints of a (height, width) uint8 image, up to one in 300 pixels; none where it is flat."""
    height, width = (side - side % _SHRINK for side in gray.shape)
    nothing = Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    if not height or not width:
        return nothing
    # Cut to whole multiples first, so that the half-size grid lies on the full one exactly.
    small = cv2.resize(gray[:height, :width], (width // _SHRINK, height // _SHRINK), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT_create(contrastThreshold=_CONTRAST)
    strongest = sorted(sift.detect(small, None), key=lambda point: (-point.response, point.pt, point.size))
    # A corner with two dominant directions is listed twice; upright, the two are one.
    upright = {
        (point.pt, point.size): cv2.KeyPoint(*point.pt, point.size, 0, point.response, point.octave)
        for point in strongest
    }
    quota = max(_MIN_KEYPOINTS, gray.size // _PIXELS_PER_KEYPOINT)
    points, descriptors = sift.compute(small, list(upright.values())[:quota])
    if not points:
        return nothing
    positions = np.array([point.pt for point in points], np.float32) * _SHRINK
    totals = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    return Keypoints(positions, np.sqrt(descriptors / totals).astype(np.float32))


def propose_shifts(tiles: Sequence[Keypoints], bars: Progress) -> dict[tuple[int, int], list[Shift]]:
    """For every two tiles with a matching keypoint, the shifts that matches propose, those with most matches first.

    Returns:
        (i, j), i < j, places in `tiles`, to (dx, dy): what lies at (x, y) in tile i lies at (x + dx, y + dy) in tile j.
    """
    owner = np.repeat(np.arange(len(tiles)), [len(tile.positions) for tile in tiles])
    if len(owner) < _NEIGHBOURS:
        return {}
    positions = np.concatenate([tile.positions for tile in tiles])
    first, second = _match(np.concatenate([tile.descriptors for tile in tiles]), owner, bars)
    shifts = np.rint(positions[second] - positions[first]).astype(int)
    votes: dict[tuple[int, int], Counter[Shift]] = defaultdict(Counter)
    for i, j, (dx, dy) in zip(owner[first].tolist(), owner[second].tolist(), shifts.tolist(), strict=True):
        votes[i, j][dx, dy] += 1
    return {pair: [shift for shift, _ in ballot.most_common(_SHIFTS_PER_PAIR)] for pair, ballot in votes.items()}


def _match(descriptors: Array, owner: Array, bars: Progress) -> tuple[Array, Array]:
    """Rows that match across tiles, each match once, the row of the earlier tile first."""
    # The forest's splits are drawn at random: seeded, the same tiles give the same matches.
    cv2.setRNGSeed(0)
    forest = cv2.flann.Index(descriptors, {"algorithm": 1, "trees": _TREES})
    rows = []
    for start in bars.track(range(0, len(descriptors), _CHUNK), description="matching keypoints"):
        chunk = descriptors[start : start + _CHUNK]
        neighbours, distances = forest.knnSearch(chunk, _NEIGHBOURS, params={"checks": _CHECKS})
        here = np.repeat(np.arange(start, start + len(chunk)), _NEIGHBOURS)
        there = neighbours.ravel()
        kept = (distances.ravel() < _MAX_DISTANCE) & (owner[here] != owner[there])
        rows.append(np.sort(np.stack([here[kept], there[kept]]), axis=0))
    # Rows are in tile order, so the smaller row is of the earlier tile.
    first, second = np.unique(np.concatenate(rows, axis=1), axis=1)
    return first, second
