"""Two protocols, whole tiles and random windows, each a stream of predictions for `scoring.evaluate`."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.store import TileStore, resample
from lim_keras.evaluation.baseline import ImageBlindMask, everywhere
from lim_keras.evaluation.scoring import Place, Prediction
from lim_keras.inference.scene import Predict


class WindowSource(Protocol):
    """Where random windows come from, such as `lim_keras.evaluation.sheets.SheetWindows`."""

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


def _tiles(store: TileStore, size: int | None) -> Iterator[Place]:
    for position, tile in enumerate(store.tiles):
        image, mask = store.get(position)
        if size is not None:
            image, mask = resample(image, mask, (size, size))
        yield Place(tile.tile_id, tile.kind, tile.group, image, mask)


def window_predictions(
    predict: Predict, source: WindowSource, count: int, *, epoch: int = 0, batch: int = 8
) -> Iterator[Prediction]:
    """The first `count` windows of an epoch of a seeded source.

    A window that shows a landslide pixel is a landslide place. As a window may show several tiles, each is a group of
    its own.
    """
    for place, probability in _predicted(predict, _windows(source, count, epoch), batch):
        yield Prediction(place, probability, everywhere(place.mask.shape))


def _windows(source: WindowSource, count: int, epoch: int) -> Iterator[Place]:
    for position in range(count):
        image, mask = source.example(epoch, position)
        yield Place(f"window_{position}", _kind(mask), "", image, mask)


def _predicted(
    predict: Predict, places: Iterable[Place], batch: int
) -> Iterator[tuple[Place, NDArray[np.floating[Any]]]]:
    for together in _batches(places, batch):
        yield from zip(together, _checked(predict, np.stack([place.image for place in together])), strict=True)


def _batches(places: Iterable[Place], most: int) -> Iterator[list[Place]]:
    """Neighbours of one shape, at most `most`."""
    batch: list[Place] = []
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
