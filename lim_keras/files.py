"""Files that are never half there."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from lim_keras.errors import DataError


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
