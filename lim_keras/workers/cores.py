"""Processor cores that a process may use."""

from __future__ import annotations

import os
import sys

CORES = "LIM_KERAS_CORES"
"""Environment variable of worker processes: the number of processor cores that a job gets."""


def usable_cores() -> int:
    """Count the cores that this process may use; fewer than the machine has in containers and in jobs of a cluster."""
    if (given := os.environ.get(CORES, "")).isdecimal():
        return max(1, int(given))
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
