"""SavedModels of a bundle: load, predict and verify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from lim_keras.bundle.info import ENSEMBLE, INFO_FILE, BundleInfo, model_folders, read_arrays
from lim_keras.bundle.model_folder import PAIR_FILE, model_folder, read_pair
from lim_keras.bundle.protocol import (
    ENCODED,
    SIGNATURE,
    TENSORFLOW,
    EnsemblePrediction,
    checked_answers,
    checked_images,
    signature_differences,
    signature_names,
)
from lim_keras.errors import BundleError
from lim_keras.files import StrPath
from lim_keras.metrics.calibration import ImageBlindMask

_PB_FILE, BASELINE_FILE = "saved_model.pb", "baseline.npz"

_BASELINE_BYTES = 64 * 2**20

_STATE = frozenset(
    {
        *("Assert", "CheckNumerics", "CheckNumericsV2", "GuaranteeConst", "VariableShape"),
        *("AssignVariableOp", "DisableCopyOnRead", "ReadVariableOp", "VarHandleOp", "VarIsInitializedOp"),
        *("Case", "If", "ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "While"),
    }
)
"""Stateful operations that stay inside the graph: variables, and calls of its functions."""

_CHECKPOINT = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2"})
"""Operations in the two checkpoint functions of every SavedModel; loading does not call these functions."""

_OUTSIDE = ("Dataset", "File", "LoadAndRemap", "PyFunc", "Reader", "Snapshot", "Xla")
"""Name parts of stateless operations that access files or run code outside the graph."""

_NAMES_ONLY = frozenset({"ShardedFilename", "ShardedFilespec"})

_UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, DecodeError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError, tf.errors.OpError),
)
"""Errors that TensorFlow raises for files that it cannot load."""


def load_graph(folder: Path, made_with: str) -> Any:
    """Load a SavedModel if its graph only computes. `made_with`: TensorFlow version of the export, for the error text.

    Raises:
        BundleError: the graph has operations that do more than compute, or TensorFlow cannot load it.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / _PB_FILE).read_bytes())
        foreign = sorted({name for graph in saved.meta_graphs for name in _foreign(graph)})
        if not foreign:
            return tf.saved_model.load(str(folder))
    except _UNREADABLE as error:
        raise BundleError(
            f"{folder}: TensorFlow {tf.__version__} cannot load this SavedModel, which was exported with {made_with} "
            f"({error}). Use that version, or export the bundle again."
        ) from error
    raise BundleError(
        f"{folder}: expected a graph that only computes. Received: the operations {', '.join(foreign)}, which can "
        "reach files, programs or the network. It was not loaded. Get the bundle from whoever trained the model."
    )


def _foreign(graph: Any) -> Iterator[str]:
    """Yield the names of forbidden operations in a graph and its functions."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    saving = {name for name, nodes in functions.items() if any(node.op in _CHECKPOINT for node in nodes)}
    # A function may save only if no object and no other function can call it.
    callable_names = set(graph.object_graph_def.concrete_functions)
    for name, nodes in functions.items():
        callable_names.update(called for node in nodes for called in _called(node) if called != name)
    saving -= callable_names
    for name, nodes in functions.items():
        yield from (node.op for node in nodes if not _stays_inside(node.op, saves=name in saving))
    yield from (node.op for node in graph.graph_def.node if not _stays_inside(node.op))


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _stays_inside(name: str, saves: bool = False) -> bool:
    known = op_def_registry.get(name)
    if known is None:
        return False
    if name in _CHECKPOINT:
        return saves
    if known.is_stateful:
        return name in _STATE
    return name in _NAMES_ONLY or not any(part in name for part in _OUTSIDE)


@dataclass(frozen=True)
class Bundle:
    """Loaded bundle: its folder, its model.json, and the SavedModel that TensorFlow loaded."""

    path: Path
    info: BundleInfo = field(repr=False)
    saved_model: Any = field(repr=False)
    runtime: ClassVar[str] = TENSORFLOW

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict the probability of landslide (n, height, width), float32, 0 to 1.

        `images` are raw digital numbers (n, height, width, bands); height and width are at least 1.

        Raises:
            DataError: `images` has the wrong number of dimensions or bands, or no pixels.
            BundleError: the model cannot run, or its output has a wrong shape or values out of range.
        """
        probability: NDArray[np.float32] = self._run(images)["probability"]
        return probability

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict probability, spread and votes; arguments and errors as in `predict`."""
        outputs = self._run(images)
        if "votes" in outputs:
            return EnsemblePrediction(outputs["probability"], outputs["spread"], outputs["votes"])
        probability = outputs["probability"]
        votes = (probability >= np.float32(self.info.threshold)).astype(np.int32)
        return EnsemblePrediction(probability, np.zeros(probability.shape, np.float32), votes)

    def baseline(self) -> ImageBlindMask | None:
        """Read the image-blind mask of the training tiles; None if there is none. For errors, see `read_baseline`."""
        if BASELINE_FILE not in self.info.files:
            return None
        self.info.check_file(self.path, BASELINE_FILE)
        return read_baseline(self.path / BASELINE_FILE)

    def _run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        array = checked_images(images, self.info.bands)
        try:
            outputs = self.saved_model.signatures[SIGNATURE](image=tf.cast(tf.constant(array), tf.float32))
        except tf.errors.ResourceExhaustedError as error:
            raise BundleError(
                f"{self.path}: not enough memory for images of {array.shape[1]} x {array.shape[2]} px. For a "
                "scene, give a smaller `memory` or `tile`."
            ) from error
        except tf.errors.OpError as error:
            reason = error.message.strip().splitlines()[-1:]
            raise BundleError(f"{self.path}: TensorFlow cannot run this model ({' '.join(reason)}).") from error
        answered = {name: output.numpy() for name, output in outputs.items()}
        return checked_answers(answered, array.shape[:3], self.info.folds, str(self.path))


def read_baseline(path: Path) -> ImageBlindMask:
    """Read the image-blind mask of a bundle; raise BundleError if its file is missing, damaged or has wrong arrays."""
    mean_mask, threshold = read_arrays(path, ("mean_mask", "threshold"), _BASELINE_BYTES)
    floats = {mean_mask.dtype.kind, threshold.dtype.kind} == {"f"}
    if mean_mask.ndim != 2 or not mean_mask.size or threshold.ndim or not floats:
        raise BundleError(
            f"{path}: expected `mean_mask` (height, width) and `threshold`, one number. "
            f"Received: {mean_mask.dtype} {mean_mask.shape} and {threshold.dtype} {threshold.shape}"
        )
    return ImageBlindMask(mean_mask.astype(np.float32), float(threshold))


def load_bundle(path: StrPath, fold: int | None = None) -> Bundle:
    """Load the ensemble of a bundle, or its only model.

    Args:
        path: `exported_models/<name>`.
        fold: load this fold alone, counted from 0.

    Raises:
        BundleError: the bundle or a file of it is missing, damaged or of another version.
    """
    path = Path(path)
    info, folder = model_folder(path, fold)
    saved_model = load_graph(path / folder, info.versions.get("tensorflow", "an unknown version"))
    differing = signature_differences(saved_model, SIGNATURE, info.bands, folder.startswith(ENSEMBLE))
    if differing:
        raise BundleError(f"{path / folder}: {'; '.join(differing)}. Export it again.")
    return Bundle(path, info, saved_model)


TOLERANCE = 1e-4  # allowed probability difference: the order of sums depends on processor and TensorFlow version

_CHANGED = (
    "{}: its content is not what was exported (SHA-256 differs). Copy the bundle again from where it was exported."
)


def verify_bundle(path: StrPath) -> list[str]:
    """Compare a bundle with its model.json; do not load models whose files have changed.

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
        image, expected = read_pair(file, info.bands)
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


def _probability(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    batch = tf.constant(image[np.newaxis].astype(np.float32))
    answer: NDArray[np.float32] = model.signatures[SIGNATURE](image=batch)["probability"].numpy()
    return answer[0, ..., 0]


def _encoded_probability(model: Any, image: NDArray[Any]) -> NDArray[np.float32]:
    content = tf.io.encode_png(image.astype(np.uint8))
    answer: NDArray[np.float32] = model.signatures[ENCODED](image_bytes=content[tf.newaxis])["probability"].numpy()
    return answer[0, ..., 0]
