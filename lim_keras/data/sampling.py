"""Training samples: windows of tiles among other tiles, whole resized tiles, and sheets of tiles laid edge to edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lim_keras.data.augment import PAPER_RECIPES, Augmentation, AugmentationName, build_augmentation, paper_recipe
from lim_keras.data.tiles import IGNORED, TileStore, resample
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.windows import Box

Example = tuple[np.ndarray, np.ndarray]
"""Image (h, w, bands) in its data type, and mask (h, w) uint8 {0, 1, 255}."""


class Sampler(Protocol):
    """Square examples addressed by epoch and position, so that a resumed run draws the examples of an unbroken one."""

    size: int

    def __len__(self) -> int:
        """Return the number of examples in an epoch."""
        ...

    def example(self, epoch: int, position: int) -> Example:
        """Return one example; equal arguments give equal examples."""
        ...


class NegativePool:
    """Negative tiles, drawn evenly or by their false alarms.

    Args:
        store: tiles without landslides.
        share: probability of drawing one of them instead of another tile.
        false_alarm: mean probability of landslide that a model gives each tile, (tiles,); None: draw evenly. Half of
            the draws are even; the other half are in proportion to it.
    """

    def __init__(self, store: TileStore, share: float, false_alarm: np.ndarray | None = None) -> None:
        self.store, self.share = store, share
        chance = np.full(len(store), 1 / len(store))
        total = 0.0 if false_alarm is None else float(np.sum(false_alarm))
        if false_alarm is not None and total > 0:
            chance = 0.5 * chance + 0.5 * np.asarray(false_alarm, np.float64) / total
        self._limits = np.cumsum(chance)

    def draw(self, rng: np.random.Generator) -> int:
        """Return the position of a tile in the store."""
        position = int(np.searchsorted(self._limits, rng.random() * self._limits[-1], side="right"))
        return min(position, len(self.store) - 1)


class WindowSampler:
    """Square windows in which a landslide is at any position, cut by an edge, or absent.

    A random pixel of a random tile (of a landslide tile: a landslide pixel) lands on a random pixel of the window. If
    the tile is larger than the window, the window is moved inside the tile. Otherwise, and with probability `paste` in
    any case, other tiles fill the rest. They are drawn by the same rule as the first, so a seam does not reveal
    the label.

    Args:
        store: tiles to draw from.
        size: height and width of a window, pixels.
        examples: windows in an epoch.
        seed: decides every draw, together with epoch and position.
        landslide_share: probability of drawing a landslide tile.
        scale_jitter: (low, high) magnification of the ground, drawn evenly on a log scale.
        paste: probability that other tiles surround the tile even where it would fill the window.
        augmentation: applied to image and mask last.
        negatives: tiles of other data sets without landslides, and how often they are drawn; None: none.

    Raises:
        ConfigError: an argument is out of range.
        DataError: landslide tiles are wanted, but there is none.
    """

    def __init__(
        self,
        store: TileStore,
        size: int,
        examples: int,
        seed: int,
        *,
        landslide_share: float = 0.5,
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        paste: float = 1.0,
        augmentation: Augmentation | None = None,
        negatives: NegativePool | None = None,
    ) -> None:
        for name, value, valid, expected in (
            ("size", size, size >= 1, "an integer >= 1"),
            ("landslide_share", landslide_share, 0 <= landslide_share <= 1, "a number from 0 to 1"),
            ("scale_jitter", scale_jitter, 0 < scale_jitter[0] <= scale_jitter[1], "0 < low <= high"),
            ("paste", paste, 0 <= paste <= 1, "a number from 0 to 1"),
        ):
            if not valid:
                raise ConfigError(f"Invalid value for argument `{name}`. Expected {expected}. Received: {value}")
        self.size = size
        self._store, self._examples, self._seed = store, examples, seed
        self._share, self._jitter, self._paste, self._augmentation = landslide_share, scale_jitter, paste, augmentation
        self._negatives = negatives
        is_landslide = np.array([tile.kind == "landslide" for tile in store.tiles], bool)
        self._landslides, self._background = np.flatnonzero(is_landslide), np.flatnonzero(~is_landslide)
        if landslide_share and not len(self._landslides):
            raise DataError("No landslide tile to draw landslide windows from. Expected at least one. Received: 0")
        if landslide_share < 1 and not len(self._background):
            self._background = self._landslides

    def __len__(self) -> int:
        return self._examples

    def example(self, epoch: int, position: int) -> Example:
        """Return one window; equal arguments give equal windows."""
        rng = np.random.default_rng((self._seed, epoch, position))
        scale = float(np.exp(rng.uniform(*np.log(self._jitter))))
        side = max(1, round(self.size / scale))
        image, mask = resample(*self._window(side, rng), (self.size, self.size))
        return self._augmentation(image, mask, rng) if self._augmentation else (image, mask)

    def _draw(self, rng: np.random.Generator) -> tuple[TileStore, int]:
        if self._negatives is not None and rng.random() < self._negatives.share:
            return self._negatives.store, self._negatives.draw(rng)
        pool = self._landslides if rng.random() < self._share else self._background
        return self._store, int(pool[int(rng.integers(len(pool)))])

    def _drawn(self, rng: np.random.Generator) -> Example:
        store, position = self._draw(rng)
        return store.get(position)

    def _window(self, side: int, rng: np.random.Generator) -> Example:
        store, position = self._draw(rng)
        image, mask = store.get(position)
        pick_pixel = _landslide_pixel if store.tiles[position].kind == "landslide" else _any_pixel
        origin = [pixel - int(rng.integers(side)) for pixel in pick_pixel(mask, rng)]
        pastes = rng.random() < self._paste
        if not pastes:
            origin = [_inside(start, side, edge) for start, edge in zip(origin, mask.shape, strict=True)]
        top, left = origin
        if not pastes and top >= 0 and left >= 0 and top + side <= mask.shape[0] and left + side <= mask.shape[1]:
            return image[top : top + side, left : left + side], mask[top : top + side, left : left + side]
        return self._surrounded((image, mask), (top, left), side, rng)

    def _surrounded(self, tile: Example, origin: tuple[int, int], side: int, rng: np.random.Generator) -> Example:
        """Lay the tile into the window and fill the rest with other tiles."""
        window = np.empty((side, side, tile[0].shape[2]), tile[0].dtype)
        labels = np.empty((side, side), np.uint8)
        for strip in lay_tile(window, labels, Box(0, 0, side, side), tile, origin):
            fill_box(window, labels, strip, self._drawn, rng)
        return window, labels


def _any_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1]))


def _landslide_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    found = np.flatnonzero(mask == 1)
    if not len(found):
        return _any_pixel(mask, rng)
    row, column = divmod(int(found[int(rng.integers(len(found)))]), mask.shape[1])
    return row, column


def _inside(start: int, side: int, edge: int) -> int:
    return min(max(start, 0), edge - side) if edge >= side else start


class ResizedSampler:
    """Whole tiles resized to a square, as in the paper. Each epoch shows every tile once, in a new random order.

    With the augmentation "paper" a landslide tile gives four examples, itself and the three recipes of Fig. 6 of Chen
    et al. 2022. Otherwise each tile is one example.

    Args:
        store: tiles.
        size: height and width of an example, pixels.
        seed: decides order and augmentation, together with epoch and position.
        augmentation: "paper", "dihedral" or "none".
        low, high: lowest and highest value of each band, (bands,).
        colour_jitter: strength of the colour changes of "dihedral".
        photometric: further changes, after the augmentation; None: none.
    """

    def __init__(
        self,
        store: TileStore,
        size: int,
        seed: int,
        augmentation: AugmentationName = "none",
        *,
        low: np.ndarray,
        high: np.ndarray,
        colour_jitter: float = 1.0,
        photometric: Augmentation | None = None,
    ) -> None:
        self.size = size
        self._photometric = photometric
        self._store, self._seed, self._low, self._high = store, seed, low, high
        dihedral = build_augmentation("dihedral", low, high, colour_jitter)
        self._augmentation = dihedral if augmentation == "dihedral" else None
        recipes = PAPER_RECIPES if augmentation == "paper" else 1
        self._entries = [
            (position, recipe)
            for position, tile in enumerate(store.tiles)
            for recipe in range(recipes if tile.kind == "landslide" else 1)
        ]
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __len__(self) -> int:
        return len(self._entries)

    def example(self, epoch: int, position: int) -> Example:
        """Return one tile; positions beyond the epoch start again."""
        tile, recipe = self._entries[self._shuffled(epoch)[position % len(self)]]
        rng = np.random.default_rng((self._seed, epoch, position))
        image, mask = resample(*self._store.get(tile), (self.size, self.size))
        if self._augmentation:
            image, mask = self._augmentation(image, mask, rng)
        else:
            image, mask = paper_recipe(image, mask, recipe, self._low, self._high, rng)
        return self._photometric(image, mask, rng) if self._photometric else (image, mask)

    def _shuffled(self, epoch: int) -> np.ndarray:
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self))
            self._order = (epoch, order)
        return order


def fill_box(
    image: np.ndarray,
    mask: np.ndarray,
    box: Box,
    pick: Callable[[np.random.Generator], Example],
    rng: np.random.Generator,
) -> None:
    """Cover a box of `image` (H, W, bands) and `mask` (H, W) with random cuts of the tiles that `pick` draws.

    Each cut leaves an L-shaped rest, which is split in two boxes and covered in turn.
    """
    boxes = [box]
    while boxes:
        rest = boxes.pop()
        if rest.height <= 0 or rest.width <= 0:
            continue
        pixels, labels = pick(rng)
        height, width = min(rest.height, pixels.shape[0]), min(rest.width, pixels.shape[1])
        top = int(rng.integers(pixels.shape[0] - height + 1))
        left = int(rng.integers(pixels.shape[1] - width + 1))
        target = Box.sized(rest.top, rest.left, height, width).slices
        image[target] = pixels[top : top + height, left : left + width]
        mask[target] = labels[top : top + height, left : left + width]
        full_width = rng.random() < 0.5
        beside = Box.sized(rest.top, rest.left + width, height if full_width else rest.height, rest.width - width)
        below = Box.sized(rest.top + height, rest.left, rest.height - height, rest.width if full_width else width)
        boxes += [beside, below] if full_width else [below, beside]


def lay_tile(image: np.ndarray, mask: np.ndarray, box: Box, tile: Example, origin: tuple[int, int]) -> list[Box]:
    """Copy a part of a tile into a box of `image` (H, W, bands) and `mask` (H, W).

    Args:
        image, mask: written to.
        box: target.
        tile: image (h, w, bands) and mask (h, w).
        origin: pixel (top, left) of the tile that falls on the upper left corner of the box; may lie outside the tile.

    Returns:
        The boxes that stay empty.
    """
    pixels, labels = tile
    (top, left), (height, width) = origin, labels.shape
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(box.height, height - top), min(box.width, width - left)
    target = Box.sized(box.top + y0, box.left + x0, y1 - y0, x1 - x0).slices
    image[target] = pixels[top + y0 : top + y1, left + x0 : left + x1]
    mask[target] = labels[top + y0 : top + y1, left + x0 : left + x1]
    strips = [
        Box.sized(box.top, box.left, y0, box.width),
        Box.sized(box.top + y1, box.left, box.height - y1, box.width),
        Box.sized(box.top + y0, box.left, y1 - y0, x0),
        Box.sized(box.top + y0, box.left + x1, y1 - y0, box.width - x1),
    ]
    return _not_empty(strips)


def _not_empty(boxes: Sequence[Box]) -> list[Box]:
    return [box for box in boxes if box.height > 0 and box.width > 0]


@dataclass(frozen=True)
class Sheet:
    """Positions of tiles on a sheet.

    Attributes:
        height, width: pixels.
        boxes: box of each tile, by its position in the store.
        gaps: boxes that no tile covers.
    """

    height: int
    width: int
    boxes: dict[int, Box]
    gaps: tuple[Box, ...]


def pack(sizes: Sequence[tuple[int, int]], side: int, seed: int = 0) -> list[Sheet]:
    """Lay tiles edge to edge on sheets, in shelves of tiles of similar height.

    Tiles are dealt to the sheets at random, so that no sheet holds only small tiles.

    Args:
        sizes: (height, width) of each tile, pixels.
        side: side of a sheet, pixels; a larger tile gets a sheet of its own size.
        seed: decides which tiles are neighbours.
    """
    order = np.random.default_rng(seed).permutation(len(sizes))
    sheets: list[Sheet] = []
    dealt: list[int] = []
    area = 0
    for position in order:
        dealt.append(int(position))
        area += sizes[position][0] * sizes[position][1]
        if area >= 0.9 * side * side:
            sheets.append(_shelves(dealt, sizes, side))
            dealt, area = [], 0
    if dealt:
        sheets.append(_shelves(dealt, sizes, side))
    return sheets


def _shelves(positions: list[int], sizes: Sequence[tuple[int, int]], side: int) -> Sheet:
    area = sum(sizes[p][0] * sizes[p][1] for p in positions)
    width = max(min(side, int(np.ceil(area**0.5))), max(sizes[p][1] for p in positions))
    boxes: dict[int, Box] = {}
    gaps: list[Box] = []
    y = x = shelf = 0
    for position in sorted(positions, key=lambda p: -sizes[p][0]):
        tile_height, tile_width = sizes[position]
        if x + tile_width > width:
            gaps.append(Box.sized(y, x, shelf, width - x))
            y, x, shelf = y + shelf, 0, 0
        shelf = shelf or tile_height
        boxes[position] = Box.sized(y, x, tile_height, tile_width)
        gaps.append(Box.sized(y + tile_height, x, shelf - tile_height, tile_width))
        x += tile_width
    gaps.append(Box.sized(y, x, shelf, width - x))
    return Sheet(y + shelf, width, boxes, tuple(_not_empty(gaps)))


def render(sheet: Sheet, get: Callable[[int], Example], seed: int = 0) -> Example:
    """Draw a sheet: image (height, width, bands) and mask (height, width) uint8 {0, 1, 255}.

    Gaps are filled with cuts of the same tiles and labelled 255 (ignored).
    """
    positions = list(sheet.boxes)
    first, _ = get(positions[0])
    image = np.zeros((sheet.height, sheet.width, first.shape[2]), first.dtype)
    mask = np.full((sheet.height, sheet.width), IGNORED, np.uint8)
    for position, box in sheet.boxes.items():
        image[box.slices], mask[box.slices] = get(position)
    rng = np.random.default_rng(seed)
    unused = np.zeros_like(mask)
    for gap in sheet.gaps:
        fill_box(image, unused, gap, lambda draw: get(positions[int(draw.integers(len(positions)))]), rng)
    return image, mask


def windows_of(image: np.ndarray, mask: np.ndarray, size: int) -> Iterator[Example]:
    """Cut a sheet into windows of `size` x `size` that label every pixel once.

    The last window of a row or column is moved inside the sheet; its pixels that an earlier window holds are ignored. A
    sheet smaller than a window is extended by its mirror image, which is ignored.
    """
    short = [max(0, size - edge) for edge in image.shape[:2]]
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        mask = np.pad(mask, ((0, short[0]), (0, short[1])), constant_values=IGNORED)
    for y in range(0, mask.shape[0], size):
        for x in range(0, mask.shape[1], size):
            top, left = min(y, mask.shape[0] - size), min(x, mask.shape[1] - size)
            labels = mask[top : top + size, left : left + size].copy()
            labels[: y - top] = IGNORED
            labels[:, : x - left] = IGNORED
            yield image[top : top + size, left : left + size], labels
