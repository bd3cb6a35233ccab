"""Pixels of tiles stay in memory while their files do not change."""

import cv2
import numpy as np
import pytest

from lim_keras.data import read_tile, read_tiles
from lim_keras.data.recent_pixels import RecentPixels


@pytest.fixture
def tile(bijie_folder, tmp_path):
    tiles = read_tiles(bijie_folder(tmp_path / "tiles", landslide=2, non_landslide=2, ending=".tif"))
    return next(tile for tile in tiles if tile.mask is not None)


def pixels(size):
    return np.zeros((size, 1, 1), np.uint8), np.zeros((size, 1), np.uint8)


def test_the_pixels_used_longest_ago_are_dropped_first():
    recent = RecentPixels(limit=60)
    for name in "abc":
        recent.keep(name, pixels(10))  # 20 bytes each
    assert recent.get("a") is not None
    recent.keep("d", pixels(10))
    assert [name for name in "abcd" if recent.get(name)] == ["a", "c", "d"]


def test_pixels_above_the_limit_are_not_kept():
    recent = RecentPixels(limit=60)
    recent.keep("large", pixels(31))
    assert recent.get("large") is None


def test_a_file_or_mask_written_again_is_read_again(tile):
    image, mask = read_tile(tile)
    assert read_tile(tile)[0] is image

    cv2.imwrite(str(tile.mask), np.zeros_like(mask))
    assert mask.any()
    assert not read_tile(tile)[1].any()

    cv2.imwrite(str(tile.image), 255 - image)
    assert (read_tile(tile)[0] != image).any()


def test_a_nodata_value_noted_beside_the_file_is_seen(tile):
    image, _ = read_tile(tile)
    (tile.image.parent / f"{tile.image.name}.aux.xml").write_text(
        "<PAMDataset>"
        + "".join(
            f'<PAMRasterBand band="{band}"><NoDataValue>{image[0, 0, band - 1]}</NoDataValue></PAMRasterBand>'
            for band in (1, 2, 3)
        )
        + "</PAMDataset>"
    )
    assert read_tile(tile)[1][0, 0] == 255
