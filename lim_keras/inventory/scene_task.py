"""Prediction of one scene: checks, maps, all other files, and what earlier calls left of it."""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lim_keras.bundle.familiarity import MissingLibraryError, load_familiarity
from lim_keras.bundle.protocol import DescribedModel, SceneModel, runtime_of
from lim_keras.errors import DataError, LimKerasError, LimKerasWarning
from lim_keras.files import StrPath, make_folder
from lim_keras.inference.domain import (
    check_brightness,
    check_pages,
    check_place,
    check_scene,
    check_validity,
    known_scale,
    reading_grid,
)
from lim_keras.inference.familiarity import FamiliarityMap, SceneFamiliarity, map_familiarity, scene_familiarity
from lim_keras.inference.maps import InputScaling
from lim_keras.inference.predict_maps import no_data, predict_maps
from lim_keras.inference.scene_plan import ScenePart, hash_of, map_facts
from lim_keras.inference.window_plan import MemoryLimitError
from lim_keras.inventory.options import (
    PredictOptions,
    check_familiarity,
    check_inventory,
    identity,
    warn_of_missing_area,
    with_rule,
)
from lim_keras.inventory.result_files import ResultFiles, check_names, files_read, result_endings
from lim_keras.inventory.scene_parts import (
    WHOLE,
    MissingStrips,
    SceneParts,
    known_runtime,
    refuse_missing,
    refuse_server,
)
from lim_keras.inventory.scene_prediction import DEFAULT_EXECUTION, Execution, ScenePrediction
from lim_keras.ownership import refusal
from lim_keras.raster.coordinates import check_coordinates
from lim_keras.raster.georeference import Grid
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.remote_names import public_name
from lim_keras.raster.writer import maps_on_scene

if TYPE_CHECKING:
    from lim_keras.inventory.scene_files import SceneFiles

_LATER = "lim_keras.inventory.scene_files"
"""Module of the files of a scene. It is imported while the scene is predicted, as its libraries take half a second."""


class SceneTask:
    """Prediction of one scene. Files are drafts in a working folder until all of them are complete."""

    def __init__(
        self,
        model: DescribedModel,
        reader: RasterReader,
        out_dir: Path,
        options: PredictOptions,
        execution: Execution = DEFAULT_EXECUTION,
    ) -> None:
        self._given = options
        options = replace(
            with_rule(options, model.info, gsd_m=reader.info.gsd_m),
            scale=known_scale(reader, model.info, options.scale),
        )
        check_familiarity(options, model)
        self._files = ResultFiles(out_dir, reader.stem)
        model = known_runtime(model, self._files, execution.workers)
        self._execution, self._workers = execution, execution.workers
        self._model, self._reader, self._out, self._options = model, reader, out_dir, options
        self.identity = identity(reader, model, options)
        self._warnings: list[str] = []
        self._familiarity: SceneFamiliarity | None = None
        self._familiarity_map: FamiliarityMap | None = None
        self._begun = self._complete = False  # the working folder was made; it holds all maps

    def is_finished(self, preview: bool) -> bool:
        """Return whether an earlier call with the same options wrote all files, and all of them exist."""
        summary = self._files.summary
        names = summary.get("files", [])
        drawn = not preview or self._files.name("preview.png") in names
        same = summary.get("identity") == self.identity and "sha256" in summary
        return same and drawn and all((self._out / name).exists() for name in names)

    def finished(self) -> ScenePrediction | None:
        """Return the result of an earlier call with the same options; warn of files that changed since.

        Raises:
            DataError: a file cannot be read to its end.
        """
        if not self.is_finished(preview=self._execution.has_preview):
            return None
        from lim_keras.inventory.verify import verify_result

        changed = self._files.edited
        for path in changed:
            try:
                verify_result(path)
            except OSError as error:
                raise DataError(
                    f"{path}: damaged since it was written ({error.strerror or error}). Delete it, and repeat the call."
                ) from error
        if changed:
            listed = ", ".join(f"{path.name} ({why})" for path, why in changed.items())
            warnings.warn(
                f"{self._out}: files that changed after the prediction are kept: {listed}.",
                LimKerasWarning,
                stacklevel=3,
            )
        self._files.remove_work()
        summary = self._files.summary
        files = tuple(self._out / name for name in summary["files"])
        return ScenePrediction(self._reader.path, files, summary, was_there=True)

    def run(self) -> ScenePrediction:
        """Predict the maps, make all other files from them, and move the files to their final paths.

        Raises:
            DataError: the scene, the elevation model or the folder changed meanwhile, or a file cannot be read or
                written.
        """
        try:
            return self._run()
        except MemoryLimitError:
            self._files.discard_work()  # nothing is predicted yet
            raise
        except Exception as error:
            self._check_unchanged(error)
            lost = self._begun and self._files.are_maps_lost(complete=self._complete)
            self._files.remove_empty_work()
            if lost:
                raise DataError(
                    f"{self._out}: the folder, or a part of it, was removed or moved during the call. Repeat the call."
                ) from error
            raise

    def _run(self) -> ScenePrediction:
        laps = [time.monotonic()]
        grid = self.check()
        if self._options.part is not None:
            return self._make_part(grid, self._options.part)
        with self._recorded_warnings():
            validity = check_validity(self._reader)
        make_folder(self._out, "out")
        maps, windows, seconds = self._predict(grid)
        self._complete = True
        laps.append(time.monotonic())
        if grid is not None:
            maps = maps_on_scene(maps, self._reader)
        with self._recorded_warnings(), self._prediction_kept():
            made = self._write_files(maps)
        laps.append(time.monotonic())
        predicted = laps[1] - laps[0] + seconds
        took = {"predict": predicted, "inventory": laps[2] - laps[1], "all": predicted + laps[2] - laps[1]}
        summary = self._summarise(made, {"windows": windows, "seconds": took})
        summary |= {"validity": validity, "warnings": self._warnings, "identity": self.identity}
        with self._prediction_kept():
            summary, drafts = self._write_documents(summary, made.drafts)
            self._check_unchanged()
            files = self._files.put_in_place(drafts, summary["sha256"])
        return ScenePrediction(self._reader.path, files, summary)

    def check(self) -> Grid | None:
        """Check whether the scene can be mapped; return the grid on which it is read, None for its own."""
        info, options = self._reader.info, self._options
        check_names(self._reader, self._files)
        self._check_files()
        check_coordinates(info)
        with self._recorded_warnings():
            check_inventory(info, options)
            warn_of_missing_area(info, self._model.info, self._given)
            grid = reading_grid(info, self._model.info, options.resample)
            check_scene(self._reader, self._model.info, options.scale)
            check_pages(self._reader)
        return grid

    @cached_property
    def _parts(self) -> SceneParts:
        facts = map_facts(self._reader, self._model.info, runtime_of(self._model), self._options)
        return SceneParts(self._model, self._reader, self._options, self._files.work, facts, self._workers)

    def missing(self) -> MissingStrips | None:
        """Find what no part holds; errors as in `SceneParts.missing`."""
        return self._parts.missing()

    def _make_part(self, grid: Grid | None, part: ScenePart) -> ScenePrediction:
        """Make the parts that fall to a share, and no final file."""
        refuse_server(self._model)
        make_folder(self._out, "out")
        self._check_pixels(grid)
        plan = self._parts.ready_plan(grid)
        if not plan.regions:
            raise no_data(self._reader)
        self._begun = True
        made = self._parts.make(cast("SceneModel", self._model), plan, part, self._execution.progress)
        facts = {"part": str(part), "strips": made.strips, "made": made.made}
        return ScenePrediction(self._reader.path, made.files, facts)

    def _check_pixels(self, grid: Grid | None) -> None:
        with self._reader.on_grid(grid) if grid else nullcontext(self._reader) as reader, self._recorded_warnings():
            check_place(self._reader)
            check_brightness(reader, self._model.info, self._options.scale)

    def _measure_familiarity(self, grid: Grid | None) -> None:
        try:
            known, info = load_familiarity(self._model), self._model.info
        except MissingLibraryError as error:
            if self._options.familiarity:
                raise
            with self._recorded_warnings():  # a merge needs no library
                warnings.warn(
                    f"{self._reader.name}: its familiarity is not measured. {error}", LimKerasWarning, stacklevel=2
                )
            return
        if known is None:
            return
        scaling = InputScaling(info.dtype, tuple(one.mean for one in info.statistics), self._options.scale)
        with self._reader.on_grid(grid) if grid else nullcontext(self._reader) as reader, self._recorded_warnings():
            if self._options.familiarity:
                self._familiarity_map = map_familiarity(known, reader, scaling, self._execution.progress)
                self._familiarity = self._familiarity_map.summary
            else:
                self._familiarity = scene_familiarity(known, reader, scaling)

    def _check_unchanged(self, cause: Exception | None = None) -> None:
        """Delete all drafts and raise DataError if the scene or the elevation model changed since the call began."""
        changed = self._reader.name if self._reader.has_changed() else self._changed_elevations()
        if changed is not None:
            advice = f"Delete the folder {self._files.work}, and make all parts again."
            if self._options.part is None:  # the working folder is not shared with other calls
                self._files.discard_work()
                advice = "Nothing of this prediction is kept. Repeat the call."
            raise DataError(f"{changed}: changed while it was read. {advice}") from cause

    def _changed_elevations(self) -> StrPath | None:
        """Return the elevation model if it changed since the call began."""
        dem = self._options.dem
        if dem is None:
            return None
        try:
            same = identity(self._reader, self._model, self._options) == self.identity
        except LimKerasError:  # a server may be away for a moment
            same = is_remote(dem)
        return None if same else public_name(os.fspath(dem))

    def _check_files(self) -> None:
        """Refuse to replace files of the user, and files that this call reads."""
        inputs = files_read(self._reader.name, self._options.dem, *self._reader.files)
        endings = result_endings(self._options, preview=self._execution.has_preview)
        if found := self._files.clashes([self._files.name(one) for one in endings], inputs):
            raise DataError(refusal(self._out, found, "out"))

    @contextmanager
    def _prediction_kept(self) -> Iterator[None]:
        """Name the final path in errors about a draft, and add that the prediction is kept."""
        drafts = f"{self._files.work}{os.sep}"
        try:
            yield
        except DataError as error:
            if not str(error).startswith(drafts):
                raise
            message = str(error).replace(str(self._files.draft("")), str(self._files.path("")))
            raise DataError(f"{message} The prediction is kept: repeat the command to continue.") from error

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

    def _predict(self, grid: Grid | None) -> tuple[Path, dict[str, Any], float]:
        """Make the maps; return their VRT, the layout of the windows, and the seconds that other calls took for them.

        Parts that earlier calls made are used.
        """
        self._check_pixels(grid)
        options, work, parts, progress = self._options, self._files.work, self._parts, self._execution.progress
        if options.merge or self._workers is not None:
            refuse_server(self._model)
        if options.merge and (missing := parts.missing()):
            refuse_missing(self._out, [(missing, WHOLE)])
        self._measure_familiarity(grid)
        model = cast("SceneModel", self._model)  # only `merge` and `workers` take one that is not loaded
        with ThreadPoolExecutor(1) as pool:
            imported = pool.submit(importlib.import_module, _LATER)
            if options.memory is not None:
                imported.result()  # the libraries count among the memory that is allowed
            if self._workers is not None or parts.plan() is not None:
                plan = parts.ready_plan(grid)
                if not plan.regions:
                    self._files.discard_work()
                    raise no_data(self._reader)
                self._begun = True
                if not options.merge:
                    parts.make(self._model, plan, None, progress)
                return parts.maps(plan)
            make_folder(work)
            self._begun, same = True, hash_of(parts.facts)
            with self._reader.on_grid(grid) if grid else nullcontext(self._reader) as reader:
                return *predict_maps(model, reader, work, options=options, identity=same, progress=progress), 0.0

    def _write_files(self, maps: Path) -> SceneFiles:
        """Write rasters, inventory and preview as drafts."""
        from lim_keras.inventory.scene_files import write_scene_files

        return write_scene_files(
            maps,
            self._reader,
            model=self._model.info,
            options=self._options,
            files=self._files,
            familiarity=self._familiarity_map,
            read_preview=self._execution.read_preview,
        )

    def _summarise(self, made: SceneFiles, run: dict[str, Any]) -> dict[str, Any]:
        from lim_keras.inventory.outputs import summarise

        reader, info = self._reader, self._model.info
        counts, totals = made.counts, made.totals
        summary = summarise(reader.info, info, options=self._options, counts=counts, inventory=totals, run=run)
        summary["runtime"] = runtime_of(self._model)
        summary["familiarity"] = None if self._familiarity is None else self._familiarity.describe()
        if reader.product is not None:
            summary["product"] = reader.product.describe(reader.dataset.descriptions)
        return summary

    def _write_documents(self, summary: dict[str, Any], drafts: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
        """Write STAC item and summary; return the whole summary and all drafts, the summary last."""
        from lim_keras.inventory.scene_files import bundle_folder, write_documents

        info, bundle = self._reader.info, bundle_folder(self._model)
        return write_documents(summary, drafts, info=info, files=self._files, bundle=bundle)
