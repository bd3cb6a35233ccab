"""Losses for landslide masks, with a named weight for each class and an ignore label.

All losses take `y_true` (n, h, w) or (n, h, w, 1), with 1 landslide, 0 background and `ignore_value` unlabelled, and
`y_pred` (n, h, w) or (n, h, w, 1): logits, or probabilities with `from_logits=False`. Focal losses return costs
(n, h, w). Ignored pixels have no cost and no gradient, even where the prediction is not finite. Other shapes raise
DataError, arguments out of range ConfigError.
"""

from __future__ import annotations

import math
import re
from typing import Any, Self, TypedDict, Unpack

import keras
from keras import ops

from lim_keras.errors import ConfigError, DataError

PRESETS = {
    "paper-text": {"landslide_weight": 0.75, "background_weight": 0.25, "gamma": 1.75},
    "paper-eq5": {"landslide_weight": 0.25, "background_weight": 0.25, "gamma": 1.75},
    "keras": {"landslide_weight": 0.25, "background_weight": 0.75, "gamma": 1.75},
}

# Keeps the logits of probabilities 0 and 1 finite, and their gradients below 1 / _PROBABILITY_FLOOR.
_PROBABILITY_FLOOR = 1e-7


class LossArguments(TypedDict, total=False):
    """Keyword arguments of every loss; see `MaskLoss`."""

    from_logits: bool
    ignore_value: int
    reduction: str | None
    name: str | None
    dtype: str


def _at_least(minimum: float, **arguments: float) -> None:
    """Raise ConfigError for the first argument that is not a finite number >= minimum."""
    for name, value in arguments.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < minimum:
            raise ConfigError(
                f"Invalid value for argument `{name}`. Expected a finite number >= {minimum:g}. "
                f"Received: {name}={value!r}"
            )


def without_channel(name: str, values: Any) -> Any:
    """Return (n, h, w) from (n, h, w, 1) or (n, h, w); raise DataError with the argument's name for other shapes."""
    shape = tuple(values.shape)
    if len(shape) == 4 and shape[-1] == 1:
        return ops.squeeze(values, axis=-1)
    if len(shape) != 3:
        raise DataError(
            f"Invalid shape for argument `{name}`. Expected (n, height, width) or (n, height, width, 1). "
            f"Received: {shape}"
        )
    return values


def same_shape(truth: Any, prediction: Any) -> None:
    """Raise DataError if two (n, h, w) shapes differ in a known length, because they would broadcast."""
    pairs = zip(truth.shape, prediction.shape, strict=True)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise DataError(
            "`y_true` and `y_pred` must have the same batch, height and width. "
            f"Received: y_true {tuple(truth.shape)}, y_pred {tuple(prediction.shape)}"
        )


class MaskLoss(keras.losses.Loss):
    """Base of all losses: labels, ignored pixels, reduction.

    Args:
        from_logits: `y_pred` is logits. Prefer logits: probabilities that float32 rounds to 0 or 1 lose their gradient.
        ignore_value: label of unlabelled pixels.
        reduction: "sum_over_batch_size" (the mean over labelled pixels) or another reduction of `keras.losses.Loss`,
            such as "sum" or None.
        name: name of the loss in logs.
        dtype: data type of the computation, independent of the model's precision.
    """

    def __init__(
        self,
        from_logits: bool = True,
        ignore_value: int = 255,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str = "float32",
    ) -> None:
        if ignore_value in (0, 1):
            raise ConfigError(
                "Invalid value for argument `ignore_value`. Expected a label other than 0 (background) and 1 "
                f"(landslide). Received: ignore_value={ignore_value}"
            )
        # Keras would append numbers to repeated default names.
        super().__init__(name or re.sub("(?<!^)(?=[A-Z])", "_", type(self).__name__).lower(), reduction, dtype)
        self.from_logits = from_logits
        self.ignore_value = ignore_value

    def _pixels(self, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
        """Return landslide and valid (0 or 1) and prediction (0 where ignored), each (n, h, w)."""
        truth, prediction = without_channel("y_true", y_true), without_channel("y_pred", y_pred)
        same_shape(truth, prediction)
        labelled = ops.not_equal(truth, self.ignore_value)
        # `where` and not a product: 0 * inf and 0 * nan are nan.
        prediction = ops.where(labelled, ops.cast(prediction, self.dtype), 0.0)
        return ops.cast(ops.equal(truth, 1), self.dtype), ops.cast(labelled, self.dtype), prediction

    def _probability(self, prediction: Any) -> Any:
        return ops.sigmoid(prediction) if self.from_logits else prediction

    def _logit(self, prediction: Any) -> Any:
        if self.from_logits:
            return prediction
        return ops.log(prediction + _PROBABILITY_FLOOR) - ops.log(1.0 - prediction + _PROBABILITY_FLOOR)

    def _over_labelled(self, costs: Any, valid: Any) -> Any:
        """Scale (n, h, w) costs so that their mean over all pixels is the mean over labelled ones."""
        if self.reduction in (None, "none", "sum"):
            return costs
        return costs * (ops.cast(ops.size(valid), self.dtype) / ops.maximum(ops.sum(valid), 1.0))

    def get_config(self) -> dict[str, Any]:
        labels = {"from_logits": self.from_logits, "ignore_value": self.ignore_value}
        return {**super().get_config(), **labels, "dtype": self.dtype}


def _tversky_loss(
    target: Any, valid: Any, probability: Any, weights: tuple[float, float], smooth: float, overlap: Any = None
) -> Any:
    """Return 1 - Tversky index of the batch, a scalar; `weights`: weights of false positives and false negatives.

    `overlap`: true positive share of each pixel; None: the product of target and probability.
    """
    true_positive = ops.sum(probability * target if overlap is None else overlap)
    false_positive = ops.sum(probability * valid) - true_positive
    false_negative = ops.sum(target) - true_positive
    wrong = weights[0] * false_positive + weights[1] * false_negative
    return wrong / (true_positive + wrong + smooth)


@keras.saving.register_keras_serializable("lim_keras")
class BinaryFocalLoss(MaskLoss):
    """Focal loss with a weight for each class, averaged over the labelled pixels of the batch.

    A pixel costs `weight * (1 - p_t) ** gamma * -log(p_t)`: `weight` is the weight of its class, and `p_t` is the
    probability of that class. Softplus computes the cost from logits, so that it is finite and very wrong pixels have a
    gradient. A batch without labelled pixels costs 0. A `sample_weight` (n, 1, 1) or (n, h, w) multiplies the costs;
    the divisor stays the number of labelled pixels.

    Args:
        landslide_weight, background_weight: weights of the pixels of each class, >= 0.
        gamma: focusing exponent, >= 0; 0 gives weighted cross-entropy.
        arguments: as in `MaskLoss`.

    Examples:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[[1, 0, 255]]]), np.array([[[0.0, 0.0, 9.0]]])
        >>> loss = BinaryFocalLoss(gamma=2)
        >>> f"{loss(y_true, y_pred):.4f}"
        '0.0866'
        >>> f"{BinaryFocalLoss(gamma=2, reduction='sum')(y_true, y_pred):.4f}"
        '0.1733'

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; Eq. 4-5 of Chen et al. 2022, whose single alpha
    has three readings, see `preset`.
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        **arguments: Unpack[LossArguments],
    ) -> None:
        _at_least(0, landslide_weight=landslide_weight, background_weight=background_weight, gamma=gamma)
        super().__init__(**arguments)
        self.landslide_weight = landslide_weight
        self.background_weight = background_weight
        self.gamma = gamma

    @classmethod
    def preset(cls, name: str, **arguments: Any) -> Self:
        """Build the loss with the weights of one reading of "alpha = 0.25, gamma = 1.75" (Chen et al. 2022).

        Args:
            name: "paper-text" (landslide 0.75, background 0.25: alpha lowers the background, as the text says),
                "paper-eq5" (0.25 for both: alpha only scales, as in Eq. 5) or "keras" (landslide 0.25, background 0.75,
                as in `keras.losses.BinaryFocalCrossentropy`).
            arguments: other arguments of the class.
        """
        if name not in PRESETS:
            raise ConfigError(
                f"Invalid value for argument `name`. Expected one of {', '.join(PRESETS)}. Received: name={name!r}"
            )
        return cls(**{**PRESETS[name], **arguments})

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._focal_costs(*self._pixels(y_true, y_pred))

    def _focal_costs(self, landslide: Any, valid: Any, prediction: Any) -> Any:
        margin = self._logit(prediction) * (2.0 * landslide - 1.0)
        cross_entropy = ops.softplus(-margin)
        # margin + softplus(-margin) = softplus(margin) = -log(1 - p_t)
        focus = ops.exp(-self.gamma * (margin + cross_entropy))
        return self._over_labelled(self._class_weight(landslide, valid) * focus * cross_entropy, valid)

    def _class_weight(self, target: Any, valid: Any) -> Any:
        return self.background_weight * valid + (self.landslide_weight - self.background_weight) * target

    def get_config(self) -> dict[str, Any]:
        weights = {"landslide_weight": self.landslide_weight, "background_weight": self.background_weight}
        return {**weights, "gamma": self.gamma, **super().get_config()}


@keras.saving.register_keras_serializable("lim_keras")
class FocalDiceLoss(BinaryFocalLoss):
    """Focal loss plus `dice_weight` times the soft Dice loss of the batch.

    Without reduction, the Dice term is added to the cost of every pixel.

    Args:
        landslide_weight, background_weight, gamma: as in `BinaryFocalLoss`.
        dice_weight: weight of the Dice loss, >= 0.
        smooth: pixels added to numerator and denominator of the Dice coefficient, > 0.
        arguments: as in `MaskLoss`.

    Examples:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[[1, 0, 255]]]), np.array([[[0.0, 0.0, 9.0]]])
        >>> f"{FocalDiceLoss(gamma=2, dice_weight=0.5)(y_true, y_pred):.4f}"
        '0.2116'
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        dice_weight: float = 1.0,
        smooth: float = 1.0,
        **arguments: Unpack[LossArguments],
    ) -> None:
        _at_least(0, dice_weight=dice_weight)
        _at_least(1e-6, smooth=smooth)
        super().__init__(landslide_weight, background_weight, gamma, **arguments)
        self.dice_weight = dice_weight
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        dice = _tversky_loss(landslide, valid, self._probability(prediction), (0.5, 0.5), self.smooth)
        return self._focal_costs(landslide, valid, prediction) + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dice_weight": self.dice_weight, "smooth": self.smooth}


@keras.saving.register_keras_serializable("lim_keras")
class DistillationLoss(FocalDiceLoss):
    """Focal and soft Dice loss with a target between the mask and a teacher's probability.

    `y_true` (n, h, w, 2) holds the mask and 255 times the teacher's probability. The target of a pixel is
    t = (1 - teacher_weight) * mask + teacher_weight * teacher. A pixel costs weight * |t - p| ** gamma * CE(t, p); the
    weight is interpolated between the class weights. The Dice overlap of a pixel is min(t, p). With the usual t * p,
    pixels with t above half the Dice coefficient would cost least at p = 1, so that the student would learn the
    teacher's false alarms. For targets 0 and 1 the loss equals `FocalDiceLoss`.

    Args:
        teacher_weight: share of the teacher in the target, 0..1.
        arguments: as in `FocalDiceLoss`.

    Examples:
        >>> import numpy as np
        >>> y_true = np.array([[[[1, 255], [0, 51], [255, 0]]]])
        >>> y_pred = np.array([[[2.0, -2.0, 9.0]]])
        >>> f"{DistillationLoss(teacher_weight=0.5)(y_true, y_pred):.4f}"
        '0.0350'

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", without temperature, because the teacher
    is calibrated; Eq. 4 of Li et al. 2020, "Generalized Focal Loss"; overlap of Wang et al. 2023, "Dice Semimetric
    Losses".
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        dice_weight: float = 1.0,
        teacher_weight: float = 0.5,
        smooth: float = 1.0,
        **arguments: Unpack[LossArguments],
    ) -> None:
        if not 0 <= teacher_weight <= 1:
            raise ConfigError(
                f"Invalid value for argument `teacher_weight`. Expected 0..1. Received: teacher_weight={teacher_weight}"
            )
        super().__init__(landslide_weight, background_weight, gamma, dice_weight, smooth, **arguments)
        self.teacher_weight = teacher_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        planes = tuple(y_true.shape)
        if len(planes) != 4 or planes[-1] != 2:
            raise DataError(
                "Invalid shape for argument `y_true`. Expected (n, height, width, 2), mask and teacher. "
                f"Received: {planes}"
            )
        landslide, valid, prediction = self._pixels(y_true[..., :1], y_pred)
        teacher = ops.cast(y_true[..., 1], self.dtype) / 255.0
        target = valid * ((1.0 - self.teacher_weight) * landslide + self.teacher_weight * teacher)
        probability = self._probability(prediction)
        overlap = valid * ops.minimum(probability, target)
        dice = _tversky_loss(target, valid, probability, (0.5, 0.5), self.smooth, overlap)
        return self._soft_costs(target, valid, prediction) + self.dice_weight * dice

    def _soft_costs(self, target: Any, valid: Any, prediction: Any) -> Any:
        logit = self._logit(prediction)
        cross_entropy = ops.softplus(logit) - target * logit
        # The floor avoids a power of 0, whose gradient may not be finite.
        focus = ops.power(ops.maximum(ops.abs(target - ops.sigmoid(logit)), _PROBABILITY_FLOOR), self.gamma)
        return self._over_labelled(self._class_weight(target, valid) * focus * cross_entropy, valid)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "teacher_weight": self.teacher_weight}


@keras.saving.register_keras_serializable("lim_keras")
class TverskyLoss(MaskLoss):
    """1 - TP / (TP + false_positive_weight * FP + false_negative_weight * FN) of the landslide class.

    TP, FP and FN are sums of probabilities over the labelled pixels of the whole batch, because the fraction of one
    image without landslides can be 0 / 0. The result is a scalar; a `sample_weight` scales it.

    Args:
        false_positive_weight: weight of background predicted as landslide, >= 0; higher values favour precision.
        false_negative_weight: weight of missed landslides, >= 0; higher values favour recall.
        smooth: pixels added to numerator and denominator, > 0.
        arguments: as in `MaskLoss`.

    Examples:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[[1, 0, 255]]]), np.array([[[0.0, 0.0, 9.0]]])
        >>> f"{TverskyLoss()(y_true, y_pred):.4f}"
        '0.2500'

    Source: Salehi et al. 2017, "Tversky loss function for image segmentation".
    """

    def __init__(
        self,
        false_positive_weight: float = 0.3,
        false_negative_weight: float = 0.7,
        smooth: float = 1.0,
        **arguments: Unpack[LossArguments],
    ) -> None:
        _at_least(0, false_positive_weight=false_positive_weight, false_negative_weight=false_negative_weight)
        _at_least(1e-6, smooth=smooth)
        super().__init__(**arguments)
        self.false_positive_weight = false_positive_weight
        self.false_negative_weight = false_negative_weight
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        weights = self.false_positive_weight, self.false_negative_weight
        return _tversky_loss(landslide, valid, self._probability(prediction), weights, self.smooth)

    def get_config(self) -> dict[str, Any]:
        names = ("false_positive_weight", "false_negative_weight", "smooth")
        return {**{name: getattr(self, name) for name in names}, **super().get_config()}


@keras.saving.register_keras_serializable("lim_keras")
class SoftDiceLoss(TverskyLoss):
    """1 - Dice coefficient of the landslide class over the batch: `TverskyLoss` with both weights 0.5.

    Args:
        smooth: pixels added to numerator and denominator of TP / (TP + FP / 2 + FN / 2), > 0.
        arguments: as in `MaskLoss`.

    Examples:
        >>> import numpy as np
        >>> y_true, y_pred = np.array([[[1, 0, 255]]]), np.array([[[0.0, 0.0, 9.0]]])
        >>> f"{SoftDiceLoss()(y_true, y_pred):.4f}"
        '0.2500'

    Source: Milletari et al. 2016, "V-Net", with plain sums in place of squares.
    """

    def __init__(self, smooth: float = 1.0, **arguments: Unpack[LossArguments]) -> None:
        super().__init__(0.5, 0.5, smooth, **arguments)

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if not name.startswith("false_")}
