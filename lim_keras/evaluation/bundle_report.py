"""Evaluate a bundle and write the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import Predict
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection, SamplingSection
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, DataError
from lim_keras.evaluation.evaluator import DEFAULTS, Evaluator, ProtocolResult, choose_tiles
from lim_keras.evaluation.scene import evaluate_scene
from lim_keras.files import write_text
from lim_keras.inference.options import MapOptions
from lim_keras.inference.tta import with_tta
from lim_keras.metrics.detections import Detections
from lim_keras.progress import ProgressCallback


@dataclass(frozen=True)
class BundleReport:
    """What a bundle scored under each protocol."""

    info: BundleInfo
    results: tuple[ProtocolResult, ...]
    folds: Mapping[int, tuple[ProtocolResult, ...]] = field(default_factory=dict)
    detections: Detections | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every figure with its interval, ready for JSON."""
        return {
            "bundle": self.info.name,
            "created": self.info.created.isoformat(),
            "config_hash": self.info.config_hash,
            "threshold": self.info.threshold,
            "temperature": self.info.temperature,
            "bias": self.info.bias,
            "protocols": {one.evaluation.protocol: one.evaluation.to_dict() for one in self.results},
            "folds": {
                str(fold): {one.evaluation.protocol: one.evaluation.to_dict() for one in judged}
                for fold, judged in self.folds.items()
            },
            "detections": self.detections.to_dict() if self.detections else None,
        }

    def write_json(self, path: Path) -> Path:
        """Write `to_dict`, beside its place first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def evaluate_bundle(
    bundle: Bundle | Path,
    data: Path | TileSet | None = None,
    *,
    tile_ids: Sequence[str] | None = None,
    scene: Path | None = None,
    truth: Path | None = None,
    settings: EvaluationSection = DEFAULTS,
    each_fold: bool = False,
    options: MapOptions | None = None,
    progress: ProgressCallback | None = None,
) -> BundleReport:
    """Judge a bundle on tiles, on windows, and on a scene where one is given.

    Args:
        bundle: a loaded bundle with all of its folds, or the folder of one.
        data: tiles, or where they are, in any layout that `TileSet.read` knows; None: judge on the scene alone.
        tile_ids: ids of the tiles to judge on; None: the run's test tiles, else all that were not trained on.
        scene, truth: a raster, and its landslides as polygons or as labels on the same grid; both or neither.
        settings: number of windows and of bootstrap draws.
        each_fold: judge each fold's model alone, too.
        options: how the scene is read and cut; its `tta` holds for tiles and windows, too.
        progress: receives the steps of every protocol.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        DataError: tiles or rasters cannot be used, or are of other bands than the bundle.
    """
    if (scene is None) != (truth is None):
        raise DataError("Expected a scene and its truth, both or neither. Received: one of them")
    if data is None and scene is None:
        raise DataError("Nothing to judge on. Expected tiles, or a scene and its truth. Received: neither")
    bundle = load_bundle(bundle) if isinstance(bundle, Path) else bundle
    tiles = None
    if data is not None:
        read = data if isinstance(data, TileSet) else TileSet.read(data, progress=progress)
        tiles = _tiles(read, tile_ids, bundle.info)
    judge = _judge(bundle, settings, progress)

    def judged(model: Bundle) -> tuple[list[ProtocolResult], Detections | None]:
        alone = replace(judge, predict=_averaged(model) if options and options.tta else model.predict)
        parts = [] if tiles is None else [alone.tiles(tiles), alone.windows(tiles)]
        if scene is None or truth is None:
            return parts, None
        seen = evaluate_scene(model, scene, truth, settings=settings, options=options, progress=progress)
        return [*parts, ProtocolResult(seen.evaluation, seen.gallery)], seen.detections

    together, detections = judged(bundle)
    folds = range(bundle.info.folds) if each_fold and bundle.info.folds > 1 else ()
    apart = {fold: tuple(judged(load_bundle(bundle.path, fold))[0]) for fold in folds}
    return BundleReport(bundle.info, tuple(together), apart, detections)


def _averaged(model: Bundle) -> Predict:
    predict = with_tta(model.predict_all, model.info.stride)
    return lambda images: predict(images).probability


def _tiles(tiles: TileSet, wanted: Sequence[str] | None, info: BundleInfo) -> TileSet:
    if (tiles.bands, tiles.dtype) != (info.bands, info.dtype):
        raise DataError(
            f"{tiles.root}: expected tiles of {info.bands} bands of {info.dtype}, as the bundle {info.name} takes. "
            f"Received: {tiles.bands} bands of {tiles.dtype}"
        )
    return choose_tiles(tiles, wanted, test=info.test_tiles, training=info.training_tiles)


def _judge(bundle: Bundle, settings: EvaluationSection, progress: ProgressCallback | None) -> Evaluator:
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
