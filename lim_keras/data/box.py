"""Rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half open: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def sized(cls, top: int, left: int, height: int, width: int) -> Self:
        """The rectangle of so many rows and columns from (top, left) on."""
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
        """The same rectangle that many rows farther down and columns farther right."""
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def grown(self, margin: int, height: int, width: int) -> Box:
        """The rectangle and `margin` pixels around it, inside a scene of height x width."""
        return Box(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, height),
            min(self.right + margin, width),
        )

    def inside(self, other: Box) -> Box:
        """The same rectangle in the coordinates of another one."""
        return self.shifted(-other.top, -other.left)
