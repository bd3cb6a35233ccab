"""Report of a conversion, and its file `convert.json`, which tells files of a conversion from those of the user."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lim_keras.data.convert.sample import ConvertOptions, Format, LeftOut
from lim_keras.errors import DataError
from lim_keras.ownership import refusal, users_files
from lim_keras.seals import is_sealed, sealed_json

RECORD = "convert.json"


@dataclass(frozen=True)
class Tally:
    """Counts of the tiles of one kind or split; pixels are those of the masks."""

    tiles: int = 0
    landslide_px: int = 0
    ignored_px: int = 0
    px: int = 0

    def plus(self, other: Tally) -> Tally:
        """Add two counts."""
        return Tally(*(one + two for one, two in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[int, int, int, int]:
        return self.tiles, self.landslide_px, self.ignored_px, self.px


@dataclass(frozen=True)
class Conversion:
    """Result of `lim_keras.convert_tiles`.

    Attributes:
        source: the data set.
        out: folder with tiles.csv; None for a dry run.
        format: format of the data set.
        kinds: counts by kind of tile, "landslide" and "non-landslide".
        splits: counts by part of the data set, such as "train"; "" if it has none.
        bands, dtype: number of bands and NumPy name of the data type of the images.
        notes: counts of what was noticed, such as polygons.
        left_out: files and annotations that were not converted, with the reason.
        duplicates: images whose file is the same as that of another; they share a group.
    """

    source: Path
    out: Path | None
    format: Format
    kinds: Mapping[str, Tally]
    splits: Mapping[str, Tally]
    bands: int
    dtype: str
    notes: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    duplicates: int = 0

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return sum(tally.tiles for tally in self.kinds.values())

    def reasons(self) -> dict[str, list[LeftOut]]:
        """Group what was left out by its reason."""
        found: dict[str, list[LeftOut]] = {}
        for one in self.left_out:
            found.setdefault(one.reason, []).append(one)
        return found

    def to_dict(self, options: ConvertOptions, files: Mapping[str, str]) -> dict[str, Any]:
        """Return all values for JSON; `files` are the SHA-256 of the files by name."""
        values = asdict(self) | {"source": str(self.source), "settings": asdict(options), "files": dict(files)}
        values["left_out"] = {
            reason: [f"{one.name} ({one.detail})" if one.detail else one.name for one in some]
            for reason, some in self.reasons().items()
        }
        del values["out"]
        return _encodable(values)


def _encodable(values: dict[str, Any]) -> dict[str, Any]:
    """Replace parts of file names that are no valid Unicode."""
    text = json.dumps(values).encode("utf-8", "backslashreplace")
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def record_text(conversion: Conversion, options: ConvertOptions, files: Mapping[str, str]) -> str:
    """Return the text of convert.json."""
    return sealed_json(conversion.to_dict(options, files))


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that holds more than an unchanged earlier conversion. Call this before any work.

    Raises:
        DataError: files of the user are there; the error names the first ones.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.is_dir():
        if folder.exists():
            raise DataError(
                f"{folder}: expected a folder, or nothing yet. Received: a file. Give another folder as `out`."
            )
        return
    there = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (not path.is_dir() or path.is_symlink()) and path.name != ".lim-keras.lock"
    ]
    record = folder / RECORD
    written: dict[str, str] = {}
    if is_sealed(record):
        written = json.loads(record.read_text(encoding="utf-8")).get("files", {})
        there.remove(RECORD)
    found = users_files(folder, sorted(there), written)
    if found:
        first = dict(list(found.items())[:5])
        more = f" ({len(found) - 5} more)" if len(found) > 5 else ""
        raise DataError(refusal(folder, first, "out") + more)


def total(tallies: Mapping[str, Tally]) -> Tally:
    """Return the sum of counts."""
    result = Tally()
    for one in tallies.values():
        result = result.plus(one)
    return result


def count(rows: Sequence[tuple[str, Tally]]) -> dict[str, Tally]:
    """Add up counts by name."""
    found: dict[str, Tally] = {}
    for name, tally in rows:
        found[name] = found.get(name, Tally()).plus(tally)
    return found


def merged(*notes: Mapping[str, int]) -> dict[str, int]:
    """Add up counts of what was noticed."""
    result = Counter[str]()
    for one in notes:
        result.update(one)
    return dict(+result)
