"""Open the bands of a Sentinel-2 product as one raster on one grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from lim_keras.errors import DataError
from lim_keras.raster.opening import open_dataset
from lim_keras.raster.sentinel2 import RED_GREEN_BLUE, Product

_COLOURS = dict(zip(RED_GREEN_BLUE, ("Red", "Green", "Blue"), strict=True))
_OF_PIXEL = 0.01  # largest distance of images from one grid, pixels


@dataclass(frozen=True)
class _Image:
    """Header of an image of a band."""

    name: str
    crs: str
    transform: Affine
    width: int
    height: int


@dataclass(frozen=True)
class _Band:
    """Images of a band, one for each granule, and the grid around them."""

    name: str
    images: list[_Image]
    grid: _Image


@contextmanager
def open_bands(product: Product, bands: Sequence[str]) -> Iterator[Any]:
    """Open bands of a product as a rasterio dataset of reflectance x 10000 (uint16; 0 is no data).

    The grid is that of the finest band; the others are interpolated bilinearly. Granules of one CRS are joined.

    Raises:
        DataError: an image cannot be opened, or granules differ in CRS or do not lie on one grid.
    """
    found = {band: _headers(product, band) for band in dict.fromkeys(bands)}
    grid = min((one.grid for one in found.values()), key=lambda one: one.transform.a)
    with ExitStack() as stack:
        sources = {name: _sources(product, band, grid, stack) for name, band in found.items()}
        parts = [_raster_band(number, name, sources[name]) for number, name in enumerate(bands, start=1)]
        memory = stack.enter_context(MemoryFile(_dataset(grid, parts), ext=".vrt"))
        yield stack.enter_context(open_dataset(memory.name))


def _headers(product: Product, band: str) -> _Band:
    images = []
    for name in product.sources(band):
        with open_dataset(name) as image:
            if image.crs is None or image.count != 1 or image.transform.b or image.transform.d:
                raise DataError(
                    f"{product.name}: expected images of one band, with a CRS and north up. Received: {name}. Download "
                    "the product again."
                )
            images.append(_Image(name, image.crs.to_wkt(), image.transform, image.width, image.height))
    first = images[0]
    if any(one.crs != first.crs or one.transform.a != first.transform.a for one in images):
        granules = sorted(product.images[band])
        raise DataError(
            f"{product.name}: expected granules of one CRS. Received: {len(granules)} granules in several UTM zones. "
            f"Give them one by one, as folders of the unpacked product, such as GRANULE/{granules[0]}."
        )
    return _Band(band, images, _around(product, images))


def _around(product: Product, images: Sequence[_Image]) -> _Image:
    """Return the grid around all images; it has no name."""
    step = images[0].transform.a
    left, top = min(one.transform.c for one in images), max(one.transform.f for one in images)
    places = [((one.transform.c - left) / step, (top - one.transform.f) / step) for one in images]
    if any(abs(part - round(part)) > _OF_PIXEL for place in places for part in place):
        raise DataError(
            f"{product.name}: expected granules on one grid of pixels. Give them one by one, as "
            "folders of the unpacked product."
        )
    width = max(round(x) + one.width for (x, _), one in zip(places, images, strict=True))
    height = max(round(y) + one.height for (_, y), one in zip(places, images, strict=True))
    return _Image("", images[0].crs, Affine(step, 0, left, 0, -step, top), width, height)


def _sources(product: Product, band: _Band, grid: _Image, stack: ExitStack) -> list[str]:
    """Describe the sources of a band on a grid; a coarser band is warped to it."""
    stored = [_stored(product, band.name, image, band.grid) for image in band.images]
    if (band.grid.transform, band.grid.width, band.grid.height) == (grid.transform, grid.width, grid.height):
        return stored
    text = _dataset(band.grid, [_raster_band(1, band.name, stored)])
    memory = stack.enter_context(MemoryFile(text, ext=".vrt"))
    target = {"transform": grid.transform, "width": grid.width, "height": grid.height, "crs": grid.crs}
    warped = memory.name.replace(".vrt", "_warped.vrt")
    with (
        open_dataset(memory.name) as source,
        WarpedVRT(source, resampling=Resampling.bilinear, src_nodata=0, nodata=0, **target) as view,
    ):
        rasterio.shutil.copy(view, warped, driver="VRT")
    stack.callback(rasterio.shutil.delete, warped, driver="VRT")
    return [f"<SimpleSource>{_source(warped)}</SimpleSource>"]


def _stored(product: Product, band: str, image: _Image, grid: _Image) -> str:
    """Describe an image of a band, converted to reflectance x 10000, as a source of a raster of its resolution."""
    x = round((image.transform.c - grid.transform.c) / grid.transform.a)
    y = round((grid.transform.f - image.transform.f) / grid.transform.a)
    size = f'xSize="{image.width}" ySize="{image.height}"'
    boxes = f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{x}" yOff="{y}" {size}/>'
    pieces = product.lookup(band)
    table = "" if pieces is None else f"<LUT>{','.join(f'{number}:{value!r}' for number, value in pieces)}</LUT>"
    return f"<ComplexSource>{_source(image.name)}{boxes}<NODATA>{product.nodata}</NODATA>{table}</ComplexSource>"


def _source(name: str) -> str:
    return f'<SourceFilename relativeToVRT="0" shared="0">{escape(name)}</SourceFilename><SourceBand>1</SourceBand>'


def _raster_band(number: int, name: str, sources: Sequence[str]) -> str:
    colour = f"<ColorInterp>{_COLOURS[name]}</ColorInterp>" if name in _COLOURS else ""
    return (
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{name}</Description>'
        f"<NoDataValue>0</NoDataValue>{colour}{''.join(sources)}</VRTRasterBand>"
    )


def _dataset(grid: _Image, bands: Sequence[str]) -> bytes:
    place = ", ".join(repr(float(value)) for value in grid.transform.to_gdal())
    head = f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}"><SRS>{escape(grid.crs)}</SRS>'
    return f"{head}<GeoTransform>{place}</GeoTransform>{''.join(bands)}</VRTDataset>".encode()
