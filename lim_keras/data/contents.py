"""Content hashes of tiles: tell whether image, mask or manifest entry of a tile changed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import DataError
from lim_keras.ownership import file_hash

Contents = dict[str, dict[str, str]]
"""By tile id: SHA-256 by file role ("image", "mask", "image.msk", ...), and the manifest columns in `_COLUMNS`."""

_COLUMNS = ("kind", "group", "gsd_m", "ignore")
"""Columns that training depends on, besides the files; all others follow from the files or are not used."""

_SIDECARS = (".aux.xml", ".msk")
"""Endings of files beside an image that GDAL reads for its nodata value and its mask."""


def tile_contents(tiles: TileSet) -> Contents:
    """Hash the files of every tile, in threads.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(tiles.ids, pool.map(_content, tiles), strict=True))


def changed_tiles(before: Mapping[str, Mapping[str, str]], now: Contents, tiles: TileSet) -> list[str]:
    """List the files and manifest entries that differ, one text for each; empty if nothing changed.

    Args:
        before: contents that were recorded.
        now: present contents of `tiles`.
        tiles: the present tiles, for the names of the files.
    """
    gone = [f"tile {name} is gone" for name in before if name not in now]
    new = [f"tile {name} is new" for name in now if name not in before]
    changes = [
        _change(tiles[name], role)
        for name, content in now.items()
        if name in before
        for role in sorted({*content, *before[name]})
        if not _equal(role, content.get(role, ""), before[name].get(role, ""))
    ]
    return [*dict.fromkeys(changes), *new, *gone]


def _content(tile: Tile) -> dict[str, str]:
    files = {role: _hash(path) for role, path in _files(tile)}
    columns = {"kind": tile.kind, "group": tile.group, "ignore": tile.ignore}
    return files | columns | {"gsd_m": "" if tile.gsd_m is None else f"{tile.gsd_m:.8g}"}


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _equal(role: str, one: str, other: str) -> bool:
    if role == "gsd_m" and one and other:
        # The last digits of a distance depend on the version of the code that computes it.
        return math.isclose(float(one), float(other), rel_tol=1e-5)
    return one == other


def _files(tile: Tile) -> Iterator[tuple[str, Path]]:
    for role, path in (("image", tile.image), ("mask", tile.mask)):
        if path is None:
            continue
        yield role, path
        for ending in _SIDECARS:
            sidecar = path.with_name(f"{path.name}{ending}")
            if sidecar.is_file():
                yield f"{role}{ending}", sidecar


def _change(tile: Tile, role: str) -> str:
    if role in _COLUMNS:
        return f"{role} of tile {tile.tile_id}"
    kind, dot, ending = role.partition(".")
    path = tile.image if kind == "image" else tile.mask
    return f"mask of tile {tile.tile_id}" if path is None else f"{path}{dot}{ending}"
