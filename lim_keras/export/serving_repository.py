"""Model repository for TensorFlow Serving: versions, labels, configuration files and warm-up requests."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.bundle.info import INFO_FILE, BundleInfo, FileRecord, ModelFacts, fold_name, model_folders
from lim_keras.bundle.protocol import ENCODED, IMAGE_BYTES, SIGNATURE, signature_names
from lim_keras.bundle.replaceable import own_info
from lim_keras.errors import BundleError, DataError, LimKerasWarning
from lim_keras.export.bundle import synthetic_image
from lim_keras.files import StrPath, atomic_file, draft_folder, flush
from lim_keras.ownership import check_replaceable_files

MODELS_FILE = "models.config"

STABLE, CANARY = "stable", "canary"

CONTAINER_PATH = "/models"

_BATCHING = """\
# For --enable_batching --batching_parameters_file=.../batching.config: requests that wait are computed together.
# Use it only if all clients send images of one height and width: a batch of mixed sizes fails for every request in it,
# and padding (pad_variable_length_inputs) would change the answers. On a CPU one image uses all cores, so batches are
# small and wait for one millisecond only. A request of more than max_batch_size images is refused.
max_batch_size { value: 4 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
pad_variable_length_inputs: false
"""

_MONITORING = """\
# For --monitoring_config_file: metrics for Prometheus at the REST port.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

# Exclude characters that have a meaning in YAML, in docker compose ($) or in its short mount syntax (:).
_BASE_PATH = re.compile(r"""(/+[^/"'\\#$:][^"'\\#$:]*|[\w+.-]+:///*[^/"'\\#$][^"'\\#$]*)""")

_COMMENT = re.compile(r"""^(?:[^"'#\n]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*(#.*)$""", re.MULTILINE)
_HEAD = "# Written by `lim-keras export --serving`, which moves versions and labels and keeps all other entries.\n"


@dataclass(frozen=True)
class Served:
    """Labelled and loaded versions of a bundle in a repository, and the repository's path on the server."""

    stable: int
    canary: int
    loaded: tuple[int, ...]
    base_path: str


def check_base_path(path: str) -> str:
    """Return a base path without its trailing slash; raise BundleError if compose.yaml cannot hold it."""
    base = path.rstrip("/")
    if not _is_base_path(base):
        raise BundleError(
            "Invalid value for argument `base_path`. Expected an absolute path below /, or an address such as "
            "gs://bucket/models, as the server sees it, without `..`, quotes, backslashes, control characters, # and "
            f"$, and in a path no colon. Received: {path!r}"
        )
    return base


def _is_base_path(base: str) -> bool:
    return base.isprintable() and _BASE_PATH.fullmatch(base) is not None and not {".", ".."} & set(base.split("/"))


def templates(model: str, base_path: str) -> dict[str, str]:
    """Return the text of each file that users may edit, by name; an export writes only files that are missing.

    `model`: name of the model whose health compose.yaml checks. `base_path`: mount point of the repository; for an
    address, the mount point is `/models`.
    """
    mount = base_path if base_path.startswith("/") else CONTAINER_PATH
    compose = (files("lim_keras.export") / "templates" / "compose.yaml").read_text(encoding="utf-8")
    compose = compose.format(mount=mount, models=MODELS_FILE, name=model)
    return {"compose.yaml": compose, "batching.config": _BATCHING, "monitoring.config": _MONITORING}


def serving_messages(name: str) -> Any:
    """Import a module of tensorflow-serving-api; raise BundleError if that is not installed."""
    try:
        return import_module(f"tensorflow_serving.{name}")
    except ImportError as error:
        raise BundleError(
            f"A model repository needs a package that is missing ({error}). Install it with "
            "`pip install 'lim-keras[serving]'`."
        ) from error


def read_models(path: Path, models: Sequence[str]) -> Served | None:
    """Read the settings that all models of a bundle share in models.config; None if the file does not exist."""
    if not path.exists():
        return None
    found = {entry.name: entry for entry in _parse(path).model_config_list.config}
    if set(models) - set(found):
        raise BundleError(
            f"{path}: expected the models {list(models)}, of which a new version is to be added. Received: "
            f"{sorted(found)}. Export another bundle, or one of more or fewer folds, into a folder of its own."
        )
    entries = {_served(found[name], path) for name in models}
    if len(entries) > 1:
        raise BundleError(
            f"{path}: expected {list(models)} with the same versions, labels and base path, as one bundle. "
            f"Received: {sorted(map(str, entries))}. Make them equal."
        )
    return entries.pop()


def _served(entry: Any, path: Path) -> Served:
    labels, loaded = dict(entry.version_labels), tuple(entry.model_version_policy.specific.versions)
    base_path, _, folder = entry.base_path.rstrip("/").rpartition("/")
    if not {STABLE, CANARY} <= set(labels) or not {labels[STABLE], labels[CANARY]} <= set(loaded):
        raise BundleError(
            f"{path}: {entry.name}: expected labels {STABLE} and {CANARY} of versions that the policy loads. "
            f"Received: labels {labels}, versions {list(loaded)}"
        )
    if folder != entry.name or not _is_base_path(base_path):
        raise BundleError(
            f"{path}: {entry.name}: expected a base path that ends so, such as {CONTAINER_PATH}/{entry.name}. "
            f"Received: {entry.base_path!r}"
        )
    return Served(labels[STABLE], labels[CANARY], loaded, base_path)


def models_text(path: Path, models: Sequence[str], served: Served) -> str:
    """Return the text of models.config: the entries of these models, and all other entries of the file at `path`."""
    config = _parse(path) if path.exists() else serving_messages("config.model_server_config_pb2").ModelServerConfig()
    entries = {entry.name: entry for entry in config.model_config_list.config}
    for name in models:
        entry = entries[name] if name in entries else config.model_config_list.config.add(name=name)
        entry.base_path, entry.model_platform = f"{served.base_path}/{name}", "tensorflow"
        entry.model_version_policy.specific.versions[:] = served.loaded
        entry.version_labels.update({STABLE: served.stable, CANARY: served.canary})
    return _HEAD + _comments(path) + str(import_module("google.protobuf.text_format").MessageToString(config))


def _comments(path: Path) -> str:
    """Return the comments of a file, one a line, because protobuf does not keep them."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return "".join(f"{comment}\n" for comment in _COMMENT.findall(text)).replace(_HEAD, "")


def _parse(path: Path) -> Any:
    config = serving_messages("config.model_server_config_pb2").ModelServerConfig()
    text_format = import_module("google.protobuf.text_format")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BundleError(
            f"{path}: expected a ModelServerConfig as text ({error}). Correct it, or export into another folder."
        ) from error


EXTRA = "assets.extra"

WARMUP_FILE = "tf_serving_warmup_requests"

_LARGEST = 256  # largest side of a warm-up image, pixels


def write_warmup(folder: Path, facts: ModelFacts, model: str) -> Path:
    """Write one warm-up request for each signature into `<version>/assets.extra`; `model`: its name on the server."""
    logs = serving_messages("apis.prediction_log_pb2")
    path = folder / WARMUP_FILE
    image = _warmup_image(facts)
    requests = [_request(image, model, signature) for signature in signature_names(facts.bands, facts.dtype)]
    try:
        with tf.io.TFRecordWriter(str(path)) as records:
            for request in requests:
                records.write(logs.PredictionLog(predict_log=logs.PredictLog(request=request)).SerializeToString())
    except tf.errors.OpError as error:
        raise BundleError(f"{path}: cannot be written ({error.message}). Give another folder.") from error
    return path


def _warmup_image(facts: ModelFacts) -> NDArray[Any]:
    size = facts.sampling.get("size")
    side = min(size, _LARGEST) if isinstance(size, int) and size > 0 else _LARGEST
    image = synthetic_image(facts)
    rows, columns = (np.arange(side) % length for length in image.shape[:2])
    repeated: NDArray[Any] = image[np.ix_(rows, columns)]
    return repeated


def _request(image: NDArray[Any], model: str, signature: str) -> Any:
    request = serving_messages("apis.predict_pb2").PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if signature == ENCODED:
        request.inputs[IMAGE_BYTES].CopyFrom(tf.make_tensor_proto([tf.io.encode_png(image).numpy()], tf.string))
    if signature == SIGNATURE:
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(image[np.newaxis].astype(np.float32)))
    return request


@dataclass(frozen=True)
class ServingExport:
    """Result of an export: models, their versions, and the added version (None if only labels moved)."""

    folder: Path
    models: tuple[str, ...]
    served: Served
    added: int | None


def export_serving(
    bundle: StrPath, folder: StrPath, base_path: str | None = None, promote: bool = False
) -> ServingExport:
    """Add a version of a bundle's models to the repository `folder`; arguments as in `lim_keras.export_serving`."""
    bundle, folder = Path(bundle), Path(folder)
    info = BundleInfo.read(bundle)
    try:
        return _export(bundle, folder, info, base_path, promote)
    except (OSError, DataError) as error:
        raise BundleError(
            f"{folder}: cannot be used as a model repository ({error}). Correct that, or give another folder."
        ) from error


def _export(bundle: Path, folder: Path, info: BundleInfo, base_path: str | None, promote: bool) -> ServingExport:
    models = served_models(info)
    _check_places(bundle, folder, models)
    check_replaceable_files(folder, [INFO_FILE], own_info(folder), argument="repository")
    before = read_models(folder / MODELS_FILE, list(models))
    base = _base_path(base_path, before, folder)
    if promote and before is not None and _holds(folder, models, before.canary, info):
        served = Served(before.canary, before.canary, (before.canary,), base)
        _write_files(folder, models, served)
        return ServingExport(folder, tuple(models), served, None)
    version = _next_version(folder, models, before)
    stable = version if promote or before is None else before.stable
    # A server moves a label only to a loaded version, so the former stable version stays loaded until the next export.
    loaded = sorted({stable, version} if before is None else {before.stable, version})
    served = Served(stable, version, tuple(loaded), base)
    with _new_version(bundle, folder, info, models, version):
        _write_files(folder, models, served)
    return ServingExport(folder, tuple(models), served, version)


def served_models(info: BundleInfo) -> dict[str, str]:
    """Map model names on the server to folders in the bundle; the model that predicts comes first."""
    folders = model_folders(info.folds)
    if info.folds == 1:
        return {info.name: folders[0]}
    return {f"{info.name}_{folder.split('/')[0]}": folder for folder in folders}


def _check_places(bundle: Path, folder: Path, models: Iterable[str]) -> None:
    for place in (folder / model for model in models):
        if place.exists() and not place.is_dir():
            raise BundleError(
                f"{place}: expected a folder with the versions of this model. Received: a file. Move it away, or "
                "export into another folder."
            )
        # `Path.resolve` raises RuntimeError for links that go in a circle.
        real, source = Path(os.path.realpath(place)), Path(os.path.realpath(bundle))
        for one in (real, *real.parents):
            if one == source or _is_bundle(one):
                raise BundleError(
                    f"{folder}: expected a folder outside of bundles, which must not change. "
                    f"Received: {real}, which is or lies in the bundle {one}. Export into another folder."
                )


def _is_bundle(folder: Path) -> bool:
    return (folder / INFO_FILE).is_file() and (folder / fold_name(0)).is_dir()


def _base_path(asked: str | None, before: Served | None, folder: Path) -> str:
    if asked is None:
        return CONTAINER_PATH if before is None else before.base_path
    base = check_base_path(asked)
    if before is not None and base != before.base_path:
        raise BundleError(
            f"{folder / MODELS_FILE}: expected base path {before.base_path} of this repository. "
            f"Received: {base}. Leave it out, or export into another folder."
        )
    return base


def _holds(folder: Path, models: Mapping[str, str], version: int, info: BundleInfo) -> bool:
    """Return whether a version exists and has the graphs and variables of this bundle."""
    if not all((folder / model / str(version)).is_dir() for model in models):
        return False
    there = BundleInfo.read(folder / next(iter(models)) / str(version) / EXTRA)
    return _records(there, models) == _records(info, models)


def _records(info: BundleInfo, models: Mapping[str, str]) -> dict[str, FileRecord]:
    return {name: info.files[name] for source in models.values() for name in _files(info, source)}


def _files(info: BundleInfo, source: str) -> list[str]:
    return [name for name in info.files if name.startswith(f"{source}/")]


def _next_version(folder: Path, models: Iterable[str], before: Served | None) -> int:
    """Return 1 + the highest version of any model, on disk or in models.config."""
    there = [path.name for model in models for path in (folder / model).glob("*") if path.name.isdecimal()]
    named = () if before is None else before.loaded
    return max([*map(int, there), *named], default=0) + 1


@contextmanager
def _new_version(
    bundle: Path, folder: Path, info: BundleInfo, models: Mapping[str, str], version: int
) -> Iterator[None]:
    """Add a version of each model; remove all of them if the block fails."""
    placed: list[Path] = []
    try:
        with draft_folder(folder / "version") as draft:
            for model, source in models.items():
                info.check_files(bundle, source)
                _fill(draft / model, bundle, info, model, source)
            for model in models:
                place = folder / model / str(version)
                place.parent.mkdir(exist_ok=True)
                placed.append((draft / model).rename(place))
        yield
    except BaseException:
        for place in placed:
            shutil.rmtree(place, ignore_errors=True)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
        raise


def _fill(place: Path, bundle: Path, info: BundleInfo, model: str, source: str) -> None:
    for name in _files(info, source):
        _link_or_copy(bundle / name, place / Path(name).relative_to(source))
    extra = place / EXTRA
    extra.mkdir()
    info.write(extra)
    write_warmup(extra, info, model)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)
        flush(target)


def _write_files(folder: Path, models: Mapping[str, str], served: Served) -> None:
    """Write the files that clients read, models.config last; keep existing templates."""
    first = next(iter(models))
    texts = {name: text for name, text in templates(first, served.base_path).items() if not (folder / name).exists()}
    texts |= _stable_info(folder, first, served.stable)
    texts[MODELS_FILE] = models_text(folder / MODELS_FILE, list(models), served)
    _replace_files(folder, texts)


def _stable_info(folder: Path, model: str, version: int) -> dict[str, str]:
    """Return model.json of the stable version by file name; empty if it was deleted, so that the old file stays."""
    place = folder / model / str(version)
    try:
        return {INFO_FILE: (place / EXTRA / INFO_FILE).read_text(encoding="utf-8")}
    except FileNotFoundError:
        warnings.warn(
            f"{place}: not found or incomplete, but {MODELS_FILE} labels this version stable: a server cannot answer "
            "requests to it. Put it back, or make another version stable with `promote`.",
            LimKerasWarning,
            stacklevel=2,
        )
        return {}


def _replace_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files under temporary names, then replace the old files in the given order."""
    with ExitStack() as stack:  # closes the files in reverse order
        for name, text in reversed(list(texts.items())):
            stack.enter_context(atomic_file(folder / name)).write_text(text, encoding="utf-8")
