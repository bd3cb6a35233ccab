"""Export trained models as SavedModels in a bundle."""

from __future__ import annotations

import filecmp
import json
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from lim_keras import __version__
from lim_keras.bundle.familiarity import FAMILIARITY_FILE
from lim_keras.bundle.info import ENSEMBLE, VERSION, BundleInfo, FamiliarityFacts, FileRecord, ModelFacts, fold_name
from lim_keras.bundle.model_folder import PAIR_FILE
from lim_keras.bundle.protocol import ENCODED, IMAGE_BYTES, SIGNATURE, takes_encoded_images
from lim_keras.bundle.replaceable import bundle_record, check_bundle_folder
from lim_keras.bundle.saved_model import BASELINE_FILE
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, LimKerasWarning
from lim_keras.export.disk_errors import disk_errors
from lim_keras.export.documents import write_documents
from lim_keras.export.graph_edits import decode_encoded_images
from lim_keras.export.measured_halo import measured_on
from lim_keras.files import atomic_folder
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration, ImageBlindMask
from lim_keras.models.receptive_field import receptive_field
from lim_keras.ownership import is_ours

_FLOAT32 = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}

_REDUCED_PRECISION = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


class FoldGraph(tf.Module):
    """Calibrated probability of one model as a TensorFlow function; only the model's variables are exported.

    Args:
        model: functional Keras model, image (n, h, w, bands) -> logits (n, h, w, 1), of any dtype policy.
        calibration: calibration of the model's logits.
        half: store kernels as float16.
    """

    def __init__(self, model: keras.Model, calibration: Calibration = UNCALIBRATED, half: bool = False) -> None:
        super().__init__()
        if model.output_shape[-1:] != (1,) or len(model.input_shape) != 4:
            raise BundleError(
                "Invalid value for argument `model`. Expected images (n, h, w, bands) -> logits (n, h, w, 1). "
                f"Received: {model.input_shape} -> {model.output_shape}"
            )
        network = model if _computes_in_float32(model) else float32_copy(model)
        self.bands = int(model.input_shape[-1])
        self.weights = [_half_size(weight) if half else weight.value for weight in network.weights]
        stored = list(zip(network.weights, self.weights, strict=True)) if half else []

        def probability(image: Any) -> dict[str, Any]:
            # The network computes with the float32 casts, so that its own variables are not exported.
            with keras.StatelessScope([(weight, tf.cast(kept, tf.float32)) for weight, kept in stored]):
                logits = network(image, training=False)
            return {"probability": tf.sigmoid(calibration.logit(logits))}

        self.probability = _image_function(probability, self.bands)


class EnsembleGraph(tf.Module):
    """Mean probability, spread and votes of the folds as one TensorFlow function.

    A fold votes for landslide where its probability >= `threshold`, 0..1.
    """

    def __init__(self, folds: Sequence[FoldGraph], threshold: float) -> None:
        super().__init__()
        bands = {fold.bands for fold in folds}
        if len(bands) != 1:
            raise BundleError(f"Expected folds of one number of bands. Received: {len(folds)} folds, bands {bands}")
        if not 0 <= threshold <= 1:
            raise BundleError(f"Invalid value for argument `threshold`. Expected 0..1. Received: {threshold}")
        self.folds = list(folds)
        self.threshold = float(threshold)
        self.bands = bands.pop()
        self.probability = _image_function(self._combine, self.bands)

    def _combine(self, image: Any) -> dict[str, Any]:
        outputs: list[Any] = []
        for fold in self.folds:
            # Run the folds one after another, so that memory holds the features of one fold only. The dependency is on
            # an identity operation, because TensorFlow inlines the call.
            with tf.control_dependencies(outputs[-1:]):
                outputs.append(tf.identity(fold.probability(image)["probability"]))
        folds = tf.stack(outputs)
        return {
            "probability": tf.reduce_mean(folds, axis=0),
            "spread": tf.math.reduce_std(folds, axis=0),
            "votes": tf.reduce_sum(tf.cast(folds >= self.threshold, tf.int32), axis=0),
        }


def _image_function(compute: Any, bands: int) -> Any:
    shape = (None, None, None, bands)

    def checked(image: Any) -> dict[str, Any]:
        # Sessions do not check shapes, and a convolution would accept twice the bands as two groups.
        outputs: dict[str, Any] = compute(tf.ensure_shape(image, shape))
        return outputs

    signature = [tf.TensorSpec(shape, tf.float32, name="image")]
    return tf.function(checked, input_signature=signature, autograph=False)


def _encoded_function(graph: FoldGraph | EnsembleGraph) -> Any:
    def compute(image_bytes: Any) -> dict[str, Any]:
        image = tf.cast(decode_encoded_images(image_bytes, graph.bands), tf.float32)
        outputs: dict[str, Any] = graph.probability(image)
        return outputs

    return tf.function(compute, input_signature=[tf.TensorSpec((None,), tf.string, name=IMAGE_BYTES)], autograph=False)


def _half_size(weight: Any) -> Any:
    """Return a kernel as a float16 variable, a vector unchanged."""
    if len(weight.shape) < 2:
        return weight.value
    kept = tf.cast(weight.value, tf.float16)
    if not bool(tf.reduce_all(tf.math.is_finite(kept))):
        largest = float(tf.reduce_max(tf.abs(weight.value)))
        raise BundleError(
            f"Invalid value for argument `half`. Expected kernels up to 65504, the largest float16. "
            f"Received: {weight.path} with {largest:g}. Export with half=False."
        )
    return tf.Variable(kept, trainable=False, name=weight.name)


def float32_copy(model: keras.Model) -> keras.Model:
    """Return a float32 copy of the model, because servers may not support bfloat16."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for nested models, whose configurations hold no policy
    try:
        copy = type(model).from_config(_in_float32(model.get_config()))
    finally:
        keras.config.set_dtype_policy(policy)
    copy.set_weights(model.get_weights())
    return copy


def _computes_in_float32(layer: Any) -> bool:
    return layer.compute_dtype == "float32" and all(map(_computes_in_float32, getattr(layer, "layers", ())))


def _in_float32(config: Any) -> Any:
    """Replace every reduced-precision dtype policy and dtype in a Keras configuration, at any depth."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in _REDUCED_PRECISION:
            return _FLOAT32
        return {key: _float32_dtype(value) if key == "dtype" else _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return config


def _float32_dtype(dtype: Any) -> Any:
    return "float32" if dtype in _REDUCED_PRECISION else _in_float32(dtype)


def export_models(
    models: Sequence[keras.Model],
    folder: Path,
    *,
    calibration: Calibration,
    threshold: float,
    half: bool = False,
    dtype: str = "float32",
) -> FoldGraph | EnsembleGraph:
    """Write `fold_<k>/1/` for each model and, for two or more, `ensemble/1/` into the folder of a bundle.

    Models, `calibration`, `half` and `threshold` are as in `FoldGraph` and `EnsembleGraph`. Models of uint8 images
    (`dtype`) with 1, 3 or 4 bands also take PNG and JPEG files. Returns the graph of the ensemble or of the only model.
    """
    graphs = [FoldGraph(model, calibration, half) for model in models]
    paths = [folder / fold_name(fold) / VERSION for fold in range(len(graphs))]
    for graph, path in zip(graphs, paths, strict=True):
        _save(graph, path, dtype)
    if len(graphs) == 1:
        return graphs[0]
    ensemble, place = EnsembleGraph(graphs, threshold), folder / ENSEMBLE / VERSION
    _save(ensemble, place, dtype)
    _share_variables(place, paths)
    return ensemble


def _save(graph: FoldGraph | EnsembleGraph, folder: Path, dtype: str) -> None:
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=_FilePerFold())
    signatures = {SIGNATURE: graph.probability}
    if takes_encoded_images(graph.bands, dtype):
        graph.encoded = signatures[ENCODED] = _encoded_function(graph)
    tf.saved_model.save(graph, str(folder), signatures=signatures, options=options)
    _check_saved(folder)


def _check_saved(folder: Path) -> None:
    """Read the graph and every variable of a SavedModel; raise OSError if they are not whole."""
    try:
        saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        variables = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        for name in variables.get_variable_to_shape_map():
            variables.get_tensor(name)
    except (DecodeError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise OSError(f"{folder.parent.name} does not hold what was written") from error


class _FilePerFold(tf.train.experimental.ShardingCallback):
    """Write one file for the weights of each fold, and one for TensorFlow's description of the objects."""

    @property
    def description(self) -> str:
        return "One file for the weights of each fold."

    def __call__(self, shardable_tensors: Sequence[Any]) -> list[dict[str, dict[Any, Any]]]:
        shards: dict[str, dict[str, dict[Any, Any]]] = {}
        for tensor in shardable_tensors:
            key = tensor.checkpoint_key
            owner, weights, _ = key.partition("weights/")
            shard = shards.setdefault(owner if weights else "objects", {})
            shard.setdefault(key, {})[tensor.slice_spec] = tensor.tensor
        return list(shards.values())


def _share_variables(ensemble: Path, folds: Sequence[Path]) -> None:
    """Replace ensemble variable files by hard links to fold variable files with the same content."""
    stored = [file for fold in folds for file in sorted((fold / "variables").glob("*.data-*"))]
    for file in sorted((ensemble / "variables").glob("*.data-*")):
        twin = next((other for other in stored if filecmp.cmp(file, other, shallow=False)), None)
        if twin is not None and not _link(twin, file):
            return


def _link(source: Path, target: Path) -> bool:
    """Replace `target` by a hard link to `source`; warn and return False where that is impossible."""
    link = target.with_name(target.name + ".link")
    try:
        os.link(source, link)
    except OSError as error:
        warnings.warn(
            f"{target}: the ensemble keeps a second copy of the folds' variables, because hard links cannot be made "
            f"here ({error.strerror}). The export is complete; it takes up to twice the space.",
            LimKerasWarning,
            stacklevel=2,
        )
        return False
    link.replace(target)
    return True


_SIZE = 64


def write_bundle(
    path: Path,
    facts: ModelFacts,
    models: Sequence[keras.Model],
    baseline: ImageBlindMask | None = None,
    half: bool = False,
    *,
    tiles: TileSet | None = None,
    familiarity: tuple[bytes, FamiliarityFacts] | None = None,
) -> BundleInfo:
    """Export one model per fold as the bundle `path`. The write is atomic and replaces an older bundle.

    Args:
        baseline: image-blind mask of the training tiles.
        half: store kernels as float16.
        tiles: imagery to measure smaller halos on (`lim_keras.export.measured_halo`); None: none is measured.
        familiarity: result of `lim_keras.export.familiarity.familiarity_of`; None: the bundle has none.

    Raises:
        BundleError: models do not fit `facts`, a kernel value exceeds float16, or `path` is a folder of other files.
    """
    bands = sorted({int(model.input_shape[-1]) for model in models})
    if bands != [facts.bands]:
        raise BundleError(f"Expected `models` of {facts.bands} bands. Received: {len(models)} models, bands {bands}")
    check_bundle_folder(path)
    with disk_errors(path), atomic_folder(path) as folder:
        calibration = Calibration(facts.temperature, facts.bias)
        threshold, dtype = facts.threshold, facts.dtype
        graph = export_models(models, folder, calibration=calibration, threshold=threshold, half=half, dtype=dtype)
        if baseline is not None:
            baseline.write(folder / BASELINE_FILE)
        write_pair(folder, facts, graph)
        if familiarity is not None:
            (folder / FAMILIARITY_FILE).write_bytes(familiarity[0])
        described = _describe(folder, facts, models)
        if familiarity is not None:
            described = described.model_copy(update={"familiarity": familiarity[1]})
        if tiles is not None:
            described = measured_on(partial(_probability, graph), described, tiles)
        info = write_documents(folder, described)
        info.write(folder)
    return info


def _probability(graph: FoldGraph | EnsembleGraph, images: NDArray[Any]) -> NDArray[np.float32]:
    batch = tf.constant(images.astype(np.float32))
    probability: NDArray[np.float32] = graph.probability(batch)["probability"].numpy()
    return probability[..., 0]


def is_exported(path: Path, facts: ModelFacts) -> bool:
    """Return whether a folder holds an undamaged bundle of the same facts, written by this version of the package.

    Its object rule may be another one, which `lim_keras.export.object_rule` fitted later.
    """
    try:
        info = BundleInfo.read(path)
        known, wanted = json.loads(info.model_dump_json()), json.loads(facts.model_dump_json())
        if known.get("object_rule"):
            wanted.pop("object_rule", None)
        same = info.lim_keras_version == __version__ and all(known.get(name) == value for name, value in wanted.items())
        return same and all(is_ours(path / name, [sha256]) for name, sha256 in bundle_record(info).items())
    except (BundleError, OSError):
        return False


def write_pair(folder: Path, facts: ModelFacts, graph: FoldGraph | EnsembleGraph) -> None:
    """Store a synthetic image and the probability that `graph` predicts, for later verification of the bundle."""
    image = synthetic_image(facts)
    np.savez(folder / PAIR_FILE, image=image, probability=_probability(graph, image[np.newaxis])[0])


def synthetic_image(facts: ModelFacts) -> NDArray[Any]:
    """Make the fixed image (64, 64, bands) of waves, a patch and noise, in the value range of the training tiles."""
    rows, columns = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1)
    patch = np.where((rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.06, 1.5, 0.0)
    shape = np.sin(6 * rows) + np.cos(9 * columns) + patch
    noise = np.random.default_rng(0).normal(scale=0.5, size=(_SIZE, _SIZE, facts.bands))
    mean, std, low, high = np.array([(s.mean, s.std, s.min, s.max) for s in facts.statistics], np.float64).T
    image: NDArray[Any] = np.clip(mean + std * (shape[..., np.newaxis] + noise), low, high).astype(facts.dtype)
    return image


def software_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide what a model computes."""
    libraries = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    return {"python": platform.python_version(), **libraries}


def _describe(folder: Path, facts: ModelFacts, models: Sequence[keras.Model]) -> BundleInfo:
    fields = [receptive_field(model, facts.stride) for model in models]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return BundleInfo(
        **dict(facts),
        lim_keras_version=__version__,
        created=datetime.now(UTC),
        versions=software_versions(),
        folds=len(models),
        halo=max(field.halo for field in fields),
        bytes_per_pixel=max(field.bytes_per_pixel for field in fields),
        files={file.relative_to(folder).as_posix(): FileRecord.of(file) for file in files},
    )
