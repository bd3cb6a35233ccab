"""Landslide inventory of a mask raster."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]

from lim_keras.errors import ConfigError, LimKerasWarning
from lim_keras.inventory.attributes import MIN_COVERAGE, Columns
from lim_keras.inventory.drawing import Drawing
from lim_keras.inventory.groups import Landslides, find_landslides
from lim_keras.inventory.options import InventoryOptions, check_metres
from lim_keras.inventory.pixels import PixelReader, Sampler
from lim_keras.inventory.polygons import place, read_mask_info
from lim_keras.inventory.spool import Spool
from lim_keras.inventory.terrain import TerrainReader
from lim_keras.inventory.tracing import Rings
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader


@dataclass
class InventoryTotals:
    """Totals of a scene's landslides; they are complete when all of the landslides were made.

    Attributes:
        crs: CRS of the scene, "" where there is none; outlines are then in pixels, (column, -row), as QGIS shows them.
        landslides: number of landslides.
        area_m2: their area; NaN if it is unknown.
        flagged: number of landslides below the smallest slope; None without one.
        dropped_low: number of landslides below the peak of the object rule; None without a peak.
        dropped_small: number of other landslides below `min_area_m2`.
        dropped_flat: number of landslides that `drop_flat` left out.
        swallowed: number of landslides in filled holes of others.
        uncovered: share of the scene outside the elevation model; None without one.
        unknown_slope: number of landslides whose slope is unknown; None without an elevation model.
        lacks_edge: slopes are unknown only on the outermost cells of the elevation model.
    """

    crs: str = ""
    landslides: int = 0
    area_m2: float = 0.0
    flagged: int | None = None
    dropped_low: int | None = None
    dropped_small: int = 0
    dropped_flat: int = 0
    swallowed: int = 0
    uncovered: float | None = None
    unknown_slope: int | None = None
    lacks_edge: bool = False

    def count(self, columns: Columns) -> None:
        """Add landslides."""
        self.landslides += len(columns["id"])
        self.area_m2 += float(columns["area_m2"].sum())
        if "below_min_slope" in columns:
            self.flagged = (self.flagged or 0) + int(columns["below_min_slope"].sum())
        if "slope_unknown" in columns:
            self.unknown_slope = (self.unknown_slope or 0) + int(columns["slope_unknown"].sum())


@dataclass(frozen=True)
class Inventory:
    """The landslides of a scene.

    Attributes:
        frame: a row for each landslide, sorted by first pixel, row by row. Columns: `id` (1..n), those of
            `lim_keras.inventory.attributes`, `below_min_slope` if a smallest slope is given, and `geometry`.
        totals: counts and area of the landslides.
    """

    frame: geopandas.GeoDataFrame
    totals: InventoryTotals


def make_inventory(
    mask: Path,
    *,
    maps: Path | None = None,
    folds: int = 1,
    options: InventoryOptions | None = None,
    gsd_m: float | None = None,
    scene: Path | str | None = None,
) -> Inventory:
    """Make the inventory of a mask in memory; arguments and errors as in `stream_inventory`."""
    totals = InventoryTotals()
    source = MaskSource(mask=mask, maps=maps, folds=folds, gsd_m=gsd_m, scene=scene)
    frames = list(stream_inventory(source, options or InventoryOptions(), totals))
    return Inventory(pandas.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0], totals)


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """Rasters of an inventory.

    Attributes:
        mask: uint8 raster, 1 landslide, 0 background, 255 no data.
        maps: raster of probability (band 1) and votes of the folds (optional band 2), negative without data; None:
            probabilities are unknown.
        folds: number of models that voted.
        gsd_m: ground sample distance of a mask without a georeference, metres.
        scene: scene of the mask, for messages; None: the mask.
        folder: folder of temporary files; None: that of the system.
        familiarity: familiarity of the imagery at points; None: unknown.
    """

    mask: Path
    maps: Path | None = None
    folds: int = 1
    gsd_m: float | None = None
    scene: Path | str | None = None
    folder: Path | None = None
    familiarity: Sampler | None = None


def stream_inventory(
    source: MaskSource, options: InventoryOptions, totals: InventoryTotals
) -> Iterator[geopandas.GeoDataFrame]:
    """Make the inventory of a mask: a landslide is a group of landslide pixels that share sides.

    Memory holds blocks of the rasters, a limited number of whole landslides, and the corners and statistics of
    unfinished landslides (see `find_landslides`). If outlines are simplified, it also holds each group of landslides
    whose bounding boxes touch.

    Args:
        totals: receives the counts.

    Yields:
        Frames with some landslides each, as in `Inventory.frame`; one frame without rows if there is no landslide.

    Raises:
        ConfigError: an option needs a ground sample distance.
        DataError: a file cannot be used.

    Warns:
        LimKerasWarning: the elevation model does not cover the scene, or has no slope for some landslides.
    """
    info = read_mask_info(source.mask)
    ground, shown = Georeference.of(info, source.gsd_m), replace(info, path=source.scene or info.path)
    if source.folds < 1:
        raise ConfigError(f"Invalid value for `folds`. Expected a whole number >= 1. Received: {source.folds}.")
    check_metres(shown, ground, options)
    totals.crs = ground.crs
    with ExitStack() as stack:
        landslides = _sorted_landslides(source, options, shown, totals, stack)
        for outlines, columns in Drawing(ground, options, totals).draw(landslides, source.folds):
            yield _frame(outlines, columns, ground, totals)
    if options.dem is not None:
        _check_unknown_slopes(totals, options, shown)


def _sorted_landslides(
    source: MaskSource, options: InventoryOptions, scene: RasterInfo, totals: InventoryTotals, stack: ExitStack
) -> Iterator[Landslides]:
    """Find all landslides, and yield them in row order of their first pixels; `stack` closes the temporary file."""
    with ExitStack() as rasters:
        rasters.enter_context(gdal_settings())
        terrain = None if options.dem is None else rasters.enter_context(TerrainReader(options.dem, scene))
        if terrain is not None:
            _check_relief(terrain, options, scene)
            totals.uncovered, totals.lacks_edge = terrain.uncovered, terrain.lacks_edge
        labels = rasters.enter_context(RasterReader(source.mask))
        maps = None if source.maps is None else rasters.enter_context(RasterReader(source.maps))
        reader = PixelReader(labels, maps, terrain, source.familiarity)
        spool = stack.enter_context(Spool(reader.none(), source.folder))
        for landslides in find_landslides(reader):
            spool.add(landslides)
    return spool.sorted()


def _frame(outlines: Rings, columns: Columns, ground: Georeference, totals: InventoryTotals) -> geopandas.GeoDataFrame:
    numbers = {"id": totals.landslides + np.arange(1, len(outlines) + 1, dtype=np.int64)}
    columns = numbers | columns
    totals.count(columns)
    return geopandas.GeoDataFrame(columns, geometry=place(outlines, ground), crs=ground.crs or None)


def _check_relief(terrain: TerrainReader, options: InventoryOptions, scene: RasterInfo) -> None:
    """Warn if a smallest slope is compared with an elevation model without relief."""
    if terrain.same is not None and options.min_slope_deg is not None:
        warnings.warn(
            f"{options.dem}: all of its elevations on {scene.path} are {terrain.same:g} m, so that every slope is 0 "
            "degrees. Check that it is an elevation model of this area.",
            LimKerasWarning,
            stacklevel=3,
        )


def _check_unknown_slopes(totals: InventoryTotals, options: InventoryOptions, scene: RasterInfo) -> None:
    if totals.unknown_slope:
        where, cure = "in a void or outside", "Fill the model (`gdal_fillnodata.py`), or give one that covers them."
        if totals.lacks_edge:
            where = "on the outermost cells of the model, which have no slope"
            cure = "Give a model that reaches at least a cell beyond the scene, or one of smaller cells."
        warnings.warn(
            f"{options.dem}: has no slope for {totals.unknown_slope} of {totals.landslides} landslides on "
            f"{scene.path}: more than {1 - MIN_COVERAGE:.0%} of each lies {where}. `min_slope_deg` neither flags nor "
            f"drops them. {cure}",
            LimKerasWarning,
            stacklevel=3,
        )
