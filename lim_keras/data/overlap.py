"""Tiles that show the same ground."""

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
from pyproj import Transformer
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from shapely import Polygon, STRtree

from lim_keras.data.tiles import Tile, TileSet
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_image, read_info

# Neighbours that share an edge overlap by rounding only.
_MIN_SHARE = 1e-3


def read_footprints(tiles: Sequence[Tile]) -> dict[str, Polygon]:
    """Tile id to its outline on the ground, for the tiles whose files say where they lie.

    Outlines are in the tiles' CRS where they have one in common, in longitude and latitude where they have several.

    Raises:
        DataError: a file cannot be read.
    """
    infos = {tile.tile_id: read_info(tile.image) for tile in tiles if tile.crs}
    systems = {tile_id: info.crs for tile_id, info in infos.items() if info.transform is not None}
    corners = {tile_id: _corners(infos[tile_id]) for tile_id in systems}
    if len(set(systems.values())) < 2:
        return {tile_id: Polygon(points) for tile_id, points in corners.items()}
    to_degrees = {crs: Transformer.from_crs(crs, "EPSG:4326", always_xy=True) for crs in set(systems.values())}
    return {tile_id: Polygon(to_degrees[systems[tile_id]].itransform(points)) for tile_id, points in corners.items()}


def overlapping_footprints(footprints: dict[str, Polygon]) -> list[tuple[str, str, float]]:
    """Every two tiles whose outlines overlap, with the common area over the smaller tile's area; in the given order."""
    ids, outlines = list(footprints), list(footprints.values())
    found: list[tuple[str, str, float]] = []
    if not outlines:
        return found
    for i, j in sorted(STRtree(outlines).query(outlines, predicate="intersects").T.tolist()):
        if i < j:
            share = outlines[i].intersection(outlines[j]).area / min(outlines[i].area, outlines[j].area)
            if share > _MIN_SHARE:
                found.append((ids[i], ids[j], float(share)))
    return found


def _corners(info: RasterInfo) -> list[tuple[float, float]]:
    place: Any = info.transform
    # Written out, because affine 2 has no `@` and affine 3 warns of `*`.
    return [
        (place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f)
        for x, y in ((0, 0), (info.width, 0), (info.width, info.height), (0, info.height))
    ]


Array = npt.NDArray[Any]

Shift = tuple[int, int]

MIN_SIDE = 16
"""Pixels; ground that is shared over less cannot be told from other ground."""

# SIFT runs at half size: four times faster, and the noise of single pixels is gone. A tile with a side below this has
# too few keypoints at half size.
_SMALL_SIDE = 200

_CONTRAST = 0.02

_PIXELS_PER_KEYPOINT = 300

_MIN_KEYPOINTS = 130

_NEIGHBOURS = 8

_TREES = 4

_CHECKS = 32

_CHUNK = 20_000

# Squared distances of square-rooted descriptors of unit sum. Of matches of the same pixels after two JPEG encodings,
# nine in ten lie below .05 and nearly all below .25; of the many that only look alike, few below .07.
_SAME = 0.07

_ALIKE = 0.25

_SHIFTS_PER_PAIR = 6


@dataclass(frozen=True, slots=True)
class Keypoints:
    """positions: (n, 2) float32, x and y in tile pixels. descriptors: (n, 128) float32 of unit length."""

    positions: Array
    descriptors: Array


def find_keypoints(gray: Array) -> Keypoints:
    """The strongest keypoints of a (height, width) uint8 image, up to one in 300 pixels; none where it is flat."""
    nothing = Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    if min(gray.shape) < MIN_SIDE:  # below some size OpenCV's SIFT breaks down
        return nothing
    shrink = 1 if min(gray.shape) < _SMALL_SIDE else 2
    # Cut to whole multiples first, so that the half-size grid lies on the full one exactly.
    height, width = (side - side % shrink for side in gray.shape)
    small = cv2.resize(gray[:height, :width], (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(contrastThreshold=_CONTRAST)
    quota = max(_MIN_KEYPOINTS, gray.size // _PIXELS_PER_KEYPOINT)
    points, descriptors = sift.compute(small, _upright(sift.detect(small, None))[:quota])
    if not points:
        return nothing
    positions = np.array([point.pt for point in points], np.float32) * shrink
    totals = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    return Keypoints(positions, np.sqrt(descriptors / totals).astype(np.float32))


def _upright(points: Sequence[cv2.KeyPoint]) -> list[cv2.KeyPoint]:
    """The keypoints without orientation, strongest first; two that differed in orientation only are one."""
    strongest = sorted(points, key=lambda point: (-point.response, point.pt, point.size))
    distinct = {(*point.pt, point.size): point for point in strongest}
    return [cv2.KeyPoint(x, y, size, 0.0, point.response, point.octave) for (x, y, size), point in distinct.items()]


def propose_shifts(
    tiles: Sequence[Keypoints], progress: ProgressCallback | None = None
) -> dict[tuple[int, int], list[Shift]]:
    """For every two tiles, the shifts that their matching keypoints propose, those with most matches first.

    Returns:
        (i, j), i < j, places in `tiles`, to (dx, dy): what lies at (x, y) in tile i lies at (x + dx, y + dy) in tile j.
    """
    owner = np.repeat(np.arange(len(tiles)), [len(tile.positions) for tile in tiles])
    if len(owner) < _NEIGHBOURS:
        return {}
    positions = np.concatenate([tile.positions for tile in tiles])
    first, second, distances = _match(np.concatenate([tile.descriptors for tile in tiles]), owner, progress)
    shifts = np.rint(positions[second] - positions[first]).astype(np.int64)
    agreed, votes = _agree(np.column_stack([owner[first], owner[second], shifts]), distances)
    proposed: dict[tuple[int, int], list[Shift]] = {}
    for i, j, dx, dy in agreed[np.argsort(-votes, kind="stable")].tolist():
        proposed.setdefault((i, j), []).append((dx, dy))
    return {pair: pair_shifts[:_SHIFTS_PER_PAIR] for pair, pair_shifts in proposed.items()}


def _match(descriptors: Array, owner: Array, progress: ProgressCallback | None) -> tuple[Array, Array, Array]:
    """Rows that match across tiles, each match once, the row of the earlier tile first; and their distances."""
    # The forest's splits are drawn at random: seeded, the same tiles give the same matches.
    cv2.setRNGSeed(0)
    forest = cv2.flann.Index(descriptors, {"algorithm": 1, "trees": _TREES})
    matches, distances = [], []
    starts = range(0, len(descriptors), _CHUNK)
    for start in track(starts, "matching keypoints", len(starts), progress):
        chunk = descriptors[start : start + _CHUNK]
        neighbours, squared = forest.knnSearch(chunk, _NEIGHBOURS, params={"checks": _CHECKS})
        here, there = np.repeat(np.arange(start, start + len(chunk)), _NEIGHBOURS), neighbours.ravel()
        kept = (squared.ravel() < _ALIKE) & (owner[here] != owner[there])
        # Rows are in tile order, so the smaller row is of the earlier tile.
        low, high = np.minimum(here[kept], there[kept]), np.maximum(here[kept], there[kept])
        matches.append(low * len(descriptors) + high)
        distances.append(squared.ravel()[kept])
    # Two keypoints that are each other's neighbour are one match, not two.
    once, index = np.unique(np.concatenate(matches), return_index=True)
    return once // len(descriptors), once % len(descriptors), np.concatenate(distances)[index]


def _agree(shifts: Array, distances: Array) -> tuple[Array, Array]:
    """Of the (n, 4) rows i, j, dx, dy each distinct one with two matches, or one that is the same; and how many."""
    if not len(shifts):
        return shifts, np.zeros(0, np.int64)
    order = np.lexsort(shifts.T)
    shifts, distances = shifts[order], distances[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(shifts, axis=0) != 0).any(axis=1)])
    votes = np.diff(np.r_[starts, len(shifts)])
    good = (votes > 1) | (np.minimum.reduceat(distances, starts) < _SAME)
    return shifts[starts[good]], votes[good]


Array_overlap = npt.NDArray[Any]

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


def find_overlaps(tiles: TileSet, *, progress: ProgressCallback | None = None) -> list[Overlap]:
    """Find tiles that share ground. The same tiles give the same answer, in their order.

    Tiles whose files say where they lie are compared by outline, the others by their pixels. Of several tiles of equal
    pixels, each is listed with the one before it.

    Args:
        tiles: tiles of one ground sample distance.
        progress: receives the steps of three tasks: finding keypoints, matching them, comparing pixels.

    Raises:
        DataError: a tile cannot be read.
    """
    footprints = read_footprints(tiles)
    loose = [tile for tile in tiles if tile.tile_id not in footprints]
    overlaps = [Overlap(*found) for found in overlapping_footprints(footprints)]
    pairs = _pixel_overlaps(loose, progress)
    overlaps += [Overlap(loose[i].tile_id, loose[j].tile_id, share) for i, j, share in pairs]
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


def _join(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """A label for each of `count` things; linked things share theirs."""
    ends = np.array(links, np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    labels: list[int] = connected_components(graph, directed=False)[1].tolist()
    return labels


def _pixel_overlaps(tiles: Sequence[Tile], progress: ProgressCallback | None) -> Iterator[tuple[int, int, float]]:
    with ThreadPoolExecutor() as pool:
        described = pool.map(_describe, tiles)
        found = list(track(described, "finding keypoints", len(tiles), progress, "tiles"))
    proposed = propose_shifts([keypoints for keypoints, _ in found], progress)
    for pair in _equal_neighbours([digest for _, digest in found]):
        proposed.pop(pair, None)
        yield *pair, 1.0
    # Pairs come sorted, so the tile that is compared with many others is read once.
    gray = lru_cache(maxsize=512)(lambda k: _gray(tiles[k]))
    for (i, j), shifts in track(sorted(proposed.items()), "comparing pixels", len(proposed), progress, "pairs"):
        share = max(_shared(gray(i), gray(j), shift) for shift in shifts)
        if share > 0:
            yield i, j, share


def _describe(tile: Tile) -> tuple[Keypoints, bytes]:
    gray = _gray(tile)
    return find_keypoints(gray), hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).digest()


def _gray(tile: Tile) -> Array_overlap:
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


def _shared(first: Array_overlap, second: Array_overlap, shift: Shift) -> float:
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


def _common(first: Array_overlap, second: Array_overlap, shift: Shift) -> tuple[Array_overlap, Array_overlap, int]:
    """The rectangle that both show if (x, y) in the first is (x + dx, y + dy) in the second; area 0 if too small."""
    (dx, dy), (height, width) = shift, second.shape
    left, top = max(0, -dx), max(0, -dy)
    right, bottom = min(first.shape[1], width - dx), min(first.shape[0], height - dy)
    across, down = max(0, right - left), max(0, bottom - top)
    if min(across, down) < MIN_SIDE or across * down < _MIN_AREA:
        return first[:0], second[:0], 0
    here, there = first[top:bottom, left:right], second[top + dy : bottom + dy, left + dx : right + dx]
    return here, there, across * down


def _band_pass(gray: Array_overlap) -> Array_overlap:
    """Detail of a few pixels' size: neither the light that all ground shares nor the noise of single pixels."""
    gray = gray.astype(np.float32)
    detail: Array_overlap = cv2.GaussianBlur(gray, (0, 0), 1.0) - cv2.GaussianBlur(gray, (0, 0), 4.0)
    return detail
