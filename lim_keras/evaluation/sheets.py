"""Held-out tiles predicted among other held-out tiles: every pixel once, so at the data's own share of landslides."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.mosaic import pack, render
from lim_keras.data.store import TileStore
from lim_keras.evaluation.baseline import everywhere
from lim_keras.evaluation.scoring import Place, Prediction
from lim_keras.inference.scene import Predict
from lim_keras.inference.windows import plan_windows

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
            place = Place(held_out.tile_id, held_out.kind, held_out.group, image[cut], mask[cut])
            yield Prediction(place, probability[cut], everywhere(mask[cut].shape))


def predict_array(
    predict: Predict, image: NDArray[Any], *, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> NDArray[np.float32]:
    """Probability (height, width) of an image (height, width, bands) in memory, predicted in windows with a halo."""
    probability = np.empty(image.shape[:2], np.float32)
    for window in plan_windows(*image.shape[:2], tile=tile, halo=halo, multiple=multiple):
        predicted = predict(image[window.read.slices][np.newaxis])[0]
        probability[window.core.slices] = predicted[window.inner.slices]
    return probability
