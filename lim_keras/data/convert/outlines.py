"""Outlines of objects in images: check them, and draw them as labels by pixel centres."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from lim_keras.data.convert.sample import Drawn
from lim_keras.data.tiles import IGNORED, LANDSLIDE
from lim_keras.raster.vectorize import rasterize_box
from lim_keras.raster.windows import Box

SMALL = "outlines that contain no pixel centre"


class Region(Protocol):
    """Pixels of an object."""

    def pieces(self, height: int, width: int) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
        """Yield boxes in an image of a size that hold the region together, and its pixels in each."""
        ...


@dataclass(frozen=True, slots=True)
class Rings:
    """Polygons without holes. `points` are (x, y) in pixels, or in shares of the image if `normalised`."""

    polygons: tuple[tuple[tuple[float, float], ...], ...]
    normalised: bool = False

    def pieces(self, height: int, width: int) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
        """Yield the box of each polygon in the image, and the pixels whose centre lies in the polygon."""
        scale = (width, height) if self.normalised else (1, 1)
        for points in self.polygons:
            places = np.asarray(points, np.float64) * scale
            (left, top), (right, bottom) = np.floor(places.min(axis=0)), np.ceil(places.max(axis=0))
            box = Box(
                int(np.clip(top, 0, height)),
                int(np.clip(left, 0, width)),
                int(np.clip(bottom, 0, height)),
                int(np.clip(right, 0, width)),
            )
            if box.height and box.width:
                yield box, rasterize_box([shapely.Polygon(places)], box, Affine.identity()) == 1


@dataclass(frozen=True, slots=True)
class Objects:
    """Regions of one image: landslides, and regions without a label. Landslides win where they overlap."""

    landslides: tuple[Region, ...] = ()
    ignored: tuple[Region, ...] = ()

    def draw(self, height: int, width: int) -> Drawn:
        """Draw all regions."""
        labels, notes = np.zeros((height, width), np.uint8), Counter[str]()
        for regions, label in ((self.ignored, IGNORED), (self.landslides, LANDSLIDE)):
            for region in regions:
                empty = True
                for box, inside in region.pieces(height, width):
                    labels[box.slices][inside] = label
                    empty = empty and not inside.any()
                notes[SMALL] += empty
        return Drawn(labels, +notes)


def problem_of(points: Sequence[tuple[float, float]], width: float, height: float) -> str:
    """Return why a polygon cannot be drawn in an image of a size; "" if it can."""
    if not all(math.isfinite(value) for point in points for value in point):
        return "coordinates that are not finite"
    if len(set(points)) < 3:
        return "polygon of fewer than 3 points"
    xs, ys = zip(*points, strict=True)
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
        return "polygon outside its image"
    return ""


def as_points(values: Any) -> list[tuple[float, float]]:
    """Return the points of a list x, y, x, y, ... Raises ValueError or TypeError for other values."""
    numbers = [float(value) for value in values]
    if len(numbers) % 2:
        raise ValueError("an odd number of coordinates")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
