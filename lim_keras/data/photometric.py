"""Photometric augmentation: random changes of colour, contrast, haze and sharpness, as between sensors and seasons.

Each change is applied to an example with probability one half. Its amount grows with its strength; 1 is moderate.
Changes that are linear in the values of a pixel are combined in one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.config import PhotometricSection
from lim_keras.errors import ConfigError

CHANGES = ("haze", "blur", "white_balance", "hue", "contrast", "gamma", "jpeg")
"""Names of the changes, in the order in which they are applied: air, lens, sensor, file."""

_CHANCE = 0.5

_HAZE, _MOST_HAZE = 0.35, 0.9  # largest share of scattered light at strength 1, and at any strength
_AIR = (0.82, 0.9, 1.0)  # colour of scattered light: red, green, blue, of the highest value
_INFRARED = 0.4  # share of the haze in further bands, whose longer waves scatter less
_BLUR_PX = 1.2  # largest standard deviation at strength 1
_GAIN, _CONTRAST, _GAMMA, _SATURATION = 0.08, 0.25, 0.25, 0.25  # standard deviations of logarithms
_HUE_DEG = 12.0  # standard deviation of the rotation of hue
_QUALITY, _LOST_QUALITY, _LEAST_QUALITY = 95, 50, 15

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])

Linear = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Matrix (bands, bands) and offset (bands,) of values 0..1."""


def build_photometric(
    settings: PhotometricSection, low: NDArray[Any], high: NDArray[Any], dtype: str
) -> Photometric | None:
    """Build the configured changes; None if every strength is 0.

    Args:
        settings: section `photometric` of the configuration.
        low, high: lowest and highest value of each band, (bands,), raw digital numbers.
        dtype: NumPy name of the data type of the images.

    Raises:
        ConfigError: as in `check_photometric`.
    """
    check_photometric(settings, len(low), dtype)
    strengths = settings.strengths()
    return Photometric(low, high, strengths) if any(strengths.values()) else None


def check_photometric(settings: PhotometricSection, bands: int, dtype: str) -> None:
    """Raise ConfigError if the key of a single change is above 0, and bands or data type do not suit the change."""
    for name, value, takes, needs in (
        ("hue", settings.hue, bands >= 3, "three bands or more"),
        ("white_balance", settings.white_balance, bands >= 2, "two bands or more"),
        ("jpeg", settings.jpeg, compresses(dtype, bands), "8-bit images of one band, or of three or more"),
    ):
        if value and not takes:
            raise ConfigError(
                f"photometric.{name}: expected {needs}. Received: images of {bands} band(s) of {dtype}. Set "
                f"photometric.{name} to 0 or null."
            )


class Photometric:
    """Random changes of images (h, w, bands); masks stay as they are.

    Values are scaled by the range of each band to 0..1, changed, and clipped to the range. The first three bands are
    red, green and blue. Hue needs three bands and changes only these. White balance needs two bands. Haze is weaker in
    bands after the third. JPEG needs 8-bit images and compresses the first three bands, or the only one. The other
    changes take any number of bands and any data type. Bands beyond those of `low` and `high`, such as the prediction
    of a teacher, keep their values.

    Args:
        low, high: lowest and highest value of each band, (bands,), raw digital numbers.
        strengths: strength >= 0 of each of `CHANGES`; a change that is not named has none.

    Raises:
        ConfigError: a name is unknown, or a strength is below 0.
    """

    def __init__(self, low: NDArray[Any], high: NDArray[Any], strengths: Mapping[str, float]) -> None:
        for name, strength in strengths.items():
            if name not in CHANGES:
                raise ConfigError(
                    f"Invalid value for argument `strengths`. Expected names of {', '.join(CHANGES)}. Received: {name}"
                )
            if not strength >= 0:
                raise ConfigError(
                    f"Invalid value for argument `strengths`. Expected numbers >= 0. Received: {name} {strength}"
                )
        self._low, self._span = np.asarray(low, np.float32), np.asarray(high, np.float32) - np.asarray(low, np.float32)
        self._strengths = strengths

    def __call__(
        self, image: NDArray[Any], mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Change an image (h, w, bands); equal random numbers give equal changes."""
        # All numbers are drawn in any case, so that the strength of one change does not alter the others.
        drawn = {name: (rng.random() < _CHANCE, rng.normal(size=8), rng.random(2)) for name in CHANGES}
        gains = rng.normal(size=len(self._low))
        amounts = {
            name: (self._strengths.get(name, 0.0), normal, even)
            for name, (happens, normal, even) in drawn.items()
            if happens and self._strengths.get(name, 0.0) > 0
        }
        if not amounts:
            return image, mask
        bands = len(self._low)
        changed = self._changed(np.ascontiguousarray(image[..., :bands]), amounts, gains)
        return (changed if image.shape[2] == bands else np.dstack([changed, image[..., bands:]])), mask

    def _changed(
        self, image: NDArray[Any], amounts: Mapping[str, tuple[float, NDArray[Any], NDArray[Any]]], gains: NDArray[Any]
    ) -> NDArray[Any]:
        values = (image.astype(np.float32) - self._low) / self._span
        if "haze" in amounts:
            strength, _, even = amounts["haze"]
            values = _apply(
                values, haze(len(gains), min(_HAZE * strength * float(even[0]), _MOST_HAZE), 0.8 + 0.2 * even[1])
            )
        if "blur" in amounts:
            strength, _, even = amounts["blur"]
            values = blur(values, _BLUR_PX * strength * float(even[0]))
        linear = _identity(len(gains))
        if "white_balance" in amounts:
            linear = _then(linear, white_balance(_GAIN * amounts["white_balance"][0] * gains))
        if "hue" in amounts and len(gains) >= 3:
            strength, normal, _ = amounts["hue"]
            turn, saturation = _HUE_DEG * strength * normal[0], float(np.exp(_SATURATION * strength * normal[1]))
            linear = _then(linear, hue(len(gains), turn, saturation))
        if "contrast" in amounts:
            strength, normal, _ = amounts["contrast"]
            middle = linear[0] @ values.mean(axis=(0, 1), dtype=np.float64) + linear[1]
            linear = _then(linear, contrast(middle, float(np.exp(_CONTRAST * strength * normal[0]))))
        values = np.clip(_apply(values, linear), 0, 1)
        if "gamma" in amounts:
            strength, normal, _ = amounts["gamma"]
            powers = cv2.pow(values, float(np.exp(_GAMMA * strength * normal[0])))
            values = np.asarray(powers, np.float32).reshape(values.shape)
        changed = _as_type(values * self._span + self._low, image.dtype)
        if "jpeg" in amounts and compresses(image.dtype, len(gains)):
            strength, _, even = amounts["jpeg"]
            changed = jpeg(changed, max(round(_QUALITY - _LOST_QUALITY * strength * float(even[0])), _LEAST_QUALITY))
        return changed


def haze(bands: int, amount: float, brightness: float) -> Linear:
    """Mix scattered light into every pixel (Koschmieder's law at one distance): x (1 - amount) + air x amount.

    Args:
        bands: number of bands.
        amount: share of scattered light, 0 to 1; bands after the third have two fifths of it.
        brightness: brightness of the scattered light, 0 to 1.
    """
    amounts = amount * np.array(([1.0] * 3 + [_INFRARED] * bands)[:bands])
    air = brightness * np.array((list(_AIR) + [float(np.mean(_AIR))] * bands)[:bands])
    return np.diag(1 - amounts), amounts * air


def white_balance(logarithms: NDArray[Any]) -> Linear:
    """Multiply each band by a factor; the geometric mean of the factors is 1, so that a single band does not change."""
    return np.diag(np.exp(logarithms - logarithms.mean())), np.zeros(len(logarithms))


def hue(bands: int, turn_deg: float, saturation: float) -> Linear:
    """Rotate the hue of the first three bands and scale their saturation, in the YIQ space."""
    angle = np.deg2rad(turn_deg)
    turn = np.eye(3)
    turn[1:, 1:] = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(bands)
    matrix[:3, :3] = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ
    return matrix, np.zeros(bands)


def contrast(middle: NDArray[Any], factor: float) -> Linear:
    """Scale the distance from `middle`, the mean of each band."""
    return factor * np.eye(len(middle)), (1 - factor) * np.asarray(middle)


def blur(values: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Filter each band of (h, w, bands) by a Gaussian; borders are mirrored without repeating the edge."""
    if sigma_px < 0.1:
        return values
    side = 2 * int(np.ceil(2.5 * sigma_px)) + 1
    blurred = cv2.GaussianBlur(values, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32).reshape(values.shape)


def compresses(dtype: np.dtype[Any] | str, bands: int) -> bool:
    """Tell whether JPEG can hold the first three bands, or the only one, of images of a data type."""
    return np.dtype(dtype) == np.uint8 and bands != 2


def jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compress the first three bands, or the only one, of (h, w, bands) uint8 as JPEG and decode them again."""
    colours = np.ascontiguousarray(image[..., 2::-1]) if image.shape[2] >= 3 else image[..., 0]
    _, data = cv2.imencode(".jpg", colours, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)
    if image.shape[2] == 1:
        return decoded[..., np.newaxis]
    return np.dstack([decoded[..., ::-1], image[..., 3:]])


def _identity(bands: int) -> Linear:
    return np.eye(bands), np.zeros(bands)


def _then(first: Linear, second: Linear) -> Linear:
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def _apply(values: NDArray[np.float32], linear: Linear) -> NDArray[np.float32]:
    matrix, offset = (one.astype(np.float32) for one in linear)
    return values @ matrix.T + offset


def _as_type(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def followed_by(
    first: Callable[..., Any] | None, second: Photometric | None
) -> Callable[..., tuple[NDArray[Any], NDArray[np.uint8]]] | None:
    """Chain an augmentation of image and mask with photometric changes; None stands for nothing."""
    if first is None or second is None:
        return first or second

    def both(
        image: NDArray[Any], mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        changed, labels = first(image, mask, rng)
        return second(changed, labels, rng)

    return both
