"""Tile manifest `tiles.csv` and lists of tile ids: read and write."""

import csv
import difflib
import io
import os
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError

from lim_keras.data.tiles import Ignore, Kind, Tile, TileSet, raise_problems
from lim_keras.errors import DataError
from lim_keras.files import check_plain, prepare_file, write_text

_COLUMNS = tuple(field.name for field in fields(Tile))
_REQUIRED = ("tile_id", "image")

Rows = list[tuple[int, dict[str, str]]]
"""Line number and cells by column name."""


class Candidate(BaseModel):
    """Tile before the check of its files, and its fold. Fields as in `Tile`; None: the source gives no value."""

    tile_id: str
    image: Path
    mask: Path | None = None
    kind: Kind | None = None
    group: str = ""
    scene: str = ""
    x: FiniteFloat | None = None
    y: FiniteFloat | None = None
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    gsd_m: Annotated[FiniteFloat, Field(gt=0)] | None = None
    crs: str = ""
    landslide_px: NonNegativeInt | None = None
    valid_px: NonNegativeInt | None = None
    ignore: Ignore = ""
    fold: Annotated[int, Field(ge=-1)] | None = None


def read_candidates(path: Path) -> tuple[list[Candidate], list[str]]:
    """Read the tiles of a manifest without opening their files.

    Relative paths are resolved from the manifest's folder. Unknown columns are skipped.

    Returns:
        The candidates, and one message for each bad line.

    Raises:
        DataError: not a readable table, a required column is missing, or a column name looks misspelt.
    """
    candidates, problems = [], []
    for line, row in _read_rows(path):
        try:
            candidates.append(_candidate(row, path.parent))
        except ValidationError as error:
            problems.append(f"{path}, line {line}: " + " ".join(map(_message, error.errors())))
    return candidates, problems


def read_folds(path: str | os.PathLike[str]) -> dict[str, int]:
    """Read the column `fold` of a manifest.

    Returns:
        Fold by tile id: 0, 1, ... for folds, -1 for test tiles. Tiles with an empty cell are omitted.

    Raises:
        DataError: not a readable manifest, no column `fold`, or a fold is not a whole number >= -1.
    """
    path = Path(path)
    columns = list(_read_rows(path)[0][1])
    if "fold" not in columns:
        raise DataError(f"{path}: expected a column `fold`. Found {', '.join(columns)}.")
    candidates, problems = read_candidates(path)
    raise_problems(path, problems)
    return {candidate.tile_id: candidate.fold for candidate in candidates if candidate.fold is not None}


def read_tile_ids(path: str | os.PathLike[str]) -> list[str]:
    """Read tile ids from a text file (one id per line, `#` starts a comment line) or from a tiles.csv.

    Returns:
        Each id once, in the order of the file.

    Raises:
        DataError: the file is unreadable, holds no ids, or is a table without the column tile_id.
    """
    path = Path(path)
    check_plain(path)
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
    """Write a tiles.csv for `read_tiles`. Paths below its folder are written as relative, other paths as absolute.

    Args:
        tiles: tiles to write.
        path: file to write.
        folds: fold by tile id (-1: test tile), written as the column `fold`; None: no column `fold`.

    Raises:
        DataError: `folds` names an unknown tile, or the file cannot be written.
    """
    path = Path(path)
    text = manifest_text(tiles, path.parent, folds)
    prepare_file(path)
    write_text(path, text)


def manifest_text(tiles: TileSet, folder: Path, folds: Mapping[str, int] | None = None) -> str:
    """Return the text of a tiles.csv in `folder`; arguments and errors as in `write_manifest`."""
    tiles.check_known(folds or ())
    columns = [*_COLUMNS, "fold"] if folds is not None else _COLUMNS
    text, folder = io.StringIO(), folder.absolute()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_row(tile, folder) | {"fold": (folds or {}).get(tile.tile_id, "")} for tile in tiles)
    return text.getvalue()


def _row(tile: Tile, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {name: "" if getattr(tile, name) is None else getattr(tile, name) for name in _COLUMNS}
    return row | {name: _portable(row[name], folder) for name in ("image", "mask") if row[name]}


def _portable(file: Path, folder: Path) -> str:
    file = file.absolute()
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _read_table(path: Path) -> Rows:
    """Read a CSV file with a header; cells are stripped and blank lines skipped."""
    check_plain(path)
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
        f"{path}, line {number}: expected text. Received a null byte."
        for number, cells in lines
        if any("\0" in cell for cell in cells)
    ]
    problems += [
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
    known = {*_COLUMNS, "fold"}
    for name in set(names) - known:
        close = difflib.get_close_matches(name.lower(), known - set(names), 1, 0.8)
        if close:
            raise DataError(f"{path}: unknown column {name!r}. Did you mean {close[0]!r}? Rename it.")
    return rows


def _candidate(row: Mapping[str, str], folder: Path) -> Candidate:
    cells = {name: cell for name, cell in row.items() if cell and name in Candidate.model_fields}
    cells |= {name: str(folder / cells[name]) for name in ("image", "mask") if name in cells}
    if cells.get("ignore") == "255.0":  # pandas writes integers as floats in a column with empty cells
        cells["ignore"] = "255"
    return Candidate.model_validate({"tile_id": "", **cells})


def _message(error: Any) -> str:
    column = error["loc"][0]
    if error["type"] == "missing":
        return f"the cell `{column}` is empty."
    return f"{error['msg']} in the column `{column}`. Received {reprlib.repr(error['input'])}."
