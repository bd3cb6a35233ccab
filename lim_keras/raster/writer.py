"""Write rasters: GeoTIFF, and the maps of a scene as Cloud Optimized GeoTIFF."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.files import atomic_file, flush
from lim_keras.raster.georeference import Grid
from lim_keras.raster.opening import GDAL_ERRORS, gdal_settings, open_dataset
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.verify import Checksum, read_blocks, verify_raster
from lim_keras.raster.windows import BLOCK, Box, blocks

ProbabilityType = Literal["percent", "float32"]

MAP_NODATA = -1.0  # nodata value of float32 probability, votes and spread

_COG_BLOCK = 512  # side of the blocks of most Cloud Optimized GeoTIFFs, pixels


@dataclass(frozen=True)
class Counts:
    """Pixel counts of a landslide mask: landslides, pixels with data, all pixels."""

    landslide: int
    valid: int
    all: int


def write_raster(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    *,
    crs: str = "",
    transform: Affine | None = None,
    nodata: float | None = None,
    valid: NDArray[np.bool_] | None = None,
    compress: str = "deflate",
) -> Path:
    """Write an array (height, width) or (height, width, bands) as a tiled, compressed GeoTIFF, atomically.

    `valid` (height, width) is written as the internal mask. A bool array is written as uint8.

    Raises:
        DataError: the name does not end in .tif or .tiff, the array is empty or not of 2 or 3 axes, or the file cannot
            be written or read again.
    """
    path = Path(path)
    bands = _as_bands(path, array)
    given = {"crs": crs or None, "transform": transform, "nodata": nodata}
    profile = _array_profile(bands, compress) | {key: item for key, item in given.items() if item is not None}
    try:
        settings = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
        with atomic_file(path, read_blocks) as draft, settings, open_dataset(draft, "w", **profile) as target:
            target.write(bands)
            if valid is not None:
                target.write_mask(valid)
    except (*GDAL_ERRORS, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be written ({error}).") from error
    return path


def _as_bands(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise DataError(f"{path}: expected a name that ends in .tif or .tiff.")
    if array.ndim not in (2, 3) or array.size == 0:
        raise DataError(f"{path}: expected an array of (height, width[, bands]). Received the shape {array.shape}.")
    bands = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return bands.astype(np.uint8) if bands.dtype == np.bool_ else bands


def _array_profile(bands: NDArray[Any], compress: str) -> dict[str, Any]:
    """Return creation options, with ALPHA=NO because GDAL tags the fourth of four uint8 bands as alpha."""
    count, height, width = bands.shape
    rgb = bands.dtype == np.uint8 and count == 3
    pixels = {"count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "IF_SAFER"}
    options: dict[str, Any] = pixels | layout
    options |= {"compress": compress, "photometric": "RGB" if rgb else "MINISBLACK"}
    if compress.lower() in ("deflate", "lzw", "zstd"):
        options["predictor"] = 3 if bands.dtype.kind == "f" else 2
    return options | ({} if rgb or count == 1 else {"alpha": "NO"})


def maps_on_scene(vrt: Path, scene: RasterReader) -> Path:
    """Warp the maps of a resampled scene back to the scene's grid, bilinearly and block by block.

    The two warps shift the edge of the data by up to a pixel of the coarser grid. `RasterReader.filled` fills lost
    pixels, so that the result holds values exactly where the scene holds data. The result is a float32 file with nodata
    -1 and the same bands, beside `vrt` (from `lim_keras.inference.maps.Maps`).

    Raises:
        DataError: the file cannot be written, or the scene cannot be read or has no transform.
    """
    path, info = vrt.with_name("maps_on_scene.tif"), scene.info
    if info.transform is None:
        raise DataError(f"{scene.name}: has no georeference, so maps cannot be warped to it.")
    grid = Grid(info.crs, info.transform, info.width, info.height, info.gsd_m)
    with _explained(path.parent), ExitStack() as stack:
        source = stack.enter_context(RasterReader(vrt))
        warped = stack.enter_context(RasterReader(source, grid=grid))
        shown = {"count": source.count, "dtype": "float32", "nodata": MAP_NODATA}
        target = stack.enter_context(open_dataset(path, "w", **_profile_like(scene.dataset), **shown))
        target.descriptions = source.dataset.descriptions
        beyond, checksum = np.zeros(source.count), Checksum(BLOCK)
        for box in blocks(info.height, info.width, BLOCK):
            valid = scene.valid(box)
            if valid.any():
                values, _ = warped.filled(box, info.box, beyond)
                shown_values = np.where(valid, np.moveaxis(values, -1, 0), np.float32(MAP_NODATA))
                target.write(shown_values, window=_window(box))
            else:
                shown_values = np.full((source.count, box.height, box.width), MAP_NODATA, np.float32)
            checksum.add(shown_values)
        stack.close()
        verify_raster(path, checksum)
    return path


def write_rasters(
    maps: Path,
    probability: Path,
    landslides: Path,
    *,
    threshold: float,
    kind: ProbabilityType = "percent",
    spread: bool = False,
) -> Counts:
    """Write the probability map and the landslide mask as Cloud Optimized GeoTIFFs; arguments as for `RasterDrafts`."""
    with RasterDrafts(maps, probability, landslides, threshold=threshold, kind=kind, spread=spread) as drafts:
        drafts.convert()
        return drafts.counts


class RasterDrafts:
    """Context manager: the probability map and the landslide mask of a scene, before they get their final format.

    Entering writes both as drafts, block by block. Leaving deletes the drafts.

    Args:
        maps: raster on the scene's grid, from `lim_keras.inference.maps.Maps` or `maps_on_scene`.
        probability: file to write: uint8 percent with nodata 255, or float32 with nodata -1, as `kind` says.
        landslides: file to write: uint8, 1 where the probability is at least the threshold, 0 elsewhere, nodata 255.
        threshold: smallest probability of a landslide pixel, 0..1.
        kind: data type of the probability map.
        spread: add the folds' standard deviation as a second band of the probability map.

    Attributes:
        mask: draft of the landslide mask, which other readers may use meanwhile.
        counts: numbers of pixels.

    Raises:
        DataError: a file cannot be written.
    """

    def __init__(
        self,
        maps: Path,
        probability: Path,
        landslides: Path,
        *,
        threshold: float,
        kind: ProbabilityType = "percent",
        spread: bool = False,
    ) -> None:
        self._maps, self._paths = maps, (probability, landslides)
        self._threshold, self._kind, self._spread = threshold, kind, spread
        self._drafts = [path.with_name(f".{path.stem}.draft.tif") for path in self._paths]
        self._checksums = (Checksum(BLOCK), Checksum(BLOCK))
        self.mask, self.counts = self._drafts[1], Counts(0, 0, 0)

    def __enter__(self) -> Self:
        try:
            with _explained(self._paths[0].parent):
                self.counts = _write_drafts(
                    self._maps,
                    self._drafts,
                    self._checksums,
                    threshold=self._threshold,
                    kind=self._kind,
                    spread=self._spread,
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for draft in self._drafts:
            draft.unlink(missing_ok=True)

    def change_mask(self, change: Callable[[Box, NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        """Replace the draft of the mask by a changed copy, and count its landslide pixels again; before `convert`.

        `change` gets each box, from top to bottom and from left to right, and its values (height, width), and returns
        new values; no data stays no data.
        """
        with _explained(self._paths[1].parent):
            landslide, checksum = _change_mask(self.mask, change)
        self.counts = replace(self.counts, landslide=landslide)
        self._checksums = (self._checksums[0], checksum)

    def convert(self) -> None:
        """Write both as Cloud Optimized GeoTIFFs and check them; may run in a thread."""
        with gdal_settings(), _explained(self._paths[0].parent):
            for place, overviews in enumerate(("AVERAGE", "NEAREST")):
                _write_cog(self._drafts[place], self._paths[place], overviews, self._checksums[place])


def _write_drafts(
    maps: Path,
    drafts: Sequence[Path],
    checksums: Sequence[Checksum],
    *,
    threshold: float,
    kind: ProbabilityType,
    spread: bool,
) -> Counts:
    counts = np.zeros(3, np.int64)
    byte = {"dtype": "uint8", "nodata": NO_LABEL}
    shown = byte if kind == "percent" else {"dtype": "float32", "nodata": MAP_NODATA}
    with open_dataset(maps) as source, ExitStack() as stack:
        profile = _profile_like(source)
        bands = [1, source.descriptions.index("spread") + 1] if spread else [1]
        first = stack.enter_context(open_dataset(drafts[0], "w", **profile, count=len(bands), **shown))
        second = stack.enter_context(open_dataset(drafts[1], "w", **profile, count=1, **byte))
        first.descriptions = ("probability", "spread")[: len(bands)]
        second.descriptions = ("landslide",)
        sparse = source.height * source.width > BLOCK**2
        for box in blocks(source.height, source.width, BLOCK):
            window = _window(box)
            values = source.read(bands, window=window)
            valid = values[0] != MAP_NODATA
            mask = np.where(valid, values[0] >= threshold, NO_LABEL).astype(np.uint8)
            counts += ((mask == 1).sum(), valid.sum(), valid.size)
            shown_values = _shown(values, valid, kind)
            for checksum, written in zip(checksums, (shown_values, mask), strict=True):
                checksum.add(written)
            if valid.any() or not sparse:  # GDAL reads an unwritten block as nodata
                first.write(shown_values, window=window)
                second.write(mask, 1, window=window)
    return Counts(*(int(value) for value in counts))


def _change_mask(draft: Path, change: Callable[[Box, NDArray[np.uint8]], NDArray[np.uint8]]) -> tuple[int, Checksum]:
    """Rewrite a draft; return its number of landslide pixels and its checksum."""
    partial, landslide, checksum = draft.with_name(f"{draft.stem}.changed.tif"), 0, Checksum(BLOCK)
    try:
        with open_dataset(draft) as source, open_dataset(partial, "w", **_draft_profile(source)) as target:
            target.descriptions = source.descriptions
            sparse = source.height * source.width > BLOCK**2
            for box in blocks(source.height, source.width, BLOCK):
                window = _window(box)
                mask = change(box, source.read(1, window=window))
                landslide += int((mask == 1).sum())
                checksum.add(mask)
                if not sparse or (mask != NO_LABEL).any():
                    target.write(mask, 1, window=window)
        partial.replace(draft)
    finally:
        partial.unlink(missing_ok=True)
    return landslide, checksum


def _draft_profile(source: Any) -> dict[str, Any]:
    return {**_profile_like(source), "count": 1, "dtype": "uint8", "nodata": NO_LABEL}


def copy_blocks(source: Path, target: Path, change: Callable[[Box, NDArray[Any]], NDArray[Any]]) -> Path:
    """Copy a raster of one band; `change` gets each box and its values (height, width) and returns the new values."""
    with open_dataset(source) as read, open_dataset(target, "w", **read.profile | {"driver": "GTiff"}) as written:
        for box in blocks(read.height, read.width):
            window = _window(box)
            written.write(change(box, read.read(1, window=window)), 1, window=window)
    return target


def _shown(values: NDArray[np.float32], valid: NDArray[np.bool_], kind: ProbabilityType) -> NDArray[Any]:
    if kind == "float32":
        return np.where(valid, values, np.float32(MAP_NODATA))
    return np.where(valid, np.rint(values * 100), NO_LABEL).astype(np.uint8)


def _profile_like(source: Any) -> dict[str, Any]:
    """Return creation options of a draft on the grid of a rasterio dataset."""
    place = {} if source.crs is None and source.transform.is_identity else {"transform": source.transform}
    if source.crs is not None:
        place["crs"] = source.crs
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "bigtiff": "if_safer"}
    coding = {"driver": "GTiff", "compress": "zstd", "zstd_level": 1, "interleave": "band"}
    return {"width": source.width, "height": source.height, **layout, **coding, **place}


def _window(box: Box) -> RasterWindow:
    return RasterWindow(box.left, box.top, box.width, box.height)


def _write_cog(draft: Path, path: Path, overviews: str, checksum: Checksum) -> None:
    """Convert a draft to a Cloud Optimized GeoTIFF, and check its pixels against the checksum."""
    options = {"compress": "deflate", "predictor": "yes", "overview_resampling": overviews, "bigtiff": "if_safer"}
    with open_dataset(draft) as source:
        pyramid = _pyramid(source.height, source.width)
    partial = path.with_name(f".{path.stem}.cog.tif")
    try:
        rasterio.shutil.copy(draft, partial, driver="COG", sparse_ok=True, **pyramid, **options)
        flush(partial)
        verify_raster(partial, checksum)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _pyramid(height: int, width: int) -> dict[str, int]:
    """Return the side of blocks and the number of overviews of a Cloud Optimized GeoTIFF.

    Validators report a level as untiled if it is more than 512 px high and exactly one block wide. Use a size of blocks
    without such levels; if there is none, end the overviews before the first such level.
    """
    for block in (_COG_BLOCK, 256, 1024):
        levels = _levels(height, width, block)
        if not any(_looks_untiled(level, block) for level in levels):
            return {"blocksize": block, "overview_count": len(levels) - 1}
    levels = _levels(height, width, 256)
    return {"blocksize": 256, "overview_count": [_looks_untiled(level, 256) for level in levels].index(True) - 1}


def _levels(height: int, width: int, block: int) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of a raster and of GDAL's overviews, of which the last fits into one block."""
    levels = [(height, width)]
    while max(levels[-1]) > block:
        levels.append((max(levels[-1][0] // 2, 1), max(levels[-1][1] // 2, 1)))
    return levels


def _looks_untiled(level: tuple[int, int], block: int) -> bool:
    return level[0] > _COG_BLOCK and level[1] == block


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Convert errors of GDAL and of the operating system to DataError."""
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        reason = getattr(error, "strerror", None) or error.__cause__ or error
        reason = " ".join(str(reason).split())
        raise DataError(
            f"{folder}: the maps cannot be written ({reason}). The prediction is kept: free disk space or repair the "
            "folder, and run the same command again."
        ) from error
