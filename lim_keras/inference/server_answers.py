"""What a model server says, compared with what the bundle says: the model's signature, and each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import PROBABILITY, SPREAD, VOTES, EnsemblePrediction, highest, is_possible
from lim_keras.errors import BundleError, ServerError
from lim_keras.inference.server_address import ServerAddress
from lim_keras.inference.server_transport import INPUT, Served, shown


def expected_outputs(info: BundleInfo) -> tuple[str, ...]:
    """Names of the outputs that a bundle's exported model has."""
    return (PROBABILITY, SPREAD, VOTES) if info.folds > 1 else (PROBABILITY,)


def check_served(served: Served, info: BundleInfo, address: ServerAddress) -> None:
    """Compare what is served with what the bundle says.

    Raises:
        BundleError: another input, another number of bands, or an output is missing.
    """
    image = served.inputs.get(INPUT)
    shape = None if image is None else image.shape
    fits = shape is not None and len(shape) == 4 and shape[-1] == info.bands and set(shape[:3]) == {-1}
    if image is None or image.dtype != "DT_FLOAT" or not fits:
        raise BundleError(
            f"{address}: expected a model for images of {info.bands} bands and any size, as {info.name} is: "
            f"`{INPUT}`, DT_FLOAT (-1, -1, -1, {info.bands}). Received: {_listed(served.inputs)}. Serve that bundle's "
            "model, or give the bundle of the model that is served."
        )
    missing = [name for name in expected_outputs(info) if name not in served.outputs]
    if missing:
        which = "ensemble" if info.folds > 1 else "model"
        raise BundleError(
            f"{address}: expected the outputs {', '.join(expected_outputs(info))} of {info.name}. Received: "
            f"{_listed(served.outputs)}. Serve the bundle's {which}."
        )


def _listed(tensors: Mapping[str, Any]) -> str:
    return shown(", ".join(f"`{name}` {tensor}" for name, tensor in sorted(tensors.items()))) or "none"


def prediction(outputs: Mapping[str, NDArray[Any]], shape: tuple[int, ...], info: BundleInfo) -> EnsemblePrediction:
    """What a server's numbers say, once they are checked.

    Args:
        outputs: by name, each (n, height, width, 1).
        shape: (n, height, width) of the images.
        info: of the bundle; a single model's votes follow from its threshold.

    Raises:
        ServerError: an output is missing, of another shape, not finite, or beyond what it may be.
    """
    named = {name: _checked(outputs, name, shape, info) for name in expected_outputs(info)}
    probability = named[PROBABILITY].astype(np.float32)
    if info.folds > 1:
        return EnsemblePrediction(probability, named[SPREAD].astype(np.float32), named[VOTES].astype(np.int32))
    votes = (probability >= np.float32(info.threshold)).astype(np.int32)
    return EnsemblePrediction(probability, np.zeros_like(probability), votes)


def _checked(outputs: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], info: BundleInfo) -> NDArray[Any]:
    """An output (n, height, width) without its last axis; errors as in `prediction`."""
    values = outputs.get(name)
    if values is None or values.shape != (*shape, 1) or values.dtype.kind not in ("iu" if name == VOTES else "iuf"):
        came = shown(sorted(outputs) if values is None else f"{values.dtype} {values.shape}")
        raise ServerError(f"The server answers without `{name}` of shape {(*shape, 1)}. Received: {came}")
    if not is_possible(name, values, info.folds):
        raise ServerError(
            f"The server answers with `{name}` beyond 0..{highest(name, info.folds)}. Received: {values.min()}.."
            f"{values.max()}. Is it the bundle's model?"
        )
    return values[..., 0]
