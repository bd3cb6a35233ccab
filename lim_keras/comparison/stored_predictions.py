"""Read the out-of-fold predictions of tiles of a run, with their images where these can still be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np

from lim_keras.comparison.run_folder import RunFolder
from lim_keras.data.manifest import Candidate
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import Tile, TileSet, read_tile
from lim_keras.errors import DataError, LimKerasError
from lim_keras.evaluation.evaluation import Prediction, SampleScore
from lim_keras.report.figures import as_picture
from lim_keras.training.record import STATISTICS


def stored_predictions(run: RunFolder, samples: Sequence[SampleScore]) -> list[Prediction]:
    """Read the out-of-fold predictions of tiles, with their images; tiles that cannot be read are left out."""
    found = []
    for sample in samples:
        with suppress(LimKerasError, OSError, ValueError, KeyError, TypeError):
            found.append(_prediction(run, sample.name))
    return found


def _prediction(run: RunFolder, tile_id: str) -> Prediction:
    from lim_keras.training.cross_validation import read_out_of_fold
    from lim_keras.training.run import Run

    if run.scores is None:
        raise DataError(f"{run.folder}: the run is not finished.")
    tile = _tile(next(one for one in run.tiles if one.tile_id == tile_id))
    fold = run.folds[tile_id]
    statistics = TileStatistics.from_dict(json.loads((run.folder / STATISTICS).read_text(encoding="utf-8")))
    tiles = TileSet(run.folder, (tile,), len(statistics.mean), statistics.dtype)
    one = Run(run.folder, run.config, tiles, {tile_id: fold}, statistics)
    stored = next(iter(read_out_of_fold(one, fold, run.scores.calibration)))
    height, width = stored.sample.mask.shape
    picture = cv2.resize(as_picture(read_tile(tile)[0]), (width, height), interpolation=cv2.INTER_AREA)
    return replace(stored, sample=replace(stored.sample, image=np.asarray(picture, np.uint8)))


def _tile(known: Candidate) -> Tile:
    values = known.model_dump(exclude={"fold"}) | {"landslide_px": known.landslide_px or 0}
    return Tile(**values | {"valid_px": known.valid_px or 0})
