"""Presence of reviewers, so that two on one file are told of each other."""

from __future__ import annotations

import os
import socket
import sqlite3
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lim_keras.review.entries import LOG, now
from lim_keras.review.geopackage import writing

REVIEWERS = "reviewers"
"""Table of open stores, with the time of their last sign of life."""

_ALIVE = timedelta(minutes=2)
_ACTIVE = timedelta(minutes=10)


@dataclass(frozen=True)
class Reviewer:
    """Another reviewer of the same file.

    Attributes:
        name: name; may be that of this reviewer, in another window or on another machine.
        place: host and process, or "another program" such as QGIS.
        seen: last sign of life, UTC, ISO 8601.
    """

    name: str
    place: str
    seen: str


class Presence:
    """Sign of life of an open store.

    Args:
        database: connection to the review file.
        path: the file, for errors.
        reviewer: name of the reviewer.
    """

    def __init__(self, database: sqlite3.Connection, path: Path, reviewer: str) -> None:
        self._database, self._path, self._reviewer = database, path, reviewer
        self._session, self._place = uuid.uuid4().hex, f"{socket.gethostname()}, process {os.getpid()}"

    def others(self) -> list[Reviewer]:
        """Write a sign of life, and return the other reviewers who are there."""
        with writing(self._database, self._path):
            self._database.execute(f"DELETE FROM {REVIEWERS} WHERE seen < ?", (_ago(_ACTIVE),))
            mine = (self._session, self._reviewer, self._place, now())
            self._database.execute(f"INSERT OR REPLACE INTO {REVIEWERS} VALUES (?, ?, ?, ?)", mine)
        text = f"SELECT reviewer, place, seen FROM {REVIEWERS} WHERE session <> ? AND seen >= ? ORDER BY seen"
        there = [Reviewer(*row) for row in self._database.execute(text, (self._session, _ago(_ALIVE)))]
        text = f"SELECT reviewer, max(time) FROM {LOG} WHERE program = 'other' AND time >= ? GROUP BY reviewer"
        acted = [
            Reviewer(row[0], "another program", row[1])
            for row in self._database.execute(text, (_ago(_ACTIVE),))
            if row[0]
        ]
        return there + acted

    def leave(self) -> None:
        """Remove the sign of life; a file that cannot be written keeps it for some minutes."""
        with suppress(Exception), writing(self._database, self._path):
            self._database.execute(f"DELETE FROM {REVIEWERS} WHERE session = ?", (self._session,))


def _ago(time: timedelta) -> str:
    return (datetime.now(UTC) - time).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
