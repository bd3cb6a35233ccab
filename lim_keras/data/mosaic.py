"""Tiles set side by side: ground without a gap around a tile, and sheets on which every tile pixel stands once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lim_keras.raster.windows import Box

IGNORE = 255
Pick = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Draws the image (h, w, bands) and mask (h, w) of some tile."""


def fill_box(image: np.ndarray, mask: np.ndarray, box: Box, pick: Pick, rng: np.random.Generator) -> None:
    """Cover a box of `image` (H, W, bands) and `mask` (H, W) with tiles that `pick` draws, each cut at random.

    Every patch leaves an L-shaped rest, which is split in two and covered in turn, so that no pixel stays empty.
    """
    boxes = [box]
    while boxes:
        rest = boxes.pop()
        if rest.height <= 0 or rest.width <= 0:
            continue
        patch, labels = pick(rng)
        height, width = min(rest.height, patch.shape[0]), min(rest.width, patch.shape[1])
        top = int(rng.integers(patch.shape[0] - height + 1))
        left = int(rng.integers(patch.shape[1] - width + 1))
        place = Box.sized(rest.top, rest.left, height, width).slices
        image[place] = patch[top : top + height, left : left + width]
        mask[place] = labels[top : top + height, left : left + width]
        below, beside = rest.height - height, rest.width - width
        if rng.random() < 0.5:
            boxes += [
                Box.sized(rest.top, rest.left + width, height, beside),
                Box.sized(rest.top + height, rest.left, below, rest.width),
            ]
        else:
            boxes += [
                Box.sized(rest.top + height, rest.left, below, width),
                Box.sized(rest.top, rest.left + width, rest.height, beside),
            ]


def lay_tile(
    image: np.ndarray, mask: np.ndarray, box: Box, tile: tuple[np.ndarray, np.ndarray], origin: tuple[int, int]
) -> list[Box]:
    """Lay the part of a tile that begins at `origin` (top, left; may lie outside) into a box; returns what stays empty.

    image (H, W, bands) and mask (H, W) are written to; tile: image (h, w, bands) and mask (h, w).
    """
    patch, labels = tile
    (top, left), (height, width) = origin, labels.shape
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(box.height, height - top), min(box.width, width - left)
    place = Box.sized(box.top + y0, box.left + x0, y1 - y0, x1 - x0).slices
    image[place] = patch[top + y0 : top + y1, left + x0 : left + x1]
    mask[place] = labels[top + y0 : top + y1, left + x0 : left + x1]
    strips = [
        Box.sized(box.top, box.left, y0, box.width),
        Box.sized(box.top + y1, box.left, box.height - y1, box.width),
    ]
    strips += [
        Box.sized(box.top + y0, box.left, y1 - y0, x0),
        Box.sized(box.top + y0, box.left + x1, y1 - y0, box.width - x1),
    ]
    return [strip for strip in strips if strip.height > 0 and strip.width > 0]


@dataclass(frozen=True)
class Sheet:
    """Where tiles lie on a sheet of (height, width) pixels, and the gaps that no tile covers."""

    height: int
    width: int
    places: dict[int, Box]
    gaps: tuple[Box, ...]


def pack(sizes: Sequence[tuple[int, int]], side: int, seed: int = 0) -> list[Sheet]:
    """Lay tiles of the given (height, width) edge to edge on sheets of about `side` x `side` pixels.

    Shelves of tiles of like height; which tiles are neighbours is drawn from `seed`, and so that no sheet holds small
    tiles only, tiles are first dealt to the sheets at random. A tile larger than `side` gets a sheet of its size.
    """
    order = np.random.default_rng(seed).permutation(len(sizes))
    sheets: list[Sheet] = []
    batch: list[int] = []
    area = 0
    for position in order:
        batch.append(int(position))
        area += sizes[position][0] * sizes[position][1]
        if area >= 0.9 * side * side:
            sheets.append(_shelves(batch, sizes, side))
            batch, area = [], 0
    if batch:
        sheets.append(_shelves(batch, sizes, side))
    return sheets


def _shelves(positions: list[int], sizes: Sequence[tuple[int, int]], side: int) -> Sheet:
    area = sum(sizes[p][0] * sizes[p][1] for p in positions)
    width = max(min(side, int(np.ceil(area**0.5))), max(sizes[p][1] for p in positions))
    places: dict[int, Box] = {}
    gaps: list[Box] = []
    y = x = shelf = 0
    for position in sorted(positions, key=lambda p: -sizes[p][0]):
        tile_height, tile_width = sizes[position]
        if x + tile_width > width:
            gaps.append(Box.sized(y, x, shelf, width - x))
            y, x, shelf = y + shelf, 0, 0
        shelf = shelf or tile_height
        places[position] = Box.sized(y, x, tile_height, tile_width)
        gaps.append(Box.sized(y + tile_height, x, shelf - tile_height, tile_width))
        x += tile_width
    gaps.append(Box.sized(y, x, shelf, width - x))
    return Sheet(y + shelf, width, places, tuple(gap for gap in gaps if gap.height > 0 and gap.width > 0))


def render(
    sheet: Sheet, get: Callable[[int], tuple[np.ndarray, np.ndarray]], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a sheet: image (height, width, bands) and mask (height, width) uint8 {0, 1, 255}.

    Gaps show pieces of the same tiles, so that no edge looks like an edge of the world, and are labelled ignore.
    """
    positions = list(sheet.places)
    first, _ = get(positions[0])
    image = np.zeros((sheet.height, sheet.width, first.shape[2]), first.dtype)
    mask = np.full((sheet.height, sheet.width), IGNORE, np.uint8)
    for position, box in sheet.places.items():
        image[box.slices], mask[box.slices] = get(position)
    rng = np.random.default_rng(seed)
    scratch = np.zeros_like(mask)
    for gap in sheet.gaps:
        fill_box(image, scratch, gap, lambda draw: get(positions[int(draw.integers(len(positions)))]), rng)
    return image, mask


def windows_of(image: np.ndarray, mask: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a sheet into windows of `size` x `size` that cover it; the last ones are moved inward, what was seen ignored.

    A sheet smaller than a window is mirrored to fill it, the mirror image ignored.
    """
    short = [max(0, size - edge) for edge in image.shape[:2]]
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        mask = np.pad(mask, ((0, short[0]), (0, short[1])), constant_values=IGNORE)
    for y in range(0, mask.shape[0], size):
        for x in range(0, mask.shape[1], size):
            top, left = min(y, mask.shape[0] - size), min(x, mask.shape[1] - size)
            labels = mask[top : top + size, left : left + size].copy()
            labels[: y - top] = IGNORE
            labels[:, : x - left] = IGNORE
            yield image[top : top + size, left : left + size], labels
