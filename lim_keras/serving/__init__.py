"""Client of TensorFlow Serving: predict scenes with a model on a server, over REST or gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import INFO_FILE, BundleInfo
from lim_keras.bundle.protocol import (
    PROBABILITY,
    SPREAD,
    VOTES,
    EnsemblePrediction,
    checked_answers,
    checked_images,
)
from lim_keras.bundle.window_size import choose_window, smallest_window
from lim_keras.errors import BundleError, ConfigError, ServerError
from lim_keras.serving import transport
from lim_keras.serving.grpc import GrpcTransport
from lim_keras.serving.rest import RestTransport
from lim_keras.serving.transport import MEBIBYTE, RetryPolicy, ServedSignature, ServerAddress, ServerOptions, printable

__all__ = ["RetryPolicy", "ServerAddress", "ServerModel", "ServerOptions", "connect"]

_ENVELOPE_BYTES = 4096  # upper bound of the part of a message that is not pixels
_RUNTIME_BYTES = 400e6  # memory of Python and the geographic libraries


@dataclass(frozen=True)
class ServerModel(AbstractContextManager["ServerModel"]):
    """Model on a server with at most `in_flight` simultaneous requests; a context manager. `connect` creates it."""

    info: BundleInfo
    transport: RestTransport | GrpcTransport
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    in_flight: int = 4
    runtime: ClassVar[str] = "server"

    def __exit__(self, *error: object) -> None:
        self.transport.close()

    @property
    def window_pixels(self) -> int:
        """Largest number of window pixels that fits into a message."""
        return max(self.transport.limit - _ENVELOPE_BYTES, 0) // self.transport.message_bytes

    def choose_window(self, height: int, width: int, memory: int | None, multiple: int, halo: int) -> tuple[int, int]:
        """Choose rows and columns of windows: one fits into a message, and `in_flight` of them fit into `memory` bytes.

        Without `memory`, the largest size of a message is the only limit.

        Raises:
            ConfigError: the smallest exact window does not fit; the error says which limit is needed.
        """
        smallest = smallest_window(halo, height, width, multiple)
        self._check_pixels(smallest, f"windows that leave a core between two halos of {halo} px")
        # Each request in progress holds its message, a copy of it, and the answer.
        each = self.transport.decoding_bytes + (self.in_flight + 1) * 3 * self.transport.message_bytes
        pixels = np.inf if memory is None else (memory - _RUNTIME_BYTES) / each
        if memory is not None and pixels < smallest:
            needed = int(np.ceil((smallest * each + _RUNTIME_BYTES) / MEBIBYTE))
            raise ConfigError(
                f"Expected at least {needed} MiB of memory for {self.in_flight} windows under way. Received: "
                f"{memory / MEBIBYTE:.0f} MiB. Raise `memory`, or lower `in_flight`."
            )
        return choose_window([(height, width)], pixels=min(pixels, self.window_pixels), halo=halo, multiple=multiple)

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict the probability (n, height, width) of images; errors as in `predict_all`."""
        return self.predict_all(images).probability

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict images (n, height, width, bands) in one request, with retries.

        Raises:
            DataError: `images` has the wrong number of dimensions or bands, or no pixels.
            ConfigError: the images do not fit into a message.
            ServerError: the server does not answer, refuses, or its answer is not a prediction.
        """
        array = checked_images(images, self.info.bands)
        count, height, width, _ = array.shape
        self._check_pixels(count * height * width, f"{count} windows of {height} x {width} px")
        outputs = self.retry.call(lambda: self.transport.predict(array))
        try:
            return _prediction(outputs, array.shape[:3], self.info)
        except BundleError as error:
            raise ServerError(f"{self.transport.address}: {error}") from error

    def _check_pixels(self, pixels: int, what: str) -> None:
        if pixels > self.window_pixels:
            needed = int(np.ceil(10 * (pixels * self.transport.message_bytes + _ENVELOPE_BYTES) / MEBIBYTE)) / 10
            hint = "" if self.transport.address.is_grpc else ", or use gRPC, which needs far less"
            raise ConfigError(
                f"Expected a message size of at least {needed:g} MiB for {what}. Received: "
                f"{self.transport.limit / MEBIBYTE:g} MiB. Set `request_mb` to {needed:g}{hint}."
            )


def connect(bundle: str | os.PathLike[str], server: str, *, options: ServerOptions | None = None) -> ServerModel:
    """Connect to a bundle's model on a server.

    All later requests go to the version that answers here, so that a new version cannot change half of a scene.

    Args:
        bundle: folder of the bundle, or its model.json; nothing else of it is read.
        server: address such as http://host:8501/v1/models/NAME or grpc://host:8500/NAME, see `ServerAddress`.
        options: limits of requests.

    Raises:
        BundleError: model.json is missing or damaged, the server has no such model, or the server's model has other
            bands or outputs.
        ServerError: the address is invalid, the server cannot be reached, or gRPC is not installed.
    """
    path, address, options = Path(bundle), ServerAddress.parse(server), options or ServerOptions()
    if path.is_file() and path.name != INFO_FILE:
        raise BundleError(f"{path}: expected the folder of a bundle, or its {INFO_FILE}, for a model on a server.")
    info, retry = BundleInfo.read(path.parent if path.is_file() else path), RetryPolicy(options.retries)
    opened = (GrpcTransport if address.is_grpc else RestTransport)(address, info, options)
    try:
        served = retry.call(opened.describe)
    except transport.RefusedError as error:
        raise BundleError(f"{error} Expected the model of {info.name}; check name, version and label.") from error
    _check_signature(served, info, address)
    if served.version is not None:
        opened.address = replace(address, version=served.version, label=None)
    return ServerModel(info, opened, retry, options.in_flight)


def _output_names(info: BundleInfo) -> tuple[str, ...]:
    return (PROBABILITY, SPREAD, VOTES) if info.folds > 1 else (PROBABILITY,)


def _check_signature(served: ServedSignature, info: BundleInfo, address: ServerAddress) -> None:
    """Raise BundleError if an input or output of the served signature differs from the bundle."""
    image, names = transport.tensor_text("DT_FLOAT", (-1, -1, -1, info.bands)), _output_names(info)
    if served.inputs.get(transport.INPUT) != image or not set(names) <= set(served.outputs):
        raise BundleError(
            f"{address}: expected the model of {info.name}: {transport.INPUT} {image} to {', '.join(names)}. Received: "
            f"{printable(f'{served.inputs} to {served.outputs}')}. Serve the bundle's "
            f"{'ensemble' if info.folds > 1 else 'model'}, or give the bundle of the model that is served."
        )


def _prediction(outputs: Mapping[str, NDArray[Any]], shape: tuple[int, ...], info: BundleInfo) -> EnsemblePrediction:
    """Convert checked outputs (n, height, width, 1) to a prediction; the threshold gives the vote of a single model."""
    names = _output_names(info)
    if not set(names) <= set(outputs) or (VOTES in names and outputs[VOTES].dtype.kind == "f"):
        received = printable({name: values.dtype.name for name, values in outputs.items()})
        raise BundleError(f"expected the outputs {', '.join(names)}, votes as integers. Received: {received}.")
    named = checked_answers({name: outputs[name] for name in names}, shape, info.folds, "the answer")
    probability = named[PROBABILITY].astype(np.float32)
    if info.folds > 1:
        return EnsemblePrediction(probability, named[SPREAD].astype(np.float32), named[VOTES].astype(np.int32))
    votes = (probability >= np.float32(info.threshold)).astype(np.int32)
    return EnsemblePrediction(probability, np.zeros_like(probability), votes)
