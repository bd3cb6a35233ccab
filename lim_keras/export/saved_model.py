"""Trained models to TensorFlow SavedModels: one for each fold, and one for all folds together.

Layout, as TensorFlow Serving expects it (`<model>/<version>/`):

    fold_0/1/ ... fold_4/1/     serving_default(image) -> probability
    ensemble/1/                 serving_default(image) -> probability, spread, votes

`image` is (n, height, width, bands) float32 raw digital numbers, any size from 1 x 1 on. `probability`, `spread` and
`votes` are (n, height, width, 1). A fold's probability is sigmoid(logits / temperature + bias); the ensemble's is the
mean over the folds, `spread` (float32) their population standard deviation, and `votes` (int32, a count) the number of
folds whose probability reaches the threshold. Models of uint8 images with 1, 3 or 4 bands have a second signature,
encoded(image_bytes), with the same outputs for PNG and JPEG files (`lim_keras.export.graph_edits`). The graphs hold
TensorFlow operations only: `tf.saved_model.load`, `keras.layers.TFSMLayer` and TensorFlow Serving load them without
this package.

Variables on disk. A SavedModel reads its variables from its own folder, so the ensemble needs those of every fold at
a second place. TensorFlow cuts them into as many files as it is told to (`ShardingCallback`): here each fold's
weights are one file, of the same bytes in `fold_<k>` and in `ensemble`, and the second is made a hard link to the
first. The bytes are on the disk once, yet both names are plain files: any tool reads them, a copied or deployed
folder is complete by itself, and git and tar store them once. Symbolic links would break when a folder is copied
alone, and an ensemble that reads the folds' folders could not be deployed alone. Where the file system has no hard
links, the copy stays and a warning says so. An exported file must therefore never be edited in place; `export_models`
replaces the whole folder.

Half size. With `half`, kernels (variables of two or more dimensions) are stored as float16 and cast to float32 in the
graph, so that a model takes half the space and still computes in float32, on processors without float16, too. Vectors
stay float32: there are few of them, and the variances of batch normalisation can exceed float16's 65504.
"""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lim_keras.bundle.info import ENSEMBLE, VERSION, fold_name
from lim_keras.bundle.protocol import ENCODED, PICTURES, SIGNATURE, takes_pictures
from lim_keras.errors import BundleError, LimKerasWarning
from lim_keras.export.graph_edits import decode_encoded_images
from lim_keras.files import atomic_folder
from lim_keras.metrics.calibration import UNCALIBRATED, Calibration

_FLOAT32_POLICY = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}
_REDUCED_PRECISION = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


class FoldGraph(tf.Module):
    """One model's probabilities as a TensorFlow function that keeps nothing of Keras but the variables.

    Args:
        model: functional Keras model, image (n, h, w, bands) -> logits (n, h, w, 1), of any dtype policy.
        calibration: of its logits.
        half: store kernels as float16.

    Raises:
        BundleError: the model has other outputs, or a kernel that float16 cannot hold.
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
            # In this scope the network reads the casts in place of its own variables, which are then not exported.
            with keras.StatelessScope([(weight, tf.cast(kept, tf.float32)) for weight, kept in stored]):
                logits = network(image, training=False)
            return {"probability": tf.sigmoid(calibration.logit(logits))}

        self.probability = _image_function(probability, self.bands)


class EnsembleGraph(tf.Module):
    """The folds' mean probability, spread and votes as one TensorFlow function.

    Args:
        folds: graphs of the folds, at least one, all of as many bands.
        threshold: a fold votes for landslide where its probability is >= threshold, 0..1.

    Raises:
        BundleError: no folds, folds of different bands, or a threshold outside 0..1.
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
            # One after the other: side by side, the features of several folds would be in memory at once. What is
            # waited for is a copy of the answer: TensorFlow inlines the call, and of a call that is inlined it waits
            # for nothing but the reading of variables.
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
        # Sessions do not compare what they are fed with the signature; a convolution would take twice the bands as two
        # groups, and answer.
        outputs: dict[str, Any] = compute(tf.ensure_shape(image, shape))
        return outputs

    signature = [tf.TensorSpec(shape, tf.float32, name="image")]
    return tf.function(checked, input_signature=signature, autograph=False)


def _picture_function(graph: FoldGraph | EnsembleGraph) -> Any:
    def compute(image_bytes: Any) -> dict[str, Any]:
        image = tf.cast(decode_encoded_images(image_bytes, graph.bands), tf.float32)
        outputs: dict[str, Any] = graph.probability(image)
        return outputs

    return tf.function(compute, input_signature=[tf.TensorSpec((None,), tf.string, name=PICTURES)], autograph=False)


def _half_size(weight: Any) -> Any:
    """A kernel as a float16 variable, a vector as it is."""
    if len(weight.shape) < 2:
        return weight.value
    kept = tf.cast(weight.value, tf.float16)
    if not bool(tf.reduce_all(tf.math.is_finite(kept))):
        largest = float(tf.reduce_max(tf.abs(weight.value)))
        raise BundleError(
            f"Invalid value for argument `half`. Expected kernels that float16 holds, up to 65504. Received: "
            f"{weight.path} with {largest:g}. Export in full size, half=False."
        )
    return tf.Variable(kept, trainable=False, name=weight.name)


def float32_copy(model: keras.Model) -> keras.Model:
    """The same functional model computing in float32 throughout, with copies of the weights.

    A mixed-precision graph would carry its casts to every machine that serves it, CPUs without bfloat16 included.
    """
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
    """A Keras configuration with every reduced-precision dtype policy and dtype replaced, at any depth."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in _REDUCED_PRECISION:
            return _FLOAT32_POLICY
        return {key: _float32_dtype(value) if key == "dtype" else _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return config


def _float32_dtype(dtype: Any) -> Any:
    return "float32" if dtype in _REDUCED_PRECISION else _in_float32(dtype)


def export_fold(model: keras.Model, path: Path, calibration: Calibration = UNCALIBRATED) -> None:
    """Write one model as a SavedModel into the folder `path`, whole or not at all. Arguments as in `FoldGraph`."""
    with atomic_folder(path) as folder:
        _save(FoldGraph(model, calibration), folder)


def export_ensemble(models: Sequence[keras.Model], path: Path, calibration: Calibration, threshold: float) -> None:
    """Write the ensemble of models as one SavedModel into the folder `path`, whole or not at all.

    Arguments as in `FoldGraph` and `EnsembleGraph`. `export_models` writes it beside its folds without a second copy
    of the variables.
    """
    with atomic_folder(path) as folder:
        _save(EnsembleGraph([FoldGraph(model, calibration) for model in models], threshold), folder)


def export_models(
    models: Sequence[keras.Model],
    folder: Path,
    calibration: Calibration,
    threshold: float,
    half: bool = False,
    dtype: str = "float32",
) -> FoldGraph | EnsembleGraph:
    """Write `fold_<k>/1/` for each model and, of two or more, `ensemble/1/` into `folder`.

    Arguments as above; `dtype` is that of the images, of which those in uint8 may come as PNG or JPEG files, too.

    Returns:
        What was written and predicts: the ensemble, or the only model.
    """
    graphs = [FoldGraph(model, calibration, half) for model in models]
    paths = [folder / fold_name(fold) / VERSION for fold in range(len(graphs))]
    for graph, path in zip(graphs, paths, strict=True):
        _save(graph, path, dtype)
    if len(graphs) == 1:
        return graphs[0]
    ensemble, place = EnsembleGraph(graphs, threshold), folder / ENSEMBLE / VERSION
    _save(ensemble, place, dtype)
    share_variables(place, paths)
    return ensemble


def _save(graph: FoldGraph | EnsembleGraph, folder: Path, dtype: str = "float32") -> None:
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=_FilePerFold())
    signatures = {SIGNATURE: graph.probability}
    if takes_pictures(graph.bands, dtype):
        graph.encoded = signatures[ENCODED] = _picture_function(graph)
    tf.saved_model.save(graph, str(folder), signatures=signatures, options=options)


class _FilePerFold(tf.train.experimental.ShardingCallback):
    """Put the weights of each fold into a file of their own, so that a fold's file is the same in every SavedModel.

    What is left, TensorFlow's description of the objects, differs from one SavedModel to another and gets its own file.
    """

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


def share_variables(ensemble: Path, folds: Iterable[Path]) -> None:
    """Make each variable file of the ensemble's SavedModel that equals one of a fold a hard link to it.

    Where the file system cannot link, the copies stay and a LimKerasWarning says so.
    """
    stored = [file for fold in folds for file in sorted((fold / "variables").glob("*.data-*"))]
    for file in sorted((ensemble / "variables").glob("*.data-*")):
        twin = next((other for other in stored if filecmp.cmp(file, other, shallow=False)), None)
        if twin is not None and not _link(twin, file):
            return


def _link(source: Path, target: Path) -> bool:
    """Replace `target` by a hard link to `source`; False, after a warning, where that cannot be."""
    link = target.with_name(target.name + ".link")
    try:
        os.link(source, link)
    except OSError as error:
        warnings.warn(
            f"{target}: the ensemble keeps a second copy of the folds' variables, as hard links cannot be made here "
            f"({error.strerror}). The export is complete; it takes up to twice the space.",
            LimKerasWarning,
            stacklevel=2,
        )
        return False
    link.replace(target)
    return True
