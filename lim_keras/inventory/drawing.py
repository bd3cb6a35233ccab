"""Fill holes of landslides, simplify and measure their outlines, and leave out small and flat landslides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lim_keras.inventory.attributes import Columns, outline_attributes, pixel_attributes
from lim_keras.inventory.groups import Landslides
from lim_keras.inventory.pipeline import mapped
from lim_keras.inventory.polygons import HoleFiller, complete_groups, polygons_of, rings_of, simplify
from lim_keras.inventory.tracing import Rings
from lim_keras.raster.georeference import Georeference

if TYPE_CHECKING:
    from lim_keras.inventory.landslides import InventoryTotals
    from lim_keras.inventory.options import InventoryOptions

Drawn = tuple[Rings, Columns]
"""Outlines (n,) in pixels, and columns (n,) of their landslides."""

_TOUCHING = 2**15  # touching landslides that may wait for others before they are simplified


@dataclass(frozen=True)
class Drawing:
    """Options for drawing outlines, and totals that count the landslides that are left out."""

    ground: Georeference
    options: InventoryOptions
    totals: InventoryTotals

    def _measured(self, drawn: Iterator[Drawn]) -> Iterator[Drawn]:
        """Add the attributes of the outlines; leave out landslides with a known area below `min_area_m2`."""

        def measure(one: Drawn) -> Columns:
            return outline_attributes(one[0], self.ground)

        for (outlines, columns), measures in mapped(measure, drawn):
            measured = measures | columns
            small = measured["area_m2"] < (self.options.min_area_m2 or 0)
            self.totals.dropped_small += int(small.sum())
            yield _select(outlines, measured, ~small)

    def _flagged(self, outlines: Rings, columns: Columns) -> Drawn:
        """Flag landslides below the smallest slope, and drop them if `drop_flat`. Unknown slopes get no flag."""
        if self.options.min_slope_deg is None:
            return outlines, columns
        flat = columns["slope_mean_deg"] < self.options.min_slope_deg
        dropped = flat & self.options.drop_flat
        self.totals.dropped_flat += int(dropped.sum())
        return _select(outlines, columns | {"below_min_slope": flat}, ~dropped)

    def draw(self, landslides: Iterator[Landslides], folds: int) -> Iterator[Drawn]:
        """Draw landslides that come in row order of their first pixels; `folds`: number of models that voted."""
        drawn = self._filled(landslides, folds)
        if self.options.simplify_m and self.ground.gsd_m is not None:
            # Small landslides are dropped first, because simplifying them would take most of the time.
            drawn = _simplified(self._measured(drawn), self.options.simplify_m / self.ground.gsd_m)
        return (self._flagged(*one) for one in self._measured(drawn))

    def _filled(self, landslides: Iterator[Landslides], folds: int) -> Iterator[Drawn]:
        """Fill holes, and leave out landslides in them."""
        filler = HoleFiller(self.options.fill_holes_m2, self.ground)
        for rings, pixels in landslides:
            columns = pixel_attributes(pixels, folds)
            if not self.options.fill_holes_m2:
                yield rings, columns
                continue
            starts = rings.points[np.cumsum(rings.ring_sizes) - rings.ring_sizes]
            seeds = starts[np.cumsum(rings.rings) - rings.rings]
            outlines, swallowed = filler.fill(polygons_of(rings), seeds.astype(np.float64))
            self.totals.swallowed += int(swallowed.sum())
            yield _select(rings_of(outlines), columns, ~swallowed)


def _simplified(drawn: Iterator[Drawn], tolerance_px: float) -> Iterator[Drawn]:
    """Simplify groups of touching outlines together, as soon as a group is complete."""
    waiting: list[Drawn] = []
    for one in drawn:
        waiting = [_joined([*waiting, one])]
        outlines, columns = waiting[0]
        ready = complete_groups(outlines) if len(outlines) else 0
        if not ready and len(outlines) > _TOUCHING:
            ready = len(outlines)
        if ready:
            chosen = np.arange(len(outlines)) < ready
            done, waiting = _select(outlines, columns, chosen), [_select(outlines, columns, ~chosen)]
            yield _simpler(done[0], tolerance_px), done[1]
    for outlines, columns in waiting:
        yield _simpler(outlines, tolerance_px), columns


def _simpler(outlines: Rings, tolerance_px: float) -> Rings:
    return rings_of(simplify(polygons_of(outlines), tolerance_px))


def _joined(parts: Sequence[Drawn]) -> Drawn:
    names = parts[0][1]
    columns = {name: np.concatenate([columns[name] for _, columns in parts]) for name in names}
    return Rings.joined([outlines for outlines, _ in parts]), columns


def _select(outlines: Rings, columns: Columns, kept: NDArray[np.bool_]) -> Drawn:
    if kept.all():
        return outlines, columns
    return outlines.take(np.flatnonzero(kept)), {name: column[kept] for name, column in columns.items()}
