"""Place tiles on landslides, at random positions that hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import shapely
from affine import Affine

from lim_keras.data.tiles import LANDSLIDE
from lim_keras.raster.vectorize import rasterize_box
from lim_keras.raster.windows import Box, blocks
from lim_keras.tiling.box_index import BoxIndex
from lim_keras.tiling.count_grid import CountGrid
from lim_keras.tiling.options import TilingOptions
from lim_keras.tiling.report import TOO_SMALL
from lim_keras.tiling.scenes import TilingScene

NO_GROUND = "on ground without data or label"
TOO_LITTLE = "too little ground with data and label around"

_PIXELS = Affine.identity()
_DRAWS = 32
_LATTICE = 17  # positions along each axis that are tried if no draw fits


@dataclass(frozen=True)
class LandslideTiles:
    """Tiles on the landslides of a scene.

    Attributes:
        boxes: tiles, in the order of their positions.
        covered: landslides (positions in `TilingScene.outlines`) that lie in the tiles.
        lost: reason why a landslide lies in no tile, by its position.
    """

    boxes: tuple[Box, ...]
    covered: tuple[int, ...]
    lost: dict[int, str]


def place_landslide_tiles(counts: CountGrid, options: TilingOptions, rng: np.random.Generator) -> LandslideTiles:
    """Place tiles so that every landslide with a labelled pixel lies in one, or in several if it is larger than a tile.

    The position of a tile is drawn uniformly from all positions that hold the landslide and lie inside the scene. A
    landslide that lies inside an earlier tile gets none of its own. Landslides come in random order.

    Args:
        counts: counts of the pixels of the scene.
        options: size, overlap and least share of labelled pixels.
        rng: random number generator.
    """
    placed, covered, lost = BoxIndex(options.size), [], {}
    outlines = counts.scene.outlines
    for number in rng.permutation(len(outlines)).tolist():
        found = _pixel_box(counts, outlines[number])
        if isinstance(found, str):
            lost[number] = found
            continue
        if placed.holds(found):
            covered.append(number)
            continue
        tiles = _tiles_on(counts, found, outlines[number], options, rng)
        if tiles:
            covered.append(number)
        else:
            lost[number] = TOO_LITTLE
        for box in tiles:
            placed.add(box)
    boxes = sorted(set(placed.boxes), key=lambda box: (box.top, box.left))
    return LandslideTiles(tuple(boxes), tuple(sorted(covered)), dict(sorted(lost.items())))


def _pixel_box(counts: CountGrid, outline: Any) -> Box | str:
    """Return the box of the labelled pixels of a landslide, or the reason why it has none."""
    scene = counts.scene
    left, top, right, bottom = outline.bounds
    box = Box(math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right)).grown(0, scene.info.box)
    if box.height <= 0 or box.width <= 0:
        return TOO_SMALL
    found: list[Box] = []
    is_drawn = False
    for part in blocks(box.height, box.width):
        place = part.shifted(box.top, box.left)
        drawn = _draw(scene, outline, place)
        is_drawn |= bool(drawn.any())
        if drawn.any():
            rows, columns = np.nonzero(drawn & (scene.mask(place) == LANDSLIDE))
            if len(rows):
                inner = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
                found.append(inner.shifted(place.top, place.left))
    if not found:
        return NO_GROUND if is_drawn else TOO_SMALL
    tops, lefts, bottoms, rights = zip(*((one.top, one.left, one.bottom, one.right) for one in found), strict=True)
    return Box(min(tops), min(lefts), max(bottoms), max(rights))


def _draw(scene: TilingScene, outline: Any, box: Box) -> Any:
    """Return the pixels (height, width) of a box whose centres lie in an outline; all pixels if touched ones count."""
    if scene.touched:
        return np.ones((box.height, box.width), np.bool_)
    return rasterize_box([outline], box, _PIXELS) > 0


def _tiles_on(
    counts: CountGrid, landslide: Box, outline: Any, options: TilingOptions, rng: np.random.Generator
) -> list[Box]:
    """Return tiles that hold the pixels of a landslide and enough labelled pixels; an empty list if none do."""
    for boxes in _arrangements(counts.scene, landslide, options, rng):
        if len(boxes) == 1:
            if counts.has_share(boxes[0], options.min_valid):
                return boxes
            continue
        kept = [box for box in boxes if _touches(outline, box) and counts.has_share(box, options.min_valid)]
        kept = [box for box in kept if counts.count(box).landslide]
        if kept:
            return kept
    return []


def _arrangements(
    scene: TilingScene, landslide: Box, options: TilingOptions, rng: np.random.Generator
) -> Iterator[list[Box]]:
    """Yield arrangements of tiles that hold a landslide: random ones, then all of an even lattice."""
    info, size = scene.info, options.size
    down = _Axis.of(landslide.top, landslide.bottom, info.height, options)
    across = _Axis.of(landslide.left, landslide.right, info.width, options)
    for _ in range(_DRAWS):
        starts = down.starts(int(rng.integers(down.first, down.last + 1)))
        yield _boxes(starts, across.starts(int(rng.integers(across.first, across.last + 1))), info, size)
    for first_row, first_column in product(down.lattice(), across.lattice()):
        yield _boxes(down.starts(first_row), across.starts(first_column), info, size)


@dataclass(frozen=True)
class _Axis:
    """Starts of tiles along one axis, pixels.

    Attributes:
        first, last: range of the first start.
        steps: distance of each start from the first one.
    """

    first: int
    last: int
    steps: tuple[int, ...]

    @classmethod
    def of(cls, low: int, high: int, length: int, options: TilingOptions) -> _Axis:
        """Find the starts with which tiles hold the pixels low..high-1 of `length` pixels."""
        size, step = options.size, options.step
        count = 1 + max(math.ceil((high - low - size) / step), 0)
        whole = size + (count - 1) * step
        if whole >= length:
            return cls(0, 0, tuple(even_starts(length, size, step)))
        steps = tuple(number * step for number in range(count))
        return cls(max(high - whole, 0), min(low, length - whole), steps)

    def starts(self, first: int) -> list[int]:
        """Return all starts, from the first one."""
        return [first + step for step in self.steps]

    def lattice(self) -> list[int]:
        """Return evenly spaced first starts."""
        return sorted(set(np.linspace(self.first, self.last, _LATTICE).round().astype(int).tolist()))


def even_starts(length: int, size: int, step: int) -> list[int]:
    """Return evenly spaced starts of tiles that cover `length` pixels, at most `step` apart."""
    count = 1 + max(math.ceil((length - size) / step), 0)
    starts: list[int] = np.linspace(0, max(length - size, 0), count).round().astype(int).tolist()
    return starts


def _boxes(rows: list[int], columns: list[int], info: Any, size: int) -> list[Box]:
    return [Box.sized(top, left, size, size).grown(0, info.box) for top, left in product(rows, columns)]


def _touches(outline: Any, box: Box) -> bool:
    return bool(shapely.intersects(outline, shapely.box(box.left, box.top, box.right, box.bottom)))
