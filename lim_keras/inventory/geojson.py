"""GeoJSON text of polygons (RFC 7946), formatted in arrays: longitude and latitude with seven decimals."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import shapely
from numpy.typing import NDArray

from lim_keras.inventory.antimeridian import needs_cut, to_degrees
from lim_keras.raster.georeference import Floats

_DECIMALS, _FIGURES = 7, 10
_SEAM, _POLE = 179.0, 85.0  # degrees beyond which a polygon may have to be cut


def collection_start(layer: str) -> str:
    """Return the text before the first feature of a collection of the given name."""
    name = json.dumps(layer, ensure_ascii=False)
    return f'{{\n"type": "FeatureCollection",\n"name": {name},\n"features": [\n'


COLLECTION_END = "\n]\n}\n"


def feature_lines(frame: geopandas.GeoDataFrame) -> str | None:
    """Format polygons with their attributes, a feature a line.

    Numbers have ten significant figures, as GDAL writes them. Outer rings run counterclockwise.

    Returns:
        The lines; None if GDAL has to format the polygons: they have no longitude and latitude, may cross the
        antimeridian or contain a pole, rounding makes one invalid, or a column holds other values than numbers.
    """
    if not all(isinstance(one, np.dtype) and one.kind in "biuf" for one in frame.dtypes.drop(frame.geometry.name)):
        return None
    degrees = None if frame.crs is None else to_degrees(frame.geometry.to_numpy(), frame.crs.to_wkt())
    if degrees is None or needs_cut(degrees).any():
        return None
    kind, points, (ring_ends, polygon_ends) = shapely.to_ragged_array(degrees)
    if (np.abs(points) >= (_SEAM, _POLE)).any():
        return None
    points = _counterclockwise(points, ring_ends, polygon_ends)
    rounded = np.rint(points * 10**_DECIMALS) / 10**_DECIMALS
    if not shapely.is_valid(shapely.from_ragged_array(kind, rounded, (ring_ends, polygon_ends))).all():
        return None
    texts = [_numbers(values, np.full(len(values), 10.0**_DECIMALS), f"%.{_DECIMALS}f") for values in points.T]
    vertices = pc.binary_join_element_wise(*texts, ", ")
    rings = pc.binary_join(_lists(ring_ends, vertices), " ], [ ")
    polygons = pc.binary_join(_lists(polygon_ends, rings), " ] ], [ [ ")
    middle = ' }, "geometry": { "type": "Polygon", "coordinates": [ [ [ '
    start = '{ "type": "Feature", "properties": { '
    lines = pc.binary_join_element_wise(start, _properties(frame), middle, polygons, " ] ] ] } }", "")
    return ",\n".join(lines.to_pylist())


def _lists(ends: NDArray[np.integer], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


def _counterclockwise(points: Floats, ring_ends: NDArray[np.integer], polygon_ends: NDArray[np.integer]) -> Floats:
    """Reverse outer rings that run clockwise, and holes that run counterclockwise."""
    x, y = points[:-1].T
    cross = np.append(x * points[1:, 1] - points[1:, 0] * y, 0)
    cross[ring_ends[1:] - 1] = 0
    area = np.add.reduceat(cross, ring_ends[:-1])
    outer = np.zeros(len(area), np.bool_)
    outer[polygon_ends[:-1]] = True
    wrong = (area > 0) != outer
    if not wrong.any():
        return points
    sizes = np.diff(ring_ends)
    turned = np.repeat(wrong, sizes)
    place = np.arange(len(points))
    mirrored = np.repeat(ring_ends[:-1] + ring_ends[1:] - 1, sizes) - place
    return points[np.where(turned, mirrored, place)]


def _properties(frame: geopandas.GeoDataFrame) -> pa.Array:
    """Format the columns (n,) of each row: `"name": value, ...`."""
    parts: list[str | pa.Array] = []
    for name in frame.columns.drop(frame.geometry.name):
        parts += [f"{', ' if parts else ''}{json.dumps(name, ensure_ascii=False)}: ", _values(frame[name])]
    return pc.binary_join_element_wise(*parts, "")


def _values(column: pandas.Series) -> pa.Array:
    values = column.to_numpy()
    if values.dtype.kind != "f":
        return pc.cast(pa.array(values), pa.string())
    magnitude = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
    scale = 10.0 ** (_FIGURES - 1 - np.clip(np.floor(np.log10(magnitude)), -_FIGURES, _FIGURES - 1))
    return _numbers(values, scale, f"%.{_FIGURES}g")


def _numbers(values: Floats, scale: Floats, form: str) -> pa.Array:
    """Format numbers (n,), rounded to multiples of 1 / `scale`, with at least one decimal; NaN becomes null.

    Numbers for which the array functions may differ from `form` are formatted one by one: those in the middle between
    two multiples, very large ones and very small ones.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        multiple = values * scale
        whole = np.rint(multiple)
        near_middle = np.abs(np.abs(multiple - whole) - 0.5) < 1e-4
        shown = whole / scale
    magnitude = np.abs(shown)
    alone = near_middle | (magnitude >= 1e9) | ((magnitude < 1e-3) & (values != 0))
    texts = pc.cast(pa.array(shown), pa.string())
    texts = pc.if_else(pa.array(shown == np.rint(shown)), pc.binary_join_element_wise(texts, ".0", ""), texts)
    if alone.any():
        each = [_number(value, form) for value in values[alone].tolist()]
        texts = pc.replace_with_mask(texts, pa.array(alone), pa.array(each, pa.string()))
    return pc.if_else(pa.array(np.isfinite(values)), texts, "null")


def _number(value: float, form: str) -> str:
    text = form % value
    if "." in text and "e" not in text:
        text = text.rstrip("0")
        return text + "0" if text.endswith(".") else text
    return text if "e" in text or "n" in text else f"{text}.0"
