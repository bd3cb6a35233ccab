"""Evaluation protocols: tiles, windows and sheets."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.mosaic import IGNORE, pack, render
from lim_keras.data.store import TileStore, resample
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.metrics.image_blind import ImageBlindMask, everywhere
from lim_keras.raster.scene import Predict
from lim_keras.raster.windows import plan_windows


class WindowSource(Protocol):
    """Where random windows come from, such as `lim_keras.evaluation.protocols.SheetWindows`."""

    def example(self, epoch: int, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Image (h, w, bands) and mask (h, w) {0, 1, 255}; the same epoch and position give the same window."""
        ...


def tile_predictions(
    predict: Predict,
    store: TileStore,
    *,
    size: int | None = None,
    blind: ImageBlindMask | None = None,
    batch: int = 8,
) -> Iterator[Prediction]:
    """Whole tiles, as in the paper.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        store: the tiles, at the ground sample distance that the model was trained at.
        size: tiles are resized to size x size first, as a model for whole resized tiles was trained; None: native size.
        blind: the mean mask of the training tiles; None: "everything is landslide" stands in for it.
        batch: most tiles predicted at once. Only neighbours of one size share a batch, so no tile is ever padded.
    """
    for place, probability in _predicted(predict, _tiles(store, size), batch):
        shape = place.mask.shape
        yield Prediction(place, probability, blind.mask(shape) if blind else everywhere(shape))


def _tiles(store: TileStore, size: int | None) -> Iterator[Sample]:
    for position, tile in enumerate(store.tiles):
        image, mask = store.get(position)
        if size is not None:
            image, mask = resample(image, mask, (size, size))
        yield Sample(tile.tile_id, tile.kind, tile.group, image, mask)


def window_predictions(
    predict: Predict, source: WindowSource, count: int, *, epoch: int = 0, batch: int = 8
) -> Iterator[Prediction]:
    """The first `count` windows of an epoch of a seeded source.

    A window that shows a landslide pixel is a landslide place. As a window may show several tiles, each is a group of
    its own.
    """
    for place, probability in _predicted(predict, _windows(source, count, epoch), batch):
        yield Prediction(place, probability, everywhere(place.mask.shape))


def _windows(source: WindowSource, count: int, epoch: int) -> Iterator[Sample]:
    for position in range(count):
        image, mask = source.example(epoch, position)
        yield Sample(f"window_{position}", _kind(mask), "", image, mask)


def _predicted(
    predict: Predict, places: Iterable[Sample], batch: int
) -> Iterator[tuple[Sample, NDArray[np.floating[Any]]]]:
    for together in _batches(places, batch):
        yield from zip(together, _checked(predict, np.stack([place.image for place in together])), strict=True)


def _batches(places: Iterable[Sample], most: int) -> Iterator[list[Sample]]:
    """Neighbours of one shape, at most `most`."""
    batch: list[Sample] = []
    for place in places:
        if batch and (len(batch) == most or place.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _checked(predict: Predict, images: NDArray[Any]) -> NDArray[np.floating[Any]]:
    probability = np.asarray(predict(images))
    if probability.shape != images.shape[:3]:
        raise ValueError(
            f"Expected `predict` to return probabilities of shape {images.shape[:3]} for images of shape "
            f"{images.shape}. Received: shape {probability.shape}"
        )
    return probability


def _kind(mask: NDArray[np.uint8]) -> str:
    return "landslide" if (mask == 1).any() else "non-landslide"


SIDE = 4096


def sheet_predictions(
    predict: Predict, store: TileStore, *, seed: int, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> Iterator[Prediction]:
    """Lay tiles edge to edge on sheets, predict the sheets in windows with a halo, and cut the tiles out again.

    A tile is thus seen as a piece of a scene: its landslide lies anywhere in a window and has other ground around it.
    Threshold and temperature are fitted on such predictions, as they are meant for scenes.

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
        for position, box in sheet.places.items():
            cut = box.slices
            held_out = store.tiles[position]
            place = Sample(held_out.tile_id, held_out.kind, held_out.group, image[cut], mask[cut])
            yield Prediction(place, probability[cut], everywhere(mask[cut].shape))


class SheetWindows:
    """Square windows at random places of the sheets: a landslide lies anywhere, is cut by the window's edge, or absent.

    A sheet goes round: at its edge a window continues on the opposite side, so that every tile pixel is shown equally
    often. Where a sheet is smaller than a window, ground that is shown again is labelled ignore. The windows come sheet
    by sheet, from each as many as its share of the ground, so that one sheet at a time is held.

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

    def example(self, epoch: int, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Image (size, size, bands) and mask (size, size) {0, 1, 255} of window 0 .. count - 1; see the class."""
        rng = np.random.default_rng((self._seed, epoch, position))
        along = (position + rng.random()) / self._count
        image, mask = self._sheet(int(np.searchsorted(self._shares[:-1], along, side="right")))
        rows, columns = (int(rng.integers(edge)) + np.arange(self._size) for edge in mask.shape)
        height, width = mask.shape
        place = np.ix_(rows % height, columns % width)
        window, labels = image[place], mask[place]
        labels[height:] = IGNORE
        labels[:, width:] = IGNORE
        return window, labels

    def _sheet(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        if self._held is None or self._held[0] != number:
            self._held = None  # before the next one is drawn: there is memory for one
            self._held = number, render(self._sheets[number], self._store.get, self._seed + number)
        return self._held[1]


def predict_array(
    predict: Predict, image: NDArray[Any], *, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> NDArray[np.float32]:
    """Probability (height, width) of an image (height, width, bands) in memory, predicted in windows with a halo."""
    probability = np.empty(image.shape[:2], np.float32)
    for window in plan_windows(*image.shape[:2], tile=tile, halo=halo, multiple=multiple):
        predicted = predict(image[window.read.slices][np.newaxis])[0]
        probability[window.core.slices] = predicted[window.inner.slices]
    return probability
