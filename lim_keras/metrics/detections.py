"""Detection scores of landslide polygons."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

IOU = 0.5
"""Smallest intersection over union of a matching pair."""

AREA_CLASSES = {"small": (0.0, 1_000.0), "medium": (1_000.0, 10_000.0), "large": (10_000.0, math.inf)}
"""Bounds in m2; both bounds of the middle class belong to it."""


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """Polygon counts under one matching criterion, and their ratios; a ratio over 0 polygons is NaN.

    truth: mapped landslides. found: mapped landslides with a matching prediction. predicted: predicted landslides.
    right: predicted landslides with a matching mapped one.
    """

    truth: int
    found: int
    predicted: int
    right: int

    @property
    def recall(self) -> float:
        """Found over mapped landslides."""
        return self.found / self.truth if self.truth else math.nan

    @property
    def precision(self) -> float:
        """Right over predicted landslides."""
        return self.right / self.predicted if self.predicted else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if either is 0, even if the other is NaN."""
        precision, recall = self.precision, self.recall
        if precision == 0 or recall == 0:
            return 0.0
        return 2 * precision * recall / (precision + recall)

    def to_dict(self) -> dict[str, int | float | None]:
        """Return counts and ratios for JSON, with None in place of NaN."""
        ratios = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return asdict(self) | {name: None if math.isnan(value) else value for name, value in ratios.items()}


@dataclass(frozen=True)
class Detections:
    """Scores under two criteria, for "all" polygons and, if areas are known, for each of AREA_CLASSES.

    iou_50: a predicted and a mapped landslide match if their IoU is at least 0.5; each one has at most one match.
    any_overlap: landslides match if they share area; a common border is not enough.

    In an area class, recall counts mapped landslides by their own area, and precision counts predicted ones by theirs.
    """

    iou_50: dict[str, DetectionScore]
    any_overlap: dict[str, DetectionScore]

    def to_dict(self) -> dict[str, Any]:
        """Return bounds of the area classes in m2 (None: no bound) and scores by criterion, ready for JSON."""
        bounds = {name: [low, high if math.isfinite(high) else None] for name, (low, high) in AREA_CLASSES.items()}
        criteria = {"iou_50": self.iou_50, "any_overlap": self.any_overlap}
        scores = {one: {name: score.to_dict() for name, score in areas.items()} for one, areas in criteria.items()}
        return {"area_classes_m2": bounds, **scores}


def match_polygons(
    mapped: NDArray[Any], predicted: NDArray[Any], mapped_m2: NDArray[np.float64], predicted_m2: NDArray[np.float64]
) -> Detections:
    """Match mapped and predicted landslides by decreasing IoU, because mapped landslides may overlap each other.

    Args:
        mapped, predicted: valid single polygons (n,) and (m,), in one planar coordinate system.
        mapped_m2, predicted_m2: their areas (n,) and (m,), m2; if one is NaN, there are no area classes.
    """
    pairs, iou = _overlaps(mapped, predicted)
    areas = mapped_m2, predicted_m2
    return Detections(_scores(best_pairs(pairs, iou), *areas), _scores(pairs, *areas))


def overlapping(mapped: NDArray[Any], predicted: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which mapped (n,) and which predicted (m,) polygons share area with one of the others."""
    return _matched(_overlaps(mapped, predicted)[0], len(mapped), len(predicted))


def _overlaps(mapped: NDArray[Any], predicted: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return index pairs (k, 2), mapped then predicted, of polygons that share area, and their IoU (k,)."""
    pairs = shapely.STRtree(predicted).query(mapped, predicate="intersects").T
    first, second = mapped[pairs[:, 0]], predicted[pairs[:, 1]]
    common = shapely.area(shapely.intersection(first, second))
    overlap = common > 0
    union = shapely.area(first) + shapely.area(second) - common
    return pairs[overlap], common[overlap] / union[overlap]


def best_pairs(pairs: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one-to-one pairs with an IoU of at least IOU, best first; ties go to the first mapped landslide."""
    taken: tuple[set[int], set[int]] = (set(), set())
    best = []
    for index in np.argsort(-iou, kind="stable"):
        mapped, predicted = (int(position) for position in pairs[index])
        if iou[index] < IOU:
            break
        if mapped not in taken[0] and predicted not in taken[1]:
            taken[0].add(mapped)
            taken[1].add(predicted)
            best.append((mapped, predicted))
    return np.array(best, np.int64).reshape(-1, 2)


def _scores(
    pairs: NDArray[np.int64], mapped_m2: NDArray[np.float64], predicted_m2: NDArray[np.float64]
) -> dict[str, DetectionScore]:
    found, right = _matched(pairs, len(mapped_m2), len(predicted_m2))
    scores = {"all": DetectionScore(len(found), int(found.sum()), len(right), int(right.sum()))}
    if np.isnan(mapped_m2).any() or np.isnan(predicted_m2).any():
        return scores
    mapped_class, predicted_class = _class_numbers(mapped_m2), _class_numbers(predicted_m2)
    for number, name in enumerate(AREA_CLASSES):
        truth, called = mapped_class == number, predicted_class == number
        counts = (truth.sum(), (found & truth).sum(), called.sum(), (right & called).sum())
        scores[name] = DetectionScore(*map(int, counts))
    return scores


def _matched(pairs: NDArray[np.int64], mapped: int, predicted: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which polygons are in a pair, of given numbers of mapped and predicted ones."""
    found, right = np.zeros(mapped, bool), np.zeros(predicted, bool)
    found[pairs[:, 0]] = True
    right[pairs[:, 1]] = True
    return found, right


def _class_numbers(areas_m2: NDArray[np.float64]) -> NDArray[np.int64]:
    low, high = AREA_CLASSES["medium"]
    return np.where(areas_m2 < low, 0, np.where(areas_m2 > high, 2, 1))
