"""Tile manifest `tiles.csv`: read and write."""

import csv
import difflib
import math
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from lim_keras.data.tile import Ignore, Kind, Tile
from lim_keras.errors import DataError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile as claimed: fields are those of `Tile`, None where nothing is claimed."""

    tile_id: str
    image: Path
    mask: Path | None
    kind: Kind | None = None
    group: str = ""
    scene: str = ""
    x: float | None = None
    y: float | None = None
    width: int | None = None
    height: int | None = None
    gsd_m: float | None = None
    crs: str = ""
    landslide_px: int | None = None
    valid_px: int | None = None
    ignore: Ignore = ""


def raise_problems(where: Path, problems: Sequence[str]) -> None:
    """Raise one DataError that lists the first 20 problems, one a line, and counts the rest; none: do nothing."""
    if not problems:
        return
    lines = [f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''} with the tiles:", *problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more.")
    raise DataError("\n  ".join(lines))


COLUMNS = tuple(field.name for field in fields(Tile))

_REQUIRED = ("tile_id", "image")

_FOLD = "fold"

Row = Mapping[str, str]


def read_candidates(path: Path) -> tuple[list[Candidate], list[str]]:
    """Tiles as a manifest claims them, and what is wrong with its lines, as messages.

    Paths that are not absolute count from the manifest's folder. Columns of other names are passed over.

    Raises:
        DataError: not a readable table, a required column is missing, or a column's name is close to a known one.
    """
    rows = _read_rows(path)
    candidates, problems = [], []
    for line, row in rows:
        try:
            candidates.append(_candidate(row, path.parent))
        except ValueError as error:
            problems.append(f"{path}, line {line}: {error}")
    return candidates, problems


def read_folds(path: str | os.PathLike[str]) -> dict[str, int]:
    """The column `fold` of a manifest, by tile id: 0, 1, ... for folds, -1 for a test tile; empty cells are left out.

    Raises:
        DataError: not a readable manifest, it has no column `fold`, or a fold is not a whole number >= -1.
    """
    path = Path(path)
    rows = _read_rows(path)
    if rows and _FOLD not in rows[0][1]:
        raise DataError(f"{path}: expected a column `{_FOLD}`. Found {', '.join(rows[0][1])}.")
    folds, problems = {}, []
    for line, row in rows:
        try:
            fold = _whole(row[_FOLD], _FOLD, -1)
        except ValueError as error:
            problems.append(f"{path}, line {line}: {error}")
            continue
        if fold is not None:
            folds[row["tile_id"]] = fold
    raise_problems(path, problems)
    return folds


def write_rows(path: Path, tiles: Iterable[Tile], folds: Mapping[str, int] | None) -> None:
    """Write a manifest beside its place, then rename it. Files in its folder are named from there, others in full."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*COLUMNS, *([_FOLD] if folds is not None else [])], lineterminator="\n")
            writer.writeheader()
            writer.writerows(_as_row(tile, path.parent.absolute(), folds) for tile in tiles)
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}).") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _as_row(tile: Tile, folder: Path, folds: Mapping[str, int] | None) -> dict[str, Any]:
    row: dict[str, Any] = {name: "" if getattr(tile, name) is None else getattr(tile, name) for name in COLUMNS}
    row |= {name: _portable(row[name], folder) for name in ("image", "mask") if row[name]}
    return row if folds is None else row | {_FOLD: folds.get(tile.tile_id, "")}


def _portable(file: Path, folder: Path) -> str:
    file = file.absolute()
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and stripped cells of every line of a CSV file with a header; blank lines are passed over.

    Raises:
        DataError: not readable as text, or a line with more or fewer cells than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of comma-separated UTF-8 text ({error}).") from error
    if len(lines) < 2:
        raise DataError(f"{path}: expected a header line and one line for each tile. Found {len(lines)} line(s).")
    (_, header), *rest = lines
    raise_problems(
        path,
        [
            f"{path}, line {number}: expected {len(header)} cells. Received {len(cells)}."
            for number, cells in rest
            if len(cells) != len(header)
        ]
        + [f"{path}: two columns are named {name!r}." for name in sorted(set(header)) if header.count(name) > 1],
    )
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in rest]


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    rows = read_table(path)
    names = list(rows[0][1])
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise DataError(f"{path}: expected the columns {', '.join(missing)}. Found {', '.join(names)}.")
    for name in set(names) - {*COLUMNS, _FOLD}:
        close = difflib.get_close_matches(name.lower(), {*COLUMNS, _FOLD} - set(names), 1, 0.8)
        if close:
            raise DataError(f"{path}: unknown column {name!r}. Did you mean {close[0]!r}? Rename it.")
    return rows


def _candidate(row: Row, folder: Path) -> Candidate:
    cell = defaultdict(str, row)
    if not cell["image"]:
        raise ValueError("the cell `image` is empty.")
    return Candidate(
        tile_id=cell["tile_id"],
        image=folder / cell["image"],
        mask=folder / cell["mask"] if cell["mask"] else None,
        kind=_choice(cell["kind"], "kind", get_args(Kind)) or None,
        group=cell["group"],
        scene=cell["scene"],
        x=_number(cell["x"], "x"),
        y=_number(cell["y"], "y"),
        width=_whole(cell["width"], "width", 1),
        height=_whole(cell["height"], "height", 1),
        gsd_m=_positive(cell["gsd_m"], "gsd_m"),
        crs=cell["crs"],
        landslide_px=_whole(cell["landslide_px"], "landslide_px", 0),
        valid_px=_whole(cell["valid_px"], "valid_px", 0),
        ignore=_choice("255" if cell["ignore"] == "255.0" else cell["ignore"], "ignore", get_args(Ignore)),
    )


def _choice(text: str, name: str, allowed: tuple[str, ...]) -> Any:
    if text and text not in allowed:
        expected = " or ".join(repr(value) for value in allowed if value)
        raise ValueError(f"expected {expected} in the column `{name}`. Received {text!r}.")
    return text


def _number(text: str, name: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a number in the column `{name}`. Received {text!r}.")
    return value


def _positive(text: str, name: str) -> float | None:
    value = _number(text, name)
    if value is not None and value <= 0:
        raise ValueError(f"expected a number above 0 in the column `{name}`. Received {text!r}.")
    return value


def _whole(text: str, name: str, least: int) -> int | None:
    """A whole number; "12.0" too, for so tables come out of pandas where a cell of the column is empty."""
    value = _number(text, name)
    if value is not None and (value != int(value) or value < least):
        raise ValueError(f"expected a whole number of at least {least} in the column `{name}`. Received {text!r}.")
    return None if value is None else int(value)
