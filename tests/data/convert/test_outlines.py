"""Outlines of objects: drawing them in their bounds gives the pixels of drawing them in the whole image."""

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize

from lim_keras.data.convert.outlines import Objects, Rings
from lim_keras.data.convert.rle import Runs
from lim_keras.raster.windows import Box


def test_polygons_and_shares_equal_those_of_the_whole_image():
    rng = np.random.default_rng(0)
    for number in range(400):
        height, width = rng.integers(1, 60, 2).tolist()
        points = np.round(rng.uniform(-20, 80, (rng.integers(3, 9), 2)) * 4) / 4  # many lie on centres and borders
        normalised = number % 3 == 0
        scaled = points / 64 * (width, height) if normalised else points
        shape = shapely.Polygon(scaled)
        whole = rasterize([shape], out_shape=(height, width), transform=Affine.identity()) == 1
        given = points / 64 if normalised else points
        drawn = Objects((Rings((tuple(map(tuple, given.tolist())),), normalised),)).draw(height, width)
        np.testing.assert_array_equal(drawn.labels == 1, whole)
        assert bool(drawn.notes) != whole.any()


def test_run_lengths_equal_their_pixels():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0) * 20:
        height, width = rng.integers(1, 20, 2).tolist()
        pixels = rng.random((height, width)) < share
        columns = pixels.T.ravel()
        changes = np.flatnonzero(np.diff(columns, prepend=False))
        runs = Runs(tuple(np.diff([0, *changes, columns.size]).tolist()), height, width)
        np.testing.assert_array_equal(Objects((runs,)).draw(height, width).labels == 1, pixels)


def test_only_the_bounds_are_drawn():
    ring = Rings((((10.5, 20), (14, 20), (14, 22.2), (10.5, 22.2)),))
    ((box, pixels),) = ring.pieces(1000, 1000)
    assert box == Box(20, 10, 23, 14) and pixels.shape == (3, 4)
    assert list(Rings((((-9, -9), (-1, -9), (-1, -1)),)).pieces(10, 10)) == []
    # column 3, rows 1 and 2 of 5 x 1000 px: 16 background pixels come first
    ((box, pixels),) = Runs((16, 2, 4982), 5, 1000).pieces(5, 1000)
    assert box == Box(0, 3, 5, 4) and pixels.T.tolist() == [[False, True, True, False, False]]
