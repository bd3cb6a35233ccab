"""Labelled tiles: one tile, a set of tiles, their pixels, and a cache of decoded tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import cv2
import numpy as np
import numpy.typing as npt

from lim_keras.data.recent_pixels import RecentPixels, file_stamp
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import atomic_file
from lim_keras.raster.georeference import RasterInfo, same_crs
from lim_keras.raster.images import fill_invalid, read_decoded_image, read_orientation, read_valid
from lim_keras.raster.masks import DecodedMask, read_decoded_mask

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.uint8]
Valid = npt.NDArray[np.bool_]
Kind = Literal["landslide", "non-landslide"]
Ignore = Literal["", "255", "nodata"]
CacheMode = Literal["memory", "recent", "disk", "none"]

LANDSLIDE = 1
IGNORED = 255

_MAX_LISTED = 20
_RECENT_BYTES = 256 * 2**20  # of a store
_recent = RecentPixels(64 * 2**20)  # of the process: several parts of a training read the same tiles
_MAX_CV2_BANDS = 4
"""OpenCV averages areas of at most four bands at once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One labelled training tile: a line of the manifest.

    Attributes:
        tile_id: unique name.
        image, mask: files; mask is None where the whole tile is background.
        kind: "landslide" or "non-landslide".
        group: tiles of one group stay on one side of every split; "" for none.
        scene: name of the scene that the tile was cut from; "" if unknown.
        x, y: centre, in units of `crs`, or in pixels of the scene where `crs` is "".
        width, height: pixels.
        gsd_m: ground sample distance, metres; None if unknown.
        crs: coordinate reference system; "" if unknown.
        landslide_px, valid_px: numbers of landslide pixels and of labelled pixels.
        ignore: pixels of the mask without a label: "" none, "255" those of value 255, "nodata" those that the mask
            marks as no data or transparent. Pixels that the image marks so have no label in any case.
    """

    tile_id: str
    image: Path
    mask: Path | None
    kind: Kind
    group: str
    scene: str
    x: float | None
    y: float | None
    width: int
    height: int
    gsd_m: float | None
    crs: str
    landslide_px: int
    valid_px: int
    ignore: Ignore = ""


def raise_problems(where: Path, problems: Sequence[str]) -> None:
    """Raise one DataError that lists the first 20 problems and counts the rest; do nothing without problems."""
    if not problems:
        return
    lines = [f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''} with the tiles:"]
    lines += problems[:_MAX_LISTED]
    if len(problems) > _MAX_LISTED:
        lines.append(f"... and {len(problems) - _MAX_LISTED} more.")
    raise DataError("\n  ".join(lines))


@dataclass(frozen=True)
class TileSet(Sequence[Tile]):
    """Tiles of equal bands and data type, addressed by position or id. `lim_keras.read_tiles` reads one.

    Attributes:
        root: folder that the tiles were read from.
        tiles: the tiles, in order.
        bands: number of bands of every image.
        dtype: NumPy name of the data type of every image.
    """

    root: Path
    tiles: tuple[Tile, ...]
    bands: int
    dtype: str

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the tiles, in order."""
        return tuple(tile.tile_id for tile in self.tiles)

    @cached_property
    def _by_id(self) -> dict[str, Tile]:
        return {tile.tile_id: tile for tile in self.tiles}

    def __len__(self) -> int:
        return len(self.tiles)

    def __contains__(self, item: object) -> bool:
        return item in self._by_id if isinstance(item, str) else item in self.tiles

    @overload
    def __getitem__(self, key: int | str) -> Tile: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Tile, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Tile | tuple[Tile, ...]:
        if not isinstance(key, str):
            return self.tiles[key]
        self.check_known([key])
        return self._by_id[key]

    def subset(self, ids: Iterable[str]) -> TileSet:
        """Return the tiles of these ids, in the order of this set. Raises DataError for unknown ids."""
        wanted = set(self.check_known(ids))
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.tile_id in wanted))

    def without(self, ids: Iterable[str]) -> TileSet:
        """Return all other tiles, in order. Raises DataError for unknown ids."""
        unwanted = set(self.check_known(ids))
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.tile_id not in unwanted))

    def of_kind(self, kind: Kind) -> TileSet:
        """Return the tiles of one kind, in order."""
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile.kind == kind))

    def check_known(self, ids: Iterable[str]) -> list[str]:
        """Return the ids as a list. Raises DataError with the list of unknown ids."""
        ids = list(ids)
        unknown = [tile_id for tile_id in dict.fromkeys(ids) if tile_id not in self._by_id]
        raise_problems(self.root, [f"no tile has the id {tile_id!r}." for tile_id in unknown])
        return ids


def read_tile(tile: Tile) -> tuple[Array, Labels]:
    """Read the pixels of a tile.

    Returns:
        Image (height, width, bands) in its data type, and mask (height, width) uint8: 1 landslide, 0 background, 255
        ignored. Pixels without data in the image (nodata value, internal mask, transparent, NaN) are ignored, and hold
        the mean of their band.

    Raises:
        DataError: a file is unreadable, image and mask differ in size, orientation or place, or the mask holds unknown
            values or can be read in two ways.
    """
    key = (tile.image, tile.mask, tile.ignore, file_stamp(tile.image), tile.mask and file_stamp(tile.mask))
    pixels = _recent.get(key)
    if pixels is None:
        pixels = read_pair(tile.image, tile.mask, tile.ignore)
        _recent.keep(key, pixels)
    return pixels


def read_pair(image: Path, mask: Path | None, ignore: Ignore) -> tuple[Array, Labels]:
    """Read an image and its mask; see `read_tile`."""
    picture = read_decoded_image(image)
    valid = picture.valid
    pixels = fill_invalid(picture.pixels, valid)
    if mask is None:
        return pixels, _ignore_invalid(np.zeros(valid.shape, np.uint8), valid)
    _check_orientation(image, mask)
    drawn = read_decoded_mask(mask, marked=ignore == "nodata")
    values = drawn.labels
    if values.shape != valid.shape:
        raise DataError(
            f"{mask}: the mask is {values.shape[1]} x {values.shape[0]} pixels, "
            f"but its image {image.name} is {valid.shape[1]} x {valid.shape[0]}."
        )
    _check_place(picture.info, drawn.info)
    known = None
    if ignore == "nodata":
        known = read_valid(mask)
        valid = valid & known
    elif ignore == "":
        _check_nodata_value(drawn)
    return pixels, _ignore_invalid(_labels(drawn, ignore, known), valid)


def _check_orientation(image: Path, mask: Path) -> None:
    """Refuse different EXIF orientations of image and mask, because the labels may belong to either."""
    turned, drawn = read_orientation(image), read_orientation(mask)
    if turned != drawn:
        raise DataError(
            f"{image}: its EXIF orientation is {turned}, that of its mask {mask.name} is {drawn}. If the mask fits the "
            "image as viewers show it, apply the orientation to the pixels "
            '(`ImageOps.exif_transpose(Image.open("in.jpg")).save("out.png")`); if the mask fits the pixels as stored, '
            'remove the orientation (`Image.fromarray(np.array(Image.open("in.jpg"))).save("out.png")`).'
        )


def _check_place(image: RasterInfo, mask: RasterInfo) -> None:
    """Refuse a georeferenced mask that lies more than a pixel away from its image."""
    if image.transform is None or mask.transform is None:
        return
    moved = [
        np.hypot(*np.subtract(image.place(column, row), mask.place(column, row)))  # type: ignore[arg-type]
        for column, row in ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height))
    ]
    pixel = abs(image.transform.determinant) ** 0.5
    if max(moved) > pixel or (image.crs and mask.crs and not same_crs(image.crs, mask.crs)):
        raise DataError(
            f"{mask.path}: the mask does not lie on its image. Expected CRS {image.crs or None}, transform "
            f"{tuple(image.transform[:6])}. Received: CRS {mask.crs or None}, transform {tuple(mask.transform[:6])}. "
            "Warp the mask onto the grid of the image (nearest neighbour)."
        )


def _check_nodata_value(mask: DecodedMask) -> None:
    """Refuse a mask whose nodata value would be read as landslide."""
    nodata = mask.info.nodata
    if nodata in (1, 255) and (mask.labels == nodata).any():
        raise DataError(
            f'{mask.info.path}: the mask holds its nodata value {nodata:g}. Set ignore "nodata" for it in tiles.csv.'
        )


def _labels(mask: DecodedMask, ignore: Ignore, valid: Valid | None) -> Labels:
    """Convert the values of a mask to labels; the values of invalid pixels do not matter."""
    values = mask.labels
    if valid is not None:
        values = np.where(valid, values, 0)
    is_1, is_255 = values == 1, values == 255
    known = is_1 | is_255 | (values == 0)
    # JPEG may turn labels of 0 and 1 into other labels of 0 and 1.
    if not known.all() or (is_1.any() and mask.is_lossy):
        raise DataError(_unknown_values(values, known, mask))
    if ignore == "255":
        return _ignore_invalid(is_1.astype(np.uint8), ~is_255)
    if is_1.any() and is_255.any():
        raise DataError(
            f'{mask.info.path}: the mask holds both 1 and 255. If 255 means no label, set ignore "255" in tiles.csv, '
            "also for masks with only 0 and 255. Otherwise, write landslide as one value."
        )
    labels: Labels = (is_1 | is_255).astype(np.uint8)
    return labels


def _unknown_values(values: Array, known: Valid, mask: DecodedMask) -> str:
    received = np.unique(values if known.all() else values[~known])[:5]
    hint = "Save landslide as 1, background as 0."
    nodata = mask.info.nodata
    if mask.is_lossy:
        hint = "JPEG blurs labels: save masks as PNG or TIFF."
    elif np.isnan(received).any() or nodata in received.tolist():
        hint = 'Where that means no label, set ignore "nodata" in tiles.csv.'
    listed = ", ".join(f"{value:g}" for value in received)
    return f"{mask.info.path}: expected a mask of 0 and 1, or 0 and 255. Received the values {listed}. {hint}"


def _ignore_invalid(labels: Labels, valid: Valid | None) -> Labels:
    if valid is not None:
        labels[~valid] = IGNORED
    return labels


class TileStore:
    """Decoded tiles by position, resampled to one ground sample distance.

    Args:
        tiles: tiles to decode.
        gsd_m: ground sample distance to resample to, metres; None keeps the tiles as they are.
        assumed_gsd_m: ground sample distance of files that do not name one; None keeps such tiles as they are.
        cache: "memory" keeps every decoded tile, "recent" the last used ones up to 256 MiB, "disk" keeps arrays in
            `folder`, "none" decodes each time.
        folder: folder of the disk cache.

    Raises:
        ConfigError: `gsd_m` is not above 0, unknown `cache`, or "disk" without `folder`.
    """

    def __init__(
        self,
        tiles: TileSet,
        gsd_m: float | None = None,
        assumed_gsd_m: float | None = None,
        cache: CacheMode = "memory",
        folder: Path | None = None,
    ) -> None:
        if cache not in ("memory", "recent", "disk", "none"):
            raise ConfigError(
                f"Invalid value for argument `cache`. Expected memory, recent, disk or none. Received: {cache}"
            )
        if gsd_m is not None and gsd_m <= 0:
            raise ConfigError(f"Invalid value for argument `gsd_m`. Expected a number > 0. Received: {gsd_m}")
        if cache == "disk" and folder is None:
            raise ConfigError("Argument `folder` is needed when `cache` is 'disk'. Received: folder=None")
        self.tiles = tiles
        self._gsd_m, self._assumed_gsd_m, self._cache, self._folder = gsd_m, assumed_gsd_m, cache, folder or Path()
        self._kept = RecentPixels(None if cache == "memory" else _RECENT_BYTES)

    def __len__(self) -> int:
        return len(self.tiles)

    def size(self, position: int) -> tuple[int, int]:
        """Return (height, width) of a tile after resampling, pixels, without decoding it."""
        tile = self.tiles[position]
        source = tile.gsd_m or self._assumed_gsd_m
        scale = 1.0 if self._gsd_m is None or source is None else source / self._gsd_m
        return max(1, round(tile.height * scale)), max(1, round(tile.width * scale))

    def get(self, position: int) -> tuple[Array, Labels]:
        """Return image (h, w, bands) in its data type and mask (h, w) uint8 {0, 1, 255} of a tile."""
        kept = self._kept.get(position)
        if kept is not None:
            return kept
        if self._cache == "disk":
            return self._from_disk(position)
        decoded = self._decode(position)
        if self._cache != "none":
            self._kept.keep(position, decoded)
        return decoded

    def _decode(self, position: int) -> tuple[Array, Labels]:
        image, mask = read_tile(self.tiles[position])
        return resample(image, mask, self.size(position))

    def _from_disk(self, position: int) -> tuple[Array, Labels]:
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = [self._folder / f"{position:07d}_{part}.npy" for part in ("image", "mask")]
        if not all(path.exists() for path in paths):
            for path, array in zip(paths, self._decode(position), strict=True):
                with atomic_file(path) as draft:
                    np.save(draft, array)
        image, mask = (np.load(path, mmap_mode="r") for path in paths)
        return image, mask


def resample(image: Array, mask: Labels, size: tuple[int, int]) -> tuple[Array, Labels]:
    """Resize image (h, w, bands) and mask (h, w) to `size` (height, width), pixels.

    Images that shrink are averaged by area; images that grow are interpolated bilinearly. Masks take the nearest
    neighbour, so that no label is interpolated.
    """
    if image.shape[:2] == size:
        return image, mask
    height, width = size
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    labels = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    starts = range(0, image.shape[2], _MAX_CV2_BANDS)
    parts = [np.ascontiguousarray(image[..., start : start + _MAX_CV2_BANDS]) for start in starts]
    return np.dstack([cv2.resize(part, (width, height), interpolation=method) for part in parts]), labels
