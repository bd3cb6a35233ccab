"""Results in object storage: they are made in a local staging folder, then uploaded, the summary last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lim_keras.errors import ConfigError, DataError
from lim_keras.files import make_folder, write_text
from lim_keras.inventory.result_files import read_document, read_summary, users_document
from lim_keras.inventory.scene_prediction import ScenePrediction
from lim_keras.object_storage import Address, explained, open_store, read_object
from lim_keras.ownership import FOREIGN, file_hash

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ADDRESS = "address.txt"
"""File of a staging folder that holds the address of the results."""

_RECORD, _FETCHED, _SUMMARY, _STAC = "uploaded.json", "fetched", "summary.json", "stac.json"
_WHOLE_BYTES = 64 * 2**20  # larger files are uploaded in parts
_PART_BYTES, _AT_A_TIME = 16 * 2**20, 4


def is_staging(folder: Path) -> bool:
    """Return whether a folder is the staging folder of results in object storage."""
    return (folder / ADDRESS).is_file()


@dataclass(frozen=True)
class RemoteFolder:
    """Folder of results in object storage.

    Objects of others are never replaced: each object is created on condition that there is none of its name.

    Attributes:
        address: where the results will lie.
        staging: local folder where they are made; the same for every call with this address.
    """

    address: Address
    staging: Path

    @classmethod
    def at(cls, address: Address, work: Path | None) -> RemoteFolder:
        """Return the folder of an address; `work`: parent of the staging folder, None: the user's cache folder."""
        name = hashlib.sha256(str(address).encode()).hexdigest()[:16]
        return cls(address, (_cache_folder() if work is None else work) / f"lim-keras-{name}")

    def begin(self) -> None:
        """Mark the staging folder as one, and list the objects that are there.

        Raises:
            ConfigError: obstore is not installed.
            DataError: the storage cannot be reached, access is denied, or the staging folder belongs to others.
        """
        _ = self._objects
        mark = self.staging / ADDRESS
        text = mark.read_text(encoding="utf-8") if mark.is_file() else ""
        others = [one for one in self.staging.iterdir() if not one.name.startswith(".")]  # others are locks and drafts
        if text != str(self.address):
            if others:
                raise DataError(f"{self.staging}: holds other files. Move them away, or give another folder as `work`.")
            write_text(mark, str(self.address))

    def end(self) -> None:
        """Delete the staging folder, unless it holds work for a later call."""
        known = {ADDRESS, _RECORD, _FETCHED, _SUMMARY}
        if is_staging(self.staging):
            left = {one.name for one in self.staging.iterdir()} - known
            if all(name.startswith(".") and name.endswith(".lock") for name in left):
                shutil.rmtree(self.staging, ignore_errors=True)

    @cached_property
    def _store(self) -> ObjectStore:
        return open_store(self.address)

    @cached_property
    def _objects(self) -> dict[str, str | None]:
        """ETags of the objects in the folder, by name; uploads add theirs."""
        store, prefix = self._store, self.address.key
        import obstore

        with explained(self.address):
            found = obstore.list_with_delimiter(store, prefix or None)["objects"]
        return {one["path"].rpartition("/")[2]: one["e_tag"] for one in found}

    def summary(self, name: str) -> dict[str, Any]:
        """Read the summary of a scene, an object of this name; empty if there is none, or it is not ours."""
        path = self._fetched(name)
        return {} if path is None or users_document(path) else read_summary(path)

    def finished(self, name: str, identity: str, *, preview: str = "") -> dict[str, Any]:
        """Return the summary of a scene with this identity all of whose objects are there; else an empty one.

        Args:
            name: name of the summary.
            preview: name of a file that has to be among them; "": none.
        """
        summary = self.summary(name)
        names = summary.get("files", [])
        same = summary.get("identity") == identity and all(one in self._objects for one in names)
        return summary if same and (not preview or preview in names) else {}

    def clashes(self, names: Iterable[str]) -> dict[str, str]:
        """Find objects that results of these names would have to replace, and why they stay.

        Objects that an interrupted call uploaded, or that equal files in the staging folder, are no clashes.
        """
        found = {}
        for name in (one for one in names if one in self._objects and not self._is_uploaded(one)):
            local = self.staging / name
            if name.endswith(f"_{_SUMMARY}") and self.summary(name):
                found[name] = "results of other settings, or of a scene that changed since"
            elif not (local.is_file() and self._equals(name, file_hash(local))):
                found[name] = FOREIGN
        return found

    def kept_summary(self) -> str:
        """Return why `summary.json` is the user's and stays; "" if it may be replaced, or is missing."""
        path = self._fetched(_SUMMARY)
        return "" if path is None else users_document(path)

    def refusal(self, found: Mapping[str, str]) -> DataError:
        """Return the error about objects that would be replaced."""
        listed = ", ".join(f"{name} ({why})" for name, why in found.items())
        return DataError(
            f"{self.address}: the results would replace objects that are there: {listed}. Nothing was replaced. Delete "
            "or rename them, or give another address as `out`."
        )

    def upload(self, made: ScenePrediction) -> ScenePrediction:
        """Upload the files of a scene, the summary last, and delete them here.

        Raises:
            DataError: the storage cannot be reached, or an object of another origin appeared meanwhile. Files that were
                not uploaded are kept.
        """
        paths = [self.staging / name for name in _names(made.summary)]
        try:
            for path in paths:
                self._put(path)
        except DataError as error:
            raise DataError(
                f"{error} The finished files are kept in {self.staging}: repeat the command to continue."
            ) from error
        for path in paths:
            path.unlink(missing_ok=True)
        return replace(made, files=(), addresses=self.addresses(made.summary), was_there=False)

    def addresses(self, summary: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the addresses of the files of a scene, its summary last."""
        return tuple(str(self.address.joined(name)) for name in _names(summary))

    def upload_summary(self, path: Path) -> str:
        """Upload `summary.json`, in place of the one of an earlier call; return its address."""
        self._put(path, replaced=self._objects.get(_SUMMARY))
        return str(self.address.joined(_SUMMARY))

    def _put(self, path: Path, replaced: str | None = None) -> None:
        """Upload a file, unless an interrupted call did. `replaced`: ETag of the only object that it may replace."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        name, content = path.name, file_hash(path)
        record = self._record.get(name)
        if record is not None and self._objects.get(name) == record["e_tag"]:
            if record["sha256"] == content:
                return
            replaced = record["e_tag"]  # of an interrupted call with other options
        target = self.address.joined(name)
        try:
            with explained(target):
                e_tag = self._sent(path, target, replaced)
        except DataError as error:
            if not isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                raise
            if not self._equals(name, content):
                raise self.refusal({name: "it appeared meanwhile"}) from error
            e_tag = self._e_tag(name)
        self._objects[name] = e_tag
        self._record[name] = {"e_tag": e_tag, "sha256": content}
        write_text(self.staging / _RECORD, json.dumps(self._record))

    def _sent(self, path: Path, target: Address, replaced: str | None) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        if path.stat().st_size <= _WHOLE_BYTES:
            mode: Any = "create" if replaced is None else {"e_tag": replaced}
            return obstore.put(self._store, target.key, path, mode=mode)["e_tag"]
        if replaced is None:  # uploads in parts have no condition
            with suppress(FileNotFoundError):
                obstore.head(self._store, target.key)
                raise AlreadyExistsError(str(target))
        parts: Any = {"use_multipart": True, "chunk_size": _PART_BYTES, "max_concurrency": _AT_A_TIME}
        return obstore.put(self._store, target.key, path, **parts)["e_tag"]

    @cached_property
    def _record(self) -> dict[str, dict[str, Any]]:
        """ETag and SHA-256 of what calls with this staging folder uploaded, by name."""
        record = read_document(self.staging / _RECORD)
        return {
            name: one for name, one in record.items() if isinstance(one, dict) and one.keys() >= {"e_tag", "sha256"}
        }

    def _is_uploaded(self, name: str) -> bool:
        return name in self._record and self._objects.get(name) == self._record[name]["e_tag"]

    def _e_tag(self, name: str) -> str | None:
        import obstore

        target = self.address.joined(name)
        with explained(target):
            return obstore.head(self._store, target.key)["e_tag"]

    def _equals(self, name: str, content: str) -> bool:
        """Return whether an object has a SHA-256; it is read, but not kept."""
        import obstore

        digest, target = hashlib.sha256(), self.address.joined(name)
        with explained(target):
            for part in obstore.get(self._store, target.key).stream(min_chunk_size=_PART_BYTES):
                digest.update(part)
        return digest.hexdigest() == content

    def _fetched(self, name: str) -> Path | None:
        """Copy an object into the staging folder, where its seal can be read; None if there is none."""
        if name not in self._objects:
            return None
        path = self.staging / _FETCHED / name
        make_folder(path.parent, "work")
        path.write_bytes(read_object(self.address.joined(name)))
        return path


def _names(summary: Mapping[str, Any]) -> list[str]:
    """Return the names of the files of a scene, its summary last; the STAC item is the last one in a summary."""
    files = list(map(str, summary["files"]))
    return [*files, f"{files[-1].removesuffix(_STAC)}{_SUMMARY}"]


def _cache_folder() -> Path:
    """Return the folder of the user's caches, which outlives a restart, unlike those for temporary files."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "lim-keras"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigError(
            "The user has no home folder, so that results need a place. Give a folder as `work`."
        ) from error
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "lim-keras"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "lim-keras"
