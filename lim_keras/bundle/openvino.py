"""SavedModels of a bundle, run by OpenVINO without TensorFlow."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.compiled_network import CompiledNetwork
from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.model_folder import model_folder, pair_difference
from lim_keras.bundle.protocol import PROBABILITY, SPREAD, VOTES, EnsemblePrediction, checked_answers, checked_images
from lim_keras.errors import LimKerasWarning
from lim_keras.files import StrPath

OPENVINO, BFLOAT16 = "openvino", "openvino-bf16"
"""Names of the runtime in float32, and in bfloat16 with float32 inputs and outputs."""


class OpenVinoModel:
    """SavedModel that OpenVINO compiles for the processor, as a `SceneModel`.

    Threads that share a model take turns, because a request holds one batch at a time.

    Args:
        info: description of the bundle.
        path: folder of the bundle.
        folder: folder of the SavedModel inside the bundle.
        bfloat16: compute in bfloat16, on processors that have it.

    Raises:
        BundleError: OpenVINO is not installed, or cannot run the model.
        ConfigError: the processor has no bfloat16.
    """

    def __init__(self, info: BundleInfo, path: Path, folder: str, *, bfloat16: bool = False) -> None:
        self.info, self.path = info, path
        self.runtime = BFLOAT16 if bfloat16 else OPENVINO
        self._lock = threading.Lock()
        self._network = CompiledNetwork(path / folder, info, bfloat16)

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict the probability of landslide (n, height, width), 0 to 1; arguments as in `predict_all`."""
        return self.predict_all(images).probability

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict probability, spread and votes of images (n, height, width, bands), raw digital numbers of any size.

        Raises:
            DataError: `images` has the wrong number of dimensions or bands, or no pixels.
            BundleError: the model cannot run, or its output has a wrong shape or values out of range.
        """
        array = checked_images(images, self.info.bands)
        with self._lock:
            outputs = self._network.run(array)
        answers = checked_answers(outputs, array.shape[:3], self.info.folds, str(self.path))
        probability = answers[PROBABILITY]
        if VOTES in answers:
            return EnsemblePrediction(probability, answers[SPREAD], answers[VOTES].astype(np.int32))
        votes = (probability >= np.float32(self.info.threshold)).astype(np.int32)
        return EnsemblePrediction(probability, np.zeros(probability.shape, np.float32), votes)

    def release(self) -> None:
        """Free the memory of feature maps; the next prediction allocates it again."""
        with self._lock:
            self._network.release()


def load_openvino(path: StrPath, fold: int | None = None, *, bfloat16: bool = False) -> OpenVinoModel:
    """Load the ensemble of a bundle, or its only model, with OpenVINO.

    Args:
        path: `exported_models/<name>`.
        fold: load this fold alone, counted from 0.
        bfloat16: compute in bfloat16, which is faster and less exact.

    Raises:
        BundleError: the bundle or a file of it is missing or damaged, or OpenVINO is not installed or cannot run it.
        ConfigError: the processor has no bfloat16.

    Warns:
        LimKerasWarning: how far bfloat16 changes the answer to the bundle's stored image.
    """
    path = Path(path)
    info, folder = model_folder(path, fold)
    model = OpenVinoModel(info, path, folder, bfloat16=bfloat16)
    if bfloat16:
        changed = None if fold is not None and info.folds > 1 else pair_difference(path, info, model.predict)
        said = "was not measured" if changed is None else f"is {changed:.2g} on the bundle's stored image"
        message = f"{path}: bfloat16 changes probabilities. The largest difference from float32 {said}."
        warnings.warn(message, LimKerasWarning, stacklevel=2)
    return model
