"""Fill pixels without data from their neighbours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from lim_keras.raster.validity import Mask, Pixels

FILL_REACH = 256  # largest distance, pixels, over which pixels without data are filled from pixels with data

_ROWS = 256  # rows that are filled at once


def fill_nodata(image: Pixels, valid: Mask, *, reach: float = np.inf, beyond: ArrayLike | None = None) -> Pixels:
    """Fill pixels without data from their nearest pixel with data, so that the edge of the data has no contrast.

    Args:
        image: pixels (height, width, bands).
        valid: pixels with data (height, width).
        reach: largest distance over which pixels are filled, pixels; exact to within 4 % (OpenCV's distance transform).
        beyond: one value per band, of pixels farther than `reach` from any data.

    Returns:
        The filled image (height, width, bands); `image` itself if all pixels hold data.

    Raises:
        ValueError: no pixel holds data, and `beyond` is None.
    """
    if valid.all():
        return image
    if not valid.any():
        if beyond is None:
            raise ValueError("Invalid value for argument `valid`. Expected a pixel with data. Received: none")
        return np.broadcast_to(_as_pixel(beyond, image.dtype), image.shape).copy()
    # With DIST_LABEL_PIXEL, each pixel gets the number of its nearest pixel with data; OpenCV counts them row by row.
    distance, nearest = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    positions = np.flatnonzero(valid)
    filled: Pixels = image.copy()
    known = filled.reshape(-1, image.shape[2])
    for top in range(0, len(valid), _ROWS):  # indices of all gaps at once take more memory than the image
        rows = slice(top, top + _ROWS)
        gaps = ~valid[rows]
        if gaps.any():
            filled[rows][gaps] = known[positions[nearest[rows][gaps] - 1]]
            if beyond is not None:
                filled[rows][distance[rows] > reach] = _as_pixel(beyond, image.dtype)
    return filled


def _as_pixel(values: ArrayLike, dtype: np.dtype[Any]) -> Pixels:
    pixel = np.asarray(values, np.float64)
    return (np.rint(pixel) if dtype.kind in "ui" else pixel).astype(dtype)
