"""Shifts of masks against their images, from the agreement of mask outlines with edges of the image.

For each shift, the image gradient along the normal of the outline is averaged over the outline. A correct mask has the
largest average without a shift. Strong gradients are clipped, so that one bright road does not decide. The best of many
shifts is often far above their mean by chance, so a single tile needs more evidence: see `ShiftEstimate.supported`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels

Array = NDArray[Any]

REACH = 16
"""Largest shift that is looked for, pixels."""

_NEAR = 2.0
_LEAST_SHIFT = 3.5
"""Shifts up to the first count as no shift; shifts below the second are not reported. Pixels."""

_MIN_OUTLINE, _LONG_OUTLINE = 24.0, 64.0
"""Shortest outline, pixels, that is measured, and that can tell a shift alone."""

_SIGMA, _MASK_SIGMA, _CLIP_PERCENTILE = 1.5, 1.0, 90
_VISIBLE_SHARE = 0.75
"""Smallest share of the outline that lies on labelled pixels after a shift."""

_LEAST_EDGE = 0.45
"""Smallest mean strength of the edges along a shifted outline; 1 is the strength at which edges are clipped."""

_EXTENT_SHARE = 0.5
"""Longest shift that a single tile can tell, as a share of the extent of its landslides."""

_PART = 12
"""Side of the squares of a chessboard that divides an outline into two parts, pixels."""

_OFFSETS = np.arange(-REACH, REACH + 1)
_DISTANCE = np.hypot(*np.meshgrid(_OFFSETS, _OFFSETS))

STRONG = (3.5, 1.0, 0.5)
WEAK = (2.5, 0.75, 0.0)
"""Height of the peak, and its margins over the agreement without a shift and over that of all other shifts, in standard
deviations of all shifts. Weak evidence counts only beside strong evidence of the same shift in other tiles."""


@dataclass(frozen=True, slots=True)
class ShiftEstimate:
    """Shift of a mask that fits the image best.

    Attributes:
        dx, dy: pixels to the right and down by which the mask must move.
        peak, margin: height of the best agreement, and its margin over the mask as it is, in standard deviations.
        lead: margin of the best agreement over that of shifts more than four pixels away.
        supported: whether the outline is long enough for the shift, lies on clear edges after it, and both of its
            parts fit best there.
    """

    dx: int
    dy: int
    peak: float
    margin: float
    lead: float
    supported: bool = True

    @property
    def distance(self) -> float:
        """Length of the shift, pixels."""
        return float(np.hypot(self.dx, self.dy))

    def exceeds(self, limits: tuple[float, float, float]) -> bool:
        """Return whether peak and margins exceed limits, and the shift is supported and long enough to matter."""
        heights = zip((self.peak, self.margin, self.lead), limits, strict=True)
        return self.supported and self.distance >= _LEAST_SHIFT and all(value > limit for value, limit in heights)

    def __str__(self) -> str:
        across = f"{abs(self.dx)} px {'right' if self.dx > 0 else 'left'}"
        down = f"{abs(self.dy)} px {'down' if self.dy > 0 else 'up'}"
        return ", ".join(text for text, size in ((across, self.dx), (down, self.dy)) if size) or "0 px"


@dataclass(frozen=True, slots=True)
class ShiftFit:
    """Fit of one mask to its image.

    Attributes:
        agreement: (2 REACH + 1, 2 REACH + 1) float32, rows dy and columns dx: agreement of outline and edges after each
            shift, in standard deviations above the median.
        best: shift of the best agreement.
    """

    agreement: Array
    best: ShiftEstimate


def fit_shift(image: Array, mask: Labels) -> ShiftFit | None:
    """Measure how well the outline of a mask fits the edges of the image, for all shifts up to `REACH`.

    Args:
        image: (height, width, bands); the first three bands count.
        mask: (height, width) {0, 1, 255}.

    Returns:
        The fit; None for tiles that are too small or have too short an outline.
    """
    if min(mask.shape) < 2 * REACH:
        return None
    outline, edges = _outline(mask), _Edges.of(image, mask)
    strength, visible, length = edges.along(outline)
    usable = (visible > _VISIBLE_SHARE) & (_DISTANCE <= REACH)
    if length < _MIN_OUTLINE or not usable[REACH, REACH] or usable.sum() < _DISTANCE.size // 4:
        return None
    agreement = _standardised(strength, usable)
    if agreement is None:
        return None
    best = best_shift(agreement)
    supported = (
        length >= _LONG_OUTLINE
        and best.distance <= _EXTENT_SHARE * _extent(mask)
        and float(strength[best.dy + REACH, best.dx + REACH]) >= _LEAST_EDGE
        and all(_fits(edges, part, usable, best) for part in _parts(outline))
    )
    return ShiftFit(agreement, replace(best, supported=supported))


def best_shift(agreement: Array) -> ShiftEstimate:
    """Return the shift of the best agreement."""
    row, column = (int(one) for one in np.unravel_index(int(agreement.argmax()), agreement.shape))
    peak, here = float(agreement.max()), float(agreement[_DISTANCE <= _NEAR].max())
    apart = np.hypot(np.arange(len(agreement))[:, None] - row, np.arange(len(agreement)) - column) > 2 * _NEAR
    return ShiftEstimate(column - REACH, row - REACH, peak, peak - here, peak - float(agreement[apart].max()))


def common_shift(total: Array, tiles: int) -> ShiftEstimate | None:
    """Return the shift that most of the tiles have in common; None if they fit as they are.

    Args:
        total: sum of the agreements of all tiles.
        tiles: number of tiles.
    """
    if tiles < 8:
        return None
    found = best_shift(total / tiles)
    # The mean over n tiles varies by 1 / sqrt(n) of a single tile; 3 of these are not due to chance.
    limit = 3 / np.sqrt(tiles)
    return found if found.distance > _NEAR and found.margin > limit and found.peak > 2 * limit else None


def agrees(one: ShiftEstimate, other: ShiftEstimate) -> bool:
    """Return whether two shifts are equal within two pixels."""
    return bool(np.hypot(one.dx - other.dx, one.dy - other.dy) <= _NEAR)


def _outline(mask: Labels) -> tuple[Array, Array]:
    """Return the gradient (x, y) of the smoothed mask; pixels near ignored ones are 0."""
    smooth = cv2.GaussianBlur(
        (mask == LANDSLIDE).astype(np.float32), (0, 0), _MASK_SIGMA, borderType=cv2.BORDER_REPLICATE
    )
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, borderType=cv2.BORDER_REPLICATE) for order in ((1, 0), (0, 1)))
    near = _near_ignored(mask)
    x[near] = y[near] = 0
    return x, y


def _near_ignored(mask: Labels) -> NDArray[np.bool_]:
    """Return the ignored pixels and those within 4 px of them, where edges belong to the missing data."""
    return cv2.dilate((mask == IGNORED).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0


def _parts(outline: tuple[Array, Array]) -> list[tuple[Array, Array]]:
    """Divide an outline into the two colours of a chessboard."""
    rows, columns = np.indices(outline[0].shape) // _PART
    return [(outline[0] * colour, outline[1] * colour) for colour in ((rows + columns) % 2, (rows + columns + 1) % 2)]


def _fits(edges: _Edges, part: tuple[Array, Array], usable: NDArray[np.bool_], best: ShiftEstimate) -> bool:
    """Return whether a part of the outline fits best after the same shift as the whole."""
    strength, _, length = edges.along(part)
    agreement = _standardised(strength, usable) if length else None
    return agreement is not None and agrees(best_shift(agreement), best)


def _extent(mask: Labels) -> int:
    """Return the shorter side of the box around all landslides, pixels."""
    _, _, width, height = cv2.boundingRect((mask == LANDSLIDE).astype(np.uint8))
    return min(width, height)


def _standardised(strength: Array, usable: NDArray[np.bool_]) -> Array | None:
    """Return standard deviations above the median of the usable shifts, 0 elsewhere; None if all are equal."""
    values = strength[usable]
    deviation = values.std()
    if not deviation > 1e-9:
        return None
    return np.where(usable, (strength - np.median(values)) / deviation, 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Edges:
    """Products of the clipped image gradient (x, y), means over bands, and 1 for labelled pixels, else 0."""

    products: dict[tuple[int, int], Array]
    labelled: Array

    @classmethod
    def of(cls, image: Array, mask: Labels) -> _Edges:
        """Measure the edges of an image; there are none near ignored pixels."""
        products = {(i, j): np.zeros(image.shape[:2], np.float32) for i, j in ((0, 0), (0, 1), (1, 1))}
        labelled = (~_near_ignored(mask)).astype(np.float32)
        bands = np.moveaxis(image[..., :3], -1, 0)
        for band in bands:
            smooth = cv2.GaussianBlur(np.ascontiguousarray(band, np.float32), (0, 0), _SIGMA)
            gradient = [cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))]
            length = np.hypot(*gradient)
            scale = 1 / np.maximum(length, max(float(np.percentile(length, _CLIP_PERCENTILE)), 1e-6))
            for (i, j), total in products.items():
                total += gradient[i] * gradient[j] * scale * scale * labelled / len(bands)
        return cls(products, labelled)

    def along(self, outline: tuple[Array, Array]) -> tuple[Array, Array, float]:
        """Return mean edge strength and visible share of an outline after each shift, and its length, pixels."""
        weight = np.hypot(*outline)
        total = max(float(weight.sum()), 1e-6)
        visible = _correlate([(self.labelled, weight)]) / total
        root = np.sqrt(weight + 1e-9)
        across, down = outline[0] / root, outline[1] / root
        terms = [(across * across, (0, 0), 1.0), (across * down, (0, 1), 2.0), (down * down, (1, 1), 1.0)]
        strength = _correlate([(factor * self.products[key], kernel) for kernel, key, factor in terms])
        # A Sobel filter sums to 8 per pixel of the outline.
        return strength / np.maximum(visible, 1e-6) / total, visible, float(weight.sum()) / 8


def _correlate(pairs: list[tuple[Array, Array]]) -> Array:
    """Return the sum over (image, kernel) pairs of the correlation at all shifts up to `REACH`."""
    size = [cv2.getOptimalDFTSize(side + REACH) for side in pairs[0][0].shape]
    product = sum(np.fft.rfft2(image, size) * np.conj(np.fft.rfft2(kernel, size)) for image, kernel in pairs)
    return np.asarray(np.fft.irfft2(product, size)[np.ix_(_OFFSETS % size[0], _OFFSETS % size[1])])
