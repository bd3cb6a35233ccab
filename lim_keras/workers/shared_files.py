"""Check that a machine sees the same files as another."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_START = ".lim-keras-probe-"
_WAIT_S = 3.0  # network file systems may show a new file late


@dataclass(frozen=True)
class SharedFiles:
    """Files that a machine must see.

    Attributes:
        probes: files in shared folders, and their content.
        files: other files, and their size in bytes.
    """

    probes: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, int], ...]


@contextmanager
def shared_files(folders: Sequence[Path], files: Sequence[Path]) -> Iterator[SharedFiles]:
    """Write a small file into each folder while the block runs, by which machines recognise the folder."""
    probes: list[tuple[str, str]] = []
    try:
        for folder in folders:
            path = folder.absolute() / f"{_START}{secrets.token_hex(8)}"
            probes.append((str(path), secrets.token_hex(16)))
            path.write_text(probes[-1][1], encoding="utf-8")
        yield SharedFiles(tuple(probes), tuple((str(file.absolute()), file.stat().st_size) for file in files))
    finally:
        for name, _ in probes:
            with suppress(OSError):
                Path(name).unlink()


def unseen(expected: SharedFiles) -> str:
    """Return what this machine does not see, or cannot write, as a phrase; "" if it sees everything."""
    for name, content in expected.probes:
        if _read(Path(name)) != content:
            return f"does not see the folder {Path(name).parent}"
        if reason := _unwritable(Path(name)):
            return f"cannot write into the folder {Path(name).parent} ({reason})"
    for name, size in expected.files:
        if _size(Path(name)) != size:
            return f"does not see the file {name}"
    return ""


def _read(path: Path) -> str | None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return path.read_text(encoding="utf-8")
        except OSError:
            if time.monotonic() > deadline:
                return None
        time.sleep(0.2)


def _unwritable(probe: Path) -> str:
    """Return why a file cannot be made beside the probe; "" if it can."""
    path = probe.with_name(f"{probe.name}.{secrets.token_hex(8)}")
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
