"""Protocols of scene models, checks of images and outputs, and SavedModel signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import BundleError, DataError

TENSORFLOW = "tensorflow"
"""Name of the runtime that trained the networks."""

PROBABILITY, SPREAD, VOTES = "probability", "spread", "votes"
"""Output names of an exported model; a model of a single fold has only the first."""

Predict = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
"""Function from raw pixels (n, height, width, bands) to landslide probability (n, height, width), 0..1."""

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


class DescribedModel(Protocol):
    """Model, loaded or not, of which the description is known."""

    @property
    def info(self) -> BundleInfo:
        """Description of its bundle."""
        ...


class SceneModel(DescribedModel, Protocol):
    """Model for the prediction of scenes, such as `lim_keras.bundle.saved_model.Bundle`."""

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict images (n, height, width, bands) of raw digital numbers; height and width are at least 1."""
        ...


def runtime_of(model: DescribedModel) -> str:
    """Return the name of the library that computes, such as "tensorflow"; "" for models of other programs.

    The results of two runtimes differ in their last digits.
    """
    return str(getattr(model, "runtime", ""))


def release_maps(model: SceneModel) -> None:
    """Let a model free the memory of its feature maps, if it can."""
    release = getattr(model, "release", None)
    if release is not None:
        release()


@runtime_checkable
class RemoteModel(SceneModel, Protocol):
    """Model on another machine; several threads may call `predict_all` at the same time."""

    @property
    def in_flight(self) -> int:
        """Largest number of concurrent calls of `predict_all`."""
        ...

    def choose_window(self, height: int, width: int, memory: int | None, multiple: int, halo: int) -> tuple[int, int]:
        """Return rows and columns of a window that fits into a request and, with all under way, into `memory` bytes."""
        ...


def checked_images(images: Any, bands: int) -> NDArray[Any]:
    """Return images as an array; raise DataError if its shape is not (n, height, width, bands) or contains 0."""
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
    """Check a model's outputs (n, height, width, 1) by name, and drop their last axis.

    `shape`: (n, height, width) of the images. `folds`: largest valid number of votes. `source`: name of the model in
    errors.

    Raises:
        BundleError: an output has the wrong shape, or values that are out of range or not finite.
    """
    for name, values in answers.items():
        if values.shape != (*shape, 1):
            raise BundleError(f"{source}: expected output `{name}` of shape {(*shape, 1)}. Received: {values.shape}")
        largest = folds if name == VOTES else 1
        if not (values.min() >= -_ROUNDING and values.max() <= largest + _ROUNDING):  # False for NaN
            raise BundleError(
                f"{source}: expected output `{name}` within 0..{largest}. Received: {values.min()}.."
                f"{values.max()}. The model is not trained, or the images hold values that are not finite."
            )
    return {name: values[..., 0] for name, values in answers.items()}


SIGNATURE = "serving_default"  # image (n, height, width, bands) float32 -> outputs
ENCODED = "encoded"  # image_bytes (n,) string, contents of PNG or JPEG files -> the same outputs
IMAGE_BYTES = "image_bytes"  # input of `encoded`; an object {"b64": "..."} in JSON


def takes_encoded_images(bands: int, dtype: str) -> bool:
    """Return whether PNG or JPEG files can hold the images; only then a model has the signature `encoded`."""
    return dtype == "uint8" and bands in (1, 3, 4)


def signature_names(bands: int, dtype: str) -> list[str]:
    """List the signatures of a model."""
    return [SIGNATURE, ENCODED] if takes_encoded_images(bands, dtype) else [SIGNATURE]


def signature_differences(model: Any, name: str, bands: int, ensemble: bool) -> list[str]:
    """Compare a signature of a loaded SavedModel with the signature that an export writes.

    Returns one line for each difference, in inputs or in outputs. Ensembles also have the outputs spread and votes.
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
