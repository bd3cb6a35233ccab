"""write_mask(pixels, ...): a mask on the disk, UTM zone 48N at its central meridian in pixels of 1 m unless told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine

from lim_keras.raster.writer import write_raster
from tests.inference.conftest import write  # noqa: F401  a fixture

UTM_CORNER = Affine(1, 0, 500_000, 0, -1, 3_000_000)


@pytest.fixture
def write_mask(tmp_path) -> Callable[..., Path]:
    def write_pixels(pixels, *, name="mask.tif", crs="EPSG:32648", transform=UTM_CORNER) -> Path:
        pixels = np.asarray(pixels, np.uint8)
        return write_raster(tmp_path / name, pixels, crs=crs, transform=transform, nodata=255)

    return write_pixels


@pytest.fixture(scope="session")
def picture() -> Callable[[str], np.ndarray]:
    """picture("#.o"): rows of text to a mask: # landslide, o no data, anything else background."""

    def draw(text: str) -> np.ndarray:
        rows = [line.strip() for line in text.strip().splitlines()]
        return np.array([[{"#": 1, "o": 255}.get(one, 0) for one in row] for row in rows], np.uint8)

    return draw
