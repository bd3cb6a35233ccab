"""A model behind TensorFlow Serving's REST API. TensorFlow is not imported here."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import urllib3
from numpy.typing import NDArray

from lim_keras.errors import ServerError
from lim_keras.inference.server_address import ServerAddress
from lim_keras.inference.server_json import JsonFormat, decode, encode, message_bytes
from lim_keras.inference.server_transport import RefusedError, Served, Sizes, Tensor, UnavailableError

_REFUSED = (400, 404)
_BUSY = (429, 502, 503, 504)
_TOO_LARGE = 413
_QUOTED = 500
"""Characters of a server's message that are shown."""

_OBJECTS = 130
"""Bytes of memory for each number of an answer while Python holds it: a list, a float, and two references to them."""


class RestTransport:
    """Requests to one model over HTTP, on connections that are kept.

    Args:
        address: of the model.
        form: of requests and answers.
        limit: bytes that an answer may take.
        timeout_s: seconds that a request may take to be answered.
        connections: requests at a time.
    """

    def __init__(
        self, address: ServerAddress, *, form: JsonFormat, limit: int, timeout_s: float, connections: int
    ) -> None:
        self._address, self._form, self._limit = address, form, limit
        timeout = urllib3.Timeout(connect=min(timeout_s, 10.0), read=timeout_s)
        self._pool = urllib3.PoolManager(maxsize=connections, block=True, timeout=timeout, retries=False)
        # Reading JSON holds Python's lock anyway: one at a time is as fast, and needs the memory of one.
        self._reading = threading.Lock()

    def describe(self) -> Served:
        """GET .../metadata."""
        body = self._ask("GET", f"{self._address}/metadata")
        try:
            content = json.loads(body)
            signature = content["metadata"]["signature_def"]["signature_def"]["serving_default"]
            version = content.get("model_spec", {}).get("version")
            return Served(
                None if version in (None, "") else int(version),
                _tensors(signature["inputs"]),
                _tensors(signature["outputs"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
        self._pool.clear()

    def _ask(self, method: str, url: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body else None
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, preload_content=False, redirect=False
            )
            try:
                answer = response.read(self._limit + 1)
            finally:
                if response.length_remaining != 0:
                    response.close()  # the rest of the answer would be taken for the next one
                response.release_conn()
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
        return answer


def rest_sizes(dtype: str, bands: int, outputs: Mapping[str, int], form: JsonFormat) -> Sizes:
    """What a window takes; arguments as in `lim_keras.inference.server_json.message_bytes`."""
    message = message_bytes(dtype, bands, outputs, form)
    # The answer's text, its numbers as Python's objects, and those as arrays. Waiting: the request, then the answer.
    return Sizes(message, message + (_OBJECTS + 8) * len(outputs), 2 * message)


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: Tensor(one["dtype"], _shape(one["tensor_shape"])) for name, one in content.items()}


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
    text = body[: 4 * _QUOTED].decode("utf-8", "replace")
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = " ".join(text.split()) or "nothing"
    return f"{said!s:.{_QUOTED}}"


def _reason(error: Exception) -> str:
    """An error's message without the object that urllib3 puts before it, and without its cause."""
    text = str(error.args[0] if error.args else error)
    return text.split(": ", 1)[-1] if text.startswith(("<", "HTTP")) else text
