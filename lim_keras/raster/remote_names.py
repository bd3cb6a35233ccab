"""Names of rasters on web servers and in object storage: names for GDAL, names without secrets, and GDAL settings."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_PREFIXES = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "ftp": "/vsicurl/ftp://"}
_PREFIXES |= {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_NETWORK = re.compile(
    r"^(?:\w+\+)?(?:https?|ftp|s3|gs|az|adls?|abfs|oss|swift|w?e?b?hdfs)://"
    r"|/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?[/?]"
)
_IN_URL = "/:?#[]@!$&'()*+,;=%~"
_QUERY = re.compile(r"\?[^\s'\"`<>]*")
_USER = re.compile(r"(?<=://)[^/\s'\"@]+@")
_SECRET = re.compile(
    r"[?&;](?:[^=&\s]*[-_.])?(?:sig|signature|token|sas|key|apikey|credential|auth|authorization|pass(?:wd|word)?|pwd"
    r"|secret|policy|jwt|hmac|hdnea|session|accesskeyid|keyid|key-pair-id)(?:=|%3D)",
    re.IGNORECASE,
)

_CONNECT_S, _SILENCE_S = 30, 60
_RETRIES, _RETRY_S = 3, 1
_CHUNK_BYTES, _HEADER_BYTES = 1024, 16384


def is_on_network(name: str) -> bool:
    """Return whether a name is that of a raster on a web server or in object storage, also in an archive there."""
    return _NETWORK.search(name) is not None and not os.path.lexists(name)


def vsi_name(name: str) -> str:
    """Convert the URL of a raster to the name of GDAL's file system; other names stay as they are.

    Spaces and non-ASCII letters of web addresses are percent-encoded; names of objects are not.
    """
    scheme, separator, rest = name.partition("://")
    prefix = _PREFIXES.get(scheme.lower()) if separator else None
    if prefix is None:
        return name
    return prefix + (quote(rest, safe=_IN_URL) if prefix.startswith("/vsicurl/") else rest)


def web_address(name: str) -> str | None:
    """Return the http(s) URL of a raster on a web server, percent-encoded; None for other names."""
    vsi = vsi_name(name)
    url = vsi.removeprefix("/vsicurl/")
    return quote(url, safe=_IN_URL) if vsi != url and url.startswith(("http://", "https://")) else None


def public_name(text: str) -> str:
    """Leave secrets out of the URLs of a text: user names, and queries that hold a signature, a key or a password."""
    text = _USER.sub("", text)
    return _QUERY.sub(lambda query: "" if _SECRET.search(query[0]) else query[0], text)


def remote_stem(name: str) -> str:
    """Return the name of a remote raster without its folders, its suffix, and the query of its URL."""
    inner = re.sub(r"^.*!|[?#].*$", "", name)  # `!` separates an archive from the file in it
    if web_address(name) is not None:
        inner = unquote(inner)
    return PurePosixPath(inner.rstrip("/").rpartition("/")[2]).stem


def network_settings(name: str = "") -> dict[str, Any]:
    """Return GDAL settings for the network that the environment does not set.

    GDAL has no time limits by default, lists the whole folder of a scene, and keeps what it read after a file changed.

    Args:
        name: raster that will be opened with the settings; "": settings for all rasters.
    """
    settings: dict[str, Any] = {
        "GDAL_HTTP_CONNECTTIMEOUT": _CONNECT_S,
        "GDAL_HTTP_LOW_SPEED_TIME": _SILENCE_S,
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        "GDAL_HTTP_MAX_RETRY": _RETRIES,
        "GDAL_HTTP_RETRY_DELAY": _RETRY_S,
        **_endpoints(),
    }
    forced: dict[str, Any] = {}
    if name and is_on_network(name):
        # With a query, names of files beside the raster would be those of the raster itself.
        settings["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR" if "?" in name else "TRUE"
        if "?" in name:
            settings["CPL_VSIL_CURL_USE_HEAD"] = "NO"  # signatures are often for GET only
        settings["CPL_VSIL_CURL_NON_CACHED"] = ":".join(["/vsicurl/", "/vsis3/", "/vsigs/", "/vsiaz/"])
        # In sequence, GDAL doubles each request that is smaller than 100 chunks.
        settings |= {"CPL_VSIL_CURL_CHUNK_SIZE": _CHUNK_BYTES, "GDAL_INGESTED_BYTES_AT_OPEN": _HEADER_BYTES}
        # With more threads, GDAL requests blocks in parallel, and gives zeros for those that fail.
        forced["GDAL_NUM_THREADS"] = "1"
    return {key: value for key, value in settings.items() if key not in os.environ} | forced


def _endpoints() -> dict[str, str]:
    """Convert variables of other programs, which name servers and accounts, to those of GDAL."""
    found: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "AWS_S3_ENDPOINT" not in os.environ:
        parts = urlsplit(endpoint)
        found |= {"AWS_S3_ENDPOINT": parts.netloc, "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES"}
        found["AWS_VIRTUAL_HOSTING"] = "FALSE"
    names = {"AZURE_STORAGE_ACCOUNT": "ACCOUNT_NAME", "AZURE_STORAGE_ACCESS_KEY": "ACCOUNT_KEY"}
    for name, other in names.items():
        if value := os.environ.get(f"AZURE_STORAGE_{other}"):
            found[name] = value
    return found
