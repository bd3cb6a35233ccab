"""Verdicts of an inventory: each action changes rows and writes a line of the log, so that any number can be undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

import shapely
from shapely.geometry import MultiPolygon, Polygon

from lim_keras.errors import ConfigError, DataError
from lim_keras.review.geopackage import connect, from_blob, to_blob, writing
from lim_keras.review.rows import KEY, Row, as_text, delete_rows, from_text, read_rows, write_row

LANDSLIDES, SEARCHED, LOG = "landslides", "searched", "review_log"
"""Layers of a review: the landslides with their verdicts, the searched ground, and the log of all actions."""

Status = Literal["accepted", "rejected", "unsure"]
Action = Literal["verdict", "note", "class", "edit", "draw", "delete", "merge", "split", "searched", "undo"]
Layer = Literal["landslides", "searched"]

STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Change:
    """Rows of a layer before and after an action; a row that is in one of them only was made or deleted."""

    layer: Layer
    before: tuple[Row, ...]
    after: tuple[Row, ...]

    @property
    def keys(self) -> list[int]:
        """Keys of all rows that the action touched."""
        return sorted({row[KEY] for row in (*self.before, *self.after)})


@dataclass(frozen=True)
class Entry:
    """Line of the log.

    Attributes:
        number: place in the log, from 1.
        time: UTC, ISO 8601.
        undoes: number of the line that this one undoes; None for other actions.
    """

    number: int
    time: str
    reviewer: str
    action: str
    change: Change
    undoes: int | None = None


class ReviewStore:
    """Landslides of a review file, with the verdicts of experts; a context manager.

    Several processes may write at the same time, also QGIS: each action is one transaction.

    Args:
        path: `<scene>_review.gpkg`, see `lim_keras.review.review_file`.
        reviewer: name that verdicts and the log record.

    Raises:
        DataError: the file is missing or no review.
    """

    def __init__(self, path: Path, reviewer: str) -> None:
        self.path, self.reviewer = path, reviewer
        self._database = connect(path)
        try:
            self._srs_id, self._geometry = self._described()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _described(self) -> tuple[int, str]:
        text = "SELECT srs_id, column_name FROM gpkg_geometry_columns WHERE table_name = ?"
        row = self._database.execute(text, (LANDSLIDES,)).fetchone()
        tables = {one[0] for one in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if row is None or not {LANDSLIDES, SEARCHED, LOG} <= tables:
            raise DataError(f"{self.path}: expected a review with the layers {LANDSLIDES}, {SEARCHED} and {LOG}.")
        return int(row[0]), str(row[1])

    @property
    def version(self) -> int:
        """Number that changes whenever another process, such as QGIS, changed the file."""
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def landslides(self, keys: Sequence[int] | None = None) -> list[Row]:
        """Return the rows of landslides in the order of their keys; `geometry` is a shapely polygon."""
        if keys is None:
            rows = [dict(row) for row in self._database.execute(f'SELECT * FROM "{LANDSLIDES}" ORDER BY {KEY}')]
        else:
            rows = read_rows(self._database, LANDSLIDES, keys)
        return [self._shown(row) for row in rows]

    def searched(self) -> list[Row]:
        """Return the rows of the searched cells; `geometry` is a shapely polygon."""
        rows = self._database.execute(f'SELECT * FROM "{SEARCHED}" ORDER BY {KEY}')
        return [self._shown(dict(row)) for row in rows]

    def _shown(self, row: Row) -> Row:
        blob = row.pop(self._geometry, None)
        return row | {"geometry": None if blob is None else from_blob(blob)}

    def log(self, after: int = 0) -> list[Entry]:
        """Return the lines of the log after a number."""
        text = f'SELECT * FROM "{LOG}" WHERE {KEY} > ? ORDER BY {KEY}'
        return [_entry(row) for row in self._database.execute(text, (after,))]

    # Actions

    def judge(self, keys: Sequence[int], status: Status | None) -> Entry:
        """Give landslides a verdict; None takes their verdict back."""
        if status is not None and status not in STATUSES:
            raise ConfigError(f"Invalid value for `status`. Expected {', '.join(STATUSES)}. Received: {status!r}.")
        return self._change(keys, "verdict", {"status": status})

    def annotate(self, keys: Sequence[int], note: str) -> Entry:
        """Write a note to landslides; an empty text removes it."""
        return self._change(keys, "note", {"note": note or None})

    def classify(self, keys: Sequence[int], name: str) -> Entry:
        """Give landslides a class; an empty text removes it."""
        return self._change(keys, "class", {"class": name or None})

    def reshape(self, key: int, outline: Any) -> Entry:
        """Replace the outline of a landslide."""
        blob = self._blob(outline)

        def changed(row: Row) -> Row:
            return self._measured(row | {self._geometry: blob, "edited": 1, "status": row["status"] or "accepted"})

        return self._act("edit", LANDSLIDES, [key], lambda rows: [changed(rows[0])])

    def draw(self, outline: Any) -> Entry:
        """Add a landslide that the model missed; it counts as accepted."""
        row = {self._geometry: self._blob(outline), "status": "accepted", "origin": "drawn", "edited": 1}
        return self._act("draw", LANDSLIDES, [], lambda _: [self._measured(row)])

    def remove(self, key: int) -> Entry:
        """Delete a landslide that was drawn; one of the model is rejected instead.

        Raises:
            DataError: the landslide was not drawn.
        """

        def nothing(rows: Sequence[Row]) -> list[Row]:
            if rows[0]["origin"] != "drawn":
                raise DataError(f"Landslide {key} is the model's. Reject it instead.")
            return []

        return self._act("delete", LANDSLIDES, [key], nothing)

    def merge(self, keys: Sequence[int]) -> Entry:
        """Join landslides to one outline, which takes the place of the first; the others go.

        Raises:
            DataError: fewer than two landslides, or outlines that do not touch.
        """
        if len(set(keys)) < 2:
            raise DataError("Expected at least two landslides to merge.")

        def joined(rows: Sequence[Row]) -> list[Row]:
            whole = shapely.union_all([from_blob(row[self._geometry]) for row in rows])
            changes = {self._geometry: self._blob(whole), "origin": "merged", "edited": 1}
            return [self._measured(rows[0] | changes | {"status": rows[0]["status"] or "accepted"})]

        return self._act("merge", LANDSLIDES, list(dict.fromkeys(keys)), joined)

    def split(self, key: int, cut: Any) -> Entry:
        """Cut a landslide along a line, or by a polygon, into parts; the first keeps the key.

        Raises:
            DataError: the cut does not divide the landslide.
        """

        def parts(rows: Sequence[Row]) -> list[Row]:
            whole = from_blob(rows[0][self._geometry])
            pieces = _pieces(whole, cut)
            if len(pieces) < 2:
                raise DataError(f"The drawn shape does not divide landslide {key}. Draw it across the whole outline.")
            changed = [rows[0] | {self._geometry: self._blob(one), "origin": "split", "edited": 1} for one in pieces]
            return [self._measured(row | ({} if number == 0 else {KEY: None})) for number, row in enumerate(changed)]

        return self._act("split", LANDSLIDES, [key], parts)

    def mark_searched(self, cells: Mapping[str, Any]) -> Entry:
        """Mark cells of the ground as searched; `cells`: outline of each cell by its name."""
        rows = [{self._geometry: self._blob(outline), "cell": name} for name, outline in cells.items()]
        return self._act("searched", SEARCHED, [], lambda _: [self._signed(row) for row in rows])

    def unmark_searched(self, keys: Sequence[int]) -> Entry:
        """Take back that cells were searched."""
        return self._act("searched", SEARCHED, keys, lambda _: [])

    def undo(self) -> Entry | None:
        """Undo the last action of this reviewer that is not undone; None if there is none.

        Raises:
            DataError: somebody else changed the same rows since.
        """
        with writing(self._database):
            entry = self._last_undoable()
            if entry is None:
                return None
            there = read_rows(self._database, entry.change.layer, entry.change.keys)
            if sorted(there, key=_key) != sorted(entry.change.after, key=_key):
                raise DataError(
                    f"The last action ({entry.action}) cannot be undone, because its landslides were changed since by "
                    "somebody else or in another program."
                )
            reverse = Change(entry.change.layer, entry.change.after, entry.change.before)
            return self._apply("undo", reverse, undoes=entry.number)

    def _last_undoable(self) -> Entry | None:
        undone: set[int] = set()
        text = f'SELECT * FROM "{LOG}" WHERE reviewer = ? ORDER BY {KEY} DESC'
        for row in self._database.execute(text, (self.reviewer,)):
            if row["undoes"] is not None:
                undone.add(row["undoes"])
            elif row[KEY] not in undone:
                return _entry(row)
        return None

    def _change(self, keys: Sequence[int], action: Action, values: Mapping[str, Any]) -> Entry:
        return self._act(action, LANDSLIDES, keys, lambda rows: [self._signed(row | dict(values)) for row in rows])

    def _act(
        self, action: Action, layer: Layer, keys: Sequence[int], change: Callable[[Sequence[Row]], list[Row]]
    ) -> Entry:
        """Change rows in one transaction; `change` gets the present rows, and returns the new ones."""
        with writing(self._database):
            before = read_rows(self._database, layer, keys)
            if len(before) < len(keys):
                raise DataError("The landslide is no longer there: somebody else deleted or merged it.")
            return self._apply(action, Change(layer, tuple(before), tuple(change(before))))

    def _apply(self, action: Action, change: Change, undoes: int | None = None) -> Entry:
        keys = [write_row(self._database, change.layer, row) for row in change.after]
        gone = {row[KEY] for row in change.before} - set(keys)
        delete_rows(self._database, change.layer, gone)
        change = Change(change.layer, change.before, tuple(read_rows(self._database, change.layer, keys)))
        self._grow(change)
        time = _now()
        row = {"time": time, "reviewer": self.reviewer, "action": action, "layer": change.layer, "undoes": undoes}
        row |= {"before": as_text(change.before), "after": as_text(change.after)}
        return Entry(write_row(self._database, LOG, row), time, self.reviewer, action, change, undoes)

    def _grow(self, change: Change) -> None:
        """Widen the recorded bounds of a layer to new outlines, and note the time of the change."""
        blobs = [row[self._geometry] for row in change.after if row.get(self._geometry) is not None]
        self._database.execute("UPDATE gpkg_contents SET last_change = ? WHERE table_name = ?", (_now(), change.layer))
        if blobs:
            west, south, east, north = shapely.total_bounds([from_blob(blob) for blob in blobs]).tolist()
            self._database.execute(
                "UPDATE gpkg_contents SET min_x = min(ifnull(min_x, ?1), ?1), min_y = min(ifnull(min_y, ?2), ?2), "
                "max_x = max(ifnull(max_x, ?3), ?3), max_y = max(ifnull(max_y, ?4), ?4) WHERE table_name = ?5",
                (west, south, east, north, change.layer),
            )

    def _signed(self, row: Row) -> Row:
        return row | {"reviewer": self.reviewer, "reviewed": _now()}

    def _measured(self, row: Row) -> Row:
        """Sign a row, and drop measures that do not fit its new outline."""
        return self._signed(row)

    def _blob(self, outline: Any) -> bytes:
        return to_blob(_valid_polygon(outline), self._srs_id)


def _valid_polygon(outline: Any) -> Polygon:
    """Return a drawn outline as one valid polygon.

    Raises:
        DataError: the outline encloses no area, or falls apart.
    """
    mended = shapely.make_valid(outline) if not outline.is_valid else outline
    pieces = [one for one in shapely.get_parts(mended) if one.geom_type == "Polygon" and one.area > 0]
    pieces += [one for part in shapely.get_parts(mended) if isinstance(part, MultiPolygon) for one in part.geoms]
    if len(pieces) != 1:
        raise DataError(f"Expected an outline of one piece. Received: {len(pieces)} pieces. Draw it again.")
    return shapely.orient_polygons(pieces[0]) if hasattr(shapely, "orient_polygons") else pieces[0]


def _pieces(whole: Any, cut: Any) -> list[Any]:
    """Divide a polygon by a line, or into the part inside and the parts outside of a polygon."""
    if cut.geom_type == "Polygon":
        found = [shapely.intersection(whole, cut), shapely.difference(whole, cut)]
    else:
        lines = shapely.union_all([whole.boundary, shapely.intersection(cut, whole)])
        found = [
            one for one in shapely.get_parts(shapely.polygonize([lines])) if whole.covers(one.representative_point())
        ]
    parts = [one for some in found for one in shapely.get_parts(some)]
    kept = [one for one in parts if one.geom_type == "Polygon" and one.area > 0]
    return sorted(kept, key=lambda one: -one.area)


def _entry(row: sqlite3.Row) -> Entry:
    change = Change(row["layer"], tuple(from_text(row["before"])), tuple(from_text(row["after"])))
    return Entry(row[KEY], row["time"], row["reviewer"], row["action"], change, row["undoes"])


def _key(row: Row) -> int:
    return int(row[KEY])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
