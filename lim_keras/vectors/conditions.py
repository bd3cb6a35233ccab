"""Select features of vector files by conditions in SQL on their attributes."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pyogrio  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lim_keras.errors import ConfigError, LimKerasWarning
from lim_keras.vectors.layers import Layer, gdal_name, open_options
from lim_keras.vectors.parquet import select_rows

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
_NAME = re.compile(r'"((?:[^"]|"")*)"')
_KEYWORDS = {
    "and",
    "or",
    "not",
    "in",
    "like",
    "ilike",
    "is",
    "null",
    "between",
    "escape",
    "cast",
    "as",
    "true",
    "false",
}
_SPECIAL = ("fid", "rowid", "ogc_fid", "geometry", "geom", "ogr_geometry", "ogr_geom_area", "ogr_geom_wkt", "ogr_style")


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
            found = _select_fids(layer, where)
    except (RuntimeError, ValueError, OSError) as error:
        raise _wrong_condition(layer, where, argument, _reason(error, layer, where)) from error
    if not len(found):
        message = f"{layer.source.path}: `{argument}` selects none of its features ({where})."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return found


def _select_fids(layer: Layer, where: str) -> NDArray[np.int64]:
    if layer.source.is_parquet:
        return select_rows(layer.source.path, where)
    # GDAL treats columns that are left out as empty, so all are read.
    how = {"layer": layer.name, "read_geometry": False, "fid_as_index": True}
    name, options = gdal_name(layer.source), open_options(layer.source)
    try:
        frame = pyogrio.read_dataframe(name, where=where, **how, **options)
    except ValueError:
        if not options:
            raise
        frame = pyogrio.read_dataframe(name, where=where, **how)  # a CSV in which `yes` is text
    return np.asarray(frame.index, np.int64)


def _check_condition(layer: Layer, where: str, argument: str) -> None:
    """Refuse wrong conditions that SQLite accepts: empty ones, several statements, unknown columns in double quotes."""
    bare = _QUOTED.sub(lambda found: "" if found[0][0] == "'" else found[0], where)
    unquoted = _QUOTED.sub("", where)
    if not where.strip() or ";" in unquoted:
        raise _wrong_condition(layer, where, argument, "not one condition")
    if "'" in unquoted:
        raise _wrong_condition(layer, where, argument, "a single quote is not closed")
    known = _known_names(layer)
    unknown = [name for name in _NAME.findall(bare) if name.replace('""', '"').lower() not in known]
    if unknown:
        raise _wrong_condition(layer, where, argument, f"no column {unknown[0]}")


def _wrong_condition(layer: Layer, where: str, argument: str, reason: str) -> ConfigError:
    columns = ", ".join(f"{name} ({kind})" for name, kind in layer.columns.items()) or "none"
    return ConfigError(
        f"{layer.source.path}: expected a condition in SQL on its columns as `{argument}`, such as \"NAME = 'text'\". "
        f"Received: {where!r} ({reason}). Its columns: {columns}."
    )


def _reason(error: Exception, layer: Layer, where: str) -> str:
    """Return the cause of an error of GDAL in a condition, without the query that GDAL made of it."""
    text = " ".join(str(error).split())
    if where in text and not text.startswith("Invalid SQL query"):
        return text.split(where, 1)[1].lstrip("): ") or text
    known, bare = _known_names(layer) | _KEYWORDS, _QUOTED.sub("", where)
    unknown = [word for word in re.findall(r"[^\W\d]\w*", bare) if word.lower() not in known]
    return f"no column {unknown[0]}" if unknown else "wrong SQL, or a value of another kind"


def _known_names(layer: Layer) -> set[str]:
    return {column.lower() for column in layer.columns} | set(_SPECIAL)
