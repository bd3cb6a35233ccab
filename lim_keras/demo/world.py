"""Synthetic world: make it, and write it to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from lim_keras.demo.land_cover import dig, paint_cover, paint_landslides, place_landslides
from lim_keras.demo.terrain import Canvas, Field, make_terrain, photograph
from lim_keras.errors import ConfigError
from lim_keras.files import atomic_file
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.raster.writer import write_raster

CRS = "EPSG:32648"
MIN_SIZE = 256

# Default area per landslide: landslides then cover about 4 % of the ground.
_HECTARES_PER_LANDSLIDE = 14.0


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


def world_files(folder: str | os.PathLike[str], name: str = "") -> WorldFiles:
    """Return the paths of a world: scene.tif, labels.tif, dem.tif and landslides.gpkg.

    With a name, they are NAME.tif, NAME_labels.tif, NAME_dem.tif and NAME_landslides.gpkg.
    """
    folder, start = Path(folder), f"{name}_" if name else ""
    parts = ("labels.tif", "dem.tif", "landslides.gpkg")
    return WorldFiles(folder / f"{name or 'scene'}.tif", *(folder / f"{start}{part}" for part in parts))


def write_world(world: World, folder: str | os.PathLike[str]) -> WorldFiles:
    """Write scene.tif, labels.tif (1 landslide, 0 background), dem.tif (metres) and landslides.gpkg into `folder`."""
    files = world_files(folder)
    write_rasters(world, files)
    write_landslides([world], files.landslides)
    return files


def write_rasters(world: World, files: WorldFiles) -> None:
    """Write scene, labels (1 landslide, 0 background) and elevation model (metres) of a world."""
    files.scene.parent.mkdir(parents=True, exist_ok=True)
    for path, values in ((files.scene, world.scene), (files.labels, world.mask), (files.dem, world.dem)):
        write_raster(path, values, crs=world.crs, transform=world.transform)


def write_landslides(worlds: Sequence[World], path: Path) -> None:
    """Write the landslides of worlds as polygons into one GeoPackage."""
    # Vector libraries load slowly, and most users of a world need only its pixels.
    import geopandas

    from lim_keras.raster.vectorize import polygonize_array

    landslides: list[tuple[int, Any]] = []
    for world in worlds:
        pieces = polygonize_array(world.instances, world.transform)
        landslides += sorted((int(number), outline) for outline, number in pieces)
    frame = geopandas.GeoDataFrame(
        {"landslide": [number for number, _ in landslides], "area_m2": [outline.area for _, outline in landslides]},
        geometry=[outline for _, outline in landslides],
        crs=CRS,
    )
    load_pyogrio()
    with atomic_file(path) as draft:
        frame.to_file(draft, driver="GPKG", layer=path.stem)
