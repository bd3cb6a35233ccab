"""One labelled tile: what is known about it, and its pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lim_keras.errors import DataError
from lim_keras.raster.images import fill_invalid, read_image, read_info, read_labels, read_valid

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.uint8]
Present = npt.NDArray[np.bool_]
Kind = Literal["landslide", "non-landslide"]
Ignore = Literal["", "255", "nodata"]

LANDSLIDE = 1
IGNORED = 255


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a manifest.

    mask: None where all of it is background. group: tiles of one group stay on one side of a split ("": none known).
    x, y: its centre, in units of `crs`, or in pixels of its scene where crs is "". gsd_m: metres a pixel.
    landslide_px, valid_px: pixels labelled landslide, and pixels labelled at all. ignore: what in the mask is no label:
    "" nothing, "255" that value, "nodata" what mask or image mark as absent.
    """

    tile_id: str
    image: Path
    mask: Path | None
    kind: Kind
    group: str
    scene: str
    x: float | None
    y: float | None
    width: int
    height: int
    gsd_m: float | None
    crs: str
    landslide_px: int
    valid_px: int
    ignore: Ignore = ""


def read_tile(tile: Tile) -> tuple[Array, Labels]:
    """Image (height, width, bands) in its own dtype; mask (height, width): 1 landslide, 0 background, 255 ignored.

    Where `ignore` is "nodata", absent image pixels come as the band's mean: no filler value reaches their neighbours.

    Raises:
        DataError: a file is unreadable, the two differ in size, or the mask holds unknown values.
    """
    return read_pair(tile.image, tile.mask, tile.ignore)


def read_pair(image: Path, mask: Path | None, ignore: Ignore) -> tuple[Array, Labels]:
    """As `read_tile`, for an image and a mask that are no tile yet."""
    pixels = read_image(image)
    shape = (pixels.shape[0], pixels.shape[1])
    present = read_valid(image) if ignore == "nodata" else None
    if present is not None:
        pixels = fill_invalid(pixels, present)
    elif pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(f'{image}: the image holds NaN or infinite values. Say ignore "nodata" for it in tiles.csv.')
    if mask is None:
        return pixels, _with_ignored(np.zeros(shape, np.uint8), present)
    values = read_labels(mask)
    if values.shape != shape:
        raise DataError(
            f"{mask}: the mask is {values.shape[1]} x {values.shape[0]} pixels, "
            f"but its image {image.name} is {shape[1]} x {shape[0]}."
        )
    if present is not None:
        present &= read_valid(mask)
    elif ignore == "":
        _check_tagged_nodata(mask, values)
    return pixels, _with_ignored(_labels(values, ignore, present, mask), present)


def _check_tagged_nodata(mask: Path, values: Array) -> None:
    """A mask that names 255 (or 1) as nodata and is read with ignore "" would turn unlabelled ground into landslide."""
    nodata = read_info(mask).nodata
    if nodata in (1, 255) and (values == nodata).any():
        raise DataError(f'{mask}: the mask holds its nodata value {nodata:g}. Say ignore "nodata" for it in tiles.csv.')


def _labels(values: Array, ignore: Ignore, present: Present | None, mask: Path) -> Labels:
    """Labels from a mask's values; what values absent pixels hold does not matter."""
    if present is not None:
        values = np.where(present, values, 0)
    ones, highs = values == 1, values == 255
    known = ones | highs | (values == 0)
    if not known.all():
        unknown = ", ".join(f"{value:g}" for value in np.unique(values[~known])[:5])
        raise DataError(
            f"{mask}: expected a mask of 0 and 1, or 0 and 255. Received the values {unknown}.{_hint(mask)}"
        )
    if ignore == "255":
        return _with_ignored(ones.astype(np.uint8), ~highs)
    if ones.any() and highs.any():
        raise DataError(f'{mask}: the mask holds both 1 and 255. If 255 is no label, say ignore "255" in tiles.csv.')
    labels: Labels = (ones | highs).astype(np.uint8)
    return labels


def _with_ignored(labels: Labels, present: Present | None) -> Labels:
    if present is not None:
        labels[~present] = IGNORED
    return labels


def _hint(mask: Path) -> str:
    lossy = mask.suffix.lower() in (".jpg", ".jpeg")
    return " JPEG blurs labels: save masks as PNG or TIFF." if lossy else ""
