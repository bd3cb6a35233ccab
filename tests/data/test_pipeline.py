"""Batches of samples and sheets."""

from types import SimpleNamespace

import numpy as np
import pytest

from lim_keras.data.augment import build_augmentation
from lim_keras.data.pipeline import resized_batches, sheet_batches, training_batches
from lim_keras.data.sampling import ResizedSampler, WindowSampler


class MemoryStore:
    """Tiles in memory, with the interface of a `TileStore`."""

    def __init__(self, sizes, dtype=np.uint8, bands=3):
        rng = np.random.default_rng(0)
        self.examples = [
            ((rng.random((*size, bands)) * 250).astype(dtype), (rng.random(size) < 0.3 * (n % 2)).astype(np.uint8))
            for n, size in enumerate(sizes)
        ]
        self.tiles = [SimpleNamespace(kind="landslide" if mask.any() else "non-landslide") for _, mask in self.examples]

    def __len__(self):
        return len(self.examples)

    def size(self, position):
        return self.examples[position][1].shape

    def get(self, position):
        return self.examples[position]


RANGE = np.zeros(3, np.float32), np.full(3, 255, np.float32)
SIZES = [(20, 31), (25, 18), (40, 22), (9, 50), (33, 33)]


def windows(store):
    augmentation = build_augmentation("dihedral", *RANGE)
    return WindowSampler(store, 32, 8, 5, scale_jitter=(0.7, 1.4), augmentation=augmentation)


def arrays(batches):
    return [(images.numpy(), masks.numpy()) for images, masks in batches]


def assert_same(these, those):
    assert len(these) == len(those)
    for this, other in zip(these, those, strict=True):
        for got, expected in zip(this, other, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_batches_are_the_samplers_examples_in_order():
    sampler = windows(MemoryStore(SIZES))
    batches = arrays(training_batches(sampler, batch_size=2, steps_per_epoch=3, epochs=2))
    assert len(batches) == 6
    for number, (images, masks) in enumerate(batches):
        assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
        assert masks.shape == (2, 32, 32, 1) and masks.dtype == np.uint8
        for position in range(2):
            # batch 4 is the second of epoch 1: its examples are positions 2 and 3
            image, mask = sampler.example(number // 3, number % 3 * 2 + position)
            np.testing.assert_array_equal(images[position], image)
            np.testing.assert_array_equal(masks[position, ..., 0], mask)


@pytest.mark.parametrize("workers", [1, 5])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    again = arrays(training_batches(windows(MemoryStore(SIZES)), 4, 5, 1, workers=workers))
    assert_same(again, arrays(training_batches(windows(MemoryStore(SIZES)), 4, 5, 1)))


def test_resumed_run_gets_the_batches_of_an_unbroken_one():
    for sampler in (
        windows(MemoryStore(SIZES)),
        ResizedSampler(MemoryStore(SIZES), 32, 1, "paper", low=RANGE[0], high=RANGE[1]),
    ):
        unbroken = arrays(training_batches(sampler, 2, 4, epochs=3))
        assert_same(arrays(training_batches(sampler, 2, 4, epochs=3, first_epoch=1)), unbroken[4:])
        assert_same(arrays(training_batches(sampler, 2, 4, epochs=3, first_epoch=3)), [])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_images_keep_their_type_and_bands(dtype):
    sampler = WindowSampler(MemoryStore(SIZES, dtype, bands=5), 32, 8, 0)
    ((images, _),) = arrays(training_batches(sampler, 2, 1, 1))
    assert images.dtype == dtype and images.shape[-1] == 5


@pytest.mark.parametrize("size", [16, 200])
def test_sheets_label_every_tile_pixel_once(size):
    store = MemoryStore(SIZES)
    images, masks = (np.concatenate(part) for part in zip(*arrays(sheet_batches(store, size, 3, 0)), strict=True))
    assert images.shape[1:] == (size, size, 3) and masks.shape[1:] == (size, size, 1)
    labelled = masks[..., 0] != 255
    assert labelled.sum() == sum(mask.size for _, mask in store.examples)
    assert (masks == 1).sum() == sum((mask == 1).sum() for _, mask in store.examples)
    # as many pixels of every value as the tiles have
    expected = sum(np.bincount(image.ravel(), minlength=256) for image, _ in store.examples)
    np.testing.assert_array_equal(np.bincount(images[labelled].ravel(), minlength=256), expected)


def test_sheets_are_repeatable():
    assert_same(
        arrays(sheet_batches(MemoryStore(SIZES), 32, 2, 7)), arrays(sheet_batches(MemoryStore(SIZES), 32, 2, 7))
    )


def test_resized_tiles_come_once_each():
    sampler = ResizedSampler(MemoryStore(SIZES), 16, 0, low=RANGE[0], high=RANGE[1])
    batches = arrays(resized_batches(sampler, 2))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    got = sorted(images[n].tobytes() for images, _ in batches for n in range(len(images)))
    assert got == sorted(sampler.example(0, n)[0].tobytes() for n in range(5))
    assert batches[0][1].shape == (2, 16, 16, 1)


def test_labels_may_have_planes():
    class Planes:
        size = 4

        def __len__(self):
            return 2

        def example(self, epoch, position):
            return np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 2), position, np.uint8)

    ((images, labels),) = training_batches(Planes(), 2, 1, 1)
    assert images.shape == (2, 4, 4, 3) and labels.shape == (2, 4, 4, 2)
    assert labels.numpy()[:, 0, 0].tolist() == [[0, 0], [1, 1]]


def test_autotuning_is_off():
    store = MemoryStore(SIZES)
    resized = ResizedSampler(store, 32, 1, low=RANGE[0], high=RANGE[1])
    for batches in (
        training_batches(windows(store), 4, 1, 1),
        sheet_batches(store, 32, 2, 0),
        resized_batches(resized, 2),
    ):
        assert batches.options().autotune.enabled is False
