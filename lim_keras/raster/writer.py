"""Write maps as Cloud Optimized GeoTIFFs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from lim_keras.errors import DataError
from lim_keras.inference.maps import NODATA
from lim_keras.raster.reader import RasterInfo
from lim_keras.raster.scene import Grid, Nodata, SceneReader
from lim_keras.raster.windows import Box

ProbabilityType = Literal["percent", "float32"]

NO_LABEL = 255
"""Nodata of the landslide mask and of percentages."""

_BLOCK = 1024

_CACHE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Counts:
    """Pixels of a landslide mask."""

    landslide: int
    valid: int
    all: int


def gdal_settings() -> rasterio.Env:
    """GDAL with blocks coded on all cores, and a small cache: its own grows to a twentieth of the machine's memory."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_NUM_THREADS="ALL_CPUS")


def maps_on_scene(
    vrt: Path,
    scene: RasterInfo,
    resampled: bool,
    *,
    bands: Sequence[int | str] | None = None,
    nodata: Nodata = "file",
) -> Path:
    """The maps on the scene's grid; those of a resampled scene are warped back, bilinearly and block by block.

    Two warps move the edge of the data by up to a pixel of the coarser grid. The maps hold values exactly where the
    scene holds data all the same: pixels that were lost on the way show the nearest predicted one, and farther than
    `lim_keras.raster.scene.FILL_REACH` from any, 0.

    Args:
        vrt: of `lim_keras.inference.maps.Maps`.
        scene: as it is on the disk.
        resampled: whether it was read on another grid.
        bands: that were read of it, see `SceneReader`.
        nodata: which of its pixels hold no data.

    Returns:
        `vrt`, or a file beside it with the same bands, float32 with nodata -1.

    Raises:
        DataError: the file cannot be written, or the scene cannot be read.
    """
    if not resampled or scene.transform is None:
        return vrt
    path = vrt.with_name("maps_on_scene.tif")
    grid = Grid(scene.crs, scene.transform, scene.width, scene.height, scene.gsd_m)
    with _explained(path.parent), _quiet(), ExitStack() as stack:
        original = stack.enter_context(SceneReader(scene.path, bands=bands, nodata=nodata))
        warped = stack.enter_context(SceneReader(vrt, grid=grid))
        place, source = (stack.enter_context(rasterio.open(one)) for one in (scene.path, vrt))
        shown = {"count": source.count, "dtype": "float32", "nodata": NODATA}
        target = stack.enter_context(rasterio.open(path, "w", **_profile(place), **shown))
        target.descriptions = source.descriptions
        everything, beyond = Box(0, 0, scene.height, scene.width), np.zeros(source.count)
        for window in _blocks(scene.height, scene.width):
            box = Box.sized(window.row_off, window.col_off, window.height, window.width)
            valid = original.valid(box)
            if valid.any():
                values, _ = warped.filled(box, everything, beyond)
                target.write(np.where(valid, np.moveaxis(values, -1, 0), np.float32(NODATA)), window=window)
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
    """Write the probability map and the landslide mask as Cloud Optimized GeoTIFFs, block by block.

    Args:
        maps: on the scene's grid, of `maps_on_scene`.
        probability: file to write: uint8 percent with nodata 255, or float32 with nodata -1; a second band is the
            folds' standard deviation where `spread` says so.
        landslides: file to write: uint8, 1 where the probability is at least the threshold, 0 elsewhere, nodata 255.
        threshold: 0..1.

    Raises:
        DataError: a file cannot be written.
    """
    counts = np.zeros(3, np.int64)
    drafts = [path.with_name(f".{path.stem}.draft.tif") for path in (probability, landslides)]
    try:
        with _explained(probability.parent), _quiet(), ExitStack() as stack:
            source = stack.enter_context(rasterio.open(maps))
            profile = _profile(source)
            bands = [1, source.descriptions.index("spread") + 1] if spread else [1]
            shown = (
                {"dtype": "uint8", "nodata": NO_LABEL} if kind == "percent" else {"dtype": "float32", "nodata": NODATA}
            )
            first = stack.enter_context(rasterio.open(drafts[0], "w", **profile, count=len(bands), **shown))
            second = stack.enter_context(
                rasterio.open(drafts[1], "w", **profile, count=1, dtype="uint8", nodata=NO_LABEL)
            )
            first.descriptions = ("probability", "spread")[: len(bands)]
            second.descriptions = ("landslide",)
            for window in _blocks(source.height, source.width):
                values = source.read(bands, window=window)
                valid = values[0] != NODATA
                if not valid.any() and source.width * source.height > _BLOCK**2:
                    counts += (0, 0, valid.size)
                    continue
                mask = np.where(valid, values[0] >= threshold, NO_LABEL).astype(np.uint8)
                counts += ((mask == 1).sum(), valid.sum(), valid.size)
                first.write(_shown(values, valid, kind), window=window)
                second.write(mask, 1, window=window)
        with _explained(probability.parent):
            _optimise(drafts[0], probability, "AVERAGE")
            _optimise(drafts[1], landslides, "NEAREST")
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return Counts(*(int(value) for value in counts))


def _shown(values: NDArray[np.float32], valid: NDArray[np.bool_], kind: ProbabilityType) -> NDArray[Any]:
    if kind == "float32":
        return np.where(valid, values, np.float32(NODATA))
    return np.where(valid, np.rint(values * 100), NO_LABEL).astype(np.uint8)


def _profile(source: Any) -> dict[str, Any]:
    place = {} if source.crs is None and source.transform.is_identity else {"transform": source.transform}
    if source.crs is not None:
        place["crs"] = source.crs
    return {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "zstd",
        "zstd_level": 1,
        "sparse_ok": True,
        "bigtiff": "if_safer",
        "interleave": "band",
        **place,
    }


def _blocks(height: int, width: int) -> Iterator[RasterWindow]:
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            yield RasterWindow(left, top, min(_BLOCK, width - left), min(_BLOCK, height - top))


def _optimise(draft: Path, path: Path, overviews: str) -> None:
    """A Cloud Optimized GeoTIFF of the draft, beside its place first."""
    partial = path.with_name(f".{path.stem}.partial.tif")
    options = {"compress": "deflate", "predictor": "yes", "overview_resampling": overviews, "bigtiff": "if_safer"}
    try:
        rasterio.shutil.copy(draft, partial, driver="COG", blocksize=512, sparse_ok=True, **options)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns GDAL's errors and the system's into ours."""
    try:
        yield
    except (RasterioError, OSError) as error:
        raise DataError(
            f"{folder}: the maps cannot be written ({error.__cause__ or error}). What is predicted is kept: make room "
            "or mend the folder, and give the same command again."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a word on scenes that have no place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
