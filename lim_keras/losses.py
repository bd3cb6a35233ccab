"""Losses for landslide masks: class weights by name, an ignore label, and a gradient wherever a pixel is wrong.

Every loss here takes `y_true` (n, h, w) or (n, h, w, 1) with 1 landslide, 0 background and `ignore_value` unlabelled,
and `y_pred` (n, h, w, 1) or (n, h, w): logits, or probabilities with `from_logits=False`. All arithmetic is float32,
whatever the precision of the model. Unlabelled pixels count nowhere, even where the prediction on them is not finite.
"""

from __future__ import annotations

import math
from typing import Any, Self

import keras
from keras import ops

from lim_keras.errors import ConfigError, DataError

PRESETS = {
    "paper-text": {"landslide_weight": 0.75, "background_weight": 0.25, "gamma": 1.75},
    "paper-eq5": {"landslide_weight": 0.25, "background_weight": 0.25, "gamma": 1.75},
    "keras": {"landslide_weight": 0.25, "background_weight": 0.75, "gamma": 1.75},
}

# Keeps the logit of a probability of exactly 0 or 1 finite, and its gradient with it: at most 1 / _PROBABILITY_FLOOR.
_PROBABILITY_FLOOR = 1e-7


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
    """Return (n, h, w) from (n, h, w, 1) or (n, h, w); DataError that names the argument for any other shape."""
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
    """Raise DataError where two (n, h, w) shapes differ in a known length, which would broadcast without a word."""
    pairs = zip(truth.shape, prediction.shape, strict=True)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise DataError(
            "`y_true` and `y_pred` must have the same batch, height and width. "
            f"Received: y_true {tuple(truth.shape)}, y_pred {tuple(prediction.shape)}"
        )


def _logit(probability: Any) -> Any:
    return ops.log(probability + _PROBABILITY_FLOOR) - ops.log(1.0 - probability + _PROBABILITY_FLOOR)


def _tversky_loss(
    landslide: Any,
    valid: Any,
    probability: Any,
    false_positive_weight: float,
    false_negative_weight: float,
    smooth: float,
    overlap: Any = None,
) -> Any:
    """Return 1 - Tversky index of the landslide class, a scalar, over every valid pixel of the batch together.

    overlap: what of a pixel is landslide in both; None: the product, which is it where `landslide` is 0 or 1.
    """
    true_positive = ops.sum(probability * landslide if overlap is None else overlap)
    false_positive = ops.sum(probability * valid) - true_positive
    false_negative = ops.sum(landslide) - true_positive
    wrong = false_positive_weight * false_positive + false_negative_weight * false_negative
    return wrong / (true_positive + wrong + smooth)


class _MaskLoss(keras.losses.Loss):
    """What the losses share: reading labels, setting ignored pixels aside, float32 throughout."""

    def __init__(self, from_logits: bool, ignore_value: int, name: str) -> None:
        if ignore_value in (0, 1):
            raise ConfigError(
                "Invalid value for argument `ignore_value`. Expected a label other than 0 (background) and 1 "
                f"(landslide). Received: ignore_value={ignore_value}"
            )
        super().__init__(name=name, dtype="float32")
        self.from_logits = from_logits
        self.ignore_value = ignore_value

    def _pixels(self, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
        """Return landslide and valid (0 or 1) and prediction (0 where ignored), each (n, h, w) float32."""
        truth, prediction = without_channel("y_true", y_true), without_channel("y_pred", y_pred)
        same_shape(truth, prediction)
        labelled = ops.not_equal(truth, self.ignore_value)
        # `where` and not a product: 0 * inf and 0 * nan are nan.
        prediction = ops.where(labelled, ops.cast(prediction, "float32"), 0.0)
        return ops.cast(ops.equal(truth, 1), "float32"), ops.cast(labelled, "float32"), prediction

    def _probability(self, prediction: Any) -> Any:
        return ops.sigmoid(prediction) if self.from_logits else prediction

    def get_config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "ignore_value": self.ignore_value, "name": self.name}


@keras.saving.register_keras_serializable("lim_keras")
class BinaryFocalLoss(_MaskLoss):
    """Focal loss with a weight for each class, averaged over the labelled pixels of the batch.

    A pixel costs `weight * (1 - p_t) ** gamma * -log(p_t)`: the weight of its true class, and p_t the probability given
    to it. It is computed from the logit through softplus, so it is finite, and its gradient does not vanish on a
    confidently wrong pixel. A batch without one labelled pixel costs 0 and moves nothing.

    Args:
        landslide_weight: weight of landslide pixels, >= 0.
        background_weight: weight of background pixels, >= 0.
        gamma: focusing exponent, >= 0; 0 gives weighted cross entropy.
        from_logits: whether `y_pred` is logits. Prefer them: a probability that float32 rounds to 0 or 1 has lost its
            gradient before it comes here.
        ignore_value: label of pixels that count nowhere.
        name: name of the loss in logs.

    A `sample_weight` (n, 1, 1) or (n, h, w) multiplies the costs; the divisor stays the number of labelled pixels.

    Raises:
        ConfigError: an argument is out of range.
        DataError: `y_true` or `y_pred` has another shape than the module asks for.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; Eq. 4-5 of Chen et al. 2022, whose single alpha is
    read in three ways, see `preset`.
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        from_logits: bool = True,
        ignore_value: int = 255,
        name: str = "binary_focal_loss",
    ) -> None:
        _at_least(0, landslide_weight=landslide_weight, background_weight=background_weight, gamma=gamma)
        super().__init__(from_logits, ignore_value, name)
        self.landslide_weight = landslide_weight
        self.background_weight = background_weight
        self.gamma = gamma

    @classmethod
    def preset(cls, name: str, **arguments: Any) -> Self:
        """Return the loss with the weights of one reading of "alpha = 0.25, gamma = 1.75" (Chen et al. 2022).

        Args:
            name: "paper-text" (landslide 0.75, background 0.25: alpha lowers the background, as the text says),
                "paper-eq5" (0.25 for both: alpha only scales, as Eq. 5 is printed) or "keras" (landslide 0.25,
                background 0.75: alpha on class 1, as `keras.losses.BinaryFocalCrossentropy` balances classes).
            arguments: any other argument of the class.
        """
        if name not in PRESETS:
            raise ConfigError(
                f"Invalid value for argument `name`. Expected one of {', '.join(PRESETS)}. Received: name={name!r}"
            )
        return cls(**{**PRESETS[name], **arguments})

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return (n, h, w) costs, scaled so that their mean over all pixels is the mean over the labelled ones."""
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        return self._costs(landslide, valid, prediction)

    def _costs(self, landslide: Any, valid: Any, prediction: Any) -> Any:
        logit = prediction if self.from_logits else _logit(prediction)
        margin = logit * (2.0 * landslide - 1.0)
        cross_entropy = ops.softplus(-margin)
        # margin + softplus(-margin) = softplus(margin) = -log(1 - p_t)
        focus = ops.exp(-self.gamma * (margin + cross_entropy))
        class_weight = self.background_weight * valid + (self.landslide_weight - self.background_weight) * landslide
        total = ops.cast(ops.size(valid), "float32")
        return class_weight * focus * cross_entropy * (total / ops.maximum(ops.sum(valid), 1.0))

    def get_config(self) -> dict[str, Any]:
        weights = {"landslide_weight": self.landslide_weight, "background_weight": self.background_weight}
        return {**weights, "gamma": self.gamma, **super().get_config()}


@keras.saving.register_keras_serializable("lim_keras")
class FocalDiceLoss(BinaryFocalLoss):
    """Focal loss plus `dice_weight` times the soft Dice loss of the whole batch.

    Args:
        dice_weight: what one unit of Dice loss adds, >= 0; 0 gives the focal loss alone.
        smooth: pixels added to both sides of the Dice fraction, > 0.
        others: as in `BinaryFocalLoss`.
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        dice_weight: float = 1.0,
        smooth: float = 1.0,
        from_logits: bool = True,
        ignore_value: int = 255,
        name: str = "focal_dice_loss",
    ) -> None:
        _at_least(0, dice_weight=dice_weight)
        _at_least(1e-6, smooth=smooth)
        super().__init__(landslide_weight, background_weight, gamma, from_logits, ignore_value, name)
        self.dice_weight = dice_weight
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return (n, h, w) costs whose mean is the focal loss plus the weighted Dice loss."""
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        dice = _tversky_loss(landslide, valid, self._probability(prediction), 0.5, 0.5, self.smooth)
        return self._costs(landslide, valid, prediction) + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dice_weight": self.dice_weight, "smooth": self.smooth}


@keras.saving.register_keras_serializable("lim_keras")
class DistillationLoss(FocalDiceLoss):
    """Focal and soft Dice loss against a target between the mask and what a teacher says.

    Takes `y_true` (n, h, w, 2): the mask, and the teacher's probability in 255ths. A pixel's target is
    t = (1 - teacher_weight) * mask + teacher_weight * teacher, and it costs weight * |t - p| ** gamma * CE(t, p), the
    weight between those of the classes as t is between them. The overlap in the Dice fraction is the smaller of t and
    p: with their product, a pixel whose t is above half the Dice coefficient would cost least at p = 1, and the
    teacher's false alarms would be taught as landslides. Where t is 0 or 1 this is `FocalDiceLoss`.

    Args:
        teacher_weight: share of the teacher in the target, 0..1.
        others: as in `FocalDiceLoss`.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", without a temperature, as the teacher is
    calibrated; the focal loss for targets between 0 and 1 is Eq. 4 of Li et al. 2020, "Generalized Focal Loss"; the
    overlap is that of Wang et al. 2023, "Dice Semimetric Losses".
    """

    def __init__(
        self,
        landslide_weight: float = 0.75,
        background_weight: float = 0.25,
        gamma: float = 1.75,
        dice_weight: float = 1.0,
        teacher_weight: float = 0.5,
        smooth: float = 1.0,
        from_logits: bool = True,
        ignore_value: int = 255,
        name: str = "distillation_loss",
    ) -> None:
        if not 0 <= teacher_weight <= 1:
            raise ConfigError(
                f"Invalid value for argument `teacher_weight`. Expected 0..1. Received: teacher_weight={teacher_weight}"
            )
        super().__init__(
            landslide_weight, background_weight, gamma, dice_weight, smooth, from_logits, ignore_value, name
        )
        self.teacher_weight = teacher_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return (n, h, w) costs whose mean is the focal loss plus the weighted Dice loss."""
        planes = tuple(y_true.shape)
        if len(planes) != 4 or planes[-1] != 2:
            raise DataError(
                "Invalid shape for argument `y_true`. Expected (n, height, width, 2), mask and teacher. "
                f"Received: {planes}"
            )
        landslide, valid, prediction = self._pixels(y_true[..., :1], y_pred)
        teacher = ops.cast(y_true[..., 1], "float32") / 255.0
        target = valid * ((1.0 - self.teacher_weight) * landslide + self.teacher_weight * teacher)
        probability = self._probability(prediction)
        overlap = valid * ops.minimum(probability, target)
        dice = _tversky_loss(target, valid, probability, 0.5, 0.5, self.smooth, overlap)
        return self._soft_costs(target, valid, prediction) + self.dice_weight * dice

    def _soft_costs(self, target: Any, valid: Any, prediction: Any) -> Any:
        logit = prediction if self.from_logits else _logit(prediction)
        cross_entropy = ops.softplus(logit) - target * logit
        # |t - p| is 0 where they agree; a power of it has no gradient there but in this form.
        focus = ops.power(ops.maximum(ops.abs(target - ops.sigmoid(logit)), _PROBABILITY_FLOOR), self.gamma)
        class_weight = self.background_weight * valid + (self.landslide_weight - self.background_weight) * target
        total = ops.cast(ops.size(valid), "float32")
        return class_weight * focus * cross_entropy * (total / ops.maximum(ops.sum(valid), 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "teacher_weight": self.teacher_weight}


@keras.saving.register_keras_serializable("lim_keras")
class TverskyLoss(_MaskLoss):
    """1 - TP / (TP + false_positive_weight * FP + false_negative_weight * FN), landslides over the whole batch.

    TP, FP and FN are sums of probabilities over the labelled pixels of all images together, so an image without a
    landslide does not make the fraction 0 / 0. The weights are called by what they weigh, because alpha and beta change
    sides from one library to the next. A batch without one labelled pixel costs 0 and moves nothing.

    Args:
        false_positive_weight: weight of background taken for landslide, >= 0; raise it for precision.
        false_negative_weight: weight of landslide taken for background, >= 0; raise it for recall.
        smooth: pixels added to both sides of the fraction, > 0; keeps a batch without landslides finite.
        from_logits, ignore_value, name: as in `BinaryFocalLoss`.

    The result is one number for the batch; a `sample_weight` scales it as a whole.

    Source: Salehi et al. 2017, "Tversky loss function for image segmentation".
    """

    def __init__(
        self,
        false_positive_weight: float = 0.3,
        false_negative_weight: float = 0.7,
        smooth: float = 1.0,
        from_logits: bool = True,
        ignore_value: int = 255,
        name: str = "tversky_loss",
    ) -> None:
        _at_least(0, false_positive_weight=false_positive_weight, false_negative_weight=false_negative_weight)
        _at_least(1e-6, smooth=smooth)
        super().__init__(from_logits, ignore_value, name)
        self.false_positive_weight = false_positive_weight
        self.false_negative_weight = false_negative_weight
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of the batch, a scalar."""
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        weights = self.false_positive_weight, self.false_negative_weight
        return _tversky_loss(landslide, valid, self._probability(prediction), *weights, self.smooth)

    def get_config(self) -> dict[str, Any]:
        weights = {
            "false_positive_weight": self.false_positive_weight,
            "false_negative_weight": self.false_negative_weight,
        }
        return {**weights, "smooth": self.smooth, **super().get_config()}


@keras.saving.register_keras_serializable("lim_keras")
class SoftDiceLoss(_MaskLoss):
    """1 - Dice coefficient of the landslide class over the whole batch: `TverskyLoss` with 0.5 for both mistakes.

    Args:
        smooth: pixels added to both sides of TP / (TP + FP / 2 + FN / 2), > 0.
        from_logits, ignore_value, name: as in `BinaryFocalLoss`.

    Source: Milletari et al. 2016, "V-Net", with plain sums in place of squares.
    """

    def __init__(
        self, smooth: float = 1.0, from_logits: bool = True, ignore_value: int = 255, name: str = "soft_dice_loss"
    ) -> None:
        _at_least(1e-6, smooth=smooth)
        super().__init__(from_logits, ignore_value, name)
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of the batch, a scalar."""
        landslide, valid, prediction = self._pixels(y_true, y_pred)
        return _tversky_loss(landslide, valid, self._probability(prediction), 0.5, 0.5, self.smooth)

    def get_config(self) -> dict[str, Any]:
        return {"smooth": self.smooth, **super().get_config()}
