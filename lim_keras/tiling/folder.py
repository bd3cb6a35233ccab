"""Output folder of a tiling: working folder, journal, ownership, and moving finished files to their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lim_keras.errors import DataError
from lim_keras.files import flush, flush_folder, make_folder, write_text
from lim_keras.inventory.result_files import read_document
from lim_keras.ownership import FOREIGN, Record, file_hash, is_ours, refusal, users_files
from lim_keras.seals import is_sealed, sealed_json

MANIFEST, RECORD = "tiles.csv", "tiling.json"
IMAGES, MASKS = "images", "masks"
_WORK, _JOURNAL = ".tiling.lim-keras.partial", "journal.jsonl"
_OURS = (IMAGES, MASKS, MANIFEST)  # names that a killed deletion of the working folder may leave


@dataclass(frozen=True)
class CutTile:
    """A tile whose files are written: SHA-256 of image and mask, landslide pixels and labelled pixels."""

    tile_id: str
    image: str
    mask: str
    landslide_px: int
    valid_px: int

    @property
    def hashes(self) -> Record:
        """SHA-256 of each file, by its name in the folder."""
        return {f"{IMAGES}/{self.tile_id}.tif": self.image, f"{MASKS}/{self.tile_id}.tif": self.mask}


class TilingFolder:
    """Output folder. Files are drafts in a hidden working folder until all of them are complete.

    A file is ours if tiling.json, or the journal that a killed call left, lists it with the SHA-256 of its content. All
    others are the user's, and are neither replaced nor deleted.

    Args:
        folder: the output folder.
        identity: hash of all inputs and options of the call.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self._identity = folder, identity
        self.work = folder / _WORK

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of an unchanged tiling.json; empty where there is none."""
        path = self.folder / RECORD
        return read_document(path) if is_sealed(path) else {}

    @cached_property
    def _journal(self) -> list[dict[str, Any]]:
        """Lines of the journal of a killed call; the last line may be cut off."""
        try:
            lines = (self.work / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return []
        found = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                if isinstance(values := json.loads(line), dict):
                    found.append(values)
        return found

    @cached_property
    def records(self) -> list[Record]:
        """SHA-256 of the files that earlier calls wrote into the folder, by call."""
        found: list[Any] = [self.record.get("sha256"), *(line.get("sha256") for line in self._journal)]
        found += [one for line in self._journal for one in line.get("records", ())]
        return [one for one in found if isinstance(one, dict)]

    @property
    def is_finished(self) -> bool:
        """True if an earlier call with the same inputs and options wrote all files, and all of them exist."""
        hashes = self.record.get("sha256")
        if self.record.get("identity") != self._identity or not isinstance(hashes, dict):
            return False
        return all((self.folder / name).is_file() for name in hashes)

    @property
    def edited(self) -> dict[Path, str]:
        """Files of tiling.json that changed since they were written, and why they are not ours."""
        hashes = self.record.get("sha256", {})
        return users_files(self.folder, hashes, hashes)

    def check(self, names: Iterable[str]) -> None:
        """Refuse to replace files of the user, and tiles that were edited; call this before any work.

        Raises:
            DataError: files of the user are there; the error names them.
        """
        known = (name for record in self.records for name in record)
        found = self._clashes([*names, MANIFEST, *known])
        if found:
            listed = dict(list(found.items())[:20])
            raise DataError(refusal(self.folder, listed, "out"))

    def _clashes(self, names: Iterable[str], *own: Record) -> dict[Path, str]:
        found: dict[Path, str] = {}
        for folder in (self.folder / IMAGES, self.folder / MASKS):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                found[folder] = "a link" if folder.is_symlink() else "a file"
        if found:
            return found
        found = users_files(self.folder, names, *self.records, *own)
        path = self.folder / RECORD
        if (path.is_symlink() or path.exists()) and not is_sealed(path):
            found[path] = "not written by lim-keras, or changed since"
        if self.work.is_symlink() or (self.work.exists() and not self._is_our_work):
            found[self.work] = FOREIGN
        return found

    @property
    def _is_our_work(self) -> bool:
        if not self.work.is_dir():
            return False
        inside = {one.name for one in self.work.iterdir()}
        return _JOURNAL in inside or all(name in _OURS or name.startswith(".journal.") for name in inside)

    def begin(self) -> dict[str, CutTile]:
        """Make the working folder, and start or continue the journal.

        Returns:
            Tiles that a killed call with the same inputs and options has cut, by their names.
        """
        if self._journal and self._journal[0].get("identity") == self._identity:
            return {one.tile_id: one for one in map(_cut_tile, self._journal[1:]) if one is not None}
        records = self.records
        make_folder(self.work, "out")
        # The new journal replaces the old one at once, so that a killed call always leaves one that knows our files.
        write_text(self.work / _JOURNAL, json.dumps({"identity": self._identity, "records": records}) + "\n")
        for name in (IMAGES, MASKS):
            shutil.rmtree(self.work / name, ignore_errors=True)
            make_folder(self.work / name, "out")
        return {}

    def has(self, tile: CutTile) -> bool:
        """Return whether the files of a tile are as they were written, in the working folder or at their names."""
        return all(
            any(is_ours(root / name, [known]) for root in (self.work, self.folder))
            for name, known in tile.hashes.items()
        )

    def abandon(self) -> None:
        """Delete the working folder of a call that cut no tile, unless it knows files of an earlier call."""
        if not self._journal:
            self.discard()

    def note(self, tiles: Sequence[CutTile]) -> None:
        """Add tiles to the journal."""
        self._append([{**asdict(tile), "sha256": tile.hashes} for tile in tiles])

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        path = self.work / _JOURNAL
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{json.dumps(line)}\n" for line in lines))
            flush(path)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}). Free disk space, and repeat the call."
            ) from error

    def put_in_place(self, hashes: Record, manifest: str, record: Mapping[str, Any]) -> None:
        """Move the files to their names, and write tiles.csv and tiling.json, which marks the folder as finished.

        Files of earlier calls are deleted first, and tiles.csv is moved before the tiles. After a kill, the folder has
        no tiles.csv, or one that lists missing files, so that it cannot be read as a mixture.

        Args:
            hashes: SHA-256 of every file, by its name in the folder.
            manifest: text of tiles.csv.
            record: content of tiling.json without the SHA-256 of the files.

        Raises:
            DataError: a file appeared meanwhile that is the user's, or a file cannot be replaced.
        """
        hashes = {**hashes, MANIFEST: file_hash(write_text(self.work / MANIFEST, manifest))}
        self._append([{"sha256": hashes}])
        if found := self._clashes(hashes, hashes):
            raise DataError(refusal(self.folder, found, "out"))
        self._move(hashes)
        write_text(self.folder / RECORD, sealed_json({**record, "identity": self._identity, "sha256": hashes}))
        self.discard()

    def _move(self, hashes: Record) -> None:
        known = sorted({name for record in self.records for name in record})
        old = [name for name in known if name not in hashes or (self.work / name).exists()]
        drafts = [name for name in (MANIFEST, *hashes) if (self.work / name).exists()]
        try:
            (self.folder / RECORD).unlink(missing_ok=True)
            for name in (MANIFEST, *old):
                if is_ours(self.folder / name, [record[name] for record in self.records if name in record]):
                    (self.folder / name).unlink()
            for name in (IMAGES, MASKS):
                (self.folder / name).mkdir(exist_ok=True)
            for name in drafts:
                if (self.work / name).exists():
                    (self.work / name).replace(self.folder / name)
        except OSError as error:
            raise DataError(
                f"{error.filename2 or error.filename}: cannot be replaced ({error.strerror}). The tiles are kept: "
                "repair the folder, and repeat the call."
            ) from error
        for name in (IMAGES, MASKS, ""):
            flush_folder(self.folder / name)

    def discard(self) -> None:
        """Delete the working folder, if it is ours."""
        if self.work.is_dir() and not self.work.is_symlink() and self._is_our_work:
            shutil.rmtree(self.work, ignore_errors=True)


def _cut_tile(line: Mapping[str, Any]) -> CutTile | None:
    try:
        return CutTile(*(line[name] for name in ("tile_id", "image", "mask", "landslide_px", "valid_px")))
    except KeyError:
        return None
