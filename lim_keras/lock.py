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
import threading
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

_FURTHER = 2  # further attempts at a lock that others may hold for a moment

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_START = b'{"process": '  # first bytes of a lock file, unless it is empty
_NO_FILES = {errno.ELOOP: "a link", errno.EMLINK: "a link", errno.EISDIR: "a folder"}  # BSD: EMLINK for links


_PARTS = ".part-*.lim-keras.lock"
"""Names of the locks of calls that share the lock of a folder."""


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
def folder_lock(
    folder: Path, *, entry: str = "", wait: bool = False, argument: str = "", shared: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder while the block runs, so that no other call writes into it.

    The system frees the lock when its process ends in any way, so no lock outlives its holder. The lock is a hidden
    file in the folder, deleted at the end of the block. On file systems without locks, the lock lies in the folder for
    temporary files and keeps only calls on this computer apart; a warning says so.

    Args:
        folder: an existing folder.
        entry: name of a file or folder in `folder`; the lock is for it alone. Empty: the whole folder.
        wait: wait for the end of another call instead of raising an error.
        argument: argument that gives the folder, for the error.
        shared: other calls may hold the lock at the same time, if they share it, too. Each also holds the lock of an
            entry `part-...`, which names it to others.

    Raises:
        DataError: another call holds the lock, the folder cannot be written, or something of the user's has the name of
            the lock.
    """
    shown = folder / entry
    path = folder / (f".{entry}.lim-keras.lock" if entry else ".lim-keras.lock")
    file = _taken(path, shown, argument, shared)
    # A call that ends, or looks for holders, has it for a moment.
    for _ in range(_FURTHER if (shared or entry) and not wait else 0):
        if file is None:
            time.sleep(_POLL_S)
            file = _taken(path, shown, argument, shared)
    if file is None and wait:
        warnings.warn(f"{shown}: waiting for the end of {_holder(path)}.", LimKerasWarning, stacklevel=3)
    while file is None:
        if not wait:
            raise DataError(
                f"{shown}: in use by {_holder(path)}. Wait for its end, give `wait`, or give another "
                f"folder{as_argument(argument)}."
            )
        time.sleep(_POLL_S)
        file = _taken(path, shown, argument, shared)
    try:
        yield
    finally:
        file.release()


class _LockFile:
    """Open lock file. Deleting it is safe, because `open_locked` accepts only files that still have their name.

    A file that several calls share names none of them.
    """

    def __init__(self, path: Path, file: int, shared: bool) -> None:
        self._path, self._file, self._shared = path, file, shared
        record = "" if shared else json.dumps(asdict(Holder.this_call()))
        with suppress(OSError), os.fdopen(file, "w", encoding="utf-8", closefd=False) as stream:
            os.ftruncate(file, 0)
            stream.write(record)  # on a full disk the holder has no name

    @classmethod
    def open_locked(cls, path: Path, shared: bool = False) -> Self | None:
        """Open and lock a file; None if another call holds it.

        Raises:
            OSError: the file cannot be made, or the file system has no locks.
            _ForeignError: a file of the user's lies there.
        """
        while True:
            file = _open(path)
            try:
                _check_lock_file(file)
                if not _lock(file, shared):
                    os.close(file)
                    return None
                if _is_at(file, path):
                    return cls(path, file, shared)
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the last holder deleted this file after it was opened here

    def release(self) -> None:
        """Delete the file unless others share it, then free the lock, also for processes that were forked meanwhile."""
        with suppress(OSError):
            if (not self._shared or _lock_alone(self._file)) and _is_at(self._file, self._path):
                self._path.unlink()
        with suppress(OSError):
            _unlock(self._file, self._shared)
        os.close(self._file)


def _taken(path: Path, shown: Path, argument: str, shared: bool) -> _LockFile | None:
    """Lock the file, or one for temporary files where the file system has no locks; None if another call holds it."""
    try:
        try:
            return _LockFile.open_locked(path, shared)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            with suppress(OSError):
                path.unlink()
            advice = "Start each part once, and nothing else" if shared else "Start only one call at a time"
            warnings.warn(
                f"{shown}: its file system has no locks, so calls on other computers are not noticed. {advice} on this "
                "folder.",
                LimKerasWarning,
                stacklevel=4,
            )
            return _LockFile.open_locked(_local(path), shared)
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
    locks = sorted(path.parent.glob(_PARTS)) if path.name == ".lim-keras.lock" else []
    sharing = [found for other in locks if (found := _holder_of(other))]
    if not sharing:
        return "another call"
    return f"{len(sharing)} calls that make parts, such as {sharing[0]}" if sharing[1:] else sharing[0]


def _holder_of(path: Path) -> str:
    """Return the call that holds a lock now; "" if none does."""
    with suppress(OSError, ValueError, TypeError, RecursionError, _ForeignError):
        file = _LockFile.open_locked(path)
        if file is None:
            return str(Holder(**json.loads(path.read_text(encoding="utf-8"))))
        file.release()
    return ""


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
    _BYTES = 2**20  # a shared lock is a lock of one of them, another one is a lock of all of them

    def _lock(file: int, shared: bool) -> bool:
        return _move(file, msvcrt.LK_NBLCK, shared)

    def _unlock(file: int, shared: bool) -> None:
        _move(file, msvcrt.LK_UNLCK, shared)

    def _lock_alone(file: int) -> bool:
        return False  # Windows deletes no open file

    def _move(file: int, mode: int, shared: bool) -> bool:
        own = hash((socket.gethostname(), os.getpid(), threading.get_ident())) % _BYTES
        os.lseek(file, _BYTE + own if shared else _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, mode, 1 if shared else _BYTES)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(file: int, shared: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True

    def _unlock(file: int, shared: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)

    def _lock_alone(file: int) -> bool:
        """Turn a shared lock into one of this call alone; False if others share it, or take it meanwhile."""
        return _lock(file, shared=False)
