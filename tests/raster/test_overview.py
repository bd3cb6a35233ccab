"""Overviews of scenes: averages of the pixels with data, read block by block."""

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster

PLACE = {"crs": "EPSG:32648", "transform": Affine(2.0, 0, 500_000, 0, -2.0, 3_000_000)}


@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 8}])
def test_the_scene_is_averaged_block_by_block(layout, tmp_path, monkeypatch):
    monkeypatch.setattr("lim_keras.raster.reader._OVERVIEW_BLOCK", 32)
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (3, 90, 120)).astype(np.uint16)
    pixels[:, 30:60, 60:90] = 0
    path, windows = tmp_path / "scene.tif", []
    with rasterio.open(path, "w", "GTiff", 120, 90, 3, dtype="uint16", nodata=0, **PLACE, **layout) as target:
        target.write(pixels)

    class Watched:
        """A dataset that says how much of it is read at once."""

        def __init__(self, source):
            self.source = source

        def __getattr__(self, name):
            return getattr(self.source, name)

        def read(self, bands, *, window, **options):
            windows.append(window.width * window.height)
            return self.source.read(bands, window=window, **options)

    with RasterReader(path) as reader:
        reader._file = Watched(reader.dataset)
        reduced, valid = reader.overview(40)
    # 3 x 3 pixels become one
    means = pixels.reshape(3, 30, 3, 40, 3).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert reduced.shape == (30, 40, 3) and len(windows) > 8 and max(windows) <= 32 * 32
    hole = np.zeros((30, 40), bool)
    hole[10:20, 20:30] = True
    np.testing.assert_array_equal(valid, ~hole)
    np.testing.assert_allclose(reduced[~hole], means[~hole], atol=1)


def test_sizes_that_do_not_divide(tmp_path, monkeypatch):
    ramp = np.add.outer(np.arange(137.0), np.arange(211.0)).astype(np.float32)
    path = write_raster(tmp_path / "scene.tif", ramp, **PLACE)
    with RasterReader(path) as reader:
        whole, _ = reader.overview(100)
        monkeypatch.setattr("lim_keras.raster.reader._OVERVIEW_BLOCK", 50)
        parts, _ = reader.overview(100)
    assert whole.shape == (65, 100, 1)
    np.testing.assert_allclose(parts, whole, atol=0.6)  # no seam larger than half a pixel of the scene
    centres = np.add.outer((np.arange(65) + 0.5) * 137 / 65, (np.arange(100) + 0.5) * 2.11) - 1
    np.testing.assert_allclose(whole[..., 0], centres, atol=0.6)


def test_overviews_are_used(tmp_path):
    path = write_raster(tmp_path / "scene.tif", np.full((512, 512), 50, np.uint8), **PLACE)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8, 16], rasterio.enums.Resampling.average)
    with rasterio.open(path, "r+") as target:  # the scene itself changes, its overviews do not
        target.write(np.full((1, 512, 512), 200, np.uint8))
    with RasterReader(path) as reader:
        reduced, _ = reader.overview(32)
    assert (reduced == 50).all()
