"""Headers of files on web servers and in object storage, which change with the files."""

from __future__ import annotations

import urllib.request

from lim_keras.errors import DataError
from lim_keras.object_storage import Address, describe
from lim_keras.raster.remote_names import web_address

_HEADERS = ("ETag", "Last-Modified", "Content-Length")
_WAIT_S = 10


def remote_headers(name: str) -> dict[str, str]:
    """Ask for the headers that change with a remote file: ETag, size and others; empty if the server gives none.

    Args:
        name: URL or GDAL name.

    Raises:
        ConfigError: the file is in object storage, and obstore is not installed.
    """
    if (url := web_address(name)) is not None:
        return _of_web_server(url, "HEAD") or _of_web_server(url, "GET")
    address = Address.find(name)
    if address is None or not address.key:
        return {}
    try:
        return describe(address)
    except DataError:  # GDAL may have found other credentials
        return {}


def _of_web_server(url: str, method: str) -> dict[str, str]:
    """Request headers; "GET" asks for one byte, because signatures in URLs are often for this method only."""
    request = urllib.request.Request(url, method=method, headers={"Range": "bytes=0-0"} if method == "GET" else {})
    try:
        with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:
            headers = {key: answer.headers[key] for key in _HEADERS if answer.headers[key]}
            if whole := answer.headers.get("Content-Range", "").rpartition("/")[2]:
                headers["Content-Length"] = whole
    except (OSError, ValueError):
        return {}
    return headers if len(headers) > 1 or "ETag" in headers else {}
