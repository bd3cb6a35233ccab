"""Scene protocol: evaluate a mapped scene against mapped landslides."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import rasterio.features
import shapely
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

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
from lim_keras.metrics.detections import Detections, score_detections
from lim_keras.metrics.image_blind import everywhere
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import NO_LABEL, Ground, apply, shifted, strips
from lim_keras.raster.reader import RasterInfo, read_scene_info
from lim_keras.raster.scene import SceneReader
from lim_keras.raster.windows import Box, plan_windows
from lim_keras.raster.writer import gdal_settings, maps_on_scene, write_rasters

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")

_LABEL_BLOCK = 2048

_WIDE_TYPES = ("uint32", "int64", "uint64")
"""Of labels that rasterio does not polygonise."""

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
    inside = cut_polygons(tidy, _outline(Box(0, 0, like.height, like.width), Ground.of(like).matrix))
    if inside.empty:
        message = f"{path}: none of its {len(tidy)} polygons lies on the scene {like.path}. Is it the right file?"
        warnings.warn(message, LimKerasWarning, stacklevel=2)
    return geopandas.GeoDataFrame(geometry=inside)


def rasterise_block(truth: geopandas.GeoDataFrame, like: RasterInfo, box: Box) -> NDArray[np.uint8]:
    """The truth polygons on a block of the scene's grid: (height, width), 1 where they hold a pixel's centre, else 0.

    truth: of `read_truth`. like: the scene. box: the block, in pixels of the scene.
    """
    matrix = Ground.of(like).matrix
    near = truth.geometry.iloc[truth.sindex.query(_outline(box, matrix), predicate="intersects")]
    mask = np.zeros((box.height, box.width), np.uint8)
    if len(near):
        rasterio.features.rasterize(near, out=mask, transform=shifted(matrix, box.left, box.top))
    return mask


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path, sharing=False)
        with source:
            unplaced = source.crs is None and source.transform.is_identity
            _check_grid(source, path, like, unplaced)
            _check_labels(source, path, like)
            found = _polygonise(source)
            # a band's outlines come in the coordinates of its file, whatever is asked
            return list(shapely.transform(found, Ground.of(like).place)) if unplaced else found
    except RasterioError as error:
        raise DataError(f"{path}: cannot be read as polygons or as a label raster ({error}).") from error


def _polygonise(source: Any) -> list[Any]:
    if source.dtypes[0] in _WIDE_TYPES:
        place = {"crs": source.crs, "transform": source.transform, "width": source.width, "height": source.height}
        with WarpedVRT(source, dtype="float32", **place) as narrow:  # labels are small numbers
            return _polygonise(narrow)
    band = rasterio.band(source, 1)
    # 0 as mask: the background would become a polygon with a hole for every landslide
    mask = band if source.dtypes[0] == "uint8" else None
    shapes = rasterio.features.shapes(band, mask=mask, connectivity=4)
    return [shapely.geometry.shape(shape) for shape, value in shapes if value == 1]


def _check_grid(source: Any, path: Path, like: RasterInfo, unplaced: bool) -> None:
    if source.count != 1:
        raise DataError(f"{path}: expected a label raster of one band. Received: {source.count} bands.")
    matrix, crs = Ground.of(like).matrix, rasterio.CRS.from_user_input(like.crs) if like.crs else None
    scene, reach = Box(0, 0, like.height, like.width), _GRID_TOLERANCE_PX * math.sqrt(abs(matrix.determinant))
    same_place = source.crs == crs and _outline(scene, source.transform).equals_exact(_outline(scene, matrix), reach)
    if (source.width, source.height) != (like.width, like.height) or not (unplaced or same_place):
        raise DataError(
            f"{path}: lies on another grid than the scene {like.path}. Expected {like.width} x {like.height} px, CRS "
            f"{crs}, transform {tuple(matrix[:6])}. Received: {source.width} x {source.height} px, CRS {source.crs}, "
            f"transform {tuple(source.transform[:6])}. Warp it onto the scene's grid (nearest neighbour)."
        )


def _check_labels(source: Any, path: Path, like: RasterInfo) -> None:
    found = np.zeros(0, source.dtypes[0])
    for window in chain.from_iterable(strips(like, _LABEL_BLOCK)):
        found = np.unique(np.append(found, np.unique(source.read(1, window=window))))
    labels = set(found[~unlabelled(found, source.nodata)].tolist())
    shown = ", ".join(f"{value:g}" for value in found[:10].tolist())
    if labels - {0, 1}:
        raise DataError(f"{path}: expected the labels 1 landslide, 0 background, 255 no label. Received: {shown}.")
    if not labels or (1 not in labels and NO_LABEL in found and source.nodata != NO_LABEL):
        raise DataError(
            f"{path}: expected pixels of 1 landslide or 0 background. Received: {shown}. 255 means no label; where it "
            "means landslide, write 1 instead."
        )


def _outline(box: Box, matrix: rasterio.Affine) -> Any:
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
    threshold, info = model.info.threshold, read_scene_info(scene)
    info = replace(info, gsd_m=info.gsd_m or options.gsd_m)
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lim_keras_")))
        read = partial(SceneReader, scene, bands=options.bands, nodata=options.nodata)
        reader = stack.enter_context(read())
        check_scene(reader.info, model.info, options.scale)
        mapped = read_truth(truth, reader.info)
        labels = stack.enter_context(_labels(truth, mapped, reader.info))
        grid = reading_grid(info, model.info, options.resample)
        shown = reader if grid is None else stack.enter_context(read(grid=grid))
        drawn, _ = predict_maps(model, shown, folder, options=options, progress=progress)
        maps = maps_on_scene(drawn, info, grid is not None, bands=options.bands, nodata=options.nodata)
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


def scene_predictions(maps: Path, scene: SceneReader, labels: Labels) -> Iterator[Prediction]:
    """Blocks of a predicted scene with their truth, those without a labelled pixel that holds data left out.

    Args:
        maps: of `lim_keras.raster.writer.maps_on_scene`.
        scene: what was predicted.
        labels: its truth.
    """
    with SceneReader(maps, bands=(1,)) as predicted:
        for block in plan_windows(scene.info.height, scene.info.width, tile=BLOCK, halo=0, multiple=1):
            box = block.core
            probability, valid = predicted.image(box)
            mask = np.where(valid, labels(box), IGNORE).astype(np.uint8)
            if (mask != IGNORE).any():
                name = f"row_{box.top}_column_{box.left}"
                kind = "landslide" if (mask == 1).any() else "non-landslide"
                sample = Sample(name, kind, "", scene.pixels(box), mask)
                yield Prediction(sample, probability[..., 0], everywhere(mask.shape))


def _where_labelled(mask: Path, labels: Labels) -> Path:
    """The mask without what lies on ground that has no label: a landslide there is neither right nor wrong."""
    path = mask.with_name("labelled.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(mask) as source, rasterio.open(path, "w", **source.profile | {"driver": "GTiff"}) as target:
            for block in plan_windows(source.height, source.width, tile=2 * BLOCK, halo=0, multiple=1):
                window = RasterWindow(block.core.left, block.core.top, block.core.width, block.core.height)
                unlabelled = labels(block.core) == IGNORE
                target.write(np.where(unlabelled, IGNORE, source.read(1, window=window)), 1, window=window)
    return path


@contextmanager
def _labels(truth: Path, polygons: GeoDataFrame, scene: RasterInfo) -> Iterator[Labels]:
    """The truth of a box, from a raster, or from polygons by their pixels' centres."""
    if truth.suffix.lower() in VECTOR_SUFFIXES:
        yield lambda box: rasterise_block(polygons, scene, box)
        return
    with SceneReader(truth, nodata="none") as raster:
        yield lambda box: _plain(raster.pixels(box)[..., 0], raster.info.nodata)


def _plain(labels: NDArray[Any], nodata: float | None) -> NDArray[np.uint8]:
    return np.where(unlabelled(labels, nodata), IGNORE, labels == 1).astype(np.uint8)
