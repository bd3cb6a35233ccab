"""Image-blind baseline: a mask that ignores the image."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.metrics.calibration import ProbabilityHistogram, best_threshold


def everywhere(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask in which every pixel is landslide, a view that takes no memory."""
    return np.broadcast_to(np.True_, shape)


@dataclass(frozen=True, slots=True)
class ImageBlindMask:
    """Mean mask of training tiles (height, width), 0..1; positions with a mean >= threshold count as landslide."""

    mean_mask: NDArray[np.float32]
    threshold: float

    @classmethod
    def fit(
        cls, mean_mask: NDArray[np.floating[Any]], masks: Iterable[NDArray[np.uint8]], size: int | None = None
    ) -> Self:
        """Choose the threshold of highest landslide F1 over training masks.

        Args:
            mean_mask: (height, width), 0..1.
            masks: {0, 1, 255}, of any size; every pixel has the same weight.
            size: resize masks to size x size first, as the evaluation resizes tiles; None: native size.
        """
        histogram = ProbabilityHistogram()
        for mask in masks:
            shape = mask.shape if size is None else (size, size)
            labels = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            histogram.add(_resized(mean_mask, shape), labels)
        return cls(mean_mask.astype(np.float32), best_threshold(histogram)[0])

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the mask (height, width) bool for a tile of that shape."""
        return _resized(self.mean_mask, shape) >= np.float32(self.threshold)

    def write(self, path: Path) -> None:
        """Write `baseline.npz` of a bundle."""
        with path.open("wb") as file:
            np.savez_compressed(file, mean_mask=self.mean_mask, threshold=np.float64(self.threshold))


def _resized(mean_mask: NDArray[np.floating[Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize bilinearly; a mean of masks is smooth, so that shrinking needs no filter."""
    height, width = shape
    resized = cv2.resize(mean_mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0, 1)
