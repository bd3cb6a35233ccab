"""The scene protocol: a scene is predicted as `lim-keras predict` does it, then scored by pixel and by polygon."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterWindow

from lim_keras.config import EvaluationSection
from lim_keras.data.box import Box
from lim_keras.data.raster import RasterInfo, read_scene_info
from lim_keras.evaluation.baseline import everywhere
from lim_keras.evaluation.detections import Detections, score_detections
from lim_keras.evaluation.gallery import Gallery
from lim_keras.evaluation.scoring import Evaluation, Place, Prediction, evaluate
from lim_keras.evaluation.truth import VECTOR_SUFFIXES, rasterise_block, read_truth, unlabelled
from lim_keras.inference.domain import check_scene, reading_grid
from lim_keras.inference.mapping import Watcher, predict_maps
from lim_keras.inference.options import PredictOptions
from lim_keras.inference.outputs import SceneModel
from lim_keras.inference.rasters import gdal_settings, maps_on_scene, write_rasters
from lim_keras.inference.scene import SceneReader
from lim_keras.inference.windows import plan_windows
from lim_keras.inventory import polygonise

IGNORE = 255
BLOCK = 512
"""A scene is scored in blocks of this many pixels a side: larger than most landslides, to be resampled."""

Labels = Callable[[Box], NDArray[np.uint8]]
"""A box of the scene to its truth: 1 landslide, 0 background, 255 no label."""


@dataclass(frozen=True, slots=True)
class SceneJudged:
    """Scores of a scene by pixel, the blocks to look at, and scores by polygon."""

    evaluation: Evaluation
    gallery: Gallery
    detections: Detections


def judge_scene(
    model: SceneModel,
    scene: Path,
    truth: Path,
    *,
    settings: EvaluationSection,
    seed: int = 2022,
    options: PredictOptions | None = None,
    watcher: Watcher | None = None,
) -> SceneJudged:
    """Predict a scene and compare it with its truth on the scene's own grid, at the model's threshold.

    Pixels without data, or without a label, count nowhere. Polygons are those that the inventory would hold.

    Args:
        model: what predicts.
        scene: the image.
        truth: landslide polygons, or a raster on the scene's grid: 1 landslide, 0 background, 255 or nodata no label.
        settings: number of bootstrap draws.
        seed: of the bootstrap.
        options: how the scene is read, resampled and cut.
        watcher: told of the progress.

    Raises:
        DataError: the scene cannot be used with this model, or the truth not with the scene.

    Warns:
        DomainWarning: the scene's ground sample distance is far from that of training.
    """
    options = options or PredictOptions()
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
        drawn, _ = predict_maps(model, shown, folder, options=options, watcher=watcher)
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
    return SceneJudged(evaluation, gallery, score_detections(found.frame, mapped, gsd_m=info.gsd_m))


def scene_predictions(maps: Path, scene: SceneReader, labels: Labels) -> Iterator[Prediction]:
    """Blocks of a predicted scene with their truth, those without a labelled pixel that holds data left out.

    Args:
        maps: of `lim_keras.inference.rasters.maps_on_scene`.
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
                place = Place(name, kind, "", scene.pixels(box), mask)
                yield Prediction(place, probability[..., 0], everywhere(mask.shape))


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
