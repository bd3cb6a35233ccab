"""Shifts of masks against their images, from the agreement of mask outlines with edges of the image.

For each shift, the image gradient along the normal of the outline is averaged over the outline. A correct mask has the
largest average without a shift. Strong gradients are clipped, so that one bright road does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass
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

_MIN_OUTLINE = 24.0
"""Shortest outline, pixels."""

_SIGMA, _MASK_SIGMA, _CLIP_PERCENTILE = 1.5, 1.0, 90
_VISIBLE_SHARE = 0.5
"""Smallest share of the outline that lies in the image after a shift."""

_OFFSETS = np.arange(-REACH, REACH + 1)
_DISTANCE = np.hypot(*np.meshgrid(_OFFSETS, _OFFSETS))

STRONG = (3.5, 1.0)
WEAK = (2.5, 0.75)
"""Height of the peak, and its margin over the agreement without a shift, in standard deviations of all shifts. Weak
evidence counts only beside strong evidence of the same shift in other tiles."""


@dataclass(frozen=True, slots=True)
class ShiftEstimate:
    """Shift of a mask that fits the image best.

    Attributes:
        dx, dy: pixels to the right and down by which the mask must move.
        peak, margin: height of the best agreement, and its margin over the mask as it is, in standard deviations.
    """

    dx: int
    dy: int
    peak: float
    margin: float

    @property
    def distance(self) -> float:
        """Length of the shift, pixels."""
        return float(np.hypot(self.dx, self.dy))

    def exceeds(self, limits: tuple[float, float]) -> bool:
        """Return whether peak and margin exceed limits and the shift is long enough to matter."""
        return self.distance >= _LEAST_SHIFT and self.peak > limits[0] and self.margin > limits[1]

    def __str__(self) -> str:
        across = f"{abs(self.dx)} px {'right' if self.dx > 0 else 'left'}"
        down = f"{abs(self.dy)} px {'down' if self.dy > 0 else 'up'}"
        return ", ".join(text for text, size in ((across, self.dx), (down, self.dy)) if size) or "0 px"


def shift_agreement(image: Array, mask: Labels) -> Array | None:
    """Measure how well the outline of a mask fits the edges of the image, for all shifts up to `REACH`.

    Args:
        image: (height, width, bands); the first three bands count.
        mask: (height, width) {0, 1, 255}.

    Returns:
        (2 REACH + 1, 2 REACH + 1) float32, rows dy and columns dx, in standard deviations above the median; None for
        tiles that are too small or have too short an outline.
    """
    if min(mask.shape) < 2 * REACH:
        return None
    outline = _outline(mask)
    weight = np.hypot(*outline)
    if weight.sum() < _MIN_OUTLINE * 8:  # a Sobel filter of a step of 1 sums to 8 per pixel of the outline
        return None
    visible = _correlate([(np.ones(mask.shape, np.float32), weight)]) / weight.sum()
    root = np.sqrt(weight + 1e-9)
    across, down = outline[0] / root, outline[1] / root
    terms = [(across * across, 0, 0, 1.0), (across * down, 0, 1, 2.0), (down * down, 1, 1, 1.0)]
    energy = _energy(image)
    agreement = _correlate([(factor * energy[(i, j)], kernel) for kernel, i, j, factor in terms])
    agreement /= np.maximum(visible, 1e-6)
    usable = (visible > _VISIBLE_SHARE) & (_DISTANCE <= REACH)
    if not usable[REACH, REACH] or usable.sum() < _DISTANCE.size // 4:
        return None
    values = agreement[usable]
    deviation = values.std()
    if not deviation > 1e-9:
        return None
    return np.where(usable, (agreement - np.median(values)) / deviation, 0).astype(np.float32)


def best_shift(agreement: Array) -> ShiftEstimate:
    """Return the shift of the best agreement."""
    row, column = np.unravel_index(int(agreement.argmax()), agreement.shape)
    peak, here = float(agreement.max()), float(agreement[_DISTANCE <= _NEAR].max())
    return ShiftEstimate(int(column) - REACH, int(row) - REACH, peak, peak - here)


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
    ignored = mask == IGNORED
    if ignored.any():
        near = cv2.dilate(ignored.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        x[near] = y[near] = 0
    return x, y


def _energy(image: Array) -> dict[tuple[int, int], Array]:
    """Return the products of the clipped gradient (x, y), summed over bands."""
    energy = {(i, j): np.zeros(image.shape[:2], np.float32) for i, j in ((0, 0), (0, 1), (1, 1))}
    for band in np.moveaxis(image[..., :3], -1, 0):
        smooth = cv2.GaussianBlur(np.ascontiguousarray(band, np.float32), (0, 0), _SIGMA)
        gradient = [cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))]
        length = np.hypot(*gradient)
        scale = 1 / np.maximum(length, max(float(np.percentile(length, _CLIP_PERCENTILE)), 1e-6))
        for (i, j), total in energy.items():
            total += gradient[i] * gradient[j] * scale * scale
    return energy


def _correlate(pairs: list[tuple[Array, Array]]) -> Array:
    """Return the sum over (image, kernel) pairs of the correlation at all shifts up to `REACH`."""
    size = [cv2.getOptimalDFTSize(side + REACH) for side in pairs[0][0].shape]
    product = sum(np.fft.rfft2(image, size) * np.conj(np.fft.rfft2(kernel, size)) for image, kernel in pairs)
    return np.asarray(np.fft.irfft2(product, size)[np.ix_(_OFFSETS % size[0], _OFFSETS % size[1])])
