"""Write a bundle."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras import __version__
from lim_keras.bundle.info import BundleInfo, FileRecord, ModelFacts, check_bundle_folder
from lim_keras.bundle.saved_model import BASELINE_FILE
from lim_keras.bundle.verify import PAIR_FILE
from lim_keras.errors import BundleError
from lim_keras.export.documents import write_documents
from lim_keras.export.saved_model import EnsembleGraph, FoldGraph, export_models
from lim_keras.files import atomic_folder
from lim_keras.metrics.calibration import Calibration
from lim_keras.metrics.image_blind import ImageBlindMask
from lim_keras.models.receptive_field import receptive_field

_SIZE = 64


def write_bundle(
    path: Path,
    facts: ModelFacts,
    models: Sequence[keras.Model],
    baseline: ImageBlindMask | None = None,
    half: bool = False,
) -> BundleInfo:
    """Export models as the bundle `path`, atomically; an older bundle there is replaced.

    Args:
        path: `exported_models/<name>`.
        facts: what training knows of the models.
        models: one per fold, images (n, h, w, bands) -> logits (n, h, w, 1).
        baseline: image-blind mask of the training tiles.
        half: store kernels as float16, for files of half the size.

    Raises:
        BundleError: no models, models that do not fit `facts`, kernels beyond float16, or a folder at `path` that is no
            bundle.
    """
    bands = sorted({int(model.input_shape[-1]) for model in models})
    if bands != [facts.bands]:
        raise BundleError(f"Expected `models` of {facts.bands} bands. Received: {len(models)} models, bands {bands}")
    check_bundle_folder(path)
    with atomic_folder(path) as folder:
        calibration = Calibration(facts.temperature, facts.bias)
        graph = export_models(
            models, folder, calibration=calibration, threshold=facts.threshold, half=half, dtype=facts.dtype
        )
        if baseline is not None:
            baseline.write(folder / BASELINE_FILE)
        write_pair(folder, facts, graph)
        info = write_documents(folder, _describe(folder, facts, models))
        info.write(folder)
    return info


def write_pair(folder: Path, facts: ModelFacts, graph: FoldGraph | EnsembleGraph) -> None:
    """Store a synthetic image and the probability that the graph of the ensemble, or of the only model, gives it."""
    image = synthetic_image(facts)
    batch = tf.constant(image[np.newaxis].astype(np.float32))
    np.savez(folder / PAIR_FILE, image=image, probability=graph.probability(batch)["probability"].numpy()[0, ..., 0])


def synthetic_image(facts: ModelFacts) -> NDArray[Any]:
    """Make an image of waves, a patch and noise in the range of the training tiles.

    Returns:
        (64, 64, bands) of the model's dtype, the same in every call.
    """
    rows, columns = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1)
    patch = np.where((rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.06, 1.5, 0.0)
    shape = np.sin(6 * rows) + np.cos(9 * columns) + patch
    noise = np.random.default_rng(0).normal(scale=0.5, size=(_SIZE, _SIZE, facts.bands))
    mean, std, low, high = np.array([(s.mean, s.std, s.min, s.max) for s in facts.statistics], np.float64).T
    image: NDArray[Any] = np.clip(mean + std * (shape[..., np.newaxis] + noise), low, high).astype(facts.dtype)
    return image


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
