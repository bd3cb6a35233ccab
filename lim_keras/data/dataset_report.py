"""Dataset report: tile counts, imbalance ratios and centre bias."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lim_keras.data.augment import AugmentationName
from lim_keras.data.centre_bias import UNIFORM_STD, CentreBias, measure_centre_bias
from lim_keras.data.folds import assign_folds
from lim_keras.data.imbalance import ImbalanceReport, PixelCounts, measure_imbalance, resize_mask
from lim_keras.data.tile import Labels, Tile, read_tile
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError

# Folds that hold out tiles for the image-blind mask's honest figure; any seed will do, so it is fixed.
_FOLDS, _SEED = 5, 2022


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """Figures of a set of tiles.

    centre_bias: of its landslide tiles, None where there is none.
    """

    tiles: TileSet
    imbalance: ImbalanceReport
    centre_bias: CentreBias | None

    @classmethod
    def measure(cls, tiles: TileSet, size: int = 256, augmentation: AugmentationName = "paper") -> "DatasetReport":
        """Read every mask once, resized to size x size, and count.

        Raises:
            DataError: a mask cannot be read, or there is no tile.
            ConfigError: unknown augmentation.
        """
        if not len(tiles):
            raise DataError(f"{tiles.root}: expected at least one tile. Received: none.")
        masks = dict(_resized_masks(tiles, size))
        imbalance = measure_imbalance(((tile.kind, masks[tile.tile_id]) for tile in tiles), size, augmentation)
        landslides = tiles.of_kind("landslide")
        if not imbalance.landslide.landslide_px:
            return cls(tiles, imbalance, None)
        folds = _folds(landslides)
        return cls(tiles, imbalance, measure_centre_bias([masks[i] for i in landslides.ids], size, folds))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON; a ratio without landslide pixels is None."""
        report = self.imbalance
        return {
            "data": str(self.tiles.root),
            "bands": self.tiles.bands,
            "dtype": self.tiles.dtype,
            "size": report.size,
            "augmentation": report.augmentation,
            "tiles": {kind: self._of_kind(kind) for kind in ("landslide", "non-landslide")},
            "groups": len({tile.group for tile in self.tiles if tile.group}),
            "tiles_in_groups": sum(bool(tile.group) for tile in self.tiles),
            "imbalance_ratio": {name: _finite(ratio) for name, ratio in report.ratios.items()},
            "table_2": {
                "before_augmentation": _column(report.landslide, report.non_landslide),
                "after_augmentation": _column(report.augmented_landslide, report.non_landslide),
            },
            "centre_bias": self._centre_bias(),
        }

    def write_json(self, path: Path) -> None:
        """Write `to_dict` as JSON. Raises DataError if the file cannot be written."""
        try:
            path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}).") from error

    def _of_kind(self, kind: Any) -> dict[str, Any]:
        some = self.tiles.of_kind(kind)
        sides = [side for tile in some for side in (tile.width, tile.height)]
        return {
            "tiles": len(some),
            "shortest_side_px": min(sides, default=None),
            "longest_side_px": max(sides, default=None),
            "landslide_px": sum(tile.landslide_px for tile in some),
            "labelled_px": sum(tile.valid_px for tile in some),
            "tiles_in_groups": sum(bool(tile.group) for tile in some),
        }

    def _centre_bias(self) -> dict[str, Any] | None:
        if self.centre_bias is None:
            return None
        return {
            "centroids": asdict(self.centre_bias.spread),
            "uniform_std": UNIFORM_STD,
            "blind_threshold": self.centre_bias.blind.threshold,
            "blind_f1": self.centre_bias.blind.f1,
            "blind_f1_held_out": self.centre_bias.held_out_f1,
        }


def _resized_masks(tiles: TileSet, size: int) -> Iterator[tuple[str, Labels]]:
    # Tiles without a mask share one, and their images are not opened.
    background = np.zeros((size, size), np.uint8)
    for tile in tiles:
        yield tile.tile_id, resize_mask(read_tile(tile)[1], size) if _has_labels(tile) else background


def _has_labels(tile: Tile) -> bool:
    return tile.mask is not None or tile.ignore == "nodata"


def _folds(landslides: TileSet) -> list[int] | None:
    try:
        folds = assign_folds(landslides, _FOLDS, _SEED)
    except DataError:  # too few tiles to hold some out
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
