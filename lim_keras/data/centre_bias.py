"""How much a tile's framing gives away: where landslides lie in their tiles, and what a mask scores that sees no image.

Tiles that were cut around their landslide have it in the middle. The mean of the training masks, cut at a threshold,
then scores well on every such tile without a look at it (P9 in docs/paper.md), and a model's figure means only what it
is above that.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from lim_keras.data.imbalance import resize_mask
from lim_keras.data.tile import IGNORED, LANDSLIDE, Labels
from lim_keras.errors import DataError

UNIFORM_STD = 1 / math.sqrt(12)
"""Standard deviation of a place drawn evenly from 0..1."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CentroidSpread:
    """Where the landslides of tiles lie: x to the right and y down, 0..1 of the tile's width and height.

    tiles: how many with a landslide. An even spread has mean 0.5 and standard deviation UNIFORM_STD.
    """

    tiles: int
    mean_x: float
    mean_y: float
    std_x: float
    std_y: float


@dataclass(frozen=True, slots=True)
class BlindMask:
    """A mask that does not depend on the image.

    mean_mask: (size, size) float32, 0..1, the share of tiles with landslide there. threshold: landslide where the mean
    mask is at least that. f1: of landslide pixels, on the tiles that both were made from.
    """

    mean_mask: npt.NDArray[np.float32]
    threshold: float
    f1: float


@dataclass(frozen=True, slots=True)
class CentreBias:
    """What tiles give away by their framing.

    held_out_f1: of blind masks on tiles that had no part in them, None where none were held out. everywhere_f1: of
    calling every pixel landslide, which is all that a blind mask can do where landslides lie evenly.
    """

    spread: CentroidSpread
    blind: BlindMask
    held_out_f1: float | None
    everywhere_f1: float


@dataclass(frozen=True, slots=True)
class _Occupancy:
    """Of each place in (size, size): in how many tiles it is landslide, and in how many it is labelled."""

    landslide: Counts
    labelled: Counts

    @classmethod
    def of(cls, masks: Iterable[Labels], size: int) -> Self:
        landslide, labelled = np.zeros((size, size), np.int64), np.zeros((size, size), np.int64)
        for mask in masks:
            resized = resize_mask(mask, size)
            landslide += resized == LANDSLIDE
            labelled += resized != IGNORED
        return cls(landslide, labelled)

    def without(self, part: Self) -> "_Occupancy":
        return _Occupancy(self.landslide - part.landslide, self.labelled - part.labelled)

    @property
    def mean(self) -> npt.NDArray[np.float32]:
        return (self.landslide / np.maximum(self.labelled, 1)).astype(np.float32)


def measure_centre_bias(masks: Sequence[Labels], size: int, folds: Sequence[int] | None = None) -> CentreBias:
    """All figures of one set of landslide tiles.

    Args:
        masks: (height, width) {0, 1, 255}.
        size: masks are compared at size x size.
        folds: the fold of each mask; blind masks of all other folds are judged on it.

    Raises:
        DataError: no mask holds a landslide pixel, or one fold holds all of them.
    """
    blind = best_blind_mask(masks, size)
    occupancy = _Occupancy.of(masks, size)
    held_out = None if folds is None else _held_out_f1(masks, folds, occupancy)
    truth, labelled = int(occupancy.landslide.sum()), int(occupancy.labelled.sum())
    everywhere = 2 * truth / (labelled + truth)
    return CentreBias(centroid_spread(masks), blind, held_out, everywhere)


def centroid_spread(masks: Iterable[Labels]) -> CentroidSpread:
    """The spread of landslide centroids over masks (height, width) {0, 1, 255}; masks without landslide do not count.

    Raises:
        DataError: no mask holds a landslide pixel.
    """
    places = np.array([place for place in map(_centroid, masks) if place is not None])
    if not len(places):
        raise DataError(_NO_LANDSLIDE)
    (mean_x, mean_y), (std_x, std_y) = places.mean(axis=0).tolist(), places.std(axis=0).tolist()
    return CentroidSpread(len(places), mean_x, mean_y, std_x, std_y)


def mean_mask(masks: Iterable[Labels], size: int) -> npt.NDArray[np.float32]:
    """The share of tiles that are landslide at each place, (size, size) float32, 0..1.

    Args:
        masks: (height, width) {0, 1, 255}, of any size, resized by nearest neighbour. Ignored pixels do not count; a
            place that is ignored in every mask is 0.
        size: side of the mean mask, in pixels.
    """
    return _Occupancy.of(masks, size).mean


def best_blind_mask(masks: Iterable[Labels], size: int) -> BlindMask:
    """The mean mask, cut where landslide F1 is highest on the masks themselves.

    Raises:
        DataError: no mask holds a landslide pixel.
    """
    occupancy = _Occupancy.of(masks, size)
    return BlindMask(occupancy.mean, *_best_cut(occupancy.mean, occupancy))


def _held_out_f1(masks: Sequence[Labels], folds: Sequence[int], whole: _Occupancy) -> float:
    size = len(whole.landslide)
    hits = predicted = 0
    for fold in sorted(set(folds)):
        part = _Occupancy.of((mask for mask, its in zip(masks, folds, strict=True) if its == fold), size)
        others = whole.without(part)
        cut = others.mean >= _best_cut(others.mean, others)[0]
        hits += int(part.landslide[cut].sum())
        predicted += int(part.labelled[cut].sum())
    return 2 * hits / (predicted + int(whole.landslide.sum()))


def _best_cut(mean: npt.NDArray[np.float32], occupancy: _Occupancy) -> tuple[float, float]:
    """Threshold of highest F1 and that F1. Every distinct value of the mean mask is tried, so it is exact."""
    truth = int(occupancy.landslide.sum())
    if not truth:
        raise DataError(_NO_LANDSLIDE)
    values, place = np.unique(mean, return_inverse=True)
    hits = _from_top(np.bincount(place.ravel(), occupancy.landslide.ravel(), len(values)))
    predicted = _from_top(np.bincount(place.ravel(), occupancy.labelled.ravel(), len(values)))
    f1 = 2 * hits / (predicted + truth)
    best = int(f1.argmax())
    return float(values[best]), float(f1[best])


def _from_top(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return counts[::-1].cumsum()[::-1]


def _centroid(mask: Labels) -> tuple[float, float] | None:
    moments: dict[str, Any] = cv2.moments((mask == LANDSLIDE).astype(np.uint8), binaryImage=True)
    if not moments["m00"]:
        return None
    # A pixel's place is its middle, half a pixel from its index.
    x, y = moments["m10"] / moments["m00"] + 0.5, moments["m01"] / moments["m00"] + 0.5
    return x / mask.shape[1], y / mask.shape[0]


_NO_LANDSLIDE = "No mask holds a landslide pixel, so there is no place to learn. Give tiles with landslides."
