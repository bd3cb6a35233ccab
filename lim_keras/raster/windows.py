"""Pixel boxes, blocks, and windows with a halo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

BLOCK = 1024  # side of a block, pixels

_ALMOST = 1 / 8  # share of a window's side that the last window may lack, to be read in full size


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half open: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def sized(cls, top: int, left: int, height: int, width: int) -> Self:
        """Make a box of `height` rows and `width` columns that starts at (top, left)."""
        return cls(top, left, top + height, left + width)

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array of the whole scene."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def shifted(self, rows: int, columns: int) -> Box:
        """Move the box down and to the right."""
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def grown(self, margin: int, within: Box) -> Box:
        """Add `margin` pixels on each side, and cut the result at another box."""
        return Box(
            max(self.top - margin, within.top),
            max(self.left - margin, within.left),
            min(self.bottom + margin, within.bottom),
            min(self.right + margin, within.right),
        )

    def inside(self, other: Box) -> Box:
        """Convert the box to the coordinates of another one."""
        return self.shifted(-other.top, -other.left)


@dataclass(frozen=True, slots=True)
class Window:
    """A box to read, and the core inside it whose prediction is kept."""

    read: Box
    core: Box

    @property
    def inner(self) -> Box:
        """Core in the coordinates of the read box."""
        return self.core.inside(self.read)

    def shifted(self, rows: int, columns: int) -> Window:
        """Move the window down and to the right."""
        return Window(self.read.shifted(rows, columns), self.core.shifted(rows, columns))


def blocks(height: int, width: int, size: int | tuple[int, int] = BLOCK) -> Iterator[Box]:
    """Cut a scene into blocks of at most `size` (rows, columns), row by row."""
    rows, columns = (size, size) if isinstance(size, int) else size
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield Box(top, left, min(top + rows, height), min(left + columns, width))


def sample_boxes(height: int, width: int, *, side: int, count: int) -> Iterator[Box]:
    """Yield `count` x `count` boxes of at most `side` pixels a side, spread evenly over a scene."""
    for top in np.linspace(0, max(height - side, 0), count, dtype=int).tolist():
        for left in np.linspace(0, max(width - side, 0), count, dtype=int).tolist():
            yield Box(top, left, min(top + side, height), min(left + side, width))


def plan_windows(
    height: int, width: int, *, size: int | tuple[int, int] = 1536, halo: int = 256, multiple: int = 64
) -> list[Window]:
    """Cut a scene into windows with a halo, row by row.

    Cores do not overlap and cover every pixel once. A read box is its core and the halo around it, cut at the scene's
    edge. The last one of a row or column starts earlier if it is almost as large as the others, to get their size.
    Every read starts at a multiple of `multiple`. If `multiple` is a multiple of the network's stride,
    pooling falls on the same pixels in a window as in the whole scene. If the halo is at least the receptive field as
    well, both give the same prediction. A scene that fits into one window needs no halo.

    Args:
        height, width: size of the scene, pixels.
        size: largest number of rows and columns of a read box, pixels; limits the memory of a prediction.
        halo: pixels read beyond the core on every side, rounded up to `multiple`.
        multiple: grid that all boxes start on, pixels.

    Raises:
        ValueError: a value is not positive, or `size` leaves no core between two halos.
    """
    bounds = {"height": (height, 1), "width": (width, 1), "halo": (halo, 0), "multiple": (multiple, 1)}
    for name, (value, least) in bounds.items():
        if value < least:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an integer >= {least}. Received: {name}={value}"
            )
    return [window for row in window_rows(height, width, size=size, halo=halo, multiple=multiple) for window in row]


def window_rows(
    height: int, width: int, *, size: int | tuple[int, int], halo: int, multiple: int
) -> Iterator[list[Window]]:
    """Yield the windows of `plan_windows` row by row."""
    rows, columns = (size, size) if isinstance(size, int) else size
    margin = -(-halo // multiple) * multiple
    across = _spans(width, columns, margin, multiple)
    for top, core_top, core_bottom, bottom in _spans(height, rows, margin, multiple):
        yield [
            Window(Box(top, left, bottom, right), Box(core_top, core_left, core_bottom, core_right))
            for left, core_left, core_right, right in across
        ]


def smallest_side(halo: int, multiple: int) -> int:
    """Return the smallest side of a window, in pixels, that leaves a core between two halos."""
    return 2 * (-(-halo // multiple) * multiple) + multiple


def read_length(length: int, size: int, halo: int, multiple: int) -> int:
    """Return the pixels along an axis of `length` px that windows of `size` px read in all, halos included."""
    margin = -(-halo // multiple) * multiple
    return sum(stop - start for start, _, _, stop in _spans(length, size, margin, multiple))


def _spans(length: int, size: int, margin: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """Cut one axis: start of the read, start and stop of the core, stop of the read.

    A core at the scene's edge needs no halo there, so the first and the last core are larger.
    """
    if length <= size:
        return [(0, 0, length, length)]
    step = (size - 2 * margin) // multiple * multiple
    if step < multiple:
        raise ValueError(
            f"Invalid value for argument `size`. Expected at least {2 * margin + multiple} (two halos of {margin} px "
            f"and one step of {multiple} px), or {length}, the whole scene. Received: size={size}"
        )
    spans, start = [], 0
    whole = size // multiple * multiple
    latest = -(-(length - whole) // multiple) * multiple  # start of a read of full size that ends with the scene
    while start < length:
        read = max(start - margin, 0)
        stop = length if length - read <= size else (read + size - margin) // multiple * multiple
        if 0 < read - latest <= whole * _ALMOST:  # networks plan their memory anew for each size
            read = latest
        spans.append((read, start, stop, min(stop + margin, length)))
        start = stop
    return spans
