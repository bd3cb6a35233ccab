"""Read the labels of masks; refuse masks that can be read in two ways."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Compression, MaskFlags

from lim_keras.errors import DataError
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import check_one_page, decode, file_format
from lim_keras.raster.opening import band_colours, explained
from lim_keras.raster.reader import RasterReader

Array = NDArray[Any]

_LABELS = (0, 1, 255)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class DecodedMask:
    """Content of a mask file.

    Attributes:
        info: header.
        labels: (height, width), in the data type of the file.
        is_lossy: the file is compressed as JPEG, which changes labels.
    """

    info: RasterInfo
    labels: Array
    is_lossy: bool


def read_labels(path: str | os.PathLike[str], *, marked: bool = False) -> Array:
    """Read the labels (height, width) of a mask; arguments and errors as in `read_decoded_mask`."""
    return read_decoded_mask(path, marked=marked).labels


def read_decoded_mask(path: str | os.PathLike[str], *, marked: bool = False) -> DecodedMask:
    """Read a mask of one band or of equal bands, in any dtype.

    A palette is read by this rule. The labels are the grey values, if these are 0, 1 and 255 only and the palette is
    grey or the mask uses black and white. Otherwise they are the indices, if index 0 is black.

    Args:
        path: PNG, JPEG or TIFF file.
        marked: True if pixels may be transparent or masked, because the caller ignores them.

    Raises:
        DataError: the file is unreadable, truncated, or a colour image; its palette does not tell landslide from
            background; or, without `marked`, transparency or an internal mask varies.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "tiff":
        info, bands, marks, lossy = _read_tiff(path)
    else:
        header, bands, marks = decode(path, kind)
        info, lossy = header.info(path), kind == "jpeg"
        if header.palette is not None:
            with explained(path), RasterReader(path, bands=(1,), measured=False) as reader:
                bands = palette_labels(reader.pixels()[..., 0], header.palette, path)[..., np.newaxis]
    if marks is not None and not marked:
        _check_marks(marks, path)
    if not _equal_bands(bands):
        raise DataError(
            f"{path}: expected a mask of one band, but its {bands.shape[-1]} bands differ. Save it grey, with "
            "landslide as 255 and background as 0."
        )
    return DecodedMask(info, np.ascontiguousarray(bands[..., 0]), lossy)


def is_lossy(path: Path) -> bool:
    """Return whether a file is compressed as JPEG, which changes labels."""
    kind = file_format(path)
    if kind != "tiff":
        return kind == "jpeg"
    with explained(path), RasterReader(path, measured=False) as reader:
        return _is_jpeg(reader)


def _is_jpeg(reader: RasterReader) -> bool:
    return reader.dataset.compression is Compression.jpeg


def is_masked(reader: RasterReader) -> bool:
    """Return whether an internal mask, a .msk file or alpha marks the pixels of a raster."""
    return MaskFlags.per_dataset in reader.dataset.mask_flag_enums[reader.bands[0] - 1]


def palette_labels(indices: Array, colours: Array, path: Path | str) -> Array:
    """Convert palette indices (height, width) to labels by the rule of `read_labels`; colours: (n, 3), RGB.

    Raises:
        DataError: the palette does not tell landslide from background.
    """
    used = np.unique(indices)
    if not len(colours) or used[-1] >= len(colours):
        raise DataError(f"{path}: uses the index {used[-1]}, but its palette has {len(colours)} colours. Save it grey.")
    shown = {tuple(colour) for colour in colours[used].tolist()}
    # If the first two colours are equal, only the indices can be labels.
    grey = _equal_bands(colours) and not np.array_equal(colours[:1], colours[1:2])
    if (grey or shown == {_BLACK, _WHITE}) and shown <= {(value,) * 3 for value in _LABELS}:
        return np.asarray(colours[:, 0][indices])
    if tuple(colours[0].tolist()) == _BLACK:
        return indices
    listed = ", ".join(f"{index} = {tuple(colours[index].tolist())}" for index in used[:5].tolist())
    raise DataError(
        f"{path}: the palette does not tell landslide from background (index = colour: {listed}). Expected black as "
        "index 0, or greys of 0, 1 and 255. Save it grey, with landslide as 255 and background as 0: "
        '`Image.fromarray((np.array(Image.open("in.png")) == INDEX).astype("uint8") * 255).save("out.png")`.'
    )


def _read_tiff(path: Path) -> tuple[RasterInfo, Array, Array | None, bool]:
    """Read header, bands (height, width, n), alpha or internal mask (height, width) or None, and if it is a JPEG."""
    with explained(path), RasterReader(path, measured=False) as reader:
        check_one_page(reader)
        bands, dataset = reader.pixels(), reader.dataset
        if reader.has_palette:
            colours = np.array([colour[:3] for _, colour in sorted(dataset.colormap(reader.bands[0]).items())])
            # With black as index 0, the stored values are the labels, because many palettes give landslides any colour.
            if tuple(colours[0].tolist()) != _BLACK:
                bands = palette_labels(bands[..., 0], colours, path)[..., np.newaxis]
        if ColorInterp.alpha in band_colours(dataset):
            marks = dataset.read(band_colours(dataset).index(ColorInterp.alpha) + 1)
        else:
            marks = dataset.dataset_mask() if is_masked(reader) else None
        return reader.info, bands, marks, _is_jpeg(reader)


def _check_marks(marks: Array, path: Path) -> None:
    if marks.min() == marks.max() > 0:
        return
    raise DataError(
        f"{path}: the mask has transparent or masked pixels, and the landslides may be drawn in them. Expected "
        "landslide as 255 and background as 0 in one band, without alpha. If the opaque pixels are landslides, save "
        f"alpha as the mask (`gdal_translate -b mask {path} {path.stem}_alpha.tif`); if the transparent pixels have no "
        'label, set ignore "nodata" in tiles.csv.'
    )


def _equal_bands(bands: Array) -> bool:
    return all(np.array_equal(bands[..., 0], bands[..., band]) for band in range(1, bands.shape[-1]))
