"""Fingerprints of rasters: values that change when the pixels of a raster may have changed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window as RasterWindow

from lim_keras.raster.remote_headers import remote_headers
from lim_keras.raster.vrt import is_vrt, nested_sources, vrt_sources
from lim_keras.raster.windows import blocks, sample_boxes

_SIDECARS = (".aux.xml", ".msk", ".ovr")
_STATISTICS = re.compile(rb"<MDI key=\"STATISTICS_[^>]*>[^<]*</MDI>|<Histograms>.*?</Histograms>|\s+", re.DOTALL)
_EMPTY = re.compile(rb"<(\w+)[^<>]*></\1>")
_ARCHIVED = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/")
_FAR = re.compile(r"^(?!(?:file|zip|tar|gzip|vrt):)[A-Za-z][\w+.-]*://|^/vsi(?!zip|tar|gzip|7z|rar|sparse|subfile)")
_INDEXED = ("GTI", "STACIT", "STACTA", "WMS", "WMTS", "WCS", "EEDAI")
"""GDAL drivers of rasters whose sources GDAL does not list."""
_SAMPLES, _SAMPLE = 3, 64


def fingerprint(dataset: Any, name: str, parts: Sequence[Path] | None = None) -> list[Any]:
    """Return JSON values that change with the content of a raster.

    Local files are identified by name, size, modification time and change time: the raster, its sidecars (.aux.xml,
    .msk, .ovr, world files, ...) and, recursively, the sources of virtual rasters. Statistics that programs such as
    QGIS add to an .aux.xml file do not count. A file on a web server or in object storage is identified by its headers
    (ETag, size, ...), another raster by its pixels.

    Args:
        dataset: open rasterio dataset.
        name: its path, URL or GDAL name.
        parts: local files of a raster that is made of them; None: those that GDAL knows.
    """
    shape = [dataset.width, dataset.height, dataset.count]
    if hasattr(dataset, "src_dataset"):  # a WarpedVRT
        place = [str(dataset.crs), list(dataset.transform), str(dataset.resampling), str(dataset.nodatavals)]
        return [*shape, place, fingerprint(dataset.src_dataset, name)]
    if parts is not None:
        return [*shape, *dataset.descriptions, *filter(None, map(_record, _with_sources(list(parts))))]
    # GDAL would list the whole folder of a server.
    names = [name] if _FAR.search(name) else dataset.files or [name]
    files = [file for file in (_local(one) for one in names) if file is not None]
    if not files:
        headers, indexed = remote_headers(name), dataset.driver in (*_INDEXED, "VRT")
        digest = [_digest(dataset, whole=name.startswith("/vsimem/"))] if indexed or not headers else []
        return [*shape, *digest, *([headers] if headers else [])]
    found: list[Any] = [*shape, *filter(None, map(_record, _with_sources(files)))]
    if dataset.driver in _INDEXED or any(_has_remote_source(file) for file in files):
        found.append(_digest(dataset))
    return found


def sidecars(name: str) -> list[Any]:
    """Describe the sidecars .aux.xml, .msk and .ovr that lie beside a local file now."""
    files = [Path(f"{name}{ending}") for ending in _SIDECARS]
    return list(filter(None, map(_record, (file for file in files if file.exists()))))


def _local(name: str) -> Path | None:
    """Return the file on the disk that holds a file of a dataset, such as an archive; None if there is none."""
    if os.path.lexists(name):
        return Path(name)
    match = _ARCHIVED.match(name)
    parts = Path(name[match.end() :] if match else "").parts
    archives = (Path(*parts[:number]) for number in range(1, len(parts) + 1))
    return next((archive for archive in archives if archive.is_file()), None)


def _with_sources(files: list[Path]) -> Iterator[Path]:
    """Yield files, the sources of those that are virtual rasters, and the sidecars of the sources; each once."""
    seen: set[str] = set()
    for file in files:
        sources = list(nested_sources(file)) if is_vrt(file) else []
        sidecars = [Path(f"{source}{ending}") for source in sources for ending in _SIDECARS]
        for one in (file, *sources, *(sidecar for sidecar in sidecars if sidecar.exists())):
            if (key := os.path.realpath(one)) not in seen:
                seen.add(key)
                yield one


def _has_remote_source(file: Path) -> bool:
    return is_vrt(file) and any(_local(source) is None for source in vrt_sources(file))


def _record(file: Path) -> list[Any] | None:
    """Describe a file; None for a sidecar of statistics only."""
    try:
        if file.name.endswith(".aux.xml"):
            text = _STATISTICS.sub(b"", file.read_bytes())
            while (shorter := _EMPTY.sub(b"", text)) != text:
                text = shorter
            return [file.name, hashlib.sha256(text).hexdigest()] if text else None
        status = file.stat()
    except OSError:
        return [file.name, None]
    return [file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest(dataset: Any, *, whole: bool = False) -> str:
    """Hash the pixels of a raster, or a sample of them."""
    digest = hashlib.sha256(repr((str(dataset.crs), tuple(dataset.transform), dataset.nodatavals)).encode())
    shape = dataset.height, dataset.width
    for box in blocks(*shape) if whole else sample_boxes(*shape, side=_SAMPLE, count=_SAMPLES):
        window = RasterWindow(box.left, box.top, box.width, box.height)
        for values in (dataset.read(window=window), dataset.dataset_mask(window=window)):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
