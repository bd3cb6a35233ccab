"""Review file of an inventory: its layers, triggers and QGIS styles."""

from __future__ import annotations

import errno
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]
import shapely

from lim_keras.errors import ConfigError, DataError
from lim_keras.files import atomic_file, delete_drafts
from lim_keras.inventory.verify import VECTOR_ERRORS
from lim_keras.lock import folder_lock
from lim_keras.ownership import file_hash
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.review.entries import LOG, now
from lim_keras.review.geopackage import connect
from lim_keras.review.presence import REVIEWERS
from lim_keras.review.rows import KEY
from lim_keras.review.style import landslides_style, originals_style, searched_style
from lim_keras.review.triggers import ABOUT, add_triggers
from lim_keras.tiling.review_labels import LANDSLIDES, MODEL, SEARCHED

CLASSES = ("slide", "debris flow", "rockfall", "other")
"""Classes of landslides, unless others are given."""

COLUMNS = ("status", "class", "note", "reviewer", "reviewed", "origin", "edited")
"""Columns of a review beside those of its inventory."""

_GEOMETRY = "geometry"
_FORMAT = "1"
_STYLES = "layer_styles"


def make_review_file(
    inventory: Path, path: Path, *, classes: Sequence[str] = CLASSES, about: Mapping[str, str] | None = None
) -> Path:
    """Copy the landslides of an inventory into a new review file, without a verdict.

    Layers: `landslides` with the columns of the inventory and `status` (accepted, rejected, unsure, or empty), `class`,
    `note`, `reviewer`, `reviewed` (UTC), `origin` (model, drawn, merged, split) and `edited`; `model`, the landslides
    as the model drew them; `searched`, ground that was looked at; `review_log`, all actions. A review that is there, or
    that another process makes meanwhile, is kept.

    Args:
        inventory: GeoPackage of `lim-keras predict`, which is only read.
        path: the review file.
        classes: classes of landslides to choose from.
        about: facts to keep, see `lim_keras.review.reader.ReviewReader`.

    Raises:
        ConfigError: a class is empty or given twice.
        DataError: the inventory cannot be read, or the file cannot be written.
    """
    _check_classes(classes)
    with folder_lock(path.parent, entry=path.name, wait=True):
        if os.path.lexists(path):
            return path
        delete_drafts(path.parent, path.stem)
        found = _read(inventory)
        facts = {"format": _FORMAT, "recording": "0", "classes": "\n".join(classes), "created": now()}
        facts |= {"inventory": inventory.name, "inventory_sha256": file_hash(inventory), **(about or {})}
        with atomic_file(path) as draft:
            _write(found, draft, facts, classes)
    return path


def _write(found: geopandas.GeoDataFrame, path: Path, facts: Mapping[str, str], classes: Sequence[str]) -> None:
    """Write the file; raise OSError if the disk is full."""
    try:
        with warnings.catch_warnings():
            _write_layers(found, path)
        with closing(connect(path)) as database:
            database.execute("BEGIN")
            _complete(database, facts)
            _add_styles(database, classes)
            database.execute("COMMIT")
    except (*VECTOR_ERRORS, sqlite3.Error) as error:
        reason = str(error).rpartition(") failed: ")[2]  # the rest is SQL
        raise OSError(errno.EIO, reason) from error


def _check_classes(classes: Sequence[str]) -> None:
    wrong = [one for one in classes if not one.strip() or "\n" in one]
    if not classes or wrong or len(set(classes)) < len(classes):
        raise ConfigError(f"Invalid value for `classes`. Expected different names. Received: {list(classes)}.")


def _read(inventory: Path) -> geopandas.GeoDataFrame:
    pyogrio = load_pyogrio()
    try:
        found = geopandas.read_file(inventory, layer=LANDSLIDES, engine="pyogrio")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(
            f"{inventory}: cannot be read as an inventory ({error}). Give a folder of `lim-keras predict`."
        ) from error
    own = {*COLUMNS, "fid", _GEOMETRY}  # SQLite takes upper and lower case for the same
    if taken := sorted(name for name in found.columns.drop(found.geometry.name) if name.lower() in own):
        raise DataError(
            f"{inventory}: expected an inventory without the columns of a review. It has {taken}. Rename them."
        )
    found = found.set_geometry(shapely.force_2d(found.geometry.to_numpy()), crs=found.crs)
    found = found[~(found.geometry.isna() | found.geometry.is_empty)].explode(ignore_index=True)
    if "id" not in found or not pandas.api.types.is_integer_dtype(found["id"]):  # an inventory of another program
        others = {name.lower() for name in found.columns}
        names = chain(["source_id"], (f"source_id_{k}" for k in count(2)))
        free = next(name for name in names if name not in others)
        given = next((name for name in found.columns if name.lower() == "id"), None)
        found = found.rename(columns={given: free}).assign(id=np.arange(1, len(found) + 1))
    return found if found.geometry.name == _GEOMETRY else found.rename_geometry(_GEOMETRY)


def _write_layers(found: geopandas.GeoDataFrame, path: Path) -> None:
    pyogrio = load_pyogrio()
    warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
    for number, (layer, frame) in enumerate(_layers(found).items()):
        pyogrio.write_dataframe(
            frame,
            path,
            layer=layer,
            driver="GPKG",
            append=number > 0,
            geometry_type="Polygon",
            layer_options={"FID": KEY, "GEOMETRY_NAME": _GEOMETRY},
            dataset_options={"VERSION": "1.2"} if number == 0 else {},
        )


def _layers(found: geopandas.GeoDataFrame) -> dict[str, geopandas.GeoDataFrame]:
    count = len(found)

    def empty(kind: Any, length: int = count) -> pandas.Series:
        return pandas.Series([None] * length, dtype=kind)

    columns: dict[str, pandas.Series] = {name: empty(object) for name in COLUMNS}
    columns |= {"reviewed": empty("datetime64[ms, UTC]"), "edited": pandas.Series(np.zeros(count, np.bool_))}
    landslides = found.reset_index(drop=True).assign(**columns)
    landslides["origin"] = "model"
    cells = {"cell": empty(object, 0), "reviewer": empty(object, 0), "reviewed": empty("datetime64[ms, UTC]", 0)}
    searched = geopandas.GeoDataFrame(cells, geometry=[], crs=found.crs)
    return {LANDSLIDES: landslides, SEARCHED: searched, MODEL: found}


def _complete(database: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    """Add the tables that are no layers, and the triggers."""
    database.execute(f"""CREATE TABLE {LOG} ({KEY} INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, time DATETIME,
        reviewer TEXT, action TEXT, layer TEXT, before TEXT, after TEXT, undoes INTEGER, program TEXT)""")
    database.execute(f"CREATE TABLE {ABOUT} (name TEXT PRIMARY KEY, value TEXT)")
    database.executemany(f"INSERT INTO {ABOUT} VALUES (?, ?)", facts.items())
    database.execute(f"CREATE TABLE {REVIEWERS} (session TEXT PRIMARY KEY, reviewer TEXT, place TEXT, seen TEXT)")
    database.execute(f"""CREATE TABLE {_STYLES} (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
        styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30),
        ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))""")
    for table in (LOG, _STYLES):  # QGIS and GDAL list what is registered
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change) VALUES (?, 'attributes', ?, ?)",
            (table, table, now()),
        )
    add_triggers(database, geometry=_GEOMETRY, originals=MODEL)


def _add_styles(database: sqlite3.Connection, classes: Sequence[str]) -> None:
    columns = {
        layer: [row[1] for row in database.execute(f'PRAGMA table_info("{layer}")') if row[1] != _GEOMETRY]
        for layer in (LANDSLIDES, SEARCHED, MODEL)
    }
    styles = {
        LANDSLIDES: landslides_style(columns[LANDSLIDES], classes),
        SEARCHED: searched_style(columns[SEARCHED]),
        MODEL: originals_style(columns[MODEL]),
    }
    for layer, text in styles.items():
        database.execute(
            f"INSERT INTO {_STYLES} (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, ?, 'review', ?, '', 1, ?, '')",
            (layer, _GEOMETRY, text, "style of lim-keras review"),
        )
