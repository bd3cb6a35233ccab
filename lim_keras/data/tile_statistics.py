"""Statistics of the bands of training tiles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

import numpy as np

from lim_keras.data.tiles import IGNORED, TileSet, read_tile
from lim_keras.errors import DataError

Dtype = Literal["uint8", "uint16", "float32"]

_MAX_TILES, _PIXELS_PER_TILE = 256, 4096
_LOW, _HIGH = 0.5, 99.5  # percentiles


@dataclass(frozen=True, slots=True)
class TileStatistics:
    """Statistics of each band over the training tiles, in raw digital numbers.

    Attributes:
        dtype: data type of the images.
        mean, std, minimum, maximum: of the sampled pixels.
        low, high: 0.5th and 99.5th percentile.
    """

    dtype: Dtype
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def measure(cls, tiles: TileSet, seed: int = 2022) -> Self:
        """Measure a seeded sample of labelled pixels: 4096 from each of at most 256 tiles.

        Raises:
            DataError: no labelled pixel, or a band that holds one value only.
        """
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(tiles))[:_MAX_TILES]
        samples = []
        for position in sorted(chosen):
            image, mask = read_tile(tiles[int(position)])
            labelled = image[mask != IGNORED]
            if len(labelled):
                samples.append(labelled[rng.integers(len(labelled), size=_PIXELS_PER_TILE)])
        if not samples:
            raise DataError(f"{tiles.root}: expected labelled pixels in the training tiles. Received: none")
        pixels = np.concatenate(samples).astype(np.float64)
        low, high = np.percentile(pixels, [_LOW, _HIGH], axis=0)
        constant = np.flatnonzero(high <= low)
        if len(constant) and tiles.dtype != "uint8":
            band = int(constant[0])
            raise DataError(
                f"{tiles.root}: expected bands of more than one value. Received: band {band + 1} is all {low[band]:g}"
            )
        columns = [pixels.mean(0), pixels.std(0), pixels.min(0), pixels.max(0), low, high]
        return cls(cast(Dtype, tiles.dtype), *(tuple(float(value) for value in column) for column in columns))

    @property
    def value_range(self) -> list[tuple[float, float]] | None:
        """(low, high) of each band for `build_model`; None for 8-bit images, whose range is 0..255."""
        return None if self.dtype == "uint8" else list(zip(self.low, self.high, strict=True))

    @property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value of each band after augmentation, (bands,) float32 each."""
        if self.dtype == "uint8":
            return np.zeros(len(self.mean), np.float32), np.full(len(self.mean), 255, np.float32)
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read the output of `to_dict`; lists in place of tuples are accepted."""
        fields: dict[str, Any] = {key: value if key == "dtype" else tuple(value) for key, value in values.items()}
        return cls(**fields)
