"""Place and choose background tiles: tiles without a landslide pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import numpy as np

from lim_keras.raster.windows import Box
from lim_keras.tiling.ground import Ground
from lim_keras.tiling.options import TilingOptions

Score = Callable[[int, Box], float]
"""Function that says how wrong a model is in a box of the k-th scene; 0: not at all."""

_STEPS = 4  # positions within a tile's width at which gaps of the grid are tried


def place_background_tiles(ground: Ground, landslide_tiles: Iterable[Box], options: TilingOptions) -> list[Box]:
    """Fill the ground beside landslide tiles with background tiles.

    Tiles lie on a grid of distance `size - overlap` that is spread evenly over the scene. Tiles at quarter steps fill
    the gaps that landslides leave in it. A tile overlaps no landslide tile, and other background tiles by at most
    `overlap` pixels along one axis.

    Returns:
        The tiles, from the top down.
    """
    landslides, placed = _Grid(options.size, 0), _Grid(options.size, options.overlap)
    for box in landslide_tiles:
        landslides.add(box)
    for box in _lattice(ground, options.size, options.step):
        if not landslides.meets(box) and _is_background(ground, box, options.min_valid):
            placed.add(box)
    # A grid of a large overlap leaves no gap that a tile fits into.
    fine = max(options.size // _STEPS, 1) if options.step >= options.size / 2 else 0
    for box in _lattice(ground, options.size, fine) if fine else ():
        if not (landslides.meets(box) or placed.meets(box)) and _is_background(ground, box, options.min_valid):
            placed.add(box)
    return sorted(placed.boxes, key=lambda box: (box.top, box.left))


def _is_background(ground: Ground, box: Box, min_valid: float) -> bool:
    needed = max(min_valid * box.height * box.width, 1)
    low, high = ground.bounds(box)
    if low.landslide or high.labelled < needed:
        return False
    if high.landslide or low.labelled < needed:
        low = ground.count(box)
    return not low.landslide and low.labelled >= needed


def _lattice(ground: Ground, size: int, step: int) -> Iterator[Box]:
    info = ground.scene.info
    rows, columns = (_starts(length, size, step) for length in (info.height, info.width))
    for top, left in product(rows, columns):
        yield Box.sized(top, left, size, size).grown(0, info.box)


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return as many starts as fit at least `step` apart, spread evenly from the first to the last position."""
    room = max(length - size, 0)
    starts: list[int] = np.linspace(0, room, room // step + 1).astype(int).tolist()
    return starts


class _Grid:
    """Boxes that meet others if they share more than `overlap` rows and columns."""

    def __init__(self, size: int, overlap: int) -> None:
        self.boxes: list[Box] = []
        self._size, self._overlap = size, overlap
        self._cells: dict[tuple[int, int], list[Box]] = {}

    def add(self, box: Box) -> None:
        """Add a box of at most `size` pixels a side."""
        self.boxes.append(box)
        self._cells.setdefault((box.top // self._size, box.left // self._size), []).append(box)

    def meets(self, box: Box) -> bool:
        """Return whether a box shares more than `overlap` rows and columns with one of the boxes."""
        row, column = box.top // self._size, box.left // self._size
        near = (self._cells.get(cell, ()) for cell in product(range(row - 1, row + 2), range(column - 1, column + 2)))
        return any(
            min(box.bottom, other.bottom) - max(box.top, other.top) > self._overlap
            and min(box.right, other.right) - max(box.left, other.left) > self._overlap
            for boxes in near
            for other in boxes
        )


def choose_background_tiles(
    candidates: Sequence[Sequence[Box]],
    grounds: Sequence[Ground],
    number: int,
    rng: np.random.Generator,
    score: Score | None = None,
) -> list[list[tuple[Box, float]]]:
    """Draw background tiles from the candidates of each scene.

    Tiles with a score above 0 come first, those of the highest score before others. The rest is drawn at random, from
    each scene in proportion to its labelled ground.

    Returns:
        Tiles and their scores by scene, from the top down.
    """
    scored = [[(box, 0.0 if score is None else score(k, box)) for box in boxes] for k, boxes in enumerate(candidates)]
    hard = [(-value, k, box.top, box.left) for k, part in enumerate(scored) for box, value in part if value > 0]
    first = {(k, top, left) for _, k, top, left in sorted(hard)[:number]}
    chosen = [[one for one in part if (k, one[0].top, one[0].left) in first] for k, part in enumerate(scored)]
    rest = [[one for one in part if (k, one[0].top, one[0].left) not in first] for k, part in enumerate(scored)]
    labelled = [ground.whole.labelled for ground in grounds]
    shares = share_out(number - len(first), labelled, [len(part) for part in rest])
    for part, others, count in zip(chosen, rest, shares, strict=True):
        part += [others[position] for position in rng.permutation(len(others))[:count].tolist()]
        part.sort(key=lambda one: (one[0].top, one[0].left))
    return chosen


def share_out(number: int, weights: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Divide a number in proportion to weights, none above its limit; what a limit leaves goes to the others."""
    shares = [0] * len(weights)
    while (left := number - sum(shares)) > 0:
        open_ones = [k for k, limit in enumerate(limits) if shares[k] < limit and weights[k] > 0]
        if not open_ones:
            break
        total = sum(weights[k] for k in open_ones)
        wanted = {k: left * weights[k] / total for k in open_ones}
        whole = {k: min(math.floor(wanted[k]), limits[k] - shares[k]) for k in open_ones}
        if not any(whole.values()):
            whole = dict.fromkeys(sorted(open_ones, key=lambda k: (-weights[k], k))[:left], 1)
        for k, count in whole.items():
            shares[k] += count
    return shares
