"""Object storage of Amazon (s3://), Google (gs://) and Microsoft (az://): addresses, and stores opened with obstore."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from lim_keras.errors import ConfigError, DataError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ADDRESS = re.compile(r"(s3|gs|az):/{1,2}([^/]+)(?:/(.*))?", re.DOTALL)
_SCHEME = re.compile(r"(s3|gs|az):")
_VSI = re.compile(r"/vsi(s3|gs|az)/([^/]+)(?:/(.*))?", re.DOTALL)
_INSTALL = "Install it: pip install 'lim-keras[cloud]'."
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION; for public buckets AWS_NO_SIGN_REQUEST=YES",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS; for public buckets GS_NO_SIGN_REQUEST=YES",
    "az": "AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_NAMES = {"s3": "bucket", "gs": "bucket", "az": "container"}
_CONNECT, _REQUEST = timedelta(seconds=15), timedelta(minutes=5)
_RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}


def is_storage_address(text: str) -> bool:
    """Return whether a text begins like an address in object storage, and is not the path of a local file."""
    return _SCHEME.match(text) is not None and not os.path.lexists(text)


@dataclass(frozen=True)
class Address:
    """Address of an object or of a prefix: `s3://bucket/key`.

    Attributes:
        scheme: "s3", "gs" or "az".
        bucket: name of the bucket or container.
        key: key of the object, or prefix of several, without slashes at its ends.
    """

    scheme: str
    bucket: str
    key: str

    @classmethod
    def find(cls, text: str) -> Self | None:
        """Read an address, also one that `pathlib.Path` shortened, or a GDAL name; None for other texts."""
        match = _ADDRESS.fullmatch(text) or _VSI.fullmatch(text)
        return None if match is None else cls(match[1], match[2], (match[3] or "").strip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def joined(self, name: str) -> Address:
        """Return the address of an object below this prefix."""
        return Address(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)


def open_store(address: Address) -> ObjectStore:
    """Open the bucket of an address, with the credentials of the environment. Nothing is requested yet.

    The variables of the providers and those of GDAL are read.

    Raises:
        ConfigError: obstore is not installed.
        DataError: a variable is missing or has an invalid value.
    """
    scheme, bucket = address.scheme, address.bucket
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise ConfigError(f"{scheme}://{bucket}: object storage needs the package obstore. {_INSTALL}") from error
    client: Any = {"connect_timeout": _CONNECT, "timeout": _REQUEST, "allow_http": True}
    options: dict[str, Any] = {"client_options": client, "retry_config": _RETRIES}
    try:
        if scheme == "s3":
            return S3Store(bucket, **options, **_s3_settings())
        if scheme == "gs":
            return GCSStore(bucket, **options, **_flag("skip_signature", "GS_NO_SIGN_REQUEST"))
        options |= _flag("skip_signature", "AZURE_NO_SIGN_REQUEST")
        if account := os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
            options["account_name"] = account
        return AzureStore(bucket, **options)
    except (BaseError, ValueError) as error:
        raise DataError(
            f"{scheme}://{bucket}: cannot be opened ({_first_line(error)}). Set the variables {_VARIABLES[scheme]}."
        ) from error


def _s3_settings() -> dict[str, Any]:
    """Read the variables of GDAL, and AWS_ENDPOINT_URL; obstore reads the others."""
    settings: dict[str, Any] = _flag("skip_signature", "AWS_NO_SIGN_REQUEST")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if (host := os.environ.get("AWS_S3_ENDPOINT")) and not endpoint:
        secure = os.environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
        endpoint = host if urlsplit(host).scheme in ("http", "https") else f"http{'s' * secure}://{host}"
    if endpoint:
        settings["endpoint"] = endpoint
    return settings


def _flag(setting: str, variable: str) -> dict[str, Any]:
    return {setting: True} if os.environ.get(variable, "").upper() in ("YES", "TRUE", "ON", "1") else {}


def describe(address: Address) -> dict[str, str]:
    """Ask for the headers of an object that change with it: ETag, size, and version where there is one.

    Raises:
        ConfigError, DataError: as in `open_store` and `explained`.
    """
    import obstore

    with explained(address):
        found = obstore.head(open_store(address), address.key)
    values = {"ETag": found["e_tag"], "Content-Length": found["size"], "Version": found["version"]}
    return {key: str(value) for key, value in values.items() if value is not None}


def read_object(address: Address) -> bytes:
    """Read an object as a whole; errors as in `describe`."""
    store = open_store(address)
    import obstore

    with explained(address):
        return bytes(obstore.get(store, address.key).bytes())


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Convert errors of obstore to DataError, in one line that names the address and a cure."""
    from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

    variables = f"Set the variables {_VARIABLES[address.scheme]}."
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise DataError(f"{address}: access is denied ({_first_line(error)}). {variables}") from error
    except (NotFoundError, FileNotFoundError) as error:
        raise DataError(f"{address}: not found. Check the {_NAMES[address.scheme]} and the name.") from error
    except BaseError as error:
        reason = _first_line(error)
        if "404 Not Found" in reason:
            raise DataError(f"{address}: not found. Check the {_NAMES[address.scheme]} and the name.") from error
        if re.search(r"credential|metadata|token|169\.254", reason, re.IGNORECASE):
            raise DataError(f"{address}: no credentials were found. {variables}") from error
        raise DataError(f"{address}: cannot be reached ({reason}). Check the address and the connection.") from error
    except ValueError as error:  # obstore checks names itself
        raise DataError(
            f"{address}: expected no empty name, `.` or `..` between its slashes, and no control character "
            f"({_first_line(error)}). Give an address without them."
        ) from error


def _first_line(error: BaseException) -> str:
    """Return the reason of an error of obstore, which adds its settings in further lines."""
    text = str(error).split("\n\nDebug source", 1)[0]
    return " ".join(text.split())[:300].rstrip(". ")
