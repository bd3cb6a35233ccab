"""Predicting scenes of any size window by window."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras.inference.batch import predict_scenes
    from lim_keras.inference.options import PredictOptions
    from lim_keras.inference.predict import predict_scene

__all__ = ["PredictOptions", "predict_scene", "predict_scenes"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: training needs the arithmetic of windows, not the whole of GDAL."""
    from importlib import import_module

    homes = {"PredictOptions": "options", "predict_scene": "predict", "predict_scenes": "batch"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
