"""A model server for tests: `tf.saved_model.load`, TensorFlow Serving's published APIs, and faults on demand.

It shares no code with the client. It reads and writes JSON rows as TensorFlow Serving does: floats with the digits that
read back (%g, else %.9g), arrays on one line, the only output of a model without its name, and an integer beyond
2^24 - 1 refused as input of a float.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

Outputs = dict[str, np.ndarray]
_HTTP = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429}
_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict")
_ABOUT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?")


class ServedError(Exception):
    """A gRPC status that both APIs answer with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Faults:
    """Faults of the server. fail: with this status, `times` times. slow_s: pause of a prediction.

    body, status, headers: of REST answers to a prediction. about: the body of REST metadata. message, metadata: change
    the gRPC answer, or the packed description in it.
    """

    fail: str = "UNAVAILABLE"
    times: int = 0
    slow_s: float = 0.0
    spoil: Callable[[Outputs], Outputs] | None = None
    body: bytes | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    about: bytes | None = None
    message: Callable[[Any], None] | None = None
    metadata: Callable[[Any], None] | None = None


@dataclass
class InputScaling:
    """Record of the requests. most: predictions that were under way at a time. versions: that answered."""

    predictions: int = 0
    failures: int = 0
    under_way: int = 0
    most: int = 0
    versions: list[int] = field(default_factory=list)
    largest_request: int = 0
    largest_answer: int = 0


class _Loaded:
    def __init__(self, path: Path) -> None:
        model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        self.signature = model.meta_graphs[0].signature_def["serving_default"]
        self._model = tf.saved_model.load(str(path))

    def __call__(self, inputs: dict[str, np.ndarray]) -> Outputs:
        wanted = {
            name: tuple(axis.size for axis in one.tensor_shape.dim) for name, one in self.signature.inputs.items()
        }
        if set(inputs) != set(wanted):
            raise ServedError("INVALID_ARGUMENT", f"input keys: expected {set(wanted)}, got {set(inputs)}")
        for name, shape in wanted.items():
            given = inputs[name].shape
            if len(given) != len(shape) or any(axis not in (-1, size) for axis, size in zip(shape, given, strict=True)):
                raise ServedError("INVALID_ARGUMENT", f"Incompatible shapes: {list(given)} vs. {list(shape)}")
        outputs = self._model.signatures["serving_default"](**{name: tf.constant(one) for name, one in inputs.items()})
        return {name: output.numpy() for name, output in outputs.items()}


class ModelServer:
    """Models by name and version, on two ports of 127.0.0.1; a context manager.

    Args:
        models: {name: {version: folder of a SavedModel}}. labels: {(name, label): version}.
        message_bytes: limit of a gRPC request; gRPC's own default is 4 MiB.
    """

    def __init__(
        self,
        models: dict[str, dict[int, Path]],
        labels: dict[tuple[str, str], int] | None = None,
        message_bytes: int = 2**30,
    ) -> None:
        self._models = {
            name: {version: _Loaded(path) for version, path in versions.items()} for name, versions in models.items()
        }
        self._labels = labels or {}
        self._lock = threading.Lock()
        self.faults, self.seen = Faults(), InputScaling()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._grpc = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", message_bytes), ("grpc.max_send_message_length", 2**30)],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self), self._grpc)
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> "ModelServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(0).wait()

    def reset(self) -> None:
        self.faults, self.seen = Faults(), InputScaling()

    def rest(self, model: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1/models/{model}"

    def grpc(self, model: str) -> str:
        return f"grpc://127.0.0.1:{self._grpc_port}/{model}"

    def drop(self, name: str, version: int) -> None:
        """Unload a version."""
        del self._models[name][version]

    def find(self, name: str, version: int | None, label: str | None) -> tuple[int, _Loaded]:
        versions = self._models.get(name)
        if not versions:
            raise ServedError("NOT_FOUND", f"Could not find any versions of model {name}")
        if label is not None:
            if (name, label) not in self._labels:
                raise ServedError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self._labels[name, label]
        chosen = max(versions) if version is None else version
        if chosen not in versions:
            raise ServedError("NOT_FOUND", f"Could not find version {chosen} of model {name}")
        return chosen, versions[chosen]

    def signature(self, name: str, version: int | None, label: str | None) -> get_model_metadata_pb2.SignatureDefMap:
        _, loaded = self.find(name, version, label)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signatures.signature_def["serving_default"].CopyFrom(loaded.signature)
        return signatures

    def predict(self, name: str, version: int | None, label: str | None, inputs: dict[str, np.ndarray]) -> Outputs:
        chosen, loaded = self.find(name, version, label)
        with self._counted():
            if self.faults.slow_s:
                time.sleep(self.faults.slow_s)
            with self._lock:
                self.seen.versions.append(chosen)
                fail = self.seen.failures < self.faults.times
                self.seen.failures += fail
            if fail:
                raise ServedError(self.faults.fail, f"the test asks for {self.faults.fail}")
            outputs = loaded(inputs)
            return self.faults.spoil(outputs) if self.faults.spoil else outputs

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.seen.predictions += 1
            self.seen.under_way += 1
            self.seen.most = max(self.seen.most, self.seen.under_way)
        try:
            yield
        finally:
            with self._lock:
                self.seen.under_way -= 1

    def size(self, request: int, answer: int) -> None:
        with self._lock:
            self.seen.largest_request = max(self.seen.largest_request, request)
            self.seen.largest_answer = max(self.seen.largest_answer, answer)


@contextmanager
def dripping(start: bytes, pause_s: float = 0.05, scheme: str = "http") -> Iterator[tuple[str, list[float]]]:
    """A server that answers with `start`, then with a space after each pause, for as long as it is listened to.

    Yields its address, and a list of when it was called.
    """
    calls: list[float] = []
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def drip(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            caller.sendall(start)
            while not over.wait(pause_s):
                caller.sendall(b" ")

    def accept() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listening.accept()
                calls.append(time.monotonic())
                threading.Thread(target=drip, args=(caller,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/v1/models/bright", calls
    finally:
        over.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(lambda: _about(server, self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(lambda: _predict_json(server, self.path, body), len(body))

        def _answer(self, ask: Callable[[], str], asked: int = 0) -> None:
            try:
                status, text = 200, ask()
            except ServedError as error:
                status, text = _HTTP.get(error.code, 500), json.dumps({"error": error.message})
            faults, posted = server.faults, self.command == "POST"
            instead = faults.body if posted else faults.about
            body = text.encode() if instead is None else instead
            server.size(asked, len(body))
            self.send_response(faults.status if posted and faults.status else status)
            for name, value in faults.headers.items() if posted else ():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the client need not read all of it
                self.wfile.write(body)

    return Handler


def _place(pattern: re.Pattern[str], path: str) -> tuple[str, int | None, str | None]:
    match = pattern.fullmatch(path)
    if match is None:
        raise ServedError("INVALID_ARGUMENT", f"Malformed request: {path}")
    return match[1], None if match[2] is None else int(match[2]), match[3]


def _about(server: ModelServer, path: str) -> str:
    place = _place(_ABOUT, path)
    version, _ = server.find(*place)
    if not path.endswith("/metadata"):
        return json.dumps({"model_version_status": [{"version": str(version), "state": "AVAILABLE"}]})
    signature = MessageToDict(
        server.signature(*place), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    spec = {"name": place[0], "signature_name": "", "version": str(version)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": signature}})


def _predict_json(server: ModelServer, path: str, body: bytes) -> str:
    place = _place(_PREDICT, path)
    server.find(*place)
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ServedError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if "instances" not in request:
        raise ServedError("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
    rows = request["instances"]
    return _row_text(server.predict(*place, {name: _tensor([one[name] for one in rows]) for name in rows[0]}))


def _tensor(values: Any) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind == "i" and np.abs(array).max() >= 2**24:
        raise ServedError("INVALID_ARGUMENT", "Cannot convert JSON value to float without loss of precision.")
    return array.astype(np.float32)


def _numbers(values: np.ndarray) -> list[str]:
    """The text of each number, in order."""
    numbers = values.ravel().tolist()
    if values.dtype.kind == "i":
        return [str(number) for number in numbers]
    short = [f"{number:g}" for number in numbers]
    same = np.array(short, np.float64).astype(np.float32) == values.ravel()
    texts = [text if kept else f"{number:.9g}" for text, number, kept in zip(short, numbers, same, strict=True)]
    named = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return [named.get(text, text if "." in text or "e" in text else f"{text}.0") for text in texts]


def _nested(values: np.ndarray) -> str:
    """Lists in lists, on one line."""
    texts = _numbers(values)
    for size in reversed(values.shape):
        texts = ["[" + ", ".join(texts[at : at + size]) + "]" for at in range(0, len(texts), size)]
    return texts[0]


def _row_text(outputs: Outputs) -> str:
    rows = []
    for number in range(len(next(iter(outputs.values())))):
        texts = {name: _nested(values[number]) for name, values in outputs.items()}
        named = ",\n".join(f'            "{name}": {text}' for name, text in texts.items())
        rows.append(f"{{\n{named}\n        }}" if len(texts) > 1 else next(iter(texts.values())))
    return f'{{\n    "predictions": [{", ".join(rows)}\n    ]\n}}'


def _spec(spec: Any) -> tuple[str, int | None, str | None]:
    return spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label or None


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            inputs = {name: tf.make_ndarray(one) for name, one in request.inputs.items()}
            outputs = self._server.predict(*_spec(request.model_spec), inputs)
        except ServedError as error:
            context.abort(grpc.StatusCode[error.code], error.message)
        answer = predict_pb2.PredictResponse()
        for name, values in outputs.items():
            one = answer.outputs[name]
            one.dtype = tf.as_dtype(values.dtype).as_datatype_enum
            one.tensor_shape.CopyFrom(tf.TensorShape(values.shape).as_proto())
            # TensorFlow Serving's default is the typed field, not tensor_content.
            (one.int_val if values.dtype.kind == "i" else one.float_val).extend(values.ravel().tolist())
        if self._server.faults.message:
            self._server.faults.message(answer)
        self._server.size(request.ByteSize(), answer.ByteSize())
        return answer

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        place = _spec(request.model_spec)
        try:
            version, _ = self._server.find(*place)
            signatures = self._server.signature(*place)
        except ServedError as error:
            context.abort(grpc.StatusCode[error.code], error.message)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name = place[0]
        answer.model_spec.version.value = version
        answer.metadata["signature_def"].Pack(signatures)
        if self._server.faults.metadata:
            self._server.faults.metadata(answer.metadata["signature_def"])
        return answer


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            version, _ = self._server.find(*_spec(request.model_spec))
        except ServedError as error:
            context.abort(grpc.StatusCode[error.code], error.message)
        answer = get_model_status_pb2.GetModelStatusResponse()
        answer.model_version_status.add(version=version, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        return answer
