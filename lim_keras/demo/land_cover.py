"""Land cover and landslides of the synthetic world."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.demo.terrain import (
    Canvas,
    Field,
    Labels,
    Terrain,
    fractal_noise,
    ribbon,
    scattered_points,
    slope_deg,
    smooth_noise,
    smoothstep,
)

# One palette for all bare ground: colour alone cannot separate a scar from a ploughed field.
SOILS = np.array(
    [[0.70, 0.59, 0.44], [0.66, 0.51, 0.35], [0.57, 0.40, 0.31], [0.61, 0.56, 0.49], [0.77, 0.70, 0.58]], np.float32
)
CROPS = np.array(
    [[0.36, 0.46, 0.25], [0.46, 0.53, 0.30], [0.55, 0.57, 0.35], [0.30, 0.40, 0.23], [0.62, 0.60, 0.42]], np.float32
)
ROOFS = np.array([[0.62, 0.62, 0.64], [0.80, 0.80, 0.79], [0.46, 0.53, 0.64], [0.62, 0.42, 0.36]], np.float32)
FOREST = np.array([[0.17, 0.26, 0.15], [0.20, 0.30, 0.17], [0.25, 0.34, 0.19], [0.16, 0.25, 0.18]], np.float32)
SHRUB, GRASS = np.array([0.33, 0.39, 0.23], np.float32), np.array([0.47, 0.49, 0.31], np.float32)
WATER, GRAVEL = np.array([0.25, 0.37, 0.36], np.float32), np.array([0.68, 0.65, 0.59], np.float32)
ASPHALT, DIRT = np.array([0.56, 0.56, 0.56], np.float32), np.array([0.72, 0.65, 0.53], np.float32)
HEDGE = np.array([0.24, 0.31, 0.18], np.float32)

FLAT_DEG, TERRACED_DEG = 9.0, 20.0


def paint_cover(rng: np.random.Generator, canvas: Canvas, terrain: Terrain) -> NDArray[np.bool_]:
    """Paint all land cover; return (size, size) bool, ground closed to landslides: farmland, road, houses."""
    slope = slope_deg(terrain.dem, terrain.gsd_m, smoothing_m=12)
    # Average the slope over the surroundings: flat ridge tops get no fields.
    slope = np.asarray(cv2.GaussianBlur(slope, (0, 0), 22 / terrain.gsd_m), np.float32)
    _paint_shrub(rng, canvas, terrain.gsd_m)
    _paint_forest(rng, canvas, slope, terrain.gsd_m)
    _paint_terraces(rng, canvas, terrain, slope)
    farmland = _paint_fields(rng, canvas, slope, terrain.gsd_m)
    _paint_bare_ground(rng, canvas, slope, terrain.gsd_m)
    _paint_river(rng, canvas, terrain)
    road = _paint_roads(rng, canvas, terrain)
    return farmland | road | _paint_houses(rng, canvas, terrain, slope)


def soil_texture(rng: np.random.Generator, size: int, gsd_m: float) -> Field:
    """Return (size, size) brightness factors about 1: clods, stains and damp spots."""
    stains, clods = fractal_noise(rng, size, 60 / gsd_m), smooth_noise(rng, size, 6 / gsd_m)
    return np.asarray(1 + 0.07 * stains + 0.05 * clods, np.float32)


def _paint_shrub(rng: np.random.Generator, canvas: Canvas, gsd_m: float) -> None:
    patches = smoothstep(fractal_noise(rng, canvas.size, 150 / gsd_m), -0.6, 1.2)[..., None]
    canvas.lay(np.ones_like(canvas.height_m), SHRUB + patches * (GRASS - SHRUB))
    bushes, distance = scattered_points(rng, canvas.size, 11 / gsd_m)
    radius_m = np.clip(rng.normal(0.5, 2.6, bushes.max() + 1), 0, 5.5)[bushes]
    bush = np.clip((radius_m - distance * gsd_m) / 2.5, 0, 1) * (1.1 - patches[..., 0])
    canvas.lay(0.8 * bush, FOREST[1], 0.6 * radius_m)


def _paint_forest(rng: np.random.Generator, canvas: Canvas, slope: Field, gsd_m: float) -> None:
    stand = fractal_noise(rng, canvas.size, 420 / gsd_m) + 0.25 * smooth_noise(rng, canvas.size, 25 / gsd_m)
    share = smoothstep(np.asarray(stand + (slope - 20) / 18, np.float32), -0.15, 0.15)
    trees, distance = scattered_points(rng, canvas.size, 7.5 / gsd_m)
    species = smooth_noise(rng, canvas.size, 160 / gsd_m) + 0.8 * rng.standard_normal(trees.max() + 1)[trees]
    kinds = np.clip(np.round(1.5 + species), 0, len(FOREST) - 1).astype(int)
    dome = np.sqrt(np.clip(1 - (distance * gsd_m / 6.5) ** 2, 0, 1))
    tallness = 1 + 0.35 * rng.standard_normal(trees.max() + 1)[trees]
    canvas.lay(share, FOREST[kinds] * (0.7 + 0.3 * dome)[..., None], 4.2 * dome * np.clip(tallness, 0.3, 2))


def _paint_terraces(rng: np.random.Generator, canvas: Canvas, terrain: Terrain, slope: Field) -> None:
    farmed = fractal_noise(rng, canvas.size, 380 / terrain.gsd_m) + smoothstep(terrain.river_m, 700, 150)
    share = smoothstep(farmed, 0.95, 1.05) * smoothstep(slope, TERRACED_DEG + 2, TERRACED_DEG - 2)
    heights = np.asarray(cv2.GaussianBlur(terrain.dem, (0, 0), 8 / terrain.gsd_m), np.float32) / 3.2
    step = np.floor(heights)
    x = np.arange(canvas.size, dtype=np.float32)[None, :] + 0.6 * np.arange(canvas.size, dtype=np.float32)[:, None]
    plot = np.floor(x * terrain.gsd_m / 90 + 7.3 * step)
    crop = _crop_colours(rng, step.astype(np.int64), plot.astype(np.int64), bare=0.05)
    edge = smoothstep(np.asarray(heights - step, np.float32), 0.3, 0.1)
    canvas.lay(share, crop * soil_texture(rng, canvas.size, terrain.gsd_m)[..., None])
    canvas.lay(0.75 * share * edge, HEDGE, 0.8)


def _paint_fields(rng: np.random.Generator, canvas: Canvas, slope: Field, gsd_m: float) -> NDArray[np.bool_]:
    share = smoothstep(slope + 1.5 * smooth_noise(rng, canvas.size, 60 / gsd_m), FLAT_DEG + 1, FLAT_DEG - 1)
    district, _ = scattered_points(rng, canvas.size, 220 / gsd_m)
    along, across = _field_axes(rng, district, gsd_m)
    width = rng.uniform(16, 34, district.max() + 1)[district]
    row = np.floor(across / width)
    column = np.floor(along / (2.6 * width) + 0.37 * row)
    crop = _crop_colours(rng, district * 131 + row.astype(np.int64), column.astype(np.int64), bare=0.2)
    furrows = 1 + 0.09 * np.sin(2 * np.pi * across / 6.5)
    to_edge = width * np.minimum(across / width - row, 1 - (across / width - row))
    canvas.lay(share, crop * (furrows * soil_texture(rng, canvas.size, gsd_m))[..., None])
    canvas.lay(0.8 * share * smoothstep(np.asarray(to_edge, np.float32), 2.4, 0.8), HEDGE, 0.8)
    return np.asarray(share > 0.5, np.bool_)


def _field_axes(rng: np.random.Generator, district: Labels, gsd_m: float) -> tuple[Field, Field]:
    """Return metres along and across the fields; each district has its own direction."""
    size = district.shape[0]
    angle = rng.uniform(0, np.pi, district.max() + 1).astype(np.float32)[district]
    bend_x, bend_y = 14 * smooth_noise(rng, size, 260 / gsd_m), 14 * smooth_noise(rng, size, 260 / gsd_m)
    x = np.arange(size, dtype=np.float32)[None, :] * gsd_m + bend_x
    y = np.arange(size, dtype=np.float32)[:, None] * gsd_m + bend_y
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(along, np.float32), np.asarray(across, np.float32)


def _crop_colours(rng: np.random.Generator, row: NDArray[np.int64], column: NDArray[np.int64], bare: float) -> Field:
    """Return one colour for each plot, (h, w, 3); a share `bare` of the plots shows soil."""
    tables = 4096
    is_bare = rng.random(tables) < bare
    colours = np.where(
        is_bare[:, None], SOILS[rng.integers(len(SOILS), size=tables)], CROPS[rng.integers(len(CROPS), size=tables)]
    )
    colours = colours * rng.uniform(0.9, 1.1, (tables, 1))
    # Two odd multipliers scatter neighbouring rows and columns over the table.
    return np.asarray(colours[(row * 2_654_435_761 + column * 40_503) % tables], np.float32)


def _paint_bare_ground(rng: np.random.Generator, canvas: Canvas, slope: Field, gsd_m: float) -> None:
    """Paint yards, diggings and dumps on level ground, and thin soil on slopes."""
    soil = SOILS[(scattered_points(rng, canvas.size, 150 / gsd_m)[0] % len(SOILS))]
    soil = soil * soil_texture(rng, canvas.size, gsd_m)[..., None]
    patches = smooth_noise(rng, canvas.size, 110 / gsd_m) + 0.3 * fractal_noise(rng, canvas.size, 30 / gsd_m)
    level = smoothstep(slope, FLAT_DEG + 2, FLAT_DEG - 1)
    canvas.lay(0.95 * level * smoothstep(patches, 1.35, 1.5), soil)
    thin = smoothstep(fractal_noise(rng, canvas.size, 45 / gsd_m), 1.3, 2.6)
    canvas.lay(0.5 * thin * (1 - level), soil, 0.3)


def _paint_river(rng: np.random.Generator, canvas: Canvas, terrain: Terrain) -> None:
    bars = terrain.river_m + 9 * smooth_noise(rng, canvas.size, 120 / terrain.gsd_m)
    canvas.lay(0.9 * smoothstep(bars, 21, 18), GRAVEL * soil_texture(rng, canvas.size, terrain.gsd_m)[..., None])
    ripples = 1 + 0.05 * fractal_noise(rng, canvas.size, 30 / terrain.gsd_m)
    canvas.lay(smoothstep(terrain.river_m, 14, 11), WATER * ripples[..., None], -1.0)


def _paint_roads(rng: np.random.Generator, canvas: Canvas, terrain: Terrain) -> NDArray[np.bool_]:
    gsd_m, size = terrain.gsd_m, canvas.size
    offset_m = np.sign(terrain.bank) * terrain.river_m + 12 * smooth_noise(rng, size, 300 / gsd_m)
    contours = np.asarray(cv2.GaussianBlur(terrain.dem, (0, 0), 40 / gsd_m), np.float32)
    for level in np.quantile(contours, (0.45, 0.8)):
        travelled = smooth_noise(rng, size, 900 / gsd_m) > 0
        cut = contours + smooth_noise(rng, size, 90 / gsd_m)
        canvas.lay(0.6 * _soften(ribbon(cut, level, 9 / gsd_m) & travelled), SOILS[1])
        canvas.lay(0.9 * _soften(ribbon(cut, level, 5 / gsd_m) & travelled), DIRT)
    canvas.lay(0.9 * _soften(ribbon(offset_m, -70, 4.5 / gsd_m)), DIRT)
    canvas.lay(0.9 * _soften(ribbon(offset_m, 48, 8 / gsd_m)), ASPHALT)
    return np.asarray(np.abs(offset_m - 48) < 12, np.bool_)


def _soften(line: NDArray[np.bool_]) -> Field:
    """Soften the edges of a line."""
    return np.asarray(cv2.GaussianBlur(line.astype(np.float32), (0, 0), 0.6), np.float32)


def _paint_houses(rng: np.random.Generator, canvas: Canvas, terrain: Terrain, slope: Field) -> NDArray[np.bool_]:
    """Paint villages on level ground along the road; return (size, size) bool, their yards."""
    gsd_m, size = terrain.gsd_m, canvas.size
    side_m = np.sign(terrain.bank) * terrain.river_m
    village = (smooth_noise(rng, size, 500 / gsd_m) > 0.9) & (slope < FLAT_DEG) & (side_m > 58) & (side_m < 150)
    places = np.argwhere(village)
    houses = np.zeros((size, size), np.uint8)
    if len(places) == 0:
        return houses.astype(bool)
    for y, x in places[rng.integers(len(places), size=max(1, int(len(places) * gsd_m**2 / 700)))]:
        footprint = cv2.boxPoints(((float(x), float(y)), tuple(rng.uniform(8, 17, 2) / gsd_m), rng.uniform(0, 90)))
        cv2.fillPoly(houses, [np.round(footprint * 8).astype(np.int32)], int(rng.integers(1, len(ROOFS) + 1)), shift=3)
    canvas.lay(houses > 0, ROOFS[houses.astype(int) - 1], 4.5)
    return np.asarray(cv2.dilate(houses, np.ones((5, 5), np.uint8)) > 0, np.bool_)


# Landslides: slope of the head and of the end, length, distance to others.
STEEP_DEG, STOPS_DEG = (23.0, 45.0), 7.0
LENGTH_M, SPACING_M = (100.0, 340.0), 30.0

# Half-width along the path, as a share of the maximum: round head, narrowing body, spreading fan.
_ALONG = (0.0, 0.12, 0.3, 0.65, 0.85, 1.0)
_HALF_WIDTH = (0.65, 1.0, 0.85, 0.55, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Landslides:
    """Layers of the landslides, each (size, size)."""

    instances: NDArray[np.uint16]  # 0 on stable ground, k on the k-th landslide
    along: Field  # position along the path from head (0) to toe (1)
    across: Field  # signed distance to the middle line, metres
    inside: Field  # distance to the outline, metres, positive inside

    @property
    def count(self) -> int:
        """Number of landslides."""
        return int(self.instances.max())


def place_landslides(rng: np.random.Generator, terrain: Terrain, used: NDArray[np.bool_], count: int) -> Landslides:
    """Place at most `count` landslides that begin on steep ground, run downhill and keep off `used` ground."""
    size, gsd_m = terrain.dem.shape[0], terrain.gsd_m
    smooth = np.asarray(cv2.GaussianBlur(terrain.dem, (0, 0), 9 / gsd_m), np.float32)
    slope = slope_deg(smooth, gsd_m)
    blank = np.zeros((size, size), np.float32)
    slides = Landslides(np.zeros((size, size), np.uint16), blank, blank.copy(), blank.copy())
    closed = used | (terrain.river_m < 20)
    ragged = fractal_noise(rng, size, 24 / gsd_m, octaves=3)
    heads = np.argwhere((slope > STEEP_DEG[0]) & (slope < STEEP_DEG[1]) & ~closed)
    for y, x in rng.permutation(heads)[: 40 * count]:
        if slides.count == count:
            break
        path = None if slides.instances[y, x] else _run_down(rng, smooth, slope, (float(x), float(y)), gsd_m)
        if path is not None:
            _add_landslide(rng, slides, path, ragged, closed, gsd_m)
    return slides


def paint_landslides(rng: np.random.Generator, canvas: Canvas, slides: Landslides, gsd_m: float) -> None:
    """Paint bare soil with downhill streaks, a dark scarp, rubble on the fan, and plants on older scars."""
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
    """Return the heights after failure, metres: a hollow at the head, a bulge at the toe."""
    depth = smoothstep(slides.inside, 0, 12) * np.interp(
        slides.along, (0, 0.15, 0.55, 0.8, 1), (3.5, 4.5, 0.8, -2.5, -1.5)
    )
    return np.asarray(dem - np.where(slides.instances > 0, depth, 0), np.float32)


def _run_down(
    rng: np.random.Generator, dem: Field, slope: Field, head: tuple[float, float], gsd_m: float
) -> NDArray[np.float64] | None:
    """Return positions (n, 2), x and y in pixels, 1.5 m apart from the head downhill; None if the path is short."""
    length_m = rng.triangular(LENGTH_M[0], 1.3 * LENGTH_M[0], LENGTH_M[1])
    step, size = 1.5 / gsd_m, dem.shape[0]
    position, heading, path = np.array(head), np.zeros(2), []
    for _ in range(int(length_m / 1.5)):
        x, y = round(position[0]), round(position[1])
        if not (1 < x < size - 2 and 1 < y < size - 2) or slope[y, x] < STOPS_DEG:
            break
        path.append(position.copy())
        downhill = np.array([dem[y, x - 1] - dem[y, x + 1], dem[y - 1, x] - dem[y + 1, x]], np.float64)
        heading = 0.9 * heading + 0.1 * downhill / max(float(np.hypot(*downhill)), 1e-6)
        position = position + step * heading / max(float(np.hypot(*heading)), 1e-6)
    return np.array(path) if len(path) * 1.5 >= LENGTH_M[0] * 0.8 else None


def _add_landslide(
    rng: np.random.Generator,
    slides: Landslides,
    path: NDArray[np.float64],
    ragged: Field,
    closed: NDArray[np.bool_],
    gsd_m: float,
) -> None:
    """Add one landslide to the layers, unless it would touch another one or closed ground."""
    widest = len(path) * 1.5 * rng.uniform(0.12, 0.22) / gsd_m
    margin = int(widest + SPACING_M / gsd_m) + 2
    left, top = np.floor(path.min(axis=0)).astype(int) - margin
    right, bottom = np.ceil(path.max(axis=0)).astype(int) + margin + 1
    x, y = np.round(path).astype(int).T
    if (
        min(left, top) < 0
        or max(right, bottom) > closed.shape[0]
        or (closed[y, x] | (slides.instances[y, x] > 0)).any()
    ):
        return
    box = (slice(top, bottom), slice(left, right))
    along, across, inside = _outline(path, widest, (bottom - top, right - left), (left, top))
    inside = np.asarray(inside + ragged[box] * min(0.18 * widest, 2.0), np.float32)
    body = _largest_piece(inside > 0)
    if (body & closed[box]).any() or slides.instances[box][inside > -SPACING_M / gsd_m].any():
        return
    slides.instances[box][body] = slides.count + 1
    slides.along[box][body] = along[body]
    slides.across[box][body] = across[body] * gsd_m
    slides.inside[box][body] = inside[body] * gsd_m


def _outline(
    path: NDArray[np.float64], widest: float, shape: tuple[int, int], corner: tuple[int, int]
) -> tuple[Field, Field, Field]:
    """Return position along a path (0..1), distance to its middle line and depth inside its outline (pixels)."""
    points = path[::2]
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
    """Return noise of unit variance that is stretched downhill, different for each landslide."""
    side = 512
    noise = smooth_noise(rng, side, 4)
    offset = rng.uniform(0, side, (slides.count + 1, 2)).astype(np.float32)[slides.instances]
    x = (slides.across / 1.6 + offset[..., 0]) % (side - 1)
    y = (slides.along * 14 + offset[..., 1]) % (side - 1)
    return np.asarray(cv2.remap(noise, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR), np.float32)
