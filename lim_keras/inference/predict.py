"""A scene to a landslide inventory: checks, windows, maps, polygons, preview and summary, resumable at every step."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lim_keras.data.raster import read_scene_info
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inference.domain import GSD_TOLERANCE, check_brightness, check_scene, gsd_ratio, training_grid
from lim_keras.inference.mapping import Watcher, predict_maps
from lim_keras.inference.options import PredictOptions, identity
from lim_keras.inference.outputs import SceneModel
from lim_keras.inference.rasters import gdal_settings, maps_on_scene, write_rasters
from lim_keras.inference.scene import Grid, SceneReader
from lim_keras.inference.summary import summarise
from lim_keras.inventory import polygonise, write_inventory
from lim_keras.report.preview import draw_preview


@dataclass(frozen=True)
class ScenePrediction:
    """What was written for a scene, and what it says. summary: the content of `<scene>_summary.json`."""

    scene: Path
    files: tuple[Path, ...]
    summary: dict[str, Any]
    was_there: bool = False


def predict_scene(
    model: SceneModel,
    scene: Path,
    out_dir: Path,
    options: PredictOptions | None = None,
    *,
    watcher: Watcher | None = None,
) -> ScenePrediction:
    """Map the landslides of one scene.

    Args:
        model: such as `lim_keras.export.bundle.load_bundle` gives.
        scene: a raster of any size.
        out_dir: gets `<scene>_probability.tif`, `<scene>_landslides.tif`, `<scene>_inventory.gpkg`,
            `<scene>_preview.png` and `<scene>_summary.json`, each whole or not at all. A scene whose summary says that
            it was made with the same settings is not predicted again; one that was cut off goes on.
        options: what is asked.
        watcher: told of the progress.

    Raises:
        DataError: the scene cannot be used with this model, or a file cannot be read or written.

    Warns:
        DomainWarning: the scene is far from what the model was trained on.
    """
    options = options or PredictOptions()
    task = _Task(model, scene, out_dir, options)
    finished = task.finished()
    if finished is not None:
        return finished
    with warnings.catch_warnings(record=True) as caught, gdal_settings():
        warnings.simplefilter("always", LimKerasWarning)
        result = task.run(watcher, lambda: [str(one.message) for one in caught])
    for one in caught:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return result


class _Task:
    """One scene on its way."""

    def __init__(self, model: SceneModel, scene: Path, out_dir: Path, options: PredictOptions) -> None:
        self._model, self._scene, self._out, self._options = model, scene, out_dir, options
        self._info = read_scene_info(scene)
        if self._info.gsd_m is None and options.gsd_m is not None:
            self._info = replace(self._info, gsd_m=options.gsd_m)
        self._identity = identity(scene, model.info, options)
        self._work = out_dir / f".{scene.stem}.partial"

    def path(self, ending: str) -> Path:
        return self._out / f"{self._scene.stem}_{ending}"

    @property
    def threshold(self) -> float:
        chosen = self._options.threshold
        return self._model.info.threshold if chosen is None else chosen

    def finished(self) -> ScenePrediction | None:
        """The result of an earlier call with the same settings whose files are all there."""
        try:
            summary: dict[str, Any] = json.loads(self.path("summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        files = tuple(self._out / name for name in summary.get("files", ()))
        same = summary.get("identity") == self._identity and all(file.exists() for file in files)
        return ScenePrediction(self._scene, files, summary, was_there=True) if same else None

    def run(self, watcher: Watcher | None, caught: Callable[[], list[str]]) -> ScenePrediction:
        started = time.monotonic()
        options, info = self._options, self._info
        ratio = gsd_ratio(self._scene, info.gsd_m, self._model.info)
        grid = self._training_grid(ratio)
        _make_folder(self._out)
        self.path("summary.json").unlink(missing_ok=True)
        reader = SceneReader(self._scene, bands=options.bands, nodata=options.nodata, grid=grid)
        with reader:
            check_scene(reader.info, self._model.info, options.scale)
            check_brightness(reader, self._model.info, options.scale)
            numbers = tuple(reader.bands)
            vrt, predicted = predict_maps(
                self._model, reader, self._work, options=options, identity=self._identity, watcher=watcher
            )
        seconds = {"predict": time.monotonic() - started}
        maps = maps_on_scene(vrt, info, grid is not None)
        files = {"probability": self.path("probability.tif"), "landslides": self.path("landslides.tif")}
        counts = write_rasters(
            maps,
            files["probability"],
            files["landslides"],
            threshold=self.threshold,
            kind=options.probability,
            spread=options.spread,
        )
        seconds["rasters"] = time.monotonic() - started - seconds["predict"]
        inventory = polygonise(
            files["landslides"],
            maps=maps,
            folds=self._model.info.folds,
            dem=options.dem,
            options=options.inventory,
            gsd_m=info.gsd_m,
        )
        for kind in dict.fromkeys(("gpkg", *options.formats)):
            files[kind] = write_inventory(inventory, self.path(f"inventory.{kind}"))
        files["preview"] = draw_preview(
            self._scene, inventory.frame, self.path("preview.png"), bands=_shown_bands(numbers), gsd_m=info.gsd_m
        )
        seconds["all"] = time.monotonic() - started
        summary = summarise(
            self._scene, info, self._model.info, self._options, self.threshold, counts, inventory, predicted, seconds
        )
        summary |= {"warnings": caught(), "files": [path.name for path in files.values()], "identity": self._identity}
        _write_json(self.path("summary.json"), summary)
        shutil.rmtree(self._work, ignore_errors=True)
        return ScenePrediction(self._scene, (*files.values(), self.path("summary.json")), summary)

    def _training_grid(self, ratio: float | None) -> Grid | None:
        """Where a scene is resampled to: nowhere, if its ground sample distance is near enough."""
        wanted, gsd_m = self._model.info.gsd_m, self._info.gsd_m
        if not self._options.resample:
            return None
        if ratio is None or wanted is None or gsd_m is None:
            raise DataError(
                f"{self._scene}: --resample needs the ground sample distances of the scene and of the bundle. "
                f"Received: {gsd_m} m and {wanted} m. Say that of the scene with --gsd."
            )
        near = 1 / GSD_TOLERANCE <= ratio <= GSD_TOLERANCE
        return None if near else training_grid(self._info, gsd_m, wanted)


def _shown_bands(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(numbers[:3]) if len(numbers) >= 3 else (numbers[0],) * 3


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Give another folder with --out.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
