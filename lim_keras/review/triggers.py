"""Triggers of a review file: what QGIS and other programs change is logged, signed with the time, and undoable."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lim_keras.review.entries import LOG, SIGNATURE
from lim_keras.review.measures import MEASURED
from lim_keras.review.rows import KEY

ABOUT = "review_about"
"""Table of facts by name; `recording` is 1 while the store changes rows, which logs its actions itself."""

_QUIET = f"(SELECT value FROM {ABOUT} WHERE name = 'recording') = '0'"
NEW_IDS = "(SELECT coalesce(max(id), 0) - count(*) FROM model)"
"""SQL of what a new landslide's key lacks to its `id`, so that an `id` is never given twice."""

_SOON_DAYS = 1 / 8640  # ten seconds
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


def add_triggers(database: sqlite3.Connection, *, geometry: str, originals: str) -> None:
    """Add the triggers to a new review file.

    Args:
        database: connection to it.
        geometry: name of the geometry columns.
        originals: layer that nothing may change.
    """
    for one in (
        *_of_landslides(database, geometry),
        *_of_searched(database),
        *_locks((originals, LOG)),
        *(_known_status(event) for event in ("INSERT", "UPDATE OF status")),
    ):
        database.execute(one)


def _of_landslides(database: sqlite3.Connection, geometry: str) -> list[str]:
    layer, columns = "landslides", _columns(database, "landslides")
    measured = [name for name in columns if name in MEASURED]
    texts = [
        _update(layer, name, action, (name, *SIGNATURE), "")
        for name, action in (("status", "verdict"), ("class", "class"), ("note", "note"))
    ]
    emptied = ", ".join(f'"{name}" = NULL' for name in measured)
    outline = (geometry, "edited", *measured, *SIGNATURE)
    texts.append(_update(layer, geometry, "edit", outline, f", edited = 1{', ' + emptied if emptied else ''}"))
    texts.append(_sign(geometry))
    return [*texts, _insert(layer, columns, _DRAWN + (f", {emptied}" if emptied else "")), _delete(layer, columns)]


_DRAWN = f"""
    origin = CASE WHEN EXISTS (SELECT 1 FROM landslides WHERE id = NEW.id AND {KEY} <> NEW.{KEY})
        THEN 'split' ELSE 'drawn' END,
    id = NEW.{KEY} + {NEW_IDS},
    status = coalesce(NEW.status, 'accepted'), edited = 1"""


def _of_searched(database: sqlite3.Connection) -> list[str]:
    columns = _columns(database, "searched")
    return [_insert("searched", columns, ""), _delete("searched", columns)]


def _update(layer: str, column: str, action: str, logged: Sequence[str], changes: str) -> str:
    """Log the change of a column, and sign the row."""
    before, after = _json("OLD", (KEY, *logged)), _json(layer, (KEY, *logged))
    who = "coalesce(NEW.reviewer, '')"
    if action == "edit":
        who = "CASE WHEN NEW.reviewer IS OLD.reviewer THEN '' ELSE coalesce(NEW.reviewer, '') END"
    return f"""
        CREATE TRIGGER "review_{layer}_{action}" AFTER UPDATE OF "{column}" ON "{layer}"
        WHEN {_QUIET} AND OLD."{column}" IS NOT NEW."{column}" BEGIN
        UPDATE "{layer}" SET reviewed = {_NOW}{changes} WHERE {KEY} = NEW.{KEY};
        {_log(layer, action, who, before, after, f'FROM "{layer}" WHERE {KEY} = NEW.{KEY}')}
        END"""


def _sign(geometry: str) -> str:
    """Return a trigger that names the reviewer of an edit; QGIS writes the name after the outline."""
    return f"""
        CREATE TRIGGER review_landslides_sign AFTER UPDATE OF reviewer ON landslides
        WHEN {_QUIET} AND NEW.reviewer IS NOT NULL AND OLD."{geometry}" IS NEW."{geometry}" BEGIN
        UPDATE {LOG} SET reviewer = NEW.reviewer WHERE reviewer = '' AND action = 'edit'
        AND julianday('now') - julianday(time) < {_SOON_DAYS} AND json_extract(after, '$[0].{KEY}') = NEW.{KEY};
        END"""


def _insert(layer: str, columns: Sequence[str], changes: str) -> str:
    action, who = "draw" if layer == "landslides" else "searched", "coalesce(NEW.reviewer, '')"
    changes = f", {changes.lstrip(', ')}" if changes else ""
    return f"""
        CREATE TRIGGER "review_{layer}_insert" AFTER INSERT ON "{layer}" WHEN {_QUIET} BEGIN
        UPDATE "{layer}" SET reviewed = {_NOW}{changes} WHERE {KEY} = NEW.{KEY};
        {_log(layer, action, who, "'[]'", _json(layer, columns), f'FROM "{layer}" WHERE {KEY} = NEW.{KEY}')}
        END"""


def _delete(layer: str, columns: Sequence[str]) -> str:
    action = "delete" if layer == "landslides" else "searched"
    return f"""
        CREATE TRIGGER "review_{layer}_delete" AFTER DELETE ON "{layer}" WHEN {_QUIET} BEGIN
        {_log(layer, action, "''", _json("OLD", columns), "'[]'", "")}
        END"""


def _log(layer: str, action: str, who: str, before: str, after: str, source: str) -> str:
    return f"""INSERT INTO {LOG} (time, reviewer, action, layer, before, after, program)
        SELECT {_NOW}, {who}, '{action}', '{layer}', {before}, {after}, 'other' {source};"""


def _json(row: str, columns: Sequence[str]) -> str:
    """Return SQL that makes the text of a row as `lim_keras.review.rows.as_text` does."""
    values = ", ".join(f"'{name}', {_value(f'{row}.{chr(34)}{name}{chr(34)}')}" for name in columns)
    return f"json_array(json_object({values}))"


def _value(column: str) -> str:
    blob = f"""'{{"hex":"' || hex({column}) || '"}}'"""
    real = f"printf('%!.17g', {column})"
    return f"json(CASE typeof({column}) WHEN 'blob' THEN {blob} WHEN 'real' THEN {real} ELSE json_quote({column}) END)"


def _locks(layers: Sequence[str]) -> list[str]:
    """Return triggers that refuse changes of layers, except for new lines of the log and their missing reviewer."""
    return [
        f"""CREATE TRIGGER "review_{layer}_{event}" BEFORE {event} ON "{layer}" {_but_names(layer, event)}
            BEGIN SELECT RAISE(ABORT, 'the layer {layer} of a review is read-only'); END"""
        for layer in layers
        for event in ("UPDATE", "DELETE", *(() if layer == LOG else ("INSERT",)))
    ]


def _known_status(event: str) -> str:
    """Return a trigger that refuses a status that no reader of the file knows."""
    return f"""CREATE TRIGGER "review_status_{event.split()[0]}" BEFORE {event} ON landslides
        WHEN NEW.status NOT IN ('accepted', 'rejected', 'unsure', '') BEGIN
        SELECT RAISE(ABORT, 'expected the status accepted, rejected, unsure or none'); END"""


def _but_names(layer: str, event: str) -> str:
    if (layer, event) != (LOG, "UPDATE"):
        return ""
    others = ("time", "action", "layer", "before", "after", "undoes", "program")
    return f"WHEN OLD.reviewer <> '' OR {' OR '.join(f'OLD.{name} IS NOT NEW.{name}' for name in others)}"


def _columns(database: sqlite3.Connection, layer: str) -> list[str]:
    return [row[1] for row in database.execute(f'PRAGMA table_info("{layer}")')]
