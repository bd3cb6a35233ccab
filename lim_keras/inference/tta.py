"""Test-time augmentation over eight symmetries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import EnsemblePrediction

Images = NDArray[Any]


def with_tta(predict: Callable[[Images], EnsemblePrediction], stride: int) -> Callable[[Images], EnsemblePrediction]:
    """A prediction that averages those of the four rotations of the images and of their mirror images.

    Probability, spread and votes are means; votes are rounded. Images are first padded at the bottom and on the right,
    by their last row and column, to multiples of `stride`: turned, they meet the network's grid as before, so that a
    window is predicted as in the whole scene.
    """

    def averaged(images: Images) -> EnsemblePrediction:
        height, width = images.shape[1:3]
        padded = np.pad(images, ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0)), mode="edge")
        total: list[NDArray[np.float64]] = []
        for mirrored in (False, True):
            for turns in range(4):
                seen = np.rot90(padded[:, :, ::-1] if mirrored else padded, turns, axes=(1, 2))
                for position, values in enumerate(predict(np.ascontiguousarray(seen))):
                    back = np.rot90(values, -turns, axes=(1, 2))
                    back = (back[:, :, ::-1] if mirrored else back)[:, :height, :width]
                    if len(total) <= position:
                        total.append(np.zeros(back.shape))
                    total[position] += back
        probability, spread, votes = (values / 8 for values in total)
        return EnsemblePrediction(
            probability.astype(np.float32), spread.astype(np.float32), np.rint(votes).astype(np.int32)
        )

    return averaged
