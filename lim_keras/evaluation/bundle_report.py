"""Evaluate a bundle under every protocol."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.bundle.protocol import Predict
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection, SamplingSection
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, ConfigError
from lim_keras.evaluation.evaluator import DEFAULTS, Evaluator, ProtocolResult, choose_tiles, read_matching_tiles
from lim_keras.evaluation.negatives import NegativeReport, evaluate_negatives, matching_negatives
from lim_keras.evaluation.scene import SceneResult, evaluate_scene
from lim_keras.evaluation.unchanged import unchanged
from lim_keras.files import StrPath, make_folder, write_text
from lim_keras.inference.maps import with_tta
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inventory.options import PredictOptions, regions_rule
from lim_keras.metrics.detections import Detections
from lim_keras.progress import ProgressCallback
from lim_keras.raster.reader import RasterReader
from lim_keras.seals import check_sealed_file, sealed_json


@dataclass(frozen=True)
class BundleReport:
    """Scores of a bundle under each protocol.

    folds: results of each fold's model, if they were asked for. detections: scores of the scene by polygon, and rule:
    the object rule that chose the polygons; None: every region is one. pictures: files of the figures.
    negatives: false alarms on images without landslides, if there were any.
    """

    info: BundleInfo
    results: tuple[ProtocolResult, ...]
    folds: Mapping[int, tuple[ProtocolResult, ...]] = field(default_factory=dict)
    detections: Detections | None = None
    rule: ObjectRule | None = None
    pictures: tuple[Path, ...] = ()
    negatives: NegativeReport | None = None

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
            **({"object_rule": asdict(self.rule)} if self.rule else {}),
            **({} if self.negatives is None else {"negatives": self.negatives.to_dict()}),
        }

    def write_json(self, path: StrPath) -> Path:
        """Write `to_dict` atomically, with a seal (`lim_keras.seals`), and return the path.

        Raises:
            DataError: the file exists and is not an unchanged report of an earlier call, or it cannot be written.
        """
        path = Path(path)
        make_folder(path.parent)
        check_sealed_file(path, "json_file")
        return write_text(path, sealed_json(self.to_dict()))


def _by_protocol(results: Sequence[ProtocolResult]) -> dict[str, Any]:
    return {one.evaluation.protocol: one.evaluation.to_dict() for one in results}


def evaluate_bundle(
    bundle: Bundle | StrPath,
    tiles: TileSet | StrPath | None = None,
    *,
    tile_ids: Sequence[str] | None = None,
    scene: StrPath | None = None,
    truth: StrPath | None = None,
    negatives: TileSet | StrPath | None = None,
    settings: EvaluationSection = DEFAULTS,
    each_fold: bool = False,
    options: MapOptions | None = None,
    choice: PredictOptions | None = None,
    progress: ProgressCallback | None = None,
) -> BundleReport:
    """Evaluate a bundle on whole tiles, on random windows, and on a scene; arguments as in `lim_keras.evaluate`.

    Args:
        settings: numbers of windows and of bootstrap draws.
        options: how the scene is read and cut into windows; `tta` applies to tiles and windows, too.
        choice: which values of the object rule choose polygons and alarms; None: the working point "balanced".
    """
    if (scene is None) != (truth is None):
        raise ConfigError("Expected `scene` and `truth`, both or neither. Received: one of them.")
    if tiles is None and scene is None and negatives is None:
        raise ConfigError(
            "Nothing to evaluate on. Expected `tiles`, `negatives`, or `scene` and `truth`. Received: none of them."
        )
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    info, chosen = bundle.info, None
    regions_rule(choice, info)  # an error comes before the evaluations, which take long
    if tiles is not None:
        known = read_matching_tiles(tiles, info, progress)
        chosen = choose_tiles(known, tile_ids, test=info.test_tiles, training=info.training_tiles)
    if negatives is not None:  # before the other evaluations, which take long
        negatives = matching_negatives(negatives, info, progress)
    evaluator, tta = bundle_evaluator(bundle, settings, progress), options is not None and options.tta
    on_scene = partial(evaluate_scene, settings=settings, options=options, choice=choice, progress=progress)

    def results(model: Bundle) -> tuple[tuple[ProtocolResult, ...], SceneResult | None]:
        one = replace(evaluator, predict=_averaged(model) if tta else model.predict)
        on_tiles = () if chosen is None else (one.tiles(chosen), one.windows(chosen))
        if scene is None or truth is None:
            return on_tiles, None
        result = on_scene(model, scene, truth)
        return (*on_tiles, ProtocolResult(result.evaluation, result.gallery)), result

    numbers = range(info.folds) if each_fold and info.folds > 1 else ()
    with ExitStack() as stack:
        if numbers and scene is not None and truth is not None:  # all folds must see the same scene
            reader = RasterReader(scene, bands=None if options is None else options.bands)
            stack.enter_context(unchanged(stack.enter_context(reader), Path(truth)))
        together, mapped = results(bundle)
        folds = {fold: results(load_bundle(bundle.path, fold))[0] for fold in numbers}
    predict = _averaged(bundle) if tta else bundle.predict
    alarms = None if negatives is None else evaluate_negatives(predict, info, negatives, progress, choice=choice)
    if mapped is None:
        return BundleReport(info, together, folds, negatives=alarms)
    return BundleReport(info, together, folds, mapped.detections, mapped.rule, negatives=alarms)


def _averaged(model: Bundle) -> Predict:
    predict = with_tta(model.predict_all, model.info.stride)
    return lambda images: predict(images).probability


def bundle_evaluator(
    bundle: Bundle, settings: EvaluationSection = DEFAULTS, progress: ProgressCallback | None = None
) -> Evaluator:
    """Return the evaluation of a bundle under the settings of its training.

    Raises:
        BundleError: section `sampling` of model.json, or the image-blind mask, is not valid.
    """
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
