"""Explain why rasters cannot be read, and how to repair them."""

from __future__ import annotations

import mmap
import os
import re
import stat
import tarfile
import zipfile
from pathlib import Path

import rasterio

from lim_keras.raster.remote_names import is_on_network, public_name
from lim_keras.raster.vrt import is_vrt, nested_sources

_ABSENT = "not found. Expected a raster, such as a GeoTIFF."
_DAMAGED = "cannot be read; the file is truncated or damaged ({}). Replace it."
_NO_DRIVER = (
    "is {}, which this GDAL ({}) has no driver for. Convert it to GeoTIFF with a program that reads it "
    "(`gdal_translate`, QGIS)."
)
_HEADER_BYTES = 512
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_JPEG_PIXELS = 1024  # most pixels in a byte: a block of 8 x 8 pixels takes at least a bit

_RASTERS = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
    b"EHFA_HEADER",
    b"GIF8",
    b"BM",
    b"\x89HDF",
    b"CDF\x01",
    b"CDF\x02",
    b"NITF",
    b"GRIB",
)
"""First bytes of the raster formats that GDAL reads in every build."""

_FOREIGN = (
    (b"\x0e\x03\x13\x01", "an HDF4 file", "HDF4"),
    (b"\x89HDF", "an HDF5 file", "HDF5"),
    (b"CDF\x01", "a netCDF file", "netCDF"),
    (b"CDF\x02", "a netCDF file", "netCDF"),
    (b"msid", "a MrSID image", "MrSID"),
    (b"\0\0\0\x0cJXL", "a JPEG XL image", "JPEGXL"),
    (b"\xff\x0a", "a JPEG XL image", "JPEGXL"),
    (b"%PDF", "a PDF document", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\0\0\0\x18ftyp", "a HEIC or AVIF image", "HEIF"),
    (b"\0\0\0\x1cftyp", "a HEIC or AVIF image", "HEIF"),
    (b"\0\0\0\x20ftyp", "a HEIC or AVIF image", "HEIF"),
)
"""First bytes, name and GDAL driver of formats that not every build of GDAL reads."""

_BY_SUFFIX = {".ecw": "ECW", ".sid": "MrSID", ".hdf": "HDF4", ".jxl": "JPEGXL", ".heic": "HEIF", ".avif": "AVIF"}
_ARCHIVES = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "rar"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
)
_IMAGE_ENDINGS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")

_NETWORK = (
    (r"response code: 404|NoSuchKey|NoSuchBucket", "is not there: the server answers 404 ({}). Check the address."),
    (
        r"specified (key|bucket|container|blob|object) does not exist|BlobNotFound|ContainerNotFound",
        "is not there: the store answers: {} Check the address.",
    ),
    (r"should be of the form /vsi", "is not the address of a file ({}). Give one, such as s3://BUCKET/scene.tif."),
    (
        r"response code: (401|403)|Access ?Denied|Forbidden|SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken",
        "may not be read: the server refuses access ({}). Check the address and your credentials, or download the file "
        "and give its path.",
    ),
    (
        r"Range downloading not supported",
        "cannot be read over the network, because its server sends no parts of files (HTTP ranges). Download the file "
        "and give its path.",
    ),
    (
        r"_SECRET|_ACCESS_KEY|credentials|NO_SIGN_REQUEST|AccountKey|SAS",
        "needs credentials for its store ({}). Set them in the environment; for a public file set "
        "AWS_NO_SIGN_REQUEST=YES (or GS_NO_SIGN_REQUEST=YES, AZURE_NO_SIGN_REQUEST=YES).",
    ),
    (
        r"/vsicurl/.*not recognized",
        "is not a raster that GDAL can read ({}). The server may answer with a web page: open the address in a "
        "browser, or download the file and give its path.",
    ),
    (
        r"response code: \d+|CURL error|resolve host|timed? ?out|Failed to connect",
        "cannot be reached over the network ({}). Check the address and the connection, or download the file and give "
        "its path.",
    ),
)


def unreadable(name: str, error: BaseException) -> str:
    """Explain in one line why GDAL cannot open or read a raster, and what to do.

    Args:
        name: path, URL or GDAL name.
        error: exception of rasterio.
    """
    name, reason = public_name(name), public_name(" ".join(str(error.__cause__ or error).split()))
    for pattern, text in _NETWORK:
        if re.search(pattern, reason):
            return f"{name}: {text.format(reason)}"
    if is_on_network(name):
        return (
            f"{name}: a part of it could not be read over the network ({reason}). Check that its server answers, and "
            "repeat the call. If it fails again, the file may be damaged: download it and give its path."
        )
    path = Path(name)
    problem = unusable_path(path) if os.path.lexists(path) else None
    text = problem or _of_reason(reason) or _of_content(path, reason)
    return f"{name}: {text}"


def unusable_path(path: Path) -> str | None:
    """Explain why a local path cannot be opened, regardless of its content; None if it can."""
    try:
        status = path.stat()
    except OSError as error:
        if path.is_symlink():
            target = path.readlink()
            return f"is a link to {target}, which cannot be followed ({error.strerror}). Repair the link."
        return _ABSENT if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})."
    except ValueError:  # a zero byte in the name
        return _ABSENT
    if stat.S_ISDIR(status.st_mode):
        return (
            None
            if os.access(path, os.R_OK | os.X_OK)
            else "cannot be opened: you have no permission to read this folder. Change its permissions."
        )
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe, a socket or a device. Expected a raster file: GDAL must be able to read any part of it."
    if not os.access(path, os.R_OK):
        return f"cannot be opened: you have no permission to read it. Change its permissions (`chmod u+r {path.name}`)."
    if status.st_size == 0:
        return "is empty: the file has no bytes, as after an interrupted copy or download. Replace it."
    return None


def cut_jpeg(path: Path, pixels: int) -> str | None:
    """Explain that a JPEG file is truncated, because GDAL fills missing pixels with grey; None if it is complete."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        complete = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
        size = len(content)
    if complete and pixels <= size * _JPEG_PIXELS:
        return None
    return _DAMAGED.format("its scan ends before its last pixel")


def missing_source(path: Path) -> str | None:
    """Explain which source of a virtual raster is missing or unusable; None if all are there."""
    for source in nested_sources(path):
        problem = unusable_path(source)
        if problem is not None:
            shown = "is missing." if problem == _ABSENT else problem
            return (
                f"is a virtual raster (VRT), and its source {source} {shown} Put that file there, or build the VRT "
                "again (`gdalbuildvrt`)."
            )
    return None


def _of_reason(reason: str) -> str | None:
    """Explain a GDAL message about a missing codec, a lack of memory or an unsupported feature; None for others."""
    if codec := re.search(r"missing codec (?:of code )?(\w+)", reason):
        return (
            f"is compressed with {codec[1]}, which this GDAL ({rasterio.__gdal_version__}) cannot decode. Convert it "
            "with a GDAL that can (`gdal_translate -co COMPRESS=DEFLATE IN.tif OUT.tif`), and give the result."
        )
    if re.search(r"out of memory|cannot allocate|memory allocation|too (big|large)", reason, re.IGNORECASE):
        return (
            f"needs more memory than there is ({reason}). If its size is right, store it in tiles "
            "(`gdal_translate -co TILED=YES`); if not, the file is damaged."
        )
    if re.search(r"unsupported|not supported|not implemented|unhandled", reason, re.IGNORECASE):
        return (
            f"is stored in a way that this GDAL ({rasterio.__gdal_version__}) cannot read ({reason}). Convert it to "
            "GeoTIFF with the program that wrote it."
        )
    return None


def _of_content(path: Path, reason: str) -> str:
    """Explain the problem by the first bytes of a file."""
    if path.is_dir():
        return "is a folder, which GDAL does not read as a raster. Give a file in it."
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
    except (OSError, ValueError):
        return f"cannot be opened ({reason}). Check the name."
    for signature, what, driver in _FOREIGN:
        if start.startswith(signature) and not _has_driver(driver):
            return _NO_DRIVER.format(what, rasterio.__gdal_version__)
    for signature, kind in _ARCHIVES:
        if start.startswith(signature):
            return _of_archive(path, kind)
    if start.startswith(_RASTERS):
        return _DAMAGED.format(reason)
    if is_vrt(path):
        return _of_vrt(reason)
    return _of_text(start) or _of_unknown(path, start)


def _of_vrt(reason: str) -> str:
    if "cascaded" in reason:
        return "is a virtual raster (VRT) that names itself among its sources. Build it again (`gdalbuildvrt`)."
    if re.search(r"Parse error|XML|element|[Mm]issing|[Ii]nvalid|VRT\w*Band|SourceFilename", reason):
        return f"is a virtual raster (VRT) that GDAL cannot use ({reason}). Build it again (`gdalbuildvrt`)."
    return f"is a virtual raster (VRT), and one of its sources is truncated or damaged ({reason}). Replace that source."


def _of_archive(path: Path, kind: str) -> str:
    if kind == "gzip" and tarfile.is_tarfile(path):
        kind = "tar"
    inside = ""
    if kind == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [one for one in archive.namelist() if one.lower().endswith(_IMAGE_ENDINGS)]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            return _DAMAGED.format(f"a ZIP archive: {error}")
        if not names:
            return "is a ZIP archive without a raster. Give a raster, such as a GeoTIFF."
        inside = f", or give `/vsizip/{path}/{names[0]}`"
    elif kind == "gzip":
        inside = f", or give `/vsigzip/{path}`"
    return f"is an archive ({kind}), not a raster. Unpack it and give the raster in it{inside}."


def _of_text(start: bytes) -> str | None:
    """Explain that a file is text, such as a web page; None if it is not."""
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = head[:64].lower()
    if lower.startswith((b"<!doctype html", b"<html")):
        return (
            "is a web page (HTML), not a raster: the download gave an error or a login page. Download the file itself."
        )
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the raster itself. Fetch it (`git lfs pull`)."
    if head.startswith((b"<?xml", b"<")):
        return "is an XML file, not a raster; it may be the error message of a server. Give the raster itself."
    if head.startswith((b"{", b"[")):
        return "is a JSON file, not a raster; it may be the error message of a server. Give the raster itself."
    if head and all(byte in b"\t\r\n" or 32 <= byte < 127 or byte > 159 for byte in start):
        return "is a text file, not a raster. Give a raster, such as a GeoTIFF."
    return None


def _of_unknown(path: Path, start: bytes) -> str:
    driver = _BY_SUFFIX.get(path.suffix.lower(), "")
    if driver and not _has_driver(driver):
        return _NO_DRIVER.format(f"a {path.suffix} file", rasterio.__gdal_version__)
    if not any(start):
        return "cannot be read; the file starts with zeros, as after an interrupted copy or download. Replace it."
    version = rasterio.__gdal_version__
    return f"has a format that this GDAL ({version}) does not recognize. Give a raster, such as a GeoTIFF."


def _has_driver(name: str) -> bool:
    with rasterio.Env() as env:
        return name in env.drivers()
