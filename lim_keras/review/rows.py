"""Rows of a review's layers, and their text form in the log."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
"""A row of a layer, by column; the geometry is GeoPackage binary."""

KEY = "fid"


def read_rows(database: sqlite3.Connection, layer: str, keys: Iterable[int]) -> list[Row]:
    """Read the rows of some keys, in the order of the keys; keys without a row are left out."""
    found = {}
    for key in keys:
        row = database.execute(f'SELECT * FROM "{layer}" WHERE {KEY} = ?', (key,)).fetchone()
        if row is not None:
            found[key] = dict(row)
    return list(found.values())


def write_row(database: sqlite3.Connection, layer: str, row: Mapping[str, Any]) -> int:
    """Insert a row, or replace the columns of the row with its key; return the key."""
    names = [name for name in row if name != KEY or row[name] is not None]
    values = [row[name] for name in names]
    if row.get(KEY) is not None and read_rows(database, layer, [row[KEY]]):
        chosen = ", ".join(f'"{name}" = ?' for name in names)
        database.execute(f'UPDATE "{layer}" SET {chosen} WHERE {KEY} = ?', (*values, row[KEY]))
        return int(row[KEY])
    listed, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    return int(database.execute(f'INSERT INTO "{layer}" ({listed}) VALUES ({marks})', values).lastrowid or 0)


def delete_rows(database: sqlite3.Connection, layer: str, keys: Iterable[int]) -> None:
    """Delete the rows of some keys."""
    database.executemany(f'DELETE FROM "{layer}" WHERE {KEY} = ?', [(key,) for key in keys])


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Convert rows to JSON; binary values become base64."""

    def plain(value: Any) -> Any:
        return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    return json.dumps([{name: plain(value) for name, value in row.items()} for row in rows])


def from_text(text: str) -> list[Row]:
    """Convert the result of `as_text` back to rows."""

    def value(stored: Any) -> Any:
        return base64.b64decode(stored["base64"]) if isinstance(stored, dict) else stored

    return [{name: value(stored) for name, stored in row.items()} for row in json.loads(text)]
