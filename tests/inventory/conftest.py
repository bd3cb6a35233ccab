"""write_mask(pixels, ...): a mask on the disk, UTM zone 48N at its central meridian in pixels of 1 m unless told."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine

from lim_keras.inventory.groups import find_landslides
from lim_keras.inventory.pixels import PixelReader, PixelStatistics
from lim_keras.inventory.polygons import polygons_of
from lim_keras.inventory.spool import Spool
from lim_keras.raster.reader import RasterReader
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


def read_landslides(mask, *, maps=None, terrain=None, block=1024):
    """Outlines in pixels, first pixels (column, row), and pixel statistics of all landslides of a mask."""
    with ExitStack() as stack:
        labels = stack.enter_context(RasterReader(mask))
        layers = None if maps is None else stack.enter_context(RasterReader(maps))
        reader = PixelReader(labels, layers, terrain)
        spool = stack.enter_context(Spool(reader.none()))
        for landslides in find_landslides(reader, block):
            spool.add(landslides)
        parts = list(spool.sorted())
        width = labels.info.width
    pixels = PixelStatistics.joined([one for _, one in parts])
    seeds = np.stack([pixels.first % width, pixels.first // width], axis=-1)
    return np.concatenate([polygons_of(rings) for rings, _ in parts]), seeds, pixels


def trace(mask, block=1024):
    """Outlines in pixels and first pixels (column, row)."""
    return read_landslides(mask, block=block)[:2]
