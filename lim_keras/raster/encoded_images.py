"""Read PNG and JPEG files."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
import numpy.typing as npt

from lim_keras.errors import DataError

Array = npt.NDArray[Any]

Format = Literal["png", "jpeg", "tiff"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_JPEG_SIGNATURE = b"\xff\xd8\xff"

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_PNG_BANDS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # by colour type, alpha apart (PNG specification, 11.2.2)

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the SOF markers (ITU-T T.81, table B.1)

_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Header:
    """What a PNG or JPEG says about itself: size in pixels, bands without alpha, and how absent pixels are marked."""

    width: int
    height: int
    bands: int
    dtype: str
    nodata: float | None = None
    palette: Array | None = None


def file_format(path: Path) -> Format:
    """`"png"`, `"jpeg"` or `"tiff"`, told by the first bytes and not by the name, for names are often wrong.

    Raises:
        DataError: the file cannot be opened, is empty, or is none of the three.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    if start == _PNG_SIGNATURE:
        return "png"
    if start.startswith(_JPEG_SIGNATURE):
        return "jpeg"
    if start.startswith(_TIFF_SIGNATURES):
        return "tiff"
    found = f"it starts with the bytes {start!r}" if start else "it is empty"
    raise DataError(f"{path}: expected a PNG, JPEG or TIFF file, but {found}.")


def read_header(path: Path, kind: Format) -> Header:
    """The header of a `"png"` or `"jpeg"` file; its pixels are neither read nor checked."""
    with path.open("rb") as stream:
        return _header(stream, kind, path)


def decode(path: Path, kind: Format) -> tuple[Header, Array, Array | None]:
    """Header, pixels (height, width, bands) in RGB order, and alpha (height, width) or None, of a `"png"` or `"jpeg"`.

    EXIF orientation is not applied: an image and its mask stay aligned as they are stored.

    Raises:
        DataError: the file is truncated, damaged or of a kind that is not supported.
    """
    data = path.read_bytes()
    header = _header(io.BytesIO(data), kind, path)
    _CHECKS[kind](data, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({error.err}).") from error
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise DataError(f"{path}: cannot be decoded; the file is damaged. Replace it.")
    bands, alpha = _split(pixels, header)
    return header, bands, alpha


def _split(pixels: Array, header: Header) -> tuple[Array, Array | None]:
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis], None
    alpha = np.ascontiguousarray(pixels[:, :, 3]) if pixels.shape[2] == 4 else None
    if header.bands == 1:  # OpenCV repeats the grey of a grey + alpha PNG three times
        return np.ascontiguousarray(pixels[:, :, :1]), alpha
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if alpha is not None else cv2.COLOR_BGR2RGB), alpha


def _header(stream: BinaryIO, kind: Format, path: Path) -> Header:
    try:
        return _png_header(stream, path) if kind == "png" else _jpeg_header(stream, path)
    except (struct.error, IndexError) as error:
        raise _truncated(path) from error


def _truncated(path: Path) -> DataError:
    return DataError(f"{path}: the file is truncated: it ends before its last pixel. Replace it.")


def _png_header(stream: BinaryIO, path: Path) -> Header:
    stream.seek(len(_PNG_SIGNATURE))
    chunks: dict[bytes, bytes] = {}
    while True:
        length, name = struct.unpack(">I4s", stream.read(8))
        if name in (b"IDAT", b"IEND"):
            break
        chunks[name] = stream.read(length)
        stream.seek(4, io.SEEK_CUR)
    if b"IHDR" not in chunks:
        raise DataError(f"{path}: the PNG has no header chunk; the file is damaged. Replace it.")
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if colour not in _PNG_BANDS:
        raise DataError(f"{path}: the PNG names colour type {colour}, which does not exist; the file is damaged.")
    palette = None
    if colour == 3:
        palette = np.frombuffer(chunks.get(b"PLTE", b""), np.uint8).reshape(-1, 3)
    transparent = chunks.get(b"tRNS")
    nodata = None
    if colour == 0 and depth >= 8 and transparent is not None:
        nodata = float(struct.unpack(">H", transparent)[0])
    return Header(width, height, _PNG_BANDS[colour], "uint16" if depth == 16 else "uint8", nodata, palette)


def _next_segment(stream: BinaryIO, path: Path) -> tuple[int, int]:
    """Marker and length of the next segment, the stream standing on its first byte of content."""
    byte = stream.read(1)[0]
    if byte != 0xFF:
        raise DataError(f"{path}: the JPEG's segments are damaged. Replace the file.")
    while byte == 0xFF:  # a marker may be padded with any number of 0xFF
        byte = stream.read(1)[0]
    length = struct.unpack(">H", stream.read(2))[0] - 2
    return byte, length


def _jpeg_header(stream: BinaryIO, path: Path) -> Header:
    stream.seek(2)
    while True:
        marker, length = _next_segment(stream, path)
        if marker in _JPEG_FRAMES:
            break
        stream.seek(length, io.SEEK_CUR)
    precision, height, width, bands = struct.unpack(">BHHB", stream.read(6))
    if precision != 8 or bands not in (1, 3):
        raise DataError(
            f"{path}: expected a JPEG of 8 bits with 1 or 3 bands, but it has {precision} bits and {bands} bands"
            f"{' (CMYK)' if bands == 4 else ''}. Convert it to RGB."
        )
    return Header(width, height, bands, "uint8")


def _check_png(data: bytes, path: Path) -> None:
    """Walk the chunks to IEND and compare each checksum."""
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise DataError(f"{path}: the file is damaged: the checksum of a PNG chunk does not fit. Replace it.")
        if name == b"IEND":
            return
        at = end
    raise _truncated(path)


def _check_jpeg(data: bytes, path: Path) -> None:
    """Look for the end-of-image marker behind the start of the scan; a thumbnail inside EXIF has one of its own.

    Damage within the scan, with nothing lost, cannot be told from an odd picture: JPEG has no checksums.
    """
    stream = io.BytesIO(data)
    stream.seek(2)
    try:
        marker, length = _next_segment(stream, path)
        while marker != 0xDA:
            stream.seek(length, io.SEEK_CUR)
            marker, length = _next_segment(stream, path)
    except (struct.error, IndexError) as error:
        raise _truncated(path) from error
    if data.find(_JPEG_END, stream.tell() + length) < 0:
        raise _truncated(path)


_CHECKS = {"png": _check_png, "jpeg": _check_jpeg}
