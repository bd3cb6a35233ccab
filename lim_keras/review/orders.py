"""Orders in which an expert goes through landslides, and filters of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import shapely

from lim_keras.errors import ConfigError
from lim_keras.review.rows import KEY, Row

Order = Literal["doubtful", "largest", "north"]
Shown = Literal["open", "all", "accepted", "rejected", "unsure", "changed"]

ORDERS: tuple[str, ...] = get_args(Order)
SHOWN: tuple[str, ...] = get_args(Shown)

_UNKNOWN_DOUBT = 1.0


def doubt(row: Mapping[str, Any], threshold: float) -> float:
    """Measure how doubtful a landslide is, 0 to 2: fold models that disagree, and a probability near the threshold.

    The sum of 1 - `fold_agreement`, and of 1 - the distance of `probability_mean` from the threshold as a share of the
    largest possible distance. A part that is not known counts as 1.
    """
    agreement, probability = number(row, "fold_agreement"), number(row, "probability_mean")
    disagreement = _UNKNOWN_DOUBT if math.isnan(agreement) else 1 - agreement
    if math.isnan(probability):
        return disagreement + _UNKNOWN_DOUBT
    return disagreement + 1 - abs(probability - threshold) / max(threshold, 1 - threshold)


def ordered(rows: Sequence[Row], order: Order, threshold: float) -> list[int]:
    """Return the keys of landslides in an order.

    Args:
        rows: landslides of a review, see `lim_keras.review.store.ReviewStore.landslides`.
        order: "doubtful": the most doubtful first, see `doubt`; "largest": by area; "north": strips from the north to
            the south, by turns from west to east and from east to west.
        threshold: smallest probability of landslide of the map.

    Raises:
        ConfigError: unknown order.
    """
    if order not in ORDERS:
        raise ConfigError(f"Invalid value for `order`. Expected {', '.join(ORDERS)}. Received: {order!r}.")
    if order == "north":
        return _in_strips(rows)
    rank: Callable[[Row], float] = _by_area if order == "largest" else lambda row: -doubt(row, threshold)
    return [int(row[KEY]) for row in sorted(rows, key=lambda row: (rank(row), row[KEY]))]


def _by_area(row: Row) -> float:
    area = number(row, "area_m2")
    return math.inf if math.isnan(area) else -area


def _in_strips(rows: Sequence[Row]) -> list[int]:
    """Order landslides by strips, about as wide as the mean distance of neighbours allows to see at once."""
    if not rows:
        return []
    places = shapely.get_coordinates(shapely.point_on_surface([row["geometry"] for row in rows]), include_z=False)
    if len(places) < len(rows):  # a landslide without an outline
        return [int(row[KEY]) for row in rows]
    strips = max(1, round(math.sqrt(len(rows)) / 2))
    low, high = places[:, 1].min(), places[:, 1].max()
    step = (high - low) / strips or 1.0
    ranked = []
    for row, (x, y) in zip(rows, places.tolist(), strict=True):
        strip = min(int((high - y) / step), strips - 1)
        ranked.append((strip, x if strip % 2 == 0 else -x, int(row[KEY])))
    return [key for _, _, key in sorted(ranked)]


@dataclass(frozen=True)
class Filter:
    """Conditions on landslides; a value that is not known fulfils every condition but that of the status.

    Attributes:
        shown: "open": without a verdict; "changed": drawn, merged, split or with an edited outline; "all"; or a status.
        probability: least and largest mean probability.
        least_area_m2: smallest area.
        most_agreement: largest agreement of the fold models.
        least_slope_deg: smallest mean slope.
    """

    shown: Shown = "open"
    probability: tuple[float, float] = (0.0, 1.0)
    least_area_m2: float = 0.0
    most_agreement: float = 1.0
    least_slope_deg: float = 0.0

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a landslide fulfils all conditions."""
        return self.has_status(row) and self.measures_match(row)

    def measures_match(self, row: Mapping[str, Any]) -> bool:
        """Return whether a landslide fulfils all conditions but that of its status."""
        low, high = self.probability
        # A comparison with NaN is false, so each condition asks for its opposite.
        return not (
            number(row, "probability_mean") < low
            or number(row, "probability_mean") > high
            or number(row, "area_m2") < self.least_area_m2
            or number(row, "fold_agreement") > self.most_agreement
            or number(row, "slope_mean_deg") < self.least_slope_deg
        )

    def has_status(self, row: Mapping[str, Any]) -> bool:
        """Return whether a landslide fulfils the condition of its status."""
        if self.shown == "open":
            return not row.get("status")
        if self.shown == "changed":
            return bool(row.get("edited"))
        return self.shown in ("all", row.get("status"))


def number(row: Mapping[str, Any], name: str) -> float:
    """Return a number of a row; NaN where it is unknown."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else math.nan
