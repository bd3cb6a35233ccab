"""Files of a data set to convert."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lim_keras.errors import DataError

IMAGE_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".pgm", ".ppm"}
)
_SKIPPED = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class SourceFiles:
    """Files below a folder.

    Attributes:
        root: the folder.
        names: paths relative to `root`, with slashes, in natural order.
    """

    root: Path
    names: tuple[str, ...]

    @classmethod
    def read(cls, root: Path, without: Path | None = None) -> SourceFiles:
        """List the files below a folder, hidden ones and those below `without` left out. Links are followed once.

        Raises:
            DataError: a folder cannot be read.
        """
        skipped = set() if without is None else {os.path.realpath(without)}
        names = [path.relative_to(root).as_posix() for path in _walk(root, skipped)]
        return cls(root, tuple(sorted(names, key=_natural)))

    def with_endings(self, endings: frozenset[str]) -> list[str]:
        """Return the names with one of the endings, in lower case, such as ".png"."""
        return [name for name in self.names if Path(name).suffix.lower() in endings]

    def images(self) -> list[str]:
        """Return the names of images and of masks that are images."""
        return self.with_endings(IMAGE_ENDINGS)

    def path(self, name: str) -> Path:
        """Return the path of a name."""
        return self.root / name

    def shown(self) -> str:
        """Show the first names, for errors."""
        listed = ", ".join(self.names[:6]) or "no files"
        return listed + (f", ... ({len(self.names):,} files)" if len(self.names) > 6 else "")


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    if os.path.realpath(folder) in seen:
        return
    seen.add(os.path.realpath(folder))
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        elif entry.is_file():
            yield entry


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Order `image_2` before `image_10`."""
    parts = _NUMBER.split(name)
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)], name
