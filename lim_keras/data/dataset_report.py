"""Dataset report: tile counts, imbalance ratios and centre bias.

Imbalance ratios are computed on resized masks, as in Chen et al. 2022 (Eq. 1-3, Table 2), for all tiles, for landslide
tiles, and after augmentation. Centre bias is how far landslide positions in tiles depart from uniform. If tiles are cut
around their landslides, a mask that ignores the image can score well.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from lim_keras.data.augment import PAPER_RECIPES, AugmentationName
from lim_keras.data.folds import assign_folds
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Kind, Labels, TileSet, read_tile
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import write_text
from lim_keras.seals import check_sealed_file, sealed_json

SAMPLES_PER_LANDSLIDE_TILE: dict[AugmentationName, int] = {"paper": PAPER_RECIPES, "dihedral": 1, "none": 1}
"""Number of samples per landslide tile in an epoch."""

UNIFORM_STD = 1 / math.sqrt(12)
"""Standard deviation of a position that is uniformly distributed in 0..1."""

# Number and seed of the folds for the held-out F1 of the image-blind mask.
_FOLDS, _SEED = 5, 2022

_NO_LANDSLIDE = "No mask holds a landslide pixel, so there is no position to learn. Give tiles with landslides."

Counts = npt.NDArray[np.int64]
Mean = npt.NDArray[np.float32]


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
class _Occupancy:
    """Number of tiles with landslide, and of tiles with a label, at each position (size, size)."""

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
    occupancy = _Occupancy.of(masks, size)
    threshold, f1 = occupancy.best_cut()
    held_out = None if folds is None else _held_out_f1(masks, folds, occupancy)
    truth, labelled = int(occupancy.landslide.sum()), int(occupancy.labelled.sum())
    return CentreBias(centroid_spread(masks), threshold, f1, held_out, 2 * truth / (labelled + truth))


def centroid_spread(masks: Iterable[Labels]) -> CentroidSpread:
    """Measure landslide centroids over masks (height, width) {0, 1, 255}; masks without landslide do not count.

    Raises:
        DataError: no mask holds a landslide pixel.
    """
    centroids = np.array([centroid for centroid in map(_centroid, masks) if centroid is not None])
    if not len(centroids):
        raise DataError(_NO_LANDSLIDE)
    return CentroidSpread(len(centroids), *centroids.mean(axis=0).tolist(), *centroids.std(axis=0).tolist())


def _centroid(mask: Labels) -> tuple[float, float] | None:
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
    return _Occupancy.of(masks, size).mean


def _held_out_f1(masks: Sequence[Labels], folds: Sequence[int], whole: _Occupancy) -> float:
    size = len(whole.landslide)
    true_positive = predicted = 0
    for fold in sorted(set(folds)):
        part = _Occupancy.of((mask for mask, own in zip(masks, folds, strict=True) if own == fold), size)
        others = whole.without(part)
        cut = others.mean >= others.best_cut()[0]
        true_positive += int(part.landslide[cut].sum())
        predicted += int(part.labelled[cut].sum())
    return 2 * true_positive / (predicted + int(whole.landslide.sum()))


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
        if size < 1:
            raise ConfigError(f"Invalid value for argument `size`. Expected an integer >= 1. Received: {size}")
        if not len(tiles):
            raise DataError(f"{tiles.root}: expected at least one tile. Received: none.")
        masks = _resized_masks(tiles, size)
        imbalance = measure_imbalance(((tile.kind, masks[tile.tile_id]) for tile in tiles), size, augmentation)
        if not imbalance.landslide.landslide_px:
            return cls(tiles, imbalance, None)
        landslides = tiles.of_kind("landslide")
        bias = measure_centre_bias([masks[tile_id] for tile_id in landslides.ids], size, _folds(landslides))
        return cls(tiles, imbalance, bias)

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


def _resized_masks(tiles: TileSet, size: int) -> dict[str, Labels]:
    # Tiles that are background everywhere share one mask, and their images are not opened.
    background = np.zeros((size, size), np.uint8)
    labelled = {tile.tile_id for tile in tiles if tile.mask is not None or tile.valid_px < tile.width * tile.height}
    return {
        tile.tile_id: resize_mask(read_tile(tile)[1], size) if tile.tile_id in labelled else background
        for tile in tiles
    }


def _folds(landslides: TileSet) -> list[int] | None:
    try:
        folds = assign_folds(landslides, _FOLDS, _SEED)
    except DataError:  # too few tiles
        return None
    return [folds[tile_id] for tile_id in landslides.ids]


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
