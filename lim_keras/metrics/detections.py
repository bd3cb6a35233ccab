"""Object scores of a predicted inventory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.inventory.geometry_clean import clean_polygons, cut_polygons
from lim_keras.inventory.measures import polygon_areas_m2

IOU = 0.5

AREA_CLASSES = {"small": (0.0, 1_000.0), "medium": (1_000.0, 10_000.0), "large": (10_000.0, math.inf)}
"""From, to, in m2; both bounds belong to the middle class."""


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """Counts of polygons by one criterion, and their ratios; NaN where nothing was counted.

    truth: mapped landslides, found: those that a prediction meets. predicted: predicted landslides, right: those that
    meet a mapped one.
    """

    truth: int
    found: int
    predicted: int
    right: int

    @property
    def recall(self) -> float:
        """Share of the mapped landslides that are found."""
        return self.found / self.truth if self.truth else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted landslides that are right."""
        return self.right / self.predicted if self.predicted else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where one is 0 and the other has nothing to count."""
        precision, recall = self.precision, self.recall
        if precision == 0 or recall == 0:
            return 0.0
        return 2 * precision * recall / (precision + recall)

    def to_dict(self) -> dict[str, int | float | None]:
        """Ready for JSON: None for a ratio that is not defined."""
        ratios = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return asdict(self) | {name: None if math.isnan(value) else value for name, value in ratios.items()}


@dataclass(frozen=True)
class Detections:
    """Scores by "all" and, where areas are known, by the names of AREA_CLASSES.

    iou_50: a prediction and a mapped landslide are a pair if their IoU is at least 0.5; each is in one pair at most.
    any_overlap: a mapped landslide is found if any prediction overlaps it, a prediction is right if it overlaps any
    mapped landslide, however little (touching is no overlap).

    In an area class, recall counts mapped landslides by their own area, precision counts predicted ones by their own,
    and F1 is that of these two: a pair may count in one class on one side, in another class on the other.
    """

    iou_50: dict[str, DetectionScore]
    any_overlap: dict[str, DetectionScore]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: bounds of the area classes in m2 (None: no bound), and scores by criterion."""
        bounds = {name: [low, high if math.isfinite(high) else None] for name, (low, high) in AREA_CLASSES.items()}
        criteria = {"iou_50": self.iou_50, "any_overlap": self.any_overlap}
        scores = {one: {name: score.to_dict() for name, score in areas.items()} for one, areas in criteria.items()}
        return {"area_classes_m2": bounds, **scores}


def score_detections(
    predicted: geopandas.GeoDataFrame,
    truth: geopandas.GeoDataFrame,
    *,
    valid: Any | None = None,
    gsd_m: float | None = None,
) -> Detections:
    """Compare landslides polygon by polygon.

    Multi-polygons count part by part. Pairs of an IoU of at least 0.5 are taken greedily, the best first, for mapped
    landslides may overlap each other. What lies outside `valid` is cut off first: a landslide entirely outside counts
    nowhere, one that the cut divides counts part by part. The IoU is planar, in the CRS of `predicted`; areas for the
    classes are geodesic.

    Args:
        predicted: polygons in the scene's CRS; without CRS, in the scene's own coordinates.
        truth: polygons; reprojected if they are in another CRS.
        valid: polygon or multi-polygon, in the CRS of `predicted`, where the scene holds data; None: everywhere.
        gsd_m: metres of one unit of the coordinates (a pixel) where there is no CRS; without it there are no classes.

    Raises:
        DataError: one of the two has a CRS and the other has none.

    Warns:
        LimKerasWarning: truth polygons are invalid; they are repaired.
    """
    mapped = clean_polygons(_in_crs_of(predicted, truth), "truth")
    called = clean_polygons(predicted.geometry, "predicted")
    if valid is not None:
        mapped, called = cut_polygons(mapped, valid), cut_polygons(called, valid)
    areas = polygon_areas_m2(mapped, gsd_m), polygon_areas_m2(called, gsd_m)
    pairs, iou = _overlaps(mapped.to_numpy(), called.to_numpy())
    return Detections(_scores(_best_pairs(pairs, iou), *areas), _scores(pairs, *areas))


def _in_crs_of(predicted: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> geopandas.GeoSeries:
    if predicted.empty or truth.empty or predicted.crs == truth.crs:
        return truth.geometry
    if predicted.crs is None or truth.crs is None:
        raise DataError(
            "Expected `predicted` and `truth` both with a CRS, or both without. "
            f"Received: {predicted.crs and predicted.crs.name} and {truth.crs and truth.crs.name}."
        )
    return truth.geometry.to_crs(predicted.crs)


def _overlaps(mapped: NDArray[Any], called: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs (n, 2) of positions that have ground in common, mapped before called, and the IoU (n,) of each."""
    pairs = shapely.STRtree(called).query(mapped, predicate="intersects").T
    first, second = mapped[pairs[:, 0]], called[pairs[:, 1]]
    common = shapely.area(shapely.intersection(first, second))
    overlap = common > 0
    union = shapely.area(first) + shapely.area(second) - common
    return pairs[overlap], common[overlap] / union[overlap]


def _best_pairs(pairs: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """One-to-one pairs (m, 2) of at least IOU, the best first; of equal ones, the first mapped."""
    taken: tuple[set[int], set[int]] = (set(), set())
    best = []
    for index in np.argsort(-iou, kind="stable"):
        mapped, called = (int(position) for position in pairs[index])
        if iou[index] < IOU:
            break
        if mapped not in taken[0] and called not in taken[1]:
            taken[0].add(mapped)
            taken[1].add(called)
            best.append((mapped, called))
    return np.array(best, np.int64).reshape(-1, 2)


def _scores(
    pairs: NDArray[np.int64], mapped_m2: NDArray[np.float64], called_m2: NDArray[np.float64]
) -> dict[str, DetectionScore]:
    found, right = np.zeros(len(mapped_m2), bool), np.zeros(len(called_m2), bool)
    found[pairs[:, 0]] = True
    right[pairs[:, 1]] = True
    scores = {"all": DetectionScore(len(found), int(found.sum()), len(right), int(right.sum()))}
    if np.isnan(mapped_m2).any() or np.isnan(called_m2).any():
        return scores
    mapped_class, called_class = _class_numbers(mapped_m2), _class_numbers(called_m2)
    for number, name in enumerate(AREA_CLASSES):
        truth, predicted = mapped_class == number, called_class == number
        counts = (truth.sum(), (found & truth).sum(), predicted.sum(), (right & predicted).sum())
        scores[name] = DetectionScore(*map(int, counts))
    return scores


def _class_numbers(areas_m2: NDArray[np.float64]) -> NDArray[np.int64]:
    low, high = AREA_CLASSES["medium"]
    return np.where(areas_m2 < low, 0, np.where(areas_m2 > high, 2, 1))
