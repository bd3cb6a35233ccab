"""Bundles: a folder with everything that prediction needs, written whole, and read without running foreign code.

    exported_models/<name>/
        model.json        `BundleInfo`
        fold_<k>/1/       SavedModel of each fold (`lim_keras.export.saved_model`)
        ensemble/1/       SavedModel of all folds; absent where there is one model only
        baseline.npz      the image-blind mask of the training tiles; optional
        verify.npz        an image and what the models answer (`lim_keras.export.verify`)
        README.md         model card (`lim_keras.export.model_card`)
        stac-item.json    the same for catalogues (`lim_keras.export.stac`)

Reading takes JSON, arrays without pickles and TensorFlow graphs that only compute (`lim_keras.export.graphs`): a bundle
brings no program of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras import __version__
from lim_keras.errors import BundleError
from lim_keras.evaluation.baseline import ImageBlindMask
from lim_keras.evaluation.calibration import Calibration
from lim_keras.export.bundle_info import INFO_FILE, BundleInfo, FileRecord, ModelFacts
from lim_keras.export.folders import check_replaceable, written_whole
from lim_keras.export.graphs import load_graph
from lim_keras.export.model_card import write_documents
from lim_keras.export.saved_model import ENSEMBLE, VERSION, export_models, fold_name
from lim_keras.export.signatures import SIGNATURE, signature_differences
from lim_keras.export.verify import write_pair
from lim_keras.inference.outputs import EnsemblePrediction, checked_answers, checked_images
from lim_keras.models.receptive_field import receptive_field

BASELINE_FILE = "baseline.npz"
Images = NDArray[Any]


def write_bundle(
    path: Path,
    facts: ModelFacts,
    models: Sequence[keras.Model],
    baseline: ImageBlindMask | None = None,
    half: bool = False,
) -> BundleInfo:
    """Export models into the bundle folder `path`, whole or not at all; a bundle that is already there is replaced.

    Args:
        path: `exported_models/<name>`.
        facts: what training knows of the models.
        models: one of each fold, or the only one; images (n, h, w, bands) -> logits (n, h, w, 1).
        baseline: image-blind mask of the training tiles.
        half: keep kernels as float16, for files of half the size (`lim_keras.export.saved_model`).

    Raises:
        BundleError: no models, models that do not agree with `facts`, kernels that float16 cannot hold, or a folder at
            `path` that is no bundle.
    """
    bands = sorted({int(model.input_shape[-1]) for model in models})
    if bands != [facts.bands]:
        raise BundleError(f"Expected `models` of {facts.bands} bands. Received: {len(models)} models, bands {bands}")
    check_replaceable(path, INFO_FILE)
    with written_whole(path) as folder:
        calibration = Calibration(facts.temperature, facts.bias)
        graph = export_models(models, folder, calibration, facts.threshold, half, facts.dtype)
        if baseline is not None:
            baseline.write(folder / BASELINE_FILE)
        write_pair(folder, facts, graph)
        info = write_documents(folder, _describe(folder, facts, models))
        info.write(folder)
    return info


def _describe(folder: Path, facts: ModelFacts, models: Sequence[keras.Model]) -> BundleInfo:
    fields = [receptive_field(model, facts.stride) for model in models]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return BundleInfo(
        **dict(facts),
        lim_keras_version=__version__,
        created=datetime.now(UTC),
        versions={
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        folds=len(models),
        halo=max(field.halo for field in fields),
        bytes_per_pixel=max(field.bytes_per_pixel for field in fields),
        files={file.relative_to(folder).as_posix(): FileRecord.of(file) for file in files},
    )


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `load_bundle` makes it.

    Args:
        path: the bundle's folder.
        info: its model.json.
        saved_model: what TensorFlow loaded; its variables live as long as it is referred to.
    """

    path: Path
    info: BundleInfo
    saved_model: Any

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Probability of landslide (n, height, width), 0..1, of images (n, height, width, bands).

        Images are raw digital numbers of any height and width from 1 on; no size makes TensorFlow trace again.

        Raises:
            DataError: images of another number of dimensions or bands, or without pixels.
            BundleError: the model answers with other sizes, or with what is no probability.
        """
        probability: NDArray[np.float32] = self._run(images)["probability"]
        return probability

    def predict_all(self, images: Images) -> EnsemblePrediction:
        """Probability, spread and votes of the same images; errors as in `predict`."""
        outputs = self._run(images)
        if "votes" in outputs:
            return EnsemblePrediction(outputs["probability"], outputs["spread"], outputs["votes"])
        probability = outputs["probability"]
        votes = (probability >= np.float32(self.info.threshold)).astype(np.int32)
        return EnsemblePrediction(probability, np.zeros(probability.shape, np.float32), votes)

    def baseline(self) -> ImageBlindMask | None:
        """The image-blind mask of the training tiles; None if the bundle was exported without.

        Raises:
            BundleError: its file is missing or damaged.
        """
        if BASELINE_FILE not in self.info.files:
            return None
        self.info.check_file(self.path, BASELINE_FILE)
        return ImageBlindMask.read(self.path / BASELINE_FILE)

    def _run(self, images: Images) -> dict[str, NDArray[Any]]:
        array = checked_images(images, self.info.bands)
        outputs = self.saved_model.signatures[SIGNATURE](image=tf.cast(tf.constant(array), tf.float32))
        answered = {name: output.numpy() for name, output in outputs.items()}
        return checked_answers(answered, array.shape[:3], self.info.folds, str(self.path))


def load_bundle(path: Path, fold: int | None = None) -> Bundle:
    """Load the models of a bundle: the ensemble, or the only model where there is one.

    Args:
        path: `exported_models/<name>`.
        fold: load this fold alone, counted from 0.

    Raises:
        BundleError: the bundle or a file of it is missing, damaged or of another version; the message names it.
    """
    info = BundleInfo.read(path)
    name = fold_name(fold or 0) if fold is not None or info.folds == 1 else ENSEMBLE
    folder = f"{name}/{VERSION}"
    info.check_files(path, folder)
    saved_model = load_graph(path / folder, info.versions.get("tensorflow", "an unknown version"))
    differing = signature_differences(saved_model, SIGNATURE, info.bands, name == ENSEMBLE)
    if differing:
        raise BundleError(f"{path / folder}: {'; '.join(differing)}. Export it again.")
    return Bundle(path, info, saved_model)
