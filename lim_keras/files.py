"""Atomic writes of files and folders."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import socket
import stat
import tempfile
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lim_keras.errors import BundleError, DataError, as_argument
from lim_keras.lock import folder_lock

_DRAFT = re.compile(r"\..{0,32}\.(\d+)\.(\d+)\.partial(\.[^.]*){0,2}(-journal)?", re.DOTALL)
"""Names of the drafts of `atomic_file`; the first groups are the process and the thread."""

StrPath = str | os.PathLike[str]
"""Type of path arguments of public functions."""

DAMAGED_ARRAYS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    SyntaxError,
    NotImplementedError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that NumPy raises where it reads a damaged .npz file."""


@contextmanager
def atomic_file(path: Path, check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a draft path beside `path`; the draft replaces `path` when the block ends without an error.

    The draft keeps the suffix, because GDAL and matplotlib choose the format by it. Its name is unique for each process
    and thread, and holds only the end of a long file name. The draft is flushed to the disk and checked before it
    replaces `path`, so a reader sees either the old file or the whole new file. After an error, the draft and its
    SQLite journal are deleted.

    Args:
        check: reads the draft and raises an error if it is not whole.

    Raises:
        DataError: the block, the flush or the replacement raised an OSError, or the block wrote no file.
    """
    with _replacing(path, _unique(path, path.stem, f"partial{path.suffix}"), check) as draft:
        yield draft


@contextmanager
def shared_file(path: Path, check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a draft path as `atomic_file` does, in a folder that several machines write.

    The name of the draft holds the name of this machine, too. Drafts of killed processes of this machine are deleted
    first, as far as they are for the same `path`.
    """
    start = f".{path.stem}.{_host()}."
    for left in path.parent.glob(f"{glob.escape(start)}*.partial{glob.escape(path.suffix)}"):
        numbers = left.name.removeprefix(start).split(".")[:2]
        if all(number.isdecimal() for number in numbers) and not _is_running(int(numbers[0]), int(numbers[1])):
            with suppress(OSError):
                left.unlink()
    ending = f"{os.getpid()}.{threading.get_ident()}.partial{path.suffix}"
    with _replacing(path, path.with_name(f"{start}{ending}"), check) as draft:
        yield draft


def _host() -> str:
    """Return the name of this machine as a part of a file's name without dots."""
    return re.sub(r"\W", "-", socket.gethostname())[:64]


@contextmanager
def _replacing(path: Path, draft: Path, check: Callable[[Path], object] | None) -> Iterator[Path]:
    """Yield `draft`, and let it replace `path`, see `atomic_file`."""
    try:
        yield draft
        flush(draft)
        if check is not None:
            check(draft)
        draft.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Free disk space, or give another place."
        ) from error
    finally:
        for left in (draft, draft.with_name(f"{draft.name}-journal")):  # SQLite keeps a journal beside a GeoPackage
            with suppress(OSError):
                left.unlink()


def delete_drafts(folder: Path, stem: str | None = None) -> None:
    """Delete the drafts that killed calls of `atomic_file` left in a folder; those of running processes stay.

    Call it while you hold the lock of the folder, or of the file whose `stem` you give, the name without its ending.
    A file that cannot be deleted stays.
    """
    start = "." if stem is None else f".{stem[-32:]}."
    with suppress(OSError):
        for path in list(folder.iterdir()):
            draft = _DRAFT.fullmatch(path.name) if path.name.startswith(start) else None
            if draft and path.is_file() and not path.is_symlink() and not _is_running(int(draft[1]), int(draft[2])):
                with suppress(OSError):
                    path.unlink()


def _unique(path: Path, stem: str, ending: str) -> Path:
    """Return a hidden path beside `path` that no other process or thread uses."""
    return path.with_name(f".{stem[-32:]}.{os.getpid()}.{threading.get_ident()}.{ending}")


def _is_running(process: int, thread: int) -> bool:
    """Return whether a thread of this process, or another process, runs; True where the system cannot tell."""
    if process == os.getpid():  # in a container, a new process may have the number of the killed one
        return thread in {one.ident for one in threading.enumerate()}
    if os.name != "posix":  # on Windows, `os.kill` would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def flush(path: Path) -> None:
    """Write what the system still holds of a file to the disk.

    Raises:
        OSError: the disk is full or broken, or there is no file.
    """
    with path.open("rb" if os.name == "posix" else "rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk, where the system can."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, read it again, and return `path`; errors as in `atomic_file`."""
    content = text.encode()

    def check(draft: Path) -> None:
        if draft.read_bytes() != content:
            raise OSError(errno.EIO, "the file does not hold what was written")

    with atomic_file(path, check) as draft:
        draft.write_bytes(content)
    return path


def read_input(path: Path, limit: int) -> bytes:
    """Read a file of the user's of at most `limit` bytes. A pipe of the shell, `<(command)`, is read like a file.

    Raises:
        DataError: missing or unreadable, larger than `limit`, or a folder, device or pipe, which may never end.
    """
    check_plain(path)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}.") from error
    if len(content) > limit:
        raise DataError(f"{path}: expected a file of at most {limit / 2**20:.0f} MiB. Received: a larger one.")
    return content


def check_plain(path: Path) -> None:
    """Raise DataError for a folder, device or pipe; reading one may never end. Missing files and `<(command)` pass."""
    with suppress(OSError, ValueError):
        mode = path.stat().st_mode
        of_shell = stat.S_ISFIFO(mode) and path.is_relative_to("/dev")
        if not (stat.S_ISREG(mode) or of_shell):
            kind = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"
            raise DataError(f"{path}: expected a file. Received: a {kind}.")


def make_folder(folder: Path, argument: str = "") -> None:
    """Make a folder and its parent folders. The error asks the user to change `argument`.

    Raises:
        DataError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). {_advice('folder', argument)}") from error


@contextmanager
def locked_folder(folder: Path, *, wait: bool = False, argument: str = "", entry: str = "") -> Iterator[None]:
    """Make a folder, and hold its lock while the block runs. A new folder that is still empty at the end is deleted.

    Drafts that killed calls left in the folder are deleted first.

    Args:
        entry: name of a part of the work. The call shares the lock of the folder with calls for other parts, and holds
            the lock of this part alone. Empty: the whole work.
        wait: wait for the end of another call, see `lim_keras.lock.folder_lock`.
        argument: argument that gives the folder, for errors.

    Raises:
        DataError: the folder cannot be made or written, or another call holds its lock.
    """
    new = not folder.exists()
    make_folder(folder, argument)
    try:
        with folder_lock(folder, wait=wait, argument=argument, shared=entry != ""), ExitStack() as stack:
            if entry:
                stack.enter_context(folder_lock(folder, entry=entry, wait=wait))
            else:
                delete_drafts(folder)
            yield
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


def prepare_file(path: Path, argument: str = "") -> None:
    """Make the parent folders of a file and check that it can be written. The error asks the user to change `argument`.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        check_writable(path.parent)
    except OSError as error:
        inner = next((str(one) for one in path.parents if one.is_file()), "")
        reason = f"{inner} is a file, not a folder" if inner else error.strerror
        raise DataError(f"{path}: cannot be written ({reason}). {_advice('file', argument)}") from error


def check_writable(folder: Path) -> None:
    """Make a file without a name in a folder; raise OSError if the folder cannot be written."""
    with tempfile.TemporaryFile(dir=folder, prefix=".lim-keras.", suffix=".partial"):
        pass


def check_new_file(path: Path, argument: str) -> None:
    """Raise DataError if something lies at a path. The error asks the user to change `argument`."""
    if path.exists() or path.is_symlink():
        raise DataError(
            f"{path}: exists and would be replaced. Move it away, or give another file as `{argument}`. Nothing was "
            "written."
        )


def _advice(kind: str, argument: str) -> str:
    return f"Give another {kind}{as_argument(argument)}."


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft folder beside `path`; it replaces `path` when the block ends without an error.

    An existing folder stays readable until the replacement, and is kept after an error or a kill. All files are flushed
    to the disk before the replacement. The next write deletes the drafts of killed processes. If `path` is a link, its
    target is replaced.

    Raises:
        BundleError: `path` is a file or does not end in a name, or a folder or file cannot be made or flushed.
    """
    if path.name in ("", ".."):
        raise BundleError(f"{path}: expected a folder's name at the end, because the folder is replaced as a whole.")
    path = Path(os.path.realpath(path))
    with ExitStack() as stack:
        try:
            if path.exists() and not path.is_dir():
                raise BundleError(f"{path}: expected a folder, or nothing yet. Received: a file. Give another folder.")
            recover(path)
            draft = stack.enter_context(draft_folder(path))
        except OSError as error:
            raise BundleError(f"{path}: cannot be made ({error}). Give another folder.") from error
        yield draft
        _put_in_place(draft, path)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path`, and delete it at the end, with those that killed calls left."""
    for left in left_drafts(path):
        shutil.rmtree(left, ignore_errors=True)
    draft = _unique(path, path.name, "partial")
    shutil.rmtree(draft, ignore_errors=True)  # a killed process may have had the same numbers
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def left_drafts(path: Path, ending: str = "partial") -> list[Path]:
    """Return the folders that killed calls of `draft_folder` left beside a path."""
    name = re.compile(rf"\.{re.escape(path.name[-32:])}\.(\d+)\.(\d+)\.{ending}")
    if not path.parent.is_dir():
        return []
    found = ((one, name.fullmatch(one.name)) for one in sorted(path.parent.iterdir()))
    return [
        one
        for one, parts in found
        if parts and one.is_dir() and not one.is_symlink() and not _is_running(int(parts[1]), int(parts[2]))
    ]


def recover(path: Path) -> None:
    """Put back the folder that a killed call of `atomic_folder` moved aside; delete drafts of this file or folder.

    Call it while you hold the lock of `path`.
    """
    delete_drafts(path.parent, path.stem)
    with suppress(OSError):
        for previous in left_drafts(path, "previous"):
            if path.exists():
                shutil.rmtree(previous, ignore_errors=True)
            else:
                previous.rename(path)
        for draft in left_drafts(path):
            shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, path: Path) -> None:
    """Flush a draft folder to the disk and rename it to `path`; what is there is moved aside, and then deleted."""
    previous = _unique(path, path.name, "previous")
    try:
        for file in (one for one in draft.rglob("*") if one.is_file() and not one.is_symlink()):
            flush(file)
        if path.exists():
            path.rename(previous)
        draft.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        if previous.exists() and not path.exists():
            previous.rename(path)
        raise BundleError(
            f"{path}: cannot be written ({error.strerror or error}). Free disk space, or give another folder."
        ) from error
    shutil.rmtree(previous, ignore_errors=True)
