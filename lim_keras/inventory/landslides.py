"""Landslide table from a mask raster."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.inventory.measures import measure
from lim_keras.inventory.options import InventoryOptions
from lim_keras.inventory.polygons import Polygons, place, read_mask_info, trace
from lim_keras.inventory.simplify import fill_holes, simplify
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.inventory.zonal import Columns, zonal_statistics
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.reader import gdal_settings


@dataclass(frozen=True)
class Inventory:
    """The landslides of a scene.

    frame: a row a landslide, in the order of their upper left pixels, row by row; for columns see `polygonise`.
    crs: of the scene, "" where there is none. dropped_small, dropped_flat: landslides left out by `min_area_m2` and by
    `drop_flat`. swallowed: landslides in filled holes of others. uncovered: share of the scene outside the
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
    options: InventoryOptions | None = None,
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
        elevation_max_m, elevation_range_m, aspect_mean_deg and, with `min_slope_deg`, below_min_slope; and geometry.
        What is unknown is NaN: probabilities without maps, sizes without CRS and `gsd_m`. A landslide of unknown slope
        is not below any.

        Outlines of a mask without a place are in pixels, (column, -row), as QGIS lays out its picture.

    Raises:
        DataError: a file cannot be used, or an option needs an elevation model or a ground sample distance that is not
            there.

    Warns:
        LimKerasWarning: the elevation model does not cover the scene, or does not say the slope of some landslides.
    """
    options = options or InventoryOptions()
    info = read_mask_info(Path(mask))
    ground, shown = Georeference.of(info, gsd_m), replace(info, path=scene or info.path)
    if folds < 1:
        raise ConfigError(f"Invalid value for `folds`. Expected a whole number >= 1. Received: {folds}.")
    _check_options(shown, ground, options, dem)
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
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
    if options.min_slope_deg is not None:
        columns["below_min_slope"] = columns["slope_mean_deg"] < options.min_slope_deg
        flat = columns["below_min_slope"] & options.drop_flat
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
    outlines: Polygons, columns: Columns, ground: Georeference, options: InventoryOptions
) -> tuple[Polygons, Columns]:
    """Measure the outlines, and leave out those that are too small; unknown areas are kept."""
    measures = measure(outlines, ground)
    others = {name: column for name, column in columns.items() if name not in measures}
    columns = {**measures, **others}
    return _select(outlines, columns, ~(columns["area_m2"] < options.min_area_m2))


def _select(outlines: Polygons, columns: Columns, kept: NDArray[np.bool_]) -> tuple[Polygons, Columns]:
    return outlines[kept], {name: column[kept] for name, column in columns.items()}


def _frame(outlines: Polygons, columns: Columns, ground: Georeference) -> geopandas.GeoDataFrame:
    numbers = np.arange(1, len(outlines) + 1, dtype=np.int64)
    return geopandas.GeoDataFrame({"id": numbers, **columns}, geometry=place(outlines, ground), crs=ground.crs or None)


def check_inventory(scene: RasterInfo, options: InventoryOptions, dem: Path | None) -> None:
    """Validate inventory options and elevation model before prediction starts.

    Args:
        scene: header, with the ground sample distance where it is known.
        options: which landslides, and how their outlines are drawn.
        dem: elevation model.

    Raises:
        ConfigError: an option needs an elevation model or a ground sample distance.
        DataError: the elevation model cannot be used with this scene.
    """
    ground = Georeference.of(scene, scene.gsd_m)
    _check_options(scene, ground, options, dem)
    if dem is None:
        return
    if not ground.crs:
        raise DataError(
            f"{scene.path}: has no coordinate reference system, so its position in {dem} is unknown. Give it one "
            "(`gdal_translate -a_srs ... -a_ullr ...`), or leave `dem` out."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `polygonise` warns of what the model does not cover
        with TerrainReader(dem, scene):
            pass  # entering it is the check


def _check_options(scene: RasterInfo, ground: Georeference, options: InventoryOptions, dem: Path | None) -> None:
    if options.min_slope_deg is not None and dem is None:
        raise ConfigError(f"{scene.path}: `min_slope_deg` needs an elevation model. Give `dem`.")
    if ground.gsd_m is None and options.in_metres:
        raise ConfigError(
            f"{scene.path}: its ground sample distance is unknown, but needed for "
            f"{', '.join(f'`{name}`' for name in options.in_metres)}. Give `gsd_m`, or leave these out."
        )
