"""Formats of vector files: find the file in an archive, and tell vector files from rasters."""

from __future__ import annotations

import re
import shlex
import sqlite3
import zipfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyogrio  # type: ignore[import-untyped]

from lim_keras.errors import DataError
from lim_keras.raster.reader import RasterReader

FORMATS = (
    "polygons as GeoPackage, GeoJSON, Shapefile, FlatGeobuf, KML, KMZ, GML, MapInfo or SQLite, alone or in a .zip; as "
    "CSV with WKT or GeoParquet; or a label raster, such as a GeoTIFF"
)

_VECTOR = re.compile(
    r"\.(gpkg|geojson|geojsonl|json|shp|shz|fgb|kml|kmz|gml|tab|mif|sqlite|csv|(geo)?parquet|dbf|shx|dxf|gpx|gdb)",
    re.IGNORECASE,
)
_RASTER = re.compile(r"\.(tiff?|png|jpe?g|img|vrt|jp2|asc)", re.IGNORECASE)
_IN_ARCHIVE = re.compile(r"\.(gpkg|geojson|geojsonl|json|shp|fgb|kml|kmz|gml|tab|mif|sqlite|gdb|tiff?|png|img|asc)")
_PARQUET = (".parquet", ".geoparquet")


@dataclass(frozen=True, slots=True)
class Source:
    """A file of mapped landslides.

    Attributes:
        path: file as it was given.
        name: name for GDAL, which may point into an archive.
        is_raster: whether it is a label raster.
    """

    path: Path
    name: str
    is_raster: bool

    @property
    def suffix(self) -> str:
        """Ending of the file, or of the file in the archive."""
        return Path(self.name).suffix.lower()

    @property
    def has_raster_name(self) -> bool:
        """True if the ending is that of a raster."""
        return _RASTER.fullmatch(self.suffix) is not None

    @property
    def is_parquet(self) -> bool:
        """True for GeoParquet, which not every GDAL reads."""
        return self.suffix in _PARQUET

    @property
    def mended(self) -> Path:
        """File beside this one that a command in an error message writes."""
        path = self.path if self.path.name else self.path.absolute()  # the folder `.` has no name
        return path.with_name(f"{path.stem}_mended.gpkg")

    @property
    def conversion(self) -> str:
        """Target and source of a command that mends this file."""
        return f"{shlex.quote(str(self.mended))} {shlex.quote(str(self.path))}"

    @property
    def reading(self) -> str:
        """Python code that reads this file."""
        return f'geopandas.read_{"parquet" if self.is_parquet else "file"}("{self.path}")'

    def assigned(self, crs: str) -> str:
        """Return a command that gives this file a CRS."""
        if self.is_parquet:
            return f'`{self.reading}.set_crs("{crs}", allow_override=True).to_file("{self.mended}")`'
        return f"`ogr2ogr -a_srs {shlex.quote(crs)} {self.conversion}`"


def find_source(path: Path) -> Source:
    """Tell a label raster from a vector file by its ending; for an unknown ending, by the drivers that can open it.

    Raises:
        DataError: an archive does not hold exactly one file that can be read.
    """
    name = _archived(path) if path.suffix.lower() == ".zip" else str(path)
    suffix = Path(name).suffix.lower()
    if _RASTER.fullmatch(suffix):
        return Source(path, name, True)
    if suffix != ".gpkg" and _VECTOR.fullmatch(suffix):
        return Source(path, name, False)
    if name == str(path) and suffix == ".gpkg":
        _check_database(path)
    try:
        RasterReader(name).close()
    except DataError:
        # A file that no vector driver opens counts as a raster, whose error names both kinds.
        return Source(path, name, not (_VECTOR.fullmatch(suffix) or _is_vector(name)))
    return Source(path, name, True)


def _archived(path: Path) -> str:
    """Return GDAL's name of the one file in an archive that can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [re.sub(r"(\.gdb)/.*", r"\1", name) for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"{path}: cannot be read as a .zip archive ({error}). Unpack it, and give the file in it."
        ) from error
    hidden = ("__MACOSX", ".")
    visible = {name for name in names if not any(part.startswith(hidden) for part in Path(name).parts)}
    usable = sorted(name for name in visible if _IN_ARCHIVE.fullmatch(Path(name).suffix.lower()))
    if len(usable) != 1:
        raise DataError(
            f"{path}: expected one file of landslides in the archive. Received: {listed(usable or sorted(names))}. "
            f"Unpack it and give the file itself. Expected {FORMATS}."
        )
    return f"/vsizip/{path.absolute()}/{usable[0]}"


def _check_database(path: Path) -> None:
    """Refuse a damaged GeoPackage; rasterio prints a traceback where GDAL quotes bytes of it."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, UnicodeError) as error:
        raise DataError(f"{path}: damaged, expected a GeoPackage ({error}). Replace it.") from error


def _is_vector(name: str) -> bool:
    try:
        return bool(len(pyogrio.list_layers(name)))
    except RuntimeError:  # base of pyogrio's errors
        return False


def listed(names: Iterable[object]) -> str:
    """Join names for a message, the first five of them."""
    words = [str(name) for name in names]
    return (", ".join(words[:5]) + (", ..." if len(words) > 5 else "")) or "none"
