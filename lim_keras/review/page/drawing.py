"""Drawing on the review page: its modes, and the outlines that come of drawn shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import shapely

from lim_keras.errors import DataError
from lim_keras.review.outlines import polygons_in
from lim_keras.review.page.plane import Plane

Mode = Literal["", "edit", "add", "cut", "draw", "split", "merge"]

MODES: Mapping[str, Mode] = {"e": "edit", "i": "add", "x": "cut", "d": "draw", "s": "split", "m": "merge"}
"""Mode of each key."""

_ENDS = "Enter or a double click ends, Backspace removes the last corner, Esc cancels."

HINTS: Mapping[Mode, str] = {
    "edit": "Drag the corners; a click on a corner removes it. Enter saves, Esc cancels.",
    "add": f"Draw around the ground to add. {_ENDS}",
    "cut": f"Draw around the ground to cut off. {_ENDS}",
    "draw": f"Draw around the missed landslide. {_ENDS}",
    "split": "Draw a line across the landslide. Enter or a double click ends, Esc cancels.",
    "merge": "Click the landslides to merge with this one. Enter or M merges them, Esc cancels.",
}
"""Text of each mode."""

_EDIT_TOLERANCE_PX, _EDIT_SHARE = 2.0, 0.02


def drawing_problem(mode: Mode, outline: Any) -> str:
    """Return why the outline of a landslide, maybe of another program, cannot be changed; "" if it can."""
    pieces = polygons_in(outline or shapely.Polygon())
    if mode == "draw" or len(pieces) == 1:
        return ""
    if not pieces:
        return "This landslide has no outline. The Delete key removes it if it was drawn."
    split = f"This outline has {len(pieces)} pieces. Split them first: S, and a line across it."
    return split if mode == "edit" else ""


def with_few_corners(outline: Any) -> Any:
    """Simplify an outline in pixels to corners that can be dragged; a small one is changed less."""
    left, top, right, bottom = outline.bounds
    return shapely.simplify(outline, min(_EDIT_TOLERANCE_PX, _EDIT_SHARE * max(right - left, bottom - top)))


def rings_to_edit(outline: Any) -> list[list[list[float]]]:
    """Return the corners of the rings of an outline's largest polygon, the outer ring first."""
    polygon = max(shapely.get_parts(outline), key=shapely.area)
    return [[list(point) for point in ring.coords[:-1]] for ring in (polygon.exterior, *polygon.interiors)]


def polygon_of(rings: Sequence[Sequence[Sequence[float]]]) -> Any:
    """Return the polygon of rings, the outer one first; it may cross itself."""
    return shapely.Polygon(rings[0], rings[1:])


def within_scene(drawn: Any, plane: Plane) -> Any:
    """Return the part of a drawn polygon that lies in the scene; pixels.

    Raises:
        DataError: all of it lies outside.
    """
    inside = shapely.intersection(shapely.make_valid(drawn), shapely.box(0, 0, plane.width, plane.height))
    if inside.area == 0 and drawn.area > 0:
        raise DataError("Expected an outline in the scene. Received: one outside of it. Draw it again.")
    return inside


def changed_outline(mode: Mode, present: Any, drawn: Any, plane: Plane) -> Any:
    """Return the outline of a landslide after "edit", "add" or "cut" by a drawn polygon; pixels.

    Raises:
        DataError: the drawn polygon lies outside the scene.
    """
    inside = within_scene(drawn, plane)
    if mode == "edit":
        return inside
    return shapely.union(present, inside) if mode == "add" else shapely.difference(present, inside)
