"""Layers of vector files: find one, and read its features."""

from __future__ import annotations

import re
import shlex
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import geopandas
import numpy as np
import pyogrio  # type: ignore[import-untyped]
import shapely
from geopandas import GeoDataFrame, GeoSeries

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.vectors.formats import FORMATS, Source, listed
from lim_keras.vectors.parquet import attribute_kinds, read_attributes

_MOST_IN_VIEW = 1_000_000
_LARGEST = 1e15  # largest coordinate that is accepted; beyond it, differences of metres are lost
_NO_AREA = re.compile("Point|LineString|CircularString|Curve$|Curve ")
_NAMES = ("id", "name", "label", "objectid", "landslide_id", "slide_id", "ls_id", "code")


@dataclass(frozen=True)
class Layer:
    """A layer of a vector file.

    Attributes:
        source: the file.
        name: name of the layer; "" for GeoParquet, which has no layers.
        columns: names of the attributes, with their kind: "text", "number" or another one.
    """

    source: Source
    name: str
    columns: dict[str, str]

    @property
    def naming_column(self) -> str | None:
        """Column that identifies a feature for people, such as `id` or `name`; None without one."""
        known = {column.lower(): column for column in self.columns}
        return next((known[name] for name in _NAMES if name in known), None)


def find_layer(source: Source, layer: str | None = None, *, argument: str = "") -> Layer:
    """Find a layer of a vector file by its name; without one, the only one that has geometries.

    Args:
        source: vector file.
        layer: name of the layer.
        argument: argument of the caller that takes the name of a layer. With it, the only layer that may hold polygons
            is found beside layers of lines and points.

    Raises:
        ConfigError: the file has no such layer.
        DataError: the file cannot be read, or has no or several layers with geometries and `layer` names none.
    """
    if source.is_parquet:
        if layer is not None:
            raise ConfigError(f"{source.path}: GeoParquet has no layers. Leave out `{argument}`.")
        with explained(source):
            return Layer(source, "", attribute_kinds(read_attributes(source.path)))
    name = gdal_name(source)
    _check_views(source)
    with explained(source):
        tables = geopandas.list_layers(name)
        chosen = (
            _only_layer(source, name, tables, argument) if layer is None else _named(source, tables, layer, argument)
        )
        fields = pyogrio.read_info(name, layer=chosen, **open_options(source))
    kinds = (_kind(str(kind)) for kind in fields["ogr_types"])
    return Layer(source, chosen, dict(zip(map(str, fields["fields"]), kinds, strict=True)))


def _check_views(source: Source) -> None:
    """Refuse a view without end before GDAL opens the file, because GDAL would count its features for ever."""
    if source.suffix not in (".gpkg", ".sqlite") or source.name != str(source.path):
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(source.path))}?immutable=1", uri=True)) as database:
            views = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
            endless = next((view for view in views if _is_endless(database, view)), None)
    except (sqlite3.Error, UnicodeError):
        return  # GDAL names what is damaged
    if endless is not None:
        raise DataError(
            f"{source.path}: its layer {endless} is a view of more than {_MOST_IN_VIEW:,} features, perhaps without "
            "end. Repair it, or save its features as a table."
        )


def _is_endless(database: sqlite3.Connection, view: str) -> bool:
    name = view.replace('"', '""')
    try:
        some = f'SELECT 1 FROM "{name}" LIMIT {_MOST_IN_VIEW + 1}'
        return bool(database.execute(f"SELECT count(*) FROM ({some})").fetchone()[0] > _MOST_IN_VIEW)
    except sqlite3.Error:
        return False  # such as a view with functions that only GDAL knows


def read_features(layer: Layer, columns: tuple[str, ...] = ()) -> GeoDataFrame:
    """Read the geometries and some attributes of a layer; the index holds the feature ids.

    The ids of GeoParquet, which has none, are its rows from 1.

    Raises:
        DataError: the file cannot be read, or holds coordinates that are not finite.
    """
    source = layer.source
    with explained(source):
        if source.is_parquet:
            whole = geopandas.read_parquet(source.path)
            frame = whole[[*columns, whole.geometry.name]].set_axis(np.arange(len(whole)) + 1)
        else:
            how = {"layer": layer.name, "columns": list(columns), "fid_as_index": True, **open_options(source)}
            frame = geopandas.read_file(gdal_name(source), engine="pyogrio", **how)
        _check_finite(frame.geometry, source)
    return frame


def _kind(ogr_type: str) -> str:
    kind = ogr_type.removeprefix("OFT")
    return {"String": "text", "Integer": "number", "Integer64": "number", "Real": "number"}.get(kind, kind.lower())


def open_options(source: Source) -> dict[str, Any]:
    """Return options of the driver: without one, all columns of a CSV are text."""
    return {"AUTODETECT_TYPE": "YES"} if source.suffix == ".csv" else {}


def gdal_name(source: Source) -> str:
    """Return the name by which pyogrio opens a file."""
    name = source.name
    if re.search("[;!]", name) and not name.startswith("/vsi"):  # pyogrio reads them as parts of a URL
        raise DataError(f"{source.path}: expected a path without `;` and `!`. Rename the file or its folder.")
    if source.suffix == ".gml" and not name.startswith("/vsi"):
        return f"/vsisubfile/0,{source.path.absolute()}"  # otherwise GDAL writes a .gfs file beside it
    return name


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Convert errors of GDAL and PROJ to DataError, and their warnings to LimKerasWarning."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except (RuntimeError, ValueError, OSError, UnboundLocalError, shapely.errors.ShapelyError) as error:
        # UnboundLocalError: pyogrio, at a CRS that PROJ cannot write.
        text = " ".join(str(error).split())
        reason = text.split("; It might help", 1)[0].rstrip(".")  # pyogrio's advice is about its own arguments
        raise DataError(f"{source.path}: cannot be read as polygons ({reason}). {_cure(source, error)}") from error
    for text in {str(one.message) for one in caught if "GFS file" not in str(one.message)}:
        warnings.warn(f"{source.path}: {text}", LimKerasWarning, stacklevel=5)


def _check_finite(geometries: GeoSeries, source: Source) -> None:
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    bad = np.unique(owner[~(np.abs(points) < _LARGEST).all(axis=-1)]).size  # not smaller: NaN, too
    if bad:
        raise DataError(
            f"{source.path}: expected coordinates between -{_LARGEST:.0e} and {_LARGEST:.0e}. Received: NaN, infinite "
            f"or larger ones in {bad} of {len(geometries)} geometries. Delete or repair these."
        )


def _named(source: Source, tables: Any, layer: str, argument: str) -> str:
    names = [str(name) for name in tables["name"]]
    if layer not in names:
        expected = ", ".join(names)
        raise ConfigError(f"{source.path}: has no layer {layer!r}. Expected one of these as `{argument}`: {expected}.")
    if layer not in set(tables.dropna(subset="geometry_type")["name"]):
        raise ConfigError(f"{source.path}: its layer {layer!r} is a table. Name a layer of polygons as `{argument}`.")
    return layer


def _only_layer(source: Source, name: str, tables: Any, argument: str) -> str:
    """Return the one layer that has geometries; a GeoPackage may also hold a layer of styles."""
    kinds = dict(tables.dropna(subset="geometry_type")[["name", "geometry_type"]].itertuples(index=False))
    layers = list(kinds)
    if len(layers) > 1:
        layers = [layer for layer in layers if pyogrio.read_info(name, layer=layer)["features"]] or layers[:1]
    if argument and len(layers) > 1:
        layers = [layer for layer in layers if not _NO_AREA.search(kinds[layer])] or layers
    if len(layers) == 1:
        return str(layers[0])
    if not layers:
        raise DataError(
            f"{source.path}: expected one layer with geometries. Received: none, only tables "
            f"({listed(tables['name'])}). Expected {FORMATS}."
        )
    likely = max(layers, key=lambda layer: "Polygon" in kinds[layer])  # the first, if none is of polygons
    cure = f"Save the layer of landslides as a file of its own (`ogr2ogr {source.conversion} {shlex.quote(likely)}`)."
    if argument:
        cure = f"Name the layer of landslides as `{argument}`."
    raise DataError(f"{source.path}: expected one layer with geometries. Received: {', '.join(layers)}. {cure}")


def _cure(source: Source, error: Exception) -> str:
    if "WKB type" in str(error):
        return f"Convert its geometries to polygons (`ogr2ogr -nlt MULTIPOLYGON {source.conversion}`)."
    if ".shx" in str(error):
        return "A Shapefile needs its .shx and .prj beside it: put them there."
    return f"Expected {FORMATS}."
