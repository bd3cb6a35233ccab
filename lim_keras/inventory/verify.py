"""Verify result files: read them again to their end."""

from __future__ import annotations

import errno
import json
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.raster.verify import read_blocks

pyogrio = load_pyogrio()

VECTOR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
    pyogrio._err.CPLE_BaseError,
)
"""Errors of pyogrio, and errors of GDAL that pyogrio does not convert."""

_INDEXES = "SELECT table_name FROM gpkg_extensions WHERE extension_name = 'gpkg_rtree_index'"

_HEADER_BYTES = 100  # https://www.sqlite.org/fileformat.html, 1.3

_ROWS = 2**12  # rows of a Parquet file that are read at once

_UNREADABLE = "what was written cannot be read again"


def verify_vector(path: Path, count: int | None = None) -> None:
    """Check that a GeoPackage, GeoJSON or GeoParquet file can be read to its end.

    With `count`, also check the number of features and, in a GeoPackage, the spatial index, which GDAL writes last.

    Raises:
        OSError: the file cannot be read, or lacks something.
    """
    try:
        read = _VECTORS[path.suffix.lower()](path)
        indexed = path.suffix.lower() != ".gpkg" or bool(_query(path, _INDEXES)) or not _gdal_makes_indexes()
    except (*VECTOR_ERRORS, sqlite3.Error, ValueError) as error:
        raise OSError(errno.EIO, _UNREADABLE) from error
    if count is not None and not (read == count and indexed):
        raise OSError(errno.EIO, "the file does not hold what was written")


def verify_result(path: Path) -> None:
    """Check that a result of `predict` can be read to its end, as its suffix says.

    Raises:
        OSError: the file cannot be read.
    """
    check = _CHECKS.get(path.suffix.lower())
    if check is not None:
        check(path)


def _count_in_geopackage(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    page, pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    whole = path.stat().st_size == pages * (65536 if page == 1 else page)  # SQLite reads missing bytes as zeros
    if not whole or _query(path, "PRAGMA quick_check(1)") != [("ok",)]:
        raise ValueError("the database is damaged")
    return _count_features(path)


@cache
def _gdal_makes_indexes() -> bool:
    """Return whether GDAL can make spatial indexes; it cannot if TensorFlow loaded its own SQLite first."""
    memory, point = BytesIO(), np.array([shapely.to_wkb(shapely.Point(0, 0))], object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there is no CRS
        pyogrio.raw.write(memory, point, [], [], layer="l", driver="GPKG", geometry_type="Point")
    return b"gpkg_rtree_index" in memory.getvalue()


def _query(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return database.execute(query).fetchall()


def _count_features(path: Path) -> int:
    return int(pyogrio.read_info(path, layer=0, force_feature_count=True)["features"])  # a user may have added layers


def _count_in_parquet(path: Path) -> int:
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    with ParquetFile(path) as file:
        return sum(batch.num_rows for batch in file.iter_batches(batch_size=_ROWS))


def _read_picture(path: Path) -> None:
    try:
        with Image.open(path) as picture:
            picture.load()
    except (SyntaxError, ValueError) as error:  # what Pillow raises on damaged chunks
        raise OSError(errno.EIO, _UNREADABLE) from error


def _read_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(errno.EIO, _UNREADABLE) from error


_VECTORS: dict[str, Callable[[Path], int]] = {
    ".gpkg": _count_in_geopackage,
    ".geojson": _count_features,
    ".parquet": _count_in_parquet,
}

_CHECKS: dict[str, Callable[[Path], object]] = {
    ".tif": read_blocks,
    **dict.fromkeys(_VECTORS, verify_vector),
    ".png": _read_picture,
    ".json": _read_json,
}
