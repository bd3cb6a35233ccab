"""Out-of-fold probabilities: made once a fold by the model that has not seen it, and kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import keras
import numpy as np
from scipy.special import expit

from lim_keras.data.store import TileStore
from lim_keras.evaluation.baseline import everywhere
from lim_keras.evaluation.calibration import UNCALIBRATED, Calibration
from lim_keras.evaluation.protocols import tile_predictions
from lim_keras.evaluation.scoring import Place, Prediction
from lim_keras.evaluation.sheets import sheet_predictions
from lim_keras.models import network_stride
from lim_keras.training.fit import MODEL, Predictor
from lim_keras.training.run import OUT_OF_FOLD, Run

_LEAST = 1e-6  # float32 has few steps between this and 1 - this; its logit is 14


def predict_held_out(run: Run, fold: int) -> None:
    """Predict the held-out tiles of a fold with its model and keep the probabilities; does nothing where they are kept.

    A model of windows predicts its tiles among each other on sheets, at the data's own share of landslides; a model of
    whole resized tiles predicts whole resized tiles, as a scene has none of these to fit a threshold on.
    """
    folder = run.fold_folder(fold) / OUT_OF_FOLD
    if folder.exists():
        return
    partial = folder.with_name(f"{OUT_OF_FOLD}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    predict = Predictor(keras.saving.load_model(run.fold_folder(fold) / MODEL, compile=False))
    for prediction in held_out_predictions(run, fold, predict):
        # Logits: as float16, probabilities near 1 would all become 1.
        inside = np.clip(prediction.probability, _LEAST, 1 - _LEAST)
        logit = np.log(inside / (1 - inside)).astype(np.float16)
        np.savez(partial / f"{prediction.place.name}.npz", logit=logit, mask=prediction.place.mask)
    partial.rename(folder)


def held_out_predictions(run: Run, fold: int, predict: Predictor) -> Iterator[Prediction]:
    """Predictions of the held-out tiles of a fold, in the manner that its models were trained for."""
    config = run.config
    store = TileStore(run.held_out_tiles(fold), config.sampling.gsd_m, config.gsd_m, cache="recent")
    if config.sampling.mode == "resized":
        return tile_predictions(predict, store, size=config.sampling.size)
    return sheet_predictions(
        predict, store, seed=config.seed, multiple=max(64, network_stride(config.model.input_reduction))
    )


def kept_predictions(run: Run, fold: int, calibration: Calibration = UNCALIBRATED) -> Iterator[Prediction]:
    """The kept probabilities of a fold's held-out tiles, calibrated; the places carry no images."""
    for tile in run.held_out_tiles(fold):
        with np.load(run.fold_folder(fold) / OUT_OF_FOLD / f"{tile.tile_id}.npz") as kept:
            logit, labels = kept["logit"].astype(np.float32), kept["mask"]
        probability = expit(calibration.logit(logit).astype(np.float32))
        place = Place(tile.tile_id, tile.kind, tile.group, labels[..., np.newaxis], labels)
        yield Prediction(place, probability, everywhere(labels.shape))
