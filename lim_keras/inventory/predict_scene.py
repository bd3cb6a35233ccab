"""Map the landslides of one scene."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lim_keras.bundle.info import STAC_FILE
from lim_keras.bundle.protocol import SceneModel
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import make_folder, write_text
from lim_keras.inference.domain import check_brightness, check_place, check_scene, reading_grid
from lim_keras.inference.predict_maps import predict_maps
from lim_keras.inventory.landslides import Inventory, check_inventory, polygonise
from lim_keras.inventory.options import PredictOptions, identity
from lim_keras.inventory.scene_outputs import describe_inventory, summarise
from lim_keras.inventory.write import write_inventory, write_style
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader, gdal_settings
from lim_keras.raster.writer import Counts, maps_on_scene, write_rasters
from lim_keras.report.preview import draw_preview

_NAME_BYTES, _PATH_BYTES = 220, 512
"""A scene's name without its ending: drafts have up to 35 more, of the 255 that file systems take. And what SQLite, in
which GeoPackages are written, takes of a path."""


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
    progress: ProgressCallback | None = None,
) -> ScenePrediction:
    """Map the landslides of one scene.

    Args:
        model: such as `lim_keras.bundle.saved_model.load_bundle` gives.
        scene: a raster of any size.
        out_dir: gets `<scene>_probability.tif`, `<scene>_landslides.tif`, `<scene>_inventory.gpkg`,
            `<scene>_inventory.qml` (QGIS style), `<scene>_preview.png`, `<scene>_stac.json` and `<scene>_summary.json`,
            each atomically. A scene whose summary has the same settings is not predicted again; one that was
            interrupted is resumed.
        options: what is asked.
        progress: receives the number of predicted pixels.

    Raises:
        DataError: the scene cannot be used with this model, or a file cannot be read or written.

    Warns:
        DomainWarning: the scene is far from what the model was trained on.
    """
    options = options or PredictOptions()
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as reader:
        task = _Task(model, reader, scene, out_dir, options)
        return task.finished() or task.run(progress)


def read_summary(path: Path) -> dict[str, Any]:
    """Content of a `<scene>_summary.json`; empty where there is none, or where the file holds something else."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return dict(content) if isinstance(files, list) and all(isinstance(name, str) for name in files) else {}


class _Task:
    """One scene on its way."""

    def __init__(
        self, model: SceneModel, reader: RasterReader, scene: Path, out_dir: Path, options: PredictOptions
    ) -> None:
        self._model, self._scene, self._out, self._options = model, scene, out_dir, options
        self._reader, self._info = reader, reader.info
        self._identity = identity(scene, model.info, options)
        self._work = out_dir / f".{scene.stem}.partial"
        self._warnings: list[str] = []

    def path(self, ending: str) -> Path:
        return self._out / f"{self._scene.stem}_{ending}"

    @property
    def threshold(self) -> float:
        chosen = self._options.threshold
        return self._model.info.threshold if chosen is None else chosen

    def finished(self) -> ScenePrediction | None:
        """The result of an earlier call with the same settings whose files are all there."""
        summary = read_summary(self.path("summary.json"))
        files = tuple(self._out / name for name in summary.get("files", ()))
        same = summary.get("identity") == self._identity and all(file.exists() for file in files)
        return ScenePrediction(self._scene, files, summary, was_there=True) if same else None

    def run(self, progress: ProgressCallback | None) -> ScenePrediction:
        clock = _Clock()
        info = self._info
        _check_lengths(self._scene, self._work)
        with self._noting():
            check_inventory(info, self._options, self._options.dem)
            grid = reading_grid(info, self._model.info, self._options.resample)
        make_folder(self._out)
        maps, windows = self._predict(grid, progress)
        clock.lap("predict")
        if grid is not None:
            maps = maps_on_scene(maps, self._reader)
        with self._noting():
            counts, inventory, drafts = self._derive(maps)
        clock.lap("inventory")
        model, threshold, seconds = self._model.info, self.threshold, clock.seconds
        summary = summarise(self._scene, info, model, self._options, threshold, counts, inventory, windows, seconds)
        names = [*(draft.name for draft in drafts), self.path("stac.json").name]
        summary |= {"warnings": self._warnings, "files": names, "identity": self._identity}
        listed = [*(draft.name for draft in drafts), self.path("summary.json").name]
        drafts.append(_write_json(self._draft("stac.json"), self._item(summary, listed)))
        drafts.append(_write_json(self._draft("summary.json"), summary))
        files = self._put_in_place(drafts)
        shutil.rmtree(self._work, ignore_errors=True)
        return ScenePrediction(self._scene, files, summary)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep warnings for the summary, and pass them on when the block ends, in whatever way it does."""
        caught: list[warnings.WarningMessage] = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", LimKerasWarning)
                yield
        finally:
            self._warnings += [str(one.message) for one in caught]
            for one in caught:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _put_in_place(self, drafts: Sequence[Path]) -> tuple[Path, ...]:
        """Give all drafts their places, the summary last: a scene without one is not finished."""
        last = self.path("summary.json")
        before = {name for name in read_summary(last).get("files", ()) if Path(name).name == name}
        stale = {name for name in before if name.startswith(f"{self._scene.stem}_")} - {one.name for one in drafts}
        try:
            for path in (*(self._out / name for name in stale), last):
                path.unlink(missing_ok=True)
            return tuple(draft.replace(self._out / draft.name) for draft in drafts)
        except OSError as error:
            raise DataError(
                f"{error.filename2 or error.filename}: cannot be replaced ({error.strerror}). What is predicted is "
                "kept: remove what is there or mend the folder, and give the same command again."
            ) from error

    def _item(self, summary: dict[str, Any], files: Sequence[str]) -> dict[str, Any]:
        bundle = _bundle_of(self._model)
        return describe_inventory(self._info, summary, files, folder=self._out, bundle=bundle)

    def _predict(self, grid: Grid | None, progress: ProgressCallback | None) -> tuple[Path, dict[str, Any]]:
        """The maps, and how the scene was cut."""
        options, model = self._options, self._model
        with self._reader.on_grid(grid) if grid else nullcontext(self._reader) as reader:
            with self._noting():
                check_scene(reader, model.info, options.scale)
                check_place(reader)
                check_brightness(reader, model.info, options.scale)
            same = identity(self._scene, model.info, options, of_maps=True)
            return predict_maps(model, reader, self._work, options=options, identity=same, progress=progress)

    def _derive(self, maps: Path) -> tuple[Counts, Inventory, list[Path]]:
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
            landslides,
            maps=maps,
            folds=folds,
            dem=options.dem,
            options=options,
            gsd_m=info.gsd_m,
            scene=self._scene,
        )
        kinds = dict.fromkeys(("gpkg", *options.formats))
        vectors = [write_inventory(inventory, self._draft(f"inventory.{kind}")) for kind in kinds]
        vectors.append(write_style(self._draft("inventory.qml")))
        bands = _shown_bands(self._reader.bands)
        draw_preview(self._reader, inventory.frame, preview, bands=bands, gsd_m=info.gsd_m)
        return counts, inventory, [probability, landslides, *vectors, preview]

    def _draft(self, ending: str) -> Path:
        return self._work / self.path(ending).name


def _bundle_of(model: SceneModel) -> Path | None:
    """The folder that holds a model's files and its STAC item; None where the model lies elsewhere or has none."""
    path = getattr(model, "path", None)
    folders = () if path is None else (path, *path.parents[:2])  # a LiteRT file lies in <bundle>/tflite
    return next((folder for folder in folders if (folder / STAC_FILE).is_file()), None)


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


def _check_lengths(scene: Path, work: Path) -> None:
    """Refuse at once what would be too long for a file of results."""
    if (length := len(os.fsencode(scene.stem))) > _NAME_BYTES:
        raise DataError(
            f"{scene}: expected a name of at most {_NAME_BYTES} bytes without its ending, for files are named after "
            f"it. Received: {length} bytes. Rename it."
        )
    draft = "0" * 32  # what `atomic_file` adds to a name
    longest = f"{os.path.realpath(work)}/.{scene.stem}_inventory.{draft}.gpkg-journal"
    if (length := len(os.fsencode(longest))) > _PATH_BYTES:
        raise DataError(
            f"{scene}: expected paths of results of at most {_PATH_BYTES} bytes, as GeoPackages need. Received: "
            f"{length} bytes. Rename the scene, or give a folder of a shorter path with --out."
        )


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
