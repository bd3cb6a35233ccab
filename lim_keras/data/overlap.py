"""Tiles that show the same ground, found by where they lie or, where files carry no position, by their pixels.

Two such tiles on both sides of a split let a model be judged on ground that it was trained on. `group_overlaps` joins
them into groups, which `lim_keras.data.folds` keeps together.

By pixels, matching keypoints propose shifts between two tiles, and a shift stands when the band-passed pixels of the
common rectangle correlate. Tiles must have one ground sample distance and orientation: a rotated or rescaled copy is
not found.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lim_keras.data.footprints import overlapping_footprints, read_footprints
from lim_keras.data.keypoints import MIN_SIDE, Keypoints, Shift, find_keypoints, propose_shifts
from lim_keras.data.raster import read_image
from lim_keras.data.tiles import Tile, TileSet

Array = npt.NDArray[Any]

# On real tiles the same pixels after two JPEG encodings correlate at .95 and more, other ground at .86 and less (that
# is where a bright road crosses both).
_MIN_CORRELATION = 0.9
# Shifts from half-size keypoints are off by up to two pixels.
_SLACK = 2
_MIN_AREA = 600
# Standard deviation, in grey levels, below which a rectangle shows nothing that could be recognised.
_MIN_TEXTURE = 0.5


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two tiles that share ground: their ids, and the common area over the smaller tile's area (0..1)."""

    first: str
    second: str
    share: float


def find_overlaps(tiles: TileSet, *, progress: bool = False) -> list[Overlap]:
    """Find tiles that share ground. The same tiles give the same answer, in their order.

    Tiles whose files say where they lie are compared by outline, the others by their pixels. Of several tiles of equal
    pixels, each is listed with the one before it.

    Args:
        tiles: tiles of one ground sample distance.
        progress: draw progress bars on standard error, if it is a terminal.

    Raises:
        DataError: a tile cannot be read.
    """
    footprints = read_footprints(tiles)
    loose = [tile for tile in tiles if tile.tile_id not in footprints]
    overlaps = [Overlap(*found) for found in overlapping_footprints(footprints)]
    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal)) as bars:
        overlaps += [Overlap(loose[i].tile_id, loose[j].tile_id, share) for i, j, share in _pixel_overlaps(loose, bars)]
    place = {tile_id: k for k, tile_id in enumerate(tiles.ids)}
    return sorted(overlaps, key=lambda overlap: (place[overlap.first], place[overlap.second]))


def group_overlaps(tiles: TileSet, overlaps: Iterable[Overlap]) -> TileSet:
    """The same tiles with `group` set: tiles joined by overlaps, directly or in a chain, get one group.

    Groups that the tiles have already stay joined. A group is named after its first tile; a tile alone gets "".
    """
    place = {tile_id: k for k, tile_id in enumerate(tiles.ids)}
    links = [(place[overlap.first], place[overlap.second]) for overlap in overlaps]
    founder: dict[str, int] = {}
    links += [(founder.setdefault(tile.group, k), k) for k, tile in enumerate(tiles) if tile.group]
    labels = _join(len(tiles), links)
    sizes, names = Counter(labels), dict[int, str]()
    grouped = []
    for tile, label in zip(tiles, labels, strict=True):
        name = names.setdefault(label, tile.tile_id) if sizes[label] > 1 else ""
        grouped.append(replace(tile, group=name))
    return replace(tiles, tiles=tuple(grouped))


def overlap_table(grouped: TileSet, overlaps: Sequence[Overlap]) -> Table:
    """How many tiles share ground, by kind, to be printed by rich; `grouped` as `group_overlaps` gives them."""
    table = Table(title=f"{grouped.root}: tiles that share ground", title_justify="left")
    for name in ("", "tiles", "in a group", "groups", "largest group"):
        table.add_column(name, justify="right" if name else "left")
    for name, some in (
        ("landslide", grouped.of_kind("landslide")),
        ("non-landslide", grouped.of_kind("non-landslide")),
        ("all", grouped),
    ):
        sizes = Counter(tile.group for tile in some if tile.group)
        figures = (len(some), sizes.total(), len(sizes), max(sizes.values(), default=0))
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    table.caption = f"{len(overlaps):,} overlapping pairs"
    return table


def _join(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """A label for each of `count` things; linked things share theirs."""
    ends = np.array(links, np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    labels: list[int] = connected_components(graph, directed=False)[1].tolist()
    return labels


def _pixel_overlaps(tiles: Sequence[Tile], bars: Progress) -> Iterator[tuple[int, int, float]]:
    with ThreadPoolExecutor() as pool:
        described = pool.map(_describe, tiles)
        found = list(bars.track(described, total=len(tiles), description="finding keypoints"))
    proposed = propose_shifts([keypoints for keypoints, _ in found], bars)
    for pair in _equal_neighbours([digest for _, digest in found]):
        proposed.pop(pair, None)
        yield *pair, 1.0
    # Pairs come sorted, so the tile that is compared with many others is read once.
    gray = lru_cache(maxsize=512)(lambda k: _gray(tiles[k]))
    for (i, j), shifts in bars.track(sorted(proposed.items()), description="comparing pixels"):
        share = max(_shared(gray(i), gray(j), shift) for shift in shifts)
        if share > 0:
            yield i, j, share


def _describe(tile: Tile) -> tuple[Keypoints, bytes]:
    gray = _gray(tile)
    return find_keypoints(gray), hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).digest()


def _gray(tile: Tile) -> Array:
    """(height, width) uint8: the mean of the first three bands; other than uint8, stretched between its percentiles."""
    image = read_image(tile.image)[..., :3]
    mean = image.astype(np.float32).mean(axis=2)
    if image.dtype != np.uint8:
        finite = np.isfinite(mean)
        low, high = np.percentile(mean[finite], (1, 99)) if finite.any() else (0.0, 1.0)
        mean = np.where(finite, (mean - low) * (255 / max(high - low, 1e-6)), 0).clip(0, 255)
    return np.asarray(np.rint(mean), np.uint8)


def _equal_neighbours(digests: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    last: dict[bytes, int] = {}
    for k, digest in enumerate(digests):
        if digest in last:
            yield last[digest], k
        last[digest] = k


def _shared(first: Array, second: Array, shift: Shift) -> float:
    """The common area over the smaller image's area if both show the same at that shift, else 0."""
    here, there, area = _common(first, second, shift)
    if area == 0:
        return 0.0
    here, there = _band_pass(here), _band_pass(there)
    core = here[_SLACK:-_SLACK, _SLACK:-_SLACK]
    if min(core.std(), there.std()) < _MIN_TEXTURE:
        return 0.0
    correlation = float(cv2.matchTemplate(there, core, cv2.TM_CCOEFF_NORMED).max())
    return area / min(first.size, second.size) if correlation >= _MIN_CORRELATION else 0.0


def _common(first: Array, second: Array, shift: Shift) -> tuple[Array, Array, int]:
    """The rectangle that both show if (x, y) in the first is (x + dx, y + dy) in the second; area 0 if too small."""
    (dx, dy), (height, width) = shift, second.shape
    left, top = max(0, -dx), max(0, -dy)
    right, bottom = min(first.shape[1], width - dx), min(first.shape[0], height - dy)
    across, down = max(0, right - left), max(0, bottom - top)
    if min(across, down) < MIN_SIDE or across * down < _MIN_AREA:
        return first[:0], second[:0], 0
    here, there = first[top:bottom, left:right], second[top + dy : bottom + dy, left + dx : right + dx]
    return here, there, across * down


def _band_pass(gray: Array) -> Array:
    """Detail of a few pixels' size: neither the light that all ground shares nor the noise of single pixels."""
    gray = gray.astype(np.float32)
    detail: Array = cv2.GaussianBlur(gray, (0, 0), 1.0) - cv2.GaussianBlur(gray, (0, 0), 4.0)
    return detail
