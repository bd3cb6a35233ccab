"""GeoPackages opened with SQLite, so that each verdict is on the disk within milliseconds.

GDAL must not open the same file in the same process: closing it would drop the locks of SQLite.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shapely

from lim_keras.errors import DataError

_MAGIC, _VERSION = b"GP", 0
_LITTLE, _BOX, _EMPTY = 0x01, 0x02, 0x10
_HEADER = struct.Struct("<2sBBi4d")
_BOX_BYTES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
_BUSY_S = 10.0


def to_blob(geometry: Any, srs_id: int) -> bytes:
    """Convert a shapely geometry to GeoPackage binary: a header with its bounding box, and well-known binary."""
    west, south, east, north = shapely.bounds(geometry).tolist()
    flags = _LITTLE | _BOX | (_EMPTY if geometry.is_empty else 0)
    header = _HEADER.pack(_MAGIC, _VERSION, flags, srs_id, west, east, south, north)
    return header + bytes(shapely.to_wkb(geometry, byte_order=1))


def from_blob(blob: bytes) -> Any:
    """Convert GeoPackage binary to a shapely geometry.

    Raises:
        ValueError: the bytes are no GeoPackage geometry.
    """
    return shapely.from_wkb(well_known_binary(blob))


def well_known_binary(blob: bytes) -> bytes:
    """Return the well-known binary in GeoPackage binary.

    Raises:
        ValueError: the bytes are no GeoPackage geometry.
    """
    size = _BOX_BYTES.get(blob[3] >> 1 & 0x07) if len(blob) > 8 else None
    if blob[:2] != _MAGIC or size is None:
        raise ValueError("not a GeoPackage geometry")
    return blob[8 + size :]


def connect(path: Path, *, writable: bool = True) -> sqlite3.Connection:
    """Open a GeoPackage with the functions that GDAL's triggers of the spatial index call.

    Every commit is flushed to the disk. The journal mode stays as it is, because QGIS switches it to WAL and back.

    Raises:
        DataError: the file is missing, cannot be opened, or is no GeoPackage.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a file. {'It is a folder' if path.is_dir() else 'There is none'}.")
    database = None
    try:
        # A connection that may write takes back what a killed process left unfinished, also for readers.
        mode = "rw" if writable or os.access(path, os.W_OK) else "ro"
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S)
        database.isolation_level = None
        database.execute("PRAGMA synchronous = FULL" if writable else "PRAGMA query_only = TRUE")
        database.execute("SELECT count(*) FROM gpkg_contents").fetchone()
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise DataError(
            f"{path}: cannot be opened as a GeoPackage ({error}). Put a backup in its place, or move it away."
        ) from error
    database.row_factory = sqlite3.Row
    for position, name in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        database.create_function(name, 1, _bound(position), deterministic=True)
    database.create_function("ST_IsEmpty", 1, lambda blob: int(from_blob(blob).is_empty), deterministic=True)
    return database


def _bound(position: int) -> Any:
    return lambda blob: float(shapely.bounds(from_blob(blob))[position])


@contextmanager
def writing(database: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Hold the write lock of the file; commit at the end, or roll back after an error.

    Raises:
        DataError: another program holds the lock for seconds, or the file cannot be written.
    """
    try:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be written ({error}). {_cure(error)} Nothing was changed.") from error


def _cure(error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return "Another program is writing to it: end its edits (in QGIS: save them), and try again."
    return "Check that the file and its folder may be written and that the disk has room."
