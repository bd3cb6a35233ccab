"""Trace outlines of groups of pixels: find the corners in a mask, and link them to rings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from lim_keras.raster.windows import Box

Integers = NDArray[np.int64]
Numbers = NDArray[np.int32]

_SIDES = ((-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True)
class Corners:
    """Corners of outlines, (n,) each: the points where an outline turns, with a horizontal and a vertical edge.

    Attributes:
        column, row: position, counted from the upper left corner of the scene.
        right, down: direction of the edges; False: to the left, up.
        reflex: the quadrant between the two edges lies outside of the group; False: inside.
        group: number of the group of pixels.
    """

    column: Numbers
    row: Numbers
    right: NDArray[np.bool_]
    down: NDArray[np.bool_]
    reflex: NDArray[np.bool_]
    group: Numbers

    def __len__(self) -> int:
        return len(self.column)

    @classmethod
    def none(cls) -> Self:
        """Return no corners."""
        numbers, flags = np.zeros(0, np.int32), np.zeros(0, np.bool_)
        return cls(numbers, numbers, flags, flags, flags, numbers)

    @staticmethod
    def joined(parts: list[Corners]) -> Corners:
        """Concatenate corners."""
        return Corners(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Corners)))

    def take(self, chosen: NDArray[np.bool_] | Integers, group: Numbers) -> Corners:
        """Select corners, and renumber their groups by the array `group`."""
        turns = self.right[chosen], self.down[chosen], self.reflex[chosen]
        return Corners(self.column[chosen], self.row[chosen], *turns, group[self.group[chosen]])


def find_corners(around: NDArray[np.bool_], groups: Numbers, top: int, left: int) -> Corners:
    """Find the corners of the pixels of a box.

    Args:
        around: mask of the box and one more pixel on each side, (height + 2, width + 2).
        groups: group of each pixel of the box, (height, width), from 1; 0 for none.
        top, left: position of the box in the scene.
    """
    height, width = groups.shape
    middle, parts = around[1:-1, 1:-1], []
    for down, right in _SIDES:
        rows, columns = slice(1 + down, height + 1 + down), slice(1 + right, width + 1 + right)
        beside, above, across = around[1:-1, columns], around[rows, 1:-1], around[rows, columns]
        convex = middle > (beside | above)
        reflex = (middle & beside & above) > across
        for turns, is_reflex in ((convex, False), (reflex, True)):
            places = np.flatnonzero(turns)
            row, column = np.divmod(places.astype(np.int32), np.int32(width))
            row += top + (down > 0)
            column += left + (right > 0)
            toward = np.full(len(places), (right > 0) == is_reflex), np.full(len(places), (down > 0) == is_reflex)
            parts.append(Corners(column, row, *toward, np.full(len(places), is_reflex), groups.ravel()[places] - 1))
    return Corners.joined(parts)


@dataclass(frozen=True)
class Rings:
    """Outlines of n groups as closed rings, the outer ring of each group first.

    Attributes:
        points: vertices of all rings, (v, 2), (column, row); the last vertex of a ring repeats its first. They are
            whole numbers as long as outlines follow the sides of pixels.
        ring_sizes: number of vertices of each ring, (r,).
        rings: number of rings of each group, (n,).
    """

    points: Numbers | NDArray[np.float64]
    ring_sizes: Numbers
    rings: Numbers

    def __len__(self) -> int:
        return len(self.rings)

    @property
    def vertices(self) -> Integers:
        """Number of vertices of each outline, (n,)."""
        ends = np.cumsum(np.insert(self.ring_sizes, 0, 0), dtype=np.int64)
        return np.diff(ends[np.cumsum(np.insert(self.rings, 0, 0), dtype=np.int64)])

    @classmethod
    def none(cls) -> Self:
        """Return no outlines."""
        return cls(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32))

    def take(self, chosen: Integers) -> Rings:
        """Select outlines by index, in the order of the indices."""
        rings = ragged(self.rings, chosen)
        return Rings(self.points[ragged(self.ring_sizes, rings)], self.ring_sizes[rings], self.rings[chosen])

    @classmethod
    def joined(cls, parts: list[Rings]) -> Rings:
        """Concatenate outlines."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def ragged(sizes: NDArray[np.integer], chosen: Integers) -> Integers:
    """Return the indices of all elements of chosen lists in an array of lists of the given sizes, one after another."""
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    length = sizes[chosen]
    ends = np.cumsum(length, dtype=np.int64)
    count = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(count) + np.repeat(starts[chosen] - ends + length, length), np.int64)


def fill_rings(outlines: Rings, box: Box) -> NDArray[np.bool_]:
    """Return which pixels (height, width) of a box lie inside of outlines that follow the sides of pixels.

    Each vertical side inverts the pixels of its rows from its column on, so that holes stay outside. Outlines must not
    overlap.
    """
    column, row = outlines.points.T.astype(np.int64)
    is_start = np.ones(len(column), np.bool_)
    is_start[np.cumsum(outlines.ring_sizes, dtype=np.int64) - 1] = False
    start = np.flatnonzero(is_start)
    start = start[(column[start] == column[start + 1]) & (column[start] < box.right)]
    ends = np.clip(np.sort(np.stack([row[start], row[start + 1]]), axis=0), box.top, box.bottom) - box.top
    lengths = ends[1] - ends[0]
    first = np.cumsum(lengths) - lengths
    rows = np.arange(int(lengths.sum())) + np.repeat(ends[0] - first, lengths)
    columns = np.repeat(np.maximum(column[start] - box.left, 0), lengths)
    crossings = np.bincount(rows * box.width + columns, minlength=box.height * box.width) & 1
    shape = (box.height, box.width)
    return np.logical_xor.accumulate(crossings.astype(np.bool_).reshape(shape), axis=1)


def trace_rings(corners: Corners, count: int) -> tuple[Rings, Integers]:
    """Link the corners of `count` whole groups to outlines.

    Outlines are in row order of the groups' first pixels. A ring starts at its uppermost, then leftmost corner; the
    rings of an outline are in row order of their starts. Outer rings run down first, holes to the right. Pixels of a
    group that share a corner, but no side, are linked there, so that the outline is a valid polygon. The vertices
    equal those of GDAL's two-arm algorithm.

    Returns:
        The outlines, and the group of each.
    """
    following, corners = _link(corners)
    n = len(corners)
    graph = csr_array((np.ones(n, np.int8), following, np.arange(n + 1, dtype=np.int32)), shape=(n, n))
    number, ring = connected_components(graph, connection="strong")
    start = np.empty(number, np.int64)
    start[ring[::-1]] = np.arange(n - 1, -1, -1)
    owner = corners.group[start]
    first = np.full(count, n)
    np.minimum.at(first, owner, start)
    order = np.lexsort((start, first[owner]))
    sequence = _sequence(following, start[order])
    sizes = np.bincount(ring, minlength=number)[order]
    groups = np.argsort(first, kind="stable")
    closed = np.insert(sequence, np.cumsum(sizes), start[order])
    points = np.stack([corners.column[closed], corners.row[closed]], axis=-1)
    rings = np.bincount(owner, minlength=count)[groups].astype(np.int32)
    return Rings(points, (sizes + 1).astype(np.int32), rings), groups


def _link(corners: Corners) -> tuple[Numbers, Corners]:
    """Sort corners row by row, and find the next corner of each; the group lies on the left of each edge."""
    position = _key(corners.row, corners.column, corners.right)
    order = np.argsort(position)
    corners = corners.take(order, np.arange(int(corners.group.max()) + 1, dtype=np.int32))
    position = position[order] >> 1
    # Two corners at one point: pixels of one group that share only a corner. Each edge continues on the outside.
    twins = np.flatnonzero((position[1:] == position[:-1]) & (corners.group[1:] == corners.group[:-1]))
    down, reflex = corners.down.copy(), corners.reflex.copy()
    down[twins], down[twins + 1] = down[twins + 1], down[twins].copy()
    reflex[twins] = reflex[twins + 1] = True
    vertical = np.argsort(_key(corners.column, corners.row, down)).astype(np.int32)
    partner = np.empty(len(order), np.int32)
    partner[vertical[::2]], partner[vertical[1::2]] = vertical[1::2], vertical[::2]
    beside = np.arange(len(order), dtype=np.int32) ^ 1
    following = np.where((down == corners.right) ^ reflex, partner, beside)
    return following, Corners(corners.column, corners.row, corners.right, down, reflex, corners.group)


def _key(major: Numbers, minor: Numbers, forward: NDArray[np.bool_]) -> Integers:
    """Return sorting keys of corners along a line; at one point, an edge ends before another one starts."""
    return (major.astype(np.int64) << 32) | (minor.astype(np.int64) << 1) | forward


def _sequence(following: Numbers, starts: Integers) -> Numbers:
    """Return the corners in their order along the rings, ring by ring: the rings are cut, and linked to one path."""
    before = np.empty(len(following), np.int64)
    before[following] = np.arange(len(following))
    path = following.copy()
    path[before[starts]] = np.roll(starts, -1)
    n = len(path)
    graph = csr_array((np.ones(n, np.int8), path, np.arange(n + 1, dtype=np.int32)), shape=(n, n))
    return np.asarray(breadth_first_order(graph, int(starts[0]), return_predecessors=False))
