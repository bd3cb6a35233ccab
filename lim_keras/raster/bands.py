"""Choice of the bands of a raster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from lim_keras.errors import DataError
from lim_keras.raster.opening import band_colours

_COLOURS = ("red", "green", "blue")


def chosen_bands(dataset: Any, name: str, wanted: Sequence[int | str] | None) -> list[int]:
    """Return the numbers, from 1, of the wanted bands; None: all but alpha.

    The name of a band is its description, else its colour; case does not matter.

    Raises:
        DataError: the dataset has no bands, or lacks a wanted one.
    """
    if dataset.count == 0:
        raise DataError(
            f"{name}: expected a raster with bands. Received: none. Make a file of one of its subdatasets, which "
            "`gdalinfo` names (`gdal_translate SUBDATASET scene.tif`), and give that."
        )
    if wanted is None:
        return [band for band, kind in enumerate(band_colours(dataset), 1) if kind is not ColorInterp.alpha]
    shown = ("" if kind is ColorInterp.undefined else kind.name for kind in band_colours(dataset))
    names = [(text or colour).lower() for text, colour in zip(dataset.descriptions, shown, strict=True)]
    bands = []
    for band in wanted:
        if isinstance(band, int) and 1 <= band <= dataset.count:
            bands.append(band)
        elif isinstance(band, str) and band.lower() in names:
            bands.append(names.index(band.lower()) + 1)
        else:
            described = ", ".join(f"{number} {one or '(no description)'}" for number, one in enumerate(names, 1))
            raise DataError(f"{name}: has no band {band!r}. Expected one of: {described}.")
    return bands


def common_dtype(dataset: Any, name: str, bands: Sequence[int]) -> str:
    """Return the data type of bands.

    Raises:
        DataError: they differ in data type, or are complex.
    """
    dtypes = [str(dataset.dtypes[band - 1]) for band in bands]
    if len(set(dtypes)) != 1:
        held = ", ".join(f"{band} {dtype}" for band, dtype in zip(bands, dtypes, strict=True))
        raise DataError(
            f"{name}: expected bands of one data type. Received: {held}. Choose bands of one type with `bands`, or "
            "convert them (`gdal_translate -ot`)."
        )
    if dtypes[0].startswith("complex"):
        raise DataError(
            f"{name}: expected real numbers. Received: {dtypes[0]}, as in radar images before they are processed. Make "
            "a file of amplitudes, and give that."
        )
    return dtypes[0]


def colour_bands(dataset: Any) -> dict[str, int]:
    """Return the numbers of the red, green and blue band, in this order, by description, else by colour.

    Empty if they are unknown.
    """
    described = [(text or "").strip().lower() for text in dataset.descriptions]
    for names in (described, [kind.name for kind in band_colours(dataset)]):
        if all(names.count(colour) == 1 for colour in _COLOURS):
            return {colour: names.index(colour) + 1 for colour in _COLOURS}
    return {}
