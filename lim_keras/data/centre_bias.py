"""Centre bias: how far landslide positions in tiles depart from uniform."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels
from lim_keras.errors import DataError

UNIFORM_STD = 1 / math.sqrt(12)
"""Standard deviation of a position that is uniformly distributed in 0..1."""

NO_FOLD = -1
"""Fold of tiles that are too few for folds."""

_NO_LANDSLIDE = "No mask holds a landslide pixel, so there is no position to learn. Give tiles with landslides."

Counts = npt.NDArray[np.int64]
Mean = npt.NDArray[np.float32]


def resize_mask(mask: Labels, size: int) -> Labels:
    """Resize a mask (height, width) to (size, size) by nearest neighbour."""
    return np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


@dataclass(frozen=True, slots=True)
class CentroidSpread:
    """Mean and standard deviation of landslide centroids in their tiles.

    Attributes:
        tiles: number of tiles with a landslide.
        mean_x, mean_y: mean position, as a fraction of the tile's width and height; 0.5 without bias.
        std_x, std_y: standard deviation in the same unit; `UNIFORM_STD` without bias.
    """

    tiles: int
    mean_x: float
    mean_y: float
    std_x: float
    std_y: float


@dataclass(frozen=True, slots=True)
class CentreBias:
    """Positions of landslides, and F1 of the image-blind mask, which is the mean mask cut at a threshold.

    Attributes:
        spread: positions of the centroids.
        threshold, f1: threshold with the highest landslide F1 on the tiles of the mean mask, and that F1.
        held_out_f1: F1 of image-blind masks, each on the fold that it was not made from; None without folds.
        everywhere_f1: F1 if every pixel is predicted as landslide. Without bias, an image-blind mask scores the same.
    """

    spread: CentroidSpread
    threshold: float
    f1: float
    held_out_f1: float | None
    everywhere_f1: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Number of tiles with landslide, and of tiles with a label, at each position (size, size)."""

    landslide: Counts
    labelled: Counts

    @classmethod
    def empty(cls, size: int) -> Self:
        return cls(np.zeros((size, size), np.int64), np.zeros((size, size), np.int64))

    @classmethod
    def of(cls, masks: Iterable[Labels], size: int) -> Self:
        counts = cls.empty(size)
        for mask in masks:
            counts.add(mask)
        return counts

    def add(self, mask: Labels) -> None:
        resized = resize_mask(mask, len(self.landslide))
        self.landslide[...] += resized == LANDSLIDE
        self.labelled[...] += resized != IGNORED

    def without(self, part: Self) -> Occupancy:
        return Occupancy(self.landslide - part.landslide, self.labelled - part.labelled)

    @property
    def mean(self) -> Mean:
        return (self.landslide / np.maximum(self.labelled, 1)).astype(np.float32)

    def best_cut(self) -> tuple[float, float]:
        """Return the threshold with the highest F1 among all distinct values of the mean mask, and that F1."""
        truth = int(self.landslide.sum())
        if not truth:
            raise DataError(_NO_LANDSLIDE)
        values, inverse = np.unique(self.mean, return_inverse=True)
        true_positive, predicted = (
            np.bincount(inverse.ravel(), counts.ravel(), len(values))[::-1].cumsum()[::-1]
            for counts in (self.landslide, self.labelled)
        )
        f1 = 2 * true_positive / (predicted + truth)
        best = int(f1.argmax())
        return float(values[best]), float(f1[best])


def measure_centre_bias(masks: Sequence[Labels], size: int, folds: Sequence[int] | None = None) -> CentreBias:
    """Measure the centre bias of landslide tiles.

    Args:
        masks: (height, width) {0, 1, 255}.
        size: side, pixels, that masks are resized to before the comparison.
        folds: fold of each mask. The image-blind mask made from the other folds is scored on each fold.

    Raises:
        DataError: no mask holds a landslide pixel, or one fold holds all of them.
    """
    parts: dict[int, Occupancy] = {}
    for mask, fold in zip(masks, [NO_FOLD] * len(masks) if folds is None else folds, strict=True):
        parts.setdefault(fold, Occupancy.empty(size)).add(mask)
    return centre_bias(centroid_spread(masks), dict(sorted(parts.items())), size)


def centroid_spread(masks: Iterable[Labels]) -> CentroidSpread:
    """Measure landslide centroids over masks (height, width) {0, 1, 255}; masks without landslide do not count.

    Raises:
        DataError: no mask holds a landslide pixel.
    """
    return spread_of([one for one in map(centroid, masks) if one is not None])


def spread_of(centroids: Sequence[tuple[float, float]]) -> CentroidSpread:
    """Return mean and deviation of positions (x, y). Raises DataError if there is none."""
    if not centroids:
        raise DataError(_NO_LANDSLIDE)
    positions = np.array(centroids)
    return CentroidSpread(len(positions), *positions.mean(axis=0).tolist(), *positions.std(axis=0).tolist())


def centroid(mask: Labels) -> tuple[float, float] | None:
    """Return the centroid of the landslide pixels as fractions of width and height; None without such pixels."""
    moments: dict[str, Any] = cv2.moments((mask == LANDSLIDE).astype(np.uint8), binaryImage=True)
    if not moments["m00"]:
        return None
    # The centre of a pixel is half a pixel from its index.
    x, y = moments["m10"] / moments["m00"] + 0.5, moments["m01"] / moments["m00"] + 0.5
    return x / mask.shape[1], y / mask.shape[0]


def mean_mask(masks: Iterable[Labels], size: int) -> Mean:
    """Return the share of tiles with landslide at each position, (size, size) float32, 0..1.

    Args:
        masks: (height, width) {0, 1, 255}, resized by nearest neighbour. Ignored pixels do not count; a position that
            every mask ignores is 0.
        size: side of the mean mask, pixels.
    """
    return Occupancy.of(masks, size).mean


def _held_out_f1(parts: Iterable[Occupancy], whole: Occupancy) -> float:
    """Return the F1 of image-blind masks, each scored on the part that it was not made from."""
    true_positive = predicted = 0
    for part in parts:
        others = whole.without(part)
        cut = others.mean >= others.best_cut()[0]
        true_positive += int(part.landslide[cut].sum())
        predicted += int(part.labelled[cut].sum())
    return 2 * true_positive / (predicted + int(whole.landslide.sum()))


def centre_bias(spread: CentroidSpread, parts: Mapping[int, Occupancy], size: int) -> CentreBias:
    """Compare the image-blind masks of parts.

    Args:
        spread: positions of the landslides.
        parts: occupancy of each fold, or of `NO_FOLD` alone.
        size: side of the occupancy, pixels.
    """
    whole = Occupancy.empty(size)
    for part in parts.values():
        whole.landslide[...] += part.landslide
        whole.labelled[...] += part.labelled
    threshold, f1 = whole.best_cut()
    held_out = None if list(parts) == [NO_FOLD] else _held_out_f1(parts.values(), whole)
    truth, labelled = int(whole.landslide.sum()), int(whole.labelled.sum())
    return CentreBias(spread, threshold, f1, held_out, 2 * truth / (labelled + truth))
