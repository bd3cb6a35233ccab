"""Apply an object rule to the mask of a scene: set regions that it does not keep to background, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.inventory.groups import Landslides, find_landslides
from lim_keras.inventory.landslides import MaskSource
from lim_keras.inventory.pixels import PixelReader
from lim_keras.inventory.polygons import read_mask_info, ring_sizes
from lim_keras.inventory.spool import Spool
from lim_keras.inventory.tracing import Rings, fill_rings
from lim_keras.raster.georeference import Floats, Georeference
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import RasterDrafts


@dataclass(frozen=True)
class LeftOut:
    """Numbers of regions that a rule left out of a mask.

    Attributes:
        below_peak: regions whose highest probability is below the peak.
        small: other regions that are smaller than the smallest area.
    """

    below_peak: int = 0
    small: int = 0


def leave_out_regions(
    drafts: RasterDrafts, source: MaskSource, rule: ObjectRule, *, fill_holes_m2: float = 0.0
) -> LeftOut:
    """Set the regions of a mask that a rule does not keep to background; each region is judged as a whole.

    Memory holds blocks of the rasters, unfinished regions, and the outlines of regions to leave out that cross a row of
    blocks.

    Args:
        drafts: its mask holds the pixels that reach the rule's threshold.
        source: the same mask, with the maps of its probability; the folder is for a temporary file.
        rule: its threshold is not used.
        fill_holes_m2: holes up to this area count as area of the region around them.

    Raises:
        DataError: a raster cannot be read or written.
    """
    if rule.keeps_all:
        return LeftOut()
    ground = Georeference.of(read_mask_info(source.mask), source.gsd_m)
    below_peak = small = 0
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        with ExitStack() as rasters:  # closed before the mask is replaced, which Windows refuses for an open file
            labels = rasters.enter_context(RasterReader(source.mask))
            maps = None if source.maps is None else rasters.enter_context(RasterReader(source.maps))
            reader = PixelReader(labels, maps, None)
            spool = stack.enter_context(Spool(reader.none(), source.folder))
            for rings, pixels in find_landslides(reader):
                low = rule.low_peaks(pixels.layers["probability"].highest)
                little = rule.small(_areas_m2(rings, ground, fill_holes_m2)) & ~low
                below_peak, small = below_peak + int(low.sum()), small + int(little.sum())
                if (low | little).any():
                    dropped = np.flatnonzero(low | little)
                    spool.add((rings.take(dropped), pixels.take(dropped)))
        if below_peak + small:
            drafts.change_mask(_eraser(spool.sorted(), reader.scene.width))
    return LeftOut(below_peak, small)


def _areas_m2(rings: Rings, ground: Georeference, fill_holes_m2: float) -> Floats:
    """Measure regions (n,), m2, without their holes that are larger than `fill_holes_m2`."""
    areas, _ = ring_sizes(rings, ground)
    owner = np.repeat(np.arange(len(rings)), rings.rings)
    hole = np.diff(owner, prepend=-1) == 0  # the first ring of a region is its outer one
    signed = np.where(hole, np.where(areas <= fill_holes_m2, 0.0, -areas), areas)
    return np.bincount(owner, weights=signed, minlength=len(rings)).astype(np.float64, copy=False)


def _eraser(regions: Iterator[Landslides], width: int) -> Callable[[Box, NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return a function that sets the pixels of sorted regions to background, for blocks from top to bottom.

    The outlines of a region are on the edges of its pixels.
    """
    near, waiting = Rings.none(), next(regions, None)

    def erase(box: Box, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal near, waiting
        if box.left == 0:
            parts = [near.take(np.flatnonzero(_bounds(near)[:, 3] > box.top))]
            while waiting is not None and (not len(waiting[1]) or waiting[1].first[0] // width < box.bottom):
                parts.append(waiting[0])
                waiting = next(regions, None)
            near = Rings.joined(parts)
        left, top, right, bottom = _bounds(near).T
        inside = (left < box.right) & (right > box.left) & (top < box.bottom) & (bottom > box.top)
        if not inside.any():
            return mask
        return np.where(fill_rings(near.take(np.flatnonzero(inside)), box), np.uint8(0), mask)

    return erase


def _bounds(rings: Rings) -> NDArray[np.int64]:
    """Return the bounding boxes (n, 4) of outlines in pixels: left, top, right, bottom."""
    if not len(rings):
        return np.zeros((0, 4), np.int64)
    starts = np.cumsum(rings.vertices) - rings.vertices
    low, high = np.minimum.reduceat(rings.points, starts), np.maximum.reduceat(rings.points, starts)
    return np.concatenate([low, high], axis=1).astype(np.int64)
