"""Scores of an experiment: evaluate its bundle once, and keep all counts in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.runtimes import load_model
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection
from lim_keras.data.contents import tile_contents
from lim_keras.data.tiles import TileSet
from lim_keras.errors import ConfigError
from lim_keras.evaluation.bundle_report import bundle_evaluator
from lim_keras.evaluation.evaluation import Evaluation
from lim_keras.evaluation.evaluator import DEFAULTS, read_matching_tiles
from lim_keras.evaluation.scene import evaluate_scene
from lim_keras.evaluation.stored_evaluations import evaluation_values, read_detections, read_evaluation
from lim_keras.evaluation.unchanged import scene_state
from lim_keras.files import StrPath, make_folder, write_text
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inventory.options import PredictOptions
from lim_keras.metrics.detections import Detections
from lim_keras.progress import ProgressCallback
from lim_keras.seals import check_sealed_file, is_sealed, sealed_json
from lim_keras.training.record import bundle_digest

_FORMAT = 1

Members = Mapping[int, Evaluation]
"""Evaluation of each model of an ensemble, by fold."""


@dataclass(frozen=True)
class EvaluationData:
    """Data that experiments are evaluated on.

    Args:
        tiles: test tiles.
        scene, truth: a scene and its mapped landslides; both or neither.
        transfer: tiles of another region, of which no model has seen any.
        settings: numbers of windows and of bootstrap draws.
        options: how the scene is read and cut into windows.
    """

    tiles: TileSet
    scene: StrPath | None = None
    truth: StrPath | None = None
    transfer: TileSet | None = None
    settings: EvaluationSection = DEFAULTS
    options: MapOptions | None = None

    def __post_init__(self) -> None:
        if (self.scene is None) != (self.truth is None):
            raise ConfigError("Expected `scene` and `truth`, both or neither. Received: one of them.")

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what each kind of evaluation depends on besides the model: "tiles", "scene" and "transfer"."""
        content: dict[str, Any] = {"tiles": tile_contents(self.tiles)}
        if self.scene is not None and self.truth is not None:
            options = self.options or MapOptions()
            content["scene"] = [scene_state(self.scene, Path(self.truth)), repr(options)]
        if self.transfer is not None:
            content["transfer"] = tile_contents(self.transfer)
        settings = self.settings.model_dump()
        return {name: _digest([settings, value]) for name, value in content.items()}


@dataclass(frozen=True)
class ExperimentScores:
    """Scores of one experiment.

    Attributes:
        experiment: its name.
        config_hash: digest of its configuration.
        threshold: of the bundle; all evaluations use it.
        folds: number of models; 1 without an ensemble.
        tiles, windows: on the test tiles, by the ensemble or the only model.
        scene, detections: on the scene, by pixel and by polygon; None without a scene.
        transfer: on whole tiles of another region; None without them.
        members, member_windows: each fold's model on the test tiles, whole and in windows; empty without an ensemble.
        bundle: digest of the bundle.
        digests: `EvaluationData.digests` of the data.
    """

    experiment: str
    config_hash: str
    threshold: float
    folds: int
    tiles: Evaluation
    windows: Evaluation
    scene: Evaluation | None = None
    detections: Detections | None = None
    transfer: Evaluation | None = None
    members: Members = field(default_factory=dict)
    member_windows: Members = field(default_factory=dict)
    bundle: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; `from_dict` returns an equal object."""
        optional = {"scene": self.scene, "transfer": self.transfer}
        members = {"members": self.members, "member_windows": self.member_windows}
        return {
            "lim_keras_scores": _FORMAT,
            "experiment": self.experiment,
            "config_hash": self.config_hash,
            "threshold": self.threshold,
            "folds": self.folds,
            "bundle": self.bundle,
            "digests": dict(self.digests),
            "tiles": evaluation_values(self.tiles),
            "windows": evaluation_values(self.windows),
            **{name: one and evaluation_values(one) for name, one in optional.items()},
            "detections": self.detections and self.detections.to_dict(),
            **{
                name: {str(fold): evaluation_values(one) for fold, one in evaluations.items()}
                for name, evaluations in members.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentScores:
        """Return the scores whose `to_dict` these values are.

        Raises:
            KeyError, TypeError, ValueError: the values have another form.
        """
        if values["lim_keras_scores"] != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}, received {values['lim_keras_scores']}")
        plain = ("experiment", "config_hash", "threshold", "folds", "bundle", "digests")
        found: dict[str, Any] = {name: values[name] for name in plain}
        found |= {name: read_evaluation(values[name]) for name in ("tiles", "windows")}
        found |= {name: values[name] and read_evaluation(values[name]) for name in ("scene", "transfer")}
        for name in ("members", "member_windows"):
            found[name] = {int(fold): read_evaluation(one) for fold, one in values[name].items()}
        detections = values["detections"] and read_detections(values["detections"])
        return cls(**found, detections=detections)


def stored_scores(
    path: StrPath, bundle: StrPath, name: str, data: EvaluationData, *, progress: ProgressCallback | None = None
) -> ExperimentScores:
    """Return the scores of an experiment that a file holds: on whole tiles, windows, the scene and the transfer tiles.

    What the file lacks for this bundle and these data is evaluated, and written after each kind of evaluation.

    Args:
        path: file of the scores; made if it is missing.
        bundle: folder of the exported bundle.
        name: name of the experiment.
        data: what to evaluate on.
        progress: receives the progress of each evaluation.

    Raises:
        BundleError: the bundle is incomplete or damaged.
        DataError: tiles, scene or truth cannot be read, or do not fit the bundle; or the file is not an unchanged file
            of an earlier call, or cannot be written.
    """
    path = Path(path)
    check_sealed_file(path, "out")
    known = read_scores(path)
    for scores in _evaluated(Path(bundle), name, data, known, progress):
        if scores != known:
            write_scores(scores, path)
    return scores


def write_scores(scores: ExperimentScores, path: StrPath) -> Path:
    """Write scores as a sealed JSON file, and return its path.

    Raises:
        DataError: the file is there and is not an unchanged file of an earlier call, or it cannot be written.
    """
    path = Path(path)
    make_folder(path.parent, "out")
    check_sealed_file(path, "out")
    return write_text(path, sealed_json(scores.to_dict()))


def read_scores(path: StrPath) -> ExperimentScores | None:
    """Read the file of `write_scores`; None if it is missing, changed since it was written, or of another version."""
    path = Path(path)
    if not is_sealed(path):
        return None
    try:
        return ExperimentScores.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError):
        return None


_FIELDS = {
    "tiles": ("tiles", "windows", "members", "member_windows"),
    "scene": ("scene", "detections"),
    "transfer": ("transfer",),
}
"""Attributes of `ExperimentScores` that each kind of evaluation fills."""


def _evaluated(
    path: Path, name: str, data: EvaluationData, known: ExperimentScores | None, progress: ProgressCallback | None
) -> Iterator[ExperimentScores]:
    """Yield the scores after each kind of evaluation."""
    info = BundleInfo.read(path)
    digest = bundle_digest(info)
    facts = name, info.config_hash, info.threshold, info.folds
    same_model = known is not None and (known.bundle, known.threshold) == (digest, info.threshold)
    before = known.digests if known is not None and same_model else {}
    wanted = dict(data.digests)
    if info.object_rule is not None and "scene" in wanted:  # earlier versions scored such models by their rule
        wanted["scene"] = _digest([wanted["scene"], "all regions"])
    digests = {part: value for part, value in wanted.items() if before.get(part) == value}
    found = {name: getattr(known, name) for part in digests for name in _FIELDS[part]}
    missing = [part for part in wanted if part not in digests]
    models = _Models(path, info.folds)
    for part in missing:
        found |= _EVALUATE[part](models, data, progress)
        digests[part] = wanted[part]
        yield ExperimentScores(*facts, **found, bundle=digest, digests=dict(digests))
    if not missing:
        yield ExperimentScores(*facts, **found, bundle=digest, digests=digests)


def without_rule(bundle: Bundle) -> Bundle:
    """Return a bundle without its object rule: neither the paper nor models of whole tiles have one."""
    return replace(bundle, info=bundle.info.model_copy(update={"object_rule": None}))


@dataclass(frozen=True)
class _Models:
    """Models of a bundle, each loaded on first use and once."""

    path: Path
    folds: int

    @cached_property
    def members(self) -> list[Bundle]:
        """Model of each fold, or the only model."""
        return [load_bundle(self.path, fold) for fold in range(self.folds)]

    @cached_property
    def together(self) -> Bundle:
        """Ensemble, or the only model."""
        return load_bundle(self.path) if self.folds > 1 else self.members[0]


def _on_tiles(models: _Models, data: EvaluationData, progress: ProgressCallback | None) -> dict[str, Any]:
    """Evaluate on the test tiles. The mean over the folds is what the bundle's ensemble computes."""
    members = models.members
    tiles = read_matching_tiles(data.tiles, members[0].info)
    evaluator = bundle_evaluator(members[0], data.settings, progress)
    evaluator = replace(evaluator, predict=[model.predict for model in members])
    whole, windows = evaluator.tiles(tiles), evaluator.windows(tiles)
    return {
        "tiles": whole.evaluation,
        "windows": windows.evaluation,
        "members": dict(enumerate(whole.folds)),
        "member_windows": dict(enumerate(windows.folds)),
    }


def _on_scene(models: _Models, data: EvaluationData, progress: ProgressCallback | None) -> dict[str, Any]:
    if data.scene is None or data.truth is None:
        return {"scene": None, "detections": None}
    result = evaluate_scene(
        load_model(models.path),
        data.scene,
        data.truth,
        choice=PredictOptions(all_regions=True),
        settings=data.settings,
        options=data.options,
        progress=progress,
    )
    return {"scene": result.evaluation, "detections": result.detections}


def _on_transfer(models: _Models, data: EvaluationData, progress: ProgressCallback | None) -> dict[str, Any]:
    if data.transfer is None:
        return {"transfer": None}
    model = models.together
    tiles = read_matching_tiles(data.transfer, model.info)
    return {"transfer": bundle_evaluator(model, data.settings, progress).tiles(tiles).evaluation}


_EVALUATE = {"tiles": _on_tiles, "scene": _on_scene, "transfer": _on_transfer}
"""Evaluations in the order in which they are made."""


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
