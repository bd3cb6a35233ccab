"""Landslides: where slopes fail, the way the ground goes down, and the scar that it leaves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.data.synthetic.canvas import Canvas
from lim_keras.data.synthetic.cover import SOILS, soil_texture
from lim_keras.data.synthetic.noise import Field, fractal_noise, smooth_noise, smoothstep
from lim_keras.data.synthetic.terrain import Terrain, slope_deg

STEEP_DEG = (23.0, 45.0)
STOPS_DEG = 7.0
LENGTH_M = (100.0, 340.0)
SPACING_M = 30.0
# Half-width along the way, as a share of the greatest: round head, narrowing body, spreading fan.
_ALONG = (0.0, 0.12, 0.3, 0.65, 0.85, 1.0)
_HALF_WIDTH = (0.65, 1.0, 0.85, 0.55, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Landslides:
    """Attributes, each (size, size):

    instances: uint16, 0 on stable ground, k on the k-th landslide.
    along: float32, way down from the head (0) to the toe (1).
    across: float32, metres from the middle line, negative on one side.
    inside: float32, metres to the outline, positive inside.
    """

    instances: NDArray[np.uint16]
    along: Field
    across: Field
    inside: Field

    @property
    def count(self) -> int:
        """Number of landslides."""
        return int(self.instances.max())


def place_landslides(rng: np.random.Generator, terrain: Terrain, kept: NDArray[np.bool_], count: int) -> Landslides:
    """Up to `count` landslides that begin on steep ground, run downhill and keep apart; `kept` ground stays as it is.

    Fewer where the slopes have no room for more.
    """
    size, gsd_m = terrain.dem.shape[0], terrain.gsd_m
    smooth = np.asarray(cv2.GaussianBlur(terrain.dem, (0, 0), 9 / gsd_m), np.float32)
    slope = slope_deg(smooth, gsd_m)
    blank = np.zeros((size, size), np.float32)
    slides = Landslides(np.zeros((size, size), np.uint16), blank, blank.copy(), blank.copy())
    closed = kept | (terrain.river_m < 20)
    ragged = fractal_noise(rng, size, 24 / gsd_m, octaves=3)
    heads = np.argwhere((slope > STEEP_DEG[0]) & (slope < STEEP_DEG[1]) & ~closed)
    for y, x in rng.permutation(heads)[: 40 * count]:
        if slides.count == count:
            break
        way = None if slides.instances[y, x] else _run_down(rng, smooth, slope, (float(x), float(y)), gsd_m)
        if way is not None:
            _lay_out(rng, slides, way, ragged, closed, gsd_m)
    return slides


def paint_landslides(rng: np.random.Generator, canvas: Canvas, slides: Landslides, gsd_m: float) -> None:
    """Bare soil, streaked downhill: bright below the scarp, rubble on the fan; older scars are partly green again."""
    size, which = canvas.size, slides.instances
    soil = SOILS[rng.integers(len(SOILS), size=slides.count + 1)] * rng.uniform(0.82, 1.08, (slides.count + 1, 1))
    freshness = rng.uniform(0.7, 1.0, slides.count + 1)[which]
    streaks = _streaks(rng, slides, gsd_m)
    rubble = smoothstep(slides.along, 0.5, 0.95) * smooth_noise(rng, size, 5 / gsd_m)
    scarp = smoothstep(slides.along, 0.14, 0.02) * smoothstep(slides.inside, 6, 2)
    brightness = soil_texture(rng, size, gsd_m) * (1 + 0.22 * streaks + 0.18 * rubble - 0.4 * scarp)
    regrown = smoothstep(fractal_noise(rng, size, 22 / gsd_m) + 0.5 * streaks, 0.2, 1.6) * (1.15 - freshness)
    share = (which > 0) * smoothstep(slides.inside, -0.5, 1.5 * gsd_m) * (0.45 + 0.55 * freshness) * (1 - regrown)
    canvas.lay(share, soil[which] * brightness[..., None], 0.5 * rubble)


def dig(dem: Field, slides: Landslides) -> Field:
    """The ground after the failure, metres: a hollow at the head, a bulge at the toe."""
    depth = smoothstep(slides.inside, 0, 12) * np.interp(
        slides.along, (0, 0.15, 0.55, 0.8, 1), (3.5, 4.5, 0.8, -2.5, -1.5)
    )
    return np.asarray(dem - np.where(slides.instances > 0, depth, 0), np.float32)


def _run_down(
    rng: np.random.Generator, dem: Field, slope: Field, head: tuple[float, float], gsd_m: float
) -> NDArray[np.float64] | None:
    """Pixel positions (n, 2), x and y, from the head downhill, a metre and a half apart; None if it stops too soon."""
    length_m = rng.triangular(LENGTH_M[0], 1.3 * LENGTH_M[0], LENGTH_M[1])
    step, size = 1.5 / gsd_m, dem.shape[0]
    position, heading, way = np.array(head), np.zeros(2), []
    for _ in range(int(length_m / 1.5)):
        x, y = round(position[0]), round(position[1])
        if not (1 < x < size - 2 and 1 < y < size - 2) or slope[y, x] < STOPS_DEG:
            break
        way.append(position.copy())
        downhill = np.array([dem[y, x - 1] - dem[y, x + 1], dem[y - 1, x] - dem[y + 1, x]], np.float64)
        heading = 0.9 * heading + 0.1 * downhill / max(float(np.hypot(*downhill)), 1e-6)
        position = position + step * heading / max(float(np.hypot(*heading)), 1e-6)
    return np.array(way) if len(way) * 1.5 >= LENGTH_M[0] * 0.8 else None


def _lay_out(
    rng: np.random.Generator,
    slides: Landslides,
    way: NDArray[np.float64],
    ragged: Field,
    closed: NDArray[np.bool_],
    gsd_m: float,
) -> None:
    """Write one landslide into the layers, unless it would touch another or enter closed ground."""
    widest = len(way) * 1.5 * rng.uniform(0.12, 0.22) / gsd_m
    margin = int(widest + SPACING_M / gsd_m) + 2
    left, top = np.floor(way.min(axis=0)).astype(int) - margin
    right, bottom = np.ceil(way.max(axis=0)).astype(int) + margin + 1
    x, y = np.round(way).astype(int).T
    if (
        min(left, top) < 0
        or max(right, bottom) > closed.shape[0]
        or (closed[y, x] | (slides.instances[y, x] > 0)).any()
    ):
        return
    box = (slice(top, bottom), slice(left, right))
    along, across, inside = _shape(way, widest, (bottom - top, right - left), (left, top))
    inside = np.asarray(inside + ragged[box] * min(0.18 * widest, 2.0), np.float32)
    body = _largest_piece(inside > 0)
    if (body & closed[box]).any() or slides.instances[box][inside > -SPACING_M / gsd_m].any():
        return
    slides.instances[box][body] = slides.count + 1
    slides.along[box][body] = along[body]
    slides.across[box][body] = across[body] * gsd_m
    slides.inside[box][body] = inside[body] * gsd_m


def _shape(
    way: NDArray[np.float64], widest: float, shape: tuple[int, int], corner: tuple[int, int]
) -> tuple[Field, Field, Field]:
    """Way share, signed distance to the middle line and depth inside the outline (pixels) around one way."""
    points = way[::2]
    share = np.linspace(0, 1, len(points))
    half_width = widest * np.interp(share, _ALONG, _HALF_WIDTH)
    heading = np.gradient(points, axis=0)
    heading /= np.maximum(np.hypot(heading[:, 0], heading[:, 1]), 1e-6)[:, None]
    y, x = np.mgrid[corner[1] : corner[1] + shape[0], corner[0] : corner[0] + shape[1]]
    dx, dy = x[..., None] - points[:, 0], y[..., None] - points[:, 1]
    depth = half_width - np.hypot(dx, dy)
    nearest = depth.argmax(axis=2)[..., None]
    across = np.take_along_axis(dy * heading[:, 0] - dx * heading[:, 1], nearest, axis=2)[..., 0]
    inside = np.take_along_axis(depth, nearest, axis=2)[..., 0]
    return share[nearest[..., 0]].astype(np.float32), across.astype(np.float32), inside.astype(np.float32)


def _largest_piece(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(body.astype(np.uint8), connectivity=4)
    return np.asarray(labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA]), np.bool_)


def _streaks(rng: np.random.Generator, slides: Landslides, gsd_m: float) -> Field:
    """Noise that is long downhill and short across, about zero, unit variance, each landslide its own."""
    side = 512
    noise = smooth_noise(rng, side, 4)
    offset = rng.uniform(0, side, (slides.count + 1, 2)).astype(np.float32)[slides.instances]
    x = (slides.across / 1.6 + offset[..., 0]) % (side - 1)
    y = (slides.along * 14 + offset[..., 1]) % (side - 1)
    return np.asarray(cv2.remap(noise, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR), np.float32)
