"""Evaluate a model on images without any landslide: measure the area that it calls landslide, and count alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.bundle.protocol import Predict
from lim_keras.data import negatives as images
from lim_keras.data.tiles import IGNORED, TileSet, TileStore
from lim_keras.evaluation.evaluator import choose_tiles, read_matching_tiles, tile_predictions
from lim_keras.files import StrPath
from lim_keras.inventory.options import PredictOptions, regions_rule
from lim_keras.progress import ProgressCallback, track

_M2_PER_KM2 = 1e6


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """False alarms of a model on images without any landslide.

    Attributes:
        tiles: number of tiles.
        tiles_with_alarm: number of tiles on which some pixel is called landslide.
        pixels: number of pixels with data, at the ground sample distance of the model.
        landslide_px: number of these that are called landslide.
        alarms: number of regions that the rule keeps: the landslides of a map.
        area_km2: area of `pixels`; None: the ground sample distance is unknown.
    """

    tiles: int = 0
    tiles_with_alarm: int = 0
    pixels: int = 0
    landslide_px: int = 0
    alarms: int = 0
    area_km2: float | None = None

    @property
    def landslide_share(self) -> float | None:
        """Share of the area that is called landslide; None without pixels."""
        return self.landslide_px / self.pixels if self.pixels else None

    @property
    def alarms_per_km2(self) -> float | None:
        """Number of alarms for each square kilometre; None if the area is unknown."""
        return self.alarms / self.area_km2 if self.area_km2 else None

    @classmethod
    def of(cls, probability: NDArray[Any], mask: NDArray[np.uint8], rule: ObjectRule, gsd_m: float | None) -> Self:
        """Count the alarms on one tile.

        Args:
            probability: probability of landslide (h, w).
            mask: 0 background, 255 no data, (h, w).
            rule: object rule; regions that it keeps are alarms.
            gsd_m: ground sample distance, metres; None if unknown.
        """
        valid = mask != IGNORED
        called = valid & (probability >= np.float32(rule.threshold))
        count, labels = cv2.connectedComponents(called.astype(np.uint8), connectivity=4)
        sizes = np.bincount(labels[called], minlength=count)[1:]
        peaks = np.zeros(count)
        np.maximum.at(peaks, labels[called], probability[called])
        areas = sizes.astype(np.float64) * (np.nan if gsd_m is None else gsd_m**2)
        kept = ~(rule.low_peaks(peaks[1:]) | rule.small(areas))
        pixels = int(valid.sum())
        area = None if gsd_m is None else pixels * gsd_m**2 / _M2_PER_KM2
        return cls(1, int(kept.any()), pixels, int(sizes[kept].sum()), int(kept.sum()), area)

    def __add__(self, other: FalseAlarms) -> FalseAlarms:
        areas = (self.area_km2, other.area_km2)
        area = None if None in areas else sum(one for one in areas if one is not None)
        return FalseAlarms(
            self.tiles + other.tiles,
            self.tiles_with_alarm + other.tiles_with_alarm,
            self.pixels + other.pixels,
            self.landslide_px + other.landslide_px,
            self.alarms + other.alarms,
            area,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return asdict(self) | {"landslide_share": self.landslide_share, "alarms_per_km2": self.alarms_per_km2}


@dataclass(frozen=True, slots=True)
class NegativeReport:
    """False alarms by group of tiles, and of all.

    Attributes:
        rule: object rule by which alarms were counted.
        groups: by name of the group, sorted: the column `group` of a tiles.csv, else the name of the file without the
            number at its end.
    """

    rule: ObjectRule
    groups: Mapping[str, FalseAlarms]

    @property
    def all(self) -> FalseAlarms:
        """The sum of the groups."""
        return total(list(self.groups.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return {
            "rule": asdict(self.rule),
            "all": self.all.to_dict(),
            "groups": {name: one.to_dict() for name, one in self.groups.items()},
        }


def total(parts: Sequence[FalseAlarms]) -> FalseAlarms:
    """Add the counts of several tiles or groups."""
    if not parts:
        return FalseAlarms()
    first, *others = parts
    for other in others:
        first = first + other
    return first


def matching_negatives(tiles: TileSet | StrPath, info: BundleInfo, progress: ProgressCallback | None = None) -> TileSet:
    """Read images without any landslide, and check that they fit a bundle; errors as in `evaluate_negatives`."""
    negatives = images.as_negatives(tiles) if isinstance(tiles, TileSet) else images.read_negatives(tiles, progress)
    return read_matching_tiles(negatives, info)


def evaluate_negatives(
    predict: Predict,
    info: BundleInfo,
    tiles: TileSet | StrPath,
    progress: ProgressCallback | None = None,
    *,
    choice: PredictOptions | None = None,
) -> NegativeReport:
    """Count the false alarms of a model on images without any landslide, by its object rule or else its threshold.

    Args:
        predict: function from raw pixels (n, h, w, bands) to probability (n, h, w).
        info: description of its bundle. Tiles are resampled to its ground sample distance; files that name none are
            assumed to have it.
        tiles: the tiles, or their folder or tiles.csv; see `lim_keras.data.negatives.read_negatives`.
        progress: receives the number of tiles.
        choice: which values of the object rule are used; None: the working point "balanced".

    Raises:
        DataError: tiles cannot be used, show landslides, or do not fit the bundle.

    Warns:
        LimKerasWarning: the model was trained on some of the tiles.
    """
    known = matching_negatives(tiles, info, progress)
    chosen = choose_tiles(known, known.ids, training=info.training_tiles)
    store = TileStore(chosen, info.gsd_m, info.gsd_m, cache="none")
    resized = info.sampling.get("size") if info.sampling.get("mode") == "resized" else None
    rule = regions_rule(choice, info) or ObjectRule(threshold=info.threshold)
    groups: dict[str, list[FalseAlarms]] = {}
    predictions = tile_predictions(predict, store, size=resized)
    for tile, one in zip(chosen, track(predictions, "negatives", len(chosen), progress, "tiles"), strict=True):
        gsd_m = None if resized else info.gsd_m or tile.gsd_m
        counted = FalseAlarms.of(one.probability, one.sample.mask, rule, gsd_m)
        groups.setdefault(images.group_of(tile.tile_id, tile.group), []).append(counted)
    return NegativeReport(rule, {name: total(groups[name]) for name in sorted(groups)})
