"""Scene protocol: evaluate a mapped scene against mapped landslides."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
from geopandas import GeoDataFrame
from numpy.typing import NDArray

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.bundle.protocol import SceneModel
from lim_keras.config import EvaluationSection
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Evaluation, Prediction, Sample, evaluate
from lim_keras.evaluation.evaluator import DEFAULTS, Gallery
from lim_keras.evaluation.truth import Labels, open_labels, read_truth
from lim_keras.evaluation.unchanged import unchanged
from lim_keras.inference.domain import check_pages, check_scene, check_validity, known_scale, reading_grid
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.inventory.attributes import polygon_areas_m2
from lim_keras.inventory.landslides import MaskSource, make_inventory
from lim_keras.inventory.object_rule import leave_out_regions
from lim_keras.inventory.options import PredictOptions, regions_rule
from lim_keras.metrics.calibration import everywhere
from lim_keras.metrics.detections import Detections, match_polygons, overlapping
from lim_keras.progress import ProgressCallback
from lim_keras.raster.coordinates import check_coordinates
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import NO_LABEL, RasterReader, RasterSource
from lim_keras.raster.windows import blocks
from lim_keras.raster.writer import RasterDrafts, copy_blocks, maps_on_scene
from lim_keras.vectors.geometries import clean_polygons

BLOCK = 512
"""Height and width of the blocks that the bootstrap resamples, pixels; larger than most landslides."""


@dataclass(frozen=True, slots=True)
class SceneResult:
    """Scores of a scene by pixel, its best and worst blocks, and scores by polygon.

    rule: object rule of the polygons; None: every region is one. Pixels are scored at the model's threshold.
    """

    evaluation: Evaluation
    gallery: Gallery
    detections: Detections
    rule: ObjectRule | None = None


@dataclass(frozen=True, slots=True)
class SceneMatches:
    """Mapped and predicted landslides of a scene, single polygons in its CRS.

    Attributes:
        mapped, predicted: polygons.
        found, right: which of them share area with one of the others, (n,) and (m,) bool.
        detections: scores by polygon.
    """

    mapped: geopandas.GeoSeries
    predicted: geopandas.GeoSeries
    found: NDArray[np.bool_]
    right: NDArray[np.bool_]
    detections: Detections


def evaluate_scene(
    model: SceneModel,
    scene: RasterSource,
    truth: str | os.PathLike[str],
    *,
    settings: EvaluationSection = DEFAULTS,
    options: MapOptions | None = None,
    choice: PredictOptions | None = None,
    progress: ProgressCallback | None = None,
) -> SceneResult:
    """Map a scene and compare it with its truth, on the scene's own grid and at the model's threshold.

    Pixels without data or without a label do not count. Predicted polygons are made as for an inventory, with the
    object rule that `choice` names, by default the working point "balanced" if the bundle has one. `truth` and errors
    are as in `lim_keras.evaluate_scene`.
    """
    options, truth, threshold = options or MapOptions(), Path(truth), model.info.threshold
    with (
        gdal_settings(),
        tempfile.TemporaryDirectory(prefix="lim_keras_") as folder,
        RasterReader(scene, bands=options.bands, nodata=options.nodata, gsd_m=options.gsd_m) as reader,
        unchanged(reader, truth),
    ):
        regions_rule(choice, model.info)  # an error comes before the prediction
        options = replace(options, scale=known_scale(reader, model.info, options.scale))
        check_coordinates(reader.info)
        check_scene(reader, model.info, options.scale)
        check_pages(reader)
        check_validity(reader)
        gsd_m, mapped = reader.info.gsd_m, read_truth(truth, reader.info)
        with open_labels(truth, mapped, reader.info) as labels:
            maps = _predict(model, reader, Path(folder), options, progress)
            rule = regions_rule(choice, model.info, gsd_m=gsd_m)
            mask = _labelled_mask(maps, Path(folder), rule or ObjectRule(threshold=threshold), labels, gsd_m)
            inventory = make_inventory(mask, maps=maps, folds=model.info.folds, gsd_m=gsd_m)
            gallery = Gallery(threshold)
            predictions = gallery.watch(scene_predictions(maps, reader, labels))
            evaluation = evaluate(predictions, "scene", threshold, draws=settings.bootstrap)
    return SceneResult(evaluation, gallery, score_detections(inventory.frame, mapped, gsd_m=gsd_m), rule)


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


def _labelled_mask(maps: Path, folder: Path, rule: ObjectRule, labels: Labels, gsd_m: float | None) -> Path:
    """Write the landslide mask; pixels without a label are ignored, because they cannot be scored."""
    names = folder / "probability.tif", folder / "landslides.tif"
    with RasterDrafts(maps, *names, threshold=rule.threshold) as drafts:
        leave_out_regions(drafts, MaskSource(mask=drafts.mask, maps=maps, gsd_m=gsd_m, folder=folder), rule)
        return _without_unlabelled(drafts.mask, folder, labels)


def _without_unlabelled(mask: Path, folder: Path, labels: Labels) -> Path:
    """Copy a mask; pixels without a label become pixels without data."""
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


def match_mask(mask: Path, scene: RasterReader, truth: Path) -> SceneMatches:
    """Compare the landslides of a predicted mask with the mapped ones. Pixels without a label do not count.

    Args:
        mask: mask on the scene's grid, 1 landslide, 0 background, 255 no data.
        scene: the scene.
        truth: its mapped landslides, see `read_truth`.
    """
    mapped, gsd_m = read_truth(truth, scene.info), scene.info.gsd_m
    with (
        tempfile.TemporaryDirectory(prefix="lim_keras_") as folder,
        open_labels(truth, mapped, scene.info) as labels,
    ):
        labelled = _without_unlabelled(mask, Path(folder), labels)
        predicted = make_inventory(labelled, gsd_m=gsd_m).frame
    return match_landslides(predicted, mapped, gsd_m=gsd_m)


def score_detections(predicted: GeoDataFrame, truth: GeoDataFrame, *, gsd_m: float | None = None) -> Detections:
    """Score predicted landslides; see `match_landslides`."""
    return match_landslides(predicted, truth, gsd_m=gsd_m).detections


def match_landslides(predicted: GeoDataFrame, truth: GeoDataFrame, *, gsd_m: float | None = None) -> SceneMatches:
    """Compare predicted and mapped landslides; each part of a multi-polygon counts as a landslide.

    Args:
        predicted: polygons in the scene's CRS; without CRS, in the scene's own coordinates.
        truth: polygons; reprojected if they are in another CRS, and repaired (LimKerasWarning) if they are invalid.
        gsd_m: size of a pixel in metres where there is no CRS; None: no area classes.
    """
    mapped = clean_polygons(_in_crs_of(predicted, truth), "truth")
    found = clean_polygons(predicted.geometry, "predicted")
    shapes = mapped.to_numpy(), found.to_numpy()
    areas = polygon_areas_m2(mapped, gsd_m), polygon_areas_m2(found, gsd_m)
    return SceneMatches(mapped, found, *overlapping(*shapes), match_polygons(*shapes, *areas))


def _in_crs_of(predicted: GeoDataFrame, truth: GeoDataFrame) -> geopandas.GeoSeries:
    if predicted.empty or truth.empty or predicted.crs == truth.crs:
        return truth.geometry
    if predicted.crs is None or truth.crs is None:
        raise DataError(
            "Expected `predicted` and `truth` both with a CRS, or both without. "
            f"Received: {predicted.crs and predicted.crs.name} and {truth.crs and truth.crs.name}."
        )
    return truth.geometry.to_crs(predicted.crs)
