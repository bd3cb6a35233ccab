"""Samplers and sheets as `tf.data` datasets of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from lim_keras.data.mosaic import pack, render, windows_of
from lim_keras.data.sampling import Sampler
from lim_keras.data.store import TileStore


def training_batches(
    sampler: Sampler, batch_size: int, steps_per_epoch: int, epochs: int, first_epoch: int = 0, workers: int = 2
) -> tf.data.Dataset:
    """Batches of (image (n, s, s, bands) in its own data type, labels uint8), epoch after epoch.

    Labels are a mask (n, s, s, 1), or as many planes (n, s, s, planes) as the sampler's examples have.

    Starts with `first_epoch`, so that a continued run sees the batches that an unbroken one would have seen. The order
    is fixed, whatever the number of workers.
    """
    # The workers are the parallelism; a pool of OpenCV's own would take the cores from the training step.
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


def sheet_batches(store: TileStore, size: int, batch_size: int, seed: int, sheet_side: int = 4096) -> tf.data.Dataset:
    """Every pixel of every tile once, among other tiles: packed sheets cut into windows, for validation.

    Batches of (image (n, size, size, bands), mask (n, size, size, 1) uint8 {0, 1, 255}).
    """
    sheets = pack([store.size(position) for position in range(len(store))], sheet_side, seed)
    first, _ = store.get(0)

    def windows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for sheet in sheets:
            for image, mask in windows_of(*render(sheet, store.get, seed), size):
                yield image, mask[..., None]

    signature = (
        tf.TensorSpec((size, size, first.shape[2]), tf.as_dtype(first.dtype)),
        tf.TensorSpec((size, size, 1), tf.uint8),
    )
    return _untuned(tf.data.Dataset.from_generator(windows, output_signature=signature).batch(batch_size).prefetch(2))


def resized_batches(sampler: Sampler, batch_size: int) -> tf.data.Dataset:
    """Every example of a sampler's first epoch once, in batches, for validation on whole resized tiles."""
    image, mask = sampler.example(0, 0)

    def examples() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for position in range(len(sampler)):
            drawn, labels = sampler.example(0, position)
            yield drawn, labels[..., None]

    signature = (tf.TensorSpec(image.shape, tf.as_dtype(image.dtype)), tf.TensorSpec((*mask.shape, 1), tf.uint8))
    return _untuned(tf.data.Dataset.from_generator(examples, output_signature=signature).batch(batch_size).prefetch(2))


def _untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Without autotuning: workers and buffers are fixed, and an iterator ends at once.

    The thread that tunes sleeps for up to a minute between two looks at a pipeline, and the end of training waits
    for it to wake up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
