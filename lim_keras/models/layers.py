"""Layers that let one graph take images of any size and any value range, and upsample by bilinear filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="lim_keras")
class BandRange(keras.layers.Layer):
    """Map raw digital numbers of each band linearly from its range to 0..255, the range that the encoders know.

    Args:
        low: raw value of each band that becomes 0.
        high: raw value of each band that becomes 255.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], **kwargs: Any) -> None:
        # Keras would cast the images to the compute type before `call` sees them.
        super().__init__(**{"autocast": False, **kwargs})
        self.low = [float(value) for value in low]
        self.high = [float(value) for value in high]

    def call(self, images: Any) -> Any:
        """images: (n, h, w, bands) raw numbers; returns the same shape, 0..255 inside the range."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        # In float32 whatever the policy: reflectance x 10000 does not fit into the eight bits of a bfloat16 mantissa.
        scaled = (tf.cast(images, tf.float32) - low) * (255.0 / (high - low))
        return tf.cast(scaled, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="lim_keras")
class PadToMultiple(keras.layers.Layer):
    """Repeat the last row and column until height and width are multiples of the network's stride.

    Edge values rather than zeros: a black margin is something that the network has never seen. Any size from 1 x 1 on.
    """

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, images: Any) -> Any:
        """images: (n, h, w, c); returns (n, h', w', c), h' and w' the next multiples."""
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
        """Known sizes are rounded up."""
        rounded = [None if size is None else -(-size // self.multiple) * self.multiple for size in input_shape[1:3]]
        return (input_shape[0], *rounded, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="lim_keras")
class CropLike(keras.layers.Layer):
    """Cut a padded map back to the height and width of the image that it was made from."""

    def call(self, padded: Any, image: Any) -> Any:
        """padded: (n, h', w', c); image: (n, h, w, bands); returns (n, h, w, c) float32."""
        height, width = image.shape[1:3]
        if height is None or width is None or padded.shape[1:3] != image.shape[1:3]:
            shape = tf.shape(image)
            padded = padded[:, : shape[1], : shape[2], :]
            padded.set_shape((None, height, width, padded.shape[3]))
        return tf.cast(padded, tf.float32)

    def compute_output_shape(
        self, padded_shape: Sequence[int | None], image_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        """Height and width of the image, channels of the map."""
        return (padded_shape[0], image_shape[1], image_shape[2], padded_shape[3])


@keras.saving.register_keras_serializable(package="lim_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis whose training step is TensorFlow's fused kernel.

    Keras computes moments, scaling and shift, and the gradient of each, as operations of their own, every one of which
    goes over the whole feature map: on a CPU that is half of a training step of MobileNetV2. Training figures differ
    from Keras's by rounding only, and what is not training is Keras's own.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """inputs: (n, h, w, c). Takes no mask."""
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
        # The kernel gives the variance of the population that the pixels are a sample of; Keras keeps the sample's own.
        count = tf.cast(tf.size(pixels) // channels[0], tf.float32)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * ((count - 1.0) / tf.maximum(count, 1.0)))
        return outputs

    def _follow(self, moving: Any, value: Any) -> None:
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="lim_keras")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarge a map by a whole factor, bilinearly, each channel by itself; edge values go on to the very edge.

    Keras 3 `UpSampling2D` fails in graph mode where height and width are not known. Shelhamer et al. 2017 (4.1) take a
    transposed convolution with bilinear weights, and fix those of the score. As a dense kernel it multiplies every
    channel with every other one's zeros: 30 to 50 times as slow as TensorFlow's resizing at 96 channels on a CPU, and a
    quarter of a training step of a MobileNetV2 FCN-FL.

    Args:
        factor: height and width of the result over those of the map.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, features: Any) -> Any:
        """features: (n, h, w, c); returns (n, factor h, factor w, c) in the compute type."""
        shape = tf.shape(features)
        enlarged = tf.image.resize(features, [shape[1] * self.factor, shape[2] * self.factor])
        enlarged.set_shape(self.compute_output_shape(features.shape))
        return tf.cast(enlarged, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Height and width times the factor."""
        sides = [None if size is None else size * self.factor for size in input_shape[1:3]]
        return (input_shape[0], *sides, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "factor": self.factor}


def upsample(features: Any, factor: int, name: str) -> Any:
    """(n, h, w, c) -> (n, factor h, factor w, c), bilinear and without weights (`BilinearUpsampling`)."""
    return BilinearUpsampling(factor, name=name)(features)


def project(features: Any, channels: int, name: str) -> Any:
    """(n, h, w, any) -> (n, h, w, channels): 1 x 1 convolution and batch normalisation.

    Without the normalisation VGG16 features, which are in the hundreds, drown the deeper scales that they are added
    to. Momentum 0.9: with Keras's default of 0.99 the running statistics are still wrong after 200 steps.
    """
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_conv")(features)
    return FusedBatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def score(features: Any, name: str = "score") -> Any:
    """(n, h, w, c) -> (n, h, w, 1) logits; starts at zero, so that the first loss is that of an undecided model.

    Args:
        features: normalised but not rectified. On features >= 0 the zeros would all move one way: background is what
            most pixels are, every weight turns negative, all channels learn the same, and a pixel whose features are
            all 0 gets the bias: the largest logit there is, and no gradient, however wrong it is.
        name: name of the layer.
    """
    return keras.layers.Conv2D(1, 1, kernel_initializer="zeros", name=name)(features)
