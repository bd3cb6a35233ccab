"""Statistics of the bands of training tiles."""

import json
from pathlib import Path

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.writer import write_raster


def tiles(folder: Path, *images: np.ndarray, mask: np.ndarray | None = None, ignore: str = "") -> TileSet:
    lines = ["tile_id,image,mask,ignore"]
    for number, image in enumerate(images):
        write_raster(folder / f"t{number}.tif", image)
        write_raster(folder / f"m{number}.tif", np.zeros(image.shape[:2], np.uint8) if mask is None else mask)
        lines.append(f"t{number},t{number}.tif,m{number}.tif,{ignore}")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return read_tiles(folder)


def two_values(dtype: type, low: float, high: float) -> np.ndarray:
    """(8, 10, 2): band 1 half `low`, half `high`; band 2 twice as much."""
    band = np.full((8, 10), low, dtype)
    band[:4] = high
    return np.stack([band, band * 2], axis=-1)


def test_statistics_of_two_values(tmp_path):
    found = TileStatistics.measure(tiles(tmp_path, two_values(np.uint16, 100, 300)))
    assert found.dtype == "uint16"
    assert (found.minimum, found.maximum) == ((100, 200), (300, 600))
    assert (found.low, found.high) == ((100, 200), (300, 600))
    # half 100, half 300: mean 200, deviation 100; 4096 draws: the mean is known to 100 / 64 = 1.6
    np.testing.assert_allclose(found.mean, (200, 400), atol=12)
    np.testing.assert_allclose(found.std, (100, 200), atol=1)


def test_low_and_high_exclude_rare_values(tmp_path):
    image = np.full((100, 100, 1), 50, np.float32)
    image[:50] = 60
    image.ravel()[:20] = 9000.0  # one pixel in 500
    found = TileStatistics.measure(tiles(tmp_path, image))
    assert (found.low, found.high) == ((50,), (60,))
    assert found.value_range == [(50, 60)]


def test_ignored_pixels_do_not_count(tmp_path):
    mask = np.zeros((8, 10), np.uint8)
    mask[:4] = 255
    found = TileStatistics.measure(tiles(tmp_path, two_values(np.uint8, 10, 90), mask=mask, ignore="255"))
    assert (found.minimum, found.maximum, found.mean, found.std) == ((10, 20), (10, 20), (10, 20), (0, 0))


def test_range_of_8_bit_images(tmp_path):
    found = TileStatistics.measure(tiles(tmp_path, two_values(np.uint8, 10, 90)))
    assert found.value_range is None
    np.testing.assert_array_equal(found.range, [[0, 0], [255, 255]])


def test_range_of_other_types(tmp_path):
    found = TileStatistics.measure(tiles(tmp_path, two_values(np.float32, 0.25, 0.5)))
    np.testing.assert_array_equal(found.range, [[0.25, 0.5], [0.5, 1.0]])


def test_the_sample_is_seeded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 5000, (70, 70, 2)).astype(np.uint16)
    read = tiles(tmp_path, noise, noise // 2)
    assert TileStatistics.measure(read, 1) == TileStatistics.measure(read, 1)
    assert TileStatistics.measure(read, 1) != TileStatistics.measure(read, 2)


def test_json_round_trip(tmp_path):
    found = TileStatistics.measure(tiles(tmp_path, two_values(np.float32, 0.25, 0.5)))
    assert TileStatistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_band_of_one_value(tmp_path):
    image = two_values(np.uint16, 100, 300)
    image[..., 1] = 7
    with pytest.raises(DataError, match=r"expected bands of more than one value\. Received: band 2 is all 7"):
        TileStatistics.measure(tiles(tmp_path, image))


def test_no_labelled_pixel(tmp_path):
    with pytest.warns(LimKerasWarning, match="1 of 1 tiles are without a labelled pixel"):
        read = tiles(tmp_path, two_values(np.uint8, 1, 2), mask=np.full((8, 10), 255, np.uint8), ignore="255")
    with pytest.raises(DataError, match="expected labelled pixels in the training tiles"):
        TileStatistics.measure(read)
