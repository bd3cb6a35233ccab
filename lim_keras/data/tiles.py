"""Sets of labelled tiles, and reading their pixels."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import overload

from lim_keras.data.layouts import check_tiles, find_tiles
from lim_keras.data.manifest import raise_problems, read_candidates, read_table, write_rows
from lim_keras.data.tile import Kind, Tile
from lim_keras.errors import DataError
from lim_keras.progress import ProgressCallback

_MANIFEST = "tiles.csv"


@dataclass(frozen=True)
class TileSet(Sequence[Tile]):
    """Tiles that share bands and dtype, addressed by position or id.

    root: the folder that they were read from. bands, dtype: of every image in it.
    """

    root: Path
    tiles: tuple[Tile, ...]
    bands: int
    dtype: str

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], progress: ProgressCallback | None = None, *, decode: bool = True
    ) -> "TileSet":
        """Read a manifest (a .csv, or a folder that holds tiles.csv), Bijie's folders, or images/ with masks/.

        Every image and mask is opened and checked here, so that training meets no bad file.

        Args:
            path: the folder or the manifest.
            progress: receives the number of checked tiles.
            decode: False takes the pixel counts of a manifest that `write_manifest` made as they are, and reads no more
                than the headers of its images: for files that were checked a moment ago.

        Raises:
            DataError: one error that lists every offending file: the first 20, then a count of the rest.
        """
        path = Path(path)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder. Expected a folder of tiles or a tiles.csv.")
        if path.is_dir() and (path / _MANIFEST).is_file():
            path = path / _MANIFEST
        candidates, problems = find_tiles(path) if path.is_dir() else read_candidates(path)
        checked = check_tiles(path, candidates, problems, progress, decode)
        return cls(path if path.is_dir() else path.parent, checked.tiles, checked.bands, checked.dtype)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The tiles' ids, in order."""
        return tuple(tile.tile_id for tile in self.tiles)

    @cached_property
    def _by_id(self) -> dict[str, Tile]:
        return {tile.tile_id: tile for tile in self.tiles}

    def __len__(self) -> int:
        return len(self.tiles)

    def __contains__(self, item: object) -> bool:
        return item in self._by_id if isinstance(item, str) else item in self.tiles

    @overload
    def __getitem__(self, key: int | str) -> Tile: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Tile, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Tile | tuple[Tile, ...]:
        if not isinstance(key, str):
            return self.tiles[key]
        self._check_known([key])
        return self._by_id[key]

    def subset(self, ids: Iterable[str]) -> "TileSet":
        """The tiles of these ids, in this set's order. Raises DataError if some are unknown."""
        wanted = set(self._check_known(ids))
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.tile_id in wanted))

    def without(self, ids: Iterable[str]) -> "TileSet":
        """All tiles but these, in order. Raises DataError if some are unknown."""
        unwanted = set(self._check_known(ids))
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.tile_id not in unwanted))

    def of_kind(self, kind: Kind) -> "TileSet":
        """The tiles of one kind, in order."""
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.kind == kind))

    def write_manifest(self, path: str | os.PathLike[str], folds: Mapping[str, int] | None = None) -> None:
        """Write a tiles.csv that `read` takes; with a column `fold` (-1: test) if folds are given, by tile id."""
        if folds is not None:
            self._check_known(folds)
        write_rows(Path(path), self.tiles, folds)

    def _check_known(self, ids: Iterable[str]) -> list[str]:
        ids = list(ids)
        unknown = [tile_id for tile_id in dict.fromkeys(ids) if tile_id not in self._by_id]
        raise_problems(self.root, [f"no tile has the id {tile_id!r}." for tile_id in unknown])
        return ids


def read_tile_ids(path: str | os.PathLike[str]) -> list[str]:
    """Ids of a list: a text file of one id a line (`#` starts a comment line), or a tiles.csv; each once, in order.

    Raises:
        DataError: unreadable, without a single id, or a table without the column tile_id.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        rows = read_table(path)
        if "tile_id" not in rows[0][1]:
            raise DataError(f"{path}: expected a column tile_id. Found {', '.join(rows[0][1])}.")
        ids = [row["tile_id"] for _, row in rows]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a text file of tile ids ({error}).") from error
        ids = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not ids:
        raise DataError(f"{path}: expected one tile id a line, but there is none.")
    return list(dict.fromkeys(ids))
