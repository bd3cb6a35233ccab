"""Sharpness of images: Laplacian energy, highest frequency with detail, and blocks of JPEG compression."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MIN_SIDE = 32
"""Smallest side of a tile whose sharpness is measured, pixels."""

_LARGEST_CROP = 512
_RINGS = 32
_LIMITS = tuple(ring / _RINGS for ring in (8, 10, 12, 14, 16, 18, 20, 22, 24))
_EMPTY = 0.02
"""Limits are fractions of the Nyquist frequency. An image holds no detail above a limit if the mean power there is less
than `_EMPTY` times the mean power in the octave below."""

_REPEATED = 0.05
"""Largest ratio of the steps inside a repeated pixel to the steps between two of them."""

_BLOCK, _CHANCE = 8, 3.0
"""Side of a JPEG block, pixels, and number of standard errors that are subtracted from the strength."""


def laplacian_sharpness(grey: Array, counted: NDArray[np.bool_]) -> float:
    """Return log10 of the Laplacian energy over the gradient energy, which does not depend on contrast.

    Args:
        grey: (height, width) float32.
        counted: (height, width), pixels to measure; NaN is returned for fewer than 256 pixels.
    """
    inside = cv2.erode(counted.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    if inside.sum() < 256:
        return float("nan")
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)[inside]
    slope = cv2.Sobel(grey, cv2.CV_32F, 1, 0)[inside] ** 2 + cv2.Sobel(grey, cv2.CV_32F, 0, 1)[inside] ** 2
    energy = float(slope.mean())
    return float(np.log10(max(float((laplacian**2).mean()), 1e-12) / energy)) if energy > 1e-9 else float("nan")


def detail_limit(grey: Array, noise: float = 0.0) -> float:
    """Return the fraction of the Nyquist frequency above which the image holds no detail; 1 if it has detail up to it.

    Args:
        grey: (height, width) float32.
        noise: variance of rounding errors, which is subtracted; 1/12 for whole numbers.

    Returns:
        0.25 to 1; NaN for images that are small or have no contrast.
    """
    if min(grey.shape) < MIN_SIDE:
        return float("nan")
    power = _ring_power(grey, noise)
    if not power[2] > 0:
        return float("nan")
    for limit in _LIMITS:
        ring = round(limit * _RINGS)
        below, above = power[ring // 2 : ring].mean(), power[ring:].mean()
        if below > 4 * noise and above < _EMPTY * below:
            return limit
    return 1.0


def _ring_power(grey: Array, noise: float) -> Array:
    """Return the mean power in rings from frequency 0 to Nyquist, less that of noise."""
    top, left = (max(0, (side - _LARGEST_CROP) // 2) for side in grey.shape)
    crop = grey[top : top + _LARGEST_CROP, left : left + _LARGEST_CROP]
    window = np.outer(*(np.hanning(side) for side in crop.shape))
    spectrum = np.abs(np.fft.rfft2(((crop - crop.mean()) * window).astype(np.float32))) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(crop.shape[0])[:, None], np.fft.rfftfreq(crop.shape[1])[None])
    ring = (frequency / 0.5 * _RINGS).astype(int).ravel()
    counts = np.bincount(ring, minlength=_RINGS)[:_RINGS]
    totals = np.bincount(ring, spectrum.ravel(), _RINGS)[:_RINGS]
    return np.asarray(np.maximum(totals / np.maximum(counts, 1) - noise, 0))


def repeated_pixels(grey: Array) -> int:
    """Return the factor, 2 to 4, by which an image was enlarged by repeating its pixels; 1 if it was not."""
    for factor in (4, 3, 2):
        if all(_is_repeated(one, factor) for one in (grey, grey.T)):
            return factor
    return 1


def _is_repeated(grey: Array, factor: int) -> bool:
    if grey.shape[1] < 4 * factor:
        return False
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    phases = np.array([steps[phase::factor].mean() for phase in range(factor)])
    return bool(np.sort(phases)[-2] <= _REPEATED * phases.max() and phases.max() > 0)


def block_strength(grey: Array) -> float:
    """Return how far steps at every eighth pixel exceed the other steps, as a ratio; about 0 without blocks.

    The blocks may begin at any pixel, because tiles are cut from larger images. The smaller strength of both directions
    is returned.
    """
    if min(grey.shape) < 2 * MIN_SIDE:
        return float("nan")
    return min(_periodic_steps(grey), _periodic_steps(grey.T))


def _periodic_steps(grey: Array) -> float:
    """Return the excess of steps between columns at a distance of 8, less the excess that is expected by chance."""
    # A second difference is small on slopes; the step between two blocks stands out from those on both sides.
    steps = np.abs(np.diff(grey, axis=1))
    extra = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
    typical = float(steps.mean())
    if not typical > 0:
        return float("nan")
    columns = np.clip(extra / typical, -3, 3)
    phases = np.array([columns[:, phase::_BLOCK].mean() for phase in range(_BLOCK)])
    chance = float(columns.std()) / (columns.size / _BLOCK) ** 0.5
    return float(phases.max() - np.median(phases) - _CHANCE * chance)
