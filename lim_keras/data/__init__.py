"""Tiles: reading, manifests, folds, sampling, augmentation and reports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras.data.folds import assign_folds, audit_leaks, validation_split
    from lim_keras.data.overlap import group_overlaps
    from lim_keras.data.tiles import TileSet, read_tile_ids

__all__ = ["TileSet", "assign_folds", "audit_leaks", "group_overlaps", "read_tile_ids", "validation_split"]

_PLACES = {"TileSet": "tiles", "read_tile_ids": "tiles", "group_overlaps": "overlap"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES.get(name, 'folds')}"), name)
