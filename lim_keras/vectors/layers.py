"""Layers of vector files: find one, read its features, and select features by their attributes."""

from __future__ import annotations

import io
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
import pyogrio  # type: ignore[import-untyped]
import shapely
from geopandas import GeoDataFrame, GeoSeries
from numpy.typing import NDArray

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.vectors.formats import FORMATS, Source, listed

_LARGEST = 1e15  # largest coordinate that is accepted; beyond it, differences of metres are lost
_NO_AREA = re.compile("Point|LineString|CircularString|Curve$|Curve ")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_SPECIAL = ("fid", "rowid", "ogc_fid", "geometry", "geom", "ogr_geometry", "ogr_geom_area", "ogr_geom_wkt", "ogr_style")
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
        return Layer(source, "", _parquet_columns(source))
    name = _gdal_name(source)
    with _explained(source):
        tables = geopandas.list_layers(name)
        chosen = (
            _only_layer(source, name, tables, argument) if layer is None else _named(source, tables, layer, argument)
        )
        fields = pyogrio.read_info(name, layer=chosen, **_options(source))
    kinds = (_kind(str(kind)) for kind in fields["ogr_types"])
    return Layer(source, chosen, dict(zip(map(str, fields["fields"]), kinds, strict=True)))


def read_features(layer: Layer, columns: tuple[str, ...] = ()) -> GeoDataFrame:
    """Read the geometries and some attributes of a layer; the index holds the feature ids, or rows of GeoParquet.

    Raises:
        DataError: the file cannot be read, or holds coordinates that are not finite.
    """
    source = layer.source
    with _explained(source):
        if source.is_parquet:
            whole = geopandas.read_parquet(source.path).reset_index(drop=True)
            frame = whole[[*columns, whole.geometry.name]]
        else:
            how = {"layer": layer.name, "columns": list(columns), "fid_as_index": True, **_options(source)}
            frame = geopandas.read_file(_gdal_name(source), engine="pyogrio", **how)
        _check_finite(frame.geometry, source)
    return frame


def select_features(layer: Layer, where: str, *, argument: str) -> NDArray[np.int64]:
    """Return the ids of the features that a condition selects.

    Args:
        layer: layer of a vector file.
        where: condition in SQL, in the dialect of the file's GDAL driver: that of SQLite for GeoPackage, SQLite and
            GeoParquet, else OGR SQL.
        argument: argument of the caller that takes the condition, for messages.

    Raises:
        ConfigError: the condition is wrong, or names a column that the layer lacks.

    Warns:
        LimKerasWarning: the condition selects no feature.
    """
    _check_condition(layer, where, argument)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _select_rows(layer, where) if layer.source.is_parquet else _select_fids(layer, where)
    except (RuntimeError, ValueError, OSError) as error:
        raise _wrong_condition(layer, where, argument, _reason(error)) from error
    if not len(found):
        message = f"{layer.source.path}: `{argument}` selects none of its features ({where})."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return found


def _select_fids(layer: Layer, where: str) -> NDArray[np.int64]:
    # All columns are read, because GDAL takes those that are left out for empty ones.
    how = {"layer": layer.name, "read_geometry": False, "fid_as_index": True, **_options(layer.source)}
    frame = pyogrio.read_dataframe(_gdal_name(layer.source), where=where, **how)
    return np.asarray(frame.index, np.int64)


def _select_rows(layer: Layer, where: str) -> NDArray[np.int64]:
    """Select rows of GeoParquet, which not every GDAL reads, by way of a GeoPackage in memory."""
    frame = geopandas.read_parquet(layer.source.path)
    table = frame[list(layer.columns)].reset_index(drop=True)
    table = table.rename(columns={name: f"{name} (attribute)" for name in table if name.lower() in ("fid", "geom")})
    memory = io.BytesIO()
    pyogrio.write_dataframe(table.assign(lim_keras_row=table.index), memory, driver="GPKG", layer="rows")
    found = pyogrio.read_dataframe(memory.getvalue(), where=where, read_geometry=False)
    return np.asarray(found["lim_keras_row"], np.int64)


def _check_condition(layer: Layer, where: str, argument: str) -> None:
    """Refuse what SQLite takes without a word: no condition, several statements, unknown names in double quotes."""
    bare = _TEXT.sub("''", where)
    if not where.strip() or ";" in bare:
        raise _wrong_condition(layer, where, argument, "not one condition")
    known = {column.lower() for column in layer.columns} | set(_SPECIAL)
    unknown = [name for name in re.findall(r'"((?:[^"]|"")*)"', bare) if name.replace('""', '"').lower() not in known]
    if unknown:
        raise _wrong_condition(layer, where, argument, f"no column {unknown[0]}")


def _wrong_condition(layer: Layer, where: str, argument: str, reason: str) -> ConfigError:
    columns = ", ".join(f"{name} ({kind})" for name, kind in layer.columns.items()) or "none"
    return ConfigError(
        f"{layer.source.path}: expected a condition in SQL on its columns as `{argument}`, such as \"NAME = 'text'\". "
        f"Received: {where!r} ({reason}). Its columns: {columns}."
    )


def _reason(error: Exception) -> str:
    """Return what is wrong with a condition, without the query that GDAL made of it."""
    text = " ".join(str(error).split())
    if text.startswith("Invalid SQL query"):
        return "wrong SQL, an unknown column, or a value of another kind"
    return text.rsplit(": ", 1)[-1] if "no such column" not in text else text[text.index("no such column") :]


def _kind(ogr_type: str) -> str:
    kind = ogr_type.removeprefix("OFT")
    return {"String": "text", "Integer": "number", "Integer64": "number", "Real": "number"}.get(kind, kind.lower())


def _parquet_columns(source: Source) -> dict[str, str]:
    with _explained(source):
        frame = geopandas.read_parquet(source.path)
    found = {name: _pandas_kind(frame[name]) for name in frame.columns.drop(frame.geometry.name)}
    return {str(name): kind for name, kind in found.items() if kind}


def _pandas_kind(values: Any) -> str:
    """Return the kind of a column; "" for lists and records, which SQL cannot use."""
    if values.dtype.kind in "iufb":
        return "number"
    if values.dtype.kind == "M":
        return "datetime"
    return "text" if values.dropna().map(type).eq(str).all() else ""


def _options(source: Source) -> dict[str, Any]:
    """Return options of the driver: without one, all columns of a CSV are text."""
    return {"AUTODETECT_TYPE": "YES"} if source.suffix == ".csv" else {}


def _gdal_name(source: Source) -> str:
    name = source.name
    if re.search("[;!]", name) and not name.startswith("/vsi"):  # pyogrio reads them as parts of a URL
        raise DataError(f"{source.path}: expected a path without `;` and `!`. Rename the file or its folder.")
    if source.suffix == ".gml" and not name.startswith("/vsi"):
        return f"/vsisubfile/0,{source.path.absolute()}"  # otherwise GDAL writes a .gfs file beside it
    return name


@contextmanager
def _explained(source: Source) -> Iterator[None]:
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
    kinds = dict(tables[["name", "geometry_type"]].itertuples(index=False))
    if layer not in kinds:
        names = ", ".join(kinds)
        raise ConfigError(f"{source.path}: has no layer {layer!r}. Expected one of these as `{argument}`: {names}.")
    if kinds[layer] is None:
        raise ConfigError(
            f"{source.path}: its layer {layer!r} is a table. Expected a layer of polygons as `{argument}`."
        )
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
