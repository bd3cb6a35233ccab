"""What covers the ground: colours and heights, laid on in layers, and the picture that a satellite takes of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lim_keras.data.synthetic.noise import Field
from lim_keras.data.synthetic.terrain import hillshade

HAZE = np.array([0.30, 0.36, 0.42], np.float32)


@dataclass(slots=True)
class Canvas:
    """Colour (size, size, 3), 0..1, and height above the ground in metres (size, size), of what covers the ground."""

    colour: Field
    height_m: Field

    @classmethod
    def blank(cls, size: int) -> Canvas:
        """Black and level, to be covered."""
        return cls(np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.height_m.shape[0])

    def lay(self, cover: ArrayLike, colour: ArrayLike, height_m: ArrayLike = 0.0) -> None:
        """Cover the ground where `cover` (size, size) is 1, and by its share where it is between 0 and 1."""
        share = np.asarray(cover, np.float32)
        self.colour += share[..., None] * (np.asarray(colour, np.float32) - self.colour)
        self.height_m += share * (np.asarray(height_m, np.float32) - self.height_m)


def photograph(rng: np.random.Generator, canvas: Canvas, dem: Field, gsd_m: float) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: the canvas in sunlight, through haze, with the blur and the noise of a camera."""
    light = 0.28 + 0.72 * hillshade(dem + canvas.height_m, gsd_m)
    seen = 0.93 * canvas.colour * light[..., None] + 0.07 * HAZE
    seen = cv2.GaussianBlur(seen, (0, 0), 0.6)
    grain = 0.011 * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.asarray(np.clip(255 * (seen + grain), 0, 255), np.uint8)
