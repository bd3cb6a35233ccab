"""Noise, terrain, canvas and camera image of the synthetic world."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

Field = NDArray[np.float32]
Labels = NDArray[np.int32]

# Standard deviation of white noise after a Gaussian filter of one lattice step: 1 / (2 sqrt(pi)).
_FILTERED_STD = 0.282


def smooth_noise(rng: np.random.Generator, size: int, wavelength: float) -> Field:
    """Return a (size, size) field of about zero mean and unit variance, with bumps `wavelength` pixels apart."""
    step = max(wavelength / 4, 1.0)
    nodes = int(np.ceil(size / step)) + 4
    lattice = rng.standard_normal((nodes, nodes)).astype(np.float32)
    bumps = cv2.GaussianBlur(lattice / _FILTERED_STD, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    start = 1.0 + rng.uniform(0, 1, 2)
    positions = np.arange(size, dtype=np.float32) / step
    x, y = np.meshgrid(positions + np.float32(start[0]), positions + np.float32(start[1]))
    return np.asarray(cv2.remap(bumps, x, y, cv2.INTER_CUBIC), np.float32)


def fractal_noise(
    rng: np.random.Generator, size: int, wavelength: float, octaves: int = 4, persistence: float = 0.5
) -> Field:
    """Sum octaves of `smooth_noise` to unit variance; each halves the wavelength and multiplies by `persistence`."""
    weights = persistence ** np.arange(octaves)
    layers = (weight * smooth_noise(rng, size, wavelength / 2**octave) for octave, weight in enumerate(weights))
    return np.asarray(sum(layers) / np.sqrt(np.sum(weights**2)), np.float32)


def scattered_points(rng: np.random.Generator, size: int, spacing: float) -> tuple[Labels, Field]:
    """Scatter points about `spacing` pixels apart; return number and distance (pixels) of the nearest, (size, size)."""
    nodes = int(np.ceil(size / spacing))
    corner = np.stack(np.meshgrid(np.arange(nodes), np.arange(nodes)), -1).reshape(-1, 2)
    points = ((corner + rng.uniform(0.05, 0.95, corner.shape)) * spacing).astype(int)
    points = points[(points < size).all(axis=1)]
    canvas = np.ones((size, size), np.uint8)
    canvas[points[:, 1], points[:, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(labels, np.int32), np.asarray(distance, np.float32)


def gradient(field: Field) -> tuple[Field, Field]:
    """Return the change per pixel along x and along y."""
    along_y, along_x = np.gradient(field)
    return np.asarray(along_x, np.float32), np.asarray(along_y, np.float32)


def ribbon(field: Field, level: float, width: float) -> NDArray[np.bool_]:
    """Mark pixels within `width` / 2 of the contour line of `field` at `level`: a winding line of even width."""
    along_x, along_y = gradient(field)
    return np.asarray(np.abs(field - level) < width / 2 * np.hypot(along_x, along_y), np.bool_)


def smoothstep(field: Field, low: float, high: float) -> Field:
    """Interpolate smoothly from 0 at `low` to 1 at `high`; `low` may exceed `high`."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def erode(heights: Field, outlet: NDArray[np.bool_], steps: int, rate: float, rounding: float = 0.35) -> Field:
    """Raise the ground by one in each step, let water that runs to the outlet erode it, and return heights (h, w).

    Source: implicit scheme for dh/dt = U - K A^0.5 S of Braun and Willett 2013, solved as a sparse system.

    Args:
        heights: (h, w) initial heights; small noise decides the course of the valleys.
        outlet: (h, w) cells of the river, which stay at height 0.
        steps: number of uplifts.
        rate: erosion K of a stream that drains one cell.
        rounding: standard deviation, in cells, of the Gaussian that models soil creep in each step.
    """
    ground = np.where(outlet, 0, heights).astype(np.float64)
    for _ in range(steps):
        ground = np.where(outlet, 0, ground + 1)
        receiver, fall_length = _steepest_neighbour(ground)
        drains = receiver != np.arange(ground.size)
        flow = sparse.csr_array(
            (drains.astype(float), (np.arange(ground.size), receiver)), shape=(ground.size, ground.size)
        )
        identity = sparse.eye_array(ground.size, format="csr")
        area = spsolve((identity - flow.T).tocsc(), np.ones(ground.size))
        cut = np.where(drains & ~outlet.ravel(), rate * np.sqrt(area) / fall_length, 0)
        system = identity + sparse.diags_array(cut) - sparse.diags_array(cut) @ flow
        ground = spsolve(system.tocsc(), ground.ravel()).reshape(heights.shape)
        ground = cv2.GaussianBlur(ground, (0, 0), rounding, borderType=cv2.BORDER_REFLECT)
    return np.where(outlet, 0, ground).astype(np.float32)


def _steepest_neighbour(ground: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the flat index of the neighbour of steepest descent (a pit: itself) and the distance to it in cells."""
    height, width = ground.shape
    index = np.arange(ground.size).reshape(ground.shape)
    padded, padded_index = np.pad(ground, 1, constant_values=np.inf), np.pad(index, 1)
    best_fall, receiver, length = np.zeros(ground.shape), index.copy(), np.ones(ground.shape)
    for dy, dx in _NEIGHBOURS:
        window = (slice(1 + dy, 1 + dy + height), slice(1 + dx, 1 + dx + width))
        distance = float(np.hypot(dy, dx))
        fall = (ground - padded[window]) / distance
        steeper = fall > best_fall
        best_fall[steeper] = fall[steeper]
        receiver[steeper] = padded_index[window][steeper]
        length[steeper] = distance
    return receiver.ravel(), length.ravel()


EROSION_CELL_M, EROSION_STEPS = 24.0, 60
MEDIAN_SLOPE_DEG = 24.0
# Half-width of the valley floor and its height above the sea.
FLOOR_M, BASE_M = 130.0, 900.0


@dataclass(frozen=True, slots=True)
class Terrain:
    """Ground before the landslides: layers (size, size), and the ground sample distance in metres."""

    dem: Field  # metres above the sea
    river_m: Field  # distance to the middle of the river, metres
    bank: Field  # positive on one side of the river, negative on the other
    gsd_m: float


def make_terrain(rng: np.random.Generator, size: int, gsd_m: float) -> Terrain:
    """Make a river across the world, a flat floor along it, and mountains eroded towards the floor."""
    margin = round(3 * EROSION_CELL_M / gsd_m)
    whole = size + 2 * margin
    bank = _river_course(rng, whole)
    river_m = _distance_to_zero_line(bank, gsd_m)
    floor = river_m * (1 + 0.3 * smooth_noise(rng, whole, 400 / gsd_m)) < FLOOR_M
    mountains = _eroded_mountains(rng, floor, gsd_m)
    roughness = (0.15 + 1.5 * smoothstep(mountains, 0, 30)) * fractal_noise(rng, whole, 70 / gsd_m, octaves=3)
    dem = np.asarray(BASE_M + mountains + 0.02 * river_m + roughness, np.float32)
    # Cells at the border have no neighbours to drain to: cut them off.
    inside = slice(margin, margin + size)
    return Terrain(dem[inside, inside].copy(), river_m[inside, inside].copy(), bank[inside, inside].copy(), gsd_m)


def _river_course(rng: np.random.Generator, size: int) -> Field:
    """Return a field that is zero along one winding line through the middle: a tilted plane, bent by noise."""
    direction = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1.1, 1.1, size, dtype=np.float32)
    plane = across[:, None] * np.float32(np.cos(direction)) + across[None, :] * np.float32(np.sin(direction))
    bends = 0.26 * smooth_noise(rng, size, 0.6 * size) + 0.06 * smooth_noise(rng, size, 0.2 * size)
    return np.asarray(plane + bends, np.float32)


def _eroded_mountains(rng: np.random.Generator, floor: NDArray[np.bool_], gsd_m: float) -> Field:
    """Return heights above the floor, metres, scaled to a median slope of `MEDIAN_SLOPE_DEG`."""
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
    """Return the slope in degrees, (h, w), of heights smoothed by a Gaussian of `smoothing_m` metres."""
    if smoothing_m > 0:
        dem = np.asarray(cv2.GaussianBlur(dem, (0, 0), smoothing_m / gsd_m), np.float32)
    along_x, along_y = gradient(dem)
    return np.asarray(np.degrees(np.arctan(np.hypot(along_x, along_y) / gsd_m)), np.float32)


def hillshade(dem: Field, gsd_m: float, azimuth_deg: float = 315.0, altitude_deg: float = 48.0) -> Field:
    """Return the illumination by a sun in the north-west, relative to flat ground (1); 0 in shadow."""
    along_x, along_y = gradient(dem)
    azimuth, altitude = np.radians(azimuth_deg), np.radians(altitude_deg)
    # Rows run south, so the northward component of the sun has a negative row direction.
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
        # No river in a small world: the zero line lies outside.
        return np.full(field.shape, field.shape[0] * gsd_m, np.float32)
    return np.asarray(cv2.distanceTransform((~crossing).astype(np.uint8), cv2.DIST_L2, 5) * gsd_m, np.float32)


HAZE = np.array([0.30, 0.36, 0.42], np.float32)


@dataclass(slots=True)
class Canvas:
    """Land cover: colour (size, size, 3), 0..1, and height above the ground (size, size), metres."""

    colour: Field
    height_m: Field

    @classmethod
    def blank(cls, size: int) -> Canvas:
        """Return a black and level canvas."""
        return cls(np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))

    @property
    def size(self) -> int:
        """Height and width, pixels."""
        return int(self.height_m.shape[0])

    def lay(self, cover: ArrayLike, colour: ArrayLike, height_m: ArrayLike = 0.0) -> None:
        """Blend a cover in: `cover` (size, size) is its share, 0..1."""
        share = np.asarray(cover, np.float32)
        self.colour += share[..., None] * (np.asarray(colour, np.float32) - self.colour)
        self.height_m += share * (np.asarray(height_m, np.float32) - self.height_m)


def photograph(rng: np.random.Generator, canvas: Canvas, dem: Field, gsd_m: float) -> NDArray[np.uint8]:
    """Render the canvas in sunlight through haze, with blur and noise of a camera: (size, size, 3) uint8."""
    light = 0.28 + 0.72 * hillshade(dem + canvas.height_m, gsd_m)
    image = 0.93 * canvas.colour * light[..., None] + 0.07 * HAZE
    image = cv2.GaussianBlur(image, (0, 0), 0.6)
    noise = 0.011 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(255 * (image + noise), 0, 255), np.uint8)
