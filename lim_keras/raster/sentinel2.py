"""Sentinel-2 products (SAFE): their files, and the offsets and scales of their metadata."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from xml.etree import ElementTree

from lim_keras.errors import DataError

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Names of all bands; the position of a band is its number (`band_id`) in the metadata."""
RED_GREEN_BLUE = ("B04", "B03", "B02")
REFLECTANCE_ONE = 10_000  # harmonised value of reflectance 1

_COLOURS = dict(zip(("red", "green", "blue"), RED_GREEN_BLUE, strict=True))
_TRUE_COLOUR = {"L2A": 2000.0, "L1C": 3558.0}  # reflectance x 10000 of the brightest value of ESA's true-colour image
_METADATA = re.compile(r"(?:MTD_MSI(L1C|L2A)|S2\w_\w{4}_MTD_SAF(L1C|L2A)_.*)\.xml", re.IGNORECASE)
_IMAGE = re.compile(r"(?:.*/)?GRANULE/([^/]+)/IMG_DATA/(?:R\d\dm/)?[^/]*_(B\d\d|B8A)(?:_(\d\d)m)?\.jp2", re.IGNORECASE)
_IMAGE_FOLDERS = ("GRANULE/*/IMG_DATA", "GRANULE/*/IMG_DATA/R*m")
_OFFSETS = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
_SCALES = {
    "L1C": ("QUANTIFICATION_VALUE",),
    "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
}
_WITH_OFFSETS = (4, 90)  # processing baselines with offsets; 99.99 is a trial of the processor
_AGAIN = "Download or unpack it again."


class _Place(Protocol):
    """Files of a product, by name relative to its folder."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the images, and of other files."""
        ...

    def read(self, name: str) -> bytes: ...

    def gdal_name(self, name: str) -> str: ...

    def path(self, name: str) -> Path:
        """Return the local file that holds a file of the product."""
        ...


@dataclass(frozen=True)
class _Folder:
    root: Path

    @cached_property
    def names(self) -> Sequence[str]:
        images = (image for folder in _IMAGE_FOLDERS for image in self.root.glob(f"{folder}/*.jp2"))
        return sorted(image.relative_to(self.root).as_posix() for image in images)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def gdal_name(self, name: str) -> str:
        return str(self.path(name))

    def path(self, name: str) -> Path:
        return self.root / name


@dataclass(frozen=True)
class _Archive:
    file: Path
    root: str
    names: Sequence[str]

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self.file) as archive:
            return archive.read(self.root + name)

    def gdal_name(self, name: str) -> str:
        return f"/vsizip/{{{self.file.absolute()}}}/{self.root}{name}"

    def path(self, name: str) -> Path:
        return self.file


@dataclass(frozen=True)
class Product:
    """A Sentinel-2 product of level 1C or 2A.

    Attributes:
        name: path, as it was given; that of the folder, if its metadata file was given.
        level: "L1C" or "L2A".
        baseline: processing baseline, such as "05.10"; "" if the metadata does not give it.
        scale: digital numbers of reflectance 1.
        offsets: numbers that are added to digital numbers, by band.
        nodata, saturated: digital numbers without data, and of saturated pixels.
        images: file of the finest resolution of each band, by granule.
        metadata: name of the metadata file in the product.
        place: files of the product.
    """

    name: str
    level: str
    baseline: str
    scale: float
    offsets: Mapping[str, float]
    nodata: int
    saturated: int | None
    images: Mapping[str, Mapping[str, str]]
    metadata: str
    place: _Place = field(repr=False)

    @property
    def bands(self) -> list[str]:
        """Names of the bands that the product holds."""
        return [band for band in BANDS if band in self.images]

    @property
    def true_colour(self) -> tuple[float, float]:
        """Reflectance x 10000 of the darkest and the brightest value of ESA's true-colour image of this level."""
        return 0.0, _TRUE_COLOUR[self.level]

    def chosen(self, wanted: Sequence[int | str] | None) -> list[str]:
        """Return the names of bands; None: B04, B03, B02 (red, green, blue).

        A number is that of the band: 4 is B04. Names are B01 to B12 and B8A, with or without zero, and red, green and
        blue; case does not matter.

        Raises:
            DataError: the product has no such band.
        """
        found = []
        for one in RED_GREEN_BLUE if wanted is None else wanted:
            name = _band_name(one)
            if name not in self.images:
                raise DataError(
                    f"{self.name}: has no band {one!r}. Expected Sentinel-2 bands of this product ({self.level}): "
                    f"{', '.join(self.bands)}; a number is that of the band, such as 4 for B04."
                )
            found.append(name)
        return found

    def sources(self, band: str) -> list[str]:
        """Return GDAL's names of the images of a band, one for each granule."""
        granules = sorted({granule for images in self.images.values() for granule in images})
        if lacking := [granule for granule in granules if granule not in self.images[band]]:
            raise DataError(f"{self.name}: has no image of band {band} in its granule {lacking[0]}. {_AGAIN}")
        return [self.place.gdal_name(self.images[band][granule]) for granule in granules]

    def files(self, bands: Sequence[str]) -> list[Path]:
        """Return the local files that are read for bands, with the metadata."""
        names = [self.metadata, *(name for band in bands for _, name in sorted(self.images[band].items()))]
        return list(dict.fromkeys(self.place.path(name) for name in names))

    def lookup(self, band: str) -> list[tuple[int, float]] | None:
        """Return the linear pieces that convert digital numbers of a band to reflectance x 10000; None: no conversion.

        Values with data become at least 1, because 0 is no data. Saturated pixels stay saturated.

        Raises:
            DataError: the metadata gives offsets of other bands, but not of this one.
        """
        if self.offsets and band not in self.offsets:
            raise DataError(f"{self.name}: its metadata gives no offset of band {band}, but of others. {_AGAIN}")
        offset, ratio = self.offsets.get(band, 0.0), REFLECTANCE_ONE / self.scale
        if offset == 0 and ratio == 1 and self.nodata == 0:
            return None
        darkest = max(int(-(-(1 / ratio - offset) // 1)), 1)  # the smallest number that becomes at least 1
        pieces = {0: 1.0 if self.nodata else 0.0, 1: 1.0}
        pieces |= {number: max((number + offset) * ratio, 1.0) for number in (darkest, 65534, 65535)}
        if self.saturated == 65535:
            pieces[65535] = 65535.0
        return list(pieces.items())

    def damaged(self, error: BaseException) -> str:
        """Explain in one line that an image cannot be read."""
        reason = " ".join(str(error.__cause__ or error).split())
        return f"{self.name}: an image of a band cannot be read; it is truncated or damaged ({reason}). {_AGAIN}"

    def describe(self, bands: Sequence[str]) -> dict[str, Any]:
        """Describe the conversion in JSON values."""
        return {
            "level": self.level,
            "processing_baseline": self.baseline,
            "bands": list(bands),
            "quantification_value": self.scale,
            "offsets": {band: self.offsets.get(band, 0.0) for band in bands},
        }


def product_stem(name: str | os.PathLike[str]) -> str | None:
    """Return the name of the product at a local path, without .SAFE; None for other files. Opens no archive."""
    path = Path(name).absolute()
    if _METADATA.fullmatch(path.name) or path.name == "MTD_TL.xml":
        path = path.parent
    elif not path.is_dir():
        return re.sub(r"\.SAFE$", "", path.stem, flags=re.IGNORECASE) if path.suffix.lower() == ".zip" else None
    return re.sub(r"\.SAFE$", "", path.name, flags=re.IGNORECASE)


def is_product(path: Path) -> bool:
    """Return whether a path is a folder, a metadata file or an archive of a Sentinel-2 product, complete or not."""
    try:
        if not path.is_dir():
            return _METADATA.fullmatch(path.name) is not None or (
                path.suffix.lower() == ".zip" and _in_file(path) is not None
            )
        return _in_folder(path) is not None or path.parent.name == "GRANULE"
    except DataError:
        return True


def find_product(name: str) -> Product | None:
    """Return the product at a local path: a SAFE folder, its metadata file, a granule in it, or a ZIP archive of one.

    None: there is something else.

    Raises:
        DataError: the product is incomplete, or its metadata cannot be used.
    """
    path, granule = Path(name), None
    if path.name == "MTD_TL.xml":
        path = path.parent
    if path.name in ("", "..") or path.parent == Path():  # "." and MTD_MSIL2A.xml have no name of a product
        path = path.absolute()
    is_part = bool(_METADATA.fullmatch(path.name)) or path.name == "manifest.safe"
    if path.is_dir() and path.absolute().parent.name == "GRANULE":
        granule, path = path.absolute().name, path.absolute().parents[1]
    found = _in_folder(path) if path.is_dir() else _in_file(path)
    if found is None and granule is None:
        return None
    if found is None:
        raise DataError(f"{name}: expected the metadata of its product (MTD_MSIL2A.xml or MTD_MSIL1C.xml) in {path}.")
    place, metadata = found
    if is_part or Path(name).name in ("", "MTD_TL.xml"):
        name = str(path.parent if is_part else path)
    images = _images(place.names, granule)
    if not images:
        raise DataError(f"{name}: is a Sentinel-2 product without images of bands (GRANULE/*/IMG_DATA/*.jp2). {_AGAIN}")
    try:
        root = ElementTree.fromstring(place.read(metadata))
    except (ElementTree.ParseError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{name}: its metadata {metadata} cannot be read ({error}). {_AGAIN}") from error
    return _described(name, root, images, (place, metadata))


def _in_folder(root: Path) -> tuple[_Place, str] | None:
    is_safe = root.absolute().suffix.upper() == ".SAFE"
    try:
        inside = sorted(root.iterdir())
        for folder in (root, *(one for one in inside if is_safe and one.is_dir())):
            if metadata := sorted(one.name for one in folder.iterdir() if _METADATA.fullmatch(one.name)):
                return _Folder(folder), metadata[0]
    except OSError:
        return None
    if is_safe:
        received = ", ".join(one.name for one in inside[:3]) or "an empty folder"
        raise DataError(
            f"{root}: expected a Sentinel-2 product of level 1C or 2A, with MTD_MSIL1C.xml or MTD_MSIL2A.xml. "
            f"Received: {received}. {_AGAIN} Products of other levels and missions cannot be read."
        )
    return None


def _in_file(path: Path) -> tuple[_Place, str] | None:
    if _METADATA.fullmatch(path.name):
        return _Folder(path.parent), path.name
    if path.name == "manifest.safe":
        return _in_folder(path.parent)
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            names = [one for one in archive.namelist() if "__MACOSX/" not in one]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return None  # GDAL's error explains it
    metadata = [one for one in names if _METADATA.fullmatch(PurePosixPath(one).name)]
    if len(metadata) > 1:
        raise DataError(
            f"{path}: expected an archive of one Sentinel-2 product. Received: {len(metadata)}, such as {metadata[0]}. "
            "Unpack it, and give the folders in it."
        )
    if not metadata:
        return None
    root = metadata[0][: -len(PurePosixPath(metadata[0]).name)]
    inside = tuple(one[len(root) :] for one in names if one.startswith(root))
    return _Archive(path, root, inside), metadata[0][len(root) :]


def _images(names: Sequence[str], granule: str | None) -> dict[str, dict[str, str]]:
    """Return the images by band and granule, the finest of each; `granule`: only those of one."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for name in names:
        if (match := _IMAGE.fullmatch(name)) and granule in (None, match[1]):
            known = found.setdefault(match[2].upper(), {})
            known[match[1]] = min(known.get(match[1], (99, "")), (int(match[3] or 0), name))
    return {band: {key: image[1] for key, image in images.items()} for band, images in found.items()}


def _described(
    name: str, root: ElementTree.Element, images: dict[str, dict[str, str]], source: tuple[_Place, str]
) -> Product:
    """Read level, scale, offsets and special values of the metadata."""
    place, metadata = source
    tags: dict[str, list[ElementTree.Element]] = {}
    for one in root.iter():
        tags.setdefault(one.tag.rpartition("}")[2], []).append(one)
    match = re.match(r"Level-(1C|2A)_User_Product", root.tag.rpartition("}")[2])
    where = f"{name}: its metadata {metadata}"
    if match is None:
        raise DataError(f"{where} is not that of a product of level 1C or 2A. {_AGAIN}")
    level = f"L{match[1]}"
    scales = [one for tag in _SCALES[level] for one in tags.get(tag, [])]
    baseline = (next(iter(tags.get("PROCESSING_BASELINE", [])), root).text or "").strip()
    offsets = _offsets(where, baseline, [one for tag in _OFFSETS for one in tags.get(tag, [])])
    special = _special(tags)
    if not scales or _number(where, scales[0]) <= 0:
        raise DataError(f"{where} gives no {_SCALES[level][0]} above 0, the digital number of reflectance 1. {_AGAIN}")
    return Product(
        name=name,
        level=level,
        baseline=baseline,
        scale=_number(where, scales[0]),
        offsets=offsets,
        nodata=special.get("NODATA", 0),
        saturated=special.get("SATURATED"),
        images=images,
        metadata=metadata,
        place=place,
    )


def _offsets(where: str, baseline: str, elements: list[ElementTree.Element]) -> dict[str, float]:
    """Return the offset of each band; processing baselines before 04.00 have none."""
    found = {}
    for one in elements:
        number = one.get("band_id", "")
        if not number.isdecimal() or int(number) >= len(BANDS):
            raise DataError(f"{where} gives an offset for an unknown band (band_id {number!r}). {_AGAIN}")
        found[BANDS[int(number)]] = _number(where, one)
    first, last = _WITH_OFFSETS
    if not found and re.fullmatch(r"\d+\.\d+", baseline) and first <= float(baseline) < last:
        raise DataError(f"{where} gives no offsets of bands, which its processing baseline {baseline} has. {_AGAIN}")
    return found


def _special(tags: Mapping[str, list[ElementTree.Element]]) -> dict[str, int]:
    """Return digital numbers with a meaning of their own."""
    found = {}
    for one in tags.get("Special_Values", []):
        texts = [(part.text or "").strip() for part in one]
        if len(texts) == 2 and texts[1].isdecimal():
            found[texts[0].upper()] = int(texts[1])
    return found


def _number(where: str, element: ElementTree.Element) -> float:
    try:
        return float(element.text or "")
    except ValueError as error:
        tag = element.tag.rpartition("}")[2]
        raise DataError(f"{where} gives no number as {tag} ({element.text!r}). {_AGAIN}") from error


def _band_name(band: int | str) -> str:
    """Return B01 to B12 or B8A for a number or a name; other text is returned as it is."""
    text = str(band).strip().lower()
    match = re.fullmatch(r"b?0*(\d{1,2})(a?)", text)
    if match is None:
        return _COLOURS.get(text, text)
    return f"B{match[1]}A" if match[2] else f"B{int(match[1]):02}"
