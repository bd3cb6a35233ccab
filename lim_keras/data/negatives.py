"""Read negative tiles: images without any landslide, mostly from data sets of other purpose."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lim_keras.data.layouts import find_layout, read_images, read_tiles
from lim_keras.data.tiles import TileSet, raise_problems
from lim_keras.errors import DataError
from lim_keras.progress import ProgressCallback

_MAX_LISTED = 5


def read_negatives(path: str | os.PathLike[str], progress: ProgressCallback | None = None) -> TileSet:
    """Read tiles of which none may show a landslide.

    Args:
        path: a tiles.csv or a folder that `read_tiles` reads, or a folder of images without masks.
        progress: receives the number of checked tiles.

    Raises:
        DataError: no such path, unreadable images, or masks with landslides.
    """
    path = Path(path)
    plain = path.is_dir() and find_layout(path) is None
    return as_negatives(read_images(path, progress) if plain else read_tiles(path, progress))


def as_negatives(tiles: TileSet) -> TileSet:
    """Return tiles as negative ones; raise DataError if masks hold landslides."""
    raise_problems(
        tiles.root,
        [
            f"{tile.mask}: the mask of a negative tile holds {tile.landslide_px} landslide pixels. Expected none."
            for tile in tiles
            if tile.landslide_px
        ],
    )
    # A tile of kind landslide without landslide pixels has nothing to draw a landslide window from.
    return replace(tiles, tiles=tuple(replace(tile, kind="non-landslide") for tile in tiles))


def join_negatives(paths: Sequence[str], tiles: TileSet, progress: ProgressCallback | None = None) -> TileSet | None:
    """Read the negative tiles of a training as one set; None without paths.

    Args:
        paths: folders or manifests.
        tiles: the tiles of the training, whose bands and data type they must have.
        progress: receives the number of checked tiles.

    Raises:
        DataError: as in `read_negatives`, or bands, data type or ids do not fit.
    """
    parts = [read_negatives(path, progress) for path in paths]
    if not parts:
        return None
    for part in parts:
        if (part.bands, part.dtype) != (tiles.bands, tiles.dtype):
            raise DataError(
                f"{part.root}: expected negative tiles of {tiles.bands} bands of {tiles.dtype}, as the tiles have. "
                f"Received: {part.bands} bands of {part.dtype}."
            )
    ids = [tile_id for part in parts for tile_id in part.ids]
    known = set(tiles.ids)
    repeated = sorted(one for one, times in Counter(ids).items() if times > 1 or one in known)
    if repeated:
        listed = ", ".join(repeated[:_MAX_LISTED]) + (", ..." if len(repeated) > _MAX_LISTED else "")
        raise DataError(
            f"negatives.paths: expected an id of its own for each negative tile. Received: {len(repeated)} ids that "
            f"other tiles have, too: {listed}. Rename the files, or give them other ids in a tiles.csv."
        )
    return replace(parts[0], tiles=tuple(tile for part in parts for tile in part))


def group_of(tile_id: str, group: str = "") -> str:
    """Return the group of a negative tile: that of its manifest, or its id without the number at its end."""
    stem = tile_id.rstrip("0123456789").rstrip("_- .")
    return group or stem or "all"
