"""Public functions that load, describe and verify bundles."""

from __future__ import annotations

from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from lim_keras.api.arguments import as_count, as_number, as_path, public
from lim_keras.errors import BundleError, ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.info import BundleInfo
    from lim_keras.bundle.litert import LiteRtModel
    from lim_keras.bundle.openvino import OpenVinoModel
    from lim_keras.bundle.protocol import DescribedModel, SceneModel
    from lim_keras.bundle.runtimes import Runtime
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.serving import ServerModel

    Model: TypeAlias = Bundle | LiteRtModel | OpenVinoModel | ServerModel

_SCHEMES = ("grpc://", "http://", "https://")


@public
def load_bundle(
    bundle: StrPath,
    *,
    fold: int | None = None,
    runtime: Runtime | None = None,
    threads: int | None = None,
    info: StrPath | None = None,
    request_mb: float | None = None,
    retries: int | None = None,
    timeout_s: float | None = None,
    in_flight: int | None = None,
) -> Model:
    """Load an exported model: SavedModels, a LiteRT file, or a model on a server.

    Args:
        bundle: folder of a bundle, a .tflite file, or an address of TensorFlow Serving: grpc://host:8500/NAME or
            http://host:8501/v1/models/NAME. Append /versions/3 or /labels/canary to the address to choose a version.
        fold: load this fold alone, counted from 0; None: the ensemble. For folders only.
        runtime: library that computes: "tensorflow" (None), "litert", "openvino" or "openvino-bf16", or "auto", the
            fastest of those that are installed and give the bundle's stored answer within 1e-5 (never "openvino-bf16").
            "litert" needs a float32 .tflite file in the bundle. For folders only.
        threads: number of threads of the LiteRT interpreter; None: one per core. For .tflite files only.
        info: bundle (folder or model.json) that the server runs. This and all following arguments are for servers only.
        request_mb: largest size of a request or an answer, MiB; None: 32 for REST, 64 for gRPC.
        retries: number of further attempts if the server cannot be reached or is busy; None: 5.
        timeout_s: time limit of a request, seconds; None: 120.
        in_flight: largest number of simultaneous requests; None: 4.

    Returns:
        A model with `info` (its model.json), `predict(images)` and `predict_all(images)`. Images are raw digital
        numbers (n, height, width, bands) of any size. Probabilities are (n, height, width), from 0 to 1.

    Raises:
        BundleError: a file is missing or damaged, the runtime is not installed, or the server has another model.
        ConfigError: an argument does not belong to this kind of model.
        ServerError: the server cannot be reached, or refuses.

    Examples:
        >>> bundle = lk.load_bundle("exported_models/bijie_edge")
        >>> probability = bundle.predict(images)
    """
    remote = {"request_mb": request_mb, "retries": retries, "timeout_s": timeout_s, "in_flight": in_flight}
    remote = {name: value for name, value in remote.items() if value is not None}
    if isinstance(bundle, str) and bundle.startswith(_SCHEMES):
        _refuse("the address of a server", fold=fold, runtime=runtime, threads=threads)
        whole = {name: as_count(name, remote[name], least=0) for name in ("retries", "in_flight") if name in remote}
        return _connect(bundle, info, {name: as_number(name, value) for name, value in remote.items()} | whole)
    path = as_path("bundle", bundle)
    _refuse("a bundle on the disk", info=info, **remote)
    if path.is_file() or path.suffix == ".tflite":
        _check_suffix(path)
        other = None if runtime in ("auto", "litert") else runtime
        _refuse("a .tflite file, which LiteRT computes with", fold=fold, runtime=other)
        from lim_keras.bundle.litert import load_litert

        return load_litert(path, None if threads is None else as_count("threads", threads))
    _refuse("the folder of a bundle", threads=threads)
    fold = None if fold is None else as_count("fold", fold, least=0)
    from lim_keras.bundle.runtimes import load_model

    return load_model(path, "tensorflow" if runtime is None else runtime, fold)


def _refuse(kind: str, **given: Any) -> None:
    wrong = [f"`{name}`" for name, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: not for {kind}. Leave it out.")


def _check_suffix(path: Path) -> None:
    if path.suffix != ".tflite":
        raise BundleError(
            f"{path}: expected the folder of a bundle, or a .tflite file; a model.json is enough only for a model on a "
            "server."
        )


def _connect(address: str, info: StrPath | None, options: dict[str, Any]) -> ServerModel:
    if info is None:
        raise ConfigError(f"{address}: expected `info`, the folder of the bundle that the server has. Received: none.")
    from lim_keras.serving import ServerOptions, connect

    if address.startswith("grpc:"):
        with suppress(ImportError):  # the client reports the missing package
            load_tensorflow()
    return connect(as_path("info", info), address, options=ServerOptions(**options))


@public
def bundle_info(bundle: StrPath) -> BundleInfo:
    """Read model.json of a bundle (model, data, scores, files) without loading a model.

    Args:
        bundle: folder of the bundle.

    Raises:
        BundleError: model.json is missing or damaged.

    Examples:
        >>> lk.bundle_info("exported_models/bijie_edge").threshold
    """
    from lim_keras.bundle.info import BundleInfo

    return BundleInfo.read(as_path("bundle", bundle))


@public
def verify_bundle(bundle: StrPath) -> list[str]:
    """Check every file of a bundle, the signature of every model, and the prediction of a stored image.

    Args:
        bundle: folder of the bundle.

    Returns:
        One line for each difference from the exported bundle; empty if there is none.

    Raises:
        BundleError: model.json is missing or damaged.
    """
    path = as_path("bundle", bundle)
    bundle_info(path)  # a bundle that cannot be read is refused before TensorFlow is imported
    load_tensorflow()
    from lim_keras.bundle.saved_model import verify_bundle as verify

    return verify(path)


def as_model(bundle: SceneModel | StrPath, runtime: Runtime) -> SceneModel:
    """Load a bundle with a runtime; return a loaded model as it is. Errors as in `load_bundle`."""
    from lim_keras.bundle.protocol import runtime_of
    from lim_keras.bundle.runtimes import check_runtime

    check_runtime(runtime)
    if hasattr(bundle, "predict_all"):
        loaded = cast("SceneModel", bundle)
        if runtime not in ("auto", used := runtime_of(loaded)):
            raise ConfigError(
                f"Invalid value for `runtime`. The model is loaded with {used or 'another library'}. Received: "
                f"{runtime}. Leave `runtime` out, or give the bundle's folder."
            )
        return loaded
    of_server = isinstance(bundle, str) and bundle.startswith(_SCHEMES)
    return load_bundle(bundle, runtime=None if of_server and runtime == "auto" else runtime)


def described_model(bundle: SceneModel | StrPath, runtime: Runtime) -> DescribedModel:
    """Read the description of a bundle's folder, which is enough to merge parts; load any other model."""
    from lim_keras.bundle.info import BundleInfo
    from lim_keras.bundle.runtimes import check_runtime
    from lim_keras.inventory.scene_parts import UnloadedModel

    check_runtime(runtime)
    if isinstance(bundle, str | PathLike) and (path := as_path("bundle", bundle)).is_dir():
        return UnloadedModel(BundleInfo.read(path), path, runtime)
    return as_model(bundle, runtime)
