"""Counts of the features of a file of labels, and the landslides that give no pixel."""

from __future__ import annotations

from dataclasses import dataclass

OUTSIDE, OUTSIDE_AOI, TOO_SMALL = "outside every scene", "outside the mapped area", "holds no pixel centre"


@dataclass(frozen=True)
class LostPolygon:
    """A landslide polygon that gives no pixel.

    Attributes:
        source: id of the feature.
        name: value of its column `id`, `name` or the like; "" without one.
        reason: `OUTSIDE`, `OUTSIDE_AOI` or `TOO_SMALL`.
    """

    source: int
    name: str
    reason: str


@dataclass(frozen=True)
class LabelReport:
    """Counts of the features of a file of labels; of a label raster, only `landslides` is not 0.

    Attributes:
        features: features of the layer.
        landslides: polygons that count as landslides, repeated ones left out; connected regions of a raster.
        uncertain: polygons that `ignore_where` selects.
        not_selected: features that neither condition selects.
        repaired: invalid polygons, which were repaired.
        repeated: polygons that repeat another one.
        empty: features without geometry or without area.
        lines, points: lines and points, which are no landslides.
        lost: landslides that give no pixel on the scenes so far.
    """

    features: int = 0
    landslides: int = 0
    uncertain: int = 0
    not_selected: int = 0
    repaired: int = 0
    repeated: int = 0
    empty: int = 0
    lines: int = 0
    points: int = 0
    lost: tuple[LostPolygon, ...] = ()
