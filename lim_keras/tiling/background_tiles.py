"""Place and choose background tiles: tiles without a landslide pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from lim_keras.errors import ConfigError
from lim_keras.raster.windows import Box
from lim_keras.tiling.box_index import BoxIndex
from lim_keras.tiling.count_grid import CountGrid
from lim_keras.tiling.options import TilingOptions

Score = Callable[[int, Box], float]
"""Function of the position of a scene and a box in it: strength of the false alarms of a model there, 0: none."""

_MOST_DRAWN = 100_000  # positions that are tried if not all tiles are wanted
_MOST_TILES = 1_000_000  # of one scene
_STEPS = 4  # positions within a tile's width at which gaps of the grid are tried


def place_background_tiles(
    counts: CountGrid, landslide_tiles: Iterable[Box], options: TilingOptions, rng: np.random.Generator
) -> list[Box]:
    """Place background tiles beside the landslide tiles of a scene.

    Tiles lie on a grid of distance `size - overlap` that is spread evenly over the scene. Tiles at quarter steps fill
    the gaps that landslides leave in it. A tile overlaps no landslide tile, and other background tiles by at most
    `overlap` pixels along one axis. If the grid has more than 100,000 positions and not all tiles are wanted, so many
    positions are drawn from it.

    Args:
        counts: counts of the pixels of the scene.
        landslide_tiles: landslide tiles of the scene.
        options: size, overlap and least share of labelled pixels.
        rng: draws the positions of a large grid.

    Returns:
        The background tiles, from the top down.

    Raises:
        ConfigError: `overlap` gives more than a million positions, and all tiles are wanted.
    """
    landslides, placed = BoxIndex(options.size), BoxIndex(options.size)
    for box in landslide_tiles:
        landslides.add(box)
    for box in _lattice(counts, options.size, options.step, _drawn(counts, options, rng)):
        if not landslides.meets(box) and _is_background(counts, box, options.min_valid):
            placed.add(box)
    # A grid of a large overlap leaves no gap that a tile fits into.
    fine = max(options.size // _STEPS, 1) if options.step >= options.size / 2 else 0
    for box in _lattice(counts, options.size, fine) if fine else ():
        taken = landslides.meets(box) or placed.meets(box, options.overlap)
        if not taken and _is_background(counts, box, options.min_valid):
            placed.add(box)
    return sorted(placed.boxes, key=lambda box: (box.top, box.left))


def _is_background(counts: CountGrid, box: Box, min_valid: float) -> bool:
    needed = max(min_valid * box.height * box.width, 1)
    low, high = counts.bounds(box)
    if low.landslide or high.labelled < needed:
        return False
    if high.landslide or low.labelled < needed:
        low = counts.count(box)
    return not low.landslide and low.labelled >= needed


def _drawn(counts: CountGrid, options: TilingOptions, rng: np.random.Generator) -> Iterable[int] | None:
    """Draw positions of a grid that has too many; None: all of them are tried."""
    info = counts.scene.info
    rows, columns = (len(_starts(length, options.size, options.step)) for length in (info.height, info.width))
    if options.background == "all" and options.overlap and rows * columns > _MOST_TILES:
        raise ConfigError(
            f"{info.path}: expected an `overlap` that gives at most {_MOST_TILES:,} tiles. Received: {options.overlap} "
            f"of {options.size} px, which gives {rows * columns:,}. Lower it, or give a number as `background`."
        )
    if options.background == "all" or rows * columns <= _MOST_DRAWN:
        return None
    drawn: list[int] = np.sort(rng.choice(rows * columns, _MOST_DRAWN, replace=False)).tolist()
    return drawn


def _lattice(counts: CountGrid, size: int, step: int, chosen: Iterable[int] | None = None) -> Iterator[Box]:
    """Yield the boxes of an even grid, from the top down; `chosen`: numbers of the positions to yield, None: all."""
    info = counts.scene.info
    rows, columns = (_starts(length, size, step) for length in (info.height, info.width))
    for number in range(len(rows) * len(columns)) if chosen is None else chosen:
        row, column = divmod(number, len(columns))
        yield Box.sized(rows[row], columns[column], size, size).grown(0, info.box)


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return as many starts as fit at least `step` apart, spread evenly from the first to the last position."""
    room = max(length - size, 0)
    starts: list[int] = np.linspace(0, room, room // step + 1).astype(int).tolist()
    return starts


def choose_background_tiles(
    candidates: Sequence[Sequence[Box]],
    counts: Sequence[CountGrid],
    number: int,
    rng: np.random.Generator,
    score: Score | None = None,
) -> list[list[tuple[Box, float]]]:
    """Draw background tiles from the candidates of each scene.

    Tiles with a score above 0 come first, those of the highest score before others. The rest is drawn at random, from
    each scene in proportion to its labelled pixels.

    Args:
        candidates: background tiles that may be chosen, by scene.
        counts: counts of the pixels of each scene.
        number: number of tiles to draw from all scenes.
        rng: random number generator.
        score: ranks the tiles; None: all are drawn at random.

    Returns:
        Tiles and their scores by scene, from the top down.
    """
    scored = [[(box, 0.0 if score is None else score(k, box)) for box in boxes] for k, boxes in enumerate(candidates)]
    hard = [(-value, k, box.top, box.left) for k, part in enumerate(scored) for box, value in part if value > 0]
    first = {(k, top, left) for _, k, top, left in sorted(hard)[:number]}
    chosen = [[one for one in part if (k, one[0].top, one[0].left) in first] for k, part in enumerate(scored)]
    rest = [[one for one in part if (k, one[0].top, one[0].left) not in first] for k, part in enumerate(scored)]
    labelled = [one.whole.labelled for one in counts]
    shares = share_out(number - len(first), labelled, [len(part) for part in rest])
    for part, others, count in zip(chosen, rest, shares, strict=True):
        part += [others[position] for position in rng.permutation(len(others))[:count].tolist()]
        part.sort(key=lambda one: (one[0].top, one[0].left))
    return chosen


def share_out(number: int, weights: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Divide a number in proportion to weights, none above its limit; the rest goes to the others."""
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
