"""Map tiles: pictures of layers, cut into squares of 256 pixels that the browser asks for."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.raster.windows import Box
from lim_keras.review.page.plane import Plane

TILE_PX = 256
_OVERVIEW_PX = 2048
_JPEG_QUALITY, _WEBP_QUALITY = 88, 85

Image = NDArray[np.uint8]
"""Picture (height, width, 4): blue, green, red, alpha, as OpenCV has them."""


class Layer(ABC):
    """A picture of the whole plane, cut into tiles. Several threads may ask for tiles.

    A tile of zoom 0 shows one pixel of the plane in each of its pixels; each lower zoom halves the size. Tiles of a low
    zoom come from an overview, which is read once, so that the whole raster is not read for each of them.

    Args:
        plane: grid of the maps.
    """

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self._lock = threading.Lock()

    @abstractmethod
    def picture(self, box: Box, level: int) -> Image:
        """Read the picture of a box of the plane, reduced 2**level times."""

    @abstractmethod
    def whole(self, level: int) -> Image:
        """Read the picture of the plane, reduced about 2**level times."""

    @abstractmethod
    def close(self) -> None:
        """Close the files of the layer."""

    @cached_property
    def overview_level(self) -> int:
        """Number of halvings after which the plane fits into the overview."""
        return max(0, math.ceil(math.log2(max(self.plane.width, self.plane.height) / _OVERVIEW_PX)))

    def overview(self) -> Image:
        """Return the reduced picture of the plane; the first call reads the whole raster."""
        with self._lock:
            return self._overview

    @cached_property
    def _overview(self) -> Image:
        return self.whole(self.overview_level)

    def tile(self, zoom: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG, or as WebP where parts are transparent."""
        level = max(-zoom, 0)
        side = TILE_PX << level
        box = Box.sized(row * side, column * side, side, side)
        inside = box.grown(0, Box(0, 0, self.plane.height, self.plane.width))
        if inside.height <= 0 or inside.width <= 0:
            return _NOTHING
        far = level > 0 and level >= self.overview_level
        picture = self._from_overview(inside, level) if far else self.picture(inside, level)
        canvas = np.zeros((TILE_PX, TILE_PX, 4), np.uint8)
        top, left = (inside.top - box.top) >> level, (inside.left - box.left) >> level
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        return encoded(canvas)

    def _from_overview(self, box: Box, level: int) -> Image:
        whole, plane = self.overview(), self.plane
        down, across = whole.shape[0] / plane.height, whole.shape[1] / plane.width
        top, left = int(box.top * down), int(box.left * across)
        bottom, right = max(math.ceil(box.bottom * down), top + 1), max(math.ceil(box.right * across), left + 1)
        return reduced(whole[top:bottom, left:right], *reduced_size(box, level))


def reduced_size(box: Box, level: int) -> tuple[int, int]:
    """Return height and width of a box, reduced 2**level times."""
    return max(-(-box.height >> level), 1), max(-(-box.width >> level), 1)


def reduced(picture: Image, height: int, width: int) -> Image:
    """Reduce a picture by averages that leave transparent pixels out."""
    if picture.shape[:2] == (height, width):
        return picture
    if picture[..., 3].min() == 255:
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    alpha = picture[..., 3:].astype(np.float32) / 255
    colours = np.concatenate([picture[..., :3] * alpha, alpha], axis=-1)
    small = cv2.resize(colours, (width, height), interpolation=cv2.INTER_AREA)
    shown = np.maximum(small[..., 3:], 1e-6)
    found = np.concatenate([small[..., :3] / shown, small[..., 3:] * 255], axis=-1)
    return np.asarray(np.rint(np.clip(found, 0, 255)), np.uint8)


def encoded(picture: Image) -> bytes:
    """Encode a picture as JPEG, or as WebP if parts of it are transparent."""
    if not picture[..., 3].any():
        return _NOTHING
    if picture[..., 3].min() == 255:
        content = cv2.imencode(".jpg", picture[..., :3], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    else:
        content = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])[1]
    return bytes(content.tobytes())


def media_type(tile: bytes) -> str:
    """Return the media type of a tile."""
    return "image/webp" if tile[:4] == b"RIFF" else "image/jpeg"


_NOTHING = bytes(cv2.imencode(".webp", np.zeros((1, 1, 4), np.uint8))[1].tobytes())
