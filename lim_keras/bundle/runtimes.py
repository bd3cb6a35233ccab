"""Choice of the runtime that predicts with a bundle."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.model_folder import model_folder, pair_difference
from lim_keras.errors import BundleError, ConfigError, LimKerasWarning
from lim_keras.tensorflow_import import load_tensorflow, load_tensorflow_for_scenes

if TYPE_CHECKING:
    from lim_keras.bundle.litert import LiteRtModel
    from lim_keras.bundle.openvino import OpenVinoModel
    from lim_keras.bundle.saved_model import Bundle

    LocalModel: TypeAlias = Bundle | LiteRtModel | OpenVinoModel

Runtime = Literal["auto", "tensorflow", "litert", "openvino", "openvino-bf16"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

SAME_ANSWER = 1e-5
"""Largest difference from the stored answer of a runtime that `auto` takes."""

_PACKAGES = {"openvino": "openvino", "litert": "ai_edge_litert"}  # from the fastest on


def check_runtime(runtime: str) -> None:
    """Raise ConfigError if there is no runtime of this name."""
    if runtime not in RUNTIMES:
        raise ConfigError(f"Invalid value for `runtime`. Expected one of {', '.join(RUNTIMES)}. Received: {runtime!r}.")


def load_model(path: Path, runtime: Runtime = "auto", fold: int | None = None) -> LocalModel:
    """Load the ensemble of a bundle, or its only model, with a runtime.

    Args:
        path: `exported_models/<name>`.
        runtime: library that computes; "auto": the fastest that is installed and gives the bundle's stored answer.
        fold: load this fold alone, counted from 0; "auto" then means TensorFlow for an ensemble.

    Raises:
        BundleError: the bundle is incomplete or damaged, or the runtime is not installed or cannot run it.
        ConfigError: the runtime is unknown, or the processor lacks its number type.

    Warns:
        LimKerasWarning: an installed runtime was not taken, because it gives another answer or none.
    """
    check_runtime(runtime)
    if runtime == "auto":
        return _fastest(path, fold)
    return _load(path, runtime, fold)


def _load(path: Path, runtime: str, fold: int | None) -> LocalModel:
    if runtime == "tensorflow":
        load_tensorflow_for_scenes()
        from lim_keras.bundle.saved_model import load_bundle

        return load_bundle(path, fold)
    if runtime == "litert":
        return _load_litert(path, fold)
    from lim_keras.bundle.openvino import BFLOAT16, load_openvino

    return load_openvino(path, fold, bfloat16=runtime == BFLOAT16)


def _load_litert(path: Path, fold: int | None) -> LiteRtModel:
    from lim_keras.bundle.litert import float32_file, load_litert

    info, folder = model_folder(path, fold)
    file = float32_file(path, info, folder.split("/")[0])
    if file is None:
        raise BundleError(
            f"{path}: holds no float32 .tflite file for windows of any size. Make one with `lim-keras export {path} "
            "--tflite float32`."
        )
    return load_litert(file)


def _fastest(path: Path, fold: int | None) -> LocalModel:
    info, folder = model_folder(path, fold)
    if info.folds > 1 and fold is not None:  # the stored answer is that of the ensemble
        return _load(path, "tensorflow", fold)
    if not _has_gpu():
        for runtime in _candidates(path, info, folder):
            model = _if_same(path, info, runtime, fold)
            if model is not None:
                return model
    return _load(path, "tensorflow", fold)


def _candidates(path: Path, info: BundleInfo, folder: str) -> list[str]:
    """List the installed runtimes other than TensorFlow that have a file to run, from the fastest on."""
    from lim_keras.bundle.litert import float32_file

    there = [name for name, package in _PACKAGES.items() if _is_installed(package)]
    return [name for name in there if name != "litert" or float32_file(path, info, folder.split("/")[0]) is not None]


def _is_installed(package: str) -> bool:
    with suppress(ModuleNotFoundError, ValueError):  # an import hook may raise them
        return find_spec(package) is not None
    return False


def _if_same(path: Path, info: BundleInfo, runtime: str, fold: int | None) -> LocalModel | None:
    """Load a bundle with a runtime; return None, with a warning, if its answer is not the stored one."""
    try:
        model = _load(path, runtime, fold)
        difference = pair_difference(path, info, model.predict)
    except BundleError as error:
        problem = f"cannot be used ({error})"
    else:
        if difference is None:
            return None
        if difference <= SAME_ANSWER:
            return model
        problem = f"differs from the stored answer by {difference:.2g} (> {SAME_ANSWER:g})"
    warnings.warn(f"{path}: the runtime {runtime} {problem}. Another one is taken.", LimKerasWarning, stacklevel=2)
    return None


def _has_gpu() -> bool:
    """Return whether TensorFlow has a GPU, which is faster than all runtimes of the processor."""
    devices = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")] if sys.platform == "linux" else []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not devices or hidden or not _is_installed("tensorflow"):
        return False
    load_tensorflow()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
