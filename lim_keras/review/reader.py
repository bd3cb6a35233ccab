"""Read a review: landslides with their verdicts, searched ground and the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

import numpy as np
import shapely

from lim_keras.errors import DataError
from lim_keras.review.entries import LOG, Entry, read_entries
from lim_keras.review.geopackage import connect, well_known_binary
from lim_keras.review.rows import KEY, Row, read_rows
from lim_keras.review.triggers import ABOUT
from lim_keras.tiling.review_labels import LANDSLIDES, MODEL, SEARCHED


class ReviewReader:
    """A review file that is only read; a context manager. It serves the thread that made it.

    Args:
        path: `<scene>_review.gpkg`, see `lim_keras.review.review_file`.

    Attributes:
        about: facts of the review by name: `scene`, `inventory` (file name), `inventory_sha256`, `gsd_m`, `classes`
            and `created`.
        columns: names of the columns of the landslides.

    Raises:
        DataError: the file is missing, or no review.
    """

    _writable = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = connect(path, writable=self._writable)
        try:
            self._srs_id, self._geometry = self._described()
            self.about: dict[str, str] = dict(map(tuple, self._database.execute(f"SELECT name, value FROM {ABOUT}")))
            self.columns = [row[1] for row in self._database.execute(f'PRAGMA table_info("{LANDSLIDES}")')]
        except sqlite3.Error as error:
            self._database.close()
            raise DataError(f"{path}: cannot be read as a review ({error}).") from error
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _described(self) -> tuple[int, str]:
        tables = {row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {LANDSLIDES, SEARCHED, MODEL, LOG, ABOUT} <= tables:
            raise DataError(
                f"{self.path}: expected a review with the layers {LANDSLIDES}, {SEARCHED}, {MODEL} and {LOG}, as "
                "`lim-keras review` makes it."
            )
        text = "SELECT srs_id, column_name FROM gpkg_geometry_columns WHERE table_name = ?"
        srs_id, geometry = self._database.execute(text, (LANDSLIDES,)).fetchone()
        return int(srs_id), str(geometry)

    @property
    def crs(self) -> str:
        """CRS of all outlines as WKT; "" if there is none: outlines are then in pixels, (column, -row)."""
        return _definition(self._database, self._srs_id)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of landslides to choose from."""
        return tuple(one for one in self.about.get("classes", "").split("\n") if one)

    @property
    def gsd_m(self) -> float | None:
        """Ground sample distance of the scene, metres; None if it is unknown."""
        return float(self.about["gsd_m"]) if self.about.get("gsd_m") else None

    @property
    def version(self) -> int:
        """Number that changes whenever another process, such as QGIS, changed the file."""
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def landslides(self, keys: Sequence[int] | None = None) -> list[Row]:
        """Return the rows of landslides in the order of their keys; `geometry` is a shapely polygon."""
        return self._rows(LANDSLIDES, keys)

    def originals(self, keys: Sequence[int] | None = None) -> list[Row]:
        """Return landslides as the model drew them, which have the keys of `landslides`."""
        return self._rows(MODEL, keys)

    def searched(self) -> list[Row]:
        """Return the rows of the searched cells; `geometry` is a shapely polygon."""
        return self._rows(SEARCHED, None)

    def _rows(self, layer: str, keys: Sequence[int] | None) -> list[Row]:
        if keys is None:
            rows = [dict(row) for row in self._database.execute(f'SELECT * FROM "{layer}" ORDER BY {KEY}')]
        else:
            rows = read_rows(self._database, layer, keys)
        blobs = [row.pop(self._geometry, None) for row in rows]
        shapes = shapely.from_wkb(np.array([None if one is None else well_known_binary(one) for one in blobs], object))
        return [row | {"geometry": shape} for row, shape in zip(rows, shapes.tolist(), strict=True)]

    def log(self, after: int = 0) -> list[Entry]:
        """Return the lines of the log after a number, in order; other programs' changes are among them."""
        return read_entries(self._database, after)


def read_crs(inventory: Path) -> str | None:
    """Read the CRS of the landslides of an inventory as WKT, "" if there is none; None if it cannot be read."""
    try:
        with closing(connect(inventory, writable=False)) as database:
            text = "SELECT srs_id FROM gpkg_geometry_columns WHERE table_name = ?"
            found = database.execute(text, (LANDSLIDES,)).fetchone()
            return None if found is None else _definition(database, int(found[0]))
    except (DataError, sqlite3.Error):
        return None


def _definition(database: sqlite3.Connection, srs_id: int) -> str:
    (definition,) = database.execute(
        "SELECT definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?", (srs_id,)
    ).fetchone()
    # GeoPackage's own names for no CRS, and GDAL's. A CRS without a code has the organization NONE and a definition.
    undefined = srs_id in (-1, 0) or definition.lower() == "undefined" or '"Undefined SRS"' in definition
    return "" if undefined else str(definition)
