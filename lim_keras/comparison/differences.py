"""Differences between runs: settings, data, and paired differences of scores on the tiles that both predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from lim_keras.comparison.recorded_scores import RecordedEvaluation
from lim_keras.comparison.run_folder import RunFolder
from lim_keras.config import RunConfig
from lim_keras.evaluation.evaluation import SampleScore, Subset
from lim_keras.metrics.binary import Estimate, estimate_difference

SCORES = ("f1", "precision", "recall", "iou_landslide", "miou")
"""Scores whose differences are estimated."""

PROTOCOLS = ("tiles", "windows", "out_of_fold")

_FEWEST = 2
"""Fewest common samples of a paired difference."""


@dataclass(frozen=True)
class PairedDifference:
    """Scores of a run minus those of another one, on the samples that both predicted.

    Attributes:
        run, reference: labels of the runs.
        protocol, subset: samples that are compared.
        samples: number of common samples.
        scores: differences, by score.
        same_pixels: False if the runs scored the samples at different pixel sizes.
    """

    run: str
    reference: str
    protocol: str
    subset: Subset
    samples: int
    scores: dict[str, Estimate]
    same_pixels: bool

    @property
    def verdict(self) -> str:
        """Tell by the interval of F1 which run is better."""
        f1 = self.scores["f1"]
        return "better" if f1.low > 0 else "worse" if f1.high < 0 else "not shown"


def differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Return the settings that are not equal in all runs: their values, run by run."""
    values = [run.settings for run in runs]
    columns = {key: [one[key] for one in values] for key in values[0]}
    return {key: column for key, column in columns.items() if any(value != column[0] for value in column)}


def changed_settings(run: RunFolder) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a run that are not the defaults: value and default."""
    values, defaults = run.settings, RunConfig(name="x")
    shown = {key: attrgetter(key)(defaults) for key in values}
    return {key: (value, shown[key]) for key, value in values.items() if value != shown[key]}


def paired_differences(run: RunFolder, reference: RunFolder) -> list[PairedDifference]:
    """Compare a run with another one on every protocol with common samples, and landslide and all samples."""
    if run.scores is None or reference.scores is None:
        return []
    found = []
    for protocol in PROTOCOLS:
        ours, theirs = (one.scores.evaluations.get(protocol) for one in (run, reference) if one.scores)
        if ours is None or theirs is None:
            continue
        pairs = _common(run, reference, protocol, ours, theirs)
        for subset in ("landslide", "all"):
            chosen = [pair for pair in pairs if subset == "all" or pair[0].kind == subset]
            if len(chosen) >= _FEWEST:
                found.append(_difference(run, reference, protocol, subset, chosen))
    return found


def _difference(
    run: RunFolder,
    reference: RunFolder,
    protocol: str,
    subset: Subset,
    pairs: Sequence[tuple[SampleScore, SampleScore]],
) -> PairedDifference:
    ours, theirs = [one.model for one, _ in pairs], [other.model for _, other in pairs]
    estimates = estimate_difference(theirs, ours, [one.group or other.group for one, other in pairs])
    same = all(one.model.pixels == other.model.pixels for one, other in pairs)
    scores = {name: estimates[name] for name in SCORES}
    return PairedDifference(run.label, reference.label, protocol, subset, len(pairs), scores, same)


def _common(
    run: RunFolder, reference: RunFolder, protocol: str, ours: RecordedEvaluation, theirs: RecordedEvaluation
) -> list[tuple[SampleScore, SampleScore]]:
    """Pair the samples of the same image and mask."""
    if protocol == "windows" and not _same_windows(run, reference):
        return []
    known = {sample.name: sample for sample in theirs.samples}
    return [
        (sample, known[sample.name])
        for sample in ours.samples
        if sample.name in known
        and (protocol == "windows" or run.content(sample.name) == reference.content(sample.name))
    ]


def _same_windows(run: RunFolder, reference: RunFolder) -> bool:
    """Tell whether both runs drew the same windows of the same test tiles."""
    keys = ("seed", "gsd_m", "sampling.size", "sampling.gsd_m", "evaluation.windows")
    same_settings = all(attrgetter(key)(run.config) == attrgetter(key)(reference.config) for key in keys)
    contents = ([(name, one.content(name)) for name in one.test_ids] for one in (run, reference))
    return same_settings and next(contents) == next(contents)
