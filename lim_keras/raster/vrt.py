"""Read and write virtual rasters of GDAL (VRT)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

_SOURCE = re.compile(rb"<Source(?:Filename|Dataset)([^>]*)>([^<]+)<")
_VRT_BYTES = 2**28  # more than a mosaic of a million files needs
_DATA = 255  # value of a mask for pixels with data
_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}


def is_vrt(path: Path) -> bool:
    """Return whether a local file is a virtual raster."""
    try:
        with path.open("rb") as file:
            return b"<VRTDataset" in file.read(1024)
    except (OSError, ValueError):
        return False


def vrt_sources(path: Path) -> list[str]:
    """List the sources that a virtual raster names, each once; relative names are resolved."""
    with path.open("rb") as file:
        text = file.read(_VRT_BYTES)
    found = []
    for match in _SOURCE.finditer(text):
        name = html.unescape(match[2].decode("utf-8", "replace")).strip()
        beside = re.search(rb"relativeToVRT\s*=\s*[\"']1", match[1]) is not None
        found.append(str(path.parent / name) if beside and not name.startswith("/vsi") else name)
    return list(dict.fromkeys(found))


def nested_sources(path: Path) -> Iterator[Path]:
    """Yield the local sources of a virtual raster and, of those that are virtual rasters, their sources."""
    seen, waiting = {path.resolve()}, [path]
    while waiting:
        for name in vrt_sources(waiting.pop()):
            source = Path(name)
            if (place := source.resolve()) in seen or re.match(r"/vsi\w+/|[A-Za-z][\w+.-]+:", name):
                continue
            seen.add(place)
            yield source
            if is_vrt(source):
                waiting.append(source)


def masked_vrt(
    dataset: Any, name: str, bands: Sequence[int], marks: Sequence[tuple[str, float | None]], srs: str
) -> str:
    """Describe a raster that holds bands of a dataset, and a mask of the pixels that hold data.

    Args:
        dataset: open rasterio dataset.
        name: name by which GDAL opens the dataset.
        bands: bands of the result.
        marks: sources of the mask, a band ("4") or the mask of a band ("mask,4"), each with its value for no data
            (None: only values that are not finite). A pixel holds data where all of them do.
        srs: coordinate reference system, "" for none.
    """
    shown = f'<SourceFilename relativeToVRT="0" shared="0">{escape(name)}</SourceFilename>'
    size = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
    lines = [f"<VRTDataset {size}>"]
    if srs:
        lines.append(f"<SRS>{escape(srs)}</SRS>")
    lines.append(
        f"<GeoTransform>{', '.join(repr(float(value)) for value in dataset.transform.to_gdal())}</GeoTransform>"
    )
    for number, band in enumerate(bands, start=1):
        kind = _GDAL_TYPES[np.dtype(dataset.dtypes[band - 1]).name]
        source = f"<SimpleSource>{shown}<SourceBand>{band}</SourceBand></SimpleSource>"
        lines.append(f'<VRTRasterBand dataType="{kind}" band="{number}">{source}</VRTRasterBand>')
    if not marks:
        return "\n".join([*lines, "</VRTDataset>"])
    lines.append('<MaskBand><VRTRasterBand dataType="Byte" subClass="VRTDerivedRasterBand">')
    lines.append("<PixelFunctionType>min</PixelFunctionType>")
    # Each source becomes 255, except where it has its value for no data. NaN x 0 + 255 becomes 0.
    constant = f"<ScaleOffset>{_DATA}</ScaleOffset><ScaleRatio>0</ScaleRatio>"
    for mark, nodata in [*marks, *marks[:1]]:  # GDAL's minimum needs two sources
        value = "" if nodata is None else f"<NODATA>{nodata!r}</NODATA>"
        source = f"{shown}<SourceBand>{mark}</SourceBand>{constant}{value}"
        lines.append(f"<ComplexSource>{source}</ComplexSource>")
    return "\n".join([*lines, "</VRTRasterBand></MaskBand>", "</VRTDataset>"])
