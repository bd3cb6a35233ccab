"""Rule that tells which pixels of a raster hold data."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from lim_keras.raster.opening import band_colours, open_dataset
from lim_keras.raster.vrt import masked_vrt

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]

Nodata = float | Literal["file", "none"]
"""Pixels without data. "file": those that the file marks (nodata value, mask, alpha); a number: the same, with the
number instead of the file's nodata value; "none": only NaN and infinite values."""

_LARGEST = frozenset(np.iinfo(dtype).max for dtype in ("uint8", "int16", "uint16"))
_ROUNDING_ULPS = 10  # nodata values are written as text, with fewer digits than a float has; GDAL allows the same


@dataclass(frozen=True)
class Validity:
    """Rule that tells which pixels hold data, for reading, warping, overviews, previews and counts.

    A pixel holds data if every alpha band and every mask is above 0, no band that is read holds its nodata value, and
    all bands that are read are finite. An alpha band that is read as an image band does not count.

    Attributes:
        alpha: numbers of the alpha bands.
        masks: numbers of the bands whose masks count; one is enough where all bands share a mask.
        nodata: nodata value of each band that is read; None where no pixel can hold it.
        floats: the bands hold floating-point numbers.
    """

    alpha: tuple[int, ...]
    masks: tuple[int, ...]
    nodata: tuple[float | None, ...]
    floats: bool

    @classmethod
    def of(cls, dataset: Any, bands: Sequence[int], nodata: Nodata) -> Validity:
        """Derive the rule for bands of a dataset."""
        dtype = np.dtype(dataset.dtypes[bands[0] - 1])
        if nodata == "none":
            return cls((), (), (None,) * len(bands), dtype.kind == "f")
        kinds = enumerate(band_colours(dataset), start=1)
        alpha = tuple(band for band, kind in kinds if kind is ColorInterp.alpha and band not in bands)
        declared = [dataset.nodatavals[band - 1] for band in bands] if nodata == "file" else [nodata] * len(bands)
        values = tuple(_possible(value, dtype) for value in declared)
        return cls(alpha, tuple(_masks(dataset, bands, nodata)), values, dtype.kind == "f")

    @property
    def everywhere(self) -> bool:
        """True if every pixel holds data, regardless of its values."""
        return not (self.alpha or self.masks or self.floats or self.has_values)

    @property
    def has_values(self) -> bool:
        """True if a band has a nodata value."""
        return any(value is not None for value in self.nodata)

    @property
    def has_ambiguous_values(self) -> bool:
        """True if a nodata value may also be the value of dark or saturated ground."""
        return not self.floats and any(value is not None and (value == 0 or value in _LARGEST) for value in self.nodata)

    @property
    def needs_pixels(self) -> bool:
        """True if the rule depends on the values of the bands."""
        return self.floats or self.has_values

    def valid(self, shape: tuple[int, int], pixels: Pixels | None, marks: Iterable[Pixels]) -> Mask:
        """Apply the rule.

        Args:
            shape: height and width.
            pixels: (height, width, bands) of the bands that are read; None: see `needs_pixels`.
            marks: values (height, width) of alpha bands and masks.
        """
        valid = np.ones(shape, np.bool_)
        for mark in marks:
            valid &= mark > 0
        if pixels is None:
            return valid
        if self.has_values:
            valid &= ~_in_some_band(self._holds_nodata(pixels))
        if self.floats:
            valid &= ~_in_some_band(~np.isfinite(pixels))
        return valid

    def _holds_nodata(self, pixels: Pixels) -> Mask:
        """Return which values (height, width, bands) are the nodata value of their band."""
        if len(set(self.nodata)) == 1 and self.nodata[0] is not None:  # one pass over all bands is quicker
            return _equal(pixels, self.nodata[0])
        held = np.zeros(pixels.shape, np.bool_)
        for band, nodata in enumerate(self.nodata):
            if nodata is not None:
                held[..., band] = _equal(pixels[..., band], nodata)
        return held

    def partly(self, pixels: Pixels) -> Mask:
        """Return which pixels hold the nodata value in some of the bands that have one, but not in all."""
        held = self._holds_nodata(pixels)
        some = _in_some_band(held)
        if some.any():
            held[..., [value is None for value in self.nodata]] = True
            some &= _in_some_band(~held)
        return some

    def sources(self, bands: Sequence[int]) -> list[tuple[str, float | None]]:
        """List the sources of the rule for `lim_keras.raster.vrt.masked_vrt`."""
        marks: list[tuple[str, float | None]] = [(str(band), 0) for band in self.alpha]
        marks += [(f"mask,{band}", 0) for band in self.masks]
        if self.needs_pixels:
            marks += [(str(band), value) for band, value in zip(bands, self.nodata, strict=True)]
        return marks

    def describe(self, nodata: Nodata) -> dict[str, Any]:
        """Describe the rule in JSON values, with the option that chose it."""
        values = [None if value is None else _as_json(value) for value in self.nodata]
        return {
            "nodata_option": _as_json(nodata) if isinstance(nodata, float | int) else nodata,
            "alpha_bands": list(self.alpha),
            "mask": None if not self.masks else "dataset" if len(self.masks) == 1 else "bands",
            "nodata_values": values if self.has_values else None,
            "not_finite_is_no_data": self.floats,
        }


def is_marked(dataset: Any) -> bool:
    """Return whether a dataset has a nodata value, a mask or an alpha band that GDAL follows."""
    with_flags = any(flags != [MaskFlags.all_valid] for flags in dataset.mask_flag_enums)
    return with_flags or ColorInterp.alpha in band_colours(dataset)


@contextmanager
def with_mask(dataset: Any, bands: Sequence[int], rule: Validity) -> Iterator[tuple[Any, list[int]]]:
    """Open a dataset with the pixels without data as its mask, which GDAL's warper follows.

    Yields:
        A dataset, and the numbers of `bands` in it.
    """
    if rule.everywhere and not is_marked(dataset):
        yield dataset, list(bands)
        return
    with _masked(dataset, bands, rule.sources(bands)) as masked:
        yield masked, list(range(1, len(bands) + 1))


@contextmanager
def without_values(dataset: Any, values: Sequence[float]) -> Iterator[Any]:
    """Open the first band of a dataset with a mask that leaves some values out."""
    with _masked(dataset, (1,), [("1", value) for value in values]) as masked:
        yield masked


@contextmanager
def _masked(dataset: Any, bands: Sequence[int], marks: Sequence[tuple[str, float | None]]) -> Iterator[Any]:
    with ExitStack() as stack:
        name = dataset.name
        if hasattr(dataset, "src_dataset") or not (os.path.lexists(name) or name.startswith("/vsi")):
            name = f"/vsimem/{uuid.uuid4().hex}.vrt"
            rasterio.shutil.copy(dataset, name, driver="VRT")
            stack.callback(rasterio.shutil.delete, name, driver="VRT")
        elif not name.startswith("/vsi"):
            name = str(Path(name).absolute())  # GDAL drops a space at the beginning of a name in a VRT
        srs = dataset.crs.to_wkt() if dataset.crs else ""
        yield stack.enter_context(open_dataset(masked_vrt(dataset, name, bands, marks, srs)))


def _masks(dataset: Any, bands: Sequence[int], nodata: Nodata) -> list[int]:
    """List the bands whose masks are neither alpha nor made of nodata values."""
    found = []
    for band in bands:
        flags = set(dataset.mask_flag_enums[band - 1])
        # NODATA_VALUES is a nodata value of all bands together, so that another value replaces it.
        together = flags == {MaskFlags.per_dataset, MaskFlags.nodata} and nodata == "file"
        if together or not flags & {MaskFlags.all_valid, MaskFlags.alpha, MaskFlags.nodata}:
            found.append(band)
            if MaskFlags.per_dataset in flags:
                return [band]
    return found


def _possible(value: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return a nodata value that pixels of a data type can hold, else None."""
    if value is None:
        return None
    if dtype.kind == "f":
        return value if not math.isfinite(value) or abs(value) <= 1.0001 * float(np.finfo(dtype).max) else None
    if isinstance(value, float) and not value.is_integer():  # also infinite and NaN
        return None
    limits = np.iinfo(dtype)
    return int(value) if limits.min <= value <= limits.max else None


def _equal(values: Pixels, nodata: float) -> Mask:
    """Return which values are a nodata value, up to rounding."""
    if values.dtype.kind != "f":
        return np.asarray(values == values.dtype.type(nodata))
    if math.isnan(nodata):
        return np.isnan(values)
    limit = np.finfo(values.dtype)
    stored = values.dtype.type(np.clip(nodata, limit.min, limit.max)) if math.isfinite(nodata) else nodata
    if stored == 0 or not math.isfinite(stored):
        return np.asarray(values == stored)
    slack = _ROUNDING_ULPS * float(np.spacing(np.abs(stored) / 2))
    low, high = np.clip([float(stored) - slack, float(stored) + slack], float(limit.min), float(limit.max)).tolist()
    return np.asarray((values >= low) & (values <= high))


def _in_some_band(values: Mask) -> Mask:
    """Reduce (height, width, bands) to (height, width): True where a band is True."""
    if not values.any():
        return np.zeros(values.shape[:2], np.bool_)
    first, *others = cv2.split(values.view(np.uint8))  # NumPy reduces a short last axis many times slower
    for other in others:
        first = cv2.bitwise_or(first, other)
    return np.asarray(first, np.uint8).view(np.bool_)


def _as_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
