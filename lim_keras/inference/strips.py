"""Parts of a scene's maps: strips of windows that any process predicts, and their union as one virtual raster."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from lim_keras.bundle.protocol import TENSORFLOW, SceneModel, runtime_of
from lim_keras.errors import DataError
from lim_keras.files import shared_file, write_text
from lim_keras.inference.domain import known_scale
from lim_keras.inference.freed_memory import return_freed_memory
from lim_keras.inference.map_bands import describe_maps, map_names, map_values
from lim_keras.inference.maps import WindowPrediction
from lim_keras.inference.predict_maps import MapOptions, WindowTask
from lim_keras.inference.scene_plan import PARTS, PLAN, ScenePlan, check_same, map_facts
from lim_keras.ownership import file_hash
from lim_keras.progress import ProgressCallback
from lim_keras.raster.map_part import MapPart
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

PART_PIXELS = 16 * 2**20
"""Pixels from which a part takes no further strip."""

_RECORD = re.compile(r"(\d+)-(\d+)\.json")


@dataclass(frozen=True)
class PartRecord:
    """Record of a finished part of a scene's maps, in a JSON file beside it.

    Attributes:
        identity: that of the plan.
        first, last: the part holds the strips `first`..`last` - 1.
        box: area of the part in pixels of the plan's grid: top, left, bottom, right.
        pixels: number of predicted pixels.
        seconds: time of the prediction.
        bytes, sha256: size and hash of the part's file.
        share: share of the work that it was made for, such as "3/20"; "" if there were none.
        host: machine that made it.
    """

    identity: str
    first: int
    last: int
    box: tuple[int, int, int, int]
    pixels: int
    seconds: float
    bytes: int
    sha256: str
    share: str
    host: str

    @property
    def name(self) -> str:
        """Name of the part's file."""
        return f"{self.first}-{self.last}.tif"

    def is_whole(self, work: Path) -> bool:
        """Return whether the part's file has the recorded content; reads the file."""
        path = work / PARTS / self.name
        try:
            return path.stat().st_size == self.bytes and file_hash(path) == self.sha256
        except OSError:
            return False

    def delete(self, work: Path) -> None:
        """Delete the part's file and its record."""
        path = work / PARTS / self.name
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record; None if the file is missing or holds something else."""
        with suppress(OSError, ValueError, TypeError):
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values | {"box": tuple(values["box"])})
        return None


@dataclass(frozen=True)
class StripJob:
    """Job that predicts a part of a scene, in any process of any machine that sees the same files.

    Attributes:
        bundle: folder of the bundle, or a .tflite file.
        runtime: library that computes; never "auto", so that all machines take the same.
        scene: path or URL.
        work: working folder of the scene, which holds the plan.
        first, last: the part holds the strips `first`..`last` - 1.
    """

    bundle: str
    runtime: str
    scene: str
    options: MapOptions
    work: str
    first: int
    last: int


def predict_strip(job: StripJob) -> PartRecord:
    """Predict a part of a scene, and write it into the working folder.

    The model stays loaded in this process for further jobs.

    Raises:
        DataError: the plan is not there or was made for other inputs, the scene changed meanwhile, or a file cannot be
            read or written.
    """
    work, model = Path(job.work), _loaded(job.bundle, job.runtime)
    plan = read_plan(work)
    bands, nodata, gsd_m = job.options.bands, job.options.nodata, job.options.gsd_m
    with gdal_settings(), RasterReader(job.scene, bands=bands, nodata=nodata, gsd_m=gsd_m) as scene:
        options = replace(job.options, scale=known_scale(scene, model.info, job.options.scale))
        check_same(plan, map_facts(scene, model.info, runtime_of(model), options), work)
        return PartTask(model, scene, options, plan, work).predict(job.first, job.last)


def _loaded(bundle: str, runtime: str) -> SceneModel:
    path = Path(bundle)
    described = path / "model.json" if path.is_dir() else path
    try:
        status = described.stat()
    except OSError as error:
        raise DataError(
            f"{bundle}: not found on {socket.gethostname()} ({error.strerror}). Expected a bundle that all machines "
            "see under the same path."
        ) from error
    return _cached_model(bundle, runtime, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)
def _cached_model(bundle: str, runtime: str, stamp: tuple[int, int]) -> SceneModel:
    if Path(bundle).is_dir():
        from lim_keras.bundle.runtimes import load_model

        return load_model(Path(bundle), runtime)  # type: ignore[arg-type]  # one of `Runtime`, checked there
    from lim_keras.bundle.litert import load_litert

    return load_litert(bundle)


def read_plan(work: Path) -> ScenePlan:
    """Read the plan of a working folder; it stays in memory while the file does not change.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        status = (work / PLAN).stat()
    except OSError as error:
        raise DataError(
            f"{work}: holds no plan on {socket.gethostname()} ({error.strerror}). Expected a folder that all machines "
            "see under the same path: give an `out` on a shared file system."
        ) from error
    return _cached_plan(work, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)
def _cached_plan(work: Path, stamp: tuple[int, int]) -> ScenePlan:
    plan = ScenePlan.read(work)
    if plan is None:
        raise DataError(f"{work}: was removed during the call. Repeat the call.")
    return plan


@dataclass(frozen=True)
class PartTask:
    """Prediction of parts of a scene.

    Attributes:
        scene: reader on the scene's own grid.
        share: see `PartRecord`.
    """

    model: SceneModel
    scene: RasterReader
    options: MapOptions
    plan: ScenePlan
    work: Path
    share: str = ""

    def predict(self, first: int, last: int, progress: ProgressCallback | None = None) -> PartRecord:
        """Predict the strips `first`..`last` - 1, and write them as one part.

        Raises:
            DataError: the scene changed meanwhile, or a file cannot be read or written.
        """
        if runtime_of(self.model) == TENSORFLOW:
            return_freed_memory()
        began, grid = time.monotonic(), self.plan.grid.reading
        path, box = self.work / PARTS / f"{first}-{last}.tif", self._box(first, last)
        with self.scene.on_grid(grid) if grid else nullcontext(self.scene) as reader:
            task = WindowTask(self.model, reader, self.plan.regions, self.options, self.plan.halo)
            self._write(task, path, box, first, last, progress)
        made = PartRecord(
            self.plan.identity,
            first,
            last,
            box=(box.top, box.left, box.bottom, box.right),
            pixels=int(self.plan.pixels[first:last].sum()),
            seconds=round(time.monotonic() - began, 3),
            bytes=path.stat().st_size,
            sha256=file_hash(path),
            share=self.share,
            host=socket.gethostname(),
        )
        write_text(path.with_suffix(".json"), json.dumps(asdict(made)))
        return made

    def _box(self, first: int, last: int) -> Box:
        cores = [window.core for strip in self.plan.strips(first, last) for window in strip.windows]
        top, left = min(core.top for core in cores), min(core.left for core in cores)
        return Box(top, left, max(core.bottom for core in cores), max(core.right for core in cores))

    def _write(
        self, task: WindowTask, path: Path, box: Box, first: int, last: int, progress: ProgressCallback | None
    ) -> None:
        strips = self.plan.strips(first, last)
        cores = [window.core for strip in strips for window in strip.windows]
        names = map_names(self.plan.spread)

        def check(_: Path) -> None:
            part.verify()
            if self.scene.has_changed():
                raise DataError(f"{self.scene.name}: changed while it was read. Repeat the call.")

        with shared_file(path, check) as draft:
            part = MapPart(draft, box, cores, names)
            with part:

                def write(window: WindowPrediction) -> None:
                    if window.valid.any():  # an unwritten block is without data
                        part.write(window.core, map_values(window, names))

                rows = [(strip.windows, strip.region) for strip in strips]
                task.predict_rows(rows, write, progress=progress)


def part_ranges(
    plan: ScenePlan, done: Iterable[PartRecord], first: int, last: int, *, pixels: int = PART_PIXELS
) -> list[tuple[int, int]]:
    """Cut the strips `first`..`last` - 1 that no finished part holds into parts of about `pixels`."""
    ranges: list[tuple[int, int]] = []
    for start, stop in missing_strips(done, first, last):
        held, begin = 0, start
        for strip in range(start, stop):
            held += int(plan.pixels[strip])
            if held >= pixels or strip == stop - 1:
                ranges.append((begin, strip + 1))
                held, begin = 0, strip + 1
    return ranges


def missing_strips(done: Iterable[PartRecord], first: int, last: int) -> list[tuple[int, int]]:
    """Return the runs of strips within `first`..`last` - 1 that no part holds; each as first, and last + 1."""
    held = np.zeros(last - first, np.bool_)
    for part in done:
        held[max(part.first - first, 0) : max(part.last - first, 0)] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[True], held, [True]]).astype(np.int8)))
    starts, stops = (edges[0::2] + first).tolist(), (edges[1::2] + first).tolist()
    return list(zip(starts, stops, strict=True))


def finished_parts(work: Path, plan: ScenePlan) -> list[PartRecord]:
    """Return the records of all parts that were finished for a plan, in the order in which later parts win.

    Files are not read, see `PartRecord.is_whole`.
    """
    found = [PartRecord.read(path) for path in _records(work)]
    kept = [one for one in found if one is not None and one.identity == plan.identity]
    return sorted(kept, key=lambda one: (one.last, one.first))


def _records(work: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        for entry in os.scandir(work / PARTS):
            if _RECORD.fullmatch(entry.name):
                yield Path(entry.path)


def merge(work: Path, plan: ScenePlan) -> Path:
    """Check that all parts of a plan are there and whole, and write a VRT of them; pixels are not copied.

    Where boxes of regions overlap, later strips win.

    Returns:
        The VRT of the maps, as that of `lim_keras.inference.maps.Maps`.

    Raises:
        DataError: strips are missing, or a part is damaged.
    """
    done = finished_parts(work, plan)
    if missing := missing_strips(done, 0, len(plan.pixels)):
        listed = ", ".join(f"{first}-{last - 1}" for first, last in missing)
        raise DataError(f"{work}: the strips {listed} of {len(plan.pixels)} are missing. Predict them first.")
    for part in done:
        if not part.is_whole(work):
            anew = f"Run the command with `part` {part.share}, which makes it anew, then repeat"
            first = anew if part.share else "Repeat"
            file = work / PARTS / part.name
            raise DataError(f"{file}: missing, cut short, or changed since it was written. {first} this call.")
    path, names = work / "maps.vrt", map_names(plan.spread)
    sources = {name: _sources(done, band) for band, name in enumerate(names, start=1)}
    write_text(path, describe_maps(plan.grid, sources))
    return path


def _sources(parts: Sequence[PartRecord], band: int) -> list[str]:
    lines: list[str] = []
    for part in parts:
        top, left, bottom, right = part.box
        size = f'xSize="{right - left}" ySize="{bottom - top}"'
        shape = f'RasterXSize="{right - left}" RasterYSize="{bottom - top}"'
        lines += [
            f'<ComplexSource><SourceFilename relativeToVRT="1">{PARTS}/{part.name}</SourceFilename>',
            f'<SourceBand>{band}</SourceBand><SourceProperties {shape} DataType="Float32"/>',
            f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{left}" yOff="{top}" {size}/>',
            "<NODATA>-1</NODATA></ComplexSource>",
        ]
    return lines
