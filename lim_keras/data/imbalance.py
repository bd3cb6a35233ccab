"""How much more background than landslide: the imbalance ratio of Chen et al. 2022 (Eq. 1-3) and their Table 2.

Counted on masks resized as the paper does it, because a large tile weighs more before resizing than after. The ratio
depends on what is counted, so it has three names: of all tiles, of landslide tiles only, and after augmentation (P1 in
docs/concepts/paper.md).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from lim_keras.data.augment import PAPER_RECIPES, AugmentationName
from lim_keras.data.tile import IGNORED, LANDSLIDE, Kind, Labels
from lim_keras.errors import ConfigError

SAMPLES_PER_LANDSLIDE_TILE: dict[AugmentationName, int] = {"paper": PAPER_RECIPES, "dihedral": 1, "none": 1}
"""What a landslide tile counts for in an epoch. "dihedral" changes each tile every time it is drawn, but adds none."""


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Samples and their labelled pixels; ignored pixels are in neither count."""

    samples: int = 0
    landslide_px: int = 0
    background_px: int = 0

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(
            self.samples + other.samples,
            self.landslide_px + other.landslide_px,
            self.background_px + other.background_px,
        )

    def times(self, copies: int) -> "PixelCounts":
        """Each sample `copies` times: flips and colour changes keep the number of pixels."""
        return PixelCounts(self.samples * copies, self.landslide_px * copies, self.background_px * copies)

    @property
    def ratio(self) -> float:
        """IR = |N| / |P| (Eq. 3): background over landslide pixels; infinite without landslide, NaN without either."""
        if self.landslide_px:
            return self.background_px / self.landslide_px
        return math.inf if self.background_px else math.nan


@dataclass(frozen=True, slots=True)
class ImbalanceReport:
    """Counts by kind of tile as they are, and how many samples augmentation makes of a landslide tile.

    size: side of the square that masks were resized to, in pixels.
    """

    size: int
    augmentation: AugmentationName
    landslide: PixelCounts
    non_landslide: PixelCounts

    @property
    def before(self) -> PixelCounts:
        """All tiles, as they are: the first column of Table 2."""
        return self.landslide + self.non_landslide

    @property
    def augmented_landslide(self) -> PixelCounts:
        """Landslide tiles after augmentation."""
        return self.landslide.times(SAMPLES_PER_LANDSLIDE_TILE[self.augmentation])

    @property
    def after(self) -> PixelCounts:
        """All samples after augmentation: the second column of Table 2."""
        return self.augmented_landslide + self.non_landslide

    @property
    def ratios(self) -> dict[str, float]:
        """The three imbalance ratios by name."""
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
        masks: kind and mask (height, width) {0, 1, 255} of every tile; read as they are counted, so memory stays flat.
        size: masks are resized to size x size by nearest neighbour first.
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
        counts[kind] += _count(resize_mask(mask, size))
    return ImbalanceReport(size, augmentation, counts["landslide"], counts["non-landslide"])


def resize_mask(mask: Labels, size: int) -> Labels:
    """A mask (height, width) as (size, size), by nearest neighbour: no label is made up between two others."""
    return np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _count(mask: Labels) -> PixelCounts:
    landslide = int((mask == LANDSLIDE).sum())
    return PixelCounts(1, landslide, int((mask != IGNORED).sum()) - landslide)
