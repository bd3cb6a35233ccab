"""Random fields on the pixel grid: the raw material of terrain, texture and outlines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Labels = NDArray[np.int32]

# Standard deviation of white noise after a Gaussian filter of one lattice step: 1 / (2 sqrt(pi)).
_FILTERED_STD = 0.282


def smooth_noise(rng: np.random.Generator, size: int, wavelength: float) -> Field:
    """A (size, size) field of about zero mean and unit variance whose bumps are `wavelength` pixels apart.

    White noise on a lattice of a quarter of the wavelength, filtered and interpolated: unlike a filtered image it keeps
    its statistics where the wavelength is longer than the image.
    """
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
    """A (size, size) field of unit variance: octaves of `smooth_noise`, each half as long, `persistence` as strong."""
    weights = persistence ** np.arange(octaves)
    layers = (weight * smooth_noise(rng, size, wavelength / 2**octave) for octave, weight in enumerate(weights))
    return np.asarray(sum(layers) / np.sqrt(np.sum(weights**2)), np.float32)


def scattered_points(rng: np.random.Generator, size: int, spacing: float) -> tuple[Labels, Field]:
    """The nearest of many random points `spacing` pixels apart: its number and its distance in pixels, (size, size).

    Points are jittered off a square lattice, so that they neither clump nor line up.
    """
    nodes = int(np.ceil(size / spacing))
    corner = np.stack(np.meshgrid(np.arange(nodes), np.arange(nodes)), -1).reshape(-1, 2)
    points = ((corner + rng.uniform(0.05, 0.95, corner.shape)) * spacing).astype(int)
    points = points[(points < size).all(axis=1)]
    canvas = np.ones((size, size), np.uint8)
    canvas[points[:, 1], points[:, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(labels, np.int32), np.asarray(distance, np.float32)


def gradient(field: Field) -> tuple[Field, Field]:
    """Change of the field a pixel along x and along y."""
    along_y, along_x = np.gradient(field)
    return np.asarray(along_x, np.float32), np.asarray(along_y, np.float32)


def ribbon(field: Field, level: float, width: float) -> NDArray[np.bool_]:
    """Pixels within `width` / 2 of the contour line of `field` at `level`: a winding line of even width."""
    along_x, along_y = gradient(field)
    return np.asarray(np.abs(field - level) < width / 2 * np.hypot(along_x, along_y), np.bool_)


def smoothstep(field: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high` (or the other way round where low > high), an S between them."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
