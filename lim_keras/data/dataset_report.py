"""Dataset report: tile counts, imbalance ratios and centre bias.

Imbalance ratios are computed on resized masks, as in Chen et al. 2022 (Eq. 1-3, Table 2), for all tiles, for landslide
tiles, and after augmentation. Centre bias is how far landslide positions in tiles depart from uniform. If tiles are cut
around their landslides, a mask that ignores the image can score well.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from lim_keras.data.augment import PAPER_RECIPES, AugmentationName
from lim_keras.data.centre_bias import (
    NO_FOLD,
    UNIFORM_STD,
    CentreBias,
    Occupancy,
    centre_bias,
    centroid,
    resize_mask,
    spread_of,
)
from lim_keras.data.folds import assign_folds
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Kind, Labels, Tile, TileSet, read_tile
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import write_text
from lim_keras.seals import check_sealed_file, sealed_json

SAMPLES_PER_LANDSLIDE_TILE: dict[AugmentationName, int] = {"paper": PAPER_RECIPES, "dihedral": 1, "none": 1}
"""Number of samples per landslide tile in an epoch."""

# Number and seed of the folds for the held-out F1 of the image-blind mask.
_FOLDS, _SEED = 5, 2022


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Numbers of samples, landslide pixels and background pixels; ignored pixels do not count."""

    samples: int = 0
    landslide_px: int = 0
    background_px: int = 0

    def __add__(self, other: Self) -> "PixelCounts":
        return PixelCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, copies: int) -> "PixelCounts":
        return PixelCounts(*(count * copies for count in astuple(self)))

    @property
    def ratio(self) -> float:
        """IR = |N| / |P| (Eq. 3): background over landslide pixels; infinite without landslide, NaN without either."""
        if self.landslide_px:
            return self.background_px / self.landslide_px
        return math.inf if self.background_px else math.nan


@dataclass(frozen=True, slots=True)
class ImbalanceReport:
    """Pixel counts by kind of tile.

    Attributes:
        size: side that masks were resized to, pixels.
        augmentation: name of the augmentation.
        landslide, non_landslide: counts before augmentation.
    """

    size: int
    augmentation: AugmentationName
    landslide: PixelCounts
    non_landslide: PixelCounts

    @property
    def before(self) -> PixelCounts:
        """All tiles before augmentation: the first column of Table 2."""
        return self.landslide + self.non_landslide

    @property
    def augmented_landslide(self) -> PixelCounts:
        """Landslide tiles after augmentation."""
        return self.landslide * SAMPLES_PER_LANDSLIDE_TILE[self.augmentation]

    @property
    def after(self) -> PixelCounts:
        """All samples after augmentation: the second column of Table 2."""
        return self.augmented_landslide + self.non_landslide

    @property
    def ratios(self) -> dict[str, float]:
        """Imbalance ratios by name."""
        return {
            "all_tiles": self.before.ratio,
            "landslide_tiles": self.landslide.ratio,
            "after_augmentation": self.after.ratio,
        }


def measure_imbalance(
    masks: Iterable[tuple[Kind, Labels]], size: int = 256, augmentation: AugmentationName = "paper"
) -> ImbalanceReport:
    """Count the pixels of tiles by kind.

    Args:
        masks: kind and mask (height, width) {0, 1, 255} of every tile.
        size: side, pixels, that masks are resized to (nearest neighbour) before counting.
        augmentation: "paper" makes four samples of each landslide tile (Fig. 6).

    Raises:
        ConfigError: unknown augmentation.
    """
    if augmentation not in SAMPLES_PER_LANDSLIDE_TILE:
        known = ", ".join(SAMPLES_PER_LANDSLIDE_TILE)
        raise ConfigError(
            f"Invalid value for argument `augmentation`. Expected one of {known}. Received: {augmentation}"
        )
    counts = {"landslide": PixelCounts(), "non-landslide": PixelCounts()}
    for kind, mask in masks:
        resized = resize_mask(mask, size)
        landslide = int((resized == LANDSLIDE).sum())
        counts[kind] += PixelCounts(1, landslide, int((resized != IGNORED).sum()) - landslide)
    return ImbalanceReport(size, augmentation, counts["landslide"], counts["non-landslide"])


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """Counts, imbalance and centre bias of a set of tiles; centre_bias is None without landslide pixels."""

    tiles: TileSet
    imbalance: ImbalanceReport
    centre_bias: CentreBias | None

    @classmethod
    def measure(cls, tiles: TileSet, size: int = 256, augmentation: AugmentationName = "paper") -> "DatasetReport":
        """Read every mask, resize it to size x size pixels, and count.

        Raises:
            DataError: a mask cannot be read, or there is no tile.
            ConfigError: `size` is below 1, or unknown augmentation.
        """
        meter = DatasetMeter(tiles, size, augmentation)
        # Tiles that are background everywhere share one mask, and their images are not opened.
        background = np.zeros((size, size), np.uint8)
        for tile in tiles:
            labelled = tile.mask is not None or tile.valid_px < tile.width * tile.height
            meter.add(tile, read_tile(tile)[1] if labelled else background)
        return meter.report()

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in a form that JSON can store; a ratio without landslide pixels is None."""
        report = self.imbalance
        return {
            "data": str(self.tiles.root),
            "bands": self.tiles.bands,
            "dtype": self.tiles.dtype,
            "size": report.size,
            "augmentation": report.augmentation,
            "tiles": {kind: _kind_figures(self.tiles.of_kind(kind)) for kind in ("landslide", "non-landslide")},
            "groups": len({tile.group for tile in self.tiles if tile.group}),
            "tiles_in_groups": sum(bool(tile.group) for tile in self.tiles),
            "imbalance_ratio": {name: _finite(ratio) for name, ratio in report.ratios.items()},
            "table_2": {
                "before_augmentation": _column(report.landslide, report.non_landslide),
                "after_augmentation": _column(report.augmented_landslide, report.non_landslide),
            },
            "centre_bias": None if self.centre_bias is None else _bias_figures(self.centre_bias),
        }

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON with a seal (`lim_keras.seals`).

        Raises:
            DataError: the file exists and is not an unchanged report of an earlier call, or it cannot be written.
        """
        path = Path(path)
        check_sealed_file(path, "json_file")
        write_text(path, sealed_json(self.to_dict()))


class DatasetMeter:
    """Measure a dataset report mask by mask, in memory that does not grow with the number of tiles.

    Args:
        tiles: all tiles.
        size: side, pixels, that masks are resized to before they are counted.
        augmentation: name of the augmentation, for the counts after it.

    Raises:
        DataError: there is no tile.
        ConfigError: `size` is below 1, or unknown augmentation.
    """

    def __init__(self, tiles: TileSet, size: int = 256, augmentation: AugmentationName = "paper") -> None:
        if size < 1:
            raise ConfigError(f"Invalid value for argument `size`. Expected an integer >= 1. Received: {size}")
        if not len(tiles):
            raise DataError(f"{tiles.root}: expected at least one tile. Received: none.")
        self._tiles, self._size = tiles, size
        self._imbalance = measure_imbalance((), size, augmentation)
        self._folds = _folds(tiles.of_kind("landslide"))
        self._parts: dict[int, Occupancy] = {}
        self._centroids: list[tuple[float, float]] = []

    def add(self, tile: Tile, mask: Labels) -> None:
        """Count the mask (height, width) {0, 1, 255} of a tile."""
        resized = resize_mask(mask, self._size)
        one = measure_imbalance([(tile.kind, resized)], self._size, self._imbalance.augmentation)
        self._imbalance = replace(
            self._imbalance,
            landslide=self._imbalance.landslide + one.landslide,
            non_landslide=self._imbalance.non_landslide + one.non_landslide,
        )
        if tile.kind == "landslide":
            fold = self._folds.get(tile.tile_id, NO_FOLD)
            self._parts.setdefault(fold, Occupancy.empty(self._size)).add(resized)
            place = centroid(resized)
            self._centroids += [] if place is None else [place]

    def report(self) -> DatasetReport:
        """Return the report on the counted masks."""
        if not self._imbalance.landslide.landslide_px:
            return DatasetReport(self._tiles, self._imbalance, None)
        bias = centre_bias(spread_of(self._centroids), dict(sorted(self._parts.items())), self._size)
        return DatasetReport(self._tiles, self._imbalance, bias)


def _kind_figures(tiles: TileSet) -> dict[str, Any]:
    sides = [side for tile in tiles for side in (tile.width, tile.height)]
    return {
        "tiles": len(tiles),
        "shortest_side_px": min(sides, default=None),
        "longest_side_px": max(sides, default=None),
        "landslide_px": sum(tile.landslide_px for tile in tiles),
        "labelled_px": sum(tile.valid_px for tile in tiles),
        "ignored_px": sum(tile.width * tile.height - tile.valid_px for tile in tiles),
        "tiles_in_groups": sum(bool(tile.group) for tile in tiles),
    }


def _bias_figures(bias: CentreBias) -> dict[str, Any]:
    return {
        "centroids": asdict(bias.spread),
        "uniform_std": UNIFORM_STD,
        "blind_threshold": bias.threshold,
        "blind_f1": bias.f1,
        "blind_f1_held_out": bias.held_out_f1,
    }


def _folds(landslides: TileSet) -> dict[str, int]:
    """Return the fold of each tile by its id; nothing for too few tiles."""
    try:
        return assign_folds(landslides, _FOLDS, _SEED)
    except DataError:
        return {}


def _column(landslide: PixelCounts, non_landslide: PixelCounts) -> dict[str, Any]:
    total = landslide + non_landslide
    return {
        "landslide_samples": landslide.samples,
        "non_landslide_samples": non_landslide.samples,
        "landslide_px": total.landslide_px,
        "background_px": total.background_px,
        "imbalance_ratio": _finite(total.ratio),
    }


def _finite(ratio: float) -> float | None:
    return ratio if np.isfinite(ratio) else None
