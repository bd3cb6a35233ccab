"""Index of boxes by their position."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from lim_keras.raster.windows import Box


class BoxIndex:
    """Boxes of at most `size` pixels a side, found by their position.

    Args:
        size: largest height and width of a box, pixels.
    """

    def __init__(self, size: int) -> None:
        self.boxes: list[Box] = []
        self._size = size
        self._cells: dict[tuple[int, int], list[Box]] = {}

    def add(self, box: Box) -> None:
        """Add a box."""
        self.boxes.append(box)
        self._cells.setdefault((box.top // self._size, box.left // self._size), []).append(box)

    def holds(self, inner: Box) -> bool:
        """Return whether a box lies inside one of the boxes."""
        return any(_is_inside(inner, box) for box in self._near(inner))

    def meets(self, box: Box, overlap: int = 0) -> bool:
        """Return whether a box shares more than `overlap` rows and more than `overlap` columns with one of the boxes.

        Args:
            box: box of at most `size` pixels a side.
            overlap: number of rows or columns, pixels.
        """
        return any(
            min(box.bottom, other.bottom) - max(box.top, other.top) > overlap
            and min(box.right, other.right) - max(box.left, other.left) > overlap
            for other in self._near(box)
        )

    def _near(self, box: Box) -> Iterator[Box]:
        """Yield the boxes that start in the cell of a box or in a cell beside it."""
        row, column = box.top // self._size, box.left // self._size
        for cell in product(range(row - 1, row + 2), range(column - 1, column + 2)):
            yield from self._cells.get(cell, ())


def _is_inside(inner: Box, outer: Box) -> bool:
    rows = outer.top <= inner.top and inner.bottom <= outer.bottom
    return rows and outer.left <= inner.left and inner.right <= outer.right
