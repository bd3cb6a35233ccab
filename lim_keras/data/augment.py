"""Augmentation of images and masks: the recipes of the paper, and symmetries with colour changes."""

from __future__ import annotations

from functools import cache
from typing import Literal, Protocol

import cv2
import numpy as np

from lim_keras.errors import ConfigError

AugmentationName = Literal["paper", "dihedral", "none"]

PAPER_RECIPES = 4
"""The tile itself and the three recipes of Fig. 6 of Chen et al. 2022."""

_GAMMA = (0.7, 1.5)
_NOISE_STD = 8.0 / 255.0
_NOISE_SIDE = 1024
_MAX_CV2_PIXEL_BYTES = 32
"""Largest pixel that `cv2.transpose` takes, bytes."""

_FLIPS = {1: 0, 2: -1, 3: 1, 4: 1, 5: -1, 6: 0}
"""Flip code of OpenCV by symmetry, after a transposition for odd ones; 0 and 7 need no flip."""


class Augmentation(Protocol):
    """Change image (h, w, bands) and mask (h, w) by the same random transform."""

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]: ...


def build_augmentation(
    name: AugmentationName, low: np.ndarray, high: np.ndarray, colour_jitter: float = 1.0
) -> Augmentation:
    """Build an augmentation by name.

    Args:
        name: "paper" applies one of the four recipes at random, "dihedral" a symmetry of the square and colour changes,
            "none" nothing.
        low, high: lowest and highest value of each band, (bands,), raw digital numbers.
        colour_jitter: strength of the colour changes of "dihedral".

    Raises:
        ConfigError: unknown name.
    """
    if name == "paper":
        return lambda image, mask, rng: paper_recipe(image, mask, int(rng.integers(PAPER_RECIPES)), low, high, rng)
    if name == "dihedral":
        return Dihedral(low, high, colour_jitter)
    if name == "none":
        return lambda image, mask, rng: (image, mask)
    raise ConfigError(f"Invalid value for argument `augmentation`. Expected paper, dihedral or none. Received: {name}")


def paper_recipe(
    image: np.ndarray, mask: np.ndarray, recipe: int, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply recipe 0..3 of Fig. 6 of Chen et al. 2022. The paper gives no strengths; this package sets them.

    0: nothing; 1: left-right flip and 3 x 3 mean filter; 2: up-down flip and random gamma; 3: both flips and noise.
    """
    if recipe == 1:
        return mean_filter(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    if recipe == 2:
        gamma = rng.uniform(*_GAMMA)
        return _change_tones(image[::-1], low, high, gamma, 1.0, 0.0), np.ascontiguousarray(mask[::-1])
    if recipe == 3:
        noisy = _add_noise(np.ascontiguousarray(image[::-1, ::-1]), low, high, _NOISE_STD, rng)
        return noisy, np.ascontiguousarray(mask[::-1, ::-1])
    return image, mask


def mean_filter(image: np.ndarray) -> np.ndarray:
    """Average each band of (h, w, bands) over 3 x 3 pixels; borders are mirrored without repeating the edge."""
    blurred = cv2.blur(np.ascontiguousarray(image), (3, 3), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred.reshape(image.shape))


class Dihedral:
    """One of the eight symmetries of the square, then changes of brightness, contrast, gamma, colour balance and noise.

    Bands beyond those of `low` and `high`, such as the prediction of a teacher, move with the others and keep their
    values.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, strength: float = 1.0) -> None:
        self._low, self._high, self._strength = low, high, strength

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Augment image (h, w, bands) and mask (h, w)."""
        image, mask = symmetry(image, mask, int(rng.integers(8)))
        bands = len(self._low)
        if image.shape[2] == bands:
            return self._change_colours(image, rng), mask
        return np.dstack([self._change_colours(image[..., :bands], rng), image[..., bands:]]), mask

    def _change_colours(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strength = self._strength
        gamma = float(np.exp(rng.normal(0, 0.2 * strength)))
        contrast = float(np.exp(rng.normal(0, 0.2 * strength)))
        shift = rng.normal(0, 0.08 * strength) + rng.normal(0, 0.03 * strength, image.shape[2])
        image = _change_tones(image, self._low, self._high, gamma, contrast, shift)
        if rng.random() < 0.25:
            image = _add_noise(image, self._low, self._high, float(rng.uniform(0, 0.04)) * strength, rng)
        return image


def symmetry(image: np.ndarray, mask: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Apply symmetry 0..7 of the square: `index % 4` quarter turns, then for 4..7 a left-right flip."""
    return _transform(image, index), _transform(mask, index)


def _transform(array: np.ndarray, index: int) -> np.ndarray:
    if array[0, 0].nbytes > _MAX_CV2_PIXEL_BYTES:
        turned = np.rot90(array, index % 4)
        return np.ascontiguousarray(turned[:, ::-1] if index >= 4 else turned)
    # OpenCV is several times faster than strided copies of numpy.
    if index % 2:
        array = cv2.transpose(array).reshape(array.shape[1], array.shape[0], *array.shape[2:])
    flipped = cv2.flip(array, _FLIPS[index]) if index in _FLIPS else array
    return np.ascontiguousarray(flipped).reshape(array.shape)


def _change_tones(
    image: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    gamma: float,
    contrast: float,
    shift: float | np.ndarray,
) -> np.ndarray:
    """Scale each band to 0..1, apply gamma, contrast about the middle and shift, and clip to the range."""
    shifts = np.broadcast_to(np.asarray(shift, np.float32), low.shape)
    if image.dtype == np.uint8:
        tones = np.arange(256, dtype=np.float32)[:, None]
        table = _tone_curve(tones, low, high, gamma, contrast, shifts).round().astype(np.uint8)
        return np.asarray(cv2.LUT(np.ascontiguousarray(image), table[None]).reshape(image.shape))
    return _as_type(_tone_curve(image.astype(np.float32), low, high, gamma, contrast, shifts), image.dtype)


def _tone_curve(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, gamma: float, contrast: float, shift: np.ndarray
) -> np.ndarray:
    scaled = np.clip((values - low) / (high - low), 0, 1) ** gamma
    scaled = np.clip((scaled - 0.5) * contrast + 0.5 + shift, 0, 1)
    return np.asarray(low + scaled * (high - low))


@cache
def _unit_noise(bands: int, repeats: int) -> np.ndarray:
    """Return (repeats * side, repeats * side, bands) uint8: 128 + 32 times a normal number, one square repeated."""
    # One field is read at random positions, because drawing normal numbers takes longer than a training step.
    field = np.random.default_rng(0).standard_normal((_NOISE_SIDE, _NOISE_SIDE, bands), np.float32)
    levels = (np.round(field * 32).clip(-127, 127) + 128).astype(np.uint8)
    return np.tile(levels, (repeats, repeats, 1))


def _add_noise(
    image: np.ndarray, low: np.ndarray, high: np.ndarray, std: float, rng: np.random.Generator
) -> np.ndarray:
    height, width, bands = image.shape
    top, left = int(rng.integers(_NOISE_SIDE)), int(rng.integers(_NOISE_SIDE))
    field = _unit_noise(bands, 1 - (-max(height, width) // _NOISE_SIDE))
    levels = field[top : top + height, left : left + width]
    scale = (std / 32.0) * (high - low)
    if image.dtype == np.uint8:
        table = ((np.arange(256, dtype=np.float32)[:, None] - 128) * scale).round().astype(np.int16)
        noise = cv2.LUT(levels, table[None])
        return np.asarray(cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U)).reshape(image.shape)
    return _as_type(np.clip(image + (levels.astype(np.float32) - 128) * scale, low, high), image.dtype)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert values to a data type; round them for integer types."""
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)
