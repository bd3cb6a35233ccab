"""Cut georeferenced training tiles from scenes and mapped landslides."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lim_keras.bundle.protocol import SceneModel
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import manifest_text
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import write_text
from lim_keras.inventory.batch import Scene, list_scenes
from lim_keras.ownership import file_hash
from lim_keras.progress import ProgressCallback
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.seals import check_sealed_file, sealed_json
from lim_keras.tiling.cutting import cut_tiles, tile_set
from lim_keras.tiling.folder import IMAGES, MANIFEST, MASKS, RECORD, TilingFolder
from lim_keras.tiling.hard_negatives import false_alarms, rejected_ground
from lim_keras.tiling.labels import LabelOptions, LabelSource
from lim_keras.tiling.options import TilingOptions
from lim_keras.tiling.plan import Plan, check_plan, plan_tiles
from lim_keras.tiling.report import TilingReport
from lim_keras.tiling.review_labels import is_review, review_digest
from lim_keras.tiling.scenes import TilingScene, open_scenes
from lim_keras.vectors.formats import find_source

_FORMAT = 1  # raise it when the same inputs give other tiles

DrawTiling = Callable[..., object]
"""Function that draws the tiles of a scene into a file, such as `lim_keras.report.tiling.draw_tiling`."""


@dataclass(frozen=True)
class TilingResult:
    """Result of `tile_scenes`.

    Attributes:
        tiles: the tiles; None after a dry run.
        report: tiles of each kind, landslides covered and lost, for each scene.
        files: what was written.
        was_there: an earlier call with the same inputs and options wrote the files.
    """

    tiles: TileSet | None
    report: TilingReport
    files: tuple[Path, ...] = ()
    was_there: bool = False

    def write_json(self, path: Path) -> None:
        """Write the report as JSON with a seal (`lim_keras.seals`); raise DataError if the file is the user's."""
        check_sealed_file(path, "json_file")
        write_text(path, sealed_json(self.report.to_dict()))


@dataclass(frozen=True)
class TilingTask:
    """Inputs and options of a tiling.

    Attributes:
        scenes: rasters.
        labels: where the labels are, and which count.
        options: all other options.
        model: model whose false alarms come first among background tiles; None: they are drawn at random.
    """

    scenes: Sequence[Scene]
    labels: LabelOptions
    options: TilingOptions
    model: SceneModel | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of all inputs and options; paths do not count."""
        labels = {name: value for name, value in self.settings["labels"].items() if name not in ("path", "aoi")}
        facts = {
            "format": _FORMAT,
            "scenes": [self._fingerprint(scene) for scene in self.scenes],
            "labels": [_digest(path) for path in (self.labels.path, self.labels.aoi) if path is not None],
            "settings": {**self.settings, "labels": labels},
            "model": None if self.model is None else self.model.info.digest(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _fingerprint(self, scene: Scene) -> list[Any]:
        with RasterReader(scene, bands=self.options.bands, nodata=self.options.nodata) as reader:
            return [reader.stem, *reader.fingerprint]

    @property
    def settings(self) -> dict[str, Any]:
        """Options in JSON values."""
        labels = asdict(self.labels)
        paths = {name: None if labels[name] is None else str(labels[name]) for name in ("path", "aoi")}
        model = None if self.model is None else self.model.info.name
        return {**self.options.to_dict(), "labels": labels | paths, "hard_negatives": model}


def find_scenes(paths: Sequence[Scene], labels: LabelOptions) -> tuple[Scene, ...]:
    """List the scenes of files and folders, each once; labels that lie among them are left out.

    Raises:
        DataError: a folder holds no raster, or nothing but the labels is there.
    """
    others = {os.path.realpath(path) for path in (labels.path, labels.aoi) if path is not None}
    found = tuple(scene for scene in list_scenes(paths) if os.path.realpath(scene) not in others)
    if not found:
        raise DataError(f"{paths[0]}: expected a scene. Received: the file of the labels.")
    return found


def _digest(path: Path) -> list[Any]:
    """Identify the content of labels: a raster as a scene is, another file by hashes of it and of what belongs to it.

    Such files are the parts of a Shapefile, all files of a folder, and what SQLite has not yet written into a database.
    """
    if is_review(path):
        return [[path.name, review_digest(path)]]
    source = find_source(path)
    if source.is_raster:
        with RasterReader(source.name, nodata="none") as raster:
            return list(raster.fingerprint)
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
    elif path.suffix.lower() in (".shp", ".tab", ".mif"):
        files = sorted(one for one in path.parent.glob(f"{glob.escape(path.stem)}.*") if one.is_file())
    else:
        waiting = path.with_name(f"{path.name}-wal")
        files = [path, *([waiting] if waiting.is_file() and waiting.stat().st_size else [])]
    try:
        return [[one.name, file_hash(one)] for one in files]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def tile_scenes(
    task: TilingTask,
    out: Path,
    *,
    jobs: int | None = None,
    draw_tiling: DrawTiling | None = None,
    progress: ProgressCallback | None = None,
) -> TilingResult:
    """Cut tiles into a folder: images, masks, tiles.csv, tiling.json and a picture for each scene.

    A repeated call returns the finished tiles; an interrupted one goes on.

    Args:
        out: the folder, which exists and is locked.
        jobs: number of threads; None: one for each core.
        draw_tiling: draws the pictures; None: there are none.
        progress: receives the numbers of counted pixels and of cut tiles.

    Raises:
        DataError: scenes or labels cannot be used, or files of the user would be replaced.

    Warns:
        LimKerasWarning: files of a finished tiling changed since, or most tiles are one group.
    """
    identity = task.identity
    folder = TilingFolder(out, identity)
    if folder.is_finished:
        return _finished(folder)
    folder.check([])
    with gdal_settings(), _opened(task) as (scenes, source):
        plan, report = _planned(task, scenes, source, progress)
        pictures = [] if draw_tiling is None else [f"tiling_{scene.name}.jpg" for scene in scenes]
        files = [f"{part}/{tile.tile_id}.tif" for part in (IMAGES, MASKS) for tile in plan.tiles]
        folder.check([*files, *pictures])
        cut = cut_tiles(plan.tiles, scenes, folder, jobs=jobs or os.cpu_count() or 1, progress=progress)
        hashes = {name: value for one in cut.values() for name, value in one.hashes.items()}
        if draw_tiling is not None:
            for k, name in enumerate(pictures):
                draw_tiling(scenes[k], [tile for tile in plan.tiles if tile.scene == k], folder.work / name)
                hashes[name] = file_hash(folder.work / name)
        _check_unchanged(task, scenes, folder, identity)
        tiles = tile_set(plan.tiles, cut, scenes, out)
    folder.put_in_place(hashes, manifest_text(tiles, out), report.to_dict())
    return TilingResult(tiles, report, tuple(out / name for name in (*hashes, MANIFEST, RECORD)))


def plan_tiling(task: TilingTask, *, progress: ProgressCallback | None = None) -> TilingResult:
    """Plan the tiles as `tile_scenes` does, without writing any file."""
    with gdal_settings(), _opened(task) as (scenes, source):
        return TilingResult(None, _planned(task, scenes, source, progress)[1])


@contextmanager
def _opened(task: TilingTask) -> Iterator[tuple[list[TilingScene], LabelSource]]:
    source = LabelSource.read(task.labels)
    with open_scenes(task.scenes, source, task.options, touched=task.labels.touched) as scenes:
        yield scenes, source


def _planned(
    task: TilingTask, scenes: Sequence[TilingScene], source: LabelSource, progress: ProgressCallback | None
) -> tuple[Plan, TilingReport]:
    scores = [None if task.model is None else false_alarms(task.model, scenes), rejected_ground(scenes)]
    given = [one for one in scores if one is not None]
    score = None if not given else lambda position, box: sum(one(position, box) for one in given)
    plan = plan_tiles(scenes, task.options, score=score, progress=progress)
    check_plan(plan, task.options, review=source.review is not None)
    sizes = Counter(tile.group for tile in plan.tiles if tile.group)
    largest = max(sizes.values(), default=0)
    if largest > max(len(plan.tiles) / 2, 2):
        warnings.warn(
            f"{largest} of {len(plan.tiles)} tiles form one group, as they share ground or landslides in a chain. A "
            "group stays on one side of every split, so folds will differ in size. A smaller `size`, or no `overlap`, "
            "gives smaller groups.",
            LimKerasWarning,
            stacklevel=2,
        )
    ratio, landslides = task.options.background, sum(scene.landslide_tiles for scene in plan.scenes)
    wanted = None if ratio == "all" else round(ratio * landslides)
    return plan, TilingReport(plan.scenes, asdict(source.report()), task.settings, len(sizes), largest, wanted)


def _finished(folder: TilingFolder) -> TilingResult:
    """Return the result of an earlier call; warn of files that changed since."""
    if changed := folder.edited:
        listed = ", ".join(f"{path.name} ({why})" for path, why in list(changed.items())[:20])
        warnings.warn(
            f"{folder.folder}: files that changed after they were written are kept: {listed}.",
            LimKerasWarning,
            stacklevel=3,
        )
    folder.discard()
    tiles = read_tiles(folder.folder / MANIFEST, decode=False)
    files = tuple(folder.folder / name for name in (*folder.record["sha256"], RECORD))
    return TilingResult(tiles, TilingReport.from_dict(folder.record), files, was_there=True)


def _check_unchanged(task: TilingTask, scenes: Sequence[TilingScene], folder: TilingFolder, identity: str) -> None:
    """Delete all drafts and raise DataError if an input changed since the call began."""
    changed = next((scene.source.name for scene in scenes if scene.source.has_changed()), "")
    if not changed and task.identity != identity:
        changed = str(task.labels.path)
    if changed:
        folder.discard()
        raise DataError(f"{changed}: changed while its tiles were cut. Nothing was written. Repeat the call.")
