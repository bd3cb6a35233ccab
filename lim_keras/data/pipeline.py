"""Batches of training samples and validation sheets as `tf.data` datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from lim_keras.data.sampling import Example, Sampler, pack, render, windows_of
from lim_keras.data.tiles import TileStore


def training_batches(
    sampler: Sampler, batch_size: int, steps_per_epoch: int, epochs: int, *, first_epoch: int = 0, workers: int = 2
) -> tf.data.Dataset:
    """Yield the batches of all epochs from `first_epoch` on.

    The order does not depend on `workers`, and a resumed run gets the batches of an unbroken one.

    Args:
        sampler: source of the examples.
        batch_size: examples in a batch.
        steps_per_epoch: batches in an epoch.
        epochs: number of all epochs, those before `first_epoch` included.
        first_epoch: number of the first epoch, counted from 0.
        workers: threads that draw examples.

    Returns:
        Dataset of images (n, s, s, bands) in their data type and labels uint8: a mask (n, s, s, 1), or (n, s, s,
        planes) where the examples of the sampler have planes.
    """
    # The workers run in parallel already: threads of OpenCV would take cores from the training step.
    cv2.setNumThreads(1)
    image, mask = sampler.example(first_epoch, 0)
    shape = mask.shape if mask.ndim == 3 else (*mask.shape, 1)
    per_epoch = batch_size * steps_per_epoch

    def draw(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epoch, position = divmod(int(index), per_epoch)
        drawn, labels = sampler.example(epoch, position)
        return np.ascontiguousarray(drawn), np.ascontiguousarray(labels).reshape(shape)

    def from_index(index: Any) -> tuple[Any, Any]:
        drawn, labels = tf.numpy_function(draw, [index], (tf.as_dtype(image.dtype), tf.uint8))
        drawn.set_shape(image.shape)
        labels.set_shape(shape)
        return drawn, labels

    indices = tf.data.Dataset.range(first_epoch * per_epoch, epochs * per_epoch)
    examples = indices.map(from_index, num_parallel_calls=workers, deterministic=True)
    return _untuned(examples.batch(batch_size, drop_remainder=True).prefetch(4))


def sheet_batches(
    store: TileStore, size: int, batch_size: int, seed: int, *, sheet_side: int = 4096
) -> tf.data.Dataset:
    """Yield validation windows of tiles laid edge to edge; every tile pixel is labelled once.

    Args:
        store: validation tiles.
        size: height and width of a window, pixels.
        batch_size: windows in a batch.
        seed: decides which tiles are neighbours on a sheet.
        sheet_side: side of a sheet, pixels.

    Returns:
        Dataset of images (n, size, size, bands) and masks (n, size, size, 1) uint8 {0, 1, 255}.
    """
    sheets = pack([store.size(position) for position in range(len(store))], sheet_side, seed)
    first, _ = store.get(0)

    def windows() -> Iterator[Example]:
        for sheet in sheets:
            for image, mask in windows_of(*render(sheet, store.get, seed), size):
                yield image, mask[..., None]

    return _generated(windows, (size, size, first.shape[2]), first.dtype, batch_size)


def resized_batches(sampler: Sampler, batch_size: int) -> tf.data.Dataset:
    """Yield every example of the first epoch of a sampler once, for validation on whole resized tiles.

    Returns:
        Dataset of images (n, s, s, bands) and masks (n, s, s, 1) uint8 {0, 1, 255}.
    """
    image, _ = sampler.example(0, 0)

    def examples() -> Iterator[Example]:
        for position in range(len(sampler)):
            drawn, labels = sampler.example(0, position)
            yield drawn, labels[..., None]

    return _generated(examples, image.shape, image.dtype, batch_size)


def _generated(
    generate: Callable[[], Iterator[Example]], shape: tuple[int, ...], dtype: np.dtype, batch_size: int
) -> tf.data.Dataset:
    """Batch generated images (h, w, bands) and masks (h, w, 1)."""
    signature = (tf.TensorSpec(shape, tf.as_dtype(dtype)), tf.TensorSpec((*shape[:2], 1), tf.uint8))
    return _untuned(tf.data.Dataset.from_generator(generate, output_signature=signature).batch(batch_size).prefetch(2))


def _untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Switch autotuning off: its thread sleeps between checks, and the end of an iterator would wait for it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
