"""Log of a review: who changed which rows, when, from what to what."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lim_keras.review.rows import KEY, Row, as_text, from_text, insert_row

LOG = "review_log"
"""Table of all actions, in order; neither the store nor another program changes a line."""

Action = Literal["verdict", "note", "class", "edit", "draw", "delete", "merge", "split", "searched", "undo"]
Layer = Literal["landslides", "searched"]

SIGNATURE = ("reviewer", "reviewed")
"""Columns with the last reviewer of a row and the time in UTC."""


@dataclass(frozen=True)
class Change:
    """Rows of a layer before and after an action.

    A row in both has only the columns that the action changed, and its key. A row in one of them was made or deleted.
    """

    layer: Layer
    before: tuple[Row, ...]
    after: tuple[Row, ...]

    @property
    def keys(self) -> list[int]:
        """Keys of all rows that the action touched."""
        return sorted({row[KEY] for row in (*self.before, *self.after)})

    @property
    def reverse(self) -> Change:
        """The change that takes this one back."""
        return Change(self.layer, self.after, self.before)


@dataclass(frozen=True)
class Entry:
    """Line of the log.

    Attributes:
        number: place in the log, from 1.
        time: UTC, ISO 8601.
        reviewer: who did it; "" if another program does not tell.
        action: kind of the action.
        change: rows before and after.
        undoes: number of the line that this one undoes; None for other actions.
        program: "lim-keras", or "other" for QGIS and other programs.
    """

    number: int
    time: str
    reviewer: str
    action: Action
    change: Change
    undoes: int | None = None
    program: str = "lim-keras"


def now() -> str:
    """Return the time in UTC, as GeoPackages store it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def write_entry(
    database: sqlite3.Connection, reviewer: str, action: Action, change: Change, *, undoes: int | None = None
) -> Entry:
    """Add a line to the log."""
    time = now()
    row = {"time": time, "reviewer": reviewer, "action": action, "layer": change.layer, "undoes": undoes}
    row |= {"before": as_text(change.before), "after": as_text(change.after), "program": "lim-keras"}
    return Entry(insert_row(database, LOG, row), time, reviewer, action, change, undoes)


def read_entries(database: sqlite3.Connection, after: int = 0) -> list[Entry]:
    """Read the lines of the log after a number."""
    return [_entry(row) for row in database.execute(f'SELECT * FROM "{LOG}" WHERE {KEY} > ? ORDER BY {KEY}', (after,))]


def last_undoable(database: sqlite3.Connection, reviewer: str, passed: set[int]) -> Entry | None:
    """Return the last action of a reviewer, or of nobody known, that is neither undone nor in `passed`.

    QGIS deletes landslides without a name.
    """
    undone = set(passed)
    text = f"SELECT {KEY}, undoes FROM {LOG} WHERE reviewer IN (?, '') ORDER BY {KEY} DESC"
    for row in database.execute(text, (reviewer,)):
        if row["undoes"] is not None:
            undone.add(row["undoes"])
        elif row[KEY] not in undone:
            return read_entries(database, row[KEY] - 1)[0]
    return None


def changed_since(entry: Entry, later: list[Entry], present: list[Row], judged: set[str]) -> str | None:
    """Find who changed rows of an action since, in the columns `judged` that it changed.

    Args:
        entry: the action.
        later: lines of the log after it.
        present: its rows as they are now.
        judged: columns whose changes count.

    Returns:
        The reviewer, "another program" if the log has no such change, or None if nothing was changed.
    """
    there = {row[KEY]: row for row in present}
    expected = {row[KEY]: row for row in entry.change.after}
    gone = {row[KEY] for row in entry.change.before} - set(expected)
    same = not gone & set(there) and all(
        key in there and all(there[key].get(name) == row[name] for name in judged.intersection(row))
        for key, row in expected.items()
    )
    if same:
        return None
    touching = [one.reviewer for one in later if set(one.change.keys) & set(entry.change.keys)]
    return (touching[-1] if touching else "") or "another program"


def _entry(row: sqlite3.Row) -> Entry:
    change = Change(row["layer"], from_text(row["before"]), from_text(row["after"]))
    return Entry(row[KEY], row["time"], row["reviewer"], row["action"], change, row["undoes"], row["program"])
