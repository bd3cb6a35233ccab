"""Map the landslides of one scene."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

from lim_keras.bundle.protocol import DescribedModel
from lim_keras.errors import LimKerasWarning
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.scene_parts import MissingStrips
from lim_keras.inventory.scene_prediction import DEFAULT_EXECUTION, Execution, ScenePrediction
from lim_keras.inventory.scene_task import SceneTask
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader, RasterSource


def predict_scene(
    model: DescribedModel,
    scene: RasterSource,
    out_dir: Path,
    options: PredictOptions | None = None,
    *,
    execution: Execution = DEFAULT_EXECUTION,
) -> ScenePrediction:
    """Map the landslides of one scene.

    Args:
        model: loaded model; `lim_keras.inventory.scene_parts.UnloadedModel` is enough for `merge` and `workers`.
        out_dir: gets `<scene>_probability.tif`, `<scene>_landslides.tif`, `<scene>_inventory.gpkg`,
            `<scene>_inventory.qml` (QGIS style), `<scene>_preview.png`, `<scene>_stac.json` and `<scene>_summary.json`,
            each atomically. A scene whose summary has the same options is not predicted again; one that was interrupted
            is resumed. With `part`, only the working folder in it gets files.

    Raises:
        ConfigError: an option needs something that the scene lacks.
        DataError: the scene cannot be used with this model, or a file cannot be read or written.

    Warns:
        DomainWarning: the scene differs from the training data.
    """
    options = options or PredictOptions()
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as reader:
        reader.keep_in(out_dir)
        task = SceneTask(model, reader, out_dir, options, execution)
        return task.finished() or task.run()


def is_finished(
    model: DescribedModel, scene: RasterSource, out_dir: Path, options: PredictOptions, *, preview: bool
) -> bool:
    """Return whether an earlier call with the same options wrote all files of a scene; errors as in `predict_scene`."""
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as reader:
        return SceneTask(model, reader, out_dir, options).is_finished(preview)


def scene_identity(
    model: DescribedModel, scene: RasterSource, out_dir: Path, options: PredictOptions
) -> tuple[str, Path | str]:
    """Compute the hash of all inputs of a scene's files (see `identity`), and return its path, too."""
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as reader:
        return SceneTask(model, reader, out_dir, options).identity, reader.path


def find_missing(
    model: DescribedModel, scene: RasterSource, out_dir: Path, options: PredictOptions, *, preview: bool
) -> MissingStrips | None:
    """Find what is missing of a scene before `merge`.

    Returns:
        None if nothing is missing, or the scene is finished or cannot be used; `predict_scene` says why.

    Raises:
        DataError: the parts were made with other settings, or their plan is damaged.
    """
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `predict_scene` warns
        try:
            reader = stack.enter_context(RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m))
            task = SceneTask(model, reader, out_dir, options)
            if task.is_finished(preview):
                return None
            task.check()
        except Exception:  # the scene cannot be used; its own prediction says so
            return None
        return task.missing()
