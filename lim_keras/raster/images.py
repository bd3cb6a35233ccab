"""Read images of tiles, and which of their pixels hold data; check PNG and JPEG files."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from rasterio.enums import ColorInterp

from lim_keras.errors import DataError
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.opening import band_colours, explained, silenced
from lim_keras.raster.reader import RasterReader

Array = NDArray[Any]
Format = Literal["png", "jpeg", "tiff"]
IMAGE_DTYPES = ("uint8", "uint16", "float32")
_SIGNATURES: dict[bytes, Format] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
}
_GREY = ("1", "L", "LA", "I", "I;16")
_PIXELS_PER_BYTE = (1024, 8256)  # limits of JPEG (a bit for 8 x 8 pixels) and PNG (1032:1, a bit each)
_PNG_DEPTH_AT = 24  # byte after signature, chunk length and name, width and height
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"tiff:Orientation")
_BIG_TIFF = (b"II+\0", b"MM\0+")
_SOFT_SHARE = 0.1
"""Largest share of partly transparent pixels in an alpha band; an image band tagged as alpha holds more."""


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a PNG or JPEG: size in pixels, bands without alpha, data type, nodata value, and palette (n, 3)."""

    width: int
    height: int
    bands: int
    dtype: str
    nodata: float | None = None
    palette: Array | None = None

    def info(self, path: Path) -> RasterInfo:
        """Return the header of a raster without a georeference."""
        return RasterInfo(path, self.width, self.height, self.bands, self.dtype, "", None, None, self.nodata)


def file_format(path: Path) -> Format:
    """Detect the file format by the first bytes, because file names are often wrong."""
    if path.exists() and not path.is_file():  # reading a pipe would not end
        raise DataError(f"{path}: cannot be opened (it is not a regular file).")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    found = f"it starts with the bytes {start!r}" if start else "it is empty"
    raise DataError(f"{path}: expected a PNG, JPEG or TIFF file, but {found}.")


def read_header(path: Path, kind: Format) -> Header:
    """Read the header of a `"png"` or `"jpeg"` file; its pixels are neither read nor checked."""
    with _opened(path, kind) as image:
        return _header(image, path)


def decode(path: Path, kind: Format) -> tuple[Header, Array, Array | None]:
    """Read header, pixels (height, width, bands) in RGB order, and alpha (height, width) or None.

    EXIF orientation is not applied; see `read_orientation`. JPEG has no checksums, so damage inside a complete scan is
    not detected.
    """
    data = path.read_bytes()
    with _opened(path, kind) as image:
        header = _header(image, path)
        # Pillow accepts truncated files. The search starts at the scan, after a thumbnail with its own end marker.
        end = _PNG_END if kind == "png" else _JPEG_END
        if image.fp is None or data.find(end, image.fp.tell()) < 0:
            raise DataError(f"{path}: the file is truncated: it ends before its last pixel. Replace it.")
        if kind == "jpeg":
            return header, np.array(image).reshape(header.height, header.width, -1), None
        image.verify()  # checksums of the chunks
        # OpenCV decodes the pixels, because Pillow has no mode for 16 bits in three bands.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise DataError(f"{path}: cannot be decoded; the file is damaged. Replace it.")
    return (header, *_split(pixels, header))


def _split(pixels: Array, header: Header) -> tuple[Array, Array | None]:
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis], None
    alpha = np.ascontiguousarray(pixels[:, :, 3]) if pixels.shape[2] == 4 else None
    if header.bands == 1:  # OpenCV repeats the grey of a grey + alpha PNG three times
        return np.ascontiguousarray(pixels[:, :, :1]), alpha
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if alpha is not None else cv2.COLOR_BGR2RGB), alpha


@contextmanager
def _opened(path: Path, kind: Format) -> Iterator[ImageFile]:
    """Open with the format's plugin, because `PIL.Image.open` refuses large images; raise a DataError for damage."""
    try:
        with silenced(UserWarning):  # Pillow warns of damaged EXIF
            image = PngImageFile(path) if kind == "png" else JpegImageFile(path)
        with image:
            yield image
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, cv2.error) as error:
        raise DataError(f"{path}: the file is truncated or damaged ({error}). Replace it.") from error


def _header(image: ImageFile, path: Path) -> Header:
    if image.mode not in (*_GREY, "P", "RGB", "RGBA"):
        found = f"{len(image.getbands())} bands ({image.mode})"
        raise DataError(
            f"{path}: expected an image of 1 or 3 bands. Received: {found}. Convert it to RGB "
            f"(`gdal_translate -b 1 -b 2 -b 3 {path.name} rgb.tif`)."
        )
    size = path.stat().st_size
    if image.width * image.height > size * _PIXELS_PER_BYTE[isinstance(image, PngImageFile)]:
        raise DataError(
            f"{path}: its header says {image.width} x {image.height} px, more than a file of {size} bytes can hold. It "
            "is truncated or damaged. Replace it."
        )
    frames = getattr(image, "n_frames", 1)
    if isinstance(image, PngImageFile) and frames > 1:
        raise DataError(f"{path}: expected one image. Received: an animation of {frames} frames. Save one frame.")
    depth = 8
    if isinstance(image, PngImageFile):
        with path.open("rb") as stream:
            depth = stream.read(_PNG_DEPTH_AT + 1)[-1]
    bands = 1 if image.mode in _GREY else 3
    transparent = image.info.get("transparency")
    nodata = None
    if bands == 1 and isinstance(transparent, int):  # OpenCV scales fewer than 8 bits to 0..255
        nodata = float(transparent if depth >= 8 else transparent * 255 // (2**depth - 1))
    palette = None
    if image.mode == "P" and image.palette is not None:
        palette = np.frombuffer(bytes(image.palette.palette), np.uint8).reshape(-1, 3)
    dtype = "uint16" if depth == 16 else "uint8"
    return Header(*image.size, bands, dtype, nodata, palette)


def read_info(path: str | os.PathLike[str], *, measured: bool = True) -> RasterInfo:
    """Read the header of a PNG, JPEG or TIFF file, without its pixels; `measured` is as for `RasterReader`.

    Raises:
        DataError: not a file of these formats, or its header is damaged.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with explained(path), RasterReader(path, measured=measured) as reader:
            return reader.info
    return read_header(path, kind).info(path)


def read_image(path: str | os.PathLike[str]) -> Array:
    """Read an image (height, width, bands) in its own dtype: uint8, uint16 or float32; PNG and JPEG in RGB order.

    Raises:
        DataError: unreadable, truncated or of another dtype; or a TIFF has a palette, several pages or an image band
            tagged as alpha.
    """
    path = Path(path)
    kind = file_format(path)
    if kind != "tiff":
        return decode(path, kind)[1]
    with _tile_reader(path) as reader:
        return reader.pixels()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Content of an image file.

    Attributes:
        info: header.
        pixels: (height, width, bands), see `read_image`.
        valid: mask (height, width) of the pixels with data, see `read_valid`.
    """

    info: RasterInfo
    pixels: Array
    valid: NDArray[np.bool_]


def read_decoded_image(path: str | os.PathLike[str]) -> DecodedImage:
    """Read an image as `read_image` does, with its header and the mask of its pixels with data; opens the file once.

    Raises:
        DataError: as in `read_image`, or the alpha channel of a PNG looks like an image band.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with _tile_reader(path) as reader:
            return DecodedImage(reader.info, *reader.image())
    header, pixels, alpha = decode(path, kind)
    if alpha is not None and _is_image_band(alpha):
        raise DataError(
            f"{path}: its alpha channel varies more than a mask does. If it is an image band, such as near infrared, "
            "save the bands as a TIFF without alpha. If it is a mask, set each value to 0 or to the largest value."
        )
    return DecodedImage(header.info(path), pixels, _valid(header, pixels, alpha))


def read_valid(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """Read the mask (height, width) of pixels with data, from nodata value, internal mask, alpha and finite values.

    A pixel lacks data if one of its bands holds the nodata value; see `lim_keras.raster.validity.Validity`.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with explained(path), RasterReader(path, measured=False) as reader:
            return reader.valid()
    return _valid(*decode(path, kind))


def read_orientation(path: str | os.PathLike[str]) -> int:
    """Read the EXIF orientation of a PNG, JPEG or TIFF file, 1 to 8: 1 is as stored, viewers turn or flip the others.

    Metadata that cannot be read count as 1, as in a viewer.
    """
    path = Path(path)
    kind = file_format(path)
    found: Any = 1
    with suppress(DataError, OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error):
        if kind == "tiff":
            found = _tiff_orientation(path)
        elif kind == "jpeg" or any(name in path.read_bytes() for name in _PNG_ORIENTATION):
            with _opened(path, kind) as image, silenced(UserWarning):
                found = image.getexif().get(Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def check_one_page(reader: RasterReader) -> None:
    """Refuse a TIFF of several pages, because GDAL reads the first one only."""
    pages = len(reader.pages)
    if pages > 1:
        raise DataError(
            f"{reader.name}: expected one image. Received: a TIFF of {pages} pages. Save the page that you need "
            f"(`gdal_translate GTIFF_DIR:1:{reader.name} page.tif`)."
        )


def fill_invalid(image: Array, valid: NDArray[np.bool_]) -> Array:
    """Set pixels without data to the band's mean over `valid` (height, width) pixels; 0 if none is valid.

    Otherwise a nodata value such as -9999 or NaN would change the predictions of neighbouring pixels.
    """
    if valid.all():
        return image
    filled = image.copy()
    mean = image[valid].mean(axis=0, dtype=np.float64) if valid.any() else np.zeros(image.shape[-1])
    filled[~valid] = (np.rint(mean) if image.dtype.kind in "ui" else mean).astype(image.dtype)
    return filled


@contextmanager
def _tile_reader(path: Path) -> Iterator[RasterReader]:
    """Open a TIFF as the image of a tile."""
    with explained(path), RasterReader(path, measured=False) as reader:
        if reader.info.dtype not in IMAGE_DTYPES:
            raise DataError(
                f"{path}: expected an image of {', '.join(IMAGE_DTYPES)}, but it is {reader.info.dtype}. "
                "Convert it (for example `gdal_translate -ot Float32`)."
            )
        if reader.has_palette:
            raise DataError(f"{path}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
        check_one_page(reader)
        _check_alpha(reader.dataset, path)
        yield reader


def _valid(header: Header, pixels: Array, alpha: Array | None) -> NDArray[np.bool_]:
    if alpha is not None:
        return np.asarray(alpha > 0, dtype=np.bool_)
    if header.nodata is not None:
        return np.asarray((pixels != header.nodata).all(axis=-1), dtype=np.bool_)
    return np.ones(pixels.shape[:2], dtype=np.bool_)


def _tiff_orientation(path: Path) -> Any:
    with path.open("rb") as stream, silenced(UserWarning):
        start = stream.read(4)
        directory = ImageFileDirectory_v2(start + stream.read(12 if start in _BIG_TIFF else 4))
        stream.seek(directory.next)
        directory.load(stream)
    return directory.get(Base.Orientation, 1)


def _check_alpha(dataset: Any, path: Path) -> None:
    """Refuse an image band tagged as alpha: many writers tag the fourth of four uint8 bands, often near infrared."""
    if ColorInterp.alpha not in band_colours(dataset):
        return
    index = band_colours(dataset).index(ColorInterp.alpha) + 1
    if _is_image_band(dataset.read(index)):
        raise DataError(
            f"{path}: band {index} is tagged as alpha, but it holds more than the values of a mask. "
            f"If it is an image band, say so: `gdal_edit.py -colorinterp_{index} undefined {path.name}`."
        )


def _is_image_band(alpha: Array) -> bool:
    """Return whether an alpha band (height, width) holds partly transparent pixels beyond the soft edge of a mask."""
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "ui" else 1
    return bool(np.isin(alpha, (0, 1, opaque), invert=True).mean() > _SOFT_SHARE)
