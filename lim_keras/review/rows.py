"""Rows of a review's layers, and their text form in the log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
"""A row of a layer, by column; the geometry is GeoPackage binary."""

KEY = "fid"

_MOST = 500  # keys that one query takes; SQLite limits the variables of a statement


def read_rows(database: sqlite3.Connection, layer: str, keys: Iterable[int]) -> list[Row]:
    """Read the rows of some keys, in the order of the keys; keys without a row are left out."""
    wanted = list(dict.fromkeys(keys))
    found: dict[int, Row] = {}
    for start in range(0, len(wanted), _MOST):
        some = wanted[start : start + _MOST]
        text = f'SELECT * FROM "{layer}" WHERE {KEY} IN ({", ".join("?" * len(some))})'
        found |= {row[KEY]: dict(row) for row in database.execute(text, some)}
    return [found[key] for key in wanted if key in found]


def insert_row(database: sqlite3.Connection, layer: str, row: Mapping[str, Any]) -> int:
    """Insert a row; return its key, which is new unless the row has one."""
    names = [name for name in row if name != KEY or row[name] is not None]
    listed, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    text = f'INSERT INTO "{layer}" ({listed}) VALUES ({marks})'
    return int(database.execute(text, [row[name] for name in names]).lastrowid or 0)


def update_row(database: sqlite3.Connection, layer: str, row: Mapping[str, Any]) -> None:
    """Replace the given columns of the row with the same key."""
    names = [name for name in row if name != KEY]
    chosen = ", ".join(f'"{name}" = ?' for name in names)
    database.execute(f'UPDATE "{layer}" SET {chosen} WHERE {KEY} = ?', [row[name] for name in (*names, KEY)])


def delete_rows(database: sqlite3.Connection, layer: str, keys: Iterable[int]) -> None:
    """Delete the rows of some keys."""
    database.executemany(f'DELETE FROM "{layer}" WHERE {KEY} = ?', [(key,) for key in keys])


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Convert rows to JSON; binary values become hexadecimal, as the triggers of the file write them."""

    def plain(value: Any) -> Any:
        return {"hex": value.hex().upper()} if isinstance(value, bytes) else value

    return json.dumps([{name: plain(value) for name, value in row.items()} for row in rows])


def from_text(text: str) -> tuple[Row, ...]:
    """Convert the result of `as_text` back to rows."""

    def value(stored: Any) -> Any:
        return bytes.fromhex(stored["hex"]) if isinstance(stored, dict) else stored

    return tuple({name: value(stored) for name, stored in row.items()} for row in json.loads(text))
