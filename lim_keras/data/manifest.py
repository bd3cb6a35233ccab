"""Tile manifest `tiles.csv` and lists of tile ids: read and write."""

import csv
import difflib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from lim_keras.data.tiles import Ignore, Kind, Tile, TileSet, raise_problems
from lim_keras.errors import DataError
from lim_keras.files import atomic_file, prepare_file

_COLUMNS = tuple(field.name for field in fields(Tile))
_REQUIRED = ("tile_id", "image")
_FOLD = "fold"

Rows = list[tuple[int, dict[str, str]]]
"""Line number and cells by column name."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile before its files are checked: fields as in `Tile`, None where the source gives no value."""

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


def read_candidates(path: Path) -> tuple[list[Candidate], list[str]]:
    """Read the tiles of a manifest without opening their files.

    Relative paths start at the folder of the manifest. Unknown columns are skipped.

    Returns:
        The candidates, and one message for each bad line.

    Raises:
        DataError: not a readable table, a required column is missing, or a column name looks misspelt.
    """
    candidates, problems = [], []
    for line, row in _read_rows(path):
        try:
            candidates.append(_candidate(row, path.parent))
        except ValueError as error:
            problems.append(f"{path}, line {line}: {error}")
    return candidates, problems


def read_folds(path: str | os.PathLike[str]) -> dict[str, int]:
    """Read the column `fold` of a manifest.

    Returns:
        Fold by tile id: 0, 1, ... for folds, -1 for test tiles. Tiles with an empty cell are left out.

    Raises:
        DataError: not a readable manifest, no column `fold`, or a fold is not a whole number >= -1.
    """
    path = Path(path)
    rows = _read_rows(path)
    if _FOLD not in rows[0][1]:
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


def read_tile_ids(path: str | os.PathLike[str]) -> list[str]:
    """Read tile ids from a text file (one id a line, `#` starts a comment line) or from a tiles.csv.

    Returns:
        Each id once, in the order of the file.

    Raises:
        DataError: unreadable, without ids, or a table without the column tile_id.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        rows = _read_table(path)
        if "tile_id" not in rows[0][1]:
            raise DataError(f"{path}: expected a column tile_id. Found {', '.join(rows[0][1])}.")
        ids = [row["tile_id"] for _, row in rows]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a text file of tile ids ({error}).") from error
        ids = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not ids:
        raise DataError(f"{path}: expected one tile id a line, but there is none.")
    return list(dict.fromkeys(ids))


def write_manifest(tiles: TileSet, path: str | os.PathLike[str], folds: Mapping[str, int] | None = None) -> None:
    """Write a tiles.csv that `read_tiles` reads. Files in its folder get relative paths, others absolute ones.

    Args:
        tiles: tiles to write.
        path: file to write.
        folds: fold by tile id (-1: test tile), written as the column `fold`; None for no such column.

    Raises:
        DataError: a fold of an unknown tile, or the file cannot be written.
    """
    path = Path(path)
    tiles.check_known(folds or ())
    prepare_file(path)
    columns = [*_COLUMNS, _FOLD] if folds is not None else _COLUMNS
    folder = path.parent.absolute()
    with atomic_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_row(tile, folder) | {_FOLD: (folds or {}).get(tile.tile_id, "")} for tile in tiles)


def _row(tile: Tile, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {name: "" if getattr(tile, name) is None else getattr(tile, name) for name in _COLUMNS}
    return row | {name: _portable(row[name], folder) for name in ("image", "mask") if row[name]}


def _portable(file: Path, folder: Path) -> str:
    file = file.absolute()
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _read_table(path: Path) -> Rows:
    """Read a CSV file with a header; cells are stripped and blank lines skipped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of comma-separated UTF-8 text ({error}).") from error
    if len(lines) < 2:
        raise DataError(f"{path}: expected a header line and one line for each tile. Found {len(lines)} line(s).")
    (_, header), *rest = lines
    problems = [
        f"{path}, line {number}: expected {len(header)} cells. Received {len(cells)}."
        for number, cells in rest
        if len(cells) != len(header)
    ]
    problems += [f"{path}: two columns are named {name!r}." for name in sorted(set(header)) if header.count(name) > 1]
    raise_problems(path, problems)
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in rest]


def _read_rows(path: Path) -> Rows:
    """Read a table and check its column names."""
    rows = _read_table(path)
    names = list(rows[0][1])
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise DataError(f"{path}: expected the columns {', '.join(missing)}. Found {', '.join(names)}.")
    known = {*_COLUMNS, _FOLD}
    for name in set(names) - known:
        close = difflib.get_close_matches(name.lower(), known - set(names), 1, 0.8)
        if close:
            raise DataError(f"{path}: unknown column {name!r}. Did you mean {close[0]!r}? Rename it.")
    return rows


def _candidate(row: Mapping[str, str], folder: Path) -> Candidate:
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


def _choice(text: str, name: str, allowed: Iterable[str]) -> Any:
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
    """Parse a whole number. "12.0" counts: pandas writes it where a column has empty cells."""
    value = _number(text, name)
    if value is not None and (value != int(value) or value < least):
        raise ValueError(f"expected a whole number of at least {least} in the column `{name}`. Received {text!r}.")
    return None if value is None else int(value)
