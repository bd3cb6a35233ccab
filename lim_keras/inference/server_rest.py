"""A model behind TensorFlow Serving's REST API. TensorFlow is not imported here."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import urllib3
from numpy.typing import NDArray

from lim_keras.errors import ServerError
from lim_keras.inference.server_address import LARGEST_VERSION, ServerAddress
from lim_keras.inference.server_deadline import Deadline, WatchedHttp, WatchedHttps
from lim_keras.inference.server_json import JsonFormat, decode, encode, message_bytes
from lim_keras.inference.server_transport import RefusedError, Served, Sizes, Tensor, UnavailableError, shown

_REFUSED = (400, 404)
_BUSY = (429, 502, 503, 504)
_TOO_LARGE = 413
_ERROR_BYTES = 2**16
"""What is read of an answer that is an error."""

_OBJECTS = 130
"""Bytes of memory for each number of an answer while Python holds it: a list, a float, and two references to them."""


class RestTransport:
    """Requests to one model over HTTP, on connections that are kept.

    Args:
        address: of the model.
        form: of requests and answers.
        limit: bytes that an answer may take.
        timeout_s: seconds that a request may take until its answer is there as a whole.
        connections: requests at a time.

    Raises:
        ServerError: the address names no host.
    """

    def __init__(
        self, address: ServerAddress, *, form: JsonFormat, limit: int, timeout_s: float, connections: int
    ) -> None:
        self._address, self._form, self._limit, self._timeout_s = address, form, limit, timeout_s
        timeout = urllib3.Timeout(connect=min(timeout_s, 10.0), read=timeout_s)
        try:
            self._pool = urllib3.connection_from_url(
                str(address), maxsize=connections, block=True, timeout=timeout, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"{address}: cannot be asked ({_reason(error)}).") from error
        self._pool.ConnectionCls = WatchedHttps if address.scheme == "https" else WatchedHttp
        # Reading JSON holds Python's lock anyway: one at a time is as fast, and needs the memory of one.
        self._reading = threading.Lock()

    def describe(self) -> Served:
        """GET .../metadata."""
        body = self._ask("GET", f"{self._address}/metadata")
        try:
            content = json.loads(body)
            signature = content["metadata"]["signature_def"]["signature_def"]["serving_default"]
            version = _version(content.get("model_spec", {}).get("version"))
            return Served(version, _tensors(signature["inputs"]), _tensors(signature["outputs"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ServerError(
                f"{self._address}/metadata: expected the description of a model with the signature serving_default. "
                f"Received: {body[:100].decode('utf-8', 'replace')!r} ({error!r})."
            ) from error

    def predict(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """POST ...:predict."""
        body = self._ask("POST", f"{self._address}:predict", encode(images, self._form))
        try:
            with self._reading:
                return decode(body, self._form)
        except ServerError as error:
            raise ServerError(f"{self._address}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _ask(self, method: str, url: str, body: bytes | None = None) -> bytes:
        try:
            response, answer = self._exchange(method, urllib3.util.parse_url(url).request_uri, body)
        except (urllib3.exceptions.TimeoutError, urllib3.exceptions.ProtocolError) as error:
            raise UnavailableError(f"{self._address}: no answer ({_reason(error)}).") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerError(f"{self._address}: cannot be asked ({_reason(error)}).") from error
        if response.status != 200:
            raise _error(self._address, response.status, answer)
        if len(answer) > self._limit:
            raise ServerError(
                f"{self._address}: expected an answer of at most {self._limit} bytes. Received: more. Raise "
                "--request-mb."
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":  # a small answer could unpack to any size
            raise ServerError(
                f"{self._address}: expected an answer that is not compressed, as it was asked for. Received: "
                f"Content-Encoding {shown(encoding)}. Switch that off in the server or the proxy before it."
            )
        return answer

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        """An answer of any status, and its bytes as they came: one more than may be, at most."""
        headers = {"Content-Type": "application/json"} if body else None
        response = None
        try:
            with Deadline(self._timeout_s):
                response = self._pool.request(
                    method, target, body=body, headers=headers, preload_content=False, redirect=False
                )
                most = self._limit + 1 if response.status == 200 else _ERROR_BYTES
                return response, response.read(most, decode_content=False)
        finally:
            # Not before the deadline is gone, which would cut the next request on this connection.
            if response is not None:
                if response.length_remaining != 0:
                    response.close()  # the rest of the answer would be taken for the next one
                response.release_conn()


def rest_sizes(dtype: str, bands: int, outputs: Mapping[str, int], form: JsonFormat) -> Sizes:
    """What a window takes; arguments as in `lim_keras.inference.server_json.message_bytes`."""
    message = message_bytes(dtype, bands, outputs, form)
    # The answer's text, its numbers as Python's objects, an array of these and one of numbers. Waiting: the request,
    # then the answer.
    return Sizes(message, message + (_OBJECTS + 16) * len(outputs), 2 * message)


def _version(said: Any) -> int | None:
    version = None if said in (None, "") else int(said)
    if version is not None and not 0 <= version <= LARGEST_VERSION:
        raise ValueError("a version that is none")
    return version


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: Tensor(str(one["dtype"]), _shape(one["tensor_shape"])) for name, one in content.items()}


def _shape(content: Mapping[str, Any]) -> tuple[int, ...] | None:
    return None if content.get("unknown_rank") else tuple(int(axis["size"]) for axis in content.get("dim", ()))


def _error(address: ServerAddress, status: int, body: bytes) -> ServerError:
    """What an answer other than 200 means, with the server's own words."""
    text = f"{address}: the server answers {status}: {_message(body)}"
    if status in _BUSY:
        return UnavailableError(text)
    if status == _TOO_LARGE:
        return ServerError(f"{text} Its limit is below --request-mb: lower that, or raise the server's.")
    return RefusedError(text) if status in _REFUSED else ServerError(text)


def _message(body: bytes) -> str:
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = None
    return shown(said if isinstance(said, str) else body.decode("utf-8", "replace")) or "nothing"


def _reason(error: Exception) -> str:
    """An error's message without the object that urllib3 puts before it, and without its cause."""
    text = str(error.args[0] if error.args else error)
    return shown(text.split(": ", 1)[-1] if text.startswith(("<", "HTTP", WatchedHttp.__name__)) else text)
