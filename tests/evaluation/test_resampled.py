"""Tiles predicted at another ground sample distance than their own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lim_keras.data.tiles import TileSet, TileStore, read_tile, resample
from lim_keras.evaluation.evaluation import evaluate
from lim_keras.evaluation.evaluator import tile_predictions
from lim_keras.evaluation.resampled import resampled_predictions
from lim_keras.inference.maps import InputScaling


def brightness(images: np.ndarray) -> np.ndarray:
    """Bright is landslide, as in the tiles."""
    return (images.mean(axis=-1) / 255).astype(np.float32)


def recorded(shapes: list[tuple[int, ...]]) -> Callable[[np.ndarray], np.ndarray]:
    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return brightness(images)

    return predict


def test_tiles_as_they_are_are_predicted_as_whole_tiles(tiles: TileSet):
    found = list(resampled_predictions(brightness, tiles, None, assumed_gsd_m=10))
    expected = list(tile_predictions(brightness, TileStore(tiles)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)
    assert evaluate(found, "tiles", 0.5).samples == evaluate(expected, "tiles", 0.5).samples


@pytest.mark.parametrize(("at_m", "factor"), [(2.5, 4), (10, 1), (20, 0.5)])
def test_probability_is_averaged_over_the_pixels_of_the_tile(tiles: TileSet, at_m: float, factor: float):
    shapes: list[tuple[int, ...]] = []
    found = list(resampled_predictions(recorded(shapes), tiles, at_m, assumed_gsd_m=10))
    for shape, tile in zip(shapes, tiles, strict=True):
        assert shape == (1, round(tile.height * factor), round(tile.width * factor), 3)
    for one, tile in zip(found, tiles, strict=True):
        image, mask = read_tile(tile)
        assert one.probability.shape == mask.shape
        np.testing.assert_array_equal(one.sample.mask, mask)
        if factor == 4:  # blocks of 4 x 4 pixels, averaged one by one
            larger = brightness(resample(image, mask, (4 * tile.height, 4 * tile.width))[0][None])[0]
            blocks = larger.reshape(tile.height, 4, tile.width, 4).mean(axis=(1, 3))
            np.testing.assert_allclose(one.probability, blocks, atol=1e-6)


def test_a_file_that_names_its_distance_is_resampled_from_there(tiles: TileSet):
    known = replace(tiles, tiles=tuple(replace(tile, gsd_m=5.0) for tile in tiles))
    shapes: list[tuple[int, ...]] = []
    list(resampled_predictions(recorded(shapes), known, 2.5, assumed_gsd_m=10))
    assert shapes[0][1:3] == (2 * tiles[0].height, 2 * tiles[0].width)


def test_values_are_scaled_after_resampling(tiles: TileSet):
    scaling = InputScaling("uint8", (0.0,) * 3, (0.0, 127.5))
    (first, *_) = resampled_predictions(brightness, tiles, None, assumed_gsd_m=10, scaling=scaling)
    image = read_tile(tiles[0])[0].astype(np.float64)
    expected = np.rint(np.minimum(2 * image, 255)).mean(axis=-1) / 255
    np.testing.assert_allclose(first.probability, expected, atol=1e-6)
