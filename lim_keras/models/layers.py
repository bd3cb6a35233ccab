"""Layers for images of any size and value range, fused batch normalisation and bilinear upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="lim_keras")
class BandRange(keras.layers.Layer):
    """Map raw digital numbers of each band linearly from `low`..`high` to 0..255, the range that encoders expect."""

    def __init__(self, low: Sequence[float], high: Sequence[float], **kwargs: Any) -> None:
        # With autocast, Keras would cast images to the compute type before `call`.
        super().__init__(**{"autocast": False, **kwargs})
        self.low = [float(value) for value in low]
        self.high = [float(value) for value in high]

    def call(self, images: Any) -> Any:
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        # Compute in float32 under every policy: bfloat16 has too few digits for reflectance x 10000.
        scaled = (tf.cast(images, tf.float32) - low) * (255.0 / (high - low))
        return tf.cast(scaled, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="lim_keras")
class PadToMultiple(keras.layers.Layer):
    """Pad height and width, both >= 1, to multiples of the network's stride with copies of the last row and column.

    Zeros would be black margins, which training images do not have.
    """

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, images: Any) -> Any:
        """Pad (n, h, w, c) to (n, h', w', c), h' and w' the next multiples."""
        for axis in (1, 2):
            size = images.shape[axis]
            if size is not None and size % self.multiple == 0:
                continue
            images = tf.gather(images, self._clamped_positions(tf.shape(images)[axis]), axis=axis)
        return images

    def _clamped_positions(self, size: Any) -> Any:
        padded = -(-size // self.multiple) * self.multiple
        return tf.minimum(tf.range(padded), size - 1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Round known sizes up."""
        rounded = [None if size is None else -(-size // self.multiple) * self.multiple for size in input_shape[1:3]]
        return (input_shape[0], *rounded, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="lim_keras")
class CropLike(keras.layers.Layer):
    """Crop a padded map to the height and width of the image."""

    def call(self, padded: Any, image: Any) -> Any:
        """Crop (n, h', w', c) to the size of image (n, h, w, bands): (n, h, w, c) float32."""
        height, width = image.shape[1:3]
        if height is None or width is None or padded.shape[1:3] != image.shape[1:3]:
            shape = tf.shape(image)
            padded = padded[:, : shape[1], : shape[2], :]
            padded.set_shape((None, height, width, padded.shape[3]))
        return tf.cast(padded, tf.float32)

    def compute_output_shape(
        self, padded_shape: Sequence[int | None], image_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        """Return the height and width of the image with the channels of the map."""
        return (padded_shape[0], image_shape[1], image_shape[2], padded_shape[3])


@keras.saving.register_keras_serializable(package="lim_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis that trains with TensorFlow's fused kernel.

    Keras computes moments, scale, shift and their gradients in separate operations, which is slow on CPUs. Results
    differ from Keras by rounding only. Inference runs the code of Keras.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise (n, h, w, c); with a mask, run the code of Keras."""
        if not (training and self.trainable) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        pixels = tf.convert_to_tensor(inputs)
        channels = (pixels.shape[-1],)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=pixels,
            scale=tf.cast(self.gamma, tf.float32) if self.scale else tf.ones(channels),
            offset=tf.cast(self.beta, tf.float32) if self.center else tf.zeros(channels),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras stores the biased one.
        count = tf.cast(tf.size(pixels) // channels[0], tf.float32)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * ((count - 1.0) / tf.maximum(count, 1.0)))
        return outputs

    def _follow(self, moving: Any, value: Any) -> None:
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="lim_keras")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarge a map bilinearly by an integer factor, each channel by itself; edge values are repeated.

    Keras 3 `UpSampling2D` fails in graph mode with unknown height and width. The transposed convolution with bilinear
    weights of Shelhamer et al. 2017 (4.1) is much slower, because its dense kernel multiplies all pairs of channels.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, features: Any) -> Any:
        """Enlarge (n, h, w, c) to (n, factor h, factor w, c) in the compute type."""
        shape = tf.shape(features)
        enlarged = tf.image.resize(features, [shape[1] * self.factor, shape[2] * self.factor])
        enlarged.set_shape(self.compute_output_shape(features.shape))
        return tf.cast(enlarged, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Multiply height and width by the factor."""
        sides = [None if size is None else size * self.factor for size in input_shape[1:3]]
        return (input_shape[0], *sides, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def upsample(features: Any, factor: int, name: str) -> Any:
    """Enlarge (n, h, w, c) to (n, factor h, factor w, c); see `BilinearUpsampling`."""
    return BilinearUpsampling(factor, name=name)(features)


def project(features: Any, channels: int, name: str) -> Any:
    """Project (n, h, w, any) to (n, h, w, channels) by 1 x 1 convolution and batch normalisation.

    Without normalisation, VGG16 features, which have values in the hundreds, would dominate the coarser scales. The
    default momentum of Keras, 0.99, is too slow for short training runs.
    """
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_conv")(features)
    return FusedBatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def score(features: Any, name: str = "score") -> Any:
    """Score (n, h, w, c) as logits (n, h, w, 1); the initial weights are zero, so that all probabilities start at 0.5.

    Features must be normalised and not rectified. With features >= 0, the many background pixels would make every
    weight negative, and a pixel with features of 0 would have the largest logit and no gradient.
    """
    return keras.layers.Conv2D(1, 1, kernel_initializer="zeros", name=name)(features)
