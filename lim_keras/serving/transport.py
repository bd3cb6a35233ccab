"""Addresses, options, retries and errors that the REST and gRPC transports share."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

from lim_keras.errors import ConfigError, ServerError

MEBIBYTE = 2**20
INPUT, SIGNATURE = "image", "serving_default"
DESCRIPTION = f"the description of a model with the signature {SIGNATURE}"

_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[^\x00-\x20\x7f/:?#@\[\]]+)(?::[0-9]{1,5})?"
_ADDRESS = re.compile(
    rf"(?P<base>(?i:https?)://{_HOST}(?:/[^:?#]*)?/v1/models|(?i:grpc)://{_HOST})"
    r"/(?P<name>[^/:?#]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:?#]+))?/?"
)
_RANGES = {"request_mb": (0.01, 2047), "retries": (0, 10**6), "timeout_s": (0.001, 10**6), "in_flight": (1, 10**6)}
_BUSY = ("429", "502", "503", "504", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_REFUSED = ("400", "404", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
_QUOTED_CHARACTERS = 500

_Answer = TypeVar("_Answer")


class UnavailableError(ServerError):
    """The server is unreachable or busy; a retry may succeed."""


class RefusedError(ServerError):
    """The server rejects the request or has no such model; a retry does not help."""


@dataclass(frozen=True)
class ServerAddress:
    """Address of a served model; without version and label, the server uses the newest version."""

    base: str
    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and not 0 <= self.version < 2**63:
            raise ServerError(f"{self}: expected a version of 0 to 2^63 - 1.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `http://host:8501/v1/models/NAME` or `grpc://host:8500/NAME`; raise ServerError for other text."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ServerError(
                f"{text!r}: not the address of a served model. Expected http://host:8501/v1/models/NAME or "
                "grpc://host:8500/NAME, each with /versions/3 or /labels/canary if wanted."
            )
        scheme, _, place = found["base"].partition("://")
        port = ":8500" if scheme.lower() == "grpc" and not re.search(r":[0-9]+$", place) else ""
        version = None if found["version"] is None else int(found["version"])
        return cls(f"{scheme.lower()}://{place}{port}", found["name"], version, found["label"])

    @property
    def is_grpc(self) -> bool:
        """True for gRPC, False for REST."""
        return self.base.startswith("grpc:")

    def __str__(self) -> str:
        version = "" if self.version is None else f"/versions/{self.version}"
        return f"{self.base}/{self.name}{version}" + ("" if self.label is None else f"/labels/{self.label}")


@dataclass(frozen=True)
class ServerOptions:
    """Limits of requests to a server; a value out of range raises ConfigError.

    Args:
        request_mb: size limit of a request or an answer, MiB, at most 2047; None: 32 for REST, 64 for gRPC.
        retries: number of further attempts if the server is unreachable or busy.
        timeout_s: time limit of a request, from its connection to the last byte of its answer, seconds.
        in_flight: largest number of concurrent requests.
    """

    request_mb: float | None = None
    retries: int = 5
    timeout_s: float = 120.0
    in_flight: int = 4

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            given = getattr(self, name)
            if given is not None and not least <= given <= most:
                raise ConfigError(f"Invalid value for `{name}`. Expected {least} to {most}. Received: {given}")

    def message_limit(self, address: ServerAddress) -> int:
        """Return the size limit of a request or an answer, bytes."""
        return int((self.request_mb or (64 if address.is_grpc else 32)) * MEBIBYTE)


@dataclass(frozen=True)
class RetryPolicy:
    """Retries of requests to an unreachable or busy server, for both protocols.

    Pauses double from `first_s` to `longest_s`, in seconds. Each pause is shortened at random by up to a half, so that
    clients do not retry at the same moment.
    """

    retries: int = 5
    first_s: float = 0.5
    longest_s: float = 30.0

    def call(self, request: Callable[[], _Answer]) -> _Answer:
        """Call `request` until it succeeds; raise its error, or a ServerError after the last attempt."""
        attempt = 0
        while True:
            try:
                return request()
            except UnavailableError as error:
                if attempt == self.retries:
                    attempts = f"{attempt + 1} attempts" if attempt else "one attempt"
                    reason = str(error).rstrip(".")
                    raise ServerError(f"{reason}. Gave up after {attempts}; raise `retries` for more.") from error
            time.sleep(min(self.longest_s, self.first_s * 2.0 ** min(attempt, 60)) * random.uniform(0.5, 1))
            attempt += 1


class ServedSignature(NamedTuple):
    """Version of a served model (None: not known), and its tensors such as `DT_FLOAT (-1, -1, -1, 3)` by name."""

    version: int | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def tensor_text(dtype: str, shape: Iterable[Any] | None) -> str:
    """Format a tensor's declared type and shape, such as `DT_FLOAT (-1, -1, -1, 3)`; -1 is any size."""
    return f"{dtype} {'of unknown shape' if shape is None else tuple(int(size) for size in shape)}"


def printable(words: object) -> str:
    """Shorten a server's text to one line; escape unprintable characters, because they could control the terminal."""
    line = " ".join(str(words)[: 4 * _QUOTED_CHARACTERS].split())
    escaped = (one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)
    return f"{''.join(escaped):.{_QUOTED_CHARACTERS}}"


def status_error(address: ServerAddress, code: str, words: str) -> ServerError:
    """Make the error for an HTTP or gRPC status other than success, with the server's message."""
    text = f"{address}: the server answers {code}: {printable(words) or 'without a message'}"
    if code == "413" or "larger than max" in words:  # gRPC message of RESOURCE_EXHAUSTED; a retry does not help
        return ServerError(f"{text} `request_mb` does not fit: raise it, or lower it below the server's limit.")
    if code in _BUSY:
        return UnavailableError(text)
    return RefusedError(text) if code in _REFUSED else ServerError(text)
