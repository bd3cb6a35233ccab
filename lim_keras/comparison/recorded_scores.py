"""Scores that a finished run recorded in `cv.json` or `fit.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lim_keras.bundle.object_rule import FittedRule
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import PrecisionRecall, SampleScore, Subset, SubsetScores
from lim_keras.metrics.binary import Confusion, Estimate
from lim_keras.metrics.calibration import Calibration, Reliability

Subsets = Mapping[Subset, SubsetScores]


@dataclass(frozen=True)
class RecordedEvaluation:
    """Scores of one protocol.

    Attributes:
        subsets: scores of the landslide samples and of all samples.
        samples: counts of each sample.
        log_loss, calibration_error: of the calibrated probabilities; NaN without labelled pixels.
        reliability: bars of the reliability diagram.
        precision_recall: points of the curve; empty for runs of earlier versions.
    """

    subsets: Subsets
    samples: tuple[SampleScore, ...]
    log_loss: float
    calibration_error: float
    reliability: tuple[Reliability, ...]
    precision_recall: tuple[PrecisionRecall, ...]


@dataclass(frozen=True)
class RecordedScores:
    """Scores of a run.

    Attributes:
        threshold, calibration: fitted on the out-of-fold predictions.
        out_of_fold: all tiles that trained, each predicted by the model that was not trained on it; of a run of one
            model, its validation tiles.
        folds: out-of-fold scores of each fold.
        test: scores on the test tiles, by protocol; of an ensemble, its mean.
        test_folds: scores of each model of an ensemble on the test tiles, by fold and protocol.
        leaks: what test tiles share with training tiles.
        versions: versions of the software; empty for runs of earlier versions.
        object_rule: fitted on the same predictions; None for resized tiles and for runs of earlier versions.
    """

    threshold: float
    calibration: Calibration
    out_of_fold: RecordedEvaluation
    folds: Mapping[int, Subsets]
    test: Mapping[str, RecordedEvaluation]
    test_folds: Mapping[int, Mapping[str, Subsets]]
    leaks: tuple[str, ...]
    versions: Mapping[str, str]
    object_rule: FittedRule | None = None

    @property
    def evaluations(self) -> dict[str, RecordedEvaluation]:
        """All protocols by name: "out_of_fold", and "tiles" and "windows" where there are test tiles."""
        return {"out_of_fold": self.out_of_fold, **self.test}


def read_recorded_scores(path: Path) -> RecordedScores:
    """Read `cv.json` or `fit.json`.

    Raises:
        DataError: the file cannot be read, or is no file of scores.
    """
    try:
        return _scores(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path}: cannot be read as the scores of a run ({reason}). Move it away, and repeat the command of "
            "the run, which writes it again."
        ) from error


def _scores(values: Mapping[str, Any]) -> RecordedScores:
    return RecordedScores(
        threshold=float(values["threshold"]),
        calibration=Calibration(float(values["temperature"]), float(values["bias"])),
        out_of_fold=_evaluation(values["pooled_out_of_fold"]),
        folds={int(fold): _subsets(one["subsets"]) for fold, one in values["out_of_fold"].items()},
        test={protocol: _evaluation(one) for protocol, one in values["test"].items()},
        test_folds={
            int(fold): {protocol: _subsets(one["subsets"]) for protocol, one in parts.items()}
            for fold, parts in values["test_folds"].items()
        },
        leaks=tuple(map(str, values.get("split", {}).get("leaks", ()))),
        object_rule=_rule(values.get("object_rule")),
        versions={str(name): str(version) for name, version in values.get("versions", {}).items()},
    )


def _rule(values: Mapping[str, Any] | None) -> FittedRule | None:
    return None if values is None else FittedRule.model_validate_json(json.dumps(values))


def _evaluation(values: Mapping[str, Any]) -> RecordedEvaluation:
    calibration = values["calibration"]
    return RecordedEvaluation(
        subsets=_subsets(values["subsets"]),
        samples=tuple(map(_sample, values["samples"])),
        log_loss=_number(calibration["log_loss"]),
        calibration_error=_number(calibration["expected_calibration_error"]),
        reliability=tuple(Reliability(**bar) for bar in calibration["reliability"]),
        precision_recall=tuple(PrecisionRecall(**point) for point in values.get("precision_recall", ())),
    )


def _subsets(values: Mapping[str, Any]) -> Subsets:
    names: tuple[Subset, ...] = ("landslide", "all")
    return {name: _subset(values[name]) for name in names if name in values}


def _subset(values: Mapping[str, Any]) -> SubsetScores:
    model, blind = (
        {name: Estimate(*(_number(one[key]) for key in ("value", "low", "high"))) for name, one in values[role].items()}
        for role in ("model", "blind")
    )
    share, precision = _number(values["landslide_share"]), _number(values["average_precision"])
    return SubsetScores(int(values["samples"]), int(values["pixels"]), share, precision, model, blind)


def _sample(values: Mapping[str, Any]) -> SampleScore:
    model, blind = Confusion(**values["model"]), Confusion(**values["blind"])
    return SampleScore(str(values["name"]), str(values["kind"]), str(values["group"]), model, blind)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def tile_f1(sample: SampleScore) -> float:
    """Return the F1 of a sample; 1 where nothing is wrong."""
    return sample.model.scores()["f1"]


def ranked(samples: Iterable[SampleScore], most: int) -> tuple[Sequence[SampleScore], Sequence[SampleScore]]:
    """Return the landslide tiles of highest F1, best first, and of lowest F1, worst first; none is in both."""
    tiles = [one for one in samples if one.kind == "landslide" and one.model.tp + one.model.fn]
    tiles.sort(key=lambda one: (-tile_f1(one), one.name))
    number = min(most, -(-len(tiles) // 2))
    return tiles[:number], tiles[number:][-most:][::-1]


def false_alarms(samples: Iterable[SampleScore], most: int) -> Sequence[SampleScore]:
    """Return the tiles without landslides that have the most false positives, the worst first."""
    wrong = [one for one in samples if one.model.fp and not one.model.tp + one.model.fn]
    return sorted(wrong, key=lambda one: (-one.model.fp, one.name))[:most]
