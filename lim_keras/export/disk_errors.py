"""Conversion of errors about full disks and unreadable tiles that TensorFlow and HDF5 raise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from lim_keras.errors import DataError

_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Input/output error|Permission denied"
    r"|File too large|Too many open files"
)

_OF_TILES = re.compile(r"\b(?:Data|Leak|Training)Error: (.+)")
"""An error of this package that TensorFlow reports from one of its threads, with a traceback behind it."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise a DataError of one line where the block fails because files cannot be written or tiles cannot be read.

    Args:
        path: file or folder that the block writes, for the error.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        text = str(error)
        tiles = _OF_TILES.search(text)
        if tiles:
            raise DataError(tiles[1]) from error
        known = _DISK.search(text)
        if known is None and not isinstance(error, OSError):
            raise
        reason = known[0] if known else getattr(error, "strerror", None) or " ".join(text.split())
        raise DataError(
            f"{path}: cannot be written ({reason}). Free disk space, or repair the folder, and repeat the command."
        ) from error
