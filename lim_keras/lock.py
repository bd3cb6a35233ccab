"""Locks of output folders, between processes and between threads."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from lim_keras.errors import DataError, LimKerasWarning, as_argument

_POLL_S = 0.2  # seconds between two attempts of a waiting call

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_START = b'{"process": '  # first bytes of a lock file, unless it is empty
_NO_FILES = {errno.ELOOP: "a link", errno.EMLINK: "a link", errno.EISDIR: "a folder"}  # BSD: EMLINK for links


class _ForeignError(Exception):
    """A file, link or folder of the user lies at the path of a lock."""


@dataclass(frozen=True)
class Holder:
    """Call that holds a lock. `since` is the local time at which it took the lock."""

    process: int
    host: str
    command: str
    since: str

    @classmethod
    def this_call(cls) -> Self:
        """Describe the running call. Only its first argument is kept, because others may hold passwords in URLs."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
        return cls(os.getpid(), socket.gethostname(), command, datetime.now().isoformat(" ", "seconds"))

    def __str__(self) -> str:
        here = self.host == socket.gethostname()
        place = ", another thread of this process" if here and self.process == os.getpid() else f" on {self.host}"
        return f"process {self.process}{place} ({self.command}), since {self.since}"


@contextmanager
def folder_lock(folder: Path, *, entry: str = "", wait: bool = False, argument: str = "") -> Iterator[None]:
    """Hold the lock of a folder while the block runs, so that no other call writes into it.

    The system frees the lock when its process ends in any way, so no lock outlives its holder. The lock is a hidden
    file in the folder, deleted at the end of the block. On file systems without locks, the lock lies in the folder for
    temporary files and keeps only calls on this computer apart; a warning says so.

    Args:
        folder: an existing folder.
        entry: name of a file or folder in `folder`; the lock is for it alone. Empty: the whole folder.
        wait: wait for the end of another call instead of raising an error.
        argument: argument that gives the folder, for the error.

    Raises:
        DataError: another call holds the lock, the folder cannot be written, or something of the user's has the name of
            the lock.
    """
    shown = folder / entry
    path = folder / (f".{entry}.lim-keras.lock" if entry else ".lim-keras.lock")
    file = _taken(path, shown, argument)
    if file is None and wait:
        warnings.warn(f"{shown}: waiting for the end of {_holder(path)}.", LimKerasWarning, stacklevel=3)
    while file is None:
        if not wait:
            raise DataError(
                f"{shown}: in use by {_holder(path)}. Wait for its end, give `wait`, or give another "
                f"folder{as_argument(argument)}."
            )
        time.sleep(_POLL_S)
        file = _taken(path, shown, argument)
    try:
        yield
    finally:
        file.release()


class _LockFile:
    """Open lock file. Deleting it is safe, because `open_locked` accepts only files that still have their name."""

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file
        record = json.dumps(asdict(Holder.this_call()))
        with suppress(OSError), os.fdopen(file, "w", encoding="utf-8", closefd=False) as stream:
            os.ftruncate(file, 0)
            stream.write(record)  # on a full disk the holder has no name

    @classmethod
    def open_locked(cls, path: Path) -> Self | None:
        """Open and lock a file; None if another call holds it.

        Raises:
            OSError: the file cannot be made, or the file system has no locks.
            _ForeignError: a file of the user's lies there.
        """
        while True:
            file = _open(path)
            try:
                _check_lock_file(file)
                if not _lock(file):
                    os.close(file)
                    return None
                if _is_at(file, path):
                    return cls(path, file)
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the last holder deleted this file after it was opened here

    def release(self) -> None:
        """Delete the file, then free the lock, also for processes that were forked meanwhile."""
        with suppress(OSError):
            if _is_at(self._file, self._path):
                self._path.unlink()
        with suppress(OSError):
            _unlock(self._file)
        os.close(self._file)


def _taken(path: Path, shown: Path, argument: str) -> _LockFile | None:
    """Lock the file, or one for temporary files where the file system has no locks; None if another call holds it."""
    try:
        try:
            return _LockFile.open_locked(path)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            with suppress(OSError):
                path.unlink()
            warnings.warn(
                f"{shown}: its file system has no locks, so calls on other computers are not noticed. Start only one "
                "call at a time on this folder.",
                LimKerasWarning,
                stacklevel=4,
            )
            return _LockFile.open_locked(_local(path))
    except _ForeignError as error:
        raise DataError(
            f"{path}: cannot be locked, because it is {error}, not a lock file of lim-keras. Remove or rename it, or "
            f"give another folder{as_argument(argument)}."
        ) from error
    except OSError as error:
        raise DataError(
            f"{shown}: cannot be locked for writing ({error.strerror or error}). Repair the folder, free disk space, "
            f"or give another folder{as_argument(argument)}."
        ) from error


def _local(path: Path) -> Path:
    """Return the path of a lock among the temporary files of this computer."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lim-keras-{name}.lock"


def _holder(path: Path) -> str:
    for one in (path, _local(path)):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            return str(Holder(**json.loads(one.read_text(encoding="utf-8"))))
    return "another call"


def _open(path: Path) -> int:
    flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError as error:
        try:
            return os.open(path, os.O_RDONLY | flags)  # a killed call of another user left the file
        except FileNotFoundError:
            raise error from None
    except OSError as error:
        if error.errno in _NO_FILES and os.path.lexists(path):
            raise _ForeignError(_NO_FILES[error.errno]) from error
        raise


def _check_lock_file(file: int) -> None:
    """Raise _ForeignError if an open file is neither empty nor begins like a lock file."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise _ForeignError("no regular file")
    start = os.read(file, len(_START))
    os.lseek(file, 0, os.SEEK_SET)
    if not _START.startswith(start):
        raise _ForeignError("a file of other content")


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    _BYTE = 2**30  # beyond the record, because Windows forbids others to read a locked byte

    def _lock(file: int) -> bool:
        return _move(file, msvcrt.LK_NBLCK)

    def _unlock(file: int) -> None:
        _move(file, msvcrt.LK_UNLCK)

    def _move(file: int, mode: int) -> bool:
        os.lseek(file, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, mode, 1)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
