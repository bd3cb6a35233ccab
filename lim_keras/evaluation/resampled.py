"""Predict tiles at another ground sample distance than their own, and score them on their own pixels."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import Predict
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.evaluation.evaluator import predict_array
from lim_keras.inference.maps import InputScaling
from lim_keras.metrics.calibration import everywhere


def resampled_predictions(
    predict: Predict,
    tiles: TileSet,
    gsd_m: float | None,
    *,
    assumed_gsd_m: float,
    scaling: InputScaling | None = None,
) -> Iterator[Prediction]:
    """Resample tiles, predict them one by one, and average the probability over each pixel of the tile.

    Args:
        predict: function from raw pixels (n, h, w, bands) to landslide probability (n, h, w).
        tiles: tiles; finer pixels are interpolated bilinearly.
        gsd_m: ground sample distance to predict at, metres; None: that of the tiles.
        assumed_gsd_m: ground sample distance of tiles whose files have none.
        scaling: conversion of the tiles' values to those of the model; None: none.
    """
    # One tile at a time: at a tenth of its distance, a tile takes a hundred times its memory.
    stored, resampled = (TileStore(tiles, wanted, assumed_gsd_m, cache="none") for wanted in (None, gsd_m))
    for position, tile in enumerate(tiles):
        image, mask = stored.get(position)
        shown = image if gsd_m is None else resampled.get(position)[0]
        probability = predict_array(predict, shown if scaling is None else scaling.scaled(shown))
        sample = Sample(tile.tile_id, tile.kind, tile.group, image, mask)
        yield Prediction(sample, _averaged(probability, mask.shape), everywhere(mask.shape))


def _averaged(probability: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if probability.shape == shape:
        return probability
    averaged = cv2.resize(probability, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(averaged, 0, 1), np.float32)
