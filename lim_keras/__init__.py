"""Landslide inventory maps from optical imagery with imbalanced samples, on Keras 3.

Public names are imported when they are first used: `import lim_keras as lk` takes no time and needs no TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras import data as data
    from lim_keras import errors as errors
    from lim_keras import losses as losses
    from lim_keras import metrics as metrics
    from lim_keras.api import *  # noqa: F403
    from lim_keras.data.folds import assign_folds as assign_folds
    from lim_keras.errors import *  # noqa: F403
    from lim_keras.losses import BinaryFocalLoss as BinaryFocalLoss
    from lim_keras.losses import DistillationLoss as DistillationLoss
    from lim_keras.losses import FocalDiceLoss as FocalDiceLoss
    from lim_keras.losses import SoftDiceLoss as SoftDiceLoss
    from lim_keras.losses import TverskyLoss as TverskyLoss
    from lim_keras.models import build_model as build_model
    from lim_keras.report.progress import ProgressBar as ProgressBar

__version__ = "0.2.0"

_MODULES = ("data", "errors", "losses", "metrics")
_PLACES = {
    **dict.fromkeys(("BinaryFocalLoss", "DistillationLoss", "FocalDiceLoss", "SoftDiceLoss", "TverskyLoss"), "losses"),
    "ProgressBar": "report.progress",
    "assign_folds": "data.folds",
    "build_model": "models",
}
"""Modules of public names; all others are in `lim_keras.api` or `lim_keras.errors`."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__all__":
        return __dir__()
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    default = "errors" if name.endswith(("Error", "Warning")) else "api"
    module = import_module(f"{__name__}.{_PLACES.get(name, default)}")
    if name.startswith("_") or name not in getattr(module, "__all__", dir(module)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    from lim_keras import api, errors

    known = [name for name in dir(errors) if name.endswith(("Error", "Warning"))]
    return sorted([*api.__all__, *known, *_MODULES, *_PLACES, "__version__"])
