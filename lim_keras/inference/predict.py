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
from lim_keras.files import write_text
from lim_keras.inference.domain import check_brightness, check_place, check_scene, reading_grid
from lim_keras.inference.mapping import Watcher, predict_maps
from lim_keras.inference.options import PredictOptions, identity
from lim_keras.inference.outputs import SceneModel
from lim_keras.inference.rasters import Counts, gdal_settings, maps_on_scene, write_rasters
from lim_keras.inference.scene import Grid, SceneReader
from lim_keras.inference.stac import describe_inventory
from lim_keras.inference.summary import summarise
from lim_keras.inventory import Inventory, polygonise, write_inventory
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
            `<scene>_preview.png`, `<scene>_stac.json` and `<scene>_summary.json`, each whole or not at all. A scene
            whose summary says that it was made with the same settings is not predicted again; one that was cut off
            goes on.
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
        clock = _Clock()
        info = self._info
        grid = reading_grid(info, self._model.info, self._options.resample)
        _make_folder(self._out)
        vrt, windows, bands = self._predict(grid, watcher)
        clock.lap("predict")
        counts, inventory, drafts = self._derive(maps_on_scene(vrt, info, grid is not None), bands)
        clock.lap("inventory")
        model, threshold, seconds = self._model.info, self.threshold, clock.seconds
        summary = summarise(self._scene, info, model, self._options, threshold, counts, inventory, windows, seconds)
        names = [*(draft.name for draft in drafts), self.path("stac.json").name]
        summary |= {"warnings": caught(), "files": names, "identity": self._identity}
        self.path("summary.json").unlink(missing_ok=True)
        files = [draft.replace(self._out / draft.name) for draft in drafts]
        listed = [*(file.name for file in files), self.path("summary.json").name]
        _write_json(self.path("stac.json"), describe_inventory(info, summary, listed, folder=self._out))
        _write_json(self.path("summary.json"), summary)
        shutil.rmtree(self._work, ignore_errors=True)
        written = (*files, self.path("stac.json"), self.path("summary.json"))
        return ScenePrediction(self._scene, written, summary)

    def _predict(self, grid: Grid | None, watcher: Watcher | None) -> tuple[Path, dict[str, Any], tuple[int, ...]]:
        """The maps, how the scene was cut, and the numbers of the bands that were read."""
        options, model = self._options, self._model
        with SceneReader(self._scene, bands=options.bands, nodata=options.nodata, grid=grid) as reader:
            check_scene(reader.info, model.info, options.scale)
            check_place(reader)
            check_brightness(reader, model.info, options.scale)
            same = identity(self._scene, model.info, options, of_maps=True)
            vrt, windows = predict_maps(model, reader, self._work, options=options, identity=same, watcher=watcher)
            return vrt, windows, tuple(reader.bands)

    def _derive(self, maps: Path, bands: Sequence[int]) -> tuple[Counts, Inventory, list[Path]]:
        """Rasters, inventory and preview, all beside the maps: they reach their place together, at the end."""
        options, info = self._options, self._info
        probability, landslides, preview = map(self._draft, ("probability.tif", "landslides.tif", "preview.png"))
        counts = write_rasters(
            maps,
            probability,
            landslides,
            threshold=self.threshold,
            kind=options.probability,
            spread=options.spread,
        )
        folds = self._model.info.folds
        inventory = polygonise(
            landslides, maps=maps, folds=folds, dem=options.dem, options=options.inventory, gsd_m=info.gsd_m
        )
        kinds = dict.fromkeys(("gpkg", *options.formats))
        vectors = [write_inventory(inventory, self._draft(f"inventory.{kind}")) for kind in kinds]
        draw_preview(self._scene, inventory.frame, preview, bands=_shown_bands(bands), gsd_m=info.gsd_m)
        return counts, inventory, [probability, landslides, *vectors, preview]

    def _draft(self, ending: str) -> Path:
        return self._work / self.path(ending).name


class _Clock:
    """Seconds of the parts of a task, and of all of it."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """A part ends."""
        now = time.monotonic()
        self.seconds |= {part: now - self._last, "all": now - self._started}
        self._last = now


def _shown_bands(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(numbers[:3]) if len(numbers) >= 3 else (numbers[0],) * 3


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Give another folder with --out.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
