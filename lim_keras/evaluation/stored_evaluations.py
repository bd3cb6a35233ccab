"""Convert evaluations and detection scores to JSON values and back, with all counts that scores are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from lim_keras.evaluation.evaluation import Evaluation, SampleScore
from lim_keras.metrics.binary import Confusion
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.metrics.detections import Detections, DetectionScore


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """Convert an evaluation to JSON values; `read_evaluation` returns an equal object.

    Unlike `Evaluation.to_dict`, which holds the scores for a reader, they hold the counts that scores come from. A row
    of numbers is one text, because a JSON file with a line for each of them would be long.
    """
    return {
        "protocol": evaluation.protocol,
        "threshold": evaluation.threshold,
        "draws": evaluation.draws,
        "seed": evaluation.seed,
        "samples": [_sample_values(sample) for sample in evaluation.samples],
        "histograms": {
            kind: {name: _text(row) for name, row in zip(("background", "landslide"), histogram.counts, strict=True)}
            for kind, histogram in evaluation.histograms.items()
        },
    }


def read_evaluation(values: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation whose `evaluation_values` these are.

    Raises:
        KeyError, TypeError, ValueError: the values have another form.
    """
    histograms = {
        kind: ProbabilityHistogram(np.stack([_numbers(rows["background"]), _numbers(rows["landslide"])]))
        for kind, rows in values["histograms"].items()
    }
    samples = tuple(map(_read_sample, values["samples"]))
    plan = values["protocol"], float(values["threshold"])
    return Evaluation(*plan, samples, histograms, values["draws"], values["seed"])


def read_detections(values: Mapping[str, Any]) -> Detections:
    """Return the detection scores whose `Detections.to_dict` these are.

    Raises:
        KeyError, TypeError: the values have another form.
    """
    names = ("truth", "found", "predicted", "right")
    criteria = (
        {area: DetectionScore(*(score[name] for name in names)) for area, score in values[criterion].items()}
        for criterion in ("iou_50", "any_overlap")
    )
    return Detections(*criteria)


def _sample_values(sample: SampleScore) -> dict[str, str]:
    """Convert the score of a sample; counts are tp, fp, fn and tn."""
    counts = {
        name: " ".join(map(str, astuple(one))) for name, one in (("model", sample.model), ("blind", sample.blind))
    }
    return {"name": sample.name, "kind": sample.kind, "group": sample.group, **counts}


def _read_sample(values: Mapping[str, str]) -> SampleScore:
    model, blind = (Confusion(*map(int, values[name].split())) for name in ("model", "blind"))
    return SampleScore(values["name"], values["kind"], values["group"], model, blind)


def _text(counts: np.ndarray[Any, Any]) -> str:
    """Write counts as a text in which `0*12` stands for twelve zeros, because most bins are empty."""
    edges = np.flatnonzero(np.diff(counts)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(counts)]])
    runs = ((counts[start], end - start) for start, end in zip(starts, ends, strict=True))
    return " ".join(str(count) if length == 1 else f"{count}*{length}" for count, length in runs)


def _numbers(text: str) -> np.ndarray[Any, Any]:
    pairs = (run.partition("*")[::2] for run in text.split())
    counts, lengths = zip(*((int(count), int(length or 1)) for count, length in pairs), strict=True)
    return np.repeat(np.array(counts, np.int64), lengths)
