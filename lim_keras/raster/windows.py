"""Pixel boxes, and windows with a halo whose cores tile a scene."""

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


@dataclass(frozen=True, slots=True)
class Window:
    """One read of a scene: what is read, and the core inside it whose prediction is kept."""

    read: Box
    core: Box

    @property
    def inner(self) -> Box:
        """The core in the coordinates of the read box."""
        return self.core.inside(self.read)

    def shifted(self, rows: int, columns: int) -> Window:
        """The same window that many rows farther down and columns farther right."""
        return Window(self.read.shifted(rows, columns), self.core.shifted(rows, columns))


def plan_windows(
    height: int, width: int, *, tile: int | tuple[int, int] = 1536, halo: int = 256, multiple: int = 64
) -> list[Window]:
    """Cut a scene into windows with a halo, row by row.

    Cores do not overlap and cover every pixel once. A read box is its core and the halo around it, clipped to the
    scene. Every read starts at a multiple of `multiple`: where that is a multiple of the network's stride, pooling
    falls on the same pixels in a window as in the whole scene, so that with a halo of at least the network's receptive
    field both give the same prediction. A scene that fits into one tile needs no halo.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        tile: most rows and columns of a read box, in pixels; bounds the memory of a prediction.
        halo: pixels read beyond the core on every side, rounded up to `multiple`.
        multiple: grid that the starts of all boxes lie on.

    Raises:
        ValueError: a size is not positive, or `tile` leaves no core between two halos.
    """
    for name, value, least in (
        ("height", height, 1),
        ("width", width, 1),
        ("halo", halo, 0),
        ("multiple", multiple, 1),
    ):
        if value < least:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an integer >= {least}. Received: {name}={value}"
            )
    rows, columns = (tile, tile) if isinstance(tile, int) else tile
    margin = -(-halo // multiple) * multiple
    across = _spans(width, columns, margin, multiple)
    return [
        Window(Box(top, left, bottom, right), Box(core_top, core_left, core_bottom, core_right))
        for top, core_top, core_bottom, bottom in _spans(height, rows, margin, multiple)
        for left, core_left, core_right, right in across
    ]


def smallest_tile(halo: int, multiple: int) -> int:
    """Fewest pixels a side of a tile that leave a core between two halos."""
    return 2 * (-(-halo // multiple) * multiple) + multiple


def _spans(length: int, tile: int, margin: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """Along one axis: start of the read, start and stop of the core, stop of the read.

    A core at the scene's edge needs no halo there, so the first and the last are larger.
    """
    if length <= tile:
        return [(0, 0, length, length)]
    step = (tile - 2 * margin) // multiple * multiple
    if step < multiple:
        raise ValueError(
            f"Invalid value for argument `tile`. Expected at least {2 * margin + multiple} (two halos of {margin} px "
            f"and one step of {multiple} px), or {length}, the whole scene. Received: tile={tile}"
        )
    spans, start = [], 0
    while start < length:
        read = max(start - margin, 0)
        stop = length if length - read <= tile else (read + tile - margin) // multiple * multiple
        spans.append((read, start, stop, min(stop + margin, length)))
        start = stop
    return spans
