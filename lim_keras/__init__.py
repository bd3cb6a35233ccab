"""Landslide inventory maps from optical imagery with imbalanced samples, on Keras 3.

Everything public is imported when it is first used: `import lim_keras as lk` takes no time and needs no TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras import data, errors, losses, metrics
    from lim_keras.api import (
        bundle_info,
        cross_validate,
        dataset_report,
        distill,
        evaluate,
        evaluate_scene,
        export_litert,
        export_serving,
        find_overlaps,
        fit,
        load_bundle,
        load_config,
        predict_scene,
        predict_scenes,
        read_tiles,
        run_demo,
        verify_bundle,
    )
    from lim_keras.data.folds import assign_folds
    from lim_keras.errors import (
        BundleError,
        ConfigError,
        DataError,
        DomainWarning,
        LeakError,
        LimKerasError,
        LimKerasWarning,
        ModelError,
        ServerError,
        TrainingError,
    )
    from lim_keras.losses import BinaryFocalLoss, DistillationLoss, FocalDiceLoss, SoftDiceLoss, TverskyLoss
    from lim_keras.models import build_model
    from lim_keras.report.progress import ProgressBar

__version__ = "0.2.0"

__all__ = [
    "BinaryFocalLoss",
    "BundleError",
    "ConfigError",
    "DataError",
    "DistillationLoss",
    "DomainWarning",
    "FocalDiceLoss",
    "LeakError",
    "LimKerasError",
    "LimKerasWarning",
    "ModelError",
    "ProgressBar",
    "ServerError",
    "SoftDiceLoss",
    "TrainingError",
    "TverskyLoss",
    "__version__",
    "assign_folds",
    "build_model",
    "bundle_info",
    "cross_validate",
    "data",
    "dataset_report",
    "distill",
    "errors",
    "evaluate",
    "evaluate_scene",
    "export_litert",
    "export_serving",
    "find_overlaps",
    "fit",
    "load_bundle",
    "load_config",
    "losses",
    "metrics",
    "predict_scene",
    "predict_scenes",
    "read_tiles",
    "run_demo",
    "verify_bundle",
]

_MODULES = ("data", "errors", "losses", "metrics")
_ELSEWHERE = {
    "ProgressBar": "report.progress",
    "assign_folds": "data.folds",
    "build_model": "models",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    default = "errors" if name.endswith(("Error", "Warning")) else "losses" if name.endswith("Loss") else "api"
    value = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, default)}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
