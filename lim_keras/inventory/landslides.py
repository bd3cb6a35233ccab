"""Landslide inventory of a mask raster."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.inventory.attributes import Columns, outline_attributes, pixel_attributes
from lim_keras.inventory.options import InventoryOptions
from lim_keras.inventory.polygons import Polygons, fill_holes, place, read_mask_info, simplify, trace
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.reader import gdal_settings


@dataclass(frozen=True)
class Inventory:
    """The landslides of a scene.

    Attributes:
        frame: a row for each landslide, sorted by first pixel, row by row. Columns: `id` (1..n), those of
            `lim_keras.inventory.attributes`, `below_min_slope` where a smallest slope is given, and `geometry`.
        crs: CRS of the scene, "" where there is none; outlines are then in pixels, (column, -row), as QGIS shows them.
        dropped_small: number of landslides below `min_area_m2`.
        dropped_flat: number of landslides that `drop_flat` left out.
        swallowed: number of landslides in filled holes of others.
        uncovered: share of the scene outside the elevation model; None without one.
        unknown_slope: number of landslides in `frame` of unknown slope; None without an elevation model.
    """

    frame: geopandas.GeoDataFrame
    crs: str
    dropped_small: int = 0
    dropped_flat: int = 0
    swallowed: int = 0
    uncovered: float | None = None
    unknown_slope: int | None = None


def make_inventory(
    mask: Path,
    *,
    maps: Path | None = None,
    folds: int = 1,
    options: InventoryOptions | None = None,
    gsd_m: float | None = None,
    scene: Path | str | None = None,
) -> Inventory:
    """Make the inventory of a mask: a landslide is a group of landslide pixels that share sides.

    Memory holds all polygons, but only blocks of the rasters.

    Args:
        mask: uint8 raster, 1 landslide, 0 background, 255 no data.
        maps: raster on the mask's grid, band 1 probability, band 2 (where there is one) votes of the folds; negative is
            no data. None: probabilities are unknown.
        folds: number of models that voted.
        options: which landslides, and how their outlines are drawn.
        gsd_m: ground sample distance of a mask without a georeference, metres.
        scene: what the mask was made of, for messages; None: the mask.

    Raises:
        ConfigError: an option needs a ground sample distance.
        DataError: a file cannot be used.

    Warns:
        LimKerasWarning: the elevation model does not cover the scene, or has no slope for some landslides.
    """
    options = options or InventoryOptions()
    info = read_mask_info(mask)
    ground, shown = Georeference.of(info, gsd_m), replace(info, path=scene or info.path)
    if folds < 1:
        raise ConfigError(f"Invalid value for `folds`. Expected a whole number >= 1. Received: {folds}.")
    _check_metres(shown, ground, options)
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        terrain = None if options.dem is None else stack.enter_context(TerrainReader(options.dem, shown))
        outlines, seeds = trace(mask)
        columns = pixel_attributes(mask, outlines, maps=maps, folds=folds, terrain=terrain)
    outlines, swallowed = fill_holes(outlines, seeds, options.fill_holes_m2, ground)
    outlines, columns = _select(outlines, columns, ~swallowed)
    traced = len(outlines)
    outlines, columns = _draw(outlines, columns, ground, options)
    small = traced - len(outlines)
    outlines, columns, flat = _flag_flat(outlines, columns, options)
    uncovered = unknown = None
    if terrain is not None:
        uncovered, unknown = terrain.uncovered, _count_unknown_slopes(columns, options, shown)
    numbers = {"id": np.arange(1, len(outlines) + 1, dtype=np.int64)}
    frame = geopandas.GeoDataFrame(numbers | columns, geometry=place(outlines, ground), crs=ground.crs or None)
    return Inventory(frame, ground.crs, small, flat, int(swallowed.sum()), uncovered, unknown)


def check_inventory(scene: RasterInfo, options: InventoryOptions) -> None:
    """Validate inventory options for a scene before prediction starts.

    Raises:
        ConfigError: an option needs a ground sample distance.
        DataError: the elevation model cannot be used with this scene.
    """
    ground = Georeference.of(scene, scene.gsd_m)
    _check_metres(scene, ground, options)
    if options.dem is None:
        return
    if not ground.crs:
        raise DataError(
            f"{scene.path}: has no coordinate reference system, so its position in {options.dem} is unknown. Give it "
            "one (`gdal_translate -a_srs ... -a_ullr ...`), or leave `dem` out."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `make_inventory` warns of what the model does not cover
        with TerrainReader(options.dem, scene):
            pass  # entering it is the check


def _check_metres(scene: RasterInfo, ground: Georeference, options: InventoryOptions) -> None:
    if ground.gsd_m is None and options.in_metres:
        raise ConfigError(
            f"{scene.path}: its ground sample distance is unknown, but needed for "
            f"{', '.join(f'`{name}`' for name in options.in_metres)}. Give `gsd_m`, or leave these out."
        )


def _draw(
    outlines: Polygons, columns: Columns, ground: Georeference, options: InventoryOptions
) -> tuple[Polygons, Columns]:
    """Simplify the outlines, and add their attributes; small landslides are left out."""
    if options.simplify_m and ground.gsd_m is not None:
        # Simplifying landslides that are too small anyway would take most of the time.
        outlines, measured = _measure(outlines, columns, ground, options)
        columns = {name: measured[name] for name in columns}
        outlines = simplify(outlines, options.simplify_m / ground.gsd_m)
    return _measure(outlines, columns, ground, options)


def _measure(
    outlines: Polygons, columns: Columns, ground: Georeference, options: InventoryOptions
) -> tuple[Polygons, Columns]:
    """Add the attributes of the outlines; landslides of a known area below the smallest are left out."""
    measured = outline_attributes(outlines, ground) | columns
    return _select(outlines, measured, ~(measured["area_m2"] < options.min_area_m2))


def _flag_flat(outlines: Polygons, columns: Columns, options: InventoryOptions) -> tuple[Polygons, Columns, int]:
    """Flag landslides below the smallest slope, and leave them out where asked; unknown slopes are not below."""
    if options.min_slope_deg is None:
        return outlines, columns, 0
    flat = columns["slope_mean_deg"] < options.min_slope_deg
    dropped = flat & options.drop_flat
    return *_select(outlines, columns | {"below_min_slope": flat}, ~dropped), int(dropped.sum())


def _count_unknown_slopes(columns: Columns, options: InventoryOptions, scene: RasterInfo) -> int:
    slopes = columns["slope_mean_deg"]
    unknown = int(np.isnan(slopes).sum())
    if unknown:
        warnings.warn(
            f"{options.dem}: has no slope for {unknown} of {len(slopes)} landslides on {scene.path}: it is void or "
            "ends there. A smallest slope neither flags nor drops them. Fill the model (`gdal_fillnodata.py`), or give "
            "one that covers them.",
            LimKerasWarning,
            stacklevel=3,
        )
    return unknown


def _select(outlines: Polygons, columns: Columns, kept: NDArray[np.bool_]) -> tuple[Polygons, Columns]:
    return outlines[kept], {name: column[kept] for name, column in columns.items()}
