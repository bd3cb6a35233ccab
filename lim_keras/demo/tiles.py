"""Tiles of the synthetic world."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lim_keras.demo.world import World
from lim_keras.errors import DataError
from lim_keras.raster.writer import write_raster

TRIES = 400

LEAST_SHARE = 1 / 3

Box = tuple[slice, slice]


def cut_tiles(
    world: World,
    folder: str | Path,
    *,
    landslide: int = 60,
    non_landslide: int = 90,
    sides: tuple[int, int] = (64, 160),
    centred: bool = False,
    seed: int = 2022,
    prefix: str = "",
) -> list[str]:
    """Write GeoTIFF tiles of many sizes, no two sharing ground, as landslide/{image,mask} and non-landslide/image.

    Args:
        world: what to cut from.
        folder: where to; tiles of several worlds may share it if their prefixes differ.
        landslide: number of tiles that show a landslide, each one of its own. Masks are 0 and 255.
        non_landslide: number of tiles without any landslide pixel.
        sides: smallest and greatest height and width, pixels.
        centred: True cuts each landslide tile around its landslide, as the published tiles are; False lets the
            landslide lie anywhere in it, at least a third of it inside.
        seed: same world, same seed, same tiles.
        prefix: put before every tile's name.

    Returns:
        The tiles' ids (file stems), landslide tiles first.

    Raises:
        DataError: `sides` out of range, or the world has no room for so many tiles.
    """
    if not 8 <= sides[0] <= sides[1] <= world.size:
        raise DataError(
            f"Invalid value for argument `sides`. Expected 8 <= smallest <= greatest <= {world.size}. Received: {sides}"
        )
    rng, folder = np.random.default_rng(seed), Path(folder)
    taken = np.zeros(world.instances.shape, np.bool_)
    boxes = list(islice(_landslide_boxes(rng, world, taken, sides, centred), landslide))
    _check_room("landslide", len(boxes), landslide, world.size)
    background = list(islice(_background_boxes(rng, world, taken, sides), non_landslide))
    _check_room("non-landslide", len(background), non_landslide, world.size)
    ids = [f"{prefix}ls_{k:04d}" for k in range(landslide)] + [f"{prefix}nls_{k:04d}" for k in range(non_landslide)]
    for tile_id, box in zip(ids, boxes + background, strict=True):
        _write_tile(world, folder, tile_id, box)
    return ids


def _landslide_boxes(
    rng: np.random.Generator, world: World, taken: NDArray[np.bool_], sides: tuple[int, int], centred: bool
) -> Iterator[Box]:
    """One box for each landslide that has room for one, in random order; marks them in `taken`."""
    outlines = find_objects(world.instances)
    for index in rng.permutation(len(outlines)):
        pixels = np.argwhere(world.instances[outlines[index]] == index + 1)
        pixels += [outlines[index][0].start, outlines[index][1].start]
        for _ in range(TRIES):
            box = _box_around(rng, pixels, sides) if centred else _box_over(rng, pixels, sides)
            shown = np.count_nonzero(world.instances[box] == index + 1) if _is_free(box, taken) else 0
            if shown >= LEAST_SHARE * len(pixels):
                taken[box] = True
                yield box
                break


def _background_boxes(
    rng: np.random.Generator, world: World, taken: NDArray[np.bool_], sides: tuple[int, int]
) -> Iterator[Box]:
    """Boxes without any landslide pixel, until there is no room left; marks them in `taken`."""
    tries = 0
    while tries < 10 * TRIES:
        height, width = rng.integers(sides[0], sides[1] + 1, 2)
        top, left = rng.integers(0, world.size - np.array([height, width]) + 1)
        box = slice(int(top), int(top + height)), slice(int(left), int(left + width))
        tries += 1
        if not taken[box].any() and not world.instances[box].any():
            taken[box] = True
            tries = 0
            yield box


def _box_around(rng: np.random.Generator, pixels: NDArray[np.int64], sides: tuple[int, int]) -> Box:
    """A box whose middle is the middle of the landslide's extent, with some ground around it."""
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    extent = np.clip(((high - low) * rng.uniform(1.3, 2.2, 2)).astype(int), *sides)
    top, left = (low + high - extent) // 2
    return slice(int(top), int(top + extent[0])), slice(int(left), int(left + extent[1]))


def _box_over(rng: np.random.Generator, pixels: NDArray[np.int64], sides: tuple[int, int]) -> Box:
    """A box that has one of the landslide's pixels somewhere, anywhere, inside."""
    extent = rng.integers(sides[0], sides[1] + 1, 2)
    top, left = pixels[rng.integers(len(pixels))] - rng.integers(0, extent)
    return slice(int(top), int(top + extent[0])), slice(int(left), int(left + extent[1]))


def _is_free(box: Box, taken: NDArray[np.bool_]) -> bool:
    inside = all(side.start >= 0 and side.stop <= size for side, size in zip(box, taken.shape, strict=True))
    return inside and not taken[box].any()


def _check_room(kind: str, found: int, wanted: int, size: int) -> None:
    if found < wanted:
        raise DataError(
            f"A world of {size} x {size} pixels has room for {found} {kind} tiles. Expected {wanted}. Make a larger "
            "world, smaller `sides` or fewer tiles."
        )


def _write_tile(world: World, folder: Path, tile_id: str, box: Box) -> None:
    mask = world.mask[box] * np.uint8(255)
    a, b, c, d, e, f = world.transform[:6]
    column, row = box[1].start, box[0].start
    transform = Affine(a, b, a * column + b * row + c, d, e, d * column + e * row + f)
    kind = folder / ("landslide" if mask.any() else "non-landslide")
    files = [(kind / "image", world.scene[box])] + ([(kind / "mask", mask)] if mask.any() else [])
    for place, values in files:
        place.mkdir(parents=True, exist_ok=True)
        write_raster(place / f"{tile_id}.tif", values, crs=world.crs, transform=transform)
