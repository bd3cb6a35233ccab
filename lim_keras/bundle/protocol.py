"""Model protocol for scenes, model outputs, and SavedModel signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import BundleError, DataError

PROBABILITY, SPREAD, VOTES = "probability", "spread", "votes"
"""Names of an exported model's outputs; of one model, the first alone."""

Predict = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
"""Raw pixels (n, height, width, bands) to the probability of landslide (n, height, width), 0..1."""

_ROUNDING = 1e-5


class EnsemblePrediction(NamedTuple):
    """What the folds say of images, each (n, height, width).

    probability: float32, 0..1, mean over the folds. spread: float32, their standard deviation. votes: int32, folds that
    reach the threshold. Of a single model, spread is 0 and votes are 0 or 1.
    """

    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    votes: NDArray[np.int32]


class SceneModel(Protocol):
    """A model that scenes can be predicted with, such as `lim_keras.bundle.saved_model.Bundle`."""

    @property
    def info(self) -> BundleInfo:
        """What its bundle says of it."""
        ...

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Images (n, height, width, bands) of raw numbers, of any height and width from 1 on."""
        ...


@runtime_checkable
class SizingModel(SceneModel, Protocol):
    """A model that bounds its windows itself, as it takes other memory than TensorFlow's or only one size."""

    def choose_window(self, height: int, width: int, memory: int, multiple: int) -> tuple[int, int]:
        """Rows and columns of a window; arguments as in `lim_keras.bundle.window_size.choose_window`."""
        ...


@runtime_checkable
class RemoteModel(SizingModel, Protocol):
    """A model that computes elsewhere: `predict_all` may be called from threads."""

    @property
    def in_flight(self) -> int:
        """How many calls of `predict_all` may be under way at a time."""
        ...


def checked_images(images: Any, bands: int) -> NDArray[Any]:
    """Images (n, height, width, bands) as an array.

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


def is_possible(name: str, values: NDArray[Any], folds: int) -> bool:
    """Whether all numbers of an output are finite and what a model of so many folds can say.

    name: PROBABILITY, SPREAD, VOTES, or each fold's probability. values: not empty.
    """
    return bool(values.min() >= -_ROUNDING and values.max() <= highest(name, folds) + _ROUNDING)  # NaN is neither


def highest(name: str, folds: int) -> int:
    """The largest number that an output can hold."""
    return folds if name == VOTES else 1


def checked_answers(
    answers: Mapping[str, NDArray[Any]], shape: tuple[int, ...], folds: int, source: str
) -> dict[str, NDArray[Any]]:
    """A model's outputs without their last axis, once they are known to be what a model of ours can say.

    Args:
        answers: by name, each (n, height, width, 1).
        shape: (n, height, width) of the images.
        folds: of the model, the most votes there are.
        source: what answered, for the message.

    Raises:
        BundleError: another shape, or numbers that are not finite or beyond 0..1, votes beyond 0..folds.
    """
    for name, values in answers.items():
        if values.shape != (*shape, 1):
            raise BundleError(f"{source}: expected output `{name}` of shape {(*shape, 1)}. Received: {values.shape}")
        if not is_possible(name, values, folds):
            raise BundleError(
                f"{source}: expected output `{name}` within 0..{highest(name, folds)}. Received: {values.min()}.."
                f"{values.max()}. These are not the weights of a trained model, or the images hold numbers that are "
                "not finite."
            )
    return {name: values[..., 0] for name, values in answers.items()}


SIGNATURE = "serving_default"
"""image (n, height, width, bands) float32 -> outputs."""

ENCODED = "encoded"
"""image_bytes (n,) string, PNG or JPEG files -> the same outputs."""

IMAGE_BYTES = "image_bytes"
"""The input of `encoded`; an object {"b64": "..."} in JSON."""


def takes_encoded_images(bands: int, dtype: str) -> bool:
    """Whether PNG and JPEG files can hold a model's images, which then has the signature `encoded`."""
    return dtype == "uint8" and bands in (1, 3, 4)


def signature_names(bands: int, dtype: str) -> list[str]:
    """The signatures of a model of such images."""
    return [SIGNATURE, ENCODED] if takes_encoded_images(bands, dtype) else [SIGNATURE]


def signature_differences(model: Any, name: str, bands: int, ensemble: bool) -> list[str]:
    """How a signature of a loaded SavedModel differs from what an export of ours has: a line each for inputs, outputs.

    Args:
        model: what `tf.saved_model.load` gave. name: of the signature.
        bands: of its images. ensemble: whether it answers for several folds.
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
