"""Scene protocol: evaluate a mapped scene against mapped landslides."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from lim_keras.evaluation.evaluator import Gallery
from lim_keras.inference.domain import check_scene, reading_grid
from lim_keras.inference.options import MapOptions
from lim_keras.inference.predict_maps import predict_maps
from lim_keras.inventory.geometry_clean import clean_polygons, cut_polygons
from lim_keras.inventory.landslides import polygonise
from lim_keras.inventory.measures import polygon_areas_m2
from lim_keras.metrics.detections import Detections, match_polygons
from lim_keras.metrics.image_blind import everywhere
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, same_crs
from lim_keras.raster.reader import NO_LABEL, RasterReader, gdal_settings
from lim_keras.raster.vectorize import polygonize, rasterize_box
from lim_keras.raster.windows import Box, blocks, plan_windows
from lim_keras.raster.writer import copy_blocks, maps_on_scene, write_rasters

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")

_LABEL_BLOCK = 2048

_GRID_TOLERANCE_PX = 0.1


def read_truth(path: Path, like: RasterInfo) -> geopandas.GeoDataFrame:
    """Mapped landslides of a scene, as single polygons in its CRS (without one: in its own coordinates).

    Args:
        path: polygons (VECTOR_SUFFIXES) in any CRS, cut at the scene's edge; GeoJSON of a scene without CRS is taken in
            the scene's own coordinates, (column, -row) where it has no place. Or a label raster on the scene's grid, 1
            landslide, 0 background, no label see `unlabelled`, where pixels hang together over edges, not over corners;
            one that does not say where it lies needs the scene's size only.
        like: the scene (`lim_keras.raster.reader.read_info`).

    Raises:
        DataError: unreadable, no polygon in it, no CRS, several layers, another grid, or unknown labels.

    Warns:
        LimKerasWarning: polygons are invalid, and repaired; or none of them lies on the scene.
    """
    if path.suffix.lower() not in VECTOR_SUFFIXES:
        return geopandas.GeoDataFrame(geometry=_read_label_raster(path, like), crs=like.crs or None)
    tidy = clean_polygons(_to_scene(_read_vector(path), path, like), str(path))
    if tidy.empty:
        raise DataError(f"{path}: holds no polygon. Expected landslides as polygons or multi-polygons.")
    inside = cut_polygons(tidy, _outline(Box(0, 0, like.height, like.width), Georeference.of(like).transform))
    if inside.empty:
        message = f"{path}: none of its {len(tidy)} polygons lies on the scene {like.path}. Is it the right file?"
        warnings.warn(message, LimKerasWarning, stacklevel=2)
    return geopandas.GeoDataFrame(geometry=inside)


def rasterise_block(truth: geopandas.GeoDataFrame, like: RasterInfo, box: Box) -> NDArray[np.uint8]:
    """The truth polygons on a block of the scene's grid: (height, width), 1 where they hold a pixel's centre, else 0.

    truth: of `read_truth`. like: the scene. box: the block, in pixels of the scene.
    """
    matrix = Georeference.of(like).transform
    near = truth.geometry.iloc[truth.sindex.query(_outline(box, matrix), predicate="intersects")]
    return rasterize_box(near, box, matrix)


def unlabelled(labels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Which values of a label raster are no label: 255, and the file's nodata value.

    0 and 1 are labels whatever the file says: many name their background as nodata.

    labels: any shape and type. nodata: of the file, NaN allowed.
    """
    absent: NDArray[np.bool_] = labels == NO_LABEL
    if nodata is not None and nodata not in (0, 1):
        absent |= np.isnan(labels) if math.isnan(nodata) else labels == nodata
    return absent


def _read_vector(path: Path) -> geopandas.GeoDataFrame:
    """The one layer of a file that has geometries; GeoPackages hold layers of styles besides."""
    try:
        layers = geopandas.list_layers(path).dropna(subset="geometry_type")["name"].tolist()
        if len(layers) != 1:
            raise DataError(f"{path}: expected one layer with geometries. Received: {', '.join(layers) or 'none'}.")
        return geopandas.read_file(path, layer=layers[0], columns=[])
    except (RuntimeError, shapely.errors.ShapelyError) as error:  # RuntimeError: base of pyogrio's errors
        raise DataError(f"{path}: cannot be read as polygons ({error}).") from error


def _to_scene(frame: geopandas.GeoDataFrame, path: Path, like: RasterInfo) -> geopandas.GeoSeries:
    if not like.crs:
        # GeoJSON cannot say that it has no CRS: it is read as longitude and latitude.
        if frame.crs is None or path.suffix.lower() in (".geojson", ".json"):
            return frame.geometry.set_crs(None, allow_override=True)
        raise DataError(f"{path}: has a CRS ({frame.crs.name}), but the scene {like.path} has none to bring it to.")
    if frame.crs is None:
        raise DataError(
            f"{path}: has no CRS, but the scene {like.path} is in {like.crs}. Say what it is in "
            "(a Shapefile needs its .prj beside it)."
        )
    try:
        return frame.geometry.to_crs(like.crs)
    except ProjError as error:
        raise DataError(f"{path}: cannot be brought from {frame.crs.name} to {like.crs} ({error}).") from error


def _read_label_raster(path: Path, like: RasterInfo) -> list[Any]:
    """GDAL polygonises row by row: the raster is never in memory as a whole."""
    try:
        raster = RasterReader(path, bands=(1,), nodata="none")
    except DataError as error:
        raise DataError(f"{path}: cannot be read as polygons or as a label raster ({error})") from error
    with raster:
        unplaced = not raster.info.crs and raster.info.transform is None
        _check_grid(raster, like, unplaced)
        _check_labels(raster)
        found = [outline for outline, value in polygonize(raster) if value == 1]
    # outlines of a raster without a transform are in its pixels
    return list(shapely.transform(found, Georeference.of(like).place)) if unplaced else found


def _check_grid(raster: RasterReader, like: RasterInfo, unplaced: bool) -> None:
    found, path = raster.info, raster.name
    if raster.count != 1:
        raise DataError(f"{path}: expected a label raster of one band. Received: {raster.count} bands.")
    transform, received = Georeference.of(like).transform, raster.dataset.transform
    reach = _GRID_TOLERANCE_PX * math.sqrt(abs(transform.determinant))
    same_place = same_crs(found.crs, like.crs) and _outline(like.box, received).equals_exact(
        _outline(like.box, transform), reach
    )
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
    shown = ", ".join(f"{value:g}" for value in found[:10].tolist())
    if labels - {0, 1}:
        raise DataError(
            f"{raster.name}: expected the labels 1 landslide, 0 background, 255 no label. Received: {shown}."
        )
    if not labels or (1 not in labels and NO_LABEL in found and info.nodata != NO_LABEL):
        raise DataError(
            f"{raster.name}: expected pixels of 1 landslide or 0 background. Received: {shown}. 255 means no label; "
            "where it means landslide, write 1 instead."
        )


def _outline(box: Box, matrix: Affine) -> Any:
    corners = shapely.box(box.left, box.top, box.right, box.bottom)
    return shapely.transform(corners, lambda points: apply(matrix, points))


IGNORE = 255

BLOCK = 512
"""A scene is scored in blocks of this many pixels a side: larger than most landslides, to be resampled."""

Labels = Callable[[Box], NDArray[np.uint8]]
"""A box of the scene to its truth: 1 landslide, 0 background, 255 no label."""


@dataclass(frozen=True, slots=True)
class SceneResult:
    """Scores of a scene by pixel, the blocks to look at, and scores by polygon."""

    evaluation: Evaluation
    gallery: Gallery
    detections: Detections


def evaluate_scene(
    model: SceneModel,
    scene: Path,
    truth: Path,
    *,
    settings: EvaluationSection,
    seed: int = 2022,
    options: MapOptions | None = None,
    progress: ProgressCallback | None = None,
) -> SceneResult:
    """Predict a scene and compare it with its truth on the scene's own grid, at the model's threshold.

    Pixels without data, or without a label, count nowhere. Polygons are those that the inventory would hold.

    Args:
        model: what predicts.
        scene: the image.
        truth: landslide polygons, or a raster on the scene's grid: 1 landslide, 0 background, 255 or nodata no label.
        settings: number of bootstrap draws.
        seed: of the bootstrap.
        options: how the scene is read, resampled and cut.
        progress: receives the number of predicted pixels.

    Raises:
        DataError: the scene cannot be used with this model, or the truth not with the scene.

    Warns:
        DomainWarning: the scene's ground sample distance is far from that of training.
    """
    options = options or MapOptions()
    threshold = model.info.threshold
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lim_keras_")))
        reader = RasterReader(scene, bands=options.bands, nodata=options.nodata, gsd_m=options.gsd_m)
        info = stack.enter_context(reader).info
        check_scene(reader, model.info, options.scale)
        mapped = read_truth(truth, info)
        labels = stack.enter_context(_labels(truth, mapped, info))
        grid = reading_grid(info, model.info, options.resample)
        shown = reader if grid is None else stack.enter_context(reader.on_grid(grid))
        maps, _ = predict_maps(model, shown, folder, options=options, progress=progress)
        maps = maps if grid is None else maps_on_scene(maps, reader)
        mask = folder / "landslides.tif"
        write_rasters(maps, folder / "probability.tif", mask, threshold=threshold)
        found = polygonise(_where_labelled(mask, labels), maps=maps, folds=model.info.folds, gsd_m=info.gsd_m)
        gallery = Gallery(threshold)
        evaluation = evaluate(
            gallery.watch(scene_predictions(maps, reader, labels)),
            "scene",
            threshold,
            draws=settings.bootstrap,
            seed=seed,
        )
    return SceneResult(evaluation, gallery, score_detections(found.frame, mapped, gsd_m=info.gsd_m))


def scene_predictions(maps: Path, scene: RasterReader, labels: Labels) -> Iterator[Prediction]:
    """Blocks of a predicted scene with their truth, those without a labelled pixel that holds data left out.

    Args:
        maps: of `lim_keras.raster.writer.maps_on_scene`.
        scene: what was predicted.
        labels: its truth.
    """
    with RasterReader(maps, bands=(1,)) as predicted:
        for block in plan_windows(scene.info.height, scene.info.width, tile=BLOCK, halo=0, multiple=1):
            box = block.core
            probability, valid = predicted.image(box)
            mask = np.where(valid, labels(box), IGNORE).astype(np.uint8)
            if (mask != IGNORE).any():
                name = f"row_{box.top}_column_{box.left}"
                kind = "landslide" if (mask == 1).any() else "non-landslide"
                sample = Sample(name, kind, "", scene.pixels(box), mask)
                yield Prediction(sample, probability[..., 0], everywhere(mask.shape))


def score_detections(predicted: GeoDataFrame, truth: GeoDataFrame, *, gsd_m: float | None = None) -> Detections:
    """Compare predicted and mapped landslides polygon by polygon; parts of a multi-polygon count alone.

    Args:
        predicted: polygons in the scene's CRS; without CRS, in the scene's own coordinates.
        truth: polygons; reprojected if they are in another CRS.
        gsd_m: size of a pixel in metres where there is no CRS; None: no area classes.

    Raises:
        DataError: only one of the two has a CRS.

    Warns:
        LimKerasWarning: truth polygons are invalid, and repaired.
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


def _where_labelled(mask: Path, labels: Labels) -> Path:
    """The mask without what lies on ground that has no label: a landslide there is neither right nor wrong."""
    path = mask.with_name("labelled.tif")
    return copy_blocks(mask, path, lambda box, values: np.where(labels(box) == IGNORE, IGNORE, values))


@contextmanager
def _labels(truth: Path, polygons: GeoDataFrame, scene: RasterInfo) -> Iterator[Labels]:
    """The truth of a box, from a raster, or from polygons by their pixels' centres."""
    if truth.suffix.lower() in VECTOR_SUFFIXES:
        yield lambda box: rasterise_block(polygons, scene, box)
        return
    with RasterReader(truth, nodata="none") as raster:
        yield lambda box: _plain(raster.pixels(box)[..., 0], raster.info.nodata)


def _plain(labels: NDArray[Any], nodata: float | None) -> NDArray[np.uint8]:
    return np.where(unlabelled(labels, nodata), IGNORE, labels == 1).astype(np.uint8)
