"""Result files of a scene: names, what earlier calls wrote, and their replacement."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lim_keras.errors import DataError
from lim_keras.files import check_plain, flush_folder, write_text
from lim_keras.inference.maps import STATE
from lim_keras.inference.scene_plan import PARTS, PLAN
from lim_keras.ownership import FOREIGN, Record, is_ours, refusal, users_files
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.seals import has_seal, is_sealed

if TYPE_CHECKING:
    from lim_keras.inventory.options import PredictOptions

_BEFORE = ("probability.tif", "landslides.tif")
_AFTER = ("inventory.qml",)
_DOCUMENTS = ("stac.json", "summary.json")
_RECORD = "written.json"
_RESULTS = ("probability.", "landslides.", "familiarity.", "inventory.", "preview.", "stac.", "summary.")
_MAPS = ("maps.vrt", "probability.", "votes.", "spread.")

_OLD = "of an earlier version, which records no hashes"
_UNLISTED = "listed by no summary"
_OLD_KEYS = ({"scene", "bundle", "settings", "files", "identity"}, {"scenes", "failed", "predicted"})
"""Keys of a scene's summary and of `summary.json`, by which those of version 0.2.0 are known."""

# File systems allow names of 255 bytes, of which endings and drafts take up to 35; SQLite allows paths of 512.
_NAME_BYTES, _PATH_BYTES = 220, 512
_ODD = re.compile(r"[;!\x00-\x1f\x7f]")  # pyogrio reads ; and ! as parts of a URL
_DRAFT_BYTES = 32  # length of what `atomic_file` adds to the name of a draft


def result_endings(options: PredictOptions, *, preview: bool) -> tuple[str, ...]:
    """Return the endings of a scene's files, in order: `<scene>_<ending>`."""
    inventories = (f"inventory.{kind}" for kind in dict.fromkeys(("gpkg", *options.formats)))
    familiarity = ("familiarity.tif",) if options.familiarity else ()
    return (*_BEFORE, *familiarity, *inventories, *_AFTER, *(("preview.png",) if preview else ()), *_DOCUMENTS)


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing or holds something else."""
    try:
        check_plain(path)
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (DataError, OSError, ValueError, RecursionError):
        return {}
    return dict(content) if isinstance(content, dict) else {}


def read_summary(path: Path) -> dict[str, Any]:
    """Read a `<scene>_summary.json`; empty where it is missing or holds something else."""
    content = read_document(path)
    files = content.get("files")
    return content if isinstance(files, list) and all(isinstance(name, str) for name in files) else {}


def users_document(path: Path) -> str:
    """Return why a summary is the user's and must not be replaced; "" if it is ours, or missing."""
    if not path.is_symlink() and not path.exists():
        return ""
    if path.is_symlink() or not path.is_file():
        return "a link" if path.is_symlink() else "a folder"
    if is_sealed(path):
        return ""
    if path.stat().st_size == 0:
        return "empty"
    content = read_document(path)
    if has_seal(content):
        return "changed since it was written"
    return _OLD if is_of_old_version(content) else FOREIGN


def is_of_old_version(summary: Mapping[str, Any]) -> bool:
    """Tell whether a summary is one of a version that recorded no hashes."""
    return "sha256" not in summary and not has_seal(summary) and any(summary.keys() >= keys for keys in _OLD_KEYS)


def is_case_insensitive(folder: Path) -> bool:
    """Return whether names that differ only in case are the same name in a folder."""
    try:
        with tempfile.TemporaryDirectory(prefix=".lim-keras-", dir=folder) as probe:
            return Path(probe).with_name(Path(probe).name.swapcase()).exists()
    except OSError:  # such as a full disk; the next write raises the error
        return False


def files_read(*sources: object) -> dict[tuple[int, int], Path]:
    """Return the local files among sources of rasters, by device and inode."""
    paths = [Path(one) for one in sources if isinstance(one, str | os.PathLike) and not is_remote(one)]
    return {(status.st_dev, status.st_ino): path for path in paths if path.exists() and (status := path.stat())}


class ResultFiles:
    """Result files of a scene in an output folder.

    A file is ours if the scene's summary, or the record that an interrupted replacement left, lists it with the SHA-256
    of its content. All others are the user's, and are neither replaced nor deleted.

    Attributes:
        folder: the output folder.
        work: hidden folder in it for maps and drafts until all files are complete.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        self.work = folder / f".{stem}.lim-keras.partial"

    def name(self, ending: str) -> str:
        """Return the name of a result."""
        return f"{self.stem}_{ending}"

    def path(self, ending: str) -> Path:
        """Return the final path of a result."""
        return self.folder / self.name(ending)

    def draft(self, ending: str) -> Path:
        """Return the path of a result before it is complete."""
        return self.work / self.name(ending)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of the scene's summary; empty where there is none."""
        return read_summary(self.path("summary.json"))

    def are_maps_lost(self, *, complete: bool) -> bool:
        """Return whether the working folder was removed, or lost its raw maps and has no plan of parts.

        `complete`: all maps were there, so that an empty folder has lost them.
        """
        if not self.work.is_dir():
            return True
        inside = {one.name for one in self.work.iterdir()} - {_RECORD}
        return (complete or bool(inside)) and PLAN not in inside and not inside >= {STATE, "probability.raw"}

    @cached_property
    def edited(self) -> dict[Path, str]:
        """Files of the scene's summary that changed since they were written, and why they are not ours."""
        return self._users([*self.summary.get("files", ()), self.name("summary.json")])

    def any_there(self, endings: Iterable[str]) -> bool:
        """Return whether a path of a result or of the working folder exists."""
        return any(os.path.lexists(path) for path in (self.work, *map(self.path, endings)))

    def clashes(self, names: Sequence[str], inputs: Mapping[tuple[int, int], Path]) -> dict[Path, str]:
        """Find paths that results of these names must not replace.

        Args:
            inputs: files that the call reads, by device and inode.

        Returns:
            The reason of each path.
        """
        found = self._users(names) | self._users_work()
        for path in (self.folder / name for name in names):
            if path.is_file() and (status := path.stat()) and (status.st_dev, status.st_ino) in inputs:
                found[path] = "read by this call"
        return found

    def _users(self, names: Sequence[str]) -> dict[Path, str]:
        summary = self.path("summary.json")
        found = users_files(self.folder, (name for name in names if name != summary.name), *self._records)
        found = {path: self._unknown(path) if why == FOREIGN else why for path, why in found.items()}
        if summary.name in names and (why := users_document(summary)):
            found[summary] = why
        return found

    def _unknown(self, path: Path) -> str:
        """Return why a file without a recorded hash is the user's."""
        if self.summary:
            return _OLD if is_of_old_version(self.summary) and path.name in self.summary["files"] else FOREIGN
        return _UNLISTED

    def _users_work(self) -> dict[Path, str]:
        """Return the working folder and why if it is the user's; ours has a state or plan, or only maps and drafts."""
        if not self.work.is_symlink() and not self.work.exists():
            return {}
        if self.work.is_symlink() or not self.work.is_dir():
            return {self.work: FOREIGN}
        inside = [one.name for one in self.work.iterdir()]
        ours = {STATE, PLAN, _RECORD}.intersection(inside) or all(map(self._is_of_work, inside))
        return {} if ours else {self.work: FOREIGN}

    def _is_of_work(self, name: str) -> bool:
        """Tell whether a file of the working folder is a map or a draft; a deletion during a call may leave them."""
        result = name.startswith(self.name("")) and name.removeprefix(self.name("")).startswith(_RESULTS)
        draft = name[:1] == "." and (".partial" in name or name.endswith(".lim-keras.lock"))
        return result or draft or name == PARTS or name.startswith((".state.", *_MAPS))

    @cached_property
    def _records(self) -> list[Record]:
        left: Any = read_document(self.work / _RECORD).get("records", [])
        records = [self.summary.get("sha256"), *(left if isinstance(left, list) else [])]
        return [record for record in records if isinstance(record, dict)]

    def put_in_place(self, drafts: Sequence[Path], hashes: Record) -> tuple[Path, ...]:
        """Replace the files of an earlier call by drafts, of which the last, the summary, marks the scene as finished.

        A record of what may lie in the folder is kept until the end, so that a call after a kill knows its own files.

        Args:
            hashes: SHA-256 of the drafts before the summary.

        Raises:
            DataError: a file appeared meanwhile that is the user's, or a file cannot be replaced.
        """
        names = [draft.name for draft in drafts]
        write_text(self.work / _RECORD, json.dumps({"records": [*self._records, hashes]}))
        if found := self._users(names):
            raise DataError(refusal(self.folder, found, "out"))
        try:
            for path in (*self._stale(names), self.path("summary.json")):
                path.unlink(missing_ok=True)
            files = tuple(draft.replace(self.folder / draft.name) for draft in drafts)
        except OSError as error:
            raise DataError(
                f"{error.filename2 or error.filename}: cannot be replaced ({error.strerror}). The prediction "
                "is kept: remove that file or repair the folder, and repeat the call."
            ) from error
        flush_folder(self.folder)
        self.remove_work()
        return files

    def _stale(self, names: Sequence[str]) -> list[Path]:
        """Return unchanged files of earlier calls that this call does not write."""
        prefix, known = self.name(""), {name for record in self._records for name in record}.difference(names)
        inside = [name for name in sorted(known) if name.startswith(prefix) and name == Path(name).name]
        hashes = {name: [record[name] for record in self._records if name in record] for name in inside}
        return [self.folder / name for name in inside if is_ours(self.folder / name, hashes[name])]

    def discard_work(self) -> None:
        """Delete maps and drafts, but keep the record of what lies in the output folder."""
        if self._users_work() or not self.work.is_dir():
            return
        for path in self.work.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _RECORD:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.work.rmdir()  # fails where there is a record

    def remove_empty_work(self) -> None:
        """Delete the working folder if it holds no file."""
        for folder in (self.work / PARTS, self.work):
            with suppress(OSError):
                folder.rmdir()

    def remove_work(self) -> None:
        """Delete the working folder, if it is ours."""
        if not self._users_work():
            shutil.rmtree(self.work, ignore_errors=True)


def check_names(reader: RasterReader, files: ResultFiles) -> None:
    """Refuse a scene whose name or folder gives paths that result files cannot have."""
    scene = reader.name
    if odd := _ODD.search(str(files.draft("inventory.gpkg"))):
        raise DataError(
            f"{scene!r}: expected a name and a folder without `;`, `!` and control characters, which GeoPackages "
            f"do not allow in their paths. Received: {odd[0]!r}. Rename the scene, or give another folder."
        )
    if (length := len(os.fsencode(reader.stem))) > _NAME_BYTES:
        raise DataError(
            f"{scene}: expected a name of at most {_NAME_BYTES} bytes without its suffix, because files are named "
            f"after it. Received: {length} bytes. Rename it."
        )
    longest = os.path.realpath(files.draft("inventory.gpkg-journal"))
    if (length := len(os.fsencode(longest)) + _DRAFT_BYTES) > _PATH_BYTES:
        raise DataError(
            f"{scene}: its results have paths of {length} bytes. Expected at most {_PATH_BYTES} bytes, the limit "
            "of GeoPackages. Rename the scene, or give a folder with a shorter path."
        )
