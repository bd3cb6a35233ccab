"""Synthetic world: its layers and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from lim_keras.demo.land_cover import dig, paint_cover, paint_landslides, place_landslides
from lim_keras.demo.terrain import Canvas, Field, make_terrain, photograph
from lim_keras.errors import DataError
from lim_keras.raster.writer import write_raster

CRS = "EPSG:32648"

MIN_SIZE = 256

# Ground for one landslide where their number is left open: about 4 % of the ground ends up in scars.
HECTARES_PER_LANDSLIDE = 14.0


@dataclass(frozen=True, slots=True)
class World:
    """Attributes:

    scene: (size, size, 3) uint8, red, green, blue.
    instances: (size, size) uint16, 0 on stable ground, k on the k-th landslide; each is one piece.
    dem: (size, size) float32, metres.
    gsd_m: metres a pixel.
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
        """Height and width in pixels."""
        return int(self.instances.shape[0])

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(size, size) uint8: 1 on landslides, 0 elsewhere."""
        return (self.instances > 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class WorldFiles:
    """Where `write_world` put a world: three GeoTIFFs and the landslides as polygons (GeoPackage)."""

    scene: Path
    labels: Path
    dem: Path
    landslides: Path


def make_world(size: int = 1536, seed: int = 2022, *, gsd_m: float = 2.0, landslides: int | None = None) -> World:
    """Make a mountain valley with landslides, and with bare fields, diggings, roads and gravel that look like them.

    Args:
        size: height and width in pixels, at least 256.
        seed: same seed, same world. Worlds of different seeds below 800 lie on different ground.
        gsd_m: ground sample distance, metres.
        landslides: how many; None: one on every 14 hectares. Fewer where the slopes have no room for more.

    Raises:
        DataError: a size, gsd_m or number of landslides out of range.
    """
    if size < MIN_SIZE:
        raise DataError(f"Invalid value for argument `size`. Expected an integer >= {MIN_SIZE}. Received: {size}")
    if not 0.5 <= gsd_m <= 10:
        raise DataError(f"Invalid value for argument `gsd_m`. Expected 0.5 <= gsd_m <= 10. Received: {gsd_m}")
    if landslides is not None and landslides < 0:
        raise DataError(f"Invalid value for argument `landslides`. Expected an integer >= 0. Received: {landslides}")
    count = round((size * gsd_m) ** 2 / 1e4 / HECTARES_PER_LANDSLIDE) if landslides is None else landslides
    ground, cover, failures, scars, camera = np.random.default_rng(seed).spawn(5)
    terrain = make_terrain(ground, size, gsd_m)
    canvas = Canvas.blank(size)
    kept = paint_cover(cover, canvas, terrain)
    slides = place_landslides(failures, terrain, kept, count)
    paint_landslides(scars, canvas, slides, gsd_m)
    dem = dig(terrain.dem, slides)
    scene = photograph(camera, canvas, dem, gsd_m)
    return World(scene, slides.instances, dem, gsd_m, CRS, _place_on_map(seed, gsd_m))


def write_world(world: World, folder: str | Path) -> WorldFiles:
    """Write scene.tif, labels.tif (1 landslide, 0 background), dem.tif (metres) and landslides.gpkg into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = WorldFiles(folder / "scene.tif", folder / "labels.tif", folder / "dem.tif", folder / "landslides.gpkg")
    for path, values in ((files.scene, world.scene), (files.labels, world.mask), (files.dem, world.dem)):
        write_raster(path, values, crs=world.crs, transform=world.transform)
    _write_polygons(world, files.landslides)
    return files


def _place_on_map(seed: int, gsd_m: float) -> Affine:
    """The upper left corner: worlds of different seeds stand on a grid of 20 km, so that no two share ground."""
    column, row = seed % 20, seed // 20 % 40
    return Affine(gsd_m, 0.0, 400_000.0 + 20_000 * column, 0.0, -gsd_m, 2_600_000.0 + 20_000 * row)


def _write_polygons(world: World, path: Path) -> None:
    # Vector libraries load slowly, and most users of a world want its pixels only.
    import geopandas

    from lim_keras.raster.vectorize import polygonize_array

    pieces = polygonize_array(world.instances, world.transform)
    landslides = sorted((int(number), outline) for outline, number in pieces)
    frame = geopandas.GeoDataFrame(
        {"landslide": [number for number, _ in landslides], "area_m2": [outline.area for _, outline in landslides]},
        geometry=[outline for _, outline in landslides],
        crs=world.crs,
    )
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    frame.to_file(beside, driver="GPKG", layer=path.stem)
    beside.replace(path)
