"""Synthetic world: make it, write it to files, and cut labelled tiles from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lim_keras.demo.land_cover import dig, paint_cover, paint_landslides, place_landslides
from lim_keras.demo.terrain import Canvas, Field, make_terrain, photograph
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import atomic_file
from lim_keras.raster.georeference import shifted
from lim_keras.raster.writer import write_raster

CRS = "EPSG:32648"
MIN_SIZE = 256

# Default area per landslide: landslides then cover about 4 % of the ground.
_HECTARES_PER_LANDSLIDE = 14.0

# Smallest share of a landslide that its tile shows, and attempts to find room for a tile.
_MIN_SHARE, _TRIES = 1 / 3, 400

Slices = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class World:
    """Layers of a synthetic world.

    Attributes:
        scene: (size, size, 3) uint8, red, green, blue.
        instances: (size, size) uint16, 0 on stable ground, k on the k-th landslide; each is one piece.
        dem: (size, size) float32, metres.
        gsd_m: ground sample distance, metres.
        crs: coordinate reference system, metres.
        transform: pixel corner to map coordinates.
    """

    scene: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    dem: Field
    gsd_m: float
    crs: str
    transform: Affine

    @property
    def size(self) -> int:
        """Height and width, pixels."""
        return int(self.instances.shape[0])

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(size, size) uint8: 1 on landslides, 0 elsewhere."""
        return (self.instances > 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class WorldFiles:
    """Files of a world: three GeoTIFFs and the landslides as polygons (GeoPackage)."""

    scene: Path
    labels: Path
    dem: Path
    landslides: Path


def make_world(size: int = 1536, seed: int = 2022, *, gsd_m: float = 2.0, landslides: int | None = None) -> World:
    """Make a mountain valley with landslides, and with bare fields, diggings, roads and gravel that look like them.

    Args:
        size: height and width in pixels, at least 256.
        seed: equal seeds give equal worlds. Worlds of different seeds below 800 lie on different ground.
        gsd_m: ground sample distance, metres, 0.5 to 10.
        landslides: number of landslides; None: one on every 14 hectares. Fewer if the slopes have no room.

    Raises:
        ConfigError: an argument is out of range.
    """
    if size < MIN_SIZE:
        raise ConfigError(f"Invalid value for argument `size`. Expected an integer >= {MIN_SIZE}. Received: {size}")
    if not 0.5 <= gsd_m <= 10:
        raise ConfigError(f"Invalid value for argument `gsd_m`. Expected 0.5 <= gsd_m <= 10. Received: {gsd_m}")
    if landslides is not None and landslides < 0:
        raise ConfigError(f"Invalid value for argument `landslides`. Expected an integer >= 0. Received: {landslides}")
    count = round((size * gsd_m) ** 2 / 1e4 / _HECTARES_PER_LANDSLIDE) if landslides is None else landslides
    ground, cover, failures, scars, camera = np.random.default_rng(seed).spawn(5)
    terrain = make_terrain(ground, size, gsd_m)
    canvas = Canvas.blank(size)
    used = paint_cover(cover, canvas, terrain)
    slides = place_landslides(failures, terrain, used, count)
    paint_landslides(scars, canvas, slides, gsd_m)
    dem = dig(terrain.dem, slides)
    scene = photograph(camera, canvas, dem, gsd_m)
    return World(scene, slides.instances, dem, gsd_m, CRS, world_transform(seed, gsd_m))


def world_transform(seed: int, gsd_m: float) -> Affine:
    """Return the transform of a world: a grid of 20 km keeps worlds of different seeds apart."""
    column, row = seed % 20, seed // 20 % 40
    return Affine(gsd_m, 0.0, 400_000.0 + 20_000 * column, 0.0, -gsd_m, 2_600_000.0 + 20_000 * row)


def write_world(world: World, folder: str | os.PathLike[str]) -> WorldFiles:
    """Write scene.tif, labels.tif (1 landslide, 0 background), dem.tif (metres) and landslides.gpkg into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = WorldFiles(folder / "scene.tif", folder / "labels.tif", folder / "dem.tif", folder / "landslides.gpkg")
    for path, values in ((files.scene, world.scene), (files.labels, world.mask), (files.dem, world.dem)):
        write_raster(path, values, crs=world.crs, transform=world.transform)
    _write_polygons(world, files.landslides)
    return files


def _write_polygons(world: World, path: Path) -> None:
    # Vector libraries load slowly, and most users of a world need only its pixels.
    import geopandas

    from lim_keras.raster.vectorize import polygonize_array

    pieces = polygonize_array(world.instances, world.transform)
    landslides = sorted((int(number), outline) for outline, number in pieces)
    frame = geopandas.GeoDataFrame(
        {"landslide": [number for number, _ in landslides], "area_m2": [outline.area for _, outline in landslides]},
        geometry=[outline for _, outline in landslides],
        crs=world.crs,
    )
    with atomic_file(path) as draft:
        frame.to_file(draft, driver="GPKG", layer=path.stem)


def cut_tiles(
    world: World,
    folder: str | os.PathLike[str],
    *,
    landslide: int = 60,
    non_landslide: int = 90,
    sides: tuple[int, int] = (64, 160),
    centred: bool = False,
    seed: int = 2022,
    prefix: str = "",
) -> list[str]:
    """Write GeoTIFF tiles that do not overlap, as landslide/{image,mask} and non-landslide/image; return their ids.

    Args:
        world: world to cut from.
        folder: folder to write to; worlds with different prefixes may share it.
        landslide: number of tiles with a landslide, each cut for a different landslide. Masks are 0 and 255.
        non_landslide: number of tiles without a landslide pixel.
        sides: smallest and largest height and width, pixels.
        centred: True cuts each landslide tile around its landslide, as in published data sets. False puts the landslide
            anywhere in the tile, with at least a third of it inside.
        seed: equal worlds and seeds give equal tiles.
        prefix: beginning of every tile id.
    """
    if not 8 <= sides[0] <= sides[1] <= world.size:
        raise ConfigError(
            f"Invalid value for argument `sides`. Expected 8 <= smallest <= largest <= {world.size}. Received: {sides}"
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
) -> Iterator[Slices]:
    """Yield a box for each landslide that has room for one, in random order, and mark it in `taken`."""
    outlines = find_objects(world.instances)
    for index in rng.permutation(len(outlines)):
        pixels = np.argwhere(world.instances[outlines[index]] == index + 1)
        pixels += [outlines[index][0].start, outlines[index][1].start]
        for _ in range(_TRIES):
            box = _box_around(rng, pixels, sides) if centred else _box_over(rng, pixels, sides)
            inside = np.count_nonzero(world.instances[box] == index + 1) if _is_free(box, taken) else 0
            if inside >= _MIN_SHARE * len(pixels):
                taken[box] = True
                yield box
                break


def _background_boxes(
    rng: np.random.Generator, world: World, taken: NDArray[np.bool_], sides: tuple[int, int]
) -> Iterator[Slices]:
    """Yield boxes without landslide pixels until there is no room, and mark them in `taken`."""
    tries = 0
    while tries < 10 * _TRIES:
        height, width = rng.integers(sides[0], sides[1] + 1, 2)
        top, left = rng.integers(0, world.size - np.array([height, width]) + 1)
        box = slice(int(top), int(top + height)), slice(int(left), int(left + width))
        tries += 1
        if not taken[box].any() and not world.instances[box].any():
            taken[box] = True
            tries = 0
            yield box


def _box_around(rng: np.random.Generator, pixels: NDArray[np.int64], sides: tuple[int, int]) -> Slices:
    """Centre a box on the extent of the landslide, with some ground around it."""
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    extent = np.clip(((high - low) * rng.uniform(1.3, 2.2, 2)).astype(int), *sides)
    top, left = (low + high - extent) // 2
    return slice(int(top), int(top + extent[0])), slice(int(left), int(left + extent[1]))


def _box_over(rng: np.random.Generator, pixels: NDArray[np.int64], sides: tuple[int, int]) -> Slices:
    """Draw a box with one landslide pixel at a random position inside."""
    extent = rng.integers(sides[0], sides[1] + 1, 2)
    top, left = pixels[rng.integers(len(pixels))] - rng.integers(0, extent)
    return slice(int(top), int(top + extent[0])), slice(int(left), int(left + extent[1]))


def _is_free(box: Slices, taken: NDArray[np.bool_]) -> bool:
    inside = all(side.start >= 0 and side.stop <= size for side, size in zip(box, taken.shape, strict=True))
    return inside and not taken[box].any()


def _check_room(kind: str, found: int, wanted: int, size: int) -> None:
    if found < wanted:
        raise DataError(
            f"Expected {wanted} {kind} tiles. A world of {size} x {size} pixels has room for {found}. Make a larger "
            "world, smaller `sides` or fewer tiles."
        )


def _write_tile(world: World, folder: Path, tile_id: str, box: Slices) -> None:
    mask = world.mask[box] * np.uint8(255)
    transform = shifted(world.transform, box[1].start, box[0].start)
    kind = folder / ("landslide" if mask.any() else "non-landslide")
    files = [(kind / "image", world.scene[box])] + ([(kind / "mask", mask)] if mask.any() else [])
    for parent, values in files:
        parent.mkdir(parents=True, exist_ok=True)
        write_raster(parent / f"{tile_id}.tif", values, crs=world.crs, transform=transform)
