"""Each protocol against the slow way: one place at a time, the whole scene at once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.errors import DataError
from lim_keras.evaluation.baseline import ImageBlindMask
from lim_keras.evaluation.confusion import Confusion, count
from lim_keras.evaluation.protocols import scene_predictions, tile_predictions, window_predictions
from lim_keras.evaluation.scoring import Prediction, evaluate

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
    assert [p.place.name for p in predictions] == [tile.tile_id for tile in store.tiles]
    assert [p.place.group for p in predictions] == [tile.group for tile in store.tiles]
    assert watched.shapes == [(2, 20, 30, 3), (1, 20, 30, 3), (1, 41, 17, 3), (1, 20, 30, 3), (2, 1, 1, 3)]
    for position, prediction in enumerate(predictions):
        image, mask = store.get(position)
        assert (prediction.probability == Watched()(image[np.newaxis])[0]).all()
        assert (prediction.place.mask == mask).all()
        assert prediction.blind.all() and prediction.blind.shape == mask.shape


def test_resized_tiles_are_all_of_the_training_size() -> None:
    watched = Watched()
    predictions = list(tile_predictions(watched, FakeStore(SIZES), size=16, batch=3))
    assert watched.shapes == [(3, 16, 16, 3), (3, 16, 16, 3), (1, 16, 16, 3)]
    assert all(p.place.mask.shape == p.probability.shape == (16, 16) for p in predictions)
    assert all(set(np.unique(p.place.mask)) <= {0, 1, 255} for p in predictions)


def test_tiles_carry_the_mean_mask_as_baseline() -> None:
    blind = ImageBlindMask(np.pad(np.ones((4, 4), np.float32), 2), 0.5)
    for prediction in tile_predictions(Watched(), FakeStore(SIZES[:4]), blind=blind):
        assert (prediction.blind == blind.mask(prediction.place.mask.shape)).all()
        assert prediction.blind.any() and not prediction.blind.all()


class Windows:
    """Window k is a flat image of value k; every third shows a landslide."""

    def example(self, epoch: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((8, 8), np.uint8)
        mask[:2] = position % 3 == 0
        return np.full((8, 8, 2), 10 * epoch + position, np.uint8), mask


def test_windows_are_the_first_of_the_epoch() -> None:
    shown: list[np.ndarray] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shown.append(images[:, 0, 0, 0])
        return np.zeros(images.shape[:3], np.float32)

    predictions = list(window_predictions(predict, Windows(), 7, epoch=2, batch=4))
    assert np.concatenate(shown).tolist() == [20, 21, 22, 23, 24, 25, 26]
    assert [len(images) for images in shown] == [4, 3]
    assert [p.place.kind for p in predictions] == ["landslide", *["non-landslide"] * 2] * 2 + ["landslide"]
    assert all(p.place.group == "" and p.blind.all() for p in predictions)
    # 3 of 7 windows with 16 of 64 landslide pixels: all missed
    assert evaluate(predictions, "windows", 0.5).figures("all").model["recall"].value == 0
    assert evaluate(predictions, "windows", 0.5).figures("landslide").places == 3


def test_a_prediction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 20, 30\)"):
        list(tile_predictions(lambda images: images[..., :1], FakeStore(SIZES[:1])))


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, array: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> Path:
        bands = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        count, height, width = bands.shape
        settings = {"crs": "EPSG:32648", "transform": TRANSFORM} | options
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                tmp_path / name,
                "w",
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=bands.dtype,
                **settings,
            ) as file,
        ):
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
        return tmp_path / name

    return write


def world(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(12)
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 6)
    image = cv2.normalize(image, None, 60, 200, cv2.NORM_MINMAX)
    labels = (cv2.blur(image[..., 0], (5, 5)) > 140).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.02] = 255
    return image, labels


def total(predictions: list[Prediction]) -> Confusion:
    return sum((count(p.probability >= 0.5, p.place.mask) for p in predictions), start=Confusion())


def test_windows_with_a_halo_equal_the_whole_scene(write: Write) -> None:
    image, labels = world(700, 570)
    watched = Watched()
    scene, truth = write("scene.tif", image), write("labels.tif", labels, nodata=255)
    predictions = list(scene_predictions(watched, scene, truth, tile=256, halo=64))
    # cores of 256 - 2 * 64 = 128 px: 6 rows of 5
    assert len(watched.shapes) == len(predictions) == 30
    whole = Watched()(image[np.newaxis])[0]
    assert total(predictions) == count(whole >= 0.5, labels)
    assert total(predictions).tp > 1000
    # one block, checked pixel by pixel
    block = next(p for p in predictions if p.place.name == "row_128_column_384")
    assert (block.probability == whole[128:256, 384:512]).all()
    assert (block.place.image == image[128:256, 384:512]).all()


def test_large_cores_are_scored_in_blocks(write: Write) -> None:
    image, labels = world(600, 1100)
    watched = Watched()
    predictions = list(scene_predictions(watched, write("scene.tif", image), write("labels.tif", labels)))
    assert watched.shapes == [(1, 600, 1100, 3), (1, 600, 332, 3)]  # cores of 1024; 1100 - 1024 + 256
    names = [p.place.name for p in predictions]
    assert names[:4] == ["row_0_column_0", "row_0_column_512", "row_512_column_0", "row_512_column_512"]
    assert names[4:] == ["row_0_column_1024", "row_512_column_1024"]
    assert total(predictions) == count(Watched()(image[np.newaxis])[0] >= 0.5, labels)


def test_pixels_without_data_are_never_shown_and_count_nowhere(write: Write) -> None:
    image, labels = world(500, 300)
    valid = np.ones(labels.shape, bool)
    valid[:, 100:190] = False
    valid[200:, :] = False
    poisoned = np.where(valid[..., np.newaxis], image, 255).astype(np.uint8)
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        assert images.max() <= 200
        return np.ones(images.shape[:3], np.float32)

    scene = write("scene.tif", poisoned, valid)
    predictions = list(scene_predictions(predict, scene, write("labels.tif", labels), tile=256, halo=64))
    assert total(predictions).pixels == np.count_nonzero(valid & (labels != 255))
    assert total(predictions).tp == np.count_nonzero(valid & (labels == 1))
    # rows of cores 0, 128 (to 256); the rows from 256 on hold no data and are not predicted
    assert len(shapes) == 2 * 3


def test_windows_without_labels_are_not_predicted(write: Write) -> None:
    image, labels = world(256, 256)
    labels[:, 128:] = 255
    watched = Watched()
    predictions = list(scene_predictions(watched, write("s.tif", image), write("l.tif", labels), tile=128, halo=0))
    assert len(watched.shapes) == 2
    assert {p.place.name for p in predictions} == {"row_0_column_0", "row_128_column_0"}


def test_rasters_without_a_place_are_taken_at_their_word(write: Write) -> None:
    image, labels = world(40, 50)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        scene = write("s.tif", image, crs=None, transform=None)
    assert total(list(scene_predictions(Watched(), scene, write("l.tif", labels)))).pixels > 0


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (np.zeros((40, 51), np.uint8), {}, "40 rows and 50 columns"),
        (np.zeros((40, 50), np.uint8), {"transform": Affine(0.8, 0, 5e5 + 0.4, 0, -0.8, 3e6)}, "at the place"),
        (np.zeros((40, 50), np.uint8), {"transform": Affine(0.81, 0, 5e5, 0, -0.8, 3e6)}, "at the place"),
        (np.zeros((40, 50), np.uint8), {"crs": "EPSG:32649"}, "EPSG:32649"),
        (np.full((40, 50), 7, np.uint8), {}, r"\[7\]"),
        (np.full((40, 50), np.nan, np.float32), {}, "nan"),
    ],
)
def test_labels_that_do_not_fit_are_named(write: Write, labels: np.ndarray, options: dict[str, Any], said: str) -> None:
    scene = write("scene.tif", world(40, 50)[0])
    with pytest.raises(DataError, match=said) as raised:
        list(scene_predictions(Watched(), scene, write("labels.tif", labels, **options)))
    assert "labels.tif" in str(raised.value)


def test_a_scene_of_another_data_type_is_refused(write: Write) -> None:
    scene = write("scene.tif", np.zeros((8, 8, 3), np.int32))
    with pytest.raises(DataError, match="int32"):
        list(scene_predictions(Watched(), scene, write("labels.tif", np.zeros((8, 8), np.uint8))))
