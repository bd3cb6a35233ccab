"""Bands of a scene's maps: names, stored values, and their description as a virtual raster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from lim_keras.raster.writer import MAP_NODATA

if TYPE_CHECKING:
    from lim_keras.inference.maps import WindowPrediction

MAPS = {"probability": "<f4", "votes": "u1", "spread": "<f4"}
"""Data type in which each map is stored, by its name; values are stored + 1."""


def map_names(spread: bool) -> list[str]:
    """List the maps of a scene in the order of their bands."""
    return [name for name in MAPS if spread or name != "spread"]


def stored_map(window: WindowPrediction, name: str, whole: bool) -> NDArray[Any]:
    """Return a map of a window as it is stored: values + 1, and 0 for pixels without data.

    Args:
        whole: all pixels of the window hold data.
    """
    stored: NDArray[Any] = np.add(getattr(window, name), 1, dtype=np.dtype(MAPS[name]), casting="unsafe", order="C")
    if not whole:
        stored[~window.valid] = 0
    return stored


def map_values(window: WindowPrediction, names: Sequence[str]) -> NDArray[np.float32]:
    """Return maps of a window (bands, height, width) as the VRT of `Maps` shows them, bit by bit; nodata -1."""
    whole = bool(window.valid.all())
    return np.stack([stored_map(window, name, whole).astype(np.float32) - np.float32(1) for name in names])


class Placed(Protocol):
    """Size and place of a raster, such as `lim_keras.raster.georeference.RasterInfo`."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def crs(self) -> str:
        """Coordinate reference system; "" if there is none."""
        ...

    @property
    def transform(self) -> Affine | None:
        """Transform from pixels to units of the CRS; None if there is none."""
        ...


def describe_maps(place: Placed, sources: Mapping[str, Sequence[str]]) -> str:
    """Describe the maps of a scene as a VRT of Float32 bands with nodata -1.

    Args:
        place: grid of the maps.
        sources: lines of XML that describe the sources of each band, by its name.
    """
    lines = [f'<VRTDataset rasterXSize="{place.width}" rasterYSize="{place.height}">']
    if place.crs:
        lines.append(f"<SRS>{escape(place.crs)}</SRS>")
    if place.transform is not None:
        a, b, c, d, e, f = tuple(place.transform)[:6]
        numbers = ", ".join(repr(float(value)) for value in (c, a, b, f, d, e))
        lines.append(f"<GeoTransform>{numbers}</GeoTransform>")
    for number, (name, described) in enumerate(sources.items(), start=1):
        lines += [
            f'<VRTRasterBand dataType="Float32" band="{number}">',
            f"<Description>{name}</Description>",
            f"<NoDataValue>{MAP_NODATA:g}</NoDataValue>",
            *described,
            "</VRTRasterBand>",
        ]
    return "\n".join([*lines, "</VRTDataset>"]) + "\n"
