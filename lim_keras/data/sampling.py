"""What a training example is: a window anywhere at one ground sample distance, or a whole tile resized as in the paper.

A sampler is addressed by epoch and position and draws from a generator seeded with both, so that a run that was cut off
goes on with the very batches that it would have seen.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lim_keras.data.augment import PAPER_RECIPES, Augmentation, AugmentationName, build_augmentation, paper_recipe
from lim_keras.data.mosaic import fill_box, lay_tile
from lim_keras.data.store import TileStore, resample
from lim_keras.errors import DataError
from lim_keras.raster.windows import Box

Example = tuple[np.ndarray, np.ndarray]
"""Image (size, size, bands) in its own data type, mask (size, size) uint8 {0, 1, 255}."""


class Sampler(Protocol):
    """Examples of one size, addressed by epoch and position."""

    size: int

    def __len__(self) -> int:
        """Examples in an epoch."""
        ...

    def example(self, epoch: int, position: int) -> Example:
        """The same epoch and position always give the same example."""
        ...


class WindowSampler:
    """Square windows in which a landslide may lie anywhere, be cut by an edge, or be absent.

    A window is placed so that one pixel of its tile, drawn at random (of a landslide tile, one of the landslide's),
    lands on a place of the window drawn at random. Where the tile is larger than the window, the window is moved inside
    it. Otherwise, and at rate `paste` anyway, the rest of the window shows other tiles. Those are drawn like the first
    one, landslides as often as there, so that neither a seam nor its absence says anything about the ground beside it.

    Args:
        store: the tiles to draw from.
        size: height and width of a window, pixels.
        examples: windows in an epoch.
        seed: decides every draw, together with epoch and position.
        landslide_share: probability that a tile is drawn from the landslide tiles.
        scale_jitter: (low, high) factor by which a window's ground is magnified, drawn evenly on a log scale.
        paste: probability that the surroundings come from other tiles even where the tile would fill the window.
        augmentation: applied to image and mask last.
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
    ) -> None:
        self.size = size
        self._store, self._examples, self._seed = store, examples, seed
        self._share, self._jitter, self._paste, self._augmentation = landslide_share, scale_jitter, paste, augmentation
        kinds = [tile.kind == "landslide" for tile in store.tiles]
        self._landslides = np.flatnonzero(kinds)
        self._background = np.flatnonzero(~np.asarray(kinds, bool))
        if landslide_share and not len(self._landslides):
            raise DataError("No landslide tile to draw landslide windows from. Expected at least one. Received: 0")
        if landslide_share < 1 and not len(self._background):
            # A set of landslide tiles only: their own background is the background.
            self._background = self._landslides

    def __len__(self) -> int:
        return self._examples

    def example(self, epoch: int, position: int) -> Example:
        """One window; see the class."""
        rng = np.random.default_rng((self._seed, epoch, position))
        scale = float(np.exp(rng.uniform(*np.log(self._jitter))))
        side = max(1, round(self.size / scale))
        image, mask = resample(*self._window(side, rng), (self.size, self.size))
        return self._augmentation(image, mask, rng) if self._augmentation else (image, mask)

    def _draw(self, rng: np.random.Generator) -> int:
        pool = self._landslides if rng.random() < self._share else self._background
        return int(pool[int(rng.integers(len(pool)))])

    def _place(self, side: int, rng: np.random.Generator) -> tuple[int, list[int]]:
        """A tile, and where in it (top, left) the window begins."""
        position = self._draw(rng)
        _, mask = self._store.get(position)
        anchor = _landslide_pixel if self._store.tiles[position].kind == "landslide" else _any_pixel
        return position, [at - int(rng.integers(side)) for at in anchor(mask, rng)]

    def _window(self, side: int, rng: np.random.Generator) -> Example:
        position, origin = self._place(side, rng)
        image, mask = self._store.get(position)
        pastes = rng.random() < self._paste
        if not pastes:
            origin = [_inside(start, side, edge) for start, edge in zip(origin, mask.shape, strict=True)]
        top, left = origin
        if not pastes and top >= 0 and left >= 0 and top + side <= mask.shape[0] and left + side <= mask.shape[1]:
            return image[top : top + side, left : left + side], mask[top : top + side, left : left + side]
        return self._among_others(image, mask, top, left, side, rng)

    def _among_others(
        self, image: np.ndarray, mask: np.ndarray, top: int, left: int, side: int, rng: np.random.Generator
    ) -> Example:
        """The tile at its place in the window, the four strips around it covered with other tiles."""
        window = np.empty((side, side, image.shape[2]), image.dtype)
        labels = np.empty((side, side), np.uint8)
        strips = lay_tile(window, labels, Box(0, 0, side, side), (image, mask), (top, left))
        for strip in strips:
            fill_box(window, labels, strip, lambda draw: self._store.get(self._draw(draw)), rng)
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
    """Whole tiles resized to a square, the paper's way; every epoch shows every tile once, in an order of its own.

    With the "paper" augmentation a landslide tile yields itself and the three recipes of Fig. 6, a non-landslide tile
    itself; with "dihedral" or "none" each tile is one example.
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
    ) -> None:
        self.size = size
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
        """One tile; positions past the epoch's end go round again."""
        tile, recipe = self._entries[self._shuffled(epoch)[position % len(self)]]
        rng = np.random.default_rng((self._seed, epoch, position))
        image, mask = resample(*self._store.get(tile), (self.size, self.size))
        if self._augmentation:
            return self._augmentation(image, mask, rng)
        return paper_recipe(image, mask, recipe, self._low, self._high, rng)

    def _shuffled(self, epoch: int) -> np.ndarray:
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self))
            self._order = (epoch, order)
        return order
