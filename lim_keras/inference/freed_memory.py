"""Return of freed memory to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from lim_keras.bundle.protocol import SceneModel, release_maps

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_BLOCK = 4 * 2**20


@cache
def return_freed_memory() -> None:
    """Let the C library return freed blocks of 4 MiB and more at once, for the rest of the process.

    By default, glibc keeps blocks of up to 32 MiB for later use, so that the memory of windows adds up. Other C
    libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _BLOCK)
        mallopt(_MMAP_THRESHOLD, _BLOCK)


def free_maps(model: SceneModel) -> None:
    """Free the memory of a model's feature maps, and return it to the system where the C library can."""
    release_maps(model)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
