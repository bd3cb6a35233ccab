"""A model on a server as a model for scenes: TensorFlow Serving's REST or gRPC API behind `RemoteModel`.

Of the bundle only model.json is read here: bands, data type, threshold, halo. The numbers come from the server, whose
model is first compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import INFO_FILE, BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction, checked_images
from lim_keras.bundle.window_size import shape_tile, smallest_window
from lim_keras.errors import BundleError, DataError
from lim_keras.inference.server_address import ServerAddress
from lim_keras.inference.server_answers import check_served, expected_outputs, prediction
from lim_keras.inference.server_json import JsonFormat, output_digits
from lim_keras.inference.server_transport import MEBIBYTE, RefusedError, RetryPolicy, Sizes, Transport

REST_MB, GRPC_MB = 32.0, 64.0
"""Size of a message if nothing else is said, MiB."""

_MOST_MB = 2047
"""A message of gRPC's is below 2 GiB."""

_LONGEST_S = 1e6
"""A clock takes no more than some thousand times that."""

_ENVELOPE = 4096
"""Bytes of a message that are not pixels, at most."""

_GRID = 64
"""Windows count as if their sides were rounded up to this many pixels."""

_RUNTIME_BYTES = 400e6
"""What Python and the geographic libraries take before the first window."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server is asked.

    Args:
        request_mb: MiB that a request or an answer may take, 2047 at most; None: 32 for REST, 64 for gRPC.
        retries: how often a server that is away or busy is asked again.
        timeout_s: seconds that a request may take until its answer is there as a whole, a million at most.
        in_flight: requests at a time.
        rest_format: of REST requests and answers, see `lim_keras.inference.server_json`.
    """

    request_mb: float | None = None
    retries: int = 5
    timeout_s: float = 120.0
    in_flight: int = 4
    rest_format: JsonFormat = "row"

    def __post_init__(self) -> None:
        least = {"request_mb": 0.01, "retries": 0, "timeout_s": 0.001, "in_flight": 1}
        most = {"request_mb": _MOST_MB, "timeout_s": _LONGEST_S}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and not value <= given < float("inf"):
                raise DataError(f"Invalid value for `{name}`. Expected a number >= {value}. Received: {given}")
            if given is not None and given > most.get(name, given):
                raise DataError(f"Invalid value for `{name}`. Expected a number <= {most[name]:g}. Received: {given}")


@dataclass(frozen=True)
class ServerModel:
    """A served model as `RemoteModel`; `connect` makes it.

    Args:
        info: what its bundle says of it.
        transport: asks the server.
        sizes: what a window takes.
        limit: bytes of a message.
        patience: with a server that is away or busy.
        in_flight: requests at a time.
        hint: for an error: what else than a larger limit would do.
    """

    info: BundleInfo
    transport: Transport
    sizes: Sizes
    limit: int
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    in_flight: int = 4
    hint: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.close()

    @property
    def window_pixels(self) -> int:
        """Pixels of a window that fit into a message."""
        return max(self.limit - _ENVELOPE, 0) // self.sizes.message

    def choose_tile(self, height: int, width: int, memory: int, multiple: int) -> tuple[int, int]:
        """Rows and columns of a window that fits into a message, and `in_flight` of them into so much memory.

        Raises:
            DataError: the smallest exact window does not fit; the message says what would do.
        """
        smallest = smallest_window(self.info.halo, height, width, multiple)
        self._check_pixels(smallest, f"windows that leave a core between two halos of {self.info.halo} px")
        each = self.sizes.answering + (self.in_flight + 1) * self.sizes.waiting
        pixels = (memory - _RUNTIME_BYTES) / each
        if pixels < smallest:
            needed = int(np.ceil((smallest * each + _RUNTIME_BYTES) / MEBIBYTE))
            raise DataError(
                f"Expected at least {needed} MiB of memory for {self.in_flight} windows under way. Received: "
                f"{memory / MEBIBYTE:.0f} MiB. Raise --memory, or lower --in-flight."
            )
        return shape_tile(self.info.halo, height, width, min(pixels, self.window_pixels), multiple)

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Images (n, height, width, bands) in one request, asked again where the server is away or busy.

        Raises:
            DataError: images of another number of dimensions or bands, without pixels, or too many for a message.
            ServerError: the server stays away, refuses, or answers with something else than a prediction.
        """
        array = checked_images(images, self.info.bands)
        count, height, width, _ = array.shape
        pixels = count * (-(-height // _GRID) * _GRID) * (-(-width // _GRID) * _GRID)
        self._check_pixels(pixels, f"a window of {height} x {width} px")
        outputs = self.patience.insist(lambda: self.transport.predict(array))
        return prediction(outputs, array.shape[:3], self.info)

    def _check_pixels(self, pixels: int, what: str) -> None:
        if pixels > self.window_pixels:
            needed = int(np.ceil(10 * (pixels * self.sizes.message + _ENVELOPE) / MEBIBYTE)) / 10
            raise DataError(
                f"Expected a message size of at least {needed:g} MiB for {what}. Received: "
                f"{self.limit / MEBIBYTE:g} MiB. Give --request-mb {needed:g}{self.hint}."
            )


def connect(bundle: Path, server: str, options: ServerOptions | None = None) -> ServerModel:
    """Find the model of a bundle on a server.

    All requests go to the version that answers here, so that a version that is rolled out meanwhile does not give the
    second half of a scene.

    Args:
        bundle: the bundle's folder, or its model.json; nothing else of it is read.
        server: such as http://host:8501/v1/models/NAME or grpc://host:8500/NAME, see `ServerAddress`.
        options: how it is asked.

    Raises:
        BundleError: model.json is missing or damaged, or the server has no such model or one of other bands or outputs.
        ServerError: not an address, the server is away, or gRPC is not installed.
    """
    options = options or ServerOptions()
    info, address = read_info(bundle), ServerAddress.parse(server)
    patience = RetryPolicy(options.retries)
    first = _transport(address, options)
    try:
        served = patience.insist(first.describe)
    except RefusedError as error:
        raise BundleError(f"{error} Expected the model of {info.name} there; check name, version and label.") from error
    finally:
        first.close()
    check_served(served, info, address)
    pinned = address if served.version is None else address.at_version(served.version)
    return _model(info, _transport(pinned, options), pinned, options, patience)


def read_info(bundle: Path) -> BundleInfo:
    """model.json of a bundle's folder, or the file itself.

    Raises:
        BundleError: another file, or it is missing or damaged.
    """
    if bundle.is_file() and bundle.name != INFO_FILE:
        raise BundleError(f"{bundle}: expected the folder of a bundle, or its {INFO_FILE}, for a model on a server.")
    return BundleInfo.read(bundle.parent if bundle.is_file() else bundle)


def _limit(address: ServerAddress, options: ServerOptions) -> int:
    default = GRPC_MB if address.scheme == "grpc" else REST_MB
    return int((options.request_mb or default) * MEBIBYTE)


def _transport(address: ServerAddress, options: ServerOptions) -> Transport:
    limit, timeout_s = _limit(address, options), options.timeout_s
    if address.scheme == "grpc":
        from lim_keras.inference.server_grpc import GrpcTransport

        return GrpcTransport(address, limit=limit, timeout_s=timeout_s)
    from lim_keras.inference.server_rest import RestTransport

    return RestTransport(
        address, form=options.rest_format, limit=limit, timeout_s=timeout_s, connections=options.in_flight
    )


def _model(
    info: BundleInfo, transport: Transport, address: ServerAddress, options: ServerOptions, patience: RetryPolicy
) -> ServerModel:
    names, hint = expected_outputs(info), ""
    if address.scheme == "grpc":
        from lim_keras.inference.server_grpc import grpc_sizes

        sizes = grpc_sizes(info.bands, len(names))
    else:
        from lim_keras.inference.server_rest import rest_sizes

        sizes = rest_sizes(info.dtype, info.bands, output_digits(names, info.folds), options.rest_format)
        hint = ", or use gRPC, which needs far less"
        hint = f" or --rest-format row{hint}" if options.rest_format == "column" else hint
    return ServerModel(info, transport, sizes, _limit(address, options), patience, options.in_flight, hint)
