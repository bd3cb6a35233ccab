"""Landslide table from a mask raster."""

from __future__ import annotations

import math
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory.measures import measure
from lim_keras.inventory.polygons import Polygons, place, read_mask_info, trace
from lim_keras.inventory.simplify import fill_holes, simplify
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.inventory.zonal import Columns, zonal_statistics
from lim_keras.raster.georeference import Ground
from lim_keras.raster.reader import RasterInfo

# GDAL's own grows to a twentieth of the machine's memory.
_CACHE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class InventoryOptions:
    """Which landslides an inventory holds, and how they are drawn.

    Args:
        min_area_m2: smaller landslides are left out; holes that are filled count, and a landslide that becomes smaller
            when it is simplified is left out, too.
        fill_holes_m2: holes up to this area are filled, math.inf all. A landslide in a filled hole becomes part of the
            one around it.
        simplify_m: tolerance, metres, see `simplify.simplify`; about a pixel straightens staircases.
        min_slope: degrees; landslides with a smaller mean slope are marked as `below_min_slope`. Needs an elevation
            model.
        drop_below_slope: leave these out.

    Raises:
        DataError: a number is negative or NaN, the slope is not within 0..90, or there is none to drop by.
    """

    min_area_m2: float = 0
    fill_holes_m2: float = 0
    simplify_m: float = 0
    min_slope: float | None = None
    drop_below_slope: bool = False

    def __post_init__(self) -> None:
        for name in ("min_area_m2", "fill_holes_m2", "simplify_m"):
            value = getattr(self, name)
            if not value >= 0 or (math.isinf(value) and name != "fill_holes_m2"):
                raise DataError(f"Invalid value for argument `{name}`. Expected a number >= 0. Received: {value}")
        if self.min_slope is not None and not 0 <= self.min_slope <= 90:
            raise DataError(
                f"Invalid value for argument `min_slope`. Expected degrees, 0..90. Received: {self.min_slope}"
            )
        if self.drop_below_slope and self.min_slope is None:
            raise DataError("Invalid value for argument `drop_below_slope`. Expected `min_slope` with it.")

    @property
    def in_metres(self) -> list[str]:
        """Names of the options given that mean nothing without a ground sample distance."""
        named = [option.name for option in fields(self) if option.name.endswith(("_m2", "_m"))]
        return [name for name in named if 0 < getattr(self, name) < math.inf]


@dataclass(frozen=True)
class Inventory:
    """The landslides of a scene.

    frame: a row a landslide, in the order of their upper left pixels, row by row; for columns see `polygonise`.
    crs: of the scene, "" where there is none. dropped_small, dropped_flat: landslides left out by `min_area_m2` and by
    `drop_below_slope`. swallowed: landslides in filled holes of others. uncovered: share of the scene outside the
    elevation model, unknown_slope: landslides of the frame that it does not say the slope of; None without one.
    """

    frame: geopandas.GeoDataFrame
    crs: str
    dropped_small: int = 0
    dropped_flat: int = 0
    swallowed: int = 0
    uncovered: float | None = None
    unknown_slope: int | None = None


def polygonise(
    mask: Path,
    *,
    maps: Path | None = None,
    folds: int = 1,
    dem: Path | None = None,
    options: InventoryOptions = InventoryOptions(),
    gsd_m: float | None = None,
    scene: Path | None = None,
) -> Inventory:
    """Make the inventory of a landslide mask: one row a landslide, that is, a group of pixels that share sides.

    Only blocks of the rasters are in memory, and all polygons.

    Args:
        mask: uint8 raster, 1 landslide, 0 background, 255 no data.
        maps: raster on the mask's grid, band 1 probability, band 2 (where there is one) votes of the folds, negative
            where there is no data.
        folds: how many voted.
        dem: elevation model, see `lim_keras.inventory.terrain.TerrainReader`.
        options: which landslides, and how they are drawn.
        gsd_m: ground sample distance in metres of a mask that does not say where it lies.
        scene: what the mask was made of, for messages to name; None: the mask.

    Returns:
        Columns of `frame`: id (1..n), area_m2, perimeter_m, longitude, latitude, compactness and elongation of the
        outline that is drawn (see `lim_keras.inventory.measures.measure`); probability_mean, probability_max,
        fold_agreement, touches_nodata and touches_edge of the landslide's own pixels (see
        `lim_keras.inventory.zonal.zonal_statistics`); with an elevation model slope_mean_deg, elevation_min_m,
        elevation_max_m, elevation_range_m, aspect_mean_deg and, with `min_slope`, below_min_slope; and geometry. What
        is unknown is NaN: probabilities without maps, sizes without CRS and `gsd_m`. A landslide whose slope is unknown
        is not below any.

        Outlines of a mask without a place are in pixels, (column, -row), as QGIS lays out its picture.

    Raises:
        DataError: a file cannot be used, or an option needs an elevation model or a ground sample distance that is not
            there.

    Warns:
        LimKerasWarning: the elevation model does not cover the scene, or does not say the slope of some landslides.
    """
    info = read_mask_info(Path(mask))
    ground, shown = Ground.of(info, gsd_m), replace(info, path=scene or info.path)
    _check(shown, ground, dem, folds, options)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES))
        terrain = None if dem is None else stack.enter_context(TerrainReader(Path(dem), shown))
        outlines, seeds = trace(info.path)
        columns = zonal_statistics(info.path, outlines, info, maps=maps, folds=folds, terrain=terrain)
    outlines, swallowed = fill_holes(outlines, seeds, options.fill_holes_m2, ground)
    outlines, columns = _select(outlines, columns, ~swallowed)
    if options.simplify_m and ground.gsd_m is not None:
        # Specks that are too small anyway would be most of the work.
        outlines, columns = _without_small(outlines, columns, ground, options)
        outlines = simplify(outlines, options.simplify_m / ground.gsd_m)
    outlines, columns = _without_small(outlines, columns, ground, options)
    small = int((~swallowed).sum()) - len(outlines)
    flat = np.zeros(len(outlines), np.bool_)
    if options.min_slope is not None:
        columns["below_min_slope"] = columns["slope_mean_deg"] < options.min_slope
        flat = columns["below_min_slope"] & options.drop_below_slope
    outlines, columns = _select(outlines, columns, ~flat)
    unknown = None if dem is None else _count_unknown_slopes(columns, dem, shown)
    return Inventory(
        _frame(outlines, columns, ground),
        ground.crs,
        small,
        int(flat.sum()),
        int(swallowed.sum()),
        None if terrain is None else terrain.uncovered,
        unknown,
    )


def _check(info: RasterInfo, ground: Ground, dem: Path | None, folds: int, options: InventoryOptions) -> None:
    if folds < 1:
        raise DataError(f"Invalid value for argument `folds`. Expected a whole number >= 1. Received: {folds}")
    if options.min_slope is not None and dem is None:
        raise DataError("Invalid value for argument `min_slope`. Expected an elevation model (`dem`) with it.")
    if ground.gsd_m is None:
        asked = options.in_metres
        if asked:
            raise DataError(
                f"{info.path}: has no CRS, so its metres are unknown, but {', '.join(f'`{name}`' for name in asked)} "
                "needs them. Say the ground sample distance (`gsd_m`), or leave the option out."
            )


def _count_unknown_slopes(columns: Columns, dem: Path, scene: RasterInfo) -> int:
    slopes = columns["slope_mean_deg"]
    unknown = int(np.isnan(slopes).sum())
    if unknown:
        warnings.warn(
            f"{dem}: does not say the slope of {unknown} of {len(slopes)} landslides on {scene.path}, as it is void or "
            "ends there. A smallest slope neither flags nor drops them. Fill the model (`gdal_fillnodata.py`), or give "
            "one that covers them.",
            LimKerasWarning,
            stacklevel=3,
        )
    return unknown


def _without_small(
    outlines: Polygons, columns: Columns, ground: Ground, options: InventoryOptions
) -> tuple[Polygons, Columns]:
    """Measure the outlines, and leave out those that are too small; unknown areas are kept."""
    measures = measure(outlines, ground)
    others = {name: column for name, column in columns.items() if name not in measures}
    columns = {**measures, **others}
    return _select(outlines, columns, ~(columns["area_m2"] < options.min_area_m2))


def _select(outlines: Polygons, columns: Columns, kept: NDArray[np.bool_]) -> tuple[Polygons, Columns]:
    return outlines[kept], {name: column[kept] for name, column in columns.items()}


def _frame(outlines: Polygons, columns: Columns, ground: Ground) -> geopandas.GeoDataFrame:
    numbers = np.arange(1, len(outlines) + 1, dtype=np.int64)
    return geopandas.GeoDataFrame({"id": numbers, **columns}, geometry=place(outlines, ground), crs=ground.crs or None)


_OPTIONS = {"min_area_m2": "--min-area", "fill_holes_m2": "--fill-holes", "simplify_m": "--simplify"}


def check_inventory(scene: RasterInfo, options: InventoryOptions, dem: Path | None) -> None:
    """Refuse at once what `polygonise` would refuse after hours, in the words of the command line.

    Args:
        scene: with its ground sample distance, where that is known.
        options: which landslides are wanted, and how they are drawn.
        dem: elevation model.

    Raises:
        DataError: an option needs an elevation model or a ground sample distance that is not there, or the model cannot
            be used with this scene.
    """
    ground, asked = Ground.of(scene, scene.gsd_m), [_OPTIONS[name] for name in options.in_metres]
    if asked and ground.gsd_m is None:
        raise DataError(
            f"{scene.path}: its ground sample distance is not known, but needed for {', '.join(asked)}. Say it with "
            "--gsd, or leave that out."
        )
    if dem is None:
        if options.min_slope is not None:
            raise DataError(f"{scene.path}: --min-slope needs an elevation model. Give it with --dem.")
        return
    if not ground.crs:
        raise DataError(
            f"{scene.path}: has no coordinate reference system, so its place in {dem} is not known. Give it one "
            "(`gdal_translate -a_srs ... -a_ullr ...`), or leave --dem out."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `polygonise` says what the model does not cover
        with TerrainReader(dem, scene):
            pass  # entering it is the check
