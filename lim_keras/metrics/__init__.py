"""Metrics: Keras metrics, imported on first use, and the numpy modules binary, calibration, detections, image_blind."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras.metrics.keras_metrics import (
        F1,
        MCC,
        Accuracy,
        AllScores,
        AveragePrecision,
        BackgroundIoU,
        IoU,
        MeanIoU,
        Precision,
        Recall,
    )

__all__ = [
    "F1",
    "MCC",
    "Accuracy",
    "AllScores",
    "AveragePrecision",
    "BackgroundIoU",
    "IoU",
    "MeanIoU",
    "Precision",
    "Recall",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lim_keras.metrics import keras_metrics

    return getattr(keras_metrics, name)


def __dir__() -> list[str]:
    return __all__
