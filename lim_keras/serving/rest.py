"""Transport over TensorFlow Serving's REST API, in its row format (https://www.tensorflow.org/tfx/serving/api_rest)."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import PROBABILITY
from lim_keras.errors import DataError, ServerError
from lim_keras.serving import transport
from lim_keras.serving.transport import ServedSignature, ServerAddress, ServerOptions, UnavailableError, printable

_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
_DIGITS = {"uint8": 3, "uint16": 5, "float32": 15}  # most characters of a number, such as -1.23456789e-38
_ANSWER_DIGITS = 14
_OBJECT_BYTES = 146  # memory of one number: a list, a float, a reference to each, and an array element
_LARGEST_INTEGER = 2**24  # TensorFlow Serving refuses integers >= this value for a float32 input

_T = TypeVar("_T")


class RestTransport:
    """HTTP requests to one model over persistent connections. Each call is one attempt; several threads may call."""

    def __init__(self, address: ServerAddress, info: BundleInfo, options: ServerOptions) -> None:
        self.address, self.limit, self._timeout_s = address, options.message_limit(address), options.timeout_s
        self.message_bytes, self.decoding_bytes = _pixel_bytes(info)
        self._client = client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
            verify=ssl.create_default_context(),  # the system's certificates, not httpx's own
            timeout=httpx.Timeout(None, connect=min(options.timeout_s / 2, 10.0)),
            limits=httpx.Limits(max_connections=options.in_flight, max_keepalive_connections=options.in_flight),
            trust_env=False,
        )
        # Decoding holds Python's global lock, so decoding one answer at a time is as fast and needs less memory.
        self._loop, self._decoding = _event_loop(), threading.Lock()
        self.close = weakref.finalize(self, lambda: asyncio.run_coroutine_threadsafe(client.aclose(), _event_loop()))

    def describe(self) -> ServedSignature:
        """Request the signature: GET .../metadata."""
        return self._request("/metadata", _decode_signature, expected=transport.DESCRIPTION)

    def predict(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Request the outputs, by name, of images (n, height, width, bands): POST ...:predict."""
        expected = "JSON with `predictions`, lists of one shape"
        return self._request(":predict", decode, expected=expected, body=encode(images))

    def _request(self, action: str, decode: Callable[[bytes], _T], *, expected: str, body: bytes | None = None) -> _T:
        url = f"{self.address}{action}"
        try:
            status, answer = asyncio.run_coroutine_threadsafe(self._exchange(url, body), self._loop).result()
        except TimeoutError as error:
            raise UnavailableError(f"{self.address}: no answer (timed out after {self._timeout_s:g} s).") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = printable(str(error) or type(error).__name__)
            lasting = isinstance(error, httpx.InvalidURL) or "[SSL:" in reason  # a retry cannot help
            raise (ServerError if lasting else UnavailableError)(f"{self.address}: no answer ({reason}).") from error
        if status != 200:
            raise transport.status_error(self.address, str(status), _message(answer))
        if len(answer) > self.limit:
            raise ServerError(f"{url}: expected at most {self.limit} bytes. Received: more. Raise `request_mb`.")
        try:
            with self._decoding:
                return decode(answer)
        except _MALFORMED as error:
            received = f"{answer[:100].decode('utf-8', 'replace')!r} ({printable(repr(error))})"
            raise ServerError(f"{url}: expected {expected}. Received: {received}.") from error

    async def _exchange(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        """Send a request; return the status, and the answer, read at most one byte beyond the limit."""
        answer, method = bytearray(), "POST" if body else "GET"
        async with asyncio.timeout(self._timeout_s), self._client.stream(method, url, content=body) as response:
            most = self.limit + 1 if response.status_code == 200 else 2**16
            async for chunk in response.aiter_bytes():
                answer += chunk[: most - len(answer)]
                if len(answer) == most:
                    break
        return response.status_code, bytes(answer)


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Start the thread of all HTTP requests. Unlike blocking sockets, asyncio can cancel a request at any time."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


def encode(images: NDArray[Any]) -> bytes:
    """Encode images (n, height, width, bands) as a request, in the fewest digits that keep float32 exact."""
    values = images if images.dtype.name in ("uint8", "uint16") else images.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("Invalid value for argument `images`. Expected finite numbers. Received: NaN or infinity")
    number = "%d" if values.dtype.kind == "u" else "%.8e" if np.abs(values).max() >= _LARGEST_INTEGER else "%.9g"
    pixel = f"[{','.join([number] * values.shape[3])}]"
    row = f"[{','.join([pixel] * values.shape[2])}]"
    tensors = (f"[{','.join(row % tuple(line.ravel().tolist()) for line in image)}]" for image in values)
    instances = ",".join(f'{{"{transport.INPUT}":{tensor}}}' for tensor in tensors)
    return f'{{"instances":[{instances}]}}'.encode("ascii")


def _decode_signature(body: bytes) -> ServedSignature:
    content = json.loads(body)
    signature = content["metadata"]["signature_def"]["signature_def"][transport.SIGNATURE]
    inputs, outputs = ({k: _tensor(v) for k, v in signature[side].items()} for side in ("inputs", "outputs"))
    version = content.get("model_spec", {}).get("version") or None
    return ServedSignature(None if version is None else int(version), inputs, outputs)


def decode(body: bytes) -> dict[str, NDArray[Any]]:
    """Decode the outputs of an answer by name; if a model has only one output, the answer does not name it."""
    rows = json.loads(body)["predictions"]
    if not isinstance(rows[0], Mapping):
        return {PROBABILITY: _numbers(rows)}
    return {name: _numbers([row[name] for row in rows]) for name in rows[0]}


def _numbers(values: Any) -> NDArray[Any]:
    """Convert nested lists to int64 or float64, through objects: a text array would waste memory."""
    objects = np.array(values, dtype=object)
    kinds = set(map(type, objects.flat))
    if not kinds <= {int, float}:
        raise ValueError(f"expected numbers, came {', '.join(sorted(kind.__name__ for kind in kinds))}")
    return objects.astype(np.float64 if float in kinds else np.int64)


def _pixel_bytes(info: BundleInfo) -> tuple[int, int]:
    """Return upper bounds of the bytes per pixel: in JSON, and in memory while an answer is decoded.

    A pixel is `[255,255,255],` in a request and `[0.123456789], ` for each output in an answer. One more byte per pixel
    is enough for the brackets of rows in windows of 64 px and more.
    """
    digits = [_ANSWER_DIGITS] if info.folds == 1 else [_ANSWER_DIGITS, _ANSWER_DIGITS, len(str(info.folds))]
    message = max(info.bands * (_DIGITS[info.dtype] + 1) + 3, sum(digits) + 5 * len(digits))
    return message, message + _OBJECT_BYTES * len(digits)


def _tensor(content: Mapping[str, Any]) -> str:
    shape = content["tensor_shape"]
    sizes = None if shape.get("unknown_rank") else [axis["size"] for axis in shape.get("dim", ())]
    return transport.tensor_text(str(content["dtype"]), sizes)


def _message(body: bytes) -> str:
    """Return the server's text in the body of an error."""
    try:
        words = json.loads(body)["error"]
    except _MALFORMED:
        words = None
    return words if isinstance(words, str) else body.decode("utf-8", "replace")
