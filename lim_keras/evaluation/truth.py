"""Truth of a scene: its mapped landslides, from polygons or from a label raster."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from geopandas import GeoDataFrame
from numpy.typing import NDArray

from lim_keras.data.layouts import MOSTLY_LANDSLIDE
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.labels import LabelCounts, check_label_file, count_labels, same_grid, unlabelled
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.vectorize import polygonize, rasterize_box
from lim_keras.raster.windows import Box
from lim_keras.vectors.formats import FORMATS, Source, find_source
from lim_keras.vectors.geometries import clean_polygons, cut_polygons, find_polygons
from lim_keras.vectors.layers import find_layer, read_features
from lim_keras.vectors.placement import check_place, is_placed, outline, place_polygons

Labels = Callable[[Box], NDArray[np.uint8]]
"""Function that returns the truth in a box of the scene: 1 landslide, 0 background, 255 no label."""


def read_truth(path: Path, like: RasterInfo) -> GeoDataFrame:
    """Read the mapped landslides of a scene as single polygons in its CRS; without one, in its own coordinates.

    Args:
        path: polygons (formats.FORMATS) in any CRS, which are cut at the scene's edge; for a scene without CRS, GeoJSON
            with coordinates (column, -row). Or a label raster: 1 landslide, 0 background, else see `unlabelled`. It
            has the scene's grid, or the scene's size and no georeference. Landslide pixels that share an edge are one
            landslide. Both may hold no landslide.
        like: header of the scene.

    Raises:
        DataError: the file cannot be read, holds geometries but no polygon, has no CRS, or its CRS is wrong.

    Warns:
        LimKerasWarning: geometries were repaired or do not count, or no landslide or little else lies on the scene.
    """
    source = find_source(path)
    if source.is_raster:
        found = GeoDataFrame(geometry=_read_label_raster(source, like), crs=like.crs or None)
        return _on_scene(found, f"{path}: holds no landslide (no pixel of 1).")
    polygons = _read_polygons(source, like)
    cleaned = clean_polygons(polygons, str(path))
    inside = _without_duplicates(cut_polygons(cleaned, outline(like)), path)
    warn_of_study_area(inside, like, path)
    reason = f"none of its {len(cleaned)} polygons lies on the scene {like.path}. Is it the right file?"
    return _on_scene(GeoDataFrame(geometry=inside), f"{path}: {reason if len(cleaned) else 'holds no polygon.'}")


def _read_polygons(source: Source, like: RasterInfo) -> geopandas.GeoSeries:
    """Read the geometries of the one layer in a vector file that holds any, in the CRS of the scene."""
    geometries = read_features(find_layer(source)).geometry.reset_index(drop=True)
    found = find_polygons(geometries.to_numpy())
    found.check(source.path)
    polygons = geometries[found.has_area].reset_index(drop=True)
    if polygons.empty:
        return polygons.set_crs(like.crs or None, allow_override=True)
    placed = place_polygons(polygons, source, like)
    defined = is_placed(placed)
    if not placed[defined].intersects(outline(like)).any():
        check_place(polygons, source, like)
    if not defined.all():
        message = f"{source.path}: {(~defined).sum()} of {len(placed)} polygons lie where {like.crs} is not defined."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return placed


def _on_scene(found: GeoDataFrame, reason: str) -> GeoDataFrame:
    if found.empty:
        message = f"{reason} Every landslide that is predicted counts as a false alarm."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return found


def warn_of_study_area(landslides: geopandas.GeoSeries, like: RasterInfo, path: Path) -> None:
    """Warn if polygons cover most of a scene."""
    scene, shapes = outline(like).area, landslides.to_numpy()
    if shapely.area(shapes).sum() <= MOSTLY_LANDSLIDE * scene:
        return
    share = shapely.union_all(shapes).area / scene
    if share > MOSTLY_LANDSLIDE:
        message = (
            f"{path}: its polygons cover {share:.0%} of the scene {like.path}. If one outlines the study area, delete "
            "it."
        )
        warnings.warn(message, LimKerasWarning, stacklevel=4)


def _without_duplicates(polygons: geopandas.GeoSeries, path: Path) -> geopandas.GeoSeries:
    repeated = polygons.normalize().to_wkb().duplicated().to_numpy()
    if repeated.any():
        message = f"{path}: {repeated.sum()} of {len(polygons)} polygons repeat another one; each counts once."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return polygons[~repeated].reset_index(drop=True)


@contextmanager
def open_labels(path: Path, polygons: GeoDataFrame, scene: RasterInfo) -> Iterator[Labels]:
    """Open the labels of a scene; `polygons` is what `read_truth` read from the same file."""
    source = find_source(path)
    if not source.is_raster:
        yield lambda box: rasterise_block(polygons, scene, box)
        return
    with RasterReader(source.name, nodata="none") as raster:

        def labels(box: Box) -> NDArray[np.uint8]:
            values = raster.pixels(box)[..., 0]
            return np.where(unlabelled(values, raster.info.nodata), NO_LABEL, values == 1).astype(np.uint8)

        yield labels


def rasterise_block(truth: GeoDataFrame, like: RasterInfo, box: Box) -> NDArray[np.uint8]:
    """Draw the polygons of `read_truth` on a box of the scene: 1 if a polygon holds the pixel's centre, else 0."""
    near = truth.geometry.iloc[truth.sindex.query(outline(like, box), predicate="intersects")]
    return rasterize_box(near, box, Georeference.of(like).transform)


def open_label_raster(source: Source) -> RasterReader:
    """Open the first band of a label raster; its nodata value is read as a value.

    Raises:
        DataError: GDAL cannot open the file, neither as a raster nor as polygons.
    """
    try:
        return RasterReader(source.name, bands=(1,), nodata="none")
    except DataError as error:
        if source.has_raster_name:
            raise
        raise DataError(
            f"{source.path}: cannot be read as polygons or as a label raster. Expected {FORMATS}."
        ) from error


def _read_label_raster(source: Source, like: RasterInfo) -> list[Any]:
    with open_label_raster(source) as raster, explained(raster.name):
        check_label_file(raster)
        unplaced = not raster.info.crs and raster.info.transform is None
        _check_grid(raster, like, unplaced)
        warn_if_inverted(raster.name, count_labels(raster))
        found = [outline for outline, value in polygonize(raster) if value == 1]
    # Outlines of a raster without a transform are in its pixels.
    return list(shapely.transform(found, Georeference.of(like).place)) if unplaced else found


def warn_if_inverted(name: str, counts: LabelCounts) -> None:
    """Warn if most of the labelled pixels of a label raster are landslide."""
    if counts.landslide > MOSTLY_LANDSLIDE * counts.labelled:
        message = (
            f"{name}: {counts.landslide / counts.labelled:.0%} of its labelled pixels are landslide. If it is "
            "inverted, write landslide as 1, background as 0."
        )
        warnings.warn(message, LimKerasWarning, stacklevel=4)


def _check_grid(raster: RasterReader, like: RasterInfo, unplaced: bool) -> None:
    found, path = raster.info, raster.name
    transform, received = Georeference.of(like).transform, raster.dataset.transform
    if found.box != like.box or not (unplaced or same_grid(found, like)):
        raise DataError(
            f"{path}: lies on another grid than the scene {like.path}. Expected {like.width} x {like.height} px, CRS "
            f"{like.crs or None}, transform {tuple(transform[:6])}. Received: {found.width} x {found.height} px, CRS "
            f"{found.crs or None}, transform {tuple(received[:6])}. Warp it onto the scene's grid (nearest neighbour)."
        )
