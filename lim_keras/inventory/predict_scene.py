"""Map the landslides of one scene."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas

from lim_keras.bundle.info import STAC_FILE
from lim_keras.bundle.protocol import SceneModel
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import make_folder, write_text
from lim_keras.inference.domain import (
    check_brightness,
    check_pages,
    check_place,
    check_scene,
    check_validity,
    reading_grid,
)
from lim_keras.inference.predict_maps import predict_maps
from lim_keras.inventory.landslides import Inventory, PredictOptions, check_inventory, identity, make_inventory
from lim_keras.inventory.outputs import describe_inventory, summarise, write_inventory, write_style
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Grid
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader, RasterSource
from lim_keras.raster.writer import Counts, maps_on_scene, write_rasters

# File systems allow names of 255 bytes, of which endings and drafts take up to 35; SQLite allows paths of 512.
_NAME_BYTES, _PATH_BYTES = 220, 512
_DRAFT_BYTES = 32  # length of what `atomic_file` adds to the name of a draft

DrawPreview = Callable[..., object]
"""Function that draws a scene with its landslides into a file, such as `lim_keras.report.preview.draw_preview`."""


@dataclass(frozen=True)
class ScenePrediction:
    """Result of `predict_scene`.

    Attributes:
        scene: the raster; a string where it is a URL or a GDAL name.
        files: what was written.
        summary: content of `<scene>_summary.json`.
        was_there: an earlier call with the same options wrote the files.
    """

    scene: Path | str
    files: tuple[Path, ...]
    summary: dict[str, Any]
    was_there: bool = False

    @cached_property
    def inventory(self) -> geopandas.GeoDataFrame:
        """Landslides, one row each, read from the GeoPackage on first access."""
        return geopandas.read_file(next(file for file in self.files if file.suffix == ".gpkg"))


def predict_scene(
    model: SceneModel,
    scene: RasterSource,
    out_dir: Path,
    options: PredictOptions | None = None,
    *,
    draw_preview: DrawPreview | None = None,
    progress: ProgressCallback | None = None,
) -> ScenePrediction:
    """Map the landslides of one scene.

    Args:
        out_dir: gets `<scene>_probability.tif`, `<scene>_landslides.tif`, `<scene>_inventory.gpkg`,
            `<scene>_inventory.qml` (QGIS style), `<scene>_preview.png`, `<scene>_stac.json` and `<scene>_summary.json`,
            each atomically. A scene whose summary has the same options is not predicted again; one that was interrupted
            is resumed.
        draw_preview: draws the preview; None: there is none.
        progress: receives the number of predicted pixels.

    Raises:
        ConfigError: an option needs something that the scene lacks.
        DataError: the scene cannot be used with this model, or a file cannot be read or written.

    Warns:
        DomainWarning: the scene differs from the training data.
    """
    options = options or PredictOptions()
    bands, nodata, gsd_m = options.bands, options.nodata, options.gsd_m
    with gdal_settings(), RasterReader(scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as reader:
        task = _SceneTask(model, reader, out_dir, options, draw_preview)
        return task.finished() or task.run(progress)


def read_summary(path: Path) -> dict[str, Any]:
    """Read a `<scene>_summary.json`; empty where it is missing or holds something else."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return dict(content) if isinstance(files, list) and all(isinstance(name, str) for name in files) else {}


class _SceneTask:
    """Prediction of one scene. Files are drafts in a working folder until all of them are complete."""

    def __init__(
        self,
        model: SceneModel,
        reader: RasterReader,
        out_dir: Path,
        options: PredictOptions,
        draw_preview: DrawPreview | None,
    ) -> None:
        self._model, self._reader, self._out, self._options = model, reader, out_dir, options
        self._draw_preview = draw_preview
        self._identity = identity(reader, model.info, options)
        self._work = out_dir / f".{reader.stem}.partial"
        self._warnings: list[str] = []

    def _path(self, ending: str) -> Path:
        return self._out / f"{self._reader.stem}_{ending}"

    def _draft(self, ending: str) -> Path:
        return self._work / self._path(ending).name

    def finished(self) -> ScenePrediction | None:
        """Return the result of an earlier call with the same options, if all of its files are there."""
        summary = read_summary(self._path("summary.json"))
        files = tuple(self._out / name for name in summary.get("files", ()))
        complete = all(file.exists() for file in files)
        if self._draw_preview is not None:
            complete &= self._path("preview.png") in files
        same = summary.get("identity") == self._identity and complete
        return ScenePrediction(self._reader.path, files, summary, was_there=True) if same else None

    def run(self, progress: ProgressCallback | None) -> ScenePrediction:
        """Predict the maps, make all other files from them, and move the files to their final paths."""
        laps = [time.monotonic()]
        info, options = self._reader.info, self._options
        self._check_lengths()
        with self._recorded_warnings():
            check_inventory(info, options)
            grid = reading_grid(info, self._model.info, options.resample)
            check_scene(self._reader, self._model.info, options.scale)
            check_pages(self._reader)
            validity = check_validity(self._reader)
        make_folder(self._out, "out")
        maps, windows = self._predict(grid, progress)
        laps.append(time.monotonic())
        if grid is not None:
            maps = maps_on_scene(maps, self._reader)
        with self._recorded_warnings():
            counts, inventory, drafts = self._derive(maps)
        laps.append(time.monotonic())
        seconds = {"predict": laps[1] - laps[0], "inventory": laps[2] - laps[1], "all": laps[2] - laps[0]}
        run = {"windows": windows, "seconds": seconds}
        summary = summarise(info, self._model.info, options=options, counts=counts, inventory=inventory, run=run)
        names = [*(draft.name for draft in drafts), self._path("stac.json").name]
        summary |= {"validity": validity, "warnings": self._warnings, "files": names, "identity": self._identity}
        drafts += self._write_documents(summary, [*names[:-1], self._path("summary.json").name])
        files = self._put_in_place(drafts)
        shutil.rmtree(self._work, ignore_errors=True)
        return ScenePrediction(self._reader.path, files, summary)

    def _check_lengths(self) -> None:
        """Refuse names that are too long for the files of the results."""
        scene = self._reader.name
        if (length := len(os.fsencode(self._reader.stem))) > _NAME_BYTES:
            raise DataError(
                f"{scene}: expected a name of at most {_NAME_BYTES} bytes without its suffix, because files are named "
                f"after it. Received: {length} bytes. Rename it."
            )
        longest = os.path.realpath(self._draft("inventory.gpkg-journal"))
        if (length := len(os.fsencode(longest)) + _DRAFT_BYTES) > _PATH_BYTES:
            raise DataError(
                f"{scene}: expected paths of results of at most {_PATH_BYTES} bytes, as GeoPackages need. Received: "
                f"{length} bytes. Rename the scene, or give a folder of a shorter path."
            )

    @contextmanager
    def _recorded_warnings(self) -> Iterator[None]:
        """Record warnings for the summary. Issue them at the end of the block, also after an error."""
        caught: list[warnings.WarningMessage] = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", LimKerasWarning)
                yield
        finally:
            self._warnings += [str(one.message) for one in caught]
            for one in caught:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _predict(self, grid: Grid | None, progress: ProgressCallback | None) -> tuple[Path, dict[str, Any]]:
        """Predict the maps; return their VRT and the layout of the windows."""
        options, model = self._options, self._model
        with self._reader.on_grid(grid) if grid else nullcontext(self._reader) as reader:
            with self._recorded_warnings():
                check_place(self._reader)
                check_brightness(reader, model.info, options.scale)
            same = identity(self._reader, model.info, options, of_maps=True)
            return predict_maps(model, reader, self._work, options=options, identity=same, progress=progress)

    def _derive(self, maps: Path) -> tuple[Counts, Inventory, list[Path]]:
        """Write rasters, inventory and preview as drafts."""
        options, model, reader = self._options, self._model.info, self._reader
        probability, landslides, preview = map(self._draft, ("probability.tif", "landslides.tif", "preview.png"))
        threshold = model.threshold if options.threshold is None else options.threshold
        kind, spread = options.probability, options.spread
        counts = write_rasters(maps, probability, landslides, threshold=threshold, kind=kind, spread=spread)
        inventory = make_inventory(
            landslides, maps=maps, folds=model.folds, options=options, gsd_m=reader.info.gsd_m, scene=reader.path
        )
        kinds = dict.fromkeys(("gpkg", *options.formats))
        drafts = [write_inventory(inventory, self._draft(f"inventory.{kind}")) for kind in kinds]
        drafts.append(write_style(self._draft("inventory.qml")))
        if self._draw_preview is not None:
            bands = reader.bands[:3] if len(reader.bands) >= 3 else reader.bands[:1] * 3
            self._draw_preview(reader, inventory.frame, preview, bands=bands, gsd_m=reader.info.gsd_m)
            drafts.append(preview)
        return counts, inventory, [probability, landslides, *drafts]

    def _write_documents(self, summary: dict[str, Any], files: Sequence[str]) -> list[Path]:
        info, bundle = self._reader.info, _bundle_folder(self._model)
        item = describe_inventory(info, summary, files=files, folder=self._out, bundle=bundle)
        contents = {"stac.json": item, "summary.json": summary}
        return [_write_json(self._draft(ending), content) for ending, content in contents.items()]

    def _put_in_place(self, drafts: Sequence[Path]) -> tuple[Path, ...]:
        """Move all drafts to their final paths, the summary last: it marks the scene as finished."""
        last = self._path("summary.json")
        before = {name for name in read_summary(last).get("files", ()) if Path(name).name == name}
        stale = {name for name in before if name.startswith(self._path("").name)} - {one.name for one in drafts}
        try:
            for path in (*(self._out / name for name in stale), last):
                path.unlink(missing_ok=True)
            return tuple(draft.replace(self._out / draft.name) for draft in drafts)
        except OSError as error:
            raise DataError(
                f"{error.filename2 or error.filename}: cannot be replaced ({error.strerror}). The prediction "
                "is kept: remove that file or repair the folder, and repeat the call."
            ) from error


def _bundle_folder(model: SceneModel) -> Path | None:
    """Return the folder that holds a model's files and its STAC item; None where there is none."""
    path = getattr(model, "path", None)
    folders = () if path is None else (path, *path.parents[:2])  # a LiteRT file lies in <bundle>/tflite
    return next((folder for folder in folders if (folder / STAC_FILE).is_file()), None)


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
