"""Images and masks as image files, in two folders or with endings of their names such as `_mask`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from lim_keras.data.convert.image_file import ImageFile
from lim_keras.data.convert.mask_labels import MaskRule
from lim_keras.data.convert.names import split_of
from lim_keras.data.convert.pairing import SEVERAL, pair
from lim_keras.data.convert.sample import ConvertOptions, Drawn, Found, Sample
from lim_keras.data.convert.source_files import SourceFiles
from lim_keras.errors import DataError
from lim_keras.raster.images import read_orientation


def find_pairs(files: SourceFiles, options: ConvertOptions) -> Found:
    """List the pairs of a folder.

    Raises:
        DataError: there are none.
    """
    pairing = pair(files.images())
    rule = MaskRule(options.landslide, options.ignore)
    samples = [
        Sample(
            image,
            ImageFile(files.path(image)),
            partial(_draw, files.path(image), files.path(mask), rule),
            split_of(image),
        )
        for image, mask in pairing.pairs
    ]
    if not samples:
        several = [one.name for one in pairing.left_out if one.reason == SEVERAL]
        found = f"Found {SEVERAL}: {', '.join(several[:5])}" if several else f"Found {files.shown()}"
        raise DataError(
            f"{files.root}: no image has one mask of its name. Expected folders such as images and masks, or names "
            f"such as a.png and a_mask.png. {found}."
        )
    samples += [
        Sample(image, ImageFile(files.path(image)), _background, split_of(image)) for image in pairing.background
    ]
    return Found(samples, pairing.left_out)


def has_pairs(files: SourceFiles) -> bool:
    """Return whether a folder holds images with masks."""
    pairing = pair(files.images())
    return bool(pairing.pairs) or any(one.reason == SEVERAL for one in pairing.left_out)


def _draw(image: Path, mask: Path, rule: MaskRule, height: int, width: int) -> Drawn:
    if _orientation(image) != _orientation(mask):
        raise DataError(f"{mask}: its EXIF orientation is not that of its image")
    drawn = rule.read(mask)
    check_size(drawn, height, width, mask)
    return drawn


def _background(height: int, width: int) -> Drawn:
    return Drawn(np.zeros((height, width), np.uint8))


def check_size(drawn: Drawn, height: int, width: int, mask: Path) -> None:
    """Raise DataError if labels do not have the size of their image."""
    found = drawn.labels.shape
    if found != (height, width):
        raise DataError(f"{mask}: the mask is {found[1]} x {found[0]} px, its image is {width} x {height} px")


def _orientation(path: Path) -> int:
    try:
        return read_orientation(path)
    except DataError:  # formats without an orientation
        return 1
