"""Map many scenes."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from lim_keras.bundle.protocol import DescribedModel
from lim_keras.errors import DataError, LimKerasError, LimKerasWarning
from lim_keras.files import make_folder, write_text
from lim_keras.inference.scene_plan import ScenePart
from lim_keras.inference.window_plan import WindowSizeError
from lim_keras.inventory.options import PredictOptions, check_familiarity, count_landslides, with_rule
from lim_keras.inventory.predict_scene import find_missing, is_finished, predict_scene
from lim_keras.inventory.result_files import (
    ResultFiles,
    files_read,
    is_case_insensitive,
    read_summary,
    result_endings,
    users_document,
)
from lim_keras.inventory.scene_parts import Span, refuse_missing
from lim_keras.inventory.scene_prediction import DEFAULT_EXECUTION, Execution, ScenePrediction
from lim_keras.ownership import refusal
from lim_keras.progress import ProgressCallback
from lim_keras.raster.opening import gdal_settings, is_remote, raster_stem
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.remote_names import public_name
from lim_keras.raster.sentinel2 import is_product
from lim_keras.raster.stac_scene import StacScene
from lim_keras.seals import sealed_json

Scene: TypeAlias = Path | str | StacScene
"""Path, text for a URL or a GDAL name, or STAC item."""

_SUMMARY = "summary.json"

_ENDINGS = (".tif", ".tiff", ".vrt", ".jp2", ".img")


@dataclass(frozen=True)
class BatchResult:
    """Result of `predict_scenes`.

    Attributes:
        failures: reason of each failure, by scene.
        summary: the file `summary.json`, or its address; a call with `part` does not write it.
    """

    predictions: tuple[ScenePrediction, ...]
    failures: dict[Path | str, str]
    summary: Path | str


def find_scenes(paths: Sequence[Scene]) -> list[Scene]:
    """List the scenes of files and folders, each once; a folder's scenes are sorted by name.

    A Sentinel-2 product, as a SAFE folder or an archive of one, is a scene; an archive beside its folder is left out.
    Hidden files and results of earlier predictions in a folder are left out. A missing path is kept if others exist, so
    that `predict_scenes` reports it and maps the rest.

    Raises:
        DataError: no path exists, one cannot be read, a folder holds no raster, or two scenes have the same name.
    """
    scenes = list_scenes(paths)
    there = [scene for scene in scenes if is_remote(scene) or Path(scene).exists()]
    if scenes and not there:
        raise DataError(f"{scenes[0]}: not found. Expected a raster or a folder of rasters.")
    names: dict[str, Scene] = {}
    for scene in there:
        other = names.setdefault(raster_stem(scene), scene)
        if other is not scene:
            raise DataError(
                f"{shown(scene)} and {shown(other)}: expected scenes of different names, because files are named after "
                "them. Rename one, or predict them into different folders."
            )
    return scenes


def shown(scene: Scene) -> Path | str:
    """Return a scene as it is shown and recorded: without secrets that its URL holds."""
    return scene if isinstance(scene, Path) else public_name(str(scene))


def list_scenes(paths: Sequence[Scene]) -> list[Scene]:
    """List the scenes of files and folders as `find_scenes` does, without a check of missing paths and of names."""
    found: dict[tuple[str, str], Scene] = {}
    for scene in (scene for path in paths for scene in _scenes_at(path)):
        # Links with different names to one file are different scenes, because results have their names.
        found.setdefault((os.path.realpath(scene), raster_stem(scene)), scene)
    return list(found.values())


def _scenes_at(path: Scene) -> list[Scene]:
    if not isinstance(path, Path):
        return [path]
    try:
        if not path.is_dir() or is_product(path):
            return [path]
        written = {name for one in path.glob("*_summary.json") for name in read_summary(one).get("files", ())}
        inside = sorted(one for one in path.iterdir() if one.name[0] != ".")
        products = [one for one in inside if is_product(one)]
        stems = {raster_stem(one) for one in products if one.is_dir()}  # an archive may lie beside what it held
        inside = [one for one in inside if one.suffix.lower() in _ENDINGS or one in products]
        scenes = [one for one in inside if one.name not in written and (not one.is_dir() or one in products)]
        scenes = [one for one in scenes if one.suffix.lower() != ".zip" or raster_stem(one) not in stems]
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Expected a raster or a folder of rasters."
        ) from error
    if not scenes:
        received = "only results of `predict`" if inside else "no raster"
        raise DataError(
            f"{path}: expected a folder with rasters ({', '.join(_ENDINGS)}) or Sentinel-2 products (.SAFE, .zip). "
            f"Received: {received}."
        )
    return list(scenes)


def predict_scenes(
    model: DescribedModel,
    scenes: Sequence[Scene],
    out_dir: Path,
    options: PredictOptions | None = None,
    *,
    execution: Execution = DEFAULT_EXECUTION,
    after: Callable[[ScenePrediction], ScenePrediction] | None = None,
) -> BatchResult:
    """Predict scenes (see `find_scenes`) as `predict_scene` does, and write all summaries into `summary.json`.

    A scene that cannot be mapped does not stop the others. With `part`, the call makes parts of the scenes that fall to
    its share, and no summary.

    Args:
        out_dir: folder of the results.
        after: called with the result of each scene; returns the result to report.

    Raises:
        ConfigError: the bundle has no such working point or no familiarity, or a peak is below its threshold.
        WindowSizeError: the model cannot take windows of the size `tile`.
        DataError: `out_dir` cannot be made, `summary.json` cannot be written, a result would replace a file of the
            user or a scene, or `merge` lacks parts; this is checked before the first scene is predicted.
    """
    options, preview, workers = options or PredictOptions(), execution.has_preview, execution.workers
    with_rule(options, model.info)  # an option of the call that is wrong stops all scenes
    check_familiarity(options, model)
    make_folder(out_dir, "out")
    kept = _check_results(model, scenes, out_dir, options, preview=preview)
    spans = _spans(scenes) if options.part is not None or options.merge else []
    if options.merge:
        _check_parts(model, scenes, spans, out_dir, options, preview=preview)
    if workers is not None and not all(_is_finished(model, one, out_dir, options, preview=preview) for one in scenes):
        workers.open()  # a cluster that cannot be used stops all scenes
    work = [(scene, options) for scene in scenes]
    if options.part is not None:
        work = _share(scenes, spans, options, options.part)
    predictions: list[ScenePrediction] = []
    failures: dict[Path | str, str] = {}
    for number, (scene, chosen) in enumerate(work, start=1):
        try:
            one = predict_scene(model, scene, out_dir, chosen, execution=_numbered(execution, number, len(work)))
            one = one if after is None else after(one)
        except WindowSizeError:  # an option of the call is wrong, not the scene
            raise
        except Exception as error:  # whatever is wrong with one scene, the others are mapped
            failures[shown(scene)] = _reason(error, shown(scene), out_dir)
            execution.say(f"failed {failures[shown(scene)]}")
            continue
        predictions.append(one)
        execution.say(f"{shown(scene)}: {_described(one)}")
    if options.part is not None:
        return BatchResult(tuple(predictions), failures, out_dir / _SUMMARY)
    if kept:
        summary = out_dir / _SUMMARY
        warnings.warn(f"{summary}: not replaced ({kept}).", LimKerasWarning, stacklevel=2)
        return BatchResult(tuple(predictions), failures, summary)
    return BatchResult(tuple(predictions), failures, write_summary(out_dir, predictions, failures))


def _described(one: ScenePrediction) -> str:
    if "part" not in one.summary:
        return f"{'was there already' if one.was_there else 'done'}, {count_landslides(one.summary)}"
    part, files = one.summary["part"], len(one.files)
    if not files:
        return f"part {part}: no row of windows falls to it"
    return f"part {part} done: {one.summary['made']} of {files} file{'s' * (files != 1)} made by this call"


def _spans(scenes: Sequence[Scene]) -> list[Span]:
    """Return the place of each scene in the work of a call by numbers of pixels; one that cannot be read has none."""
    edges = [Fraction(0)]
    for scene in scenes:
        try:
            with gdal_settings(), RasterReader(scene, measured=False) as reader:
                edges.append(edges[-1] + reader.info.height * reader.info.width)
        except Exception:  # its own prediction says why
            edges.append(edges[-1])
    total = edges[-1] or Fraction(1)
    return [(start / total, stop / total) for start, stop in pairwise(edges)]


def _share(
    scenes: Sequence[Scene], spans: Sequence[Span], options: PredictOptions, part: ScenePart
) -> list[tuple[Scene, PredictOptions]]:
    """Return the scenes that fall to a part, each with the options that give its share."""
    shares = [(scene, part.share.within(*span)) for scene, span in zip(scenes, spans, strict=True)]
    return [(scene, replace(options, part=replace(part, share=share))) for scene, share in shares if share is not None]


def _check_parts(
    model: DescribedModel,
    scenes: Sequence[Scene],
    spans: Sequence[Span],
    out_dir: Path,
    options: PredictOptions,
    *,
    preview: bool,
) -> None:
    """Raise DataError, once for all scenes, if parts are missing or were made with other settings."""
    found = []
    for scene, span in zip(scenes, spans, strict=True):
        if missing := find_missing(model, scene, out_dir, options, preview=preview):
            found.append((missing, span))
    refuse_missing(out_dir, found)


def _reason(error: Exception, scene: Path | str, out_dir: Path) -> str:
    """Explain in one line why a scene failed."""
    if isinstance(error, LimKerasError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, OSError):  # a disk that is full, or a folder where a file belongs
        return f"{scene}: cannot be mapped into {out_dir} ({text}). Repair that folder or disk, and repeat the call."
    if isinstance(error, MemoryError):
        return f"{scene}: not enough memory ({text or 'no more is free'}). Close other programs, or lower `memory`."
    return (
        f"{scene}: an unexpected error stopped its prediction ({type(error).__name__}: {text}). Report it; "
        "`lim_keras.predict_scene` in Python shows where it happened."
    )


def _check_results(
    model: DescribedModel, scenes: Sequence[Scene], out_dir: Path, options: PredictOptions, *, preview: bool
) -> str:
    """Refuse to replace files of the user, and scenes of this call.

    Returns:
        Why `summary.json` is the user's and stays, where all scenes are finished; "" if it may be replaced.
    """
    endings = result_endings(options, preview=preview)
    results = {scene: ResultFiles(out_dir, raster_stem(scene)) for scene in scenes}
    _check_case(out_dir, results)
    inputs, kept = files_read(*scenes, options.dem), users_document(out_dir / _SUMMARY)
    found = {out_dir / _SUMMARY: kept} if kept else {}
    finished = []
    for scene, files in results.items():
        if files.any_there(endings) and _is_finished(model, scene, out_dir, options, preview=preview):
            finished.append(scene)
        else:
            found |= files.clashes([files.name(ending) for ending in endings], inputs)
    if kept and len(finished) == len(scenes):
        return kept
    if found:
        raise DataError(refusal(out_dir, found, "out"))
    return ""


def _is_finished(model: DescribedModel, scene: Scene, out_dir: Path, options: PredictOptions, *, preview: bool) -> bool:
    try:
        return is_finished(model, scene, out_dir, options, preview=preview)
    except Exception:  # the scene cannot be used; its own prediction says so
        return False


def _check_case(out_dir: Path, results: Mapping[Scene, ResultFiles]) -> None:
    """Refuse scenes whose names differ only in case, if the folder ignores case."""
    names: dict[str, Scene] = {}
    for scene, files in results.items():
        name = unicodedata.normalize("NFC", files.name("")).casefold()
        other = names.setdefault(name, scene)
        if other is not scene and is_case_insensitive(out_dir):
            raise DataError(
                f"{shown(scene)} and {shown(other)}: expected scenes of different names, because files are named after "
                f"them, and {out_dir} ignores upper and lower case. Rename one, or predict them into different folders."
            )


def _numbered(execution: Execution, number: int, count: int) -> Execution:
    """Let the bar of a scene show its number among several."""
    if execution.progress is None or count == 1:
        return execution
    return replace(execution, progress=_Numbered(execution.progress, f" ({number}/{count})"))


@dataclass(frozen=True)
class _Numbered:
    """Add the number of the scene to the label of its task."""

    progress: ProgressCallback
    suffix: str

    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> AbstractContextManager[object]:
        return self.progress.begin(label + self.suffix, total, done, unit=unit)

    def advance(self, count: int = 1, note: str = "") -> None:
        self.progress.advance(count, note)


def write_summary(out_dir: Path, predictions: Sequence[ScenePrediction], failures: dict[Path | str, str]) -> Path:
    """Write `summary.json`: all summaries, and the reasons of failures."""
    content = {
        "scenes": len(predictions) + len(failures),
        "failed": {str(scene): reason for scene, reason in failures.items()},
        "predicted": [one.summary for one in predictions],
    }
    if not out_dir.is_dir():
        raise DataError(f"{out_dir}: the folder was removed or moved during the call. Repeat the call.")
    return write_text(out_dir / _SUMMARY, sealed_json(content))
