"""Scene protocol: evaluate a mapped scene against mapped landslides."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from affine import Affine
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from lim_keras.bundle.protocol import SceneModel
from lim_keras.config import EvaluationSection
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.evaluation import Evaluation, Prediction, Sample, evaluate
from lim_keras.evaluation.evaluator import DEFAULTS, Gallery
from lim_keras.inference.domain import check_pages, check_scene, check_validity, reading_grid
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.inventory.attributes import polygon_areas_m2
from lim_keras.inventory.landslides import make_inventory
from lim_keras.inventory.polygons import clean_polygons, cut_polygons
from lim_keras.metrics.calibration import everywhere
from lim_keras.metrics.detections import Detections, match_polygons
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, same_crs
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import NO_LABEL, RasterReader, RasterSource
from lim_keras.raster.vectorize import polygonize, rasterize_box
from lim_keras.raster.windows import Box, blocks
from lim_keras.raster.writer import copy_blocks, maps_on_scene, write_rasters

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")

_GEOJSON = (".geojson", ".json")

_LABEL_BLOCK = 2048

_GRID_TOLERANCE_PX = 0.1

BLOCK = 512
"""Height and width of the blocks that the bootstrap resamples, pixels; larger than most landslides."""

Labels = Callable[[Box], NDArray[np.uint8]]
"""Function that returns the truth in a box of the scene: 1 landslide, 0 background, 255 no label."""


@dataclass(frozen=True, slots=True)
class SceneResult:
    """Scores of a scene by pixel, its best and worst blocks, and scores by polygon."""

    evaluation: Evaluation
    gallery: Gallery
    detections: Detections


def evaluate_scene(
    model: SceneModel,
    scene: RasterSource,
    truth: str | os.PathLike[str],
    *,
    settings: EvaluationSection = DEFAULTS,
    seed: int = 2022,
    options: MapOptions | None = None,
    progress: ProgressCallback | None = None,
) -> SceneResult:
    """Map a scene and compare it with its truth, on the scene's own grid and at the model's threshold.

    Pixels without data or without a label do not count. Predicted polygons are made as for an inventory. `truth` and
    errors are as in `lim_keras.evaluate_scene`.
    """
    options, truth, threshold = options or MapOptions(), Path(truth), model.info.threshold
    with (
        gdal_settings(),
        tempfile.TemporaryDirectory(prefix="lim_keras_") as folder,
        RasterReader(scene, bands=options.bands, nodata=options.nodata, gsd_m=options.gsd_m) as reader,
    ):
        check_scene(reader, model.info, options.scale)
        check_pages(reader)
        check_validity(reader)
        gsd_m, mapped = reader.info.gsd_m, read_truth(truth, reader.info)
        with _labels(truth, mapped, reader.info) as labels:
            maps = _predict(model, reader, Path(folder), options, progress)
            mask = _labelled_mask(maps, Path(folder), threshold, labels)
            inventory = make_inventory(mask, maps=maps, folds=model.info.folds, gsd_m=gsd_m)
            gallery = Gallery(threshold)
            predictions = gallery.watch(scene_predictions(maps, reader, labels))
            evaluation = evaluate(predictions, "scene", threshold, draws=settings.bootstrap, seed=seed)
    return SceneResult(evaluation, gallery, score_detections(inventory.frame, mapped, gsd_m=gsd_m))


def _predict(
    model: SceneModel, scene: RasterReader, folder: Path, options: MapOptions, progress: ProgressCallback | None
) -> Path:
    """Predict maps, from a resampled scene if `options` ask for it, and return them on the scene's grid."""
    grid = reading_grid(scene.info, model.info, options.resample)
    if grid is None:
        return predict_maps(model, scene, folder, options=options, progress=progress)[0]
    with scene.on_grid(grid) as resampled:
        maps, _ = predict_maps(model, resampled, folder, options=options, progress=progress)
        return maps_on_scene(maps, scene)


def _labelled_mask(maps: Path, folder: Path, threshold: float, labels: Labels) -> Path:
    """Write the landslide mask; pixels without a label are ignored, because they cannot be scored."""
    mask = folder / "landslides.tif"
    write_rasters(maps, folder / "probability.tif", mask, threshold=threshold)
    return copy_blocks(
        mask, folder / "labelled.tif", lambda box, values: np.where(labels(box) == NO_LABEL, NO_LABEL, values)
    )


def scene_predictions(maps: Path, scene: RasterReader, labels: Labels) -> Iterator[Prediction]:
    """Yield the blocks of a mapped scene that hold a labelled pixel; `maps` are on the scene's grid."""
    with RasterReader(maps, bands=(1,)) as predicted:
        for box in blocks(scene.info.height, scene.info.width, BLOCK):
            probability, valid = predicted.image(box)
            mask = np.where(valid, labels(box), NO_LABEL).astype(np.uint8)
            if (mask != NO_LABEL).any():
                name = f"row_{box.top}_column_{box.left}"
                kind = "landslide" if (mask == 1).any() else "non-landslide"
                sample = Sample(name, kind, "", scene.pixels(box), mask)
                yield Prediction(sample, probability[..., 0], everywhere(mask.shape))


@contextmanager
def _labels(truth: Path, polygons: GeoDataFrame, scene: RasterInfo) -> Iterator[Labels]:
    if truth.suffix.lower() in VECTOR_SUFFIXES:
        yield lambda box: rasterise_block(polygons, scene, box)
        return
    with RasterReader(truth, nodata="none") as raster:

        def labels(box: Box) -> NDArray[np.uint8]:
            values = raster.pixels(box)[..., 0]
            return np.where(unlabelled(values, raster.info.nodata), NO_LABEL, values == 1).astype(np.uint8)

        yield labels


def score_detections(predicted: GeoDataFrame, truth: GeoDataFrame, *, gsd_m: float | None = None) -> Detections:
    """Compare predicted and mapped landslides; each part of a multi-polygon counts as a landslide.

    Args:
        predicted: polygons in the scene's CRS; without CRS, in the scene's own coordinates.
        truth: polygons; reprojected if they are in another CRS, and repaired (LimKerasWarning) if they are invalid.
        gsd_m: size of a pixel in metres where there is no CRS; None: no area classes.
    """
    mapped = clean_polygons(_in_crs_of(predicted, truth), "truth")
    found = clean_polygons(predicted.geometry, "predicted")
    areas = polygon_areas_m2(mapped, gsd_m), polygon_areas_m2(found, gsd_m)
    return match_polygons(mapped.to_numpy(), found.to_numpy(), *areas)


def _in_crs_of(predicted: GeoDataFrame, truth: GeoDataFrame) -> geopandas.GeoSeries:
    if predicted.empty or truth.empty or predicted.crs == truth.crs:
        return truth.geometry
    if predicted.crs is None or truth.crs is None:
        raise DataError(
            "Expected `predicted` and `truth` both with a CRS, or both without. "
            f"Received: {predicted.crs and predicted.crs.name} and {truth.crs and truth.crs.name}."
        )
    return truth.geometry.to_crs(predicted.crs)


def read_truth(path: Path, like: RasterInfo) -> GeoDataFrame:
    """Read the mapped landslides of a scene as single polygons in its CRS; without one, in its own coordinates.

    Args:
        path: polygons (VECTOR_SUFFIXES) in any CRS, which are cut at the scene's edge; for a scene without CRS, GeoJSON
            with coordinates (column, -row). Or a label raster: 1 landslide, 0 background, else see `unlabelled`. It
            has the scene's grid, or the scene's size and no georeference. Landslide pixels that share an edge are one
            landslide.
        like: header of the scene.

    Warns:
        LimKerasWarning: polygons were repaired, or none of them lies on the scene.
    """
    if path.suffix.lower() not in VECTOR_SUFFIXES:
        return GeoDataFrame(geometry=_read_label_raster(path, like), crs=like.crs or None)
    polygons = clean_polygons(_to_scene(_read_vector(path), path, like), str(path))
    if polygons.empty:
        raise DataError(f"{path}: holds no polygon. Expected landslides as polygons or multi-polygons.")
    inside = cut_polygons(polygons, _outline(like.box, Georeference.of(like).transform))
    if inside.empty:
        message = f"{path}: none of its {len(polygons)} polygons lies on the scene {like.path}. Is it the right file?"
        warnings.warn(message, LimKerasWarning, stacklevel=2)
    return GeoDataFrame(geometry=inside)


def rasterise_block(truth: GeoDataFrame, like: RasterInfo, box: Box) -> NDArray[np.uint8]:
    """Draw the polygons of `read_truth` on a box of the scene: 1 if a polygon holds the pixel's centre, else 0."""
    transform = Georeference.of(like).transform
    near = truth.geometry.iloc[truth.sindex.query(_outline(box, transform), predicate="intersects")]
    return rasterize_box(near, box, transform)


def unlabelled(labels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Find pixels without a label: 255 and the file's nodata value, which may be NaN.

    0 and 1 are always labels, because many files declare their background as nodata.
    """
    absent: NDArray[np.bool_] = labels == NO_LABEL
    if nodata is not None and nodata not in (0, 1):
        absent |= np.isnan(labels) if math.isnan(nodata) else labels == nodata
    return absent


def _read_vector(path: Path) -> GeoDataFrame:
    """Read the one layer that has geometries; a GeoPackage may also hold a layer of styles."""
    try:
        layers = geopandas.list_layers(path).dropna(subset="geometry_type")["name"].tolist()
        if len(layers) != 1:
            raise DataError(f"{path}: expected one layer with geometries. Received: {', '.join(layers) or 'none'}.")
        return geopandas.read_file(path, layer=layers[0], columns=[])
    except (RuntimeError, shapely.errors.ShapelyError) as error:  # RuntimeError: base of pyogrio's errors
        raise DataError(f"{path}: cannot be read as polygons ({error}).") from error


def _to_scene(frame: GeoDataFrame, path: Path, like: RasterInfo) -> geopandas.GeoSeries:
    if not like.crs:
        # GeoJSON cannot say that it has no CRS: it is read as longitude and latitude.
        if frame.crs is None or path.suffix.lower() in _GEOJSON:
            return frame.geometry.set_crs(None, allow_override=True)
        raise DataError(f"{path}: has a CRS ({frame.crs.name}), but the scene {like.path} has none. Georeference it.")
    if frame.crs is None:
        raise DataError(
            f"{path}: has no CRS, but the scene {like.path} is in {like.crs}. Give it one (a Shapefile needs its .prj "
            "beside it)."
        )
    try:
        return frame.geometry.to_crs(like.crs)
    except ProjError as error:
        raise DataError(f"{path}: cannot be reprojected from {frame.crs.name} to {like.crs} ({error}).") from error


def _read_label_raster(path: Path, like: RasterInfo) -> list[Any]:
    try:
        raster = RasterReader(path, bands=(1,), nodata="none")
    except DataError as error:
        raise DataError(f"{path}: cannot be read as polygons or as a label raster ({error})") from error
    with raster:
        unplaced = not raster.info.crs and raster.info.transform is None
        _check_grid(raster, like, unplaced)
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
    outlines = _outline(like.box, received), _outline(like.box, transform)
    same_place = same_crs(found.crs, like.crs) and outlines[0].equals_exact(outlines[1], reach)
    if found.box != like.box or not (unplaced or same_place):
        raise DataError(
            f"{path}: lies on another grid than the scene {like.path}. Expected {like.width} x {like.height} px, CRS "
            f"{like.crs or None}, transform {tuple(transform[:6])}. Received: {found.width} x {found.height} px, CRS "
            f"{found.crs or None}, transform {tuple(received[:6])}. Warp it onto the scene's grid (nearest neighbour)."
        )


def _check_labels(raster: RasterReader) -> None:
    info = raster.info
    found = np.zeros(0, info.dtype)
    for box in blocks(info.height, info.width, _LABEL_BLOCK):
        found = np.unique(np.append(found, np.unique(raster.pixels(box))))
    labels = set(found[~unlabelled(found, info.nodata)].tolist())
    values = ", ".join(f"{value:g}" for value in found[:10].tolist())
    if labels - {0, 1}:
        raise DataError(
            f"{raster.name}: expected the labels 1 landslide, 0 background, 255 no label. Received: {values}."
        )
    if not labels or (1 not in labels and NO_LABEL in found and info.nodata != NO_LABEL):
        raise DataError(
            f"{raster.name}: expected pixels of 1 landslide or 0 background. Received: {values}. 255 means no label; "
            "where it means landslide, write 1 instead."
        )


def _outline(box: Box, transform: Affine) -> Any:
    corners = shapely.box(box.left, box.top, box.right, box.bottom)
    return shapely.transform(corners, lambda points: apply(transform, points))
