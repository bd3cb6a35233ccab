"""Options of the tiling of scenes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lim_keras.errors import ConfigError
from lim_keras.raster.validity import Nodata

Background = float | Literal["all"]
"""Background tiles for each landslide tile, or all that there is room for."""


@dataclass(frozen=True, kw_only=True)
class TilingOptions:
    """Options of `tile_scenes`, except for those of the labels.

    Attributes:
        size: height and width of a tile, pixels.
        overlap: common rows or columns of neighbouring tiles of one grid, pixels.
        gsd_m: ground sample distance of the tiles, metres; None: that of each scene.
        background: background tiles for each landslide tile; "all": as many as there is room for.
        min_valid: smallest share of the pixels of a tile that have data and a label.
        seed: seed of all random choices.
        prefix: first part of every tile's name.
        bands: bands to read, by number from 1, description or colour; None: all.
        scale: raw values (low, high) that become 0 and 255, uint8; None: values stay as they are.
        nodata: definition of pixels without data, see `lim_keras.raster.validity.Nodata`.

    Raises:
        ConfigError: a value is out of range.
    """

    size: int = 512
    overlap: int = 0
    gsd_m: float | None = None
    background: Background = 2.0
    min_valid: float = 0.5
    seed: int = 2022
    prefix: str = ""
    bands: Sequence[int | str] | None = None
    scale: tuple[float, float] | None = None
    nodata: Nodata = "file"

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("size", self.size >= 1, "a whole number >= 1"),
            ("overlap", 0 <= self.overlap < self.size, f"a whole number from 0 to {self.size - 1}, below `size`"),
            ("gsd_m", self.gsd_m is None or 0 < self.gsd_m < math.inf, "a number > 0"),
            ("background", self.background == "all" or 0 <= self.background < math.inf, "all, or a number >= 0"),
            ("min_valid", 0 <= self.min_valid <= 1, "a number from 0 to 1"),
            ("seed", self.seed >= 0, "a whole number >= 0"),
            ("scale", self.scale is None or -math.inf < self.scale[0] < self.scale[1] < math.inf, "LOW < HIGH"),
        ):
            if not right:
                raise ConfigError(f"Invalid value for `{name}`. Expected {expected}. Received: {getattr(self, name)}.")

    @property
    def step(self) -> int:
        """Distance of neighbouring tiles of one grid, pixels."""
        return self.size - self.overlap

    def to_dict(self) -> dict[str, Any]:
        """Return the options in JSON values."""
        nodata = self.nodata if isinstance(self.nodata, str) or math.isfinite(self.nodata) else str(self.nodata)
        bands, scale = (None if value is None else list(value) for value in (self.bands, self.scale))
        return {**vars(self), "bands": bands, "scale": scale, "nodata": nodata}
