"""Each protocol against the slow way: one sample at a time, the whole scene at once."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from rasterio import Affine

from lim_keras.errors import ConfigError
from lim_keras.evaluation.evaluation import evaluate
from lim_keras.evaluation.evaluator import tile_predictions, window_predictions
from lim_keras.metrics.calibration import ImageBlindMask

TRANSFORM = Affine(0.8, 0, 5e5, 0, -0.8, 3e6)


@dataclass
class FakeTile:
    tile_id: str
    kind: str
    group: str


class FakeStore:
    """Tiles of different sizes; the mask is where the first band is bright, with some pixels ignored."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        rng = np.random.default_rng(8)
        self.tiles = [
            FakeTile(f"t{k}", "landslide" if k % 2 else "non-landslide", f"g{k // 2}") for k in range(len(sizes))
        ]
        self.arrays = []
        for height, width in sizes:
            image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 3)
            mask = (image[..., 0] > 130).astype(np.uint8)
            mask[0] = 255
            self.arrays.append((image, mask))

    def __len__(self) -> int:
        return len(self.tiles)

    def get(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        return self.arrays[position]


class Watched:
    """A local "network": a mean over 9 x 9 pixels, squashed. Keeps the shapes that it was shown."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        blurred = [
            cv2.blur(image[..., 0].astype(np.float32), (9, 9), borderType=cv2.BORDER_REPLICATE) for image in images
        ]
        return 1 / (1 + np.exp(-(np.stack(blurred) - 128) / 4))


SIZES = [(20, 30), (20, 30), (20, 30), (41, 17), (20, 30), (1, 1), (1, 1)]


def test_native_tiles_in_batches_equal_one_by_one() -> None:
    store, watched = FakeStore(SIZES), Watched()
    predictions = list(tile_predictions(watched, store, batch=2))
    assert [p.sample.name for p in predictions] == [tile.tile_id for tile in store.tiles]
    assert [p.sample.group for p in predictions] == [tile.group for tile in store.tiles]
    assert watched.shapes == [(2, 20, 30, 3), (1, 20, 30, 3), (1, 41, 17, 3), (1, 20, 30, 3), (2, 1, 1, 3)]
    for position, prediction in enumerate(predictions):
        image, mask = store.get(position)
        assert (prediction.probability == Watched()(image[np.newaxis])[0]).all()
        assert (prediction.sample.mask == mask).all()
        assert prediction.blind.all() and prediction.blind.shape == mask.shape


def test_resized_tiles_are_all_of_the_training_size() -> None:
    watched = Watched()
    predictions = list(tile_predictions(watched, FakeStore(SIZES), size=16, batch=3))
    assert watched.shapes == [(3, 16, 16, 3), (3, 16, 16, 3), (1, 16, 16, 3)]
    assert all(p.sample.mask.shape == p.probability.shape == (16, 16) for p in predictions)
    assert all(set(np.unique(p.sample.mask)) <= {0, 1, 255} for p in predictions)


def test_tiles_carry_the_mean_mask_as_baseline() -> None:
    blind = ImageBlindMask(np.pad(np.ones((4, 4), np.float32), 2), 0.5)
    for prediction in tile_predictions(Watched(), FakeStore(SIZES[:4]), blind=blind):
        assert (prediction.blind == blind.mask(prediction.sample.mask.shape)).all()
        assert prediction.blind.any() and not prediction.blind.all()


class Windows:
    """Window k is a flat image of value k; every third shows a landslide."""

    def __len__(self) -> int:
        return 7

    def window(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((8, 8), np.uint8)
        mask[:2] = position % 3 == 0
        return np.full((8, 8, 2), position, np.uint8), mask


def test_every_window_is_predicted_once() -> None:
    shown: list[np.ndarray] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shown.append(images[:, 0, 0, 0])
        return np.zeros(images.shape[:3], np.float32)

    predictions = list(window_predictions(predict, Windows(), batch=4))
    assert np.concatenate(shown).tolist() == list(range(7))
    assert [len(images) for images in shown] == [4, 3]
    assert [p.sample.kind for p in predictions] == ["landslide", *["non-landslide"] * 2] * 2 + ["landslide"]
    assert all(p.sample.group == "" and p.blind.all() for p in predictions)
    # 3 of 7 windows with 16 of 64 landslide pixels: all missed
    assert evaluate(predictions, "windows", 0.5).scores("all").model["recall"].value == 0
    assert evaluate(predictions, "windows", 0.5).scores("landslide").samples == 3


def test_a_prediction_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(1, 20, 30\)"):
        list(tile_predictions(lambda images: images[..., :1], FakeStore(SIZES[:1])))
