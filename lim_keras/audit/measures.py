"""Measures of single tiles: values, sharpness, agreement of mask and image, and hashes of the contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lim_keras.audit.mask_shift import ShiftFit, fit_shift
from lim_keras.audit.sharpness import block_strength, detail_limit, laplacian_sharpness, repeated_pixels
from lim_keras.data.centre_bias import resize_mask
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels, Tile, TileSet, read_tile
from lim_keras.errors import DataError
from lim_keras.ownership import file_hash
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.images import file_format, read_decoded_image

Array = NDArray[Any]

_BASE_STEP = 16
"""First step of JPEG's base table for brightness."""


@dataclass(frozen=True, slots=True)
class BandRange:
    """Values of one band of a tile: mean, deviation, extremes, and share of pixels at the largest value."""

    mean: float
    std: float
    low: float
    high: float
    share_at_high: float


@dataclass(frozen=True, slots=True)
class TileMeasures:
    """Measures of one tile; NaN where a figure is unknown.

    Attributes:
        tile: the tile.
        file: SHA-256 of the image file.
        pixels: hash of the image's pixels, equal for turned and mirrored copies.
        labels: hash of the mask, turned and mirrored as the image was for `pixels`.
        bands: values of each band; empty without a valid pixel.
        equal_bands: whether all bands are equal.
        contrast: standard deviation of the mean of the first three bands.
        black_share: share of the pixels that are 0 in all bands.
        brightness, sharpness: mean value and fine detail (log10) of the background pixels.
        detail_limit: fraction of the Nyquist frequency above which there is no detail.
        blocks: strength of JPEG blocks.
        jpeg_quality: quality of a JPEG file, 1 to 100.
        shift: fit of mask and image over shifts.
        mask: mask resized to `size` x `size` (nearest neighbour); None for tiles without landslide.
    """

    tile: Tile
    file: str
    pixels: str
    labels: str
    bands: tuple[BandRange, ...]
    equal_bands: bool
    contrast: float
    black_share: float
    brightness: float
    sharpness: float
    detail_limit: float
    blocks: float
    jpeg_quality: float
    shift: ShiftFit | None = field(compare=False, default=None)
    mask: Labels | None = field(compare=False, default=None)

    @property
    def tile_id(self) -> str:
        """Id of the tile."""
        return self.tile.tile_id


def measure_tiles(tiles: TileSet, size: int, progress: ProgressCallback | None = None) -> Iterator[TileMeasures]:
    """Decode and measure tiles in threads; yield the measures in the order of the tiles.

    At most a few tiles per thread are held at once.

    Args:
        size: side of the resized masks, pixels.
        progress: receives the number of measured tiles.

    Raises:
        DataError: a file cannot be read.
    """
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        measured = _in_order(pool, tiles, size, 4 * workers)
        yield from track(measured, "measuring tiles", len(tiles), progress, "tiles")


def _in_order(pool: ThreadPoolExecutor, tiles: TileSet, size: int, ahead: int) -> Iterator[TileMeasures]:
    waiting: list[Any] = []
    for tile in tiles:
        waiting.append(pool.submit(measure_tile, tile, size))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    yield from (one.result() for one in waiting)


def measure_tile(tile: Tile, size: int) -> TileMeasures:
    """Measure one tile; arguments and errors as in `measure_tiles`."""
    try:
        file = file_hash(tile.image)
    except OSError as error:
        raise DataError(f"{tile.image}: cannot be read ({error.strerror or error}).") from error
    image, mask = read_tile(tile)
    valid = read_decoded_image(tile.image).valid if tile.valid_px < mask.size else np.ones(mask.shape, np.bool_)
    grey = image[..., :3].astype(np.float32).mean(axis=2)
    background = valid & (mask == 0)
    pixels, labels = _hashes(image, mask)
    repeated = repeated_pixels(grey)
    noise = 1 / 12 / min(3, image.shape[2]) if image.dtype.kind in "ui" else 0.0
    return TileMeasures(
        tile=tile,
        file=file,
        pixels=pixels,
        labels=labels,
        bands=tuple(_range(band[valid]) for band in np.moveaxis(image, -1, 0)) if valid.any() else (),
        equal_bands=image.shape[2] > 1 and bool((image == image[..., :1]).all()),
        contrast=float(grey[valid].std()) if valid.any() else float("nan"),
        black_share=float((valid & (image == 0).all(axis=2)).mean()),
        brightness=float(grey[background].mean()) if background.sum() >= 256 else float("nan"),
        sharpness=laplacian_sharpness(grey, background),
        detail_limit=1 / repeated if repeated > 1 else detail_limit(grey, noise),
        blocks=float("nan") if repeated > 1 else block_strength(grey),
        jpeg_quality=_jpeg_quality(tile),
        shift=fit_shift(image, mask) if (mask == LANDSLIDE).any() else None,
        mask=_resized(mask, size),
    )


def _range(values: Array) -> BandRange:
    high = values.max()
    return BandRange(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        low=float(values.min()),
        high=float(high),
        share_at_high=float((values == high).mean()),
    )


def _hashes(image: Array, mask: Labels) -> tuple[str, str]:
    """Hash image and mask in the orientation, of all eight, whose image has the smallest bytes."""
    turned = [
        tuple(np.rot90(np.flip(array, 1) if flipped else array, turns) for array in (image, mask))
        for flipped in (False, True)
        for turns in range(4)
    ]
    # The first rows usually decide, so that one orientation is hashed and not eight.
    starts = [(one.shape, np.ascontiguousarray(one[:2]).tobytes()) for one, _ in turned]
    found = [
        (_digest(one), labels) for (one, labels), start in zip(turned, starts, strict=True) if start == min(starts)
    ]
    pixels, labels = min(found, key=lambda pair: pair[0])
    return pixels, _digest(labels)


def _digest(array: Array) -> str:
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _resized(mask: Labels, size: int) -> Labels | None:
    if not ((mask == LANDSLIDE) | (mask == IGNORED)).any():
        return None
    return resize_mask(mask, size)


def _jpeg_quality(tile: Tile) -> float:
    """Estimate the quality of a JPEG file from the first step of its first quantisation table."""
    if file_format(tile.image) != "jpeg":
        return float("nan")
    with Image.open(tile.image) as picture:
        tables: Any = getattr(picture, "quantization", None)
    if not tables:
        return float("nan")
    scale = 100 * next(iter(tables.values()))[0] / _BASE_STEP
    return float(np.clip(100 - scale / 2 if scale <= 100 else 5000 / scale, 1, 100))
