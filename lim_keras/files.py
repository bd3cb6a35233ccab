"""Atomic writes of files and folders."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lim_keras.errors import BundleError, DataError

StrPath = str | os.PathLike[str]
"""Type of path arguments of public functions."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a draft path beside `path`; the draft replaces `path` when the block ends without an error.

    The draft keeps the suffix, because GDAL and matplotlib choose the format by it. Its name is unique for each process
    and thread, and holds only the end of a long file name. A reader sees either the old file or the new file. After an
    error, the draft and its SQLite journal are deleted.

    Raises:
        DataError: the block or the replacement raised an OSError.
    """
    draft = path.with_name(f".{path.stem[-32:]}.{os.getpid()}.{threading.get_ident()}.partial{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Free disk space, or give another place."
        ) from error
    finally:
        for left in (draft, draft.with_name(f"{draft.name}-journal")):  # SQLite keeps a journal beside a GeoPackage
            with suppress(OSError):
                left.unlink()


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically and return `path`; errors as in `atomic_file`."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def make_folder(folder: Path, argument: str = "") -> None:
    """Make a folder and its parent folders. The error asks the user to change `argument`.

    Raises:
        DataError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). {_advice('folder', argument)}") from error


def prepare_file(path: Path, argument: str = "") -> None:
    """Make the parent folders of a file and check that it can be written. The error asks the user to change `argument`.

    Raises:
        DataError: the file cannot be written.
    """
    probe = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). {_advice('file', argument)}") from error


def _advice(kind: str, argument: str) -> str:
    return f"Give another {kind} as `{argument}`." if argument else f"Give another {kind}."


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to replace a folder of foreign files.

    Args:
        path: folder that will be written.
        marker: a file that every folder of its kind holds.

    Raises:
        BundleError: the folder holds files, but not the marker.
    """
    if path.is_dir() and not (path / marker).exists() and any(path.iterdir()):
        raise BundleError(
            f"{path}: expected a folder with {marker}, an empty one or none, because it is replaced as a whole. "
            "Received: a folder of other files, which would be lost. Give another folder."
        )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft folder beside `path`; it replaces `path` when the block ends without an error.

    An existing folder stays readable until the replacement, and is kept after an error or a kill. The next write
    deletes the draft of a killed process. If `path` is a link, its target is replaced.

    Raises:
        BundleError: `path` is a file or does not end in a name, or the draft folder cannot be made.
    """
    if path.name in ("", ".."):
        raise BundleError(f"{path}: expected a folder's name at the end, because the folder is replaced as a whole.")
    path = Path(os.path.realpath(path))
    draft, previous = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.previous")
    try:
        if path.exists() and not path.is_dir():
            raise BundleError(f"{path}: expected a folder, or nothing yet. Received: a file. Give another folder.")
        if previous.exists() and not path.exists():  # a process was killed between the two renames below
            previous.rename(path)
        for left_over in (draft, previous):
            shutil.rmtree(left_over, ignore_errors=True)
        draft.mkdir(parents=True)
    except OSError as error:
        raise BundleError(f"{path}: cannot be made ({error}). Give another folder.") from error
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if path.exists():
        path.rename(previous)
    draft.rename(path)
    shutil.rmtree(previous, ignore_errors=True)
