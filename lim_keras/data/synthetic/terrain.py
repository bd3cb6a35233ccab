"""Mountains and valleys: heights, the river that made them, and the light on them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.data.synthetic.erosion import erode
from lim_keras.data.synthetic.noise import Field, fractal_noise, gradient, smooth_noise, smoothstep

EROSION_CELL_M = 24.0
EROSION_STEPS = 60
MEDIAN_SLOPE_DEG = 24.0
FLOOR_M = 130.0
BASE_M = 900.0


@dataclass(frozen=True, slots=True)
class Terrain:
    """The ground before any landslide.

    Attributes:
        dem: (size, size) float32, metres above the sea.
        river_m: (size, size) float32, metres to the middle of the nearest river.
        bank: (size, size) float32, positive on one side of the river and negative on the other.
        gsd_m: metres a pixel.
    """

    dem: Field
    river_m: Field
    bank: Field
    gsd_m: float


def make_terrain(rng: np.random.Generator, size: int, gsd_m: float) -> Terrain:
    """A trunk river across the window with a flat floor along it, and ground that is eroded towards the floor."""
    margin = round(3 * EROSION_CELL_M / gsd_m)
    whole = size + 2 * margin
    bank = _river_course(rng, whole)
    river_m = _distance_to_zero_line(bank, gsd_m)
    floor = river_m * (1 + 0.3 * smooth_noise(rng, whole, 400 / gsd_m)) < FLOOR_M
    mountains = _eroded_mountains(rng, floor, gsd_m)
    roughness = (0.15 + 1.5 * smoothstep(mountains, 0, 30)) * fractal_noise(rng, whole, 70 / gsd_m, octaves=3)
    dem = np.asarray(BASE_M + mountains + 0.02 * river_m + roughness, np.float32)
    # The outermost cells have no neighbours to drain to and show it.
    inside = slice(margin, margin + size)
    return Terrain(dem[inside, inside].copy(), river_m[inside, inside].copy(), bank[inside, inside].copy(), gsd_m)


def _river_course(rng: np.random.Generator, size: int) -> Field:
    """A field that is zero along one winding line through the middle: a tilted plane, bent by noise."""
    direction = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1.1, 1.1, size, dtype=np.float32)
    plane = across[:, None] * np.float32(np.cos(direction)) + across[None, :] * np.float32(np.sin(direction))
    bends = 0.26 * smooth_noise(rng, size, 0.6 * size) + 0.06 * smooth_noise(rng, size, 0.2 * size)
    return np.asarray(plane + bends, np.float32)


def _eroded_mountains(rng: np.random.Generator, floor: NDArray[np.bool_], gsd_m: float) -> Field:
    """Heights above the floor in metres, same shape; half of the slopes are steeper than `MEDIAN_SLOPE_DEG`."""
    size = floor.shape[0]
    cells = max(round(size * gsd_m / EROSION_CELL_M), 16)
    outlet = cv2.resize(floor.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA) > 0.5
    start = smooth_noise(rng, cells, 16) + 0.4 * smooth_noise(rng, cells, 4)
    coarse = erode(start, outlet, EROSION_STEPS, rate=0.7, rounding=0.75)
    heights = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    heights = np.asarray(cv2.GaussianBlur(heights, (0, 0), 0.25 * EROSION_CELL_M / gsd_m), np.float32)
    steepness = np.median(np.hypot(*gradient(heights))[~floor]) / gsd_m
    return np.asarray(heights * (np.tan(np.radians(MEDIAN_SLOPE_DEG)) / steepness), np.float32)


def slope_deg(dem: Field, gsd_m: float, smoothing_m: float = 0.0) -> Field:
    """Steepness in degrees, (h, w), of heights smoothed by a Gaussian of `smoothing_m` (standard deviation, metres)."""
    if smoothing_m > 0:
        dem = np.asarray(cv2.GaussianBlur(dem, (0, 0), smoothing_m / gsd_m), np.float32)
    along_x, along_y = gradient(dem)
    return np.asarray(np.degrees(np.arctan(np.hypot(along_x, along_y) / gsd_m)), np.float32)


def hillshade(dem: Field, gsd_m: float, azimuth_deg: float = 315.0, altitude_deg: float = 48.0) -> Field:
    """Cosine between the surface and the sun, relative to flat ground: 1 on flat ground, 0 in shadow.

    The sun stands in the north-west as on maps: lit from the south-east, as in most imagery, valleys look like ridges.
    """
    along_x, along_y = gradient(dem)
    azimuth, altitude = np.radians(azimuth_deg), np.radians(altitude_deg)
    # Rows run south: the sun's northward component has a negative row direction.
    sun_x, sun_y, sun_z = np.sin(azimuth) * np.cos(altitude), -np.cos(azimuth) * np.cos(altitude), np.sin(altitude)
    dx, dy = along_x / gsd_m, along_y / gsd_m
    cosine = (sun_z - dx * sun_x - dy * sun_y) / np.sqrt(1 + dx**2 + dy**2)
    return np.asarray(np.maximum(cosine, 0) / sun_z, np.float32)


def _distance_to_zero_line(field: Field, gsd_m: float) -> Field:
    positive = field > 0
    crossing = np.zeros(field.shape, np.bool_)
    crossing[:, 1:] |= positive[:, 1:] != positive[:, :-1]
    crossing[1:] |= positive[1:] != positive[:-1]
    if not crossing.any():
        # No river in a small window: the zero line lies somewhere outside, at least a window away.
        return np.full(field.shape, field.shape[0] * gsd_m, np.float32)
    return np.asarray(cv2.distanceTransform((~crossing).astype(np.uint8), cv2.DIST_L2, 5) * gsd_m, np.float32)
