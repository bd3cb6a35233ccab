"""Checks of images: contrast, sharpness, duplicates, compression, values and bands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.audit.catalogue import check, skipped
from lim_keras.audit.measures import TileMeasures
from lim_keras.data.findings import Check, Evidence

Array = NDArray[Any]

_LOW_CONTRAST = 0.05
"""Smallest accepted ratio of the contrast to the median contrast of the set."""

_BLUR_DEVIATIONS, _BLUR_LEAST = 3.5, 0.35
"""Distance of sharpness (log10) below the median from which an image is blurred: in robust standard deviations, and
at least."""

DETAIL = 0.8
"""An image counts as enlarged if its detail ends below this fraction of the Nyquist frequency."""

BLOCKS = 0.05
"""Strength from which JPEG blocks count."""

_SAME_QUALITY, _UNEVEN = 3.0, 0.5
"""Largest difference of JPEG qualities that count as equal, and largest accepted difference between the shares of
blocky tiles among landslide tiles and among others."""

_STRONG_BLOCKS, _MINORITY = 0.1, 0.2
"""Blocks of the first strength are reported if at most the second share of the tiles has blocks."""

_ORDERS = 8.0
_SATURATED, _BLACK = 0.1, 0.02
_OTHER_ORDER, _THIS_ORDER = 6.0, 2.0
"""Distances from the median colours, in robust deviations. A swap is reported if the bands lie beyond the first as
they are, and within the second in another order."""

_MOST_BANDS = 6


def image_checks(measures: Sequence[TileMeasures]) -> list[Check]:
    """Check the images of all tiles."""
    constant = _constant(measures)
    enlarged = [
        Evidence(one.tile_id, 1 / one.detail_limit, f"detail ends at {one.detail_limit:.0%} of the finest possible")
        for one in measures
        if one.detail_limit < DETAIL
    ]
    flat = {one.tile_id for one in constant}
    duplicates, conflicts = _duplicates(measures)
    return [
        check("conflicting_labels", conflicts),
        check("constant", constant),
        check("blurred", [one for one in _blurred(measures) if one.tile_id not in flat]),
        check("upsampled", [one for one in enlarged if one.tile_id not in flat]),
        check("duplicates", duplicates),
        _jpeg_blocks(measures),
        check("value_range", _value_range(measures)),
        check("saturated", _saturated(measures)),
        check("black", [_black(one) for one in measures if one.black_share > _BLACK]),
        check("swapped_bands", _swapped(measures)),
        check("constant_bands", _constant_bands(measures)),
    ]


def robust(values: Array) -> tuple[float, float]:
    """Return the median and the robust standard deviation of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    median = float(np.median(finite))
    return median, float(1.4826 * np.median(np.abs(finite - median)))


def _constant(measures: Sequence[TileMeasures]) -> list[Evidence]:
    contrasts = np.array([one.contrast for one in measures])
    median, _ = robust(contrasts)
    return [
        Evidence(one.tile_id, -one.contrast, f"contrast {one.contrast:.3g}, median of the set {median:.3g}")
        for one in measures
        if one.contrast == 0 or one.contrast < _LOW_CONTRAST * median
    ]


def _blurred(measures: Sequence[TileMeasures]) -> list[Evidence]:
    median, deviation = robust(np.array([one.sharpness for one in measures]))
    limit = median - max(_BLUR_DEVIATIONS * deviation, _BLUR_LEAST)
    return [
        Evidence(
            one.tile_id,
            median - one.sharpness,
            f"{10 ** (one.sharpness - median):.0%} of the median fine detail of the set",
        )
        for one in measures
        if one.sharpness < limit
    ]


def _duplicates(measures: Sequence[TileMeasures]) -> tuple[list[Evidence], list[Evidence]]:
    """Return the equal images, and those of them whose labels differ."""
    equal: defaultdict[str, list[TileMeasures]] = defaultdict(list)
    for one in measures:
        equal[one.pixels].append(one)
    copies, conflicts = [], []
    for first, *others in equal.values():
        for one in others:
            how = (
                "the same file content" if one.file == first.file else "the same pixels, as stored, turned or mirrored"
            )
            copies.append(Evidence(one.tile_id, 1.0, how, first.tile_id))
            if one.labels != first.labels:
                pixels = f"{first.tile.landslide_px:,} and {one.tile.landslide_px:,} landslide px"
                difference = abs(first.tile.landslide_px - one.tile.landslide_px)
                conflicts.append(Evidence(one.tile_id, difference, pixels, first.tile_id))
    return copies, conflicts


def _jpeg_blocks(measures: Sequence[TileMeasures]) -> Check:
    known = [one for one in measures if np.isfinite(one.blocks)]
    if not known:
        return skipped("jpeg_blocks", "no tile is large enough")
    blocky = [one for one in known if one.blocks > BLOCKS]
    parts = {
        kind: sum(one.tile.kind == kind for one in blocky) / max(1, sum(one.tile.kind == kind for one in known))
        for kind in ("landslide", "non-landslide")
    }
    note = f"visible in {len(blocky):,} of {len(known):,} tiles: " + ", ".join(
        f"{share:.0%} of the {kind} tiles" for kind, share in parts.items()
    )
    qualities = np.array([one.jpeg_quality for one in measures])
    if np.isfinite(qualities).all() and np.ptp(qualities) <= _SAME_QUALITY:
        return check("jpeg_blocks", (), note=f"all files are JPEG of one quality; {note}")
    share = len(blocky) / max(1, len(known))
    if abs(parts["landslide"] - parts["non-landslide"]) > _UNEVEN:
        odd = blocky if share <= 0.5 else [one for one in known if one.blocks <= BLOCKS]
        return check("jpeg_blocks", [_blocks(one) for one in odd], note=note)
    strong = [one for one in blocky if one.blocks > _STRONG_BLOCKS] if share <= _MINORITY else []
    return check("jpeg_blocks", [_blocks(one) for one in strong], note=note)


def _blocks(one: TileMeasures) -> Evidence:
    return Evidence(one.tile_id, abs(one.blocks), f"steps at block edges {one.blocks:+.0%}, {one.tile.kind} tile")


def _value_range(measures: Sequence[TileMeasures]) -> list[Evidence]:
    levels = np.array([_level(one) for one in measures])
    median, _ = robust(levels)
    distance = np.abs(levels - median)
    return [
        Evidence(one.tile_id, float(far), f"largest value {_highest(one):.4g}, usually about {10**median:.4g}")
        for one, far in zip(measures, distance, strict=True)
        if far > np.log10(_ORDERS)
    ]


def _highest(one: TileMeasures) -> float:
    return max((abs(end) for band in one.bands for end in (band.low, band.high)), default=float("nan"))


def _level(one: TileMeasures) -> float:
    highest = _highest(one)
    return float(np.log10(highest)) if highest > 0 else float("nan")


def _saturated(measures: Sequence[TileMeasures]) -> list[Evidence]:
    highest = np.max([[band.high for band in one.bands] for one in measures if one.bands] or [[0.0]], axis=0)
    found = []
    for one in measures:
        shares = [band.share_at_high for band, top in zip(one.bands, highest, strict=False) if band.high == top]
        share = max(shares, default=0.0)
        if share > _SATURATED and one.contrast > 0:
            found.append(Evidence(one.tile_id, share, f"{share:.0%} of the pixels hold the largest value"))
    return found


def _black(one: TileMeasures) -> Evidence:
    return Evidence(one.tile_id, one.black_share, f"{one.black_share:.0%} of the pixels are 0 in all bands")


def _constant_bands(measures: Sequence[TileMeasures]) -> list[Evidence]:
    found = []
    for one in measures:
        flat = [number for number, band in enumerate(one.bands, 1) if band.std == 0]
        if flat and one.contrast > 0 and len(one.bands) > 1:
            listed = ", ".join(map(str, flat))
            found.append(Evidence(one.tile_id, len(flat), f"band {listed} holds one value"))
    grey = [one for one in measures if one.equal_bands and one.contrast > 0]
    if 0 < len(grey) < len(measures):
        found += [Evidence(one.tile_id, 1.0, "all bands are equal: a grey image") for one in grey]
    return found


def _swapped(measures: Sequence[TileMeasures]) -> list[Evidence]:
    """Find tiles whose band means fit the median colours of the set in another order much better."""
    known = [one for one in measures if len(one.bands) > 1 and all(band.std > 0 for band in one.bands)]
    if len(known) < 8 or not 1 < len(known[0].bands) <= _MOST_BANDS:
        return []
    colours = np.array([[band.mean for band in one.bands] for one in known])
    colours -= colours.mean(axis=1, keepdims=True)
    centre = np.median(colours, axis=0)
    deviation = np.maximum(1.4826 * np.median(np.abs(colours - centre), axis=0), 1e-9)
    found = []
    for one, colour in zip(known, colours, strict=True):
        here = _distance(colour, centre, deviation)
        if here > _OTHER_ORDER:
            orders = [
                (_distance(colour[list(order)], centre, deviation), order) for order in permutations(range(len(colour)))
            ]
            best, order = min(orders)
            if best < _THIS_ORDER:
                listed = ", ".join(str(band + 1) for band in order)
                found.append(Evidence(one.tile_id, here - best, f"the order {listed} fits the other tiles"))
    return found


def _distance(colour: Array, centre: Array, deviation: Array) -> float:
    return float(np.abs((colour - centre) / deviation).max())
