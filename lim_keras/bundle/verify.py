"""Verify that a bundle is unchanged: files, signatures, and the answer to a stored image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.bundle.info import ENSEMBLE, INFO_FILE, BundleInfo, model_folders
from lim_keras.bundle.protocol import ENCODED, SIGNATURE, signature_differences, signature_names
from lim_keras.bundle.saved_model import load_graph
from lim_keras.bundle.trust import read_arrays
from lim_keras.errors import BundleError
from lim_keras.files import StrPath

PAIR_FILE = "verify.npz"
TOLERANCE = 1e-4  # largest difference of a probability: processors and TensorFlow versions sum in another order
_CHANGED = (
    "{}: its content is not what was exported (SHA-256 differs). Copy the bundle again from where it was exported."
)
_PAIR_BYTES = 16 * 2**20  # 64 x 64 float32 pixels of a thousand bands


def verify_bundle(path: StrPath) -> list[str]:
    """Compare a bundle with its model.json; models with changed files are not loaded.

    Returns:
        One line for each difference; empty if the bundle is unchanged.

    Raises:
        BundleError: model.json is missing, damaged, or names files outside of the bundle.
    """
    path = Path(path)
    info = BundleInfo.read(path)
    damaged = {name: line for name in sorted(info.files) if (line := _file_difference(info, path, name))}
    lines = [] if info.sha256 == info.digest() else [_CHANGED.format(path / INFO_FILE)]
    lines += damaged.values()
    lines += (f"{path / name}: not recorded in {INFO_FILE}." for name in _unrecorded(path, info))
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
        model = load_graph(place, info.versions.get("tensorflow", "an unknown version"))
    except BundleError as error:
        return [str(error)]
    ensemble = folder.startswith(ENSEMBLE)
    lines = [
        f"{place}: {line}. Export it again."
        for name in signature_names(info.bands, info.dtype)
        for line in signature_differences(model, name, info.bands, ensemble)
    ]
    return lines or (_pair_differences(model, path, info) if with_pair else [])


def _pair_differences(model: Any, path: Path, info: BundleInfo) -> list[str]:
    file = path / PAIR_FILE
    if PAIR_FILE not in info.files:
        return [f"{file}: not part of this bundle, so the model's answer cannot be compared. Export it again."]
    try:
        image, expected = _read_pair(file, info.bands)
        answers = {SIGNATURE: _probability(model, image)}
        if ENCODED in signature_names(info.bands, info.dtype):
            answers[ENCODED] = _encoded_probability(model, image)
    except (BundleError, tf.errors.OpError) as error:
        return [str(error)]
    if any(answer.shape != expected.shape for answer in answers.values()):
        return [f"{file}: the model's answer has another size than the image."]
    differences = {name: float(np.abs(answer - expected).max()) for name, answer in answers.items()}
    return [
        f"{file}: the model's answer differs from that of the export by {difference:.2g} (> {TOLERANCE:g}, {name})."
        for name, difference in differences.items()
        if not difference <= TOLERANCE  # NaN counts as a difference
    ]


def _read_pair(file: Path, bands: int) -> tuple[NDArray[Any], NDArray[Any]]:
    image, probability = read_arrays(file, ("image", "probability"), _PAIR_BYTES)
    kinds = image.dtype.kind in "uif" and probability.dtype.kind == "f"
    if not kinds or probability.ndim != 2 or not probability.size or image.shape != (*probability.shape, bands):
        raise BundleError(
            f"{file}: expected an image (height, width, {bands}) and its probability (height, width). Received: "
            f"{image.dtype} {image.shape} and {probability.dtype} {probability.shape}"
        )
    return image, probability


def _probability(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    batch = tf.constant(image[np.newaxis].astype(np.float32))
    answer: NDArray[np.float32] = model.signatures[SIGNATURE](image=batch)["probability"].numpy()
    return answer[0, ..., 0]


def _encoded_probability(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    content = tf.io.encode_png(image.astype(np.uint8))
    answer: NDArray[np.float32] = model.signatures[ENCODED](image_bytes=content[tf.newaxis])["probability"].numpy()
    return answer[0, ..., 0]
