"""A model behind TensorFlow Serving's gRPC API. Its messages need tensorflow-serving-api, which imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import PROBABILITY, SPREAD, VOTES
from lim_keras.errors import ServerError
from lim_keras.inference.server_address import ServerAddress
from lim_keras.inference.server_transport import INPUT, RefusedError, Served, Sizes, Tensor, UnavailableError, shown

_SIGNATURE = "serving_default"
_BUSY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_REFUSED = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
_TOO_LARGE = "larger than max"
"""What gRPC says, with RESOURCE_EXHAUSTED, of a message beyond a limit; that does not pass by waiting."""

_NUMBERS = {
    "DT_FLOAT": ("<f4", "float_val"),
    "DT_DOUBLE": ("<f8", "double_val"),
    "DT_INT32": ("<i4", "int_val"),
    "DT_INT64": ("<i8", "int64_val"),
}
"""By data type: NumPy's name of it in `tensor_content`, and the field that may hold the numbers instead."""


class GrpcTransport:
    """Requests to one model over one gRPC channel.

    Args:
        address: of the model.
        limit: bytes of a message; gRPC's own default for answers is 4 MiB.
        timeout_s: seconds that a request may take to be answered.

    Raises:
        ServerError: tensorflow-serving-api is not installed.
    """

    def __init__(self, address: ServerAddress, *, limit: int, timeout_s: float) -> None:
        try:
            self._grpc = import_module("grpc")
            self._decode_error = import_module("google.protobuf.message").DecodeError
            self._types = import_module("tensorflow.core.framework.types_pb2")
            self._predict = import_module("tensorflow_serving.apis.predict_pb2")
            self._metadata = import_module("tensorflow_serving.apis.get_model_metadata_pb2")
            service = import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")
        except ImportError as error:
            raise ServerError(
                f"{address}: gRPC needs a package that is missing ({error}). Install it with "
                "`pip install 'lim-keras[serving]'`, or use the server's REST address."
            ) from error
        self._address, self._timeout_s = address, timeout_s
        options = {
            "grpc.max_send_message_length": limit,
            "grpc.max_receive_message_length": limit,
            # How often to ask again, and when, is decided in one place for both protocols.
            "grpc.enable_retries": 0,
            "grpc.initial_reconnect_backoff_ms": 200,
            "grpc.max_reconnect_backoff_ms": 1000,
            "grpc.enable_http_proxy": 0,
        }
        self._channel = self._grpc.insecure_channel(address.host, options=list(options.items()))
        self._stub = service.PredictionServiceStub(self._channel)

    def describe(self) -> Served:
        """GetModelMetadata."""
        request = self._metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill_spec(request.model_spec)
        answer = self._ask(self._stub.GetModelMetadata, request)
        signatures = self._metadata.SignatureDefMap()
        try:
            answer.metadata["signature_def"].Unpack(signatures)
        except self._decode_error as error:
            raise ServerError(
                f"{self._address}: expected the description of a model with the signature {_SIGNATURE}. Received one "
                f"that cannot be read ({shown(error)})."
            ) from error
        if _SIGNATURE not in signatures.signature_def:
            raise ServerError(
                f"{self._address}: expected the description of a model with the signature {_SIGNATURE}. Received: "
                f"{shown(sorted(signatures.signature_def))}"
            )
        signature = signatures.signature_def[_SIGNATURE]
        version = answer.model_spec.version.value if answer.model_spec.HasField("version") else None
        return Served(version, self._tensors(signature.inputs), self._tensors(signature.outputs))

    def predict(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Predict."""
        request = self._predict.PredictRequest()
        self._fill_spec(request.model_spec)
        request.model_spec.signature_name = _SIGNATURE
        tensor = request.inputs[INPUT]
        tensor.dtype = self._types.DT_FLOAT
        for size in images.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = np.ascontiguousarray(images, "<f4").tobytes()
        answer = self._ask(self._stub.Predict, request)
        shape = (*images.shape[:3], 1)
        return {
            name: self._array(name, output, shape)
            for name, output in answer.outputs.items()
            if name in (PROBABILITY, SPREAD, VOTES)
        }

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _fill_spec(self, spec: Any) -> None:
        spec.name = self._address.name
        if self._address.version is not None:
            spec.version.value = self._address.version
        elif self._address.label is not None:
            spec.version_label = self._address.label

    def _ask(self, call: Any, request: Any) -> Any:
        try:
            return call(request, timeout=self._timeout_s)
        except self._grpc.RpcError as error:
            raise _error(self._address, error.code().name, error.details() or "nothing") from error

    def _array(self, name: str, output: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """An output's numbers; nothing is set aside for them before they are known to be as many as were asked for."""
        tensor, count = self._tensor(output), int(np.prod(shape))
        kind, field = _NUMBERS.get(tensor.dtype, ("<f4", "float_val"))
        content, values = output.tensor_content, getattr(output, field)
        held = len(content) / np.dtype(kind).itemsize if content else len(values)
        if tensor.dtype not in _NUMBERS or tensor.shape != shape or held != count:
            raise ServerError(
                f"{self._address}: expected `{name}` of shape {shape} with {count} numbers. Received: "
                f"{shown(tensor)} with {held:.12g}"
            )
        return (np.frombuffer(content, kind) if content else np.fromiter(values, kind, count)).reshape(shape)

    def _tensors(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: self._tensor(one) for name, one in content.items()}

    def _tensor(self, one: Any) -> Tensor:
        """What a TensorInfo or a TensorProto declares."""
        known = one.dtype in self._types.DataType.values()
        return Tensor(
            self._types.DataType.Name(one.dtype) if known else f"data type {one.dtype}",
            None if one.tensor_shape.unknown_rank else tuple(axis.size for axis in one.tensor_shape.dim),
        )


def grpc_sizes(bands: int, outputs: int) -> Sizes:
    """What a window takes whose bands and outputs are 4 bytes each."""
    message = 4 * max(bands, outputs)
    return Sizes(message, 2 * message, 3 * message)


def _error(address: ServerAddress, code: str, details: str) -> ServerError:
    """What a status other than OK means, with the server's own words."""
    text = f"{address}: the server answers {code}: {shown(details)}"
    if _TOO_LARGE in details:
        return ServerError(f"{text} Messages of --request-mb do not fit: raise it, or lower it below the server's.")
    if code in _BUSY:
        return UnavailableError(text)
    return RefusedError(text) if code in _REFUSED else ServerError(text)
