"""Scenes that STAC items describe: the raster among an item's assets, and its address."""

from __future__ import annotations

import json
import os
import posixpath
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lim_keras.errors import ConfigError, DataError
from lim_keras.files import read_input
from lim_keras.object_storage import Address, read_object
from lim_keras.raster.remote_names import public_name, web_address

_ENDINGS, _RASTERS = (".json", ".geojson"), (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".zip")
_TYPES = re.compile(r"image/(tiff|vnd\.stac\.geotiff|jp2|vnd\.|png|jpe?g)")
_GEOTIFF = re.compile(r"image/(tiff|vnd\.stac\.geotiff)")
_COLOURS = {"red", "green", "blue"}
_LARGEST, _WAIT_S = 64 * 2**20, 30


class StacScene(os.PathLike[str]):
    """Scene of a STAC item, which is read when it is first needed. As a path, it is that of the chosen asset.

    Args:
        item: path or URL of the item.
        asset: name of the asset; None: the one in true colour, else the only raster.
    """

    def __init__(self, item: str, asset: str | None = None) -> None:
        self.item, self._asset = item, asset

    def __str__(self) -> str:
        return public_name(self.item)

    def __fspath__(self) -> str:
        try:
            return self.address
        except DataError:  # raised again when the scene is opened
            return self.item

    @property
    def stem(self) -> str:
        """Name of results: the item's id."""
        try:
            return str(self._content["id"]).replace("/", "_")
        except DataError:
            return PurePosixPath(urlsplit(self.item).path).stem

    @cached_property
    def address(self) -> str:
        """Path or URL of the chosen asset.

        Raises:
            DataError: the item cannot be read, or has no asset that can be chosen.
        """
        assets = {name: one for name, one in self._content["assets"].items() if isinstance(one, dict) and "href" in one}
        return _absolute(str(assets[self._chosen(assets)]["href"]), self.item)

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        try:
            content: Any = json.loads(_read(self.item))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self}: expected a STAC item. Received: a file that is not JSON ({error}).") from error
        kind = content.get("type") if isinstance(content, dict) else None
        if kind != "Feature" or not isinstance(content.get("assets"), dict) or "id" not in content:
            received = f"a {kind}" if isinstance(kind, str) else "another JSON file"
            raise DataError(
                f"{self}: expected a STAC item (a Feature with assets). Received: {received}. Give the path or the URL "
                "of one item."
            )
        return dict(content)

    def _chosen(self, assets: Mapping[str, Mapping[str, Any]]) -> str:
        listed = ", ".join(assets) or "none"
        if self._asset is not None:
            if self._asset not in assets:
                raise DataError(f"{self}: has no asset {self._asset!r}. Its assets: {listed}. Give one as `asset`.")
            return self._asset
        for found in _choices({name: one for name, one in assets.items() if _is_raster(one)}):
            geotiffs = [name for name in found if _GEOTIFF.match(str(assets[name].get("type", "")))]
            for names in (found, geotiffs):
                if len(names) == 1:
                    return names[0]
            if found:
                break
        raise DataError(
            f"{self}: it is not clear which asset is the image. Its assets: {listed}. Give its name as `asset`, or a "
            "virtual raster (`gdalbuildvrt -separate`) of several as the scene."
        )


def _choices(rasters: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return groups of assets, of which the first one that is not empty holds the image."""
    shown = {name: one for name, one in rasters.items() if "overview" not in _roles(one)}
    colours = [name for name, one in shown.items() if _common_names(one) >= _COLOURS]
    return [
        [name for name, one in rasters.items() if "visual" in _roles(one) or name == "visual"],
        [name for name in colours if len(_bands(rasters[name])) == len(_COLOURS)] or colours,
        [name for name, one in shown.items() if len(_bands(one)) >= len(_COLOURS)],
        [name for name, one in shown.items() if "data" in _roles(one)],
        list(rasters),
    ]


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = asset.get("type")
    known = isinstance(kind, str) and _TYPES.match(kind) is not None
    by_name = kind is None and PurePosixPath(urlsplit(str(asset["href"])).path).suffix.lower() in _RASTERS
    return (known or by_name) and "thumbnail" not in _roles(asset)


def _roles(asset: Mapping[str, Any]) -> set[str]:
    roles = asset.get("roles")
    return {str(role) for role in roles} if isinstance(roles, list) else set()


def _bands(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the bands of an asset, as STAC 1.1 or 1.0 describes them."""
    lists = (asset.get(key) for key in ("bands", "eo:bands", "raster:bands"))
    return next(([band for band in one if isinstance(band, dict)] for one in lists if isinstance(one, list)), [])


def _common_names(asset: Mapping[str, Any]) -> set[str]:
    return {str(band.get("eo:common_name") or band.get("common_name")) for band in _bands(asset)}


def _absolute(href: str, item: str) -> str:
    """Resolve the link of an asset against the place of its item."""
    if re.match(r"[A-Za-z][\w+.-]+:|/vsi", href):
        return href
    scheme, separator, rest = re.sub(r"[?#].*$", "", item).partition("://")
    if not separator:
        if item.startswith("/vsi"):
            return posixpath.normpath(posixpath.join(posixpath.dirname(item), href))
        return str((Path(item).absolute().parent / href).resolve())
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}{posixpath.normpath(posixpath.join('/', posixpath.dirname(path), href))}"


def find_item(name: str, asset: str | None = None) -> StacScene | None:
    """Return the scene of a STAC item; None if a name is not that of a JSON file, or of an item on a web server.

    A server is asked for the type of an address that does not end like a raster.

    Raises:
        ConfigError: `asset` is given for another scene.
    """
    suffix = PurePosixPath(re.sub(r"[?#].*$", "", name)).suffix.lower()
    local = os.path.lexists(name)
    if suffix in _ENDINGS and (Path(name).is_file() if local else re.match(r"[A-Za-z][\w+.-]+://|/vsi", name)):
        return StacScene(name, asset)
    url = None if local or suffix in _RASTERS else web_address(name)
    if url is not None and _is_json(url):
        return StacScene(name, asset)
    if asset is not None:
        raise ConfigError(f"`asset` is for STAC items only. Received: the scene {public_name(name)}. Leave it out.")
    return None


def _request(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"Accept": "application/geo+json, application/json, */*"})


def _is_json(url: str) -> bool:
    try:
        with urllib.request.urlopen(_request(url), timeout=_WAIT_S) as answer:
            return "json" in str(answer.headers.get_content_type())
    except (OSError, ValueError):  # GDAL explains it
        return False


def _read(item: str) -> bytes:
    if (url := web_address(item)) is not None:
        return _downloaded(url)
    address = None if os.path.lexists(item) else Address.find(item)
    return read_input(Path(item), _LARGEST) if address is None else read_object(address)


def _downloaded(url: str) -> bytes:
    shown = public_name(url)
    try:
        with urllib.request.urlopen(_request(url), timeout=_WAIT_S) as answer:
            content: bytes = answer.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise DataError(f"{shown}: cannot be read: the server answers {error.code} ({error.reason}).") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{shown}: cannot be reached over the network ({reason}). Check the address.") from error
    if len(content) > _LARGEST:
        raise DataError(f"{shown}: expected a STAC item of at most {_LARGEST // 2**20} MiB. Received: a larger file.")
    return content
