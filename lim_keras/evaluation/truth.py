"""Truth of a scene: its mapped landslides, from polygons or from a label raster."""

from __future__ import annotations

import math
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
from lim_keras.raster.georeference import Georeference, RasterInfo, same_crs
from lim_keras.raster.images import check_one_page, read_orientation
from lim_keras.raster.masks import is_lossy, is_masked
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import NO_LABEL, RasterReader
from lim_keras.raster.vectorize import polygonize, rasterize_box
from lim_keras.raster.windows import Box, blocks
from lim_keras.vectors.formats import FORMATS, Source, find_source
from lim_keras.vectors.geometries import clean_polygons, cut_polygons, find_polygons
from lim_keras.vectors.layers import find_layer, read_features
from lim_keras.vectors.placement import check_place, is_placed, outline, place_polygons

_LABEL_BLOCK = 2048

_GRID_TOLERANCE_PX = 0.1

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
    _check_share(inside, like, path)
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


def _check_share(landslides: geopandas.GeoSeries, like: RasterInfo, path: Path) -> None:
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


def unlabelled(labels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Find pixels without a label: 255 and the file's nodata value, which may be NaN.

    0 and 1 are always labels, because many files declare their background as nodata.
    """
    absent: NDArray[np.bool_] = labels == NO_LABEL
    if nodata is not None and nodata not in (0, 1):
        absent |= np.isnan(labels) if math.isnan(nodata) else labels == nodata
    return absent


def _read_label_raster(source: Source, like: RasterInfo) -> list[Any]:
    try:
        raster = RasterReader(source.name, bands=(1,), nodata="none")
    except DataError as error:
        if source.has_raster_name:
            raise
        raise DataError(
            f"{source.path}: cannot be read as polygons or as a label raster. Expected {FORMATS}."
        ) from error
    with raster, explained(raster.name):
        _check_pixels(raster)
        unplaced = not raster.info.crs and raster.info.transform is None
        _check_grid(raster, like, unplaced)
        _check_palette(raster)
        _check_labels(raster)
        found = [outline for outline, value in polygonize(raster) if value == 1]
    # Outlines of a raster without a transform are in its pixels.
    return list(shapely.transform(found, Georeference.of(like).place)) if unplaced else found


def _check_grid(raster: RasterReader, like: RasterInfo, unplaced: bool) -> None:
    found, path = raster.info, raster.name
    if raster.count != 1:
        raise DataError(f"{path}: expected a label raster of one band. Received: {raster.count} bands.")
    transform, received = Georeference.of(like).transform, raster.dataset.transform
    reach = _GRID_TOLERANCE_PX * math.sqrt(abs(transform.determinant))
    same_edges = outline(like).equals_exact(outline(like, transform=received), reach)
    if found.box != like.box or not (unplaced or (same_crs(found.crs, like.crs) and same_edges)):
        raise DataError(
            f"{path}: lies on another grid than the scene {like.path}. Expected {like.width} x {like.height} px, CRS "
            f"{like.crs or None}, transform {tuple(transform[:6])}. Received: {found.width} x {found.height} px, CRS "
            f"{found.crs or None}, transform {tuple(received[:6])}. Warp it onto the scene's grid (nearest neighbour)."
        )


def _check_pixels(raster: RasterReader) -> None:
    """Refuse ambiguous labels: several pages, a mask, JPEG compression or an EXIF orientation."""
    check_one_page(raster)
    if raster.count == 1 and is_masked(raster):
        raise DataError(
            f"{raster.name}: has a mask. Expected 255 where there is no label (`gdalwarp -dstnodata 255 {raster.name} "
            f"{raster.stem}_mended.tif`)."
        )
    if raster.dataset.driver not in ("GTiff", "PNG", "JPEG") or not Path(raster.name).is_file():
        return
    if is_lossy(Path(raster.name)):
        raise DataError(f"{raster.name}: is compressed as JPEG, which changes labels. Save labels as PNG or TIFF.")
    if (orientation := read_orientation(raster.name)) != 1:
        raise DataError(
            f"{raster.name}: has the EXIF orientation {orientation}, but the scene is read as stored. Turn the pixels "
            "to fit the scene, and save them without an orientation."
        )


def _check_palette(raster: RasterReader) -> None:
    """Refuse labels that viewers show inverted, such as a 1-bit TIFF whose 0 is white."""
    if not raster.has_palette:
        return
    colours = raster.dataset.colormap(1)
    if colours[0][:3] == (255, 255, 255) and colours[1][:3] == (0, 0, 0):
        raise DataError(
            f"{raster.name}: its palette shows 0 as white and 1 as black, so either may be landslide. Save it "
            "without a palette: 1 landslide, 0 background."
        )


def _check_labels(raster: RasterReader) -> None:
    info = raster.info
    found, landslide, labelled = np.zeros(0, info.dtype), 0, 0
    for box in blocks(info.height, info.width, _LABEL_BLOCK):
        values = raster.pixels(box)
        found = np.unique(np.append(found, np.unique(values)))
        landslide += int((values == 1).sum())
        labelled += int((~unlabelled(values, info.nodata)).sum())
    labels = set(found[~unlabelled(found, info.nodata)].tolist())
    received = ", ".join(f"{value:g}" for value in found[:10].tolist())
    if labels - {0, 1}:
        raise DataError(
            f"{raster.name}: expected the labels 1 landslide, 0 background, 255 no label. Received: {received}."
        )
    if not labels or (1 not in labels and NO_LABEL in found and info.nodata != NO_LABEL):
        raise DataError(
            f"{raster.name}: expected pixels of 1 landslide or 0 background. Received: {received}. 255 means no label; "
            "where it means landslide, write 1 instead."
        )
    if landslide > MOSTLY_LANDSLIDE * labelled:
        message = (
            f"{raster.name}: {landslide / labelled:.0%} of its labelled pixels are landslide. If it is inverted, write "
            "landslide as 1, background as 0."
        )
        warnings.warn(message, LimKerasWarning, stacklevel=5)
