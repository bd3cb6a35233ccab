"""Labelled images that a layout lists, before they are converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

Format = Literal["landslide4sense", "pairs", "coco", "yolo"]
Labels = NDArray[np.uint8]
Value = float | tuple[float, float] | tuple[float, float, float]
"""Mask value, range of values (lowest, highest), or colour (red, green, blue)."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Choices of a conversion; see `lim_keras.convert_tiles`."""

    format: Format | None = None
    bands: tuple[int, ...] = ()
    landslide: tuple[Value, ...] = ()
    ignore: tuple[Value, ...] = ()
    classes: tuple[str, ...] = ()
    ignore_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size in pixels, bands, NumPy name of the data type, and georeference of a converted image."""

    width: int
    height: int
    bands: int
    dtype: str
    crs: str = ""
    transform: Affine | None = None


class Image(Protocol):
    """Image of a sample."""

    def header(self) -> ImageHeader:
        """Describe the image after its conversion, without its pixels. Raises DataError for a damaged file."""
        ...

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write the image and its sidecars into a folder, under `name` without an ending; the image comes first."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """Labels (height, width) of an image: 1 landslide, 0 background, 255 ignored; and counts of what was noticed."""

    labels: Labels
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image of a source.

    Attributes:
        source: path of the image, relative to the source.
        image: the image.
        draw: makes the labels for the size (height, width) of the image.
        split: "train", "val", "test" or another name of its part of the source; "" if there is none.
        gsd_m: ground sample distance, metres; None: as the image says.
    """

    source: str
    image: Image
    draw: Callable[[int, int], Drawn]
    split: str = ""
    gsd_m: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or an annotation that is not converted, and the reason."""

    name: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Samples of a source, what is left out of it, and counts of what was noticed."""

    samples: Sequence[Sample]
    left_out: Sequence[LeftOut] = ()
    notes: Counter[str] = field(default_factory=Counter)
