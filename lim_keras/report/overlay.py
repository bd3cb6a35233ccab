"""Overlay of prediction and truth on an image."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

from lim_keras.errors import DataError
from lim_keras.report.style import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE

IGNORE = 255

Pixel = TypeVar("Pixel", np.uint8, np.float32)

FILL_SHARE, SATURATION, IGNORED_LIGHT = 0.72, 0.45, 0.45


def as_picture(image: ArrayLike) -> NDArray[np.uint8]:
    """Convert an image to RGB: its first three bands, or the first as grey.

    uint8 is kept; other types are stretched from the 2nd to the 98th percentile of their finite values.

    Args:
        image: (h, w) or (h, w, bands).

    Returns:
        (h, w, 3) uint8.

    Raises:
        DataError: `image` has another shape, or no pixel.
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise DataError(f"Expected `image` of shape (h, w[, bands]). Received: shape {pixels.shape}.")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
    stretched = 255 * (np.nan_to_num(pixels.astype(np.float32), nan=low) - low) / max(high - low, 1e-12)
    return np.clip(stretched, 0, 255).astype(np.uint8)


def colour_overlay(
    image: ArrayLike, mask: ArrayLike, prediction: ArrayLike, threshold: float = 0.5
) -> NDArray[np.uint8]:
    """Colour true positives, false positives and false negatives on a paler image.

    Args:
        image: see `as_picture`.
        mask: (h, w), 1 landslide, 0 background, 255 ignore; ignored pixels are darkened.
        prediction: (h, w), a probability 0..1 or a mask of 0 and 1.
        threshold: probability from which a pixel is landslide.

    Returns:
        (h, w, 3) uint8.

    Raises:
        DataError: shapes differ.
    """
    picture, truth, predicted = as_picture(image), np.asarray(mask), np.asarray(prediction)
    for name, values in (("mask", truth), ("prediction", predicted)):
        if values.shape != picture.shape[:2]:
            raise DataError(f"Expected `{name}` of the image's shape {picture.shape[:2]}. Received: {values.shape}.")
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    result = grey + SATURATION * (picture - grey)
    landslide, found = truth == 1, predicted >= threshold
    outcomes = (
        (landslide & found, TRUE_POSITIVE),
        ((truth == 0) & found, FALSE_POSITIVE),
        (landslide & ~found, FALSE_NEGATIVE),
    )
    for where, colour in outcomes:
        result[where] += FILL_SHARE * (255 * np.array(to_rgb(colour), np.float32) - result[where])
    result[truth == IGNORE] *= IGNORED_LIGHT
    return np.clip(result, 0, 255).astype(np.uint8)


def shrink(picture: NDArray[Pixel], longest: int) -> NDArray[Pixel]:
    """Shrink a picture by area averages to at most `longest` pixels on its longer side."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), picture.dtype)
