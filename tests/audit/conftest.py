"""Georeferenced tiles of made-up ground, without any defect."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from affine import Affine

from lim_keras.raster.writer import write_raster


def ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make a texture with detail at all scales, (height, width, 3) float32, green on average."""
    texture = np.zeros((height, width), np.float32)
    for scale in (1, 2, 4, 8, 16, 32):
        shape = height // scale + 3, width // scale + 3
        coarse = rng.normal(0, scale**0.6, shape).astype(np.float32)
        texture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return 4 * texture[..., None] * np.float32([1.0, 0.9, 0.7]) + np.float32([80, 105, 50])


def landslide(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw an uneven patch anywhere in the tile, (height, width) bool."""
    angle = np.linspace(0, 2 * np.pi, 60)
    radius = 0.15 * min(height, width) * (1 + 0.3 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.15 * np.cos(5 * angle))
    centre = rng.uniform(0.1, 0.9, 2) * (width, height)
    outline = centre + radius[:, None] * np.column_stack([np.cos(angle), 1.4 * np.sin(angle)])
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [np.rint(outline).astype(np.int32)], 1) > 0


@pytest.fixture(scope="session")
def clean_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 14 landslide and 16 other GeoTIFF tiles, 1 km apart. Read only: tests copy it."""
    folder, rng = tmp_path_factory.mktemp("audit") / "tiles", np.random.default_rng(5)
    for number in range(30):
        kind, tile_id = ("landslide", f"ls_{number:02}") if number < 14 else ("non-landslide", f"nls_{number - 14:02}")
        height, width = rng.integers(80, 112, 2).tolist()
        image, mask = ground(rng, height, width), np.zeros((height, width), np.uint8)
        if kind == "landslide":
            mask[landslide(rng, height, width)] = 255
            image[mask > 0] += np.float32([60, 35, 35])
        place = {"crs": "EPSG:32648", "transform": Affine(2, 0, 400_000 + 1000 * number, 0, -2, 2_600_000)}
        files = {"image": np.clip(image, 1, 250).astype(np.uint8), **({"mask": mask} if mask.any() else {})}
        for part, values in files.items():
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
            write_raster(folder / kind / part / f"{tile_id}.tif", values, **place)
    return folder
