"""Finished parts of the report, kept so that a later call makes only what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lim_keras.files import make_folder, write_text
from lim_keras.metrics.binary import Estimate
from lim_keras.raster.images import read_image
from lim_keras.report.documents import FIGURES, table_values
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.seals import is_sealed, sealed_json

PARTS_FOLDER = "parts"

_FORMAT = 1


def write_part(folder: Path, part: Part, key: str) -> None:
    """Write a part whose drawings lie in `figures/`, with the key of all that it was made from."""
    make_folder(folder / PARTS_FOLDER, "out")
    values = {
        "lim_keras_part": _FORMAT,
        "key": key,
        "name": part.name,
        "title": part.title,
        "text": list(part.text),
        "tables": [table_values(table) for table in part.tables],
        "drawings": [{"name": drawing.name, "caption": drawing.caption} for drawing in part.drawings],
    }
    write_text(folder / PARTS_FOLDER / f"{part.name}.json", sealed_json(values))


def read_part(folder: Path, name: str, key: str) -> Part | None:
    """Read a part; None if it was made from something else, or if a file of it is missing or changed."""
    path = folder / PARTS_FOLDER / f"{name}.json"
    if not is_sealed(path):
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    if (values.get("lim_keras_part"), values.get("key")) != (_FORMAT, key):
        return None
    pictures = [folder / FIGURES / f"{one['name']}.png" for one in values["drawings"]]
    if not all(is_sealed(picture) for picture in pictures):
        return None
    drawings = [
        Drawing(one["name"], one["caption"], read_image(picture)[..., :3])
        for one, picture in zip(values["drawings"], pictures, strict=True)
    ]
    tables = tuple(_table(one) for one in values["tables"])
    return Part(values["name"], values["title"], tuple(values["text"]), tables, tuple(drawings))


def _table(values: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(_value(one) for one in row) for row in values["rows"])
    columns, notes = tuple(values["columns"]), tuple(values["notes"])
    return Table(values["name"], values["title"], columns, rows, notes, values["sources"])


def _value(value: Any) -> Value:
    if not isinstance(value, dict):
        known: Value = value
        return known
    numbers = {name: float("nan") if one is None else one for name, one in value.items()}
    return Estimate(**numbers)
