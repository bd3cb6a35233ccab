"""gRPC transport for TensorFlow Serving. It needs the package tensorflow-serving-api, which imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import PROBABILITY, SPREAD, VOTES
from lim_keras.errors import ServerError
from lim_keras.serving import transport
from lim_keras.serving.transport import ServedSignature, ServerAddress, ServerOptions, printable

# For each data type: NumPy type of the bytes in `tensor_content`, and the field that may hold the numbers instead.
_NUMBERS = {"DT_FLOAT": ("<f4", "float_val"), "DT_INT32": ("<i4", "int_val"), "DT_INT64": ("<i8", "int64_val")}


class GrpcTransport:
    """Requests to one model over one gRPC channel. Each call is one attempt; threads may share the transport."""

    def __init__(self, address: ServerAddress, info: BundleInfo, options: ServerOptions) -> None:
        self.address, self.limit, self._timeout_s = address, options.message_limit(address), options.timeout_s
        self.message_bytes = 4 * max(info.bands, 1 if info.folds == 1 else 3)
        self.decoding_bytes = 2 * self.message_bytes
        try:
            self._grpc = import_module("grpc")
            self._decode_error = import_module("google.protobuf.message").DecodeError
            self._tensorflow = import_module("tensorflow")
            self._types = import_module("tensorflow.core.framework.types_pb2")
            self._predict = import_module("tensorflow_serving.apis.predict_pb2")
            self._metadata = import_module("tensorflow_serving.apis.get_model_metadata_pb2")
            service = import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")
        except ImportError as error:
            raise ServerError(
                f"{address}: gRPC needs a package that is missing ({error}). Install it with "
                "`pip install 'lim-keras[serving]'`, or use the server's REST address."
            ) from error
        settings = {
            "grpc.max_send_message_length": self.limit,
            "grpc.max_receive_message_length": self.limit,  # gRPC's default is 4 MiB
            "grpc.enable_retries": 0,  # RetryPolicy retries, for both protocols
            "grpc.initial_reconnect_backoff_ms": 200,
            "grpc.max_reconnect_backoff_ms": 1000,
            "grpc.enable_http_proxy": 0,
        }
        self._channel = self._grpc.insecure_channel(address.base.removeprefix("grpc://"), list(settings.items()))
        self._stub = service.PredictionServiceStub(self._channel)

    def describe(self) -> ServedSignature:
        """Request the model's signature (GetModelMetadata)."""
        request = self._metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        answer = self._request(self._stub.GetModelMetadata, request)
        signatures = self._metadata.SignatureDefMap()
        try:
            answer.metadata["signature_def"].Unpack(signatures)
            signature = dict(signatures.signature_def)[transport.SIGNATURE]
        except (self._decode_error, KeyError) as error:
            expected = f"{self.address}: expected {transport.DESCRIPTION}"
            raise ServerError(f"{expected}. Received: {printable(repr(error))}.") from error
        version = answer.model_spec.version.value if answer.model_spec.HasField("version") else None
        inputs, outputs = ({k: self._tensor(v) for k, v in s.items()} for s in (signature.inputs, signature.outputs))
        return ServedSignature(version, inputs, outputs)

    def predict(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Request the outputs, by name, for images (n, height, width, bands) from the method Predict."""
        request = self._predict.PredictRequest()
        request.model_spec.signature_name = transport.SIGNATURE
        request.inputs[transport.INPUT].CopyFrom(self._tensorflow.make_tensor_proto(images, "float32"))
        outputs, shape = self._request(self._stub.Predict, request).outputs, (*images.shape[:3], 1)
        names = [name for name in (PROBABILITY, SPREAD, VOTES) if name in outputs]
        return {name: self._array(name, outputs[name], shape) for name in names}

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _request(self, call: Any, request: Any) -> Any:
        request.model_spec.name = self.address.name
        if self.address.version is not None:
            request.model_spec.version.value = self.address.version
        elif self.address.label is not None:
            request.model_spec.version_label = self.address.label
        try:
            return call(request, timeout=self._timeout_s)
        except self._grpc.RpcError as error:
            raise transport.status_error(self.address, error.code().name, error.details() or "") from error

    def _array(self, name: str, output: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Read an output's numbers; check their count before memory is allocated."""
        tensor, count = self._tensor(output), int(np.prod(shape))
        kind, field = _NUMBERS.get(tensor.split(" ")[0], ("<f4", "float_val"))
        content, values = output.tensor_content, getattr(output, field)
        held = len(content) / np.dtype(kind).itemsize if content else len(values)
        if tensor not in [transport.tensor_text(dtype, shape) for dtype in _NUMBERS] or held != count:
            expected = f"expected output `{name}` of shape {shape} with {count} numbers"
            raise ServerError(f"{self.address}: {expected}. Received: {printable(tensor)} with {held:.12g}")
        return (np.frombuffer(content, kind) if content else np.fromiter(values, kind, count)).reshape(shape)

    def _tensor(self, one: Any) -> str:
        """Return the declared type and shape of a TensorInfo or TensorProto as text."""
        types, shape = self._types.DataType, one.tensor_shape
        dtype = types.Name(one.dtype) if one.dtype in types.values() else f"data type {one.dtype}"
        return transport.tensor_text(dtype, None if shape.unknown_rank else [axis.size for axis in shape.dim])
