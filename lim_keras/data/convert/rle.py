"""Run-length encoded masks of COCO: runs of background and object pixels, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.raster.windows import Box

_BASE = 48  # code of the first character
_MORE, _SIGN, _BITS = 0x20, 0x10, 5


@dataclass(frozen=True, slots=True)
class Runs:
    """Lengths of the runs of a mask of a size (height, width), pixels; the first run is background."""

    counts: tuple[int, ...]
    height: int
    width: int

    def pieces(self, height: int, width: int) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
        """Yield the columns that hold the object, and its pixels there."""
        if (height, width) != (self.height, self.width):
            raise DataError(
                f"expected a mask of {width} x {height} px. Received: runs of {self.width} x {self.height} px"
            )
        ends = np.cumsum(self.counts, dtype=np.int64)
        filled = np.flatnonzero(np.asarray(self.counts, np.int64)[1::2])
        if not len(filled):
            return
        left = int(ends[2 * filled[0]]) // height
        right = -(-int(ends[2 * filled[-1] + 1]) // height)
        bounds = np.clip(ends, left * height, right * height)
        values = np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(bounds, prepend=left * height))
        yield Box(0, left, height, right), values.reshape(right - left, height).T


def read_runs(segmentation: Any) -> Runs:
    """Read the object `{"counts": ..., "size": [height, width]}` of a COCO file, counts as list or as text.

    Raises:
        ValueError: not such an object, or the runs do not fill the mask.
    """
    try:
        height, width = (int(value) for value in segmentation["size"])
        counts = segmentation["counts"]
        lengths = decode_counts(counts) if isinstance(counts, str) else [int(count) for count in counts]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("run lengths that cannot be read") from error
    if min([height, width, *lengths]) < 0 or sum(lengths) != height * width:
        raise ValueError("run lengths that do not fill the image")
    return Runs(tuple(lengths), height, width)


def decode_counts(text: str) -> list[int]:
    """Decode run lengths from text: 5 bits a character, low bits first; from the fourth run on, differences.

    Raises:
        ValueError: a character is out of range, or the text ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _BASE
        if not 0 <= bits < 2 * _MORE:
            raise ValueError("a character out of range")
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the text ends within a number")
    return counts
