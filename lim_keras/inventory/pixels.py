"""Statistics of the pixels of each landslide, by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.raster.georeference import Floats
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.windows import Box

Indices = NDArray[np.int64]

LAYERS = ("probability", "votes", "beside_nodata")
TERRAIN_LAYERS = ("elevation", "slope", "east", "north")

Sampler = Callable[[Floats], Floats]
"""Function from points (k, 2), column and row in pixels, to values (k,)."""


@dataclass(frozen=True)
class Statistics:
    """Sum, count, lowest and highest value over the pixels of each of n landslides, in rows: (4, n).

    Values that are not finite are skipped.
    """

    rows: Floats

    @classmethod
    def of(cls, landslide: NDArray[np.integer[Any]], values: NDArray[Any], n: int) -> Statistics:
        """Compute the statistics of values (k,) of pixels; `landslide` (k,) is the index of each pixel's landslide."""
        known = np.isfinite(values)
        if not known.all():
            landslide, values = landslide[known], values[known]
        values = values.astype(np.float64)
        rows = np.zeros((4, n))
        rows[0] = np.bincount(landslide, weights=values, minlength=n)
        rows[1] = np.bincount(landslide, minlength=n)
        rows[2], rows[3] = np.inf, -np.inf
        np.minimum.at(rows[2], landslide, values)
        np.maximum.at(rows[3], landslide, values)
        return cls(rows)

    @classmethod
    def unknown(cls, n: int) -> Statistics:
        """Return statistics without a value."""
        return cls(np.repeat([[0.0], [0.0], [np.inf], [-np.inf]], n, axis=1))

    def merged(self, group: Indices, n: int) -> Statistics:
        """Merge parts of landslides: part i belongs to landslide `group[i]` of n."""
        rows = Statistics.unknown(n).rows
        for row in (0, 1):
            rows[row] = np.bincount(group, weights=self.rows[row], minlength=n)
        np.minimum.at(rows[2], group, self.rows[2])
        np.maximum.at(rows[3], group, self.rows[3])
        return Statistics(rows)

    @property
    def total(self) -> Floats:
        """Sum; 0 without a value."""
        return np.asarray(self.rows[0])

    @property
    def count(self) -> Floats:
        """Number of values."""
        return np.asarray(self.rows[1])

    @property
    def mean(self) -> Floats:
        """Mean; NaN without a value."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    @property
    def lowest(self) -> Floats:
        """Lowest value; NaN without a value."""
        return np.where(self.count > 0, self.rows[2], np.nan)

    @property
    def highest(self) -> Floats:
        """Highest value; NaN without a value."""
        return np.where(self.count > 0, self.rows[3], np.nan)


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the pixels of n landslides, or of parts of landslides.

    Attributes:
        first: the first pixel in row order, (n,): row * width of the scene + column.
        at_edge: True if a pixel lies in the outermost row or column of the scene, (n,).
        layers: statistics of each layer, by name.
    """

    first: Indices
    at_edge: NDArray[np.bool_]
    layers: Mapping[str, Statistics]

    def __len__(self) -> int:
        return len(self.first)

    def take(self, chosen: Indices | NDArray[np.bool_]) -> PixelStatistics:
        """Select landslides."""
        layers = {name: Statistics(one.rows[:, chosen]) for name, one in self.layers.items()}
        return PixelStatistics(self.first[chosen], self.at_edge[chosen], layers)

    @staticmethod
    def joined(parts: Sequence[PixelStatistics]) -> PixelStatistics:
        """Concatenate at least one part."""
        layers = {
            name: Statistics(np.concatenate([part.layers[name].rows for part in parts], axis=1))
            for name in parts[0].layers
        }
        first, at_edge = (np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "at_edge"))
        return PixelStatistics(first, at_edge, layers)

    def merged(self, group: Indices, n: int) -> PixelStatistics:
        """Merge parts of landslides: part i belongs to landslide `group[i]` of n."""
        first = np.full(n, np.iinfo(np.int64).max)
        np.minimum.at(first, group, self.first)
        at_edge = np.bincount(group, weights=self.at_edge, minlength=n) > 0
        return PixelStatistics(first, at_edge, {name: one.merged(group, n) for name, one in self.layers.items()})


class PixelReader:
    """The layers of a scene, block by block; a layer that is not given is unknown everywhere.

    Args:
        labels: landslide mask.
        maps: raster of probability (band 1) and votes of the folds (optional band 2), negative without data.
        terrain: slopes and elevations.
        familiarity: familiarity of the imagery at points.

    Raises:
        DataError: the maps have another size than the mask.
    """

    def __init__(
        self,
        labels: RasterReader,
        maps: RasterReader | None,
        terrain: TerrainReader | None,
        familiarity: Sampler | None = None,
    ) -> None:
        if maps is not None and maps.info.box != labels.info.box:
            found, expected = ((one.info.height, one.info.width) for one in (maps, labels))
            raise DataError(f"{maps.name}: expected the grid of {labels.name}, {expected}, but it is {found}.")
        self.scene = labels.info.box
        self._labels, self._maps, self._terrain, self._familiarity = labels, maps, terrain, familiarity
        others = () if familiarity is None else ("familiarity",)
        self._names = (*LAYERS, *others, *(() if terrain is None else TERRAIN_LAYERS))

    def none(self) -> PixelStatistics:
        """Return the statistics of no landslide."""
        layers = {name: Statistics.unknown(0) for name in self._names}
        return PixelStatistics(np.zeros(0, np.int64), np.zeros(0, np.bool_), layers)

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Read the mask of a box and one more pixel on each side, (height + 2, width + 2); 0 beyond the scene.

        Raises:
            DataError: a value is not 0, 1 or 255.
        """
        around = box.grown(1, self.scene)
        rows = 1 - box.top + around.top, 1 - around.bottom + box.bottom
        columns = 1 - box.left + around.left, 1 - around.right + box.right
        found: NDArray[np.uint8] = np.pad(self._labels.pixels(around)[..., 0], (rows, columns))
        wrong = (found > 1) & (found < NO_LABEL)
        if wrong.any():
            raise DataError(
                f"{self._labels.name}: expected the values 1 (landslide), 0 (background) and {NO_LABEL} (no data), "
                f"but it holds {found[wrong][0]}."
            )
        return found

    def read(self, box: Box, labels: NDArray[np.uint8], groups: NDArray[np.int32], n: int) -> PixelStatistics:
        """Compute the statistics of the n groups of a box; `groups` (height, width) is from 1, 0 for none."""
        places = np.flatnonzero(groups)
        landslide = groups.ravel()[places] - 1
        row, column = np.divmod(places, box.width)
        row, column = row + box.top, column + box.left
        first = np.empty(n, np.int64)
        first[landslide[::-1]] = (row * self.scene.width + column)[::-1]  # NumPy keeps the last of equal indices
        outermost = (row == 0) | (column == 0) | (row == self.scene.bottom - 1) | (column == self.scene.right - 1)
        at_edge = np.bincount(landslide[outermost], minlength=n) > 0
        values = self._layers(box, labels, places)
        layers = {
            name: Statistics.of(landslide, values[name], n) if name in values else Statistics.unknown(n)
            for name in self._names
        }
        return PixelStatistics(first, at_edge, layers)

    def _layers(self, box: Box, labels: NDArray[np.uint8], places: Indices) -> dict[str, NDArray[Any]]:
        """Read the values (k,) of every layer at the k landslide pixels of a box; NaN where unknown."""
        gap = labels == NO_LABEL
        beside = gap[:-2, 1:-1] | gap[2:, 1:-1] | gap[1:-1, :-2] | gap[1:-1, 2:]
        layers: dict[str, NDArray[Any]] = {"beside_nodata": beside.ravel()[places]}
        if self._maps is not None:
            bands = self._maps.pixels(box).reshape(-1, len(self._maps.bands))[places].astype(np.float64)
            for name, band in zip(("probability", "votes"), bands.T, strict=False):
                layers[name] = np.where(band < 0, np.nan, band)
        if self._familiarity is not None:
            rows, columns = np.divmod(places, box.width)
            centres = np.stack([columns + box.left, rows + box.top], axis=-1) + 0.5
            layers["familiarity"] = self._familiarity(centres)
        if self._terrain is not None:
            ground = self._terrain.read(box)
            aspect = np.radians(ground.aspect.ravel()[places])
            layers |= {"elevation": ground.elevation.ravel()[places], "slope": ground.slope.ravel()[places]}
            layers |= {"east": np.sin(aspect), "north": np.cos(aspect)}
        return layers
