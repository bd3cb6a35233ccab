"""Keras metrics for landslide masks.

`y_true` and `y_pred` have the same shapes as for the losses. A `sample_weight` (n,), (n, 1, 1), (n, h, w) or
(n, h, w, 1) multiplies the pixel counts.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras
from keras import ops

from lim_keras.errors import ConfigError
from lim_keras.losses import same_shape, without_channel
from lim_keras.metrics.binary import BINS, formulae, histogram_precision


def _pixels(y_true: Any, y_pred: Any, ignore_value: int) -> tuple[Any, Any, Any]:
    """Return landslide (bool), valid (bool) and prediction (float32), each (n, h, w); prediction is 0 where ignored."""
    truth = without_channel("y_true", ops.convert_to_tensor(y_true))
    prediction = without_channel("y_pred", ops.convert_to_tensor(y_pred))
    same_shape(truth, prediction)
    valid = ops.not_equal(truth, ops.cast(ignore_value, truth.dtype))
    return ops.equal(truth, ops.cast(1, truth.dtype)), valid, ops.where(valid, ops.cast(prediction, "float32"), 0.0)


def _weights(valid: Any, sample_weight: Any) -> Any:
    """Return float32 (n, h, w): 1 or the sample's weight where valid, else 0."""
    valid = ops.cast(valid, "float32")
    if sample_weight is None:
        return valid
    weight = ops.cast(sample_weight, "float32")
    if len(weight.shape) == 4:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < 3:
        weight = ops.expand_dims(weight, axis=-1)
    return valid * weight


def _total(values: Any) -> Any:
    """Sum (n, h, w) float32 as float64; rows first, because float32 counts are exact up to 2 ** 24 only."""
    return ops.sum(ops.cast(ops.sum(values, axis=-1), "float64"))


class _ConfusionMetric(keras.metrics.Metric):
    """Base of metrics of a confusion matrix."""

    def __init__(self, threshold: float, from_logits: bool, ignore_value: int, name: str) -> None:
        if not 0 < threshold < 1:
            raise ConfigError(
                "Invalid value for argument `threshold`. Expected a probability between 0 and 1, both excluded. "
                f"Received: threshold={threshold!r}"
            )
        super().__init__(name=name, dtype="float32")
        self.threshold = threshold
        self.from_logits = from_logits
        self.ignore_value = ignore_value
        self._cut = math.log(threshold / (1 - threshold)) if from_logits else threshold
        self.counts = self.add_variable((4,), "zeros", dtype="float64", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        landslide, valid, prediction = _pixels(y_true, y_pred, self.ignore_value)
        weights = _weights(valid, sample_weight)
        found = ops.where(ops.greater_equal(prediction, self._cut), weights, 0.0)
        tp, predicted = _total(ops.where(landslide, found, 0.0)), _total(found)
        present, total = _total(ops.where(landslide, weights, 0.0)), _total(weights)
        self.counts.assign_add(ops.stack([tp, predicted - tp, present - tp, total - predicted - present + tp]))

    def _scores(self) -> dict[str, Any]:
        return formulae(ops, *(self.counts[k] for k in range(4)))

    def get_config(self) -> dict[str, Any]:
        labels = {"from_logits": self.from_logits, "ignore_value": self.ignore_value}
        return {"threshold": self.threshold, **labels, "name": self.name}


@keras.saving.register_keras_serializable("lim_keras")
class AllScores(_ConfusionMetric):
    """All scores of `binary.SCORES` from one confusion matrix.

    `model.compile(metrics=[AllScores()])` logs `accuracy`, `precision`, `recall`, `f1`, `iou_landslide`,
    `iou_background`, `miou` and `mcc`, and the same with prefix `val_`. The variable `counts` holds tp, fp, fn, tn.

    Args:
        threshold: a pixel is landslide where its probability is >= threshold, 0 < threshold < 1.
        from_logits: `y_pred` is logits.
        ignore_value: label of unlabelled pixels.
        prefix: prefix of each name in the log.
        name: name of the metric.

    Examples:
        >>> import numpy as np
        >>> metric = AllScores()
        >>> metric.update_state(np.array([[[1, 1, 0, 0, 255]]]), np.array([[[2.0, 2.0, 2.0, -2.0, 2.0]]]))
        >>> {name: round(float(value), 3) for name, value in metric.result().items()}["precision"]
        0.667
    """

    def __init__(
        self,
        threshold: float = 0.5,
        from_logits: bool = True,
        ignore_value: int = 255,
        prefix: str = "",
        name: str = "all_scores",
    ) -> None:
        super().__init__(threshold, from_logits, ignore_value, name)
        self.prefix = prefix

    def result(self) -> dict[str, Any]:
        return {self.prefix + name: value for name, value in self._scores().items()}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "prefix": self.prefix}


class _Score(_ConfusionMetric):
    """Base of metrics that return one score; for several scores, `AllScores` is faster."""

    score: ClassVar[str]

    def __init__(
        self, threshold: float = 0.5, from_logits: bool = True, ignore_value: int = 255, name: str | None = None
    ) -> None:
        super().__init__(threshold, from_logits, ignore_value, name or self.score)

    def result(self) -> Any:
        return self._scores()[self.score]


@keras.saving.register_keras_serializable("lim_keras")
class Accuracy(_Score):
    """Share of labelled pixels with the right class; arguments as in `AllScores`."""

    score = "accuracy"


@keras.saving.register_keras_serializable("lim_keras")
class Precision(_Score):
    """Share of predicted landslide pixels that are landslide; arguments as in `AllScores`."""

    score = "precision"


@keras.saving.register_keras_serializable("lim_keras")
class Recall(_Score):
    """Share of landslide pixels that are predicted as landslide; arguments as in `AllScores`."""

    score = "recall"


@keras.saving.register_keras_serializable("lim_keras")
class F1(_Score):
    """Harmonic mean of precision and recall of the landslide class; arguments as in `AllScores`.

    Examples:
        >>> import numpy as np
        >>> metric = F1(threshold=0.5)
        >>> metric.update_state(np.array([[[1, 1, 0, 0, 255]]]), np.array([[[2.0, -2.0, 2.0, -2.0, 2.0]]]))
        >>> float(metric.result())
        0.5
    """

    score = "f1"


@keras.saving.register_keras_serializable("lim_keras")
class IoU(_Score):
    """Intersection over union of the landslide class; arguments as in `AllScores`."""

    score = "iou_landslide"


@keras.saving.register_keras_serializable("lim_keras")
class BackgroundIoU(_Score):
    """Intersection over union of the background class; arguments as in `AllScores`."""

    score = "iou_background"


@keras.saving.register_keras_serializable("lim_keras")
class MeanIoU(_Score):
    """Mean of the intersections over union of both classes; arguments as in `AllScores`."""

    score = "miou"


@keras.saving.register_keras_serializable("lim_keras")
class MCC(_Score):
    """Correlation of truth and prediction (Matthews 1975); arguments as in `AllScores`."""

    score = "mcc"


@keras.saving.register_keras_serializable("lim_keras")
class AveragePrecision(keras.metrics.Metric):
    """Average precision from a histogram of probabilities; equal to `binary.average_precision`.

    Args:
        from_logits: `y_pred` is logits.
        ignore_value: label of unlabelled pixels.
        bins: number of bins of probability, >= 2; thresholds are k / (bins - 1).
        name: name of the metric.

    Examples:
        >>> import numpy as np
        >>> metric = AveragePrecision(from_logits=False)
        >>> metric.update_state(np.array([[[1, 0, 1, 0]]]), np.array([[[0.9, 0.8, 0.7, 0.1]]]))
        >>> round(float(metric.result()), 3)
        0.833
    """

    def __init__(
        self, from_logits: bool = True, ignore_value: int = 255, bins: int = BINS, name: str = "average_precision"
    ) -> None:
        if not isinstance(bins, int) or bins < 2:
            raise ConfigError(f"Invalid value for argument `bins`. Expected an integer >= 2. Received: bins={bins!r}")
        super().__init__(name=name, dtype="float32")
        self.from_logits = from_logits
        self.ignore_value = ignore_value
        self.bins = bins
        self.histogram = self.add_variable((2, bins), "zeros", dtype="float64", name="histogram")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        landslide, valid, prediction = _pixels(y_true, y_pred, self.ignore_value)
        probability = ops.sigmoid(prediction) if self.from_logits else ops.clip(prediction, 0.0, 1.0)
        steps = ops.cast(ops.floor(probability * (self.bins - 1)), "int32")
        # An additional bin counts ignored pixels, so that bincount needs no weights without sample weights.
        steps = ops.where(valid, steps + self.bins * ops.cast(landslide, "int32"), 2 * self.bins)
        weights = None if sample_weight is None else ops.reshape(_weights(valid, sample_weight), (-1,))
        counts = ops.bincount(ops.reshape(steps, (-1,)), weights=weights, minlength=2 * self.bins + 1)
        counts = ops.reshape(counts[: 2 * self.bins], (2, self.bins))
        self.histogram.assign_add(ops.cast(counts, "float64"))

    def result(self) -> Any:
        """Return average precision, a scalar; NaN before the first landslide pixel."""
        return histogram_precision(ops, self.histogram[0], self.histogram[1])

    def get_config(self) -> dict[str, Any]:
        arguments = {"from_logits": self.from_logits, "ignore_value": self.ignore_value, "bins": self.bins}
        return {**arguments, "name": self.name}
