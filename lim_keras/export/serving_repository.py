"""Export a model repository for TensorFlow Serving."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.bundle.info import INFO_FILE, BundleInfo, FileRecord, ModelFacts, fold_name, model_folders
from lim_keras.bundle.protocol import ENCODED, IMAGE_BYTES, SIGNATURE, signature_names
from lim_keras.errors import BundleError, DataError, LimKerasWarning
from lim_keras.export.bundle import synthetic_image
from lim_keras.export.serving_config import (
    CONTAINER_PATH,
    MODELS_FILE,
    Served,
    check_base_path,
    models_text,
    read_models,
    serving_messages,
    templates,
)
from lim_keras.files import StrPath, atomic_file

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
    """Result of an export: models, their versions, and the added version; None if only labels moved."""

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
    """Map names of models on a server to their folders in the bundle; the one that predicts comes first."""
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
    """Return the version after the highest one of any model, be it on the disk or in models.config only."""
    there = [path.name for model in models for path in (folder / model).glob("*") if path.name.isdecimal()]
    named = () if before is None else before.loaded
    return max([*map(int, there), *named], default=0) + 1


@contextmanager
def _new_version(
    bundle: Path, folder: Path, info: BundleInfo, models: Mapping[str, str], version: int
) -> Iterator[None]:
    """Add a version of each model; remove all of them if the block fails."""
    partial, placed = folder / ".version.partial", list[Path]()
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for model, source in models.items():
            info.check_files(bundle, source)
            _fill(partial / model, bundle, info, model, source)
        for model in models:
            place = folder / model / str(version)
            place.parent.mkdir(exist_ok=True)
            placed.append((partial / model).rename(place))
        yield
    except BaseException:
        for place in placed:
            shutil.rmtree(place, ignore_errors=True)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def _write_files(folder: Path, models: Mapping[str, str], served: Served) -> None:
    """Write the files that clients read, models.config last; keep templates that exist."""
    first = next(iter(models))
    texts = {name: text for name, text in templates(first, served.base_path).items() if not (folder / name).exists()}
    texts |= _stable_info(folder, first, served.stable)
    texts[MODELS_FILE] = models_text(folder / MODELS_FILE, list(models), served)
    _replace_files(folder, texts)


def _stable_info(folder: Path, model: str, version: int) -> dict[str, str]:
    """Return model.json of the stable version by name; nothing if it was deleted: clients keep the file they have."""
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
    """Write all files beside their places, then replace them in their order."""
    with ExitStack() as stack:  # leaves the files in reverse order
        for name, text in reversed(list(texts.items())):
            stack.enter_context(atomic_file(folder / name)).write_text(text, encoding="utf-8")
