"""Resolve names of rasters, and open rasters with GDAL."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.diagnosis import cut_jpeg, missing_source, unreadable, unusable_path
from lim_keras.raster.remote_names import network_settings, public_name, remote_stem, vsi_name
from lim_keras.raster.sentinel2 import product_stem
from lim_keras.raster.stac_scene import StacScene
from lim_keras.raster.vrt import is_vrt

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Errors of rasterio, and errors of GDAL that rasterio does not convert."""

_REMOTE = re.compile(r"/vsi\w+/|[A-Za-z][\w+.-]+:")
_SERVERS = r"(https?|ftp|s3|gs|az|adls?|abfs|oss|swift|w?e?b?hdfs)"
_ARCHIVE = re.compile(r"/vsi(?:zip|gzip|tar|7z|rar|sparse|cached|curl_streaming)/(?=[^/])")
CACHE_BYTES = 64 * 2**20
"""Memory of GDAL's cache of blocks, which fills while a scene is read."""
_MOST_PIXELS, _MOST_BANDS = 10**12, 4096  # a forged header may give any size
_CE_WARNING = 2  # severity of a warning, as GDAL numbers it
_opening = threading.Lock()


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is a URL or a GDAL name, not the path of a local file."""
    return _REMOTE.match(os.fspath(name)) is not None and not os.path.lexists(name)


def raster_stem(name: str | os.PathLike[str]) -> str:
    """Return the name of a raster without its folder and its suffix, of a Sentinel-2 product, or a STAC item's id."""
    if isinstance(name, StacScene):
        return name.stem
    name = os.fspath(name)
    if is_remote(name):
        return remote_stem(name)
    return product_stem(name) or PurePosixPath(name).stem


def gdal_name(source: str | os.PathLike[str]) -> str:
    """Return the name by which GDAL opens a source.

    Raises:
        ConfigError: `source` is not a path.
        DataError: there is no such local file, or it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"Expected a path, a URL or an open raster. Received: {source!r}.")
    name = os.fspath(source)
    if not isinstance(name, str):
        raise ConfigError(f"Expected a path as text. Received: {name!r}.")
    if not isinstance(source, str):
        name = _with_slashes(name)
    if not is_remote(name) and (problem := unusable_path(Path(name))):
        raise DataError(f"{name}: {problem}")
    return name


def _with_slashes(name: str) -> str:
    """Restore slashes that `Path` merged: `https:/host` is `https://host`, `/vsizip/a.zip` may be `/vsizip//a.zip`."""
    name = re.sub(rf"(?<![A-Za-z0-9]){_SERVERS}:/(?=[^/])", r"\1://", name)
    name = re.sub(r"^file:/+(?=[^/])", "file:///", name)
    if match := re.match(r"(zip|tar|gzip):/(?=[^/])", name):
        inside = name[match.end() :]
        return f"{match[1]}://{'' if _starts_with_file(inside) else '/'}{inside}"
    match = _ARCHIVE.match(name)
    inside = name[match.end() :] if match else ""
    if match and not inside.startswith("vsi") and not _starts_with_file(inside) and _starts_with_file(f"/{inside}"):
        return f"{match[0]}/{inside}"
    return name


def _starts_with_file(name: str) -> bool:
    """Return whether a name, or its part before a slash or `!`, is a file."""
    ends = [match.start() for match in re.finditer(r"[/!]", name)] + [len(name)]
    return any(Path(name[:end]).is_file() for end in ends)


def open_dataset(name: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Any:
    """Open a rasterio dataset without NotGeoreferencedWarning.

    Raises:
        DataError: mode is "r", and GDAL cannot open the raster, a source of a VRT is missing, or it is too large.
    """
    _silence_libtiff()
    with silenced(NotGeoreferencedWarning):
        if mode != "r":
            return rasterio.open(name, mode, **profile)
        with explained(os.fspath(name)), rasterio.Env(**network_settings(os.fspath(name))):
            dataset = rasterio.open(vsi_name(os.fspath(name)), sharing=False, **profile)
        problem = _problem(dataset, Path(name))
        if dataset.width * dataset.height > _MOST_PIXELS or dataset.count > _MOST_BANDS:
            problem = (
                f"expected at most {_MOST_PIXELS:.0e} pixels and {_MOST_BANDS} bands. Received: {dataset.width} x "
                f"{dataset.height} px, {dataset.count} bands. Cut out the part to read."
            )
        if problem:
            dataset.close()
            raise DataError(f"{public_name(os.fspath(name))}: {problem}")
        return dataset


@lru_cache(maxsize=1)
def _silence_libtiff() -> None:
    """Keep the libtiff inside rasterio from printing its errors, which rasterio raises as exceptions, too.

    GDAL has no setting for it. Where rasterio uses the libtiff of the system, nothing is changed.
    """
    package = Path(rasterio.__file__).parent
    for folder in (package.with_name("rasterio.libs"), package / ".dylibs"):  # of wheels for Linux, for macOS
        for path in folder.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(str(path)).TIFFSetErrorHandler(None)


def _problem(dataset: Any, path: Path) -> str | None:
    """Explain why a local file that GDAL opens is incomplete; None if no problem is found."""
    if dataset.driver == "VRT" and is_vrt(path):
        return missing_source(path)
    return cut_jpeg(path, dataset.width * dataset.height) if dataset.driver == "JPEG" and path.is_file() else None


@contextmanager
def silenced(category: type[Warning]) -> Iterator[None]:
    """Silence warnings of a library. Filters are global: one thread at a time may change them."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def band_colours(dataset: Any) -> tuple[ColorInterp, ...]:
    """Return the colour of every band."""
    for _ in range(dataset.count):
        try:
            return tuple(dataset.colorinterp)
        except CPLE_BaseError as error:  # rasterio may raise a warning of an earlier call, such as on unknown tags
            if error.error > _CE_WARNING:
                raise
    return tuple(dataset.colorinterp)


@contextmanager
def explained(name: str | os.PathLike[str]) -> Iterator[None]:
    """Convert errors of rasterio and GDAL to DataError."""
    try:
        yield
    # UnicodeError: a damaged file brings bytes into GDAL's message.
    except (*GDAL_ERRORS, UnicodeError) as error:
        raise DataError(unreadable(os.fspath(name), error)) from error


def gdal_settings() -> rasterio.Env:
    """Return GDAL settings: all cores for coding, and a small cache (GDAL's default is 5 % of the memory)."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_NUM_THREADS="ALL_CPUS", **network_settings())
