"""Overlaps between tiles: found by outline for georeferenced tiles, by pixels for others."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely import Polygon, STRtree

from lim_keras.data.groups import name_groups
from lim_keras.data.positions import Positions
from lim_keras.data.tiles import Tile, TileSet
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.images import read_image, read_info

Array = npt.NDArray[Any]
Shift = tuple[int, int]

# Smallest common share of area: tiles with only a common edge may overlap by rounding.
_MIN_SHARE = 1e-3

# Smallest side and area of a common rectangle, pixels: smaller ones are ambiguous.
_MIN_SIDE, _MIN_AREA = 16, 600

# SIFT runs at half size, which removes pixel noise. Tiles with a side below this have too few keypoints for that.
_SMALL_SIDE = 200
_CONTRAST = 0.02
_PIXELS_PER_KEYPOINT, _MIN_KEYPOINTS = 300, 130

# Approximate nearest-neighbour search: neighbours per keypoint, trees, leaves checked, keypoints per query.
_NEIGHBOURS, _TREES, _CHECKS, _CHUNK = 8, 4, 32, 20_000

# Squared distances between square-rooted SIFT descriptors of unit sum: below the first, one match proves a shift;
# above the second there is no match.
_SAME, _ALIKE = 0.07, 0.25

_SHIFTS_PER_PAIR = 6

# The same pixels after two JPEG encodings correlate better than this; different ground does not.
_MIN_CORRELATION = 0.9

# Largest error of a shift from half-size keypoints, pixels.
_SLACK = 2

# Side of thumbnails, pixels; their correlation above which images are compared in detail; images compared with each.
_THUMBNAIL, _ALIKE_THUMBNAILS, _CANDIDATES = 16, 0.98, 3

# Standard deviation, in grey levels, below which a rectangle has no texture to compare.
_MIN_TEXTURE = 0.5


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two tiles that show the same ground: their ids, and the common area over the area of the smaller tile, 0..1."""

    first: str
    second: str
    share: float


def find_overlaps(tiles: TileSet, *, progress: ProgressCallback | None = None) -> list[Overlap]:
    """Find tiles that show the same ground.

    Georeferenced tiles are compared by outline, the others by pixels: SIFT keypoints propose shifts between two tiles,
    and correlation at a shift decides. Each of several identical tiles is paired with the one before it.

    Args:
        tiles: tiles of one ground sample distance.
        progress: receives three tasks: finding keypoints, matching them, comparing pixels.

    Returns:
        Overlaps in the order of the tiles; equal tiles give equal results.

    Raises:
        DataError: a tile cannot be read.
    """
    placed, found = _ground_overlaps(tiles)
    others = [tile for tile in tiles if tile.tile_id not in placed]
    overlaps = [Overlap(*one) for one in found]
    pairs = _pixel_overlaps(others, progress)
    overlaps += [Overlap(others[i].tile_id, others[j].tile_id, share) for i, j, share in pairs]
    position = {tile_id: k for k, tile_id in enumerate(tiles.ids)}
    return sorted(overlaps, key=lambda overlap: (position[overlap.first], position[overlap.second]))


def find_copies(images: Sequence[Tile], tiles: Sequence[Tile]) -> list[tuple[Tile, Tile]]:
    """Find images that show the same picture as a tile: stored once more, with lossy compression or in another size.

    Thumbnails propose pairs, and correlation of the details decides. Turned, mirrored and cut copies are not found.

    Args:
        images: images to look for.
        tiles: tiles to compare them with.

    Returns:
        Pairs of image and tile in the order of the images, one for each image at most.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        mine, others = (np.array(list(pool.map(_thumbnail, one)), np.float32) for one in (images, tiles))
    if not len(mine) or not len(others):
        return []
    likeness = mine @ others.T
    found = []
    for image, row in zip(images, likeness, strict=True):
        nearest = [int(k) for k in np.argsort(-row, kind="stable")[:_CANDIDATES] if row[k] > _ALIKE_THUMBNAILS]
        copied = (tiles[k] for k in nearest if _is_same_picture(_gray(image), _gray(tiles[k])))
        found += [(image, tile) for tile in copied][:1]
    return found


def _thumbnail(tile: Tile) -> Array:
    """Return a thumbnail (n,) of mean 0 and length 1, whose product with another is their correlation; 0 if flat."""
    small = cv2.resize(_gray(tile), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).ravel().astype(np.float32)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return np.asarray(small / length if length > _MIN_TEXTURE * _THUMBNAIL else 0 * small, np.float32)


def _is_same_picture(one: Array, other: Array) -> bool:
    """Compare the details of two grey images (height, width) in the size of the smaller one."""
    smaller, larger = sorted((one, other), key=lambda gray: int(gray.size))
    size = smaller.shape[1], smaller.shape[0]
    return _common_share(smaller, cv2.resize(larger, size, interpolation=cv2.INTER_AREA), (0, 0)) > 0


def group_overlaps(tiles: TileSet, overlaps: Iterable[Overlap]) -> TileSet:
    """Set `group` so that tiles linked by overlaps, directly or in a chain, share one group.

    Existing groups stay together. A group is named after its first tile; a tile without overlap gets "".

    Raises:
        DataError: an overlap of unknown tiles.
    """
    overlaps = list(overlaps)
    tiles.check_known(tile_id for overlap in overlaps for tile_id in (overlap.first, overlap.second))
    position = {tile_id: k for k, tile_id in enumerate(tiles.ids)}
    links = [(position[overlap.first], position[overlap.second]) for overlap in overlaps]
    first_of: dict[str, int] = {}
    links += [(first_of.setdefault(tile.group, k), k) for k, tile in enumerate(tiles) if tile.group]
    groups = name_groups(tiles.ids, links)
    return replace(tiles, tiles=tuple(replace(tile, group=name) for tile, name in zip(tiles, groups, strict=True)))


def _ground_overlaps(tiles: Sequence[Tile]) -> tuple[set[str], list[tuple[str, str, float]]]:
    """Return the ids of the georeferenced tiles, and the pairs that overlap, as `overlapping_footprints` does."""
    footprints = read_footprints(tiles)
    georeferenced = [tile for tile in tiles if tile.tile_id in footprints]
    systems = {tile.crs for tile in georeferenced}
    if len(systems) < 2 and not any(_is_in_degrees(crs) for crs in systems):
        return set(footprints), overlapping_footprints(footprints)
    # Several systems and degrees need metres; longitudes also jump at the antimeridian.
    positions = Positions.read(georeferenced)
    order = {tile_id: k for k, tile_id in enumerate(positions.ids)}
    found = positions.overlaps(positions.ids, positions.ids)
    return set(positions.ids), [pair for pair in found if order[pair[0]] < order[pair[1]]]


def _is_in_degrees(crs: str) -> bool:
    try:
        return bool(CRS.from_user_input(crs).is_geographic)
    except ProjError:
        return False


def read_footprints(tiles: Sequence[Tile]) -> dict[str, Polygon]:
    """Read the outlines of the georeferenced tiles.

    Returns:
        Outline by tile id, in the CRS of the tile.

    Raises:
        DataError: a file cannot be read.
    """
    infos = {tile.tile_id: read_info(tile.image) for tile in tiles if tile.crs}
    footprints = {}
    for tile_id, info in infos.items():
        if info.transform is not None:
            corners = ((0, 0), (info.width, 0), (info.width, info.height), (0, info.height))
            footprints[tile_id] = Polygon([info.place(x, y) for x, y in corners])
    return footprints


def overlapping_footprints(footprints: dict[str, Polygon]) -> list[tuple[str, str, float]]:
    """Return pairs of ids whose outlines overlap, with common area / area of the smaller tile."""
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


def _pixel_overlaps(tiles: Sequence[Tile], progress: ProgressCallback | None) -> Iterator[tuple[int, int, float]]:
    """Yield positions of each pair of tiles with common pixels, and common area / area of the smaller tile."""
    with ThreadPoolExecutor() as pool:
        described = pool.map(_describe, tiles)
        found = list(track(described, "finding keypoints", len(tiles), progress, "tiles"))
    proposed = _propose_shifts([keypoints for keypoints, _ in found], progress)
    for pair in _equal_pairs([digest for _, digest in found]):
        proposed.pop(pair, None)
        yield *pair, 1.0
    # Pairs are sorted, so a tile with many pairs is read once.
    gray = lru_cache(maxsize=512)(lambda k: _gray(tiles[k]))
    for (i, j), shifts in track(sorted(proposed.items()), "comparing pixels", len(proposed), progress, "pairs"):
        share = max(_common_share(gray(i), gray(j), shift) for shift in shifts)
        if share > 0:
            yield i, j, share


@dataclass(frozen=True, slots=True)
class _Keypoints:
    """Positions (n, 2) float32, x and y in pixels, and descriptors (n, 128) float32 of unit length."""

    positions: Array
    descriptors: Array


def _describe(tile: Tile) -> tuple[_Keypoints, bytes]:
    gray = _gray(tile)
    return _find_keypoints(gray), hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).digest()


def _gray(tile: Tile) -> Array:
    """Return the mean of the first three bands, (height, width) uint8; other types are scaled by percentiles 1, 99."""
    image = read_image(tile.image)[..., :3]
    mean = image.astype(np.float32).mean(axis=2)
    if image.dtype != np.uint8:
        finite = np.isfinite(mean)
        low, high = np.percentile(mean[finite], (1, 99)) if finite.any() else (0.0, 1.0)
        mean = np.where(finite, (mean - low) * (255 / max(high - low, 1e-6)), 0).clip(0, 255)
    return np.asarray(np.rint(mean), np.uint8)


def _equal_pairs(digests: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    last: dict[bytes, int] = {}
    for k, digest in enumerate(digests):
        if digest in last:
            yield last[digest], k
        last[digest] = k


def _find_keypoints(gray: Array) -> _Keypoints:
    """Find the strongest keypoints of a (height, width) uint8 image, at most one in 300 pixels."""
    nothing = _Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    if min(gray.shape) < _MIN_SIDE:  # SIFT of OpenCV fails on tiny images
        return nothing
    shrink = 1 if min(gray.shape) < _SMALL_SIDE else 2
    # Crop to even sides, so that each half-size pixel covers whole pixels.
    height, width = (side - side % shrink for side in gray.shape)
    small = cv2.resize(gray[:height, :width], (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(contrastThreshold=_CONTRAST)
    count = max(_MIN_KEYPOINTS, gray.size // _PIXELS_PER_KEYPOINT)
    points, descriptors = sift.compute(small, _upright(sift.detect(small, None))[:count])
    if not points:
        return nothing
    positions = np.array([point.pt for point in points], np.float32) * shrink
    totals = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    return _Keypoints(positions, np.sqrt(descriptors / totals).astype(np.float32))


def _upright(points: Sequence[cv2.KeyPoint]) -> list[cv2.KeyPoint]:
    """Remove orientations, and the duplicates that result; return the strongest keypoint first."""
    strongest = sorted(points, key=lambda point: (-point.response, point.pt, point.size))
    distinct = {(*point.pt, point.size): point for point in strongest}
    return [cv2.KeyPoint(x, y, size, 0.0, point.response, point.octave) for (x, y, size), point in distinct.items()]


def _propose_shifts(
    tiles: Sequence[_Keypoints], progress: ProgressCallback | None
) -> dict[tuple[int, int], list[Shift]]:
    """Propose shifts for each pair of tiles with matching keypoints, most matches first.

    Returns:
        Shifts (dx, dy) by pair (i, j), i < j: pixel (x, y) of tile i is pixel (x + dx, y + dy) of tile j.
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
    """Return rows that match across tiles, the row of the earlier tile first, and their squared distances."""
    # The forest is random: a seed makes results repeatable.
    cv2.setRNGSeed(0)
    forest = cv2.flann.Index(descriptors, {"algorithm": 1, "trees": _TREES})
    matches, distances = [], []
    starts = range(0, len(descriptors), _CHUNK)
    for start in track(starts, "matching keypoints", len(starts), progress):
        chunk = descriptors[start : start + _CHUNK]
        neighbours, squared = forest.knnSearch(chunk, _NEIGHBOURS, params={"checks": _CHECKS})
        rows, others = np.repeat(np.arange(start, start + len(chunk)), _NEIGHBOURS), neighbours.ravel()
        kept = (squared.ravel() < _ALIKE) & (owner[rows] != owner[others])
        # Rows are in tile order, so the smaller row belongs to the earlier tile.
        low, high = np.minimum(rows[kept], others[kept]), np.maximum(rows[kept], others[kept])
        matches.append(low * len(descriptors) + high)
        distances.append(squared.ravel()[kept])
    # Two keypoints that are each other's neighbour are one match.
    unique, index = np.unique(np.concatenate(matches), return_index=True)
    return unique // len(descriptors), unique % len(descriptors), np.concatenate(distances)[index]


def _agree(shifts: Array, distances: Array) -> tuple[Array, Array]:
    """Return the distinct rows (i, j, dx, dy) with two matches or one exact match, and the number of matches."""
    if not len(shifts):
        return shifts, np.zeros(0, np.int64)
    order = np.lexsort(shifts.T)
    shifts, distances = shifts[order], distances[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(shifts, axis=0) != 0).any(axis=1)])
    votes = np.diff(np.r_[starts, len(shifts)])
    good = (votes > 1) | (np.minimum.reduceat(distances, starts) < _SAME)
    return shifts[starts[good]], votes[good]


def _common_share(first: Array, second: Array, shift: Shift) -> float:
    """Return the common area over the area of the smaller image if both agree at that shift, else 0."""
    (dx, dy), (height, width) = shift, second.shape
    left, top = max(0, -dx), max(0, -dy)
    right, bottom = min(first.shape[1], width - dx), min(first.shape[0], height - dy)
    across, down = max(0, right - left), max(0, bottom - top)
    if min(across, down) < _MIN_SIDE or across * down < _MIN_AREA:
        return 0.0
    one, other = (
        _band_pass(first[top:bottom, left:right]),
        _band_pass(second[top + dy : bottom + dy, left + dx : right + dx]),
    )
    core = one[_SLACK:-_SLACK, _SLACK:-_SLACK]
    if min(core.std(), other.std()) < _MIN_TEXTURE:
        return 0.0
    correlation = float(cv2.matchTemplate(other, core, cv2.TM_CCOEFF_NORMED).max())
    return across * down / min(first.size, second.size) if correlation >= _MIN_CORRELATION else 0.0


def _band_pass(gray: Array) -> Array:
    """Keep detail of a few pixels: no large-scale brightness and no noise of single pixels."""
    gray = gray.astype(np.float32)
    detail: Array = cv2.GaussianBlur(gray, (0, 0), 1.0) - cv2.GaussianBlur(gray, (0, 0), 4.0)
    return detail
