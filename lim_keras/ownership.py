"""Tell files that an earlier call wrote from files of the user, by their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from lim_keras.errors import DataError, as_argument

Record = Mapping[str, str]
"""SHA-256 of each file that an earlier call wrote, by its name (a POSIX path relative to the folder)."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ours(path: Path, hashes: Iterable[str]) -> bool:
    """Return whether a path is a regular file, no link, whose content has one of the SHA-256 values.

    Raises:
        OSError: the file cannot be read.
    """
    known = set(hashes)
    return bool(known) and not path.is_symlink() and path.is_file() and file_hash(path) in known


def users_files(folder: Path, names: Iterable[str], *records: Record) -> dict[Path, str]:
    """Find what lies at some names of a folder and is the user's.

    A file is ours if a record lists its name with the SHA-256 of its content. Anything else is the user's: files that
    no record lists, files that changed since they were written, links, folders and files that cannot be read.

    Args:
        names: names that will be written or deleted, relative to `folder`.
        records: what earlier calls wrote there.

    Returns:
        The reason of each path that is the user's, in the order of `names`.
    """
    found: dict[Path, str] = {}
    for name in dict.fromkeys(names):
        path = folder / name
        hashes = [record[name] for record in records if name in record]
        try:
            if not path.is_symlink() and not path.exists():
                continue
            if not is_ours(path, hashes):
                found[path] = _reason(path, bool(hashes))
        except OSError as error:
            found[path] = f"cannot be read: {error.strerror or error}"
    return found


def check_replaceable_files(folder: Path, names: Iterable[str], *records: Record, argument: str = "") -> None:
    """Refuse to replace files of the user. Call this before any work.

    Args:
        names: names that will be written or deleted, relative to `folder`; `records` as for `users_files`.
        argument: argument that gives the folder, for the error.

    Raises:
        DataError: files of the user are there; the error names all of them.
    """
    found = users_files(folder, names, *records)
    if found:
        raise DataError(refusal(folder, found, argument))


def refusal(folder: Path, found: Mapping[Path, str], argument: str = "") -> str:
    """Return the message about the user's files that would be replaced, from `users_files`."""
    listed = ", ".join(f"{path.name if path.parent == folder else path} ({why})" for path, why in found.items())
    return (
        f"{folder}: the results would replace files that are not unchanged results of an earlier call, or that this "
        f"call reads: {listed}. Nothing was replaced. Move or rename them, or give another "
        f"folder{as_argument(argument)}."
    )


FOREIGN = "not written by lim-keras"
"""Reason of a file that no record lists."""


def _reason(path: Path, known: bool) -> str:
    if path.is_symlink():
        return "a link"
    if path.is_dir():
        return "a folder"
    return "changed since it was written" if known else FOREIGN
