"""A few tiles, a scene in which bright is landslide, and polygons of landslides."""

from collections.abc import Callable
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
from rasterio import Affine
from shapely import Polygon, box

from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import TileSet

UTM = "EPSG:32648"
EAST, NORTH = 500_000, 3_000_000  # on the central meridian, where a metre of UTM is 1 / 0.9996 m


def frame(*shapes: object, crs: str | None = UTM) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(geometry=list(shapes), crs=crs)


def square(x: float, y: float, width: float, height: float | None = None) -> Polygon:
    """A rectangle whose lower left corner lies x, y metres from a point in UTM."""
    return box(EAST + x, NORTH + y, EAST + x + width, NORTH + y + (height or width))


@pytest.fixture
def tiles(tmp_path: Path) -> TileSet:
    """Four landslide tiles with a bright disc, four without; 40 to 61 px."""
    for folder in ("landslide/image", "landslide/mask", "non-landslide/image"):
        (tmp_path / "tiles" / folder).mkdir(parents=True)
    rng = np.random.default_rng(3)
    for k in range(8):
        image = rng.integers(20, 90, (40 + 3 * k, 50, 3)).astype(np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        kind = "landslide" if k < 4 else "non-landslide"
        if k < 4:
            cv2.circle(mask, (25, 20), 12, 255, -1)
            image[mask > 0] += 120
            cv2.imwrite(str(tmp_path / f"tiles/landslide/mask/t{k}.png"), mask)
        cv2.imwrite(str(tmp_path / f"tiles/{kind}/image/t{k}.png"), image)
    return read_tiles(tmp_path / "tiles")


@pytest.fixture
def scene(tmp_path: Path) -> Callable[[float], tuple[Path, Path]]:
    """Writes a scene of 90 x 110 px with a bright rectangle of 30 x 40 that is its landslide, and its labels."""

    def write(gsd_m: float) -> tuple[Path, Path]:
        labels = np.zeros((90, 110), np.uint8)
        labels[20:50, 30:70] = 1
        image = np.where(labels == 1, 180, 60).astype(np.uint8)
        paths = tmp_path / "scene.tif", tmp_path / "labels.tif"
        for path, array in zip(paths, (np.stack([image] * 3), labels[np.newaxis]), strict=True):
            transform = Affine(gsd_m, 0, 5e5, 0, -gsd_m, 3e6)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=len(array),
                height=90,
                width=110,
                dtype="uint8",
                crs="EPSG:32648",
                transform=transform,
            ) as file:
                file.write(array)
        return paths

    return write
