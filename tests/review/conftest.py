"""maps: folder of maps of the scene `scene`, as `predict` leaves it, with three landslides.

The scene has 100 x 120 px of 2 m in EPSG:32648 with the upper left corner at (500000, 3000000). Landslides, in pixels
(rows, columns) and probability: 10..20, 10..20, .9; 40..50, 40..60, .5; 70..72, 100..102, .4.

square(left, top, width, height): a rectangle in pixels of the scene, in its CRS.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine

from lim_keras.inventory.landslides import make_inventory
from lim_keras.inventory.outputs import write_inventory
from lim_keras.raster.writer import write_raster
from lim_keras.review.scenes import MappedScene, find_scenes
from lim_keras.seals import sealed_json

TRANSFORM = Affine(2, 0, 500_000, 0, -2, 3_000_000)
BLOCKS = (((10, 20), (10, 20), 90), ((40, 50), (40, 60), 50), ((70, 72), (100, 102), 40))


def write_maps(
    folder: Path, name: str = "scene", *, crs: str | None = "EPSG:32648", transform: Affine | None = TRANSFORM
) -> MappedScene:
    folder.mkdir(parents=True, exist_ok=True)
    percent = np.zeros((100, 120), np.uint8)
    for rows, columns, value in BLOCKS:
        percent[slice(*rows), slice(*columns)] = value
    place = {"crs": crs, "transform": transform}
    image = np.random.default_rng(0).integers(1, 200, (100, 120, 3)).astype(np.uint8)
    image = write_raster(folder.parent / f"{name}.tif", image, **place)
    mask = write_raster(folder / f"{name}_landslides.tif", (percent > 33).astype(np.uint8), nodata=255, **place)
    write_raster(folder / f"{name}_probability.tif", percent, nodata=255, **place)
    maps = write_raster(folder.parent / "maps.tif", (percent / 100).astype(np.float32), **place)
    write_inventory(make_inventory(mask, maps=maps, gsd_m=2.0), folder / f"{name}_inventory.gpkg")
    settings = {"threshold": 0.33, "inventory": {}}
    summary = {"scene": str(image), "gsd_m": 2.0, "files": [f"{name}_inventory.gpkg"], "settings": settings}
    (folder / f"{name}_summary.json").write_text(sealed_json(json.loads(json.dumps(summary))))
    return find_scenes(folder / f"{name}_inventory.gpkg")[0]


@pytest.fixture
def scene(tmp_path) -> MappedScene:
    return write_maps(tmp_path / "maps")


def square(left: float, top: float, width: float, height: float) -> shapely.Polygon:
    x, y = TRANSFORM.c + 2 * left, TRANSFORM.f - 2 * top
    return shapely.box(x, y - 2 * height, x + 2 * width, y)
