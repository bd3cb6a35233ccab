"""Pixels of tiles that were read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]
"""Image and mask."""

_ENDS = "", ".aux.xml", ".msk"


class RecentPixels:
    """Images and masks that were used last, up to `limit` bytes; None: all. Several threads may use it."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Pixels | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, pixels: Pixels) -> None:
        """Keep image and mask under a key, unless another thread was faster."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = pixels
            self._bytes += _size_bytes(pixels)
            while self._limit is not None and self._bytes > self._limit:
                self._bytes -= _size_bytes(self._kept.popitem(last=False)[1])


def _size_bytes(pixels: Pixels) -> int:
    return sum(array.nbytes for array in pixels)


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a raster, or a file beside it that marks pixels as no data, is written again."""
    stamp: tuple[int, ...] = ()
    for end in _ENDS:
        try:
            status = path.with_name(path.name + end).stat()
        except OSError:
            stamp += (0,)
        else:
            stamp += (status.st_ino, status.st_mtime_ns, status.st_size)
    return stamp
