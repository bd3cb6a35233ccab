"""Find background on which a model is confidently wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from lim_keras.bundle.protocol import SceneModel
from lim_keras.data.tiles import IGNORED
from lim_keras.errors import DataError, DomainWarning
from lim_keras.inference.domain import GSD_TOLERANCE
from lim_keras.raster.images import fill_invalid
from lim_keras.raster.windows import Box
from lim_keras.tiling.background_tiles import Score
from lim_keras.tiling.scenes import TilingScene


def false_alarms(model: SceneModel, scenes: Sequence[TilingScene]) -> Score:
    """Make a function that measures the false alarms of a model on background.

    The score of a box is the sum of the probabilities that reach the model's threshold, divided by the number of
    labelled pixels.

    Raises:
        DataError: bands or data type of the tiles are not those of the model.

    Warns:
        DomainWarning: the ground sample distances of tiles and training differ.
    """
    info = model.info
    for scene in scenes:
        dtype = scene.info.dtype if scene.scale is None else "uint8"
        if (scene.info.bands, dtype) != (info.bands, info.dtype):
            raise DataError(
                f"{scene.source.name}: expected tiles of {info.bands} bands of {info.dtype}, as the bundle {info.name} "
                f"takes them. Received: {scene.info.bands} of {dtype}. Choose bands with `bands`, values with `scale`, "
                "or give another bundle as `hard_negatives`."
            )
        _check_distance(scene, info.gsd_m)

    def score(position: int, box: Box) -> float:
        pixels, valid = scenes[position].image(box)
        labelled = scenes[position].mask(box, valid) != IGNORED
        probability = model.predict_all(fill_invalid(pixels, valid)[np.newaxis]).probability[0]
        wrong = labelled & (probability >= info.threshold)
        return round(float(probability[wrong].sum()) / max(int(labelled.sum()), 1), 6)

    return score


def rejected_ground(scenes: Sequence[TilingScene]) -> Score | None:
    """Make a function that measures the share of a box's labelled pixels that an expert rejected.

    Returns:
        None if no scene has labels of a review.
    """
    if not any(scene.labels.has_rejected for scene in scenes):
        return None

    def score(position: int, box: Box) -> float:
        labels = scenes[position].labels
        labelled = labels.mask(box) != IGNORED
        return round(float(labels.rejected(box).sum()) / max(int(labelled.sum()), 1), 6)

    return score


def _check_distance(scene: TilingScene, trained_m: float | None) -> None:
    found_m = scene.info.gsd_m
    if found_m is None or trained_m is None or 1 / GSD_TOLERANCE <= found_m / trained_m <= GSD_TOLERANCE:
        return
    warnings.warn(
        f"{scene.source.path}: a pixel of its tiles is {found_m:.3g} m, but the model of `hard_negatives` was trained "
        f"at {trained_m:.3g} m, so that its false alarms may be others. `gsd_m` {trained_m:.3g} gives tiles of that "
        "distance.",
        DomainWarning,
        stacklevel=2,
    )
