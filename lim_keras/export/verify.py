"""Whether a bundle is still what was exported: its files, its signatures, and what it answers.

`write_pair` stores an image and the answer of the exported graph beside the model; `verify_bundle` asks what was
written.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.errors import BundleError
from lim_keras.export.bundle_info import INFO_FILE, BundleInfo, ModelFacts
from lim_keras.export.saved_model import ENSEMBLE, VERSION, EnsembleGraph, FoldGraph, fold_name
from lim_keras.export.signatures import ENCODED, PICTURES, SIGNATURE, signature_names

PAIR_FILE = "verify.npz"
TOLERANCE = 1e-4
"""Largest difference of a probability; processors and TensorFlow versions sum in another order."""

_SIZE = 64
_PAIR_BYTES = 16 * 2**20  # 64 x 64 float32 pixels of a thousand bands


def model_folders(folds: int) -> list[str]:
    """Folders of a bundle's SavedModels, the one that predicts first."""
    names = [fold_name(fold) for fold in range(folds)]
    return [f"{name}/{VERSION}" for name in ([ENSEMBLE, *names] if folds > 1 else names)]


def write_pair(folder: Path, facts: ModelFacts, graph: FoldGraph | EnsembleGraph) -> None:
    """Store a made-up image and the probability that the graph of the ensemble, or of the only model, gives it."""
    image = made_up_image(facts)
    probability = graph.probability(_batch_of(image))["probability"].numpy()[0, ..., 0]
    np.savez(folder / PAIR_FILE, image=image, probability=probability)


def made_up_image(facts: ModelFacts) -> NDArray[Any]:
    """(64, 64, bands) of the model's dtype, always the same: waves, a patch and noise in the training tiles' range."""
    rows, columns = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1)
    patch = np.where((rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.06, 1.5, 0.0)
    shape = np.sin(6 * rows) + np.cos(9 * columns) + patch
    noise = np.random.default_rng(0).normal(scale=0.5, size=(_SIZE, _SIZE, facts.bands))
    mean, std, low, high = np.array([(s.mean, s.std, s.min, s.max) for s in facts.statistics], np.float64).T
    image: NDArray[Any] = np.clip(mean + std * (shape[..., np.newaxis] + noise), low, high).astype(facts.dtype)
    return image


def verify_bundle(path: Path) -> list[str]:
    """Compare a bundle with what its model.json says.

    Returns:
        One line for each difference; none: the bundle is what was exported. Graphs with changed files are not loaded.

    Raises:
        BundleError: model.json itself is missing, damaged, or names files outside of the bundle.
    """
    info = BundleInfo.read(path)
    damaged = {name: line for name in sorted(info.files) if (line := _file_difference(info, path, name))}
    lines = [*damaged.values(), *(f"{path / name}: not recorded in {INFO_FILE}." for name in _unrecorded(path, info))]
    predicts, *others = model_folders(info.folds)
    for folder in (predicts, *others):
        if not any(name.startswith(f"{folder}/") for name in info.files):
            lines.append(f"{path / folder}: {INFO_FILE} records no file of this model.")
        elif not any(name.startswith(f"{folder}/") for name in damaged):
            lines += _model_differences(path, info, folder, with_pair=folder == predicts and PAIR_FILE not in damaged)
    return lines


def _file_difference(info: BundleInfo, path: Path, name: str) -> str:
    try:
        info.check_file(path, name)
    except (BundleError, OSError) as error:
        return str(error)
    return ""


def _unrecorded(path: Path, info: BundleInfo) -> list[str]:
    found = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    return sorted({file.relative_to(path).as_posix() for file in found} - {INFO_FILE, *info.files})


def _model_differences(path: Path, info: BundleInfo, folder: str, with_pair: bool) -> list[str]:
    place = path / folder
    try:
        model = tf.saved_model.load(str(place))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        return [f"{place}: TensorFlow {tf.__version__} cannot load it ({error})."]
    names = signature_names(info.bands, info.dtype)
    if not set(names) <= set(model.signatures):
        return [f"{place}: expected the signatures {names}. Received: {sorted(model.signatures)}. Export it again."]
    ensemble = folder.startswith(ENSEMBLE)
    lines = [line for name in names for line in _signature_differences(model, name, place, info.bands, ensemble)]
    return lines or (_pair_differences(model, path, info) if with_pair else [])


def _signature_differences(model: Any, name: str, place: Path, bands: int, ensemble: bool) -> list[str]:
    image, map_of = (None, None, None, bands), (None, None, None, 1)
    inputs = {PICTURES: ((None,), "string")} if name == ENCODED else {"image": (image, "float32")}
    outputs = {"probability": (map_of, "float32")}
    if ensemble:
        outputs |= {"spread": (map_of, "float32"), "votes": (map_of, "int32")}
    signature = model.signatures[name]
    received = _specs(signature.structured_input_signature[1]), _specs(signature.structured_outputs)
    return [
        f"{place}: {name}: expected {kind} {wanted}. Received: {came}"
        for kind, wanted, came in zip(("inputs", "outputs"), (inputs, outputs), received, strict=True)
        if wanted != came
    ]


def _specs(tensors: dict[str, Any]) -> dict[str, tuple[tuple[int | None, ...], str]]:
    return {
        name: (tuple(spec.shape) if spec.shape.rank is not None else (), spec.dtype.name)
        for name, spec in sorted(tensors.items())
    }


def _pair_differences(model: Any, path: Path, info: BundleInfo) -> list[str]:
    file = path / PAIR_FILE
    if PAIR_FILE not in info.files:
        return [f"{file}: not part of this bundle, so what it answers cannot be compared. Export it again."]
    try:
        image, expected = _read_pair(file, info.bands)
        answers = {SIGNATURE: _probability(model, image)}
        if ENCODED in signature_names(info.bands, info.dtype):
            answers[ENCODED] = _probability_of_picture(model, image)
    except (BundleError, tf.errors.OpError) as error:
        return [str(error)]
    differences = {name: float(np.abs(answer - expected).max()) for name, answer in answers.items()}
    return [
        f"{file}: the model answers otherwise than when it was exported, by {difference:.2g} (> {TOLERANCE:g}, {name})."
        for name, difference in differences.items()
        if not difference <= TOLERANCE  # nan is a difference, too
    ]


def _read_pair(file: Path, bands: int) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _PAIR_BYTES:  # before anything is allocated
            raise BundleError(f"{file}: expected at most {_PAIR_BYTES} bytes of arrays. Received: {size}")
        with np.load(file, allow_pickle=False) as arrays:
            image, probability = arrays["image"], arrays["probability"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{file}: damaged, expected the arrays image and probability ({error}).") from error
    if image.shape != (*probability.shape, bands) or probability.ndim != 2 or {image.dtype.kind} - set("uif"):
        raise BundleError(
            f"{file}: expected an image (height, width, {bands}) and its probability (height, width). "
            f"Received: {image.shape} and {probability.shape}"
        )
    return image, probability


def _probability(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    answer: NDArray[np.float32] = model.signatures[SIGNATURE](image=_batch_of(image))["probability"].numpy()
    return answer[0, ..., 0]


def _batch_of(image: NDArray[Any]) -> tf.Tensor:
    return tf.constant(image[np.newaxis].astype(np.float32))


def _probability_of_picture(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    """As above, of the image as a PNG."""
    picture = tf.io.encode_png(image.astype(np.uint8))
    answer: NDArray[np.float32] = model.signatures[ENCODED](image_bytes=picture[tf.newaxis])["probability"].numpy()
    return answer[0, ..., 0]
