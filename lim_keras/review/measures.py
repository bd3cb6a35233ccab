"""Measures of outlines that experts changed, in the columns of an inventory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from lim_keras.errors import LimKerasError
from lim_keras.inventory.attributes import (
    FAMILIARITY_ATTRIBUTES,
    OUTLINE_ATTRIBUTES,
    PIXEL_ATTRIBUTES,
    TERRAIN_ATTRIBUTES,
    outline_attributes,
)
from lim_keras.inventory.polygons import rings_of
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.vectorize import rasterize_box
from lim_keras.raster.windows import Box
from lim_keras.review.outlines import polygons_in
from lim_keras.tiling.mapped_polygons import in_pixels

MEASURED = (
    *(one.name for one in OUTLINE_ATTRIBUTES),
    *(one.name for one in (*PIXEL_ATTRIBUTES, *FAMILIARITY_ATTRIBUTES, *TERRAIN_ATTRIBUTES)),
    "below_min_slope",
)
"""Columns of an inventory that depend on the outline; an edit empties those that cannot be measured anew."""


class Measures:
    """Measures of outlines in the CRS of a scene.

    Args:
        crs: CRS of the outlines, "" if there is none.
        gsd_m: ground sample distance, metres, for outlines without a CRS; None if unknown.
        probability: probability map of the scene; without it, probabilities of changed outlines are unknown.
    """

    def __init__(self, crs: str, gsd_m: float | None, probability: Path | None) -> None:
        self._crs, self._gsd_m, self._probability = crs, gsd_m, probability

    def measure(self, outline: Any, columns: Iterable[str]) -> dict[str, Any]:
        """Measure an outline: a value for each of the given columns that depend on it; None where unknown.

        Outlines of other programs may be invalid or have several pieces: area and perimeter are then those of all
        pieces, the place is that of the largest, and the form is unknown.
        """
        pieces = polygons_in(outline if outline.is_valid else shapely.make_valid(outline))
        known = self._of_outlines(np.array(pieces, object)) if pieces else {}
        with suppress(LimKerasError):  # a map that was moved away or damaged
            known |= self._of_pixels(np.array(pieces, object)) if pieces else {}
        return {name: _plain(known.get(name)) for name in columns if name in MEASURED}

    def _of_outlines(self, pieces: NDArray[Any]) -> dict[str, Any]:
        ground = Georeference(Affine.identity(), self._crs, self._gsd_m)
        found: Mapping[str, NDArray[Any]] = outline_attributes(rings_of(pieces), ground)
        largest = int(np.argmax(shapely.area(pieces)))
        known = {name: values[largest] for name, values in found.items()}
        if len(pieces) > 1:
            known |= {name: found[name].sum() for name in ("area_m2", "perimeter_m")}
            known |= dict.fromkeys(("compactness", "elongation"))
        return known

    def _of_pixels(self, pieces: NDArray[Any]) -> dict[str, Any]:
        """Measure the pixels whose centres lie in the pieces of an outline."""
        if self._probability is None or not self._probability.is_file():
            return {}
        with RasterReader(self._probability) as reader:
            shapes = in_pixels(pieces, reader.info)
            box = _around(shapes, reader.info.box)
            if box is None:
                return {}
            pixels, valid = reader.image(box)
            inside = rasterize_box(list(shapes), box, Affine.identity()).astype(np.bool_)
            scale, whole = 100.0 if reader.info.dtype == "uint8" else 1.0, reader.info.box
        values = pixels[..., 0][inside & valid].astype(np.float64)
        rows, columns = np.nonzero(inside)
        rows, columns = rows + box.top, columns + box.left
        at_edge = (rows == 0) | (columns == 0) | (rows == whole.bottom - 1) | (columns == whole.right - 1)
        found = (
            {"probability_mean": values.mean() / scale, "probability_max": values.max() / scale} if values.size else {}
        )
        beside = binary_dilation(inside) & ~valid
        return found | {"touches_nodata": beside.any(), "touches_edge": at_edge.any()}


def _around(shapes: NDArray[Any], whole: Box) -> Box | None:
    """Return the pixels of a scene around shapes in pixels, with one more on each side; None if they lie outside."""
    left, top, right, bottom = shapely.total_bounds(shapes).tolist()
    if right <= whole.left or bottom <= whole.top or left >= whole.right or top >= whole.bottom:
        return None
    top, left = max(math.floor(top), whole.top), max(math.floor(left), whole.left)
    bottom, right = min(math.ceil(bottom), whole.bottom), min(math.ceil(right), whole.right)
    return Box(top, left, bottom, right).grown(1, whole)


def _plain(value: Any) -> Any:
    """Convert a value of NumPy to one of SQLite; NaN becomes None."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
