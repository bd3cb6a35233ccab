"""Read whole images, masks and labels of tiles: PNG, JPEG and GeoTIFF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from lim_keras.errors import DataError
from lim_keras.raster.encoded_images import decode, file_format, read_header
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.reader import RasterReader

Array = NDArray[Any]

IMAGE_DTYPES = ("uint8", "uint16", "float32")


def read_info(path: str | os.PathLike[str]) -> RasterInfo:
    """Read the header of a PNG, JPEG or TIFF file, without its pixels.

    Raises:
        DataError: not a file of these formats, or its header is damaged.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with RasterReader(path) as reader:
            return reader.info
    header = read_header(path, kind)
    return RasterInfo(path, header.width, header.height, header.bands, header.dtype, "", None, None, header.nodata)


def read_image(path: str | os.PathLike[str]) -> Array:
    """Read an image (height, width, bands) in its own dtype: uint8, uint16 or float32; PNG and JPEG in RGB order.

    Raises:
        DataError: unreadable, truncated, of another dtype, or a TIFF with a palette or with image data as alpha.
    """
    path = Path(path)
    kind = file_format(path)
    if kind != "tiff":
        return decode(path, kind)[1]
    with RasterReader(path) as reader:
        if reader.info.dtype not in IMAGE_DTYPES:
            raise DataError(
                f"{path}: expected an image of {', '.join(IMAGE_DTYPES)}, but it is {reader.info.dtype}. "
                "Convert it (for example `gdal_translate -ot Float32`)."
            )
        if reader.has_palette:
            raise DataError(f"{path}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
        _check_alpha(reader.dataset, path)
        return reader.pixels()


def read_valid(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """Read which pixels (height, width) hold data: by nodata value, internal mask, alpha, and finite in every band.

    True everywhere where the file marks nothing. With a nodata value, a pixel is absent if every band holds it.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with RasterReader(path) as reader:
            return reader.valid()
    header, pixels, alpha = decode(path, kind)
    if alpha is not None:
        return np.asarray(alpha > 0, dtype=np.bool_)
    if header.nodata is not None:
        return np.asarray((pixels != header.nodata).any(axis=-1), dtype=np.bool_)
    return np.ones(pixels.shape[:2], dtype=np.bool_)


def read_labels(path: str | os.PathLike[str]) -> Array:
    """Read the label values (height, width) of a mask, in any dtype: one band, or three equal ones; alpha is left out.

    A palette PNG gives the grey of its colours where they are grey, and the palette's indices where they are not.

    Raises:
        DataError: unreadable, truncated, or a colour image.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        with RasterReader(path) as reader:
            bands = reader.pixels()
    else:
        header, bands, _ = decode(path, kind)
        if header.palette is not None and not _is_grey(header.palette):
            with RasterReader(path, bands=(1,)) as reader:
                bands = reader.pixels()
    if not _equal_bands(bands):
        raise DataError(f"{path}: expected a mask of one band, but its {bands.shape[-1]} bands differ. Save it grey.")
    return np.ascontiguousarray(bands[..., 0])


def fill_invalid(image: Array, valid: NDArray[np.bool_]) -> Array:
    """Set pixels without data to each band's mean over the others (0 where there are none).

    A nodata value such as -9999 or NaN would otherwise reach the pixels around it through the receptive field.
    image: (height, width, bands). valid: (height, width).
    """
    if valid.all():
        return image
    filled = image.copy()
    mean = image[valid].mean(axis=0, dtype=np.float64) if valid.any() else np.zeros(image.shape[-1])
    filled[~valid] = (np.rint(mean) if image.dtype.kind in "ui" else mean).astype(image.dtype)
    return filled


def _check_alpha(dataset: Any, path: Path) -> None:
    """Refuse near infrared that is tagged as alpha, as many writers do with the fourth of four uint8 bands."""
    if not any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums):
        return
    index = dataset.colorinterp.index(ColorInterp.alpha) + 1
    alpha = dataset.read(index)
    if not np.isin(alpha, (0, 1, np.iinfo(alpha.dtype).max if alpha.dtype.kind in "ui" else 1)).all():
        raise DataError(
            f"{path}: band {index} is tagged as alpha, but it holds more than the values of a mask. "
            f"If it is an image band, say so: `gdal_edit.py -colorinterp_{index} undefined {path.name}`."
        )


def _is_grey(palette: Array) -> bool:
    """Tell whether colours are labels. Where the first two are the same colour only the indices are."""
    return _equal_bands(palette) and not np.array_equal(palette[:1], palette[1:2])


def _equal_bands(bands: Array) -> bool:
    return all(np.array_equal(bands[..., 0], bands[..., band]) for band in range(1, bands.shape[-1]))
