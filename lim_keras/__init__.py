"""Landslide inventory maps from optical imagery with imbalanced samples, on Keras 3.

Public names are imported on first use, so `import lim_keras as lk` is fast and needs no TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lim_keras import data as data
    from lim_keras import errors as errors
    from lim_keras import losses as losses
    from lim_keras import metrics as metrics
    from lim_keras.api import add_familiarity as add_familiarity
    from lim_keras.api import audit_tiles as audit_tiles
    from lim_keras.api import bundle_info as bundle_info
    from lim_keras.api import convert_tiles as convert_tiles
    from lim_keras.api import cross_validate as cross_validate
    from lim_keras.api import dataset_report as dataset_report
    from lim_keras.api import distill as distill
    from lim_keras.api import evaluate as evaluate
    from lim_keras.api import evaluate_scene as evaluate_scene
    from lim_keras.api import export_litert as export_litert
    from lim_keras.api import export_onnx as export_onnx
    from lim_keras.api import export_review as export_review
    from lim_keras.api import export_serving as export_serving
    from lim_keras.api import find_overlaps as find_overlaps
    from lim_keras.api import fit as fit
    from lim_keras.api import fit_object_rule as fit_object_rule
    from lim_keras.api import load_bundle as load_bundle
    from lim_keras.api import load_config as load_config
    from lim_keras.api import measure_halo as measure_halo
    from lim_keras.api import predict_scene as predict_scene
    from lim_keras.api import predict_scenes as predict_scenes
    from lim_keras.api import read_tiles as read_tiles
    from lim_keras.api import report_runs as report_runs
    from lim_keras.api import reproduce as reproduce
    from lim_keras.api import review_maps as review_maps
    from lim_keras.api import run_demo as run_demo
    from lim_keras.api import tile_scenes as tile_scenes
    from lim_keras.api import verify_bundle as verify_bundle
    from lim_keras.data.folds import assign_folds as assign_folds
    from lim_keras.errors import BundleError as BundleError
    from lim_keras.errors import ClusterError as ClusterError
    from lim_keras.errors import ConfigError as ConfigError
    from lim_keras.errors import DataError as DataError
    from lim_keras.errors import DomainWarning as DomainWarning
    from lim_keras.errors import LeakError as LeakError
    from lim_keras.errors import LimKerasError as LimKerasError
    from lim_keras.errors import LimKerasWarning as LimKerasWarning
    from lim_keras.errors import ModelError as ModelError
    from lim_keras.errors import ServerError as ServerError
    from lim_keras.errors import TrainingError as TrainingError
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
"""Module of each public name that is not in `lim_keras.api` or `lim_keras.errors`."""


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
