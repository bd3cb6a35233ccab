"""Parts of a scene's maps, which several calls make, in the scene's working folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import DescribedModel, RemoteModel, SceneModel
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import make_folder
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inference.scene_plan import PARTS, PLAN, ScenePart, ScenePlan, Share, cell_jobs, check_same, make_plan
from lim_keras.inference.strips import (
    PART_PIXELS,
    PartRecord,
    PartTask,
    finished_parts,
    merge,
    missing_strips,
    part_ranges,
)
from lim_keras.inventory.result_files import ResultFiles
from lim_keras.lock import folder_lock
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader

if TYPE_CHECKING:
    from lim_keras.inventory.scene_workers import SceneWorkers

Span = tuple[Fraction, Fraction]
"""Start and stop of a scene in the work of a call, 0..1."""

WHOLE: Span = (Fraction(0), Fraction(1))

_LEAST_PARTS = 64  # of a scene on many machines, if it has as many rows of windows

_SHOWN = 5  # names in an error


@dataclass(frozen=True)
class UnloadedModel:
    """Model of which only the description was read.

    Attributes:
        path: folder of the bundle.
        runtime: library that made the parts; "auto": as the parts say.
    """

    info: BundleInfo
    path: Path
    runtime: str


@dataclass(frozen=True)
class MissingStrips:
    """Strips of a scene that no part holds.

    Attributes:
        pixels: pixels of each strip; None if the scene has no plan.
        runs: the missing strips; each as first, and last + 1.
        counts: numbers of parts, N of K/N, for which the parts that are there were made.
    """

    scene: str
    pixels: NDArray[np.int64] | None
    runs: tuple[tuple[int, int], ...] = ()
    counts: frozenset[int] = frozenset()

    def numbers(self, count: int, span: Span) -> list[int]:
        """Return the parts of `count` whose share holds missing strips."""
        found = []
        for number in range(1, count + 1):
            share = Share.of(number, count).within(*span)
            if share is None:
                continue
            first, last = (0, 0) if self.pixels is None else share.strips(self.pixels)
            if self.pixels is None or any(max(first, run[0]) < min(last, run[1]) for run in self.runs):
                found.append(number)
        return found


def refuse_missing(folder: Path, found: Sequence[tuple[MissingStrips, Span]], counts: Iterable[int] = ()) -> None:
    """Raise DataError if strips are missing; it names the parts to make.

    Args:
        counts: numbers of parts that other scenes of the call were cut into.
    """
    if not found:
        return
    known = {*counts, *(count for missing, _ in found for count in missing.counts)}
    scenes = _listed([missing.scene for missing, _ in found])
    if not known:
        raise DataError(
            f"{folder}: no part of {scenes} is there. Make all parts with `part` 1/N to N/N and otherwise the same "
            "options, then repeat `merge`."
        )
    if len(known) > 1:  # calls with different N made parts
        raise DataError(
            f"{folder}: the strips {_strips(found)} of {scenes} are missing. Repeat all calls with `part`, then that "
            "with `merge`."
        )
    (count,) = known
    numbers = sorted({number for missing, span in found for number in missing.numbers(count, span)})
    parts = _listed([f"{number}/{count}" for number in numbers], 4 * _SHOWN)
    raise DataError(
        f"{folder}: missing or not complete, of {scenes}: {parts}. Run the command with "
        f"{'each of them as `part`' if numbers[1:] else f'`part` {parts}'} and otherwise the same options, then repeat "
        "`merge`."
    )


def _strips(found: Sequence[tuple[MissingStrips, Span]]) -> str:
    return _listed([f"{first}-{last - 1}" for missing, _ in found for first, last in missing.runs])


def _listed(names: Sequence[str], most: int = _SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class MadeParts:
    """Parts of a share that are complete: their files, how many of them this call made, and their strips."""

    files: tuple[Path, ...]
    made: int
    strips: int


@dataclass(frozen=True)
class SceneParts:
    """Parts of a scene.

    Attributes:
        reader: reader on the scene's own grid.
        work: the scene's working folder.
        facts: inputs of the maps, see `lim_keras.inference.scene_plan.map_facts`.
        workers: machines that do the work; None: this process.
    """

    model: DescribedModel
    reader: RasterReader
    options: MapOptions
    work: Path
    facts: Mapping[str, Any]
    workers: SceneWorkers | None = None

    def plan(self) -> ScenePlan | None:
        """Read the plan; None if there is none.

        Raises:
            DataError: it was made for other inputs, or is damaged.
        """
        plan = ScenePlan.read(self.work)
        if plan is not None:
            check_same(plan, self.facts, self.work)
        return plan

    def ready_plan(self, grid: Grid | None) -> ScenePlan:
        """Read the plan, or make it while other calls wait.

        Args:
            grid: grid on which the scene is read; None: its own.

        Raises:
            DataError: as in `plan`.
        """
        make_folder(self.work / PARTS)
        if self.workers is not None:
            self.workers.check_files(self.model, self.reader, self.work)
        plan = self.plan()
        if plan is None:
            with folder_lock(self.work, entry=PLAN, wait=True):
                plan = self.plan() or self._made(grid)
        return plan

    def _made(self, grid: Grid | None) -> ScenePlan:
        cells = None
        if self.workers is not None:
            cells = self.workers.cells(cell_jobs(self.model.info, self.reader, self.options, grid))
        with self.reader.on_grid(grid) if grid else nullcontext(self.reader) as reader:
            plan = make_plan(self.model, reader, self.options, self.facts, warped=grid is not None, cells=cells)
        plan.write(self.work)
        return plan

    def missing(self) -> MissingStrips | None:
        """Find what no part holds; None if all strips are there."""
        plan = self.plan()
        if plan is None:
            return MissingStrips(self.reader.name, None)
        done = finished_parts(self.work, plan)
        runs = missing_strips(done, 0, len(plan.pixels))
        if not runs:
            return None
        counts = frozenset(int(part.share.split("/")[1]) for part in done if "/" in part.share)
        return MissingStrips(self.reader.name, plan.pixels, tuple(runs), counts)

    def make(
        self, model: DescribedModel, plan: ScenePlan, part: ScenePart | None, progress: ProgressCallback | None
    ) -> MadeParts:
        """Make the parts of a share that are missing or damaged.

        Args:
            part: share of the scene; None: the whole scene.
            progress: receives the number of predicted pixels.

        Raises:
            DataError: a file cannot be read or written, or the scene changed meanwhile.
        """
        first, last = (Share() if part is None else part.share).strips(plan.pixels)
        there = [one for one in finished_parts(self.work, plan) if one.first < last and one.last > first]
        whole = [one for one in there if one.is_whole(self.work)]
        for damaged in (one for one in there if one not in whole):
            damaged.delete(self.work)
        pixels = PART_PIXELS if self.workers is None else min(PART_PIXELS, int(plan.pixels.sum()) // _LEAST_PARTS)
        ranges = part_ranges(plan, whole, first, last, pixels=pixels)
        total = int(plan.pixels[first:last].sum())
        todo = sum(int(plan.pixels[one[0] : one[1]].sum()) for one in ranges)
        loaded = cast("SceneModel", model)
        task = PartTask(loaded, self.reader, self.options, plan, self.work, "" if part is None else str(part))
        label = Path(self.reader.name).name if part is None else f"{Path(self.reader.name).name}, part {part}"
        with progress.begin(label, total, total - todo, unit="px") if progress else nullcontext():
            if self.workers is None:
                made = [task.predict(*one, progress) for one in ranges]
            else:
                made = self.workers.predict(model, self.reader, self.options, self.work, ranges, progress)
        files = tuple(self.work / PARTS / one.name for one in sorted([*whole, *made], key=_place))
        return MadeParts(files, len(made), last - first)

    def maps(self, plan: ScenePlan) -> tuple[Path, dict[str, Any], float]:
        """Join all parts; return the VRT of the maps, the layout of the windows, and the seconds of all parts.

        Raises:
            DataError: a part is missing or damaged.
        """
        done = finished_parts(self.work, plan)
        return merge(self.work, plan), plan.layout, sum(part.seconds for part in done)


def _place(part: PartRecord) -> tuple[int, int]:
    return part.first, part.last


def known_runtime(model: DescribedModel, files: ResultFiles, workers: SceneWorkers | None) -> DescribedModel:
    """Give a model that is not loaded, of the runtime "auto", the runtime of a scene's parts or finished files.

    If there are none, it gets that which is the fastest on the machines that will work.
    """
    if not isinstance(model, UnloadedModel) or model.runtime != "auto":
        return model
    plan = ScenePlan.read(files.work)
    runtime = files.summary.get("runtime") if plan is None else plan.facts["runtime"]
    if not runtime and workers is not None:
        runtime = workers.fastest_runtime(model.path)
    return replace(model, runtime=str(runtime or "auto"))


def refuse_server(model: DescribedModel) -> None:
    """Raise ConfigError for a model on a server, whose machines share the work by themselves."""
    if isinstance(model, RemoteModel):
        raise ConfigError("`part`, `merge` and `workers` are not for a model on a server. Give the folder of a bundle.")
