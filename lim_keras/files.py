"""Write files and folders atomically."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lim_keras.errors import BundleError, DataError


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder that an option names, and those above it.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Give another folder with {option}.") from error


def prepare_file(path: Path, option: str) -> None:
    """Make the folders above a file that an option names, and see that it can be written: before the work, not after.

    Raises:
        DataError: it cannot be written.
    """
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Give another file with {option}.") from error


def write_text(path: Path, text: str) -> Path:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one. Returns `path`.

    Raises:
        DataError: the file cannot be written.
    """
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        return partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Make room, mend the folder or choose another one."
        ) from error


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to replace a folder that holds something else.

    Args:
        path: where a folder will be written. marker: a file that is in each folder of its kind.

    Raises:
        BundleError: the folder is there, is not empty, and has no such file.
    """
    if path.is_dir() and not (path / marker).exists() and any(path.iterdir()):
        raise BundleError(
            f"{path}: expected a folder with {marker}, an empty one or none, as it is replaced as a whole. Received: a "
            "folder of other files, which would be lost. Give another folder."
        )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to write into; it becomes `path` by renaming when the block ends well.

    A folder that is already at `path` stays readable until then and is replaced as a whole; after an error, or when the
    process is killed, it is still there. What a killed process left unfinished is cleared away by the next write. Of a
    link to a folder, the folder is replaced.

    Raises:
        BundleError: a file is in the way, `path` ends in no name, or the folder beside it cannot be made.
    """
    if path.name in ("", ".."):
        raise BundleError(f"{path}: expected a folder's name at the end, as the folder is replaced as a whole.")
    path = Path(os.path.realpath(path))
    partial, previous = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.previous")
    try:
        if path.exists() and not path.is_dir():
            raise BundleError(f"{path}: expected a folder, or nothing yet. Received: a file. Give another folder.")
        if previous.exists() and not path.exists():  # killed between the two renames below
            previous.rename(path)
        for left_over in (partial, previous):
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise BundleError(f"{path}: cannot be made ({error}). Give another folder.") from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rename(previous)
    partial.rename(path)
    shutil.rmtree(previous, ignore_errors=True)
