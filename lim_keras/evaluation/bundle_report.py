"""Evaluate a bundle under every protocol."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import Predict
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection, SamplingSection
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, ConfigError, DataError
from lim_keras.evaluation.evaluator import DEFAULTS, Evaluator, ProtocolResult, choose_tiles
from lim_keras.evaluation.scene import evaluate_scene
from lim_keras.files import make_folder, write_text
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inference.stream import with_tta
from lim_keras.metrics.detections import Detections
from lim_keras.progress import ProgressCallback

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class BundleReport:
    """Scores of a bundle under each protocol.

    Args:
        info: model.json of the bundle.
        results: one a protocol.
        folds: results of each fold alone; empty if they were not wanted.
        detections: scores of the scene by polygon; None without a scene.
        pictures: files that were drawn.
    """

    info: BundleInfo
    results: tuple[ProtocolResult, ...]
    folds: Mapping[int, tuple[ProtocolResult, ...]] = field(default_factory=dict)
    detections: Detections | None = None
    pictures: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return every score with its interval, ready for JSON."""
        info = self.info
        return {
            "bundle": info.name,
            "created": info.created.isoformat(),
            "config_hash": info.config_hash,
            "threshold": info.threshold,
            "temperature": info.temperature,
            "bias": info.bias,
            "protocols": _by_protocol(self.results),
            "folds": {str(fold): _by_protocol(results) for fold, results in self.folds.items()},
            "detections": self.detections.to_dict() if self.detections else None,
        }

    def write_json(self, path: StrPath) -> Path:
        """Write `to_dict` atomically and return the path."""
        path = Path(path)
        make_folder(path.parent)
        return write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def _by_protocol(results: Sequence[ProtocolResult]) -> dict[str, Any]:
    return {one.evaluation.protocol: one.evaluation.to_dict() for one in results}


def evaluate_bundle(
    bundle: Bundle | StrPath,
    tiles: TileSet | StrPath | None = None,
    *,
    tile_ids: Sequence[str] | None = None,
    scene: StrPath | None = None,
    truth: StrPath | None = None,
    settings: EvaluationSection = DEFAULTS,
    each_fold: bool = False,
    options: MapOptions | None = None,
    progress: ProgressCallback | None = None,
) -> BundleReport:
    """Evaluate a bundle on whole tiles, on random windows, and on a scene.

    Args:
        bundle: a loaded bundle with all of its folds, or its folder.
        tiles: tiles, or a path that `read_tiles` reads; None: evaluate on the scene alone.
        tile_ids: ids of the tiles to evaluate on; None: the run's test tiles, else all that were not trained on.
        scene, truth: a raster and its landslides, as polygons or as labels on the same grid; both or neither.
        settings: number of windows and of bootstrap draws.
        each_fold: evaluate each fold's model alone, too.
        options: how the scene is read and cut into windows; `tta` holds for tiles and windows, too.
        progress: receives the steps of every protocol.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        ConfigError: there is nothing to evaluate on, or only one of `scene` and `truth`.
        DataError: tiles or rasters cannot be used, or have other bands than the bundle.
    """
    _check_given(tiles, scene, truth)
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    chosen = None if tiles is None else _chosen(tiles, tile_ids, bundle.info, progress)
    evaluator, tta = _evaluator(bundle, settings, progress), options is not None and options.tta
    on_scene = partial(evaluate_scene, settings=settings, options=options, progress=progress)

    def results(model: Bundle) -> tuple[tuple[ProtocolResult, ...], Detections | None]:
        one = replace(evaluator, predict=_averaged(model) if tta else model.predict)
        on_tiles = () if chosen is None else (one.tiles(chosen), one.windows(chosen))
        if scene is None or truth is None:
            return on_tiles, None
        result = on_scene(model, scene, truth)
        return (*on_tiles, ProtocolResult(result.evaluation, result.gallery)), result.detections

    together, detections = results(bundle)
    numbers = range(bundle.info.folds) if each_fold and bundle.info.folds > 1 else ()
    folds = {fold: results(load_bundle(bundle.path, fold))[0] for fold in numbers}
    return BundleReport(bundle.info, together, folds, detections)


def _check_given(tiles: object, scene: object, truth: object) -> None:
    if (scene is None) != (truth is None):
        raise ConfigError("Expected `scene` and `truth`, both or neither. Received: one of them.")
    if tiles is None and scene is None:
        raise ConfigError("Nothing to evaluate on. Expected `tiles`, or `scene` and `truth`. Received: neither.")


def _averaged(model: Bundle) -> Predict:
    predict = with_tta(model.predict_all, model.info.stride)
    return lambda images: predict(images).probability


def _chosen(
    tiles: TileSet | StrPath, wanted: Sequence[str] | None, info: BundleInfo, progress: ProgressCallback | None
) -> TileSet:
    tiles = tiles if isinstance(tiles, TileSet) else read_tiles(tiles, progress)
    if (tiles.bands, tiles.dtype) != (info.bands, info.dtype):
        raise DataError(
            f"{tiles.root}: expected tiles of {info.bands} bands of {info.dtype}, as the bundle {info.name} takes. "
            f"Received: {tiles.bands} bands of {tiles.dtype}."
        )
    return choose_tiles(tiles, wanted, test=info.test_tiles, training=info.training_tiles)


def _evaluator(bundle: Bundle, settings: EvaluationSection, progress: ProgressCallback | None) -> Evaluator:
    info = bundle.info
    try:
        sampling = SamplingSection.model_validate(info.sampling)
    except ValidationError as error:
        raise BundleError(f"{bundle.path}: section `sampling` of model.json is not valid: {error}") from error
    return Evaluator(
        bundle.predict,
        info.threshold,
        sampling.mode,
        sampling.size,
        gsd_m=info.gsd_m,
        blind=bundle.baseline(),
        settings=settings,
        progress=progress,
    )
