"""Model protocol for scenes, model outputs, and SavedModel signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import BundleError, DataError

PROBABILITY, SPREAD, VOTES = "probability", "spread", "votes"
"""Outputs of an exported model; a single fold has the first only."""

Predict = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
"""Raw pixels (n, height, width, bands) to the probability of landslide (n, height, width), 0..1."""

_ROUNDING = 1e-5


class EnsemblePrediction(NamedTuple):
    """Prediction of an ensemble; arrays (n, height, width).

    Args:
        probability: float32, 0 to 1, mean over the folds.
        spread: float32, standard deviation over the folds; 0 for a single model.
        votes: int32, number of folds that reach the threshold.
    """

    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    votes: NDArray[np.int32]


class SceneModel(Protocol):
    """Model that scenes can be predicted with, such as `lim_keras.bundle.saved_model.Bundle`."""

    @property
    def info(self) -> BundleInfo:
        """Description of its bundle."""
        ...

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict images (n, height, width, bands) of raw digital numbers, of any height and width from 1 on."""
        ...


@runtime_checkable
class SizingModel(SceneModel, Protocol):
    """Model that chooses its window size itself, because it needs other memory than TensorFlow or has one size."""

    def choose_window(self, height: int, width: int, memory: int, multiple: int) -> tuple[int, int]:
        """Return rows and columns of a window; arguments as in `lim_keras.bundle.window_size.choose_window`."""
        ...


@runtime_checkable
class RemoteModel(SizingModel, Protocol):
    """Model on another machine; `predict_all` may be called from threads."""

    @property
    def in_flight(self) -> int:
        """Number of calls of `predict_all` that may run at a time."""
        ...


def checked_images(images: Any, bands: int) -> NDArray[Any]:
    """Return images as an array (n, height, width, bands).

    Raises:
        DataError: another number of dimensions or bands, or no pixels.
    """
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] != bands or 0 in array.shape:
        raise DataError(
            f"Invalid value for argument `images`. Expected shape (n, height, width, {bands}), none of them 0. "
            f"Received: {array.shape}"
        )
    return array


def checked_answers(
    answers: Mapping[str, NDArray[Any]], shape: tuple[int, ...], folds: int, source: str
) -> dict[str, NDArray[Any]]:
    """Check a model's outputs and drop their last axis.

    Args:
        answers: outputs by name, each (n, height, width, 1).
        shape: (n, height, width) of the images.
        folds: of the model, the largest number of votes.
        source: what answered, for the message.

    Raises:
        BundleError: an output has another shape, or values that are not finite or out of range.
    """
    for name, values in answers.items():
        if values.shape != (*shape, 1):
            raise BundleError(f"{source}: expected output `{name}` of shape {(*shape, 1)}. Received: {values.shape}")
        largest = folds if name == VOTES else 1
        if not (values.min() >= -_ROUNDING and values.max() <= largest + _ROUNDING):  # NaN is neither
            raise BundleError(
                f"{source}: expected output `{name}` within 0..{largest}. Received: {values.min()}.."
                f"{values.max()}. The model is not trained, or the images hold values that are not finite."
            )
    return {name: values[..., 0] for name, values in answers.items()}


SIGNATURE = "serving_default"
"""image (n, height, width, bands) float32 -> outputs."""

ENCODED = "encoded"
"""image_bytes (n,) string, contents of PNG or JPEG files -> the same outputs."""

IMAGE_BYTES = "image_bytes"
"""Input of `encoded`; an object {"b64": "..."} in JSON."""


def takes_encoded_images(bands: int, dtype: str) -> bool:
    """Return whether PNG and JPEG files can hold the images, so that a model has the signature `encoded`."""
    return dtype == "uint8" and bands in (1, 3, 4)


def signature_names(bands: int, dtype: str) -> list[str]:
    """List the signatures of a model."""
    return [SIGNATURE, ENCODED] if takes_encoded_images(bands, dtype) else [SIGNATURE]


def signature_differences(model: Any, name: str, bands: int, ensemble: bool) -> list[str]:
    """Compare a signature of a loaded SavedModel with that of an export.

    Args:
        model: loaded SavedModel.
        name: of the signature.
        bands: of its images.
        ensemble: whether it has the outputs of an ensemble.

    Returns:
        One line for inputs and one for outputs, if they differ.
    """
    if name not in model.signatures:
        return [f"expected the signature {name}. Received: {sorted(model.signatures)}"]
    image, map_of = (None, None, None, bands), (None, None, None, 1)
    inputs = {IMAGE_BYTES: ((None,), "string")} if name == ENCODED else {"image": (image, "float32")}
    outputs = {"probability": (map_of, "float32")}
    if ensemble:
        outputs |= {"spread": (map_of, "float32"), "votes": (map_of, "int32")}
    signature = model.signatures[name]
    received = _specs(signature.structured_input_signature[1]), _specs(signature.structured_outputs)
    return [
        f"{name}: expected {kind} {wanted}. Received: {came}"
        for kind, wanted, came in zip(("inputs", "outputs"), (inputs, outputs), received, strict=True)
        if wanted != came
    ]


def _specs(tensors: dict[str, Any]) -> dict[str, tuple[tuple[int | None, ...], str]]:
    return {
        name: (tuple(spec.shape) if spec.shape.rank is not None else (), spec.dtype.name)
        for name, spec in sorted(tensors.items())
    }
