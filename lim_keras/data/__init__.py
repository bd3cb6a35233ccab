"""Labelled tiles: layouts, manifest, folds, sampling, augmentation and reports.

Public names are imported on first use; only the `tf.data` batches need TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras.data.augment import build_augmentation
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.folds import assign_folds, audit_leaks, validation_split
    from lim_keras.data.layouts import read_tiles
    from lim_keras.data.manifest import read_folds, read_tile_ids, write_manifest
    from lim_keras.data.overlap import Overlap, find_overlaps, group_overlaps
    from lim_keras.data.pipeline import resized_batches, sheet_batches, training_batches
    from lim_keras.data.sampling import ResizedSampler, WindowSampler
    from lim_keras.data.tile_statistics import TileStatistics
    from lim_keras.data.tiles import Tile, TileSet, TileStore, read_tile

_MODULES = {
    "augment": ("build_augmentation",),
    "dataset_report": ("DatasetReport",),
    "folds": ("assign_folds", "audit_leaks", "validation_split"),
    "layouts": ("read_tiles",),
    "manifest": ("read_folds", "read_tile_ids", "write_manifest"),
    "overlap": ("Overlap", "find_overlaps", "group_overlaps"),
    "pipeline": ("resized_batches", "sheet_batches", "training_batches"),
    "sampling": ("ResizedSampler", "WindowSampler"),
    "tile_statistics": ("TileStatistics",),
    "tiles": ("Tile", "TileSet", "TileStore", "read_tile"),
}

__all__ = [
    "DatasetReport",
    "Overlap",
    "ResizedSampler",
    "Tile",
    "TileSet",
    "TileStatistics",
    "TileStore",
    "WindowSampler",
    "assign_folds",
    "audit_leaks",
    "build_augmentation",
    "find_overlaps",
    "group_overlaps",
    "read_folds",
    "read_tile",
    "read_tile_ids",
    "read_tiles",
    "resized_batches",
    "sheet_batches",
    "training_batches",
    "validation_split",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
