"""Decoded tiles at the training ground sample distance, kept in memory, on disk or not at all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from lim_keras.data.tile import Tile, read_tile
from lim_keras.data.tiles import TileSet

CacheMode = Literal["memory", "recent", "disk", "none"]
_MOST_BANDS = 4  # OpenCV averages areas of at most four bands at once
_RECENT_BYTES = 256 * 2**20


class TileStore:
    """Tiles by position, decoded and resampled to one ground sample distance.

    Args:
        tiles: where the images and masks are.
        gsd_m: ground sample distance to resample to, metres; None leaves every tile as it is.
        assumed_gsd_m: ground sample distance of tiles whose files do not say; None: such tiles are left as they are.
        cache: "memory" keeps every decoded tile, "recent" those used last, up to 256 MiB, "disk" keeps all as arrays in
            `folder`, "none" decodes each time.
        folder: where the disk cache lies.
    """

    def __init__(
        self,
        tiles: TileSet,
        gsd_m: float | None = None,
        assumed_gsd_m: float | None = None,
        cache: CacheMode = "memory",
        folder: Path | None = None,
    ) -> None:
        if cache == "disk" and folder is None:
            raise ValueError("Argument `folder` is needed when `cache` is 'disk'. Received: folder=None")
        self.tiles = tiles
        self._gsd_m, self._assumed_gsd_m, self._cache, self._folder = gsd_m, assumed_gsd_m, cache, folder or Path()
        self._kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.tiles)

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) of the tile at the training ground sample distance, pixels; nothing is decoded."""
        tile = self.tiles[position]
        scale = self._scale(tile)
        return max(1, round(tile.height * scale)), max(1, round(tile.width * scale))

    def get(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (h, w, bands) in its own data type and mask (h, w) uint8 {0, 1, 255} of the tile at that position."""
        with self._lock:
            kept = self._kept.get(position)
            if kept is not None:
                self._kept.move_to_end(position)
                return kept
        if self._cache == "disk":
            return self._from_disk(position)
        decoded = self._decode(position)
        if self._cache in ("memory", "recent"):
            self._keep(position, decoded)
        return decoded

    def _keep(self, position: int, decoded: tuple[np.ndarray, np.ndarray]) -> None:
        with self._lock:
            if position in self._kept:  # another thread was faster
                return
            self._kept[position] = decoded
            self._kept_bytes += _bytes(decoded)
            while self._cache == "recent" and self._kept_bytes > _RECENT_BYTES:
                self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])

    def _scale(self, tile: Tile) -> float:
        own = tile.gsd_m or self._assumed_gsd_m
        return 1.0 if self._gsd_m is None or own is None else own / self._gsd_m

    def _decode(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = read_tile(self.tiles[position])
        return resample(image, mask, self.size(position))

    def _from_disk(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = [self._folder / f"{position:07d}_{part}.npy" for part in ("image", "mask")]
        if not all(path.exists() for path in paths):
            for path, array in zip(paths, self._decode(position), strict=True):
                beside = path.with_suffix(f".{threading.get_ident()}.partial")
                with beside.open("wb") as file:
                    np.save(file, array)
                beside.rename(path)
        image, mask = (np.load(path, mmap_mode="r") for path in paths)
        return image, mask


def _bytes(decoded: tuple[np.ndarray, np.ndarray]) -> int:
    return sum(array.nbytes for array in decoded)


def resample(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bring image (h, w, bands) and mask (h, w) to `size` (height, width).

    Images by area averaging where they shrink and bilinearly where they grow, masks by nearest neighbour, so that no
    label is made up between landslide and ignore.
    """
    if image.shape[:2] == size:
        return image, mask
    height, width = size
    shrinks = height * width < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    labels = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if image.shape[2] <= _MOST_BANDS:
        resized = cv2.resize(image, (width, height), interpolation=how)
        return resized.reshape(height, width, image.shape[2]), labels
    firsts = range(0, image.shape[2], _MOST_BANDS)
    parts = [np.ascontiguousarray(image[..., band : band + _MOST_BANDS]) for band in firsts]
    return np.dstack([cv2.resize(part, (width, height), interpolation=how) for part in parts]), labels
