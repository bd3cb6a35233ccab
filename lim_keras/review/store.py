"""Verdicts of an inventory: each action changes rows and writes a line of the log, so that any number can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import shapely

from lim_keras.errors import ConfigError, DataError
from lim_keras.review.entries import (
    SIGNATURE,
    Action,
    Change,
    Entry,
    Layer,
    changed_since,
    last_undoable,
    now,
    read_entries,
    write_entry,
)
from lim_keras.review.geopackage import from_blob, to_blob, writing
from lim_keras.review.measures import MEASURED, Measures
from lim_keras.review.outlines import divide, join, one_polygon
from lim_keras.review.presence import Presence, Reviewer
from lim_keras.review.reader import ReviewReader
from lim_keras.review.rows import KEY, Row, delete_rows, insert_row, read_rows, update_row
from lim_keras.review.triggers import ABOUT, NEW_IDS
from lim_keras.tiling.review_labels import LANDSLIDES, SEARCHED

Status = Literal["accepted", "rejected", "unsure"]

STATUSES: tuple[str, ...] = get_args(Status)

_JUDGED = ("status", "class", "note", "origin", "cell")
"""Columns, beside the outline, whose later changes by others keep an action from being undone."""


class ReviewStore(ReviewReader):
    """Landslides of a review file, with the verdicts of experts; a context manager.

    Several processes may write at the same time, also QGIS: each action is one transaction, which is on the disk when
    the method returns. A store serves the thread that made it.

    Args:
        path: `<scene>_review.gpkg`, see `lim_keras.review.review_file`.
        reviewer: name that verdicts and the log record.
        probability: probability map of the scene, from which changed outlines are measured.

    Raises:
        ConfigError: the name is empty.
        DataError: the file is missing, no review, or cannot be written.
    """

    _writable = True

    def __init__(self, path: Path, reviewer: str, *, probability: Path | None = None) -> None:
        self.reviewer = reviewer.strip()
        if not self.reviewer:
            raise ConfigError("Invalid value for `reviewer`. Expected a name. Received: an empty one.")
        super().__init__(path)
        try:
            self._measures = Measures(self.crs, self.gsd_m, probability)
            self._passed: set[int] = set()
            self._presence = Presence(self._database, path, self.reviewer)
            self.others()
            self.measure_missing()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Tell the file that this reviewer leaves, and close it."""
        self._presence.leave()
        super().close()

    def others(self) -> list[Reviewer]:
        """Tell the file that this reviewer is here, and return other reviewers of the last minutes.

        A page calls it about twice a minute. Reviewers in other programs are known by their last change.
        """
        return self._presence.others()

    def judge(self, keys: Sequence[int], status: Status | None) -> Entry:
        """Give landslides a verdict; None takes their verdict back.

        Raises:
            DataError: a landslide is no longer there.
        """
        if status is not None and status not in STATUSES:
            raise ConfigError(f"Invalid value for `status`. Expected {', '.join(STATUSES)}. Received: {status!r}.")
        return self._set(keys, "verdict", {"status": status})

    def annotate(self, keys: Sequence[int], note: str) -> Entry:
        """Write a note to landslides; an empty text removes it."""
        return self._set(keys, "note", {"note": note.strip() or None})

    def classify(self, keys: Sequence[int], name: str) -> Entry:
        """Give landslides a class; an empty text removes it."""
        return self._set(keys, "class", {"class": name.strip() or None})

    def reshape(self, key: int, outline: Any) -> Entry:
        """Replace the outline of a landslide; a landslide without a verdict becomes accepted.

        Raises:
            DataError: the outline is no single polygon.
        """
        return self._act("edit", LANDSLIDES, [key], lambda rows: [self._accepted(rows[0]) | self._drawn(outline)])

    def draw(self, outline: Any) -> Entry:
        """Add a landslide that the model missed; it counts as accepted.

        Raises:
            DataError: the outline is no single polygon.
        """
        new = {"status": "accepted", "origin": "drawn"}
        return self._act("draw", LANDSLIDES, [], lambda _: [new | self._drawn(outline) | self._new_id()])

    def remove(self, key: int) -> Entry:
        """Delete a landslide that was drawn; one of the model is rejected instead.

        Raises:
            DataError: the landslide was not drawn.
        """

        def nothing(rows: Sequence[Row]) -> list[Row]:
            if rows[0]["origin"] != "drawn":
                raise DataError(f"Landslide {rows[0]['id']} is the model's. Reject it instead.")
            return []

        return self._act("delete", LANDSLIDES, [key], nothing)

    def merge(self, keys: Sequence[int]) -> Entry:
        """Join landslides to one outline, which takes the place of the first; the others go.

        Raises:
            DataError: fewer than two landslides, or outlines that do not touch.
        """
        if len(set(keys)) < 2:
            raise DataError("Expected at least two landslides to merge. Choose another one, too.")

        def joined(rows: Sequence[Row]) -> list[Row]:
            whole = join([from_blob(row[self._geometry]) for row in rows])
            return [self._accepted(rows[0]) | self._drawn(whole) | {"origin": "merged"}]

        return self._act("merge", LANDSLIDES, list(dict.fromkeys(keys)), joined)

    def split(self, key: int, cut: Any) -> Entry:
        """Cut a landslide along a line, or by a polygon, into parts; the first and largest keeps the key.

        Raises:
            DataError: the cut does not divide the landslide.
        """

        def parts(rows: Sequence[Row]) -> list[Row]:
            pieces = divide(from_blob(rows[0][self._geometry]), cut)
            if len(pieces) < 2:
                raise DataError(
                    f"The drawn shape does not divide landslide {rows[0]['id']}. Draw it across the whole outline."
                )
            made = [rows[0] | self._drawn(one) | {"origin": "split"} for one in pieces]
            return [made[0], *(row | {KEY: None} | self._new_id(k) for k, row in enumerate(made[1:]))]

        return self._act("split", LANDSLIDES, [key], parts)

    def mark_searched(self, cells: Mapping[str, Any]) -> Entry:
        """Mark cells of the ground as searched; `cells`: outline of each cell by its name.

        Cells that are marked already stay as they are.
        """

        def new(_: Sequence[Row]) -> list[Row]:
            known = {row[0] for row in self._database.execute(f'SELECT cell FROM "{SEARCHED}"')}
            chosen = {name: outline for name, outline in cells.items() if name not in known}
            return [self._signed({self._geometry: self._blob(one), "cell": name}) for name, one in chosen.items()]

        return self._act("searched", SEARCHED, [], new)

    def unmark_searched(self, keys: Sequence[int]) -> Entry:
        """Take back that cells were searched."""
        return self._act("searched", SEARCHED, keys, lambda _: [])

    def undo(self) -> Entry | None:
        """Undo the last action of this reviewer that is not undone, also one in QGIS; None if there is none.

        Raises:
            DataError: somebody else changed the same rows since. The next call passes over this action.
        """
        with self._recording():
            entry = last_undoable(self._database, self.reviewer, self._passed)
            if entry is None:
                return None
            present = read_rows(self._database, entry.change.layer, entry.change.keys)
            later, judged = read_entries(self._database, entry.number), {*_JUDGED, self._geometry}
            other = changed_since(entry, later, present, judged)
            if other is not None:
                self._passed.add(entry.number)
                raise DataError(
                    f"The action before ({entry.action}) cannot be undone, because {other} changed the same landslide "
                    "since. Undo again for the action before it."
                )
            return self._apply("undo", entry.change.reverse, undoes=entry.number)

    def measure_missing(self) -> int:
        """Measure landslides that another program drew or edited; return their number.

        Call it when `version` changed.
        """
        if "area_m2" not in self.columns:
            return 0
        text = f'SELECT * FROM "{LANDSLIDES}" WHERE area_m2 IS NULL AND edited AND "{self._geometry}" IS NOT NULL'
        rows = [dict(row) for row in self._database.execute(text)]
        measured = [self._measured(row) for row in rows]
        changed = [(new, old) for new, old in zip(measured, rows, strict=True) if new["area_m2"] is not None]
        if changed:
            with self._recording():
                for new, _ in changed:
                    columns = {name: value for name, value in new.items() if name in MEASURED}
                    update_row(self._database, LANDSLIDES, columns | {KEY: new[KEY]})
        return len(changed)

    # Parts of actions

    def _set(self, keys: Sequence[int], action: Action, values: Mapping[str, Any]) -> Entry:
        def changed(rows: Sequence[Row]) -> list[Row]:
            return [self._signed(row | dict(values)) for row in rows]

        return self._act(action, LANDSLIDES, keys, changed, logged=tuple(values))

    def _act(
        self,
        action: Action,
        layer: Layer,
        keys: Sequence[int],
        change: Callable[[Sequence[Row]], list[Row]],
        *,
        logged: tuple[str, ...] = (),
    ) -> Entry:
        """Change rows in one transaction.

        Args:
            action, layer, keys: what is done to which rows.
            change: gets the present rows, and returns the new ones.
            logged: columns that the log holds even if they stay the same.
        """
        keys = list(dict.fromkeys(keys))
        with self._recording():
            before = read_rows(self._database, layer, keys)
            if len(before) < len(keys):
                raise DataError("The landslide is no longer there: somebody else deleted or merged it.")
            return self._apply(action, _differences(layer, before, change(before), logged))

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Hold the write lock; the triggers of the file log nothing meanwhile."""
        with writing(self._database, self.path):
            self._database.execute(f"UPDATE {ABOUT} SET value = '1' WHERE name = 'recording'")
            yield
            self._database.execute(f"UPDATE {ABOUT} SET value = '0' WHERE name = 'recording'")

    def _apply(self, action: Action, change: Change, undoes: int | None = None) -> Entry:
        """Write the rows after a change, and its line of the log."""
        there = {row[KEY] for row in change.before}
        made: list[Row] = []
        for row in change.after:
            if row.get(KEY) in there:
                update_row(self._database, change.layer, row)
                made.append(row)
            else:
                key = insert_row(self._database, change.layer, row)
                made += read_rows(self._database, change.layer, [key])
        delete_rows(self._database, change.layer, there - {row[KEY] for row in made})
        done = Change(change.layer, change.before, tuple(made))
        self._grow(done)
        return write_entry(self._database, self.reviewer, action, done, undoes=undoes)

    def _grow(self, change: Change) -> None:
        """Widen the recorded bounds of a layer to new outlines, and note the time of the change."""
        blobs = [row[self._geometry] for row in change.after if row.get(self._geometry) is not None]
        self._database.execute("UPDATE gpkg_contents SET last_change = ? WHERE table_name = ?", (now(), change.layer))
        if blobs:
            west, south, east, north = shapely.total_bounds([from_blob(blob) for blob in blobs]).tolist()
            self._database.execute(
                "UPDATE gpkg_contents SET min_x = min(ifnull(min_x, ?1), ?1), min_y = min(ifnull(min_y, ?2), ?2), "
                "max_x = max(ifnull(max_x, ?3), ?3), max_y = max(ifnull(max_y, ?4), ?4) WHERE table_name = ?5",
                (west, south, east, north, change.layer),
            )

    def _signed(self, row: Row) -> Row:
        return row | dict(zip(SIGNATURE, (self.reviewer, now()), strict=True))

    def _accepted(self, row: Row) -> Row:
        return row | {"status": row["status"] or "accepted"}

    def _drawn(self, outline: Any) -> Row:
        """Return the columns of an outline that the reviewer drew: geometry, measures and signature."""
        return self._signed(self._measured({self._geometry: self._blob(outline), "edited": 1}))

    def _measured(self, row: Row) -> Row:
        return row | self._measures.measure(from_blob(row[self._geometry]), self.columns)

    def _blob(self, outline: Any) -> bytes:
        return to_blob(one_polygon(outline), self._srs_id)

    def _new_id(self, further: int = 0) -> Row:
        """Return the column `id` of a new landslide, which no landslide had; `further`: count from the next one."""
        text = f"SELECT seq + 1 + {NEW_IDS} FROM sqlite_sequence WHERE name = ?"
        found = self._database.execute(text, (LANDSLIDES,)).fetchone()
        return {"id": (1 if found is None else found[0]) + further}


def _differences(layer: Layer, before: Sequence[Row], after: Sequence[Row], logged: tuple[str, ...]) -> Change:
    """Reduce rows that are there before and after to the columns that differ, and those that are always logged."""
    new = {row.get(KEY): row for row in after if row.get(KEY) is not None}
    old = {row[KEY]: row for row in before}
    differing = {
        key: [name for name, value in row.items() if name in (KEY, *logged) or old[key][name] != value]
        for key, row in new.items()
        if key in old
    }
    kept = tuple({name: row[name] for name in differing.get(row[KEY], row)} for row in before)
    made = tuple({name: row[name] for name in differing.get(row.get(KEY), row)} for row in after)
    return Change(layer, kept, made)
