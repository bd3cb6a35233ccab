"""Fit an object rule to labelled held-out tiles that are laid out on sheets, as in a scene."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.object_rule import (
    WORKING_POINTS,
    CurvePoint,
    FittedRule,
    ObjectRule,
    RuleSource,
    WorkingPoint,
    WorkingPointName,
)
from lim_keras.bundle.protocol import Predict
from lim_keras.data.sampling import Sheet
from lim_keras.data.tiles import IGNORED, TileStore
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluator import predicted_sheets
from lim_keras.metrics.binary import Estimate, draw_groups, middle
from lim_keras.metrics.detections import best_pairs

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))
"""Thresholds that are tried besides that of the bundle, 0.1 to 0.9."""

PEAKS = (*(round(0.05 * step, 2) for step in range(3, 20)), 0.98, 0.99)
"""Peaks that are tried above each threshold."""

BETAS: dict[WorkingPointName, float] = {"sensitive": 3.0, "balanced": 1.0, "strict": 0.5}
"""Weight of recall against precision in the criterion of each working point."""

_CURVE_POINTS = 60

CRITERIA = ("iou_50", "any_overlap")

Counts = NDArray[np.int64]
"""Landslides (..., 2, 4): for each of CRITERIA the number of mapped, found, predicted and right ones."""


@dataclass(frozen=True)
class LabelledMap:
    """Probability and labels of held-out tiles on a sheet.

    Attributes:
        probability: (height, width), 0..1.
        mask: (height, width), 1 landslide, 0 background, 255 ignored.
        tile: number of the tile of each pixel, (height, width); any number between tiles.
        groups: group of each tile; tiles of one group show the same ground.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.uint8]
    tile: NDArray[np.int32]
    groups: Sequence[str]


def tile_numbers(sheet: Sheet) -> NDArray[np.int32]:
    """Return the number of the tile of each pixel of a sheet, (height, width): 0, 1, ... in the order of its boxes."""
    numbers = np.zeros((sheet.height, sheet.width), np.int32)
    for number, box in enumerate(sheet.boxes.values()):
        numbers[box.slices] = number
    return numbers


def predicted_maps(
    predict: Predict, store: TileStore, *, seed: int = 2022, halo: int = 256, multiple: int = 64
) -> Iterator[LabelledMap]:
    """Predict sheets of held-out tiles (`predicted_sheets`), where landslides lie anywhere."""
    groups = [one.group for one in store.tiles]
    for sheet, _, mask, probability in predicted_sheets(predict, store, seed=seed, halo=halo, multiple=multiple):
        yield LabelledMap(probability, mask, tile_numbers(sheet), [groups[place] for place in sheet.boxes])


@dataclass(frozen=True)
class _Regions:
    """Predicted regions (n,) at one threshold, over all sheets, and their pairs with mapped landslides.

    Attributes:
        peak, pixels, group: highest probability, size, and number of the group of each.
        pairs: (k, 2), numbers of a mapped landslide and a region that share pixels.
        best: (j, 2), pairs of an IoU of at least 0.5, at most one of each landslide and region.
    """

    peak: NDArray[np.float64]
    pixels: NDArray[np.int64]
    group: NDArray[np.int64]
    pairs: NDArray[np.int64]
    best: NDArray[np.int64]


class RuleTable:
    """Regions of labelled maps at every threshold that is tried.

    Args:
        threshold: threshold of the bundle, 0..1, which is tried as well.
        gsd_m: ground sample distance, metres; None: areas are unknown.
    """

    def __init__(self, maps: Iterable[LabelledMap], *, threshold: float, gsd_m: float | None) -> None:
        self.thresholds = tuple(sorted({*THRESHOLDS, threshold}))
        self.threshold, self.gsd_m = threshold, gsd_m
        self.tiles = 0
        self._names: dict[tuple[str, str], int] = {}
        parts: dict[float, list[_Regions]] = {one: [] for one in self.thresholds}
        truth_groups, truth_pixels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        counts, labelled = dict.fromkeys(self.thresholds, 0), np.zeros(0, np.int64)
        for one in maps:
            group = self._group_numbers(one.groups)
            truth, count = _label(one.mask == 1)
            before = sum(map(len, truth_pixels))
            truth_pixels.append(np.bincount(truth.ravel(), minlength=count + 1)[1:])
            truth_groups.append(_owners(truth, count, one.tile, group))
            for level in self.thresholds:
                found = _regions(one, level, truth, truth_pixels[-1], group)
                offset = np.array([before, counts[level]])
                found = replace(found, pairs=found.pairs + offset, best=found.best + offset)
                counts[level] += len(found.pixels)
                parts[level].append(found)
            self.tiles += len(one.groups)
            pixels = np.bincount(group[one.tile[one.mask != IGNORED]], minlength=self.groups)
            pixels[: len(labelled)] += labelled
            labelled = pixels
        self.truth_group, self.truth_pixels = np.concatenate(truth_groups), np.concatenate(truth_pixels)
        self.group_pixels = labelled
        self._regions = {level: _joined(found) for level, found in parts.items()}
        if not len(self.truth_pixels):
            raise DataError(
                "The held-out tiles hold no landslide, so that no object rule can be fitted. Add landslide tiles."
            )

    def _group_numbers(self, groups: Sequence[str]) -> NDArray[np.int64]:
        """Number the groups of tiles over all sheets; a tile of group "" is a group of its own."""
        names = [("group", one) if one else ("tile", str(self.tiles + place)) for place, one in enumerate(groups)]
        return np.array([self._names.setdefault(name, len(self._names)) for name in names], np.int64)

    @property
    def groups(self) -> int:
        """Number of groups of tiles."""
        return len(self._names)

    @property
    def group_km2(self) -> NDArray[np.float64]:
        """Labelled ground of each group, square kilometres; NaN without a ground sample distance."""
        return self.group_pixels.astype(np.float64) * (np.nan if self.gsd_m is None else self.gsd_m**2 / 1e6)

    @property
    def area_km2(self) -> float | None:
        """Labelled ground, square kilometres; None without a ground sample distance."""
        return None if self.gsd_m is None else float(self.group_km2.sum())

    def areas_m2(self) -> tuple[float, ...]:
        """Return the smallest areas to try: 0, and 1, 2, 5, 10, ... from one pixel to the median mapped landslide."""
        if self.gsd_m is None:
            return (0.0,)
        pixel = self.gsd_m**2
        largest = float(np.median(self.truth_pixels)) * pixel
        series = (digit * 10.0**power for power in range(-3, 10) for digit in (1, 2, 5))
        return (0.0, *(one for one in series if pixel < one <= largest))

    def rules(self) -> Iterator[ObjectRule]:
        """Yield all rules to try, those that leave fewer regions out first."""
        areas = self.areas_m2()
        for level in self.thresholds:
            peaks = (0.0, *(peak for peak in PEAKS if peak > level))
            for peak, area in product(peaks, areas):
                yield ObjectRule(threshold=level, peak=peak, min_area_m2=area)

    def _kept(self, rule: ObjectRule) -> tuple[_Regions, NDArray[np.bool_]]:
        regions = self._regions[rule.threshold]
        areas = regions.pixels.astype(np.float64) * (np.nan if self.gsd_m is None else self.gsd_m**2)
        return regions, ~(rule.low_peaks(regions.peak) | rule.small(areas))

    def _hits(self, rule: ObjectRule) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]]:
        """Yield for each of CRITERIA the mapped landslides that are found, and the regions that are kept and right."""
        regions, kept = self._kept(rule)
        for pairs in (regions.best, regions.pairs):
            pairs = pairs[kept[pairs[:, 1]]]
            found, right = np.zeros(len(self.truth_pixels), np.bool_), np.zeros(len(kept), np.bool_)
            found[pairs[:, 0]] = True
            right[pairs[:, 1]] = True
            yield found, kept, right

    def counts(self, rule: ObjectRule) -> Counts:
        """Count landslides under a rule, (2, 4)."""
        rows = [(len(found), found.sum(), kept.sum(), right.sum()) for found, kept, right in self._hits(rule)]
        return np.array(rows, np.int64)

    def group_counts(self, rule: ObjectRule) -> Counts:
        """Count landslides of each group under a rule, (groups, 2, 4)."""
        owner, total = self._regions[rule.threshold].group, self.groups
        rows = [
            [
                np.bincount(self.truth_group, minlength=total),
                np.bincount(self.truth_group[found], minlength=total),
                np.bincount(owner[kept], minlength=total),
                np.bincount(owner[right], minlength=total),
            ]
            for found, kept, right in self._hits(rule)
        ]
        return np.moveaxis(np.array(rows, np.int64), -1, 0)


def _label(landslide: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the groups of pixels that share sides, (height, width) from 1; 0 for none; and return their count."""
    count, labels = cv2.connectedComponents(landslide.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return labels.astype(np.int32, copy=False), count - 1


def _owners(
    labels: NDArray[np.int32], count: int, tile: NDArray[np.int32], group: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the group (count,) of the tile that holds most pixels of each region."""
    inside = labels > 0
    key, pixels = np.unique(labels[inside].astype(np.int64) * len(group) + tile[inside], return_counts=True)
    region, place = np.divmod(key, len(group))
    owner = np.zeros(count, np.int64)
    order = np.argsort(pixels, kind="stable")
    owner[region[order] - 1] = group[place[order]]  # NumPy keeps the last of equal indices, the one with most pixels
    return owner


def _regions(
    one: LabelledMap,
    level: float,
    truth: NDArray[np.int32],
    truth_pixels: NDArray[np.int64],
    group: NDArray[np.int64],
) -> _Regions:
    """Find the regions of a sheet at a threshold. Pixels without a label do not count, as in an evaluated scene."""
    labels, count = _label((one.probability >= np.float32(level)) & (one.mask != IGNORED))
    inside = labels > 0
    peak = np.zeros(count + 1)
    np.maximum.at(peak, labels[inside], one.probability[inside])
    pixels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    both = inside & (truth > 0)
    key, common = np.unique(truth[both].astype(np.int64) * (count + 1) + labels[both], return_counts=True)
    pairs = np.stack(np.divmod(key, count + 1), axis=-1) - 1
    union = truth_pixels[pairs[:, 0]] + pixels[pairs[:, 1]] - common
    return _Regions(peak[1:], pixels, _owners(labels, count, one.tile, group), pairs, best_pairs(pairs, common / union))


def _joined(parts: Sequence[_Regions]) -> _Regions:
    names = ("peak", "pixels", "group", "pairs", "best")
    return _Regions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def f_scores(counts: Counts, beta: float = 1.0) -> NDArray[np.float64]:
    """Compute F-beta from counts (..., 4) of mapped, found, predicted and right landslides; 0 without any right one.

    F = (1 + beta^2) / (beta^2 / recall + 1 / precision). Source: van Rijsbergen 1979, "Information Retrieval".
    """
    mapped, found, predicted, right = np.moveaxis(counts.astype(np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (1 + beta**2) / (beta**2 * mapped / found + predicted / right)
    return np.where((found > 0) & (right > 0), score, 0.0)


def criterion(counts: Counts, beta: float = 1.0) -> NDArray[np.float64]:
    """Compute the harmonic mean of F-beta at an IoU of 0.5 and F-beta at any overlap, from counts (..., 2, 4).

    For the rule of the highest criterion, the sum of 1 / recall over both matching criteria does not grow with `beta`.
    """
    first, second = np.moveaxis(f_scores(counts, beta), -1, 0)
    total = first + second
    return np.where(total > 0, 2 * first * second / np.where(total > 0, total, 1), 0.0)


def fit_object_rule(
    maps: Iterable[LabelledMap],
    *,
    threshold: float,
    gsd_m: float | None,
    source: RuleSource,
    draws: int = 1000,
    seed: int = 2022,
) -> FittedRule:
    """Choose the working points of an object rule, with 95 % bootstrap intervals over groups of tiles.

    Each working point is the rule with the highest `criterion` at its weight of recall (BETAS). Of equal rules, the one
    that leaves fewer regions out is taken; all regions at the bundle's threshold, if no rule has a criterion above 0.
    The intervals do not include the choice of the rule.

    Args:
        maps: held-out predictions, calibrated as in the bundle.
        threshold: threshold of the bundle, 0..1.
        gsd_m: ground sample distance of the maps, metres; None: no area is chosen.
        source: origin of the predictions.
        draws: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        DataError: the maps hold no landslide.
    """
    table = RuleTable(maps, threshold=threshold, gsd_m=gsd_m)
    rules = list(table.rules())
    counts = np.stack([table.counts(rule) for rule in rules])
    picks = draw_groups(table.groups, draws, seed)
    every = ObjectRule(threshold=threshold)
    chosen = {name: _best(rules, criterion(counts, BETAS[name]), every) for name in WORKING_POINTS}
    return FittedRule(
        source=source,
        tiles=table.tiles,
        landslides=len(table.truth_pixels),
        area_km2=table.area_km2,
        without=_working_point(table, every, picks),
        working_points={name: _working_point(table, rule, picks) for name, rule in chosen.items()},
        curve=_curve(rules, counts, table.area_km2),
    )


def _best(rules: Sequence[ObjectRule], criteria: NDArray[np.float64], otherwise: ObjectRule) -> ObjectRule:
    place = int(np.argmax(criteria))
    return rules[place] if criteria[place] > 0 else otherwise


def _working_point(table: RuleTable, rule: ObjectRule, picks: NDArray[np.int64]) -> WorkingPoint:
    """Score a rule; `picks` (draws, groups): how often each group is drawn."""
    by_group = table.group_counts(rule)
    drawn = np.tensordot(picks, by_group, axes=1)
    ground = table.group_km2
    values, samples = _scores(table.counts(rule), ground.sum()), _scores(drawn, picks @ ground)
    alone = len(by_group) < 2
    scores = {
        name: Estimate(float(value), *((math.nan, math.nan) if alone else middle(samples[name])))
        for name, value in values.items()
    }
    return WorkingPoint(threshold=rule.threshold, peak=rule.peak, min_area_m2=rule.min_area_m2, scores=scores)


def _scores(counts: Counts, area_km2: Any) -> dict[str, NDArray[np.float64]]:
    """Compute recall, precision and F1 by criterion, and false alarms a km2, from counts (..., 2, 4)."""
    scores = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for place, name in enumerate(CRITERIA):
            mapped, found, predicted, right = np.moveaxis(counts[..., place, :].astype(np.float64), -1, 0)
            scores[f"recall_{name}"] = found / mapped
            scores[f"precision_{name}"] = right / predicted
            scores[f"f1_{name}"] = f_scores(counts[..., place, :])
        false = counts[..., 1, 2] - counts[..., 1, 3]
        scores["false_alarms_km2"] = false / area_km2
    return scores


def _curve(rules: Sequence[ObjectRule], counts: Counts, area_km2: float | None) -> tuple[CurvePoint, ...]:
    """Return the rules of the fewest false alarms for each recall, by rising recall, at most _CURVE_POINTS of them."""
    found, false = counts[:, 1, 1], counts[:, 1, 2] - counts[:, 1, 3]
    best = criterion(counts)
    points: list[int] = []
    fewest = math.inf
    for place in np.lexsort((-best, false, -found)):  # from the highest recall down
        if false[place] < fewest and found[place]:
            fewest = int(false[place])
            points.append(int(place))
    points = points[::-1]
    if len(points) > _CURVE_POINTS:
        points = [points[place] for place in np.linspace(0, len(points) - 1, _CURVE_POINTS).round().astype(int)]
    f1 = f_scores(counts)
    return tuple(
        CurvePoint(
            threshold=rules[place].threshold,
            peak=rules[place].peak,
            min_area_m2=rules[place].min_area_m2,
            recall=float(found[place] / counts[place, 1, 0]),
            false_alarms_km2=None if area_km2 is None else float(false[place] / area_km2),
            f1_iou_50=float(f1[place, 0]),
            f1_any_overlap=float(f1[place, 1]),
        )
        for place in points
    )
