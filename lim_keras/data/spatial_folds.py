"""Folds of whole blocks or clusters of neighbouring tiles, and the buffer between folds."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.model_selection import StratifiedGroupKFold

from lim_keras.config import SplitSection
from lim_keras.data.groups import connected
from lim_keras.data.positions import Positions
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError

Numbers = NDArray[np.int64]

_MAX_LISTED = 5

# Splits are drawn with up to this many seeds; the most even one counts. Many units or tiles get fewer, to save time.
_DRAWS, _WORK, _TILE_WORK = 16, 1000, 10_000

# Largest deviation from an even split: of the number of tiles of a kind, and of the landslide pixels.
_EVEN_TILES, _EVEN_PIXELS = 0.25, 0.75

# With more units than this for each fold, folds hardly get more even.
_MOST = 20

# Ratio of a size of blocks to the one tried before it; numbers of clusters grow by its inverse.
_FINER = 0.8


@dataclass(frozen=True)
class SpatialFolds:
    """Folds of whole units: blocks or clusters, joined where a group of tiles spans several.

    Attributes:
        folds: fold by tile id.
        units: number of units.
        block_m: side of a block, metres; None for clusters.
        clusters: number of clusters; None for blocks.
    """

    folds: dict[str, int]
    units: int
    block_m: float | None = None
    clusters: int | None = None

    @property
    def size(self) -> str:
        """Kind and size of the units in words."""
        return _size(self.block_m)


@dataclass(frozen=True)
class _Units:
    """Unit of each tile, and kind and size of the units."""

    labels: Numbers
    block_m: float | None = None
    clusters: int | None = None

    @property
    def size(self) -> str:
        return _size(self.block_m)


@dataclass(frozen=True)
class KnownPositions:
    """Positions of tiles, and the text that tells how to set a smaller number of folds, for errors."""

    positions: Positions
    fewer: Callable[[int], str]


def _size(block_m: float | None) -> str:
    return f"blocks of {block_m:,.6g} m" if block_m else "k-means clusters"


def locate(tiles: TileSet, needed: Collection[str] | None = None) -> Positions:
    """Read the positions of tiles.

    Args:
        tiles: the tiles.
        needed: ids of those that need a position; None: all.

    Raises:
        DataError: tiles have no position on the ground; the message lists some and says what to do.
    """
    positions = Positions.read(tiles)
    unknown = set(tiles.ids if needed is None else needed) - set(positions.ids)
    missing = [tile for tile in tiles if tile.tile_id in unknown]
    if missing:
        listed = ", ".join(tile.tile_id for tile in missing[:_MAX_LISTED]) + (", ..." * (len(missing) > _MAX_LISTED))
        raise DataError(
            f"{tiles.root}: spatial folds need the position of every tile. Received: {len(missing)} of {len(tiles)} "
            f"tiles without a position or without a CRS on the ground ({listed}). Give georeferenced images (for "
            f"example `gdal_edit.py -a_srs EPSG:CODE {missing[0].image.name}`), or the columns x, y, gsd_m and crs in "
            "tiles.csv, or choose random folds."
        )
    return positions


def assign_spatial_folds(
    tiles: TileSet, folds: int, seed: int, split: SplitSection, known: KnownPositions
) -> SpatialFolds:
    """Assign every tile to a fold by its position, stratified by kind and landslide share; groups stay whole.

    Without a size in `split`, the coarsest blocks or clusters that give even folds are used: each fold has its share of
    the tiles of each kind within a quarter, and at most 1.75 times its share of the landslide pixels. If none does, the
    most even folds are used.

    Args:
        tiles: tiles without the test tiles.
        folds: number of folds, at least 2.
        seed: seed of the split.
        split: shape and size of the units; `method` is not used.
        known: positions of the tiles, and advice for errors.

    Raises:
        DataError: the units are too few to give every fold tiles of each kind.
    """
    found = _search(tiles, folds, seed, split, known.positions)
    if found is None:
        raise DataError(_too_few(tiles, folds, seed, split, known))
    return found


def _search(tiles: TileSet, folds: int, seed: int, split: SplitSection, positions: Positions) -> SpatialFolds | None:
    """Return the folds of the coarsest even units, else the most even ones; None if no units give folds."""
    columns = _columns(tiles)
    best: tuple[float, SpatialFolds] | None = None
    for units in _candidates(tiles, folds, seed, split, positions):
        if best is not None and len(np.unique(units.labels)) > _MOST * folds:
            break
        drawn = _draw(columns, units.labels, folds, seed)
        if drawn is None:
            continue
        cost, numbers = drawn
        if best is None or cost < best[0]:
            assigned = dict(zip(tiles.ids, numbers.tolist(), strict=True))
            number = len(np.unique(units.labels))
            best = cost, SpatialFolds(assigned, number, units.block_m, units.clusters)
        if cost <= 1:
            break
    return None if best is None else best[1]


def _candidates(tiles: TileSet, folds: int, seed: int, split: SplitSection, positions: Positions) -> Iterator[_Units]:
    """Yield units from the coarsest to the finest, or those of the size that `split` sets."""
    order = {tile_id: k for k, tile_id in enumerate(positions.ids)}
    at = np.array([order[tile_id] for tile_id in tiles.ids])
    groups = _numbered([f"group {tile.group}" if tile.group else f"tile {tile.tile_id}" for tile in tiles])
    if split.shape == "blocks":
        for side in (split.block_m,) if split.block_m else _sides(positions):
            yield _Units(_joined(_blocks(positions, side)[at], groups), block_m=side)
        return
    places = len(np.unique(np.round(positions.space), axis=0))
    for clusters in (split.clusters,) if split.clusters else _numbers_of_clusters(folds, places):
        labels = KMeans(min(clusters, places), n_init=1, random_state=seed).fit_predict(np.round(positions.space))
        yield _Units(_joined(labels[at], groups), clusters=min(clusters, places))


def _sides(positions: Positions) -> list[float]:
    """Return sides of blocks, metres: the largest region cut into 2, 3, 4, ... parts, down to the side of a tile."""
    extent = max(float((high - low).max()) for low, high in _extents(positions))
    finest = max(float(np.sqrt(np.median([outline.area for outline in positions.outlines]))), extent / 1000)
    sides, cuts = [], 2.0
    while extent / int(cuts) > finest:
        sides.append(_rounded_up(extent / int(cuts)))
        cuts /= _FINER
    return list(dict.fromkeys([*sides, _rounded_up(finest or 1.0)]))


def _rounded_up(metres: float) -> float:
    """Round up to three digits."""
    step = 10.0 ** (np.floor(np.log10(metres)) - 2)
    return float(f"{np.ceil(metres / step) * step:.6g}")


def _extents(positions: Positions) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the lower left and the upper right corner of each region, metres."""
    bounds = shapely.bounds(positions.outlines)
    regions = [bounds[positions.regions == region] for region in range(positions.number_of_regions)]
    return [(inside[:, :2].min(axis=0), inside[:, 2:].max(axis=0)) for inside in regions]


def _numbers_of_clusters(folds: int, places: int) -> list[int]:
    numbers, number = [], float(folds)
    while number < places:
        numbers.append(round(number))
        number /= _FINER
    return list(dict.fromkeys([*numbers, places]))


def _blocks(positions: Positions, side_m: float) -> Numbers:
    """Number the grid cell of each tile; each region has a grid of its own, centred on it."""
    cells = np.zeros((len(positions.ids), 3), np.int64)
    cells[:, 0] = positions.regions
    for region, (low, high) in enumerate(_extents(positions)):
        inside = positions.regions == region
        corner = (low + high - np.ceil((high - low) / side_m) * side_m) / 2
        # Rounding errors of the projection must not move a tile to another block.
        cells[inside, 1:] = np.floor(np.round(positions.centres[inside] - corner, 3) / side_m)
    return np.asarray(np.unique(cells, axis=0, return_inverse=True)[1].ravel(), np.int64)


def _numbered(names: Sequence[str]) -> Numbers:
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _joined(blocks: Numbers, groups: Numbers) -> Numbers:
    """Join blocks that a group spans, and return the unit (n,) of each tile."""
    offset = int(blocks.max()) + 1
    links = zip(blocks.tolist(), (offset + groups).tolist(), strict=True)
    return np.asarray(connected(links, offset + int(groups.max()) + 1)[blocks], np.int64)


def _columns(tiles: TileSet) -> dict[str, NDArray[np.float64]]:
    """Return what folds should share evenly: the tiles of each kind, and the landslide pixels."""
    kinds = np.array([tile.kind for tile in tiles])
    columns = {kind: (kinds == kind).astype(np.float64) for kind in sorted(set(kinds.tolist()))}
    return columns | {"pixels": np.array([tile.landslide_px for tile in tiles], np.float64)}


def _draw(
    columns: Mapping[str, NDArray[np.float64]], units: Numbers, folds: int, seed: int
) -> tuple[float, Numbers] | None:
    """Return the most even of several splits and its unevenness (<= 1: even); None if a fold lacks a kind."""
    number = len(np.unique(units))
    if number < folds:
        return None
    strata = _strata(columns)
    best: tuple[float, Numbers] | None = None
    draws = min(_WORK // number, _TILE_WORK // len(units), _DRAWS)
    for draw in range(max(draws, 2)):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + draw) % 2**32)
        assigned = np.full(len(units), -1, np.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            try:
                for fold, (_, held_out) in enumerate(splitter.split(units, strata, units)):
                    assigned[held_out] = fold
            except ValueError:  # fewer tiles of each stratum than folds
                return None
        cost = _unevenness(columns, assigned, folds)
        if cost is not None and (best is None or cost < best[0]):
            best = cost, assigned
    return best


def _strata(columns: Mapping[str, NDArray[np.float64]]) -> Numbers:
    """Number kinds, and landslide tiles with more landslide pixels than the median apart from those with fewer."""
    *kinds, pixels = columns.values()
    strata = np.argmax(kinds, axis=0)
    large = pixels > np.median(pixels[pixels > 0]) if (pixels > 0).any() else pixels > 0
    return np.asarray(strata + len(kinds) * large, np.int64)


def _unevenness(columns: Mapping[str, NDArray[np.float64]], assigned: Numbers, folds: int) -> float | None:
    """Return the largest deviation of a fold from an even share / the allowed one; None if a fold lacks a kind."""
    worst = 0.0
    for name, column in columns.items():
        shares = np.bincount(assigned, weights=column, minlength=folds) * folds / max(column.sum(), 1.0)
        if column.any() and not shares.all():
            return None
        allowed = _EVEN_PIXELS if name == "pixels" else _EVEN_TILES
        worst = max(worst, float(np.abs(shares - 1).max()) / allowed) if column.any() else worst
    return worst


def _too_few(tiles: TileSet, folds: int, seed: int, split: SplitSection, known: KnownPositions) -> str:
    """Make the message about units that are too few, with a cure that was tried."""
    *_, units = _candidates(tiles, folds, seed, split, known.positions)
    kinds = np.array([tile.kind for tile in tiles])
    counts = [
        f"{len(np.unique(units.labels[kinds == kind]))} with {kind} tiles" for kind in sorted(set(kinds.tolist()))
    ]
    number, groups = len(np.unique(units.labels)), Counter(tile.group for tile in tiles if tile.group)
    largest = max(groups.values(), default=0)
    joined = f" The largest group has {largest} of {len(tiles)} tiles." if largest > len(tiles) / folds else ""
    return (
        f"{tiles.root}: expected at least {folds} {units.size} with tiles of each kind and landslide pixels, because "
        f"the tiles are split into {folds} spatial parts. Received: {number}, {', '.join(counts)}, too few or too "
        f"unequal.{joined} {_cure(tiles, folds, seed, split, known)}"
    )


def _cure(tiles: TileSet, folds: int, seed: int, split: SplitSection, known: KnownPositions) -> str:
    """Return the first change of the settings that gives folds."""
    free = split.model_copy(update={"block_m": None, "clusters": None})
    if split.block_m or split.clusters:
        found = _search(tiles, folds, seed, free, known.positions)
        if found is not None:
            key = f"block_m to {found.block_m:g}" if found.block_m else f"clusters to {found.clusters}"
            return f"Set the configuration's key split.{key}, or to null."
    for fewer in range(folds - 1, 1, -1):
        if _search(tiles, fewer, seed, free, known.positions) is not None:
            return f"Give more tiles of other places, or {known.fewer(fewer)}."
    apart = replace(tiles, tiles=tuple(replace(tile, group="") for tile in tiles))
    if _search(apart, folds, seed, free, known.positions) is not None:
        return (
            "If the groups mark only tiles that overlap, empty the column group: spatial folds leave overlapping tiles "
            "out of training in any case."
        )
    return "Give more tiles of other places, or choose random folds."
