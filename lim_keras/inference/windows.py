"""Halo arithmetic: how a scene is cut into overlapping reads whose cores tile it exactly. Integers only, no pixels."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half open: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

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


@dataclass(frozen=True, slots=True)
class Window:
    """One read of a scene: what is read, and the core inside it whose prediction is kept."""

    read: Box
    core: Box

    @property
    def inner(self) -> Box:
        """The core in the coordinates of the read box."""
        top, left = self.core.top - self.read.top, self.core.left - self.read.left
        return Box(top, left, top + self.core.height, left + self.core.width)


def plan_windows(height: int, width: int, *, tile: int = 1536, halo: int = 256, multiple: int = 64) -> list[Window]:
    """Cut a scene into windows with a halo, row by row.

    Cores do not overlap and cover every pixel once. A read box is its core and the halo around it, clipped to the
    scene. Every read starts at a multiple of `multiple`: where that is a multiple of the network's stride, pooling
    falls on the same pixels in a window as in the whole scene, so that with a halo of at least the network's receptive
    field both give the same prediction.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        tile: longest side of a read box, in pixels; bounds the memory of a prediction.
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
    margin = -(-halo // multiple) * multiple
    core = (tile - 2 * margin) // multiple * multiple
    if core < multiple:
        raise ValueError(
            f"Invalid value for argument `tile`. Expected at least {2 * margin + multiple} (two halos of {margin} px "
            f"and one step of {multiple} px). Received: tile={tile}"
        )
    columns = list(_spans(width, core, margin))
    return [
        Window(Box(top, left, bottom, right), Box(core_top, core_left, core_bottom, core_right))
        for top, core_top, core_bottom, bottom in _spans(height, core, margin)
        for left, core_left, core_right, right in columns
    ]


def _spans(length: int, core: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Along one axis: start of the read, start and stop of the core, stop of the read."""
    for start in range(0, length, core):
        stop = min(start + core, length)
        yield max(start - margin, 0), start, stop, min(stop + margin, length)
