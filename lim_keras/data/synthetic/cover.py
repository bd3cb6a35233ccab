"""Forest, shrub, terraces, fields, bare ground, river, roads, houses: all that is no landslide, look-alikes too."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.data.synthetic.canvas import Canvas
from lim_keras.data.synthetic.noise import (
    Field,
    Labels,
    fractal_noise,
    ribbon,
    scattered_points,
    smooth_noise,
    smoothstep,
)
from lim_keras.data.synthetic.terrain import Terrain, slope_deg

# Bare ground has one palette, whatever bared it: colour alone cannot tell a scar from a ploughed field.
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
    """Cover all ground; returns (size, size) bool, where people keep it from sliding: farmland, road, houses."""
    slope = slope_deg(terrain.dem, terrain.gsd_m, smoothing_m=12)
    # Of the surroundings, not of the spot: nobody ploughs the top of a ridge.
    slope = np.asarray(cv2.GaussianBlur(slope, (0, 0), 22 / terrain.gsd_m), np.float32)
    _paint_shrub(rng, canvas, terrain.gsd_m)
    _paint_forest(rng, canvas, slope, terrain.gsd_m)
    _paint_terraces(rng, canvas, terrain, slope)
    farmland = _paint_fields(rng, canvas, slope, terrain.gsd_m)
    _paint_bare_ground(rng, canvas, slope, terrain.gsd_m)
    _paint_river(rng, canvas, terrain)
    kept = farmland | _paint_roads(rng, canvas, terrain)
    return kept | _paint_houses(rng, canvas, terrain, slope)


def soil_texture(rng: np.random.Generator, size: int, gsd_m: float) -> Field:
    """(size, size) brightness factors about 1: clods, stains and damp places."""
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
    """Metres along and across the fields, whose direction is each district's own."""
    size = district.shape[0]
    angle = rng.uniform(0, np.pi, district.max() + 1).astype(np.float32)[district]
    bend_x, bend_y = 14 * smooth_noise(rng, size, 260 / gsd_m), 14 * smooth_noise(rng, size, 260 / gsd_m)
    x = np.arange(size, dtype=np.float32)[None, :] * gsd_m + bend_x
    y = np.arange(size, dtype=np.float32)[:, None] * gsd_m + bend_y
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(along, np.float32), np.asarray(across, np.float32)


def _crop_colours(rng: np.random.Generator, row: NDArray[np.int64], column: NDArray[np.int64], bare: float) -> Field:
    """(h, w, 3): one colour a plot; a share `bare` of the plots shows its soil."""
    tables = 4096
    is_bare = rng.random(tables) < bare
    colours = np.where(
        is_bare[:, None], SOILS[rng.integers(len(SOILS), size=tables)], CROPS[rng.integers(len(CROPS), size=tables)]
    )
    colours = colours * rng.uniform(0.9, 1.1, (tables, 1))
    # Two odd multipliers scatter neighbouring rows and columns over the table.
    return np.asarray(colours[(row * 2_654_435_761 + column * 40_503) % tables], np.float32)


def _paint_bare_ground(rng: np.random.Generator, canvas: Canvas, slope: Field, gsd_m: float) -> None:
    """Yards, diggings and dumps on level ground, thin soil on slopes."""
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
        canvas.lay(0.6 * _even(ribbon(cut, level, 9 / gsd_m) & travelled), SOILS[1])
        canvas.lay(0.9 * _even(ribbon(cut, level, 5 / gsd_m) & travelled), DIRT)
    canvas.lay(0.9 * _even(ribbon(offset_m, -70, 4.5 / gsd_m)), DIRT)
    canvas.lay(0.9 * _even(ribbon(offset_m, 48, 8 / gsd_m)), ASPHALT)
    return np.asarray(np.abs(offset_m - 48) < 12, np.bool_)


def _even(line: NDArray[np.bool_]) -> Field:
    """The line with soft edges."""
    return np.asarray(cv2.GaussianBlur(line.astype(np.float32), (0, 0), 0.6), np.float32)


def _paint_houses(rng: np.random.Generator, canvas: Canvas, terrain: Terrain, slope: Field) -> NDArray[np.bool_]:
    """Villages on level ground along the road; returns where their yards are."""
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
