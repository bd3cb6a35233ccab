"""Public functions on bundles (load, describe, verify, export), and argument checks shared by all public functions."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from lim_keras.api.places import locked
from lim_keras.errors import BundleError, ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.info import BundleInfo, MeasuredHalo
    from lim_keras.bundle.litert import LiteRtModel, Variant
    from lim_keras.bundle.openvino import OpenVinoModel
    from lim_keras.bundle.runtimes import Runtime
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.export.onnx_file import OnnxExport
    from lim_keras.export.serving_repository import ServingExport
    from lim_keras.export.tflite import LiteRtExport
    from lim_keras.serving import ServerModel

    Model: TypeAlias = Bundle | LiteRtModel | OpenVinoModel | ServerModel


TileIds = StrPath | Iterable[str]
"""Tile ids, or the path of a file that lists them: a text file with one id per line, or a tiles.csv."""

Parameters = ParamSpec("Parameters")

Result = TypeVar("Result")


def public(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a function raise ConfigError if arguments do not fit its signature, or `progress` is not a callback."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Parameters.args, **named: Parameters.kwargs) -> Result:
        try:
            signature.bind(*args, **named)
        except TypeError as error:
            unknown = next((name for name in named if name not in signature.parameters), None)
            problem = f"{error}." if unknown is None else _unknown(unknown, list(signature.parameters))
            raise ConfigError(f"{function.__name__}(): {problem}") from None
        _check_progress(named.get("progress"))
        return function(*args, **named)

    return checked


def _check_progress(progress: object) -> None:
    if progress is not None and not (hasattr(progress, "begin") and hasattr(progress, "advance")):
        raise ConfigError(
            "Invalid value for `progress`. Expected an object with the methods `begin` and `advance`, see "
            f"lim_keras.progress.ProgressCallback. Received: {progress!r}."
        )


def _unknown(name: str, valid: list[str]) -> str:
    longer = [one for one in valid if one.startswith(f"{name}_")]
    nearest = longer or difflib.get_close_matches(name, valid, n=1)
    hint = f"Did you mean `{nearest[0]}`?" if nearest else f"Expected some of: {', '.join(valid)}."
    return f"unknown argument `{name}`. {hint}"


def as_path(name: str, value: StrPath) -> Path:
    """Convert an argument to a path; raise ConfigError for other types."""
    try:
        path = Path(value)
    except TypeError:
        raise ConfigError(f"Invalid value for `{name}`. Expected a path. Received: {value!r}.") from None
    if value == "":
        raise ConfigError(f"Invalid value for `{name}`. Expected a path. Received: an empty text.")
    if "\0" in str(path):
        raise ConfigError(f"Invalid value for `{name}`. Expected a path without null characters. Received: {value!r}.")
    return path


def as_count(name: str, value: object, *, least: int = 1) -> int:
    """Convert an argument to an int; raise ConfigError if it is not a whole number >= `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"Invalid value for `{name}`. Expected a whole number >= {least}. Received: {value!r}.")
    return int(value)


def as_number(name: str, value: object) -> float:
    """Convert an argument to a float; raise ConfigError if it is not a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"Invalid value for `{name}`. Expected a number. Received: {value!r}.")
    return float(value)


def _as_bands(name: str, value: Any) -> tuple[int | str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        bands = tuple(one if isinstance(one, str) else as_count(name, one) for one in value)
        if bands:
            return bands
    raise ConfigError(f"Invalid value for `{name}`. Expected a sequence, such as (3, 2, 1). Received: {value!r}.")


def _as_scale(name: str, value: Any) -> tuple[float, ...]:
    ends = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(ends) != 2:
        raise ConfigError(f"Invalid value for `{name}`. Expected (lowest, highest). Received: {value!r}.")
    return tuple(as_number(name, one) for one in ends)


def _as_nodata(name: str, value: Any) -> float | str:
    return value if isinstance(value, str) and value in ("file", "none") else as_number(name, value)


def _as_memory(name: str, value: Any) -> int:
    from lim_keras.bundle.window_size import parse_memory

    return parse_memory(value) if isinstance(value, str) else as_count(name, value)


def _as_flag(name: str, value: Any) -> bool:
    return bool(value)


CONVERSIONS: dict[str, Callable[[str, Any], object]] = {
    **dict.fromkeys(("threshold", "min_area_m2", "fill_holes_m2", "simplify_m", "min_slope_deg", "gsd_m"), as_number),
    **dict.fromkeys(("drop_flat", "spread", "resample", "tta", "exact"), _as_flag),
    "bands": _as_bands,
    "scale": _as_scale,
    "nodata": _as_nodata,
    "memory": _as_memory,
    "tile": as_count,
}
"""Conversions of prediction arguments by name. NumPy numbers become Python numbers, so that JSON can store them."""


def as_ids(name: str, value: TileIds | None) -> list[str] | None:
    """Convert an argument to tile ids: read them from a file, or check that every item is a string."""
    from lim_keras.data.manifest import read_tile_ids

    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        return read_tile_ids(value)
    ids = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(one, str) for one in ids):
        raise ConfigError(f"Invalid value for `{name}`. Expected a file or ids of tiles. Received: {value!r}.")
    return ids


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
        _refuse("a file", fold=fold, runtime=None if runtime in ("auto", "litert") else runtime)
        return _load_file(path, None if threads is None else as_count("threads", threads))
    _refuse("the folder of a bundle", threads=threads)
    fold = None if fold is None else as_count("fold", fold, least=0)
    from lim_keras.bundle.runtimes import load_model

    return load_model(path, "tensorflow" if runtime is None else runtime, fold)


def _refuse(kind: str, **given: Any) -> None:
    wrong = [f"`{name}`" for name, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: not for {kind}. Leave it out.")


def _load_file(path: Path, threads: int | None) -> LiteRtModel:
    if path.suffix != ".tflite":
        raise BundleError(
            f"{path}: expected the folder of a bundle, or a .tflite file; a model.json is enough only for a model on a "
            "server."
        )
    from lim_keras.bundle.litert import load_litert

    return load_litert(path, threads)


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


@public
def export_litert(
    bundle: StrPath,
    variants: Variant | Sequence[Variant],
    *,
    tile: int | None = None,
    fold: int | None = None,
    tiles: StrPath | None = None,
    tile_ids: TileIds | None = None,
    allow_drop: bool = False,
    out: StrPath | None = None,
    threads: int | None = None,
    wait: bool = False,
) -> LiteRtExport:
    """Export LiteRT (TFLite) files, which run without TensorFlow, and compare each with the SavedModel.

    Args:
        bundle: folder of the bundle.
        variants: number types, one or several of "float32", "float16", "dynamic" and "int8".
        tile: height and width of the input, pixels; None: any.
        fold: export this fold alone, counted from 0; None: the ensemble as one file.
        tiles: folder of tiles, or a tiles.csv. Tiles test every file and calibrate int8, which requires them.
        tile_ids: ids of the tiles to test on; None: the test tiles, or all tiles outside training if there are none.
        allow_drop: keep files that differ from the SavedModel by more than the limit of their number type.
        out: folder of the files; None: `tflite` in the bundle.
        threads: number of interpreter threads in the comparison; None: one per core.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The files with their measurements, and the names of the files that were refused and not kept.

    Raises:
        BundleError: the bundle cannot be read, or LiteRT cannot run a file.
        ConfigError: int8 without tiles, or tile ids without tiles.
        DataError: the tiles do not fit the bundle, files of the user would be replaced, or another call works there.

    Examples:
        >>> lk.export_litert("exported_models/bijie_edge", ["float16", "int8"], tiles="bijie_tiles.csv")
    """
    kinds = tuple(variants) if isinstance(variants, Iterable) and not isinstance(variants, str) else (variants,)
    _check_litert(kinds, tiles, tile_ids)
    load_tensorflow()
    from lim_keras.export.tflite import FOLDER, LiteRtOptions
    from lim_keras.export.tflite import export_litert as export

    ids = as_ids("tile_ids", tile_ids)
    options = LiteRtOptions(
        kinds,
        tile=tile,
        fold=fold,
        tiles=None if tiles is None else as_path("tiles", tiles),
        tile_ids=None if ids is None else tuple(ids),
        allow_drop=allow_drop,
        out=None if out is None else as_path("out", out),
        threads=threads,
    )
    source = as_path("bundle", bundle)
    inside = options.out is None or os.path.realpath(options.out) == os.path.realpath(source / FOLDER)
    with locked(source, "bundle", wait=wait) if inside else locked(Path(options.out or ""), "out", wait=wait):
        return export(source, options)


@public
def export_onnx(
    bundle: StrPath,
    *,
    fold: int | None = None,
    tile: int | None = None,
    out: StrPath | None = None,
    wait: bool = False,
) -> OnnxExport:
    """Export an ONNX file, which ONNX Runtime and the QGIS plugin Deepness run, and compare it with the SavedModel.

    The file takes `image` (n, bands, height, width), float32 of any size: digital numbers divided by 255 for uint8
    images, digital numbers for other data types. It gives `probability` (n, 1, height, width). Its metadata set
    Deepness up: ground sample distance, tile size and overlap, threshold and names of the classes.

    Args:
        bundle: folder of the bundle.
        fold: export this fold alone, counted from 0; None: the ensemble, or the only model.
        tile: height and width of the input, pixels, which Deepness needs; None: any.
        out: folder of the file; None: `onnx` in the bundle.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The file with its size, its metadata, and the largest difference from the SavedModel.

    Raises:
        BundleError: the bundle cannot be read, or the file would differ from the SavedModel.
        DataError: a file of the user would be replaced, or another call works there.
        OnnxMissingError: a package of `lim-keras[onnx]` is not installed.

    Examples:
        >>> lk.export_onnx("exported_models/bijie_edge").path
    """
    source = as_path("bundle", bundle)
    fold = None if fold is None else as_count("fold", fold, least=0)
    side = None if tile is None else as_count("tile", tile)
    folder = None if out is None else as_path("out", out)
    load_tensorflow()
    from lim_keras.export.onnx_file import FOLDER
    from lim_keras.export.onnx_file import export_onnx as export

    inside = folder is None or os.path.realpath(folder) == os.path.realpath(source / FOLDER)
    with locked(source, "bundle", wait=wait) if inside else locked(Path(folder or ""), "out", wait=wait):
        return export(source, fold=fold, tile=side, out=folder)


@public
def measure_halo(bundle: StrPath, tiles: StrPath, *, wait: bool = False) -> tuple[MeasuredHalo, ...]:
    """Measure which smaller halos keep windows near the whole-scene prediction, and record them in the bundle.

    A default prediction takes the halo for a tolerance of 0.001, which is faster than the whole receptive field. A
    bundle that `fit` or `cross_validate` exports is measured already; older ones are not.

    Args:
        bundle: folder of the bundle; its model.json and tflite.json are rewritten.
        tiles: folder of tiles, or a tiles.csv, with the tiles that the bundle was trained on.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        For each tolerance, the halo, the largest difference in probability that was seen, and the number of pixels.

    Raises:
        BundleError: the bundle cannot be read, or was changed.
        DataError: the tiles do not fit the bundle, hold too few of its training tiles, or another call works there.

    Examples:
        >>> lk.measure_halo("exported_models/bijie_edge", "bijie_tiles.csv")[1].halo
    """
    source, data = as_path("bundle", bundle), as_path("tiles", tiles)
    load_tensorflow()
    from lim_keras.export.measured_halo import measure_bundle

    with locked(source, "bundle", wait=wait):
        return measure_bundle(source, data).halos


def _check_litert(kinds: tuple[str, ...], tiles: StrPath | None, tile_ids: TileIds | None) -> None:
    known = ("float32", "float16", "dynamic", "int8")
    if not kinds or not all(kind in known for kind in kinds):
        raise ConfigError(f"Invalid value for `variants`. Expected some of {', '.join(known)}. Received: {kinds}.")
    if tile_ids is not None and tiles is None:
        raise ConfigError("`tile_ids` needs `tiles`: it names some of them.")
    if "int8" in kinds and tiles is None:
        raise ConfigError("int8 is calibrated on training tiles, landslides among them. Give `tiles`.")


@public
def export_serving(
    bundle: StrPath,
    repository: StrPath,
    *,
    base_path: str | None = None,
    promote: bool = False,
    wait: bool = False,
) -> ServingExport:
    """Add a version of a bundle's models to a model repository of TensorFlow Serving.

    Args:
        bundle: folder of the bundle.
        repository: folder of the repository; it is made if it does not exist.
        base_path: path of the repository on the server; None: the path in models.config, else /models.
        promote: label the newest version stable. If the newest version already is this bundle, no version is added.
        wait: wait for the end of another call that writes to the repository; False: raise an error.

    Raises:
        BundleError: the bundle is damaged, the repository holds another bundle, or the repository cannot be written.
        DataError: another call works in the repository.

    Warns:
        LimKerasWarning: the stable version no longer exists.

    Examples:
        >>> lk.export_serving("exported_models/bijie_edge", "repository")
    """
    source, folder = as_path("bundle", bundle), as_path("repository", repository)
    load_tensorflow()
    from lim_keras.export.serving_repository import export_serving as export

    with locked(folder, "repository", wait=wait):
        return export(source, folder, base_path, promote)
