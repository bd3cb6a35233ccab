"""Slow oracle of landslides: GDAL's polygons, and statistics of one landslide after the other."""

import numpy as np
import shapely
from rasterio.features import rasterize, shapes


def trace(mask):
    """Outlines in pixels as GDAL draws them, and their first pixels (column, row), in row order of these."""
    found = [shapely.geometry.shape(one) for one, value in shapes(mask, mask=mask > 0, connectivity=4) if value == 1]
    seeds = [first_pixel(mask.shape, outline) for outline in found]
    order = sorted(range(len(found)), key=lambda index: seeds[index][::-1])
    return [found[index] for index in order], [seeds[index] for index in order]


def first_pixel(shape, outline):
    rows, columns = np.nonzero(pixels(shape, outline))
    return int(columns[0]), int(rows[0])


def pixels(shape, outline):
    return rasterize([outline], shape).astype(bool)


def statistics(mask, values):
    """Sum, count, lowest and highest value of each landslide, (n, 4); NaN is skipped."""
    rows = []
    for outline in trace(mask)[0]:
        inside = values[pixels(mask.shape, outline)].astype(np.float64)
        inside = inside[np.isfinite(inside)]
        rows.append([inside.sum(), inside.size, inside.min(initial=np.inf), inside.max(initial=-np.inf)])
    return np.array(rows).reshape(-1, 4)


def same_vertices(one, other):
    """True if two polygons have the same rings with the same vertices in the same order."""
    parts = [[polygon.exterior, *polygon.interiors] for polygon in (one, other)]
    return len(parts[0]) == len(parts[1]) and all(
        np.array_equal(shapely.get_coordinates(a), shapely.get_coordinates(b)) for a, b in zip(*parts, strict=True)
    )
