"""Read mapped landslides from vector files, and find why they do not lie on their scene."""

from __future__ import annotations

import re
import shlex
import sqlite3
import warnings
import zipfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas
import numpy as np
import pyogrio  # type: ignore[import-untyped]
import shapely
from affine import Affine
from geopandas import GeoDataFrame, GeoSeries
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, full_turn
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

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
_GEOJSON = (".geojson", ".json", ".geojsonl")
_DEGREES = "EPSG:4326"
_LARGEST = 1e15  # largest coordinate that is accepted; beyond it, differences of metres are lost


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


def find_source(path: Path) -> Source:
    """Tell label rasters from vector files by the ending; where it is not known, by what GDAL can open.

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


def read_polygons(source: Source, like: RasterInfo) -> GeoSeries:
    """Read the geometries of the one layer in a vector file that holds any, in the CRS of the scene.

    Raises:
        DataError: the file cannot be read, holds several layers or no polygon, has no CRS, or its coordinates do not
            fit its CRS.

    Warns:
        LimKerasWarning: geometries that are not polygons, which do not count.
    """
    frame = _read_layer(source)
    polygons = _only_polygons(frame.geometry, source.path)
    if polygons.empty:
        return polygons.set_crs(like.crs or None, allow_override=True)
    placed = _to_scene(polygons, source, like)
    on_scene = np.isfinite(shapely.bounds(placed.to_numpy())).all(axis=-1)
    if not placed[on_scene].intersects(outline(like)).any():
        _check_place(polygons, source, like)
    if not on_scene.all():
        message = f"{source.path}: {(~on_scene).sum()} of {len(placed)} polygons lie where {like.crs} is not defined."
        warnings.warn(message, LimKerasWarning, stacklevel=4)
    return placed


def outline(like: RasterInfo, box: Box | None = None, transform: Affine | None = None) -> Any:
    """Return a box of a scene, by default all of it, as a polygon in its CRS, or placed by another transform."""
    box, transform = box or like.box, transform or Georeference.of(like).transform
    corners = shapely.box(box.left, box.top, box.right, box.bottom)
    return shapely.transform(corners, lambda points: apply(transform, points))


def _archived(path: Path) -> str:
    """Return GDAL's name of the one file in an archive that can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [re.sub(r"(\.gdb)/.*", r"\1", name) for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a .zip archive ({error}).") from error
    hidden = ("__MACOSX", ".")
    visible = {name for name in names if not any(part.startswith(hidden) for part in Path(name).parts)}
    usable = sorted(name for name in visible if _IN_ARCHIVE.fullmatch(Path(name).suffix.lower()))
    if len(usable) != 1:
        raise DataError(
            f"{path}: expected one file of landslides in the archive. Received: {_listed(usable or sorted(names))}. "
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


def _read_layer(source: Source) -> GeoDataFrame:
    """Read the one layer that has geometries; a GeoPackage may also hold a layer of styles."""
    name = source.name
    if re.search("[;!]", name) and not name.startswith("/vsi"):  # pyogrio reads them as parts of a URL
        raise DataError(f"{source.path}: expected a path without `;` and `!`. Rename the file or its folder.")
    if source.suffix == ".gml" and not name.startswith("/vsi"):
        name = f"/vsisubfile/0,{source.path.absolute()}"  # otherwise GDAL writes a .gfs file beside it
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if source.suffix in _PARQUET:
                frame = geopandas.read_parquet(source.path)
            else:
                layer = _find_layer(name, source.path)
                frame = geopandas.read_file(name, layer=layer, columns=[], engine="pyogrio")
            _check_finite(frame.geometry, source.path)
    except (RuntimeError, ValueError, OSError, UnboundLocalError, shapely.errors.ShapelyError) as error:
        # UnboundLocalError: pyogrio, at a CRS that PROJ cannot write.
        text = " ".join(str(error).split())
        reason = text.split("; It might help", 1)[0].rstrip(".")  # pyogrio's advice is about its own arguments
        raise DataError(f"{source.path}: cannot be read as polygons ({reason}). {_cure(source, error)}") from error
    for text in {str(one.message) for one in caught if "GFS file" not in str(one.message)}:
        warnings.warn(f"{source.path}: {text}", LimKerasWarning, stacklevel=5)
    return frame


def _check_finite(geometries: GeoSeries, path: Path) -> None:
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    bad = np.unique(owner[~(np.abs(points) < _LARGEST).all(axis=-1)]).size  # not smaller: NaN, too
    if bad:
        raise DataError(
            f"{path}: expected coordinates between -{_LARGEST:.0e} and {_LARGEST:.0e}. Received: NaN, infinite or "
            f"larger ones in {bad} of {len(geometries)} geometries. Delete or repair these."
        )


def _find_layer(name: str, path: Path) -> str:
    tables = geopandas.list_layers(name)
    layers = tables.dropna(subset="geometry_type")["name"].tolist()
    if len(layers) > 1:
        layers = [layer for layer in layers if pyogrio.read_info(name, layer=layer)["features"]] or layers[:1]
    if len(layers) == 1:
        return str(layers[0])
    if not layers:
        raise DataError(
            f"{path}: expected one layer with geometries. Received: none, only tables ({_listed(tables['name'])}). "
            f"Expected {FORMATS}."
        )
    kinds = dict(zip(tables["name"], tables["geometry_type"], strict=True))
    likely = max(layers, key=lambda layer: "Polygon" in kinds[layer])  # the first, if none is of polygons
    raise DataError(
        f"{path}: expected one layer with geometries. Received: {', '.join(layers)}. Save the layer of landslides as a "
        f"file of its own (`ogr2ogr {_quoted(path)} {shlex.quote(likely)}`)."
    )


def _cure(source: Source, error: Exception) -> str:
    if "WKB type" in str(error):
        made = f"`ogr2ogr -nlt MULTIPOLYGON {_quoted(source.path)}`"
        return f"Convert its geometries to polygons ({made})."
    if ".shx" in str(error):
        return "A Shapefile needs its .shx and .prj beside it: put them there."
    return f"Expected {FORMATS}."


def _only_polygons(geometries: GeoSeries, path: Path) -> GeoSeries:
    """Return the geometries that hold polygons; warn of all others, and of lines and points in collections."""
    shapes = geometries.to_numpy()
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    area = ~empty & (shapely.get_dimensions(shapes) == 2)
    crossed = area & ~shapely.is_valid(shapes)
    flat = crossed.copy()
    flat[crossed] = shapely.get_dimensions(shapely.make_valid(shapes[crossed])) < 2
    area &= ~flat
    parts = shapely.get_parts(shapely.get_parts(shapes[area]))
    left_out = np.concatenate([shapes[~empty & ~area & ~flat], parts[shapely.get_dimensions(parts) < 2]])
    kinds = Counter(geometry.geom_type for geometry in left_out)
    kinds += Counter({"without geometry": int(empty.sum()), "without area": int(flat.sum())})
    if not kinds:
        return geometries
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if not area.any():
        raise DataError(
            f"{path}: holds no polygon. Expected landslides as polygons or multi-polygons. Received: {listed}."
        )
    message = f"{path}: lines, points and empty geometries are no landslides and do not count ({listed})."
    warnings.warn(message, LimKerasWarning, stacklevel=4)
    return geometries[area].reset_index(drop=True)


def _to_scene(polygons: GeoSeries, source: Source, like: RasterInfo) -> GeoSeries:
    if source.suffix in _GEOJSON and Georeference.of(like).to_degrees is None:
        # GeoJSON cannot say that it has no CRS, or a local one: it is read as longitude and latitude.
        return polygons.set_crs(like.crs or None, allow_override=True)
    if not like.crs:
        if polygons.crs is None:
            return polygons
        raise DataError(
            f"{source.path}: has a CRS ({polygons.crs.name}), but the scene {like.path} has none. Georeference it."
        )
    if polygons.crs is None:
        raise DataError(
            f"{source.path}: has no CRS, but the scene {like.path} is in {like.crs}. Give it one (a Shapefile needs "
            f"its .prj beside it; for coordinates in the CRS of the scene "
            f"{_assigned(source, like.crs)})."
        )
    try:
        placed = _joined_at_180(polygons).to_crs(like.crs)
    except ProjError as error:
        raise DataError(
            f"{source.path}: cannot be reprojected from {polygons.crs.name} to {like.crs} ({error})."
        ) from error
    turn = full_turn(like.crs)
    return placed if turn is None else _nearest_turn(placed, like, turn)


def _joined_at_180(polygons: GeoSeries) -> GeoSeries:
    """Join the parts of polygons that were cut at 180 degrees, as GeoJSON (RFC 7946, 3.1.9) asks for."""
    west, _, east, _ = polygons.bounds.to_numpy().T
    cut = np.flatnonzero((west == -180) & (east == 180) & polygons.crs.is_geographic)
    shapes = polygons.to_numpy().copy()
    for index in cut:
        parts = shapely.get_parts(shapes[index])
        points, owner = shapely.get_coordinates(parts, return_index=True)
        points[:, 0] += np.where(shapely.bounds(parts)[owner, 0] < 0, 360, 0)
        shapes[index] = shapely.union_all(shapely.set_coordinates(parts, points))
    return GeoSeries(shapes, crs=polygons.crs)


def _nearest_turn(polygons: GeoSeries, like: RasterInfo, turn: float) -> GeoSeries:
    """Move polygons by whole turns (`full_turn`) to the scene, which may cross 180 degrees or go to 360."""
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    west, _, east, _ = polygons.bounds.to_numpy().T
    across = east - west > turn / 2  # 179 and -179 are two degrees apart
    points[:, 0] = np.where(across[owner], points[:, 0] % turn, points[:, 0])
    placed = GeoSeries(shapely.set_coordinates(polygons.to_numpy().copy(), points), crs=polygons.crs)
    west, _, east, _ = placed.bounds.to_numpy().T
    turns = np.nan_to_num(np.rint((outline(like).centroid.x - (west + east) / 2) / turn))
    points[:, 0] += turn * turns[owner]
    return GeoSeries(shapely.set_coordinates(placed.to_numpy().copy(), points), crs=polygons.crs)


def _check_place(polygons: GeoSeries, source: Source, like: RasterInfo) -> None:
    """Raise a DataError that names the mistake if polygons would lie on the scene in another CRS or axis order."""
    path = source.path
    stated = "none" if polygons.crs is None else polygons.crs.name
    if source.suffix in _GEOJSON and polygons.crs == _DEGREES:
        stated += " (the default of GeoJSON)"
    if Georeference.of(like).to_degrees is None:
        if not like.crs and _lies_on(polygons, like, None, lambda points: points * (1, -1)):
            raise DataError(f"{path}: expected coordinates (column, -row). Received: (column, row). Negate y.")
        return
    for crs in dict.fromkeys((str(polygons.crs.to_wkt()), like.crs, _DEGREES)):
        called = "its CRS" if crs == polygons.crs.to_wkt() else crs
        if called != "its CRS" and _lies_on(polygons, like, crs, lambda points: points):
            raise DataError(
                f"{path}: its CRS is {stated}, but its coordinates lie on the scene in {crs}. Name that CRS "
                f"({_assigned(source, crs)})."
            )
        if _lies_on(polygons, like, crs, lambda points: points[:, ::-1]):
            raise DataError(
                f"{path}: its coordinates lie on the scene in {called} with x and y swapped, such as latitude "
                f"before longitude. Swap them (`g = {_reading(source)}; g.geometry = shapely.transform("
                f'g.geometry, lambda p: p[:, ::-1]){_override(called)}; g.to_file("{_mended(path)}")`).'
            )
    west, south, east, north = polygons.total_bounds
    if polygons.crs.is_geographic and (max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90):
        raise DataError(
            f"{path}: its CRS is {stated}, but its coordinates are not degrees (x {west:g} to {east:g}, "
            f"y {south:g} to {north:g}). Name their CRS ({_assigned(source, 'EPSG:CODE')})."
        )


def _mended(path: Path) -> Path:
    """Return the name of a file beside `path` that a command in an error message writes."""
    return path.with_name(f"{path.stem}_mended.gpkg")


def _quoted(path: Path) -> str:
    """Return target and source of a command that mends a file."""
    return f"{shlex.quote(str(_mended(path)))} {shlex.quote(str(path))}"


def _reading(source: Source) -> str:
    """Return Python code that reads a file."""
    return f'geopandas.read_{"parquet" if source.suffix in _PARQUET else "file"}("{source.path}")'


def _assigned(source: Source, crs: str) -> str:
    """Return a command that gives a file a CRS; not every GDAL reads GeoParquet."""
    if source.suffix in _PARQUET:
        change = f'set_crs("{crs}", allow_override=True).to_file("{_mended(source.path)}")'
        return f"`{_reading(source)}.{change}`"
    return f"`ogr2ogr -a_srs {shlex.quote(crs)} {_quoted(source.path)}`"


def _override(called: str) -> str:
    return "" if called == "its CRS" else f'; g = g.set_crs("{called}", allow_override=True)'


def _lies_on(polygons: GeoSeries, like: RasterInfo, crs: str | None, change: Any) -> bool:
    shapes = GeoSeries(shapely.transform(polygons.to_numpy(), change), crs=crs)
    placed = shapes if crs is None else shapes.to_crs(like.crs)
    finite: NDArray[np.bool_] = np.isfinite(shapely.bounds(placed.to_numpy())).all(axis=-1)
    return bool(placed[finite].intersects(outline(like)).any())


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "none"
