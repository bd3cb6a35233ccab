"""Outlines that experts draw: repair, union and division of polygons."""

from __future__ import annotations

from typing import Any

import shapely

from lim_keras.errors import DataError


def one_polygon(outline: Any) -> Any:
    """Return a drawn outline as one valid polygon with its outer ring counter-clockwise.

    Raises:
        DataError: the outline encloses no area, has coordinates that are not finite, or falls apart.
    """
    if not shapely.is_valid_input(outline) or outline.is_empty or not all(map(_finite, outline.bounds)):
        raise DataError("Expected an outline with finite coordinates. Draw it again.")
    flat = shapely.force_2d(outline)
    pieces = polygons_in(flat if flat.is_valid else shapely.make_valid(flat))
    if len(pieces) != 1:
        found = "a line or a point" if not pieces else f"{len(pieces)} pieces"
        raise DataError(f"Expected an outline of one piece. Received: {found}. Draw it again without crossings.")
    return shapely.geometry.polygon.orient(pieces[0])


def join(outlines: list[Any]) -> Any:
    """Return the union of outlines as one polygon.

    Raises:
        DataError: the outlines do not touch.
    """
    whole = polygons_in(shapely.union_all(outlines))
    if len(whole) != 1:
        raise DataError(
            f"Expected outlines that share a side or overlap. Received: {len(whole)} pieces apart. Edit one of them "
            "until they touch, or leave them apart."
        )
    return one_polygon(whole[0])


def divide(whole: Any, cut: Any) -> list[Any]:
    """Divide a polygon along a line, or into the part inside and the parts outside of a polygon; the largest first."""
    if cut.geom_type == "Polygon":
        found = [shapely.intersection(whole, cut), shapely.difference(whole, cut)]
    else:
        lines = shapely.union_all([whole.boundary, shapely.intersection(cut, whole)])
        faces = shapely.get_parts(shapely.polygonize([lines]))
        found = [one for one in faces if whole.covers(one.representative_point())]
    return sorted((part for one in found for part in polygons_in(one)), key=lambda one: -float(one.area))


def polygons_in(geometry: Any) -> list[Any]:
    """Return the polygons with an area in a geometry or a collection of any depth."""
    if geometry.geom_type == "Polygon":
        return [geometry] if geometry.area > 0 else []
    return [one for part in getattr(geometry, "geoms", ()) for one in polygons_in(part)]


def _finite(value: float) -> bool:
    return value - value == 0
