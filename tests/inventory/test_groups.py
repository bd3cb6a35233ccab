"""Landslides that are found block by block are those of the whole mask, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.errors import DataError
from lim_keras.inventory import groups, spool
from lim_keras.inventory.groups import find_landslides
from lim_keras.inventory.pixels import PixelReader
from lim_keras.inventory.polygons import polygons_of
from lim_keras.inventory.tracing import find_corners, trace_rings
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster
from tests.inventory import oracle
from tests.inventory.conftest import read_landslides, trace


def chessboard(side):
    return np.indices((side, side)).sum(axis=0).astype(np.uint8) % 2


def snake(side):
    """One landslide that goes to and fro over all rows."""
    mask = np.zeros((side, side), np.uint8)
    mask[::2] = 1
    mask[1::4, -1] = mask[3::4, 0] = 1
    return mask


def stripes(side):
    mask = np.zeros((side, side), np.uint8)
    mask[:, ::2] = 1
    return mask


def nested(side):
    """Rings in rings, one pixel apart."""
    rows, columns = np.indices((side, side))
    depth = np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns))
    return (1 - depth % 2).astype(np.uint8)


def lace(side):
    """One landslide with a hole at every second pixel of every second row."""
    mask = np.ones((side, side), np.uint8)
    mask[1:-1:2, 1:-1:2] = 0
    return mask


def crossing(side):
    """Pixels that meet in corners, of one landslide and of two."""
    mask = nested(side)
    return np.where(np.eye(side, dtype=bool), 1 - mask, mask).astype(np.uint8)


def check(path, mask, block):
    outlines, seeds = trace(path, block)
    expected, first = oracle.trace(mask)
    assert seeds.tolist() == [list(one) for one in first]
    assert all(oracle.same_vertices(*pair) for pair in zip(outlines, expected, strict=True))


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 12, 13, 64])
@pytest.mark.parametrize("draw", [chessboard, snake, stripes, nested, lace, crossing])
def test_shapes_that_cross_every_block(write_mask, draw, block):
    mask = draw(13)
    check(write_mask(mask), mask, block)


@pytest.mark.parametrize("block", range(1, 24))
def test_noise_in_blocks_of_every_size(write_mask, block):
    rng = np.random.default_rng(block)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (22, 23), p=[0.35, 0.6, 0.05])
    check(write_mask(mask), mask, block)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rings_are_those_of_gdal(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels, np.uint8).reshape(height, width)
    count, numbers = groups._label(np.pad(mask, 1))
    if count:
        rings, _ = trace_rings(find_corners(np.pad(mask == 1, 1), numbers, 0, 0), count)
        expected, _ = oracle.trace(mask)
        assert all(oracle.same_vertices(*pair) for pair in zip(polygons_of(rings), expected, strict=True))


@pytest.mark.parametrize("block", [4, 9, 50])
def test_statistics_are_those_of_the_pixels(write_mask, tmp_path, block):
    rng = np.random.default_rng(7)
    mask = (rng.random((31, 37)) < 0.6).astype(np.uint8)
    probability = rng.random(mask.shape).astype(np.float32)
    probability[rng.random(mask.shape) < 0.2] = -1
    maps = write_raster(tmp_path / "maps.tif", probability, nodata=-1)
    found = read_landslides(write_mask(mask), maps=maps, block=block)[2].layers["probability"]
    expected = oracle.statistics(mask, np.where(probability < 0, np.nan, probability))
    np.testing.assert_allclose(found.rows.T, expected, rtol=1e-12)


@pytest.mark.parametrize("limit", [1, 40, 10**6])
def test_parts_of_any_size_give_the_same_landslides(write_mask, monkeypatch, limit):
    rng = np.random.default_rng(3)
    mask = (rng.random((40, 40)) < 0.58).astype(np.uint8)
    mask[:, ::9] = 1  # landslides that begin in the first row and end in the last
    monkeypatch.setattr(groups, "_CORNERS", limit)
    monkeypatch.setattr(spool, "_VERTICES", limit)
    monkeypatch.setattr(spool, "_RANGE", limit)
    monkeypatch.setattr(spool, "_IN_MEMORY", limit)
    check(write_mask(mask), mask, 8)


class Labels:
    """Reader of a mask; `reads` counts the boxes."""

    def __init__(self, reader):
        self.scene, self.reader, self.reads = reader.scene, reader, 0

    def labels(self, box):
        self.reads += 1
        return self.reader.labels(box)

    def __getattr__(self, name):
        return getattr(self.reader, name)


def test_a_landslide_is_yielded_as_soon_as_its_last_pixel_is_read(write_mask):
    mask = np.zeros((40, 10), np.uint8)
    mask[3:6, 3:6] = mask[8:25, 1] = mask[30, 5] = 1
    with RasterReader(write_mask(mask)) as raster:
        reader = Labels(PixelReader(raster, None, None))
        reads = [reader.reads for rings, _ in find_landslides(reader, 10) for _ in range(len(rings))]
    # Blocks of 10 rows: the square lies in the first, the bar ends in the third, the pixel lies in the fourth.
    assert reads == [1, 3, 4]


def test_a_full_disk_while_sorting_is_one_line(write_mask, monkeypatch):
    class Full:
        def tell(self):
            return 0

        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"landslides cannot be sorted there \(No space left on device\)\. Free disk"):
        trace(write_mask([[0, 1]]))


def test_corners_are_counted_from_the_scene():
    numbers = np.array([[1]], np.int32)
    corners = find_corners(np.pad(numbers == 1, 1), numbers, 20, 30)
    assert sorted(zip(corners.column.tolist(), corners.row.tolist(), strict=True)) == [
        (30, 20),
        (30, 21),
        (31, 20),
        (31, 21),
    ]
