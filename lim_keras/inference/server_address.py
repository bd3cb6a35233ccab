"""Where a model is served: a REST URL or a gRPC address, its name, and which version of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, Self
from urllib.parse import urlsplit

from lim_keras.errors import ServerError

EXAMPLES = "http://host:8501/v1/models/NAME or grpc://host:8500/NAME, each with /versions/3 or /labels/canary if wanted"

_MODEL = r"(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?/?"
_REST_PATH = re.compile(r"(?P<prefix>(?:/[^:]*)?)/v1/models/" + _MODEL)
_GRPC_PATH = re.compile(r"(?P<prefix>)/" + _MODEL)
_GRPC_PORT = 8500

LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class ServerAddress:
    """A model on a server of TensorFlow Serving's API.

    scheme: of the protocol. host: name or number, and port. prefix: of a REST path, where a proxy adds one. name: of
    the model. version, label: at most one of the two; neither means the newest version.
    """

    scheme: Literal["http", "https", "grpc"]
    host: str
    prefix: str
    name: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address such as `http://host:8501/v1/models/NAME` or `grpc://host:8500/NAME/versions/3`.

        Raises:
            ServerError: another scheme, no host, another path, or a user, query or fragment, which are not supported.
        """
        try:
            parts = urlsplit(text)
            scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        except ValueError as error:
            raise ServerError(f"{text!r}: not an address ({error}). Expected {EXAMPLES}.") from error
        path = (_GRPC_PATH if scheme == "grpc" else _REST_PATH).fullmatch(parts.path)
        plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        version = None if path is None or path["version"] is None else int(path["version"])
        plain = plain and (version is None or version <= LARGEST_VERSION)
        if scheme not in ("http", "https", "grpc") or host is None or path is None or not plain:
            raise ServerError(f"{text!r}: not the address of a served model. Expected {EXAMPLES}.")
        place = parts.netloc if port is not None or scheme != "grpc" else f"{parts.netloc.rstrip(':')}:{_GRPC_PORT}"
        return cls(scheme, place, path["prefix"], path["name"], version, path["label"])  # type: ignore[arg-type]

    def at_version(self, version: int) -> Self:
        """The same model in this version."""
        return replace(self, version=version, label=None)

    @property
    def model_path(self) -> str:
        """Name and version as both protocols write them, such as `NAME/versions/3`."""
        if self.version is not None:
            return f"{self.name}/versions/{self.version}"
        return self.name if self.label is None else f"{self.name}/labels/{self.label}"

    def __str__(self) -> str:
        middle = "" if self.scheme == "grpc" else f"{self.prefix}/v1/models"
        return f"{self.scheme}://{self.host}{middle}/{self.model_path}"
