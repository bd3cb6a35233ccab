"""Predictions by protocol: whole tiles, windows, and sheets of tiles laid edge to edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import Predict
from lim_keras.data.sampling import pack, render
from lim_keras.data.tiles import IGNORED, TileStore, resample
from lim_keras.errors import ConfigError
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.metrics.image_blind import ImageBlindMask, everywhere
from lim_keras.raster.windows import plan_windows

SIDE = 4096
"""Height and width of a sheet, pixels."""


def tile_predictions(
    predict: Predict,
    store: TileStore,
    *,
    size: int | None = None,
    blind: ImageBlindMask | None = None,
    batch: int = 8,
) -> Iterator[Prediction]:
    """Predict whole tiles, as in the paper.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        store: tiles at the ground sample distance of training.
        size: resize tiles to size x size first, as for a model trained on resized tiles; None: native size.
        blind: mean mask of the training tiles; None: the baseline calls everything landslide.
        batch: most tiles predicted at once; only neighbours of one size share a batch, so no tile is padded.
    """
    for sample, probability in _predicted(predict, _tiles(store, size), batch):
        shape = sample.mask.shape
        yield Prediction(sample, probability, blind.mask(shape) if blind else everywhere(shape))


def _tiles(store: TileStore, size: int | None) -> Iterator[Sample]:
    for position, tile in enumerate(store.tiles):
        image, mask = store.get(position)
        if size is not None:
            image, mask = resample(image, mask, (size, size))
        yield Sample(tile.tile_id, tile.kind, tile.group, image, mask)


def window_predictions(predict: Predict, source: SheetWindows, *, batch: int = 8) -> Iterator[Prediction]:
    """Predict windows.

    A window with a landslide pixel is a landslide sample. Each window is a group of its own, as it may show parts of
    several tiles.
    """
    for sample, probability in _predicted(predict, _windows(source), batch):
        yield Prediction(sample, probability, everywhere(sample.mask.shape))


def _windows(source: SheetWindows) -> Iterator[Sample]:
    for position in range(len(source)):
        image, mask = source.window(position)
        kind = "landslide" if (mask == 1).any() else "non-landslide"
        yield Sample(f"window_{position}", kind, "", image, mask)


def _predicted(
    predict: Predict, samples: Iterable[Sample], batch: int
) -> Iterator[tuple[Sample, NDArray[np.floating[Any]]]]:
    for together in _batches(samples, batch):
        yield from zip(together, _checked(predict, np.stack([sample.image for sample in together])), strict=True)


def _batches(samples: Iterable[Sample], most: int) -> Iterator[list[Sample]]:
    """Yield lists of at most `most` neighbours of one shape."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and (len(batch) == most or sample.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _checked(predict: Predict, images: NDArray[Any]) -> NDArray[np.floating[Any]]:
    probability = np.asarray(predict(images))
    if probability.shape != images.shape[:3]:
        raise ConfigError(
            f"Expected `predict` to return probabilities of shape {images.shape[:3]} for images of shape "
            f"{images.shape}. Received: shape {probability.shape}."
        )
    return probability


def sheet_predictions(
    predict: Predict, store: TileStore, *, seed: int, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> Iterator[Prediction]:
    """Lay tiles edge to edge on sheets, predict the sheets in windows with a halo, and cut the tiles out again.

    The model sees a tile as part of a scene: the landslide lies anywhere in the window, among other ground. Threshold
    and temperature are fitted on these predictions because they are used on scenes.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        store: held-out tiles at the ground sample distance of training.
        seed: decides which tiles are neighbours.
        tile, halo, multiple: see `plan_windows`.
    """
    sizes = [store.size(position) for position in range(len(store))]
    for number, sheet in enumerate(pack(sizes, SIDE, seed)):
        image, mask = render(sheet, store.get, seed + number)
        probability = predict_array(predict, image, tile=tile, halo=halo, multiple=multiple)
        for position, box in sheet.boxes.items():
            cut = box.slices
            held_out = store.tiles[position]
            sample = Sample(held_out.tile_id, held_out.kind, held_out.group, image[cut], mask[cut])
            yield Prediction(sample, probability[cut], everywhere(mask[cut].shape))


class SheetWindows:
    """Square windows at random positions of the sheets.

    A window that crosses the edge of a sheet continues at the opposite edge, so that every pixel appears equally often;
    where the sheet is smaller than the window, repeated ground is labelled ignore. Windows come sheet by sheet, in
    proportion to the area, so that memory holds one sheet at a time.

    Args:
        store: tiles at the ground sample distance of training.
        size: height and width of a window, pixels.
        count: number of windows.
        seed: decides which tiles are neighbours and where windows begin.
    """

    def __init__(self, store: TileStore, size: int, count: int, seed: int) -> None:
        self._store, self._size, self._count, self._seed = store, size, count, seed
        self._sheets = pack([store.size(position) for position in range(len(store))], SIDE, seed)
        areas = np.cumsum([sheet.height * sheet.width for sheet in self._sheets])
        self._shares = areas / areas[-1]
        self._held: tuple[int, tuple[NDArray[Any], NDArray[np.uint8]]] | None = None

    def __len__(self) -> int:
        return self._count

    def window(self, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return image (size, size, bands) and mask (size, size) {0, 1, 255} of window 0 .. count - 1."""
        rng = np.random.default_rng((self._seed, 0, position))
        along = (position + rng.random()) / self._count
        image, mask = self._sheet(int(np.searchsorted(self._shares[:-1], along, side="right")))
        rows, columns = (int(rng.integers(edge)) + np.arange(self._size) for edge in mask.shape)
        height, width = mask.shape
        place = np.ix_(rows % height, columns % width)
        window, labels = image[place], mask[place]
        labels[height:] = IGNORED
        labels[:, width:] = IGNORED
        return window, labels

    def _sheet(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        if self._held is None or self._held[0] != number:
            self._held = None  # free the memory of the last sheet first
            self._held = number, render(self._sheets[number], self._store.get, self._seed + number)
        return self._held[1]


def predict_array(
    predict: Predict, image: NDArray[Any], *, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> NDArray[np.float32]:
    """Predict an image (height, width, bands) in windows with a halo; return probability (height, width)."""
    probability = np.empty(image.shape[:2], np.float32)
    for window in plan_windows(*image.shape[:2], size=tile, halo=halo, multiple=multiple):
        predicted = predict(image[window.read.slices][np.newaxis])[0]
        probability[window.core.slices] = predicted[window.inner.slices]
    return probability
