"""Stream-power erosion: uplift against rivers, until the ground is ridges and branching valleys."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from lim_keras.data.synthetic.noise import Field

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def erode(heights: Field, outlet: NDArray[np.bool_], steps: int, rate: float, rounding: float = 0.35) -> Field:
    """Raise all ground but the outlet by one a step and let the water that runs to the outlet cut it down.

    Args:
        heights: (h, w) the ground to begin with; small noise decides where the valleys go.
        outlet: (h, w) cells that stay at height 0: the trunk river.
        steps: number of uplifts.
        rate: cutting of a stream that drains one cell, a share of its fall a step; it grows with the square root of the
            drained area.
        rounding: standard deviation, in cells, of the Gaussian that stands for soil creep in each step.

    Returns:
        (h, w) heights in units of one uplift.

    Source: the implicit scheme for dh/dt = U - K A^0.5 S of Braun and Willett 2013, solved as a sparse system.
    """
    ground = np.where(outlet, 0, heights).astype(np.float64)
    for _ in range(steps):
        ground = np.where(outlet, 0, ground + 1)
        receiver, fall_length = _steepest_neighbour(ground)
        drains = receiver != np.arange(ground.size)
        flow = sparse.csr_array(
            (drains.astype(float), (np.arange(ground.size), receiver)), shape=(ground.size, ground.size)
        )
        identity = sparse.eye_array(ground.size, format="csr")
        area = spsolve((identity - flow.T).tocsc(), np.ones(ground.size))
        cut = np.where(drains & ~outlet.ravel(), rate * np.sqrt(area) / fall_length, 0)
        system = identity + sparse.diags_array(cut) - sparse.diags_array(cut) @ flow
        ground = spsolve(system.tocsc(), ground.ravel()).reshape(heights.shape)
        ground = cv2.GaussianBlur(ground, (0, 0), rounding, borderType=cv2.BORDER_REFLECT)
    return np.where(outlet, 0, ground).astype(np.float32)


def _steepest_neighbour(ground: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Flat index of the neighbour down the steepest fall, itself in a pit, and the distance to it in cells."""
    height, width = ground.shape
    index = np.arange(ground.size).reshape(ground.shape)
    padded, padded_index = np.pad(ground, 1, constant_values=np.inf), np.pad(index, 1)
    best_fall, receiver, length = np.zeros(ground.shape), index.copy(), np.ones(ground.shape)
    for dy, dx in _NEIGHBOURS:
        window = (slice(1 + dy, 1 + dy + height), slice(1 + dx, 1 + dx + width))
        distance = float(np.hypot(dy, dx))
        fall = (ground - padded[window]) / distance
        steeper = fall > best_fall
        best_fall[steeper] = fall[steeper]
        receiver[steeper] = padded_index[window][steeper]
        length[steeper] = distance
    return receiver.ravel(), length.ravel()
