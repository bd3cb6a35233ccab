"""Options that decide the maps of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lim_keras.errors import ConfigError
from lim_keras.inference.stream import ValueScale
from lim_keras.raster.reader import Nodata


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """Options for reading, cutting and predicting a scene.

    Args:
        spread: also map the folds' standard deviation.
        bands: bands to read, by number from 1 on, by description or colour; None: all.
        nodata: pixels without data.
        scale: raw values that become the lowest and the highest value of the model's data type; None: as they are.
        gsd_m: ground sample distance of a scene whose file does not say it, metres.
        resample: warp a scene to the ground sample distance of training where the two differ by more than a factor of
            1.5.
        tta: average over the eight symmetries of each window (test-time augmentation).
        memory: bytes that the process may take; None: a share of what is free.
        tile: side of a window, pixels; None: as the memory allows.

    Raises:
        ConfigError: `gsd_m` is not a number above 0.
    """

    spread: bool = False
    bands: tuple[int | str, ...] | None = None
    nodata: Nodata = "file"
    scale: ValueScale | None = None
    gsd_m: float | None = None
    resample: bool = False
    tta: bool = False
    memory: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        if self.gsd_m is not None and not 0 < self.gsd_m < math.inf:
            raise ConfigError(f"Invalid value for `gsd_m`. Expected metres, more than 0. Received: {self.gsd_m}.")
