"""Map scenes into object storage: skip those that are there, predict the others, and upload their files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lim_keras.bundle.protocol import DescribedModel
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory.batch import BatchResult, Scene, predict_scenes, shown, write_summary
from lim_keras.inventory.options import PredictOptions, count_landslides
from lim_keras.inventory.predict_scene import predict_scene, scene_identity
from lim_keras.inventory.remote_results import RemoteFolder
from lim_keras.inventory.result_files import ResultFiles, result_endings
from lim_keras.inventory.scene_parts import UnloadedModel
from lim_keras.inventory.scene_prediction import DEFAULT_EXECUTION, Execution, ScenePrediction
from lim_keras.raster.opening import raster_stem
from lim_keras.raster.reader import RasterReader, RasterSource

_SUMMARY = "summary.json"


def predict_remote_scene(
    model: DescribedModel,
    scene: RasterSource,
    remote: RemoteFolder,
    options: PredictOptions,
    *,
    execution: Execution = DEFAULT_EXECUTION,
) -> ScenePrediction:
    """Map a scene as `predict_scene` does, and upload its files, unless they are there already.

    With `part`, nothing is uploaded.

    Raises:
        DataError: as in `predict_scene`, or objects of others would be replaced, or the storage cannot be reached.
    """
    preview = execution.has_preview
    if options.part is None:
        if (done := _finished(model, scene, remote, options, preview=preview)) is not None:
            return done
        if found := remote.clashes(_names(scene, options, preview=preview)):
            raise remote.refusal(found)
    made = predict_scene(model, scene, remote.staging, options, execution=execution)
    return made if options.part is not None else remote.upload(made)


def predict_remote_scenes(
    model: DescribedModel,
    scenes: Sequence[Scene],
    remote: RemoteFolder,
    options: PredictOptions,
    *,
    execution: Execution = DEFAULT_EXECUTION,
) -> BatchResult:
    """Map scenes as `predict_scenes` does; the files of each scene are uploaded as soon as they are complete.

    With `part`, nothing is uploaded.

    Raises:
        DataError: as in `predict_scenes`, or objects of others would be replaced, or the storage cannot be reached.
    """
    finished: dict[Scene, ScenePrediction] = {}
    if options.part is None:
        finished = _finished_scenes(model, scenes, remote, options, preview=execution.has_preview)
    for scene, done in finished.items():
        execution.say(f"{shown(scene)}: was there already, {count_landslides(done.summary)}")
    result = predict_scenes(
        model,
        [scene for scene in scenes if scene not in finished],
        remote.staging,
        options,
        execution=execution,
        after=remote.upload if options.part is None else None,
    )
    if options.part is not None:
        return result
    address = str(remote.address.joined(_SUMMARY))
    result = replace(result, predictions=(*finished.values(), *result.predictions), summary=address)
    _upload_summary(remote, result)
    return result


def _finished_scenes(
    model: DescribedModel, scenes: Sequence[Scene], remote: RemoteFolder, options: PredictOptions, *, preview: bool
) -> dict[Scene, ScenePrediction]:
    """Return the results of scenes that earlier calls finished.

    Raises:
        DataError: results of the other scenes would replace objects.
    """
    finished: dict[Scene, ScenePrediction] = {}
    clashes: dict[str, str] = {}
    for scene in scenes:
        if (done := _known(model, scene, remote, options, preview=preview)) is not None:
            finished[scene] = done
        else:
            clashes |= remote.clashes(_names(scene, options, preview=preview))
    if len(finished) < len(scenes) and (kept := remote.kept_summary()):
        clashes[_SUMMARY] = kept
    if clashes:
        raise remote.refusal(clashes)
    return finished


def _upload_summary(remote: RemoteFolder, result: BatchResult) -> None:
    """Write and upload `summary.json`, unless that of the user is there."""
    summary = write_summary(remote.staging, result.predictions, result.failures)
    try:
        if kept := remote.kept_summary():
            warnings.warn(f"{result.summary}: not replaced ({kept}).", LimKerasWarning, stacklevel=3)
        else:
            remote.upload_summary(summary)
    except DataError as error:
        if not result.failures:  # the reasons of failures are more urgent
            raise
        warnings.warn(str(error), LimKerasWarning, stacklevel=3)


def _known(
    model: DescribedModel, scene: Scene, remote: RemoteFolder, options: PredictOptions, *, preview: bool
) -> ScenePrediction | None:
    try:
        return _finished(model, scene, remote, options, preview=preview)
    except Exception:  # the scene cannot be used; its own prediction says so
        return None


def _finished(
    model: DescribedModel, scene: RasterSource, remote: RemoteFolder, options: PredictOptions, *, preview: bool
) -> ScenePrediction | None:
    """Return the result of an earlier call with the same options; None if there is none."""
    files = ResultFiles(remote.staging, _stem(scene))
    name = files.name(_SUMMARY)
    summary = remote.summary(name)
    if not summary:
        return None
    if isinstance(model, UnloadedModel) and model.runtime == "auto":
        model = replace(model, runtime=str(summary.get("runtime")))
    identity, path = scene_identity(model, scene, remote.staging, options)
    summary = remote.finished(name, identity, preview=files.name("preview.png") if preview else "")
    if not summary:
        return None
    for left in (*summary["files"], name):  # a call that was killed after the upload
        (remote.staging / left).unlink(missing_ok=True)
    return ScenePrediction(path, (), summary, was_there=True, addresses=remote.addresses(summary))


def _names(scene: RasterSource, options: PredictOptions, *, preview: bool) -> list[str]:
    files = ResultFiles(Path(), _stem(scene))
    return [files.name(ending) for ending in result_endings(options, preview=preview)]


def _stem(scene: RasterSource) -> str:
    if isinstance(scene, str | os.PathLike):
        return raster_stem(scene)
    with RasterReader(scene, measured=False) as reader:
        return reader.stem
