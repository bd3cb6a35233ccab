"""Evaluations and scores of experiments from counts that tests work out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lim_keras.data.tiles import TileSet
from lim_keras.evaluation.evaluation import Evaluation, ProtocolName, SampleScore
from lim_keras.metrics.binary import Confusion
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.metrics.detections import Detections, DetectionScore
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.data import LabelledTiles, ReproductionData
from lim_keras.reproduction.experiments import experiments
from lim_keras.reproduction.scores import ExperimentScores
from lim_keras.reproduction.settings import ReproductionSettings

Counts = tuple[int, int, int, int]
"""tp, fp, fn, tn."""


def evaluation(
    landslide: Sequence[Counts],
    other: Sequence[Counts] = (),
    *,
    groups: Sequence[str] = (),
    protocol: ProtocolName = "tiles",
    blind: Counts = (0, 0, 0, 0),
    draws: int = 200,
) -> Evaluation:
    """Samples ls_0, ls_1, ... and then nls_0, ...; `groups` in this order, "" where they end."""
    kinds = ["landslide"] * len(landslide) + ["non-landslide"] * len(other)
    names = [f"ls_{k}" for k in range(len(landslide))] + [f"nls_{k}" for k in range(len(other))]
    known = [*groups, *[""] * (len(names) - len(groups))]
    samples = tuple(
        SampleScore(name, kind, group, Confusion(*counts), Confusion(*blind))
        for name, kind, group, counts in zip(names, kinds, known, [*landslide, *other], strict=True)
    )
    histograms = {kind: ProbabilityHistogram() for kind in kinds}
    return Evaluation(protocol, 0.5, samples, histograms, draws, 2022)


def detections(truth: int, found: int, predicted: int, right: int) -> Detections:
    """The same numbers under both criteria."""
    scores = {"all": DetectionScore(truth, found, predicted, right)}
    return Detections(scores, dict(scores))


def experiment(name: str, tiles: Evaluation, **others: object) -> ExperimentScores:
    """Scores whose windows, and whose scene unless another is given, have the counts of the tiles."""
    windows = replace(tiles, protocol="windows")
    known: dict[str, Any] = {"scene": replace(tiles, protocol="scene"), "detections": detections(10, 8, 20, 9)}
    return ExperimentScores(
        **{"experiment": name, "config_hash": f"hash of {name}", "threshold": 0.5, "folds": 1}
        | {"tiles": tiles, "windows": windows, **known, **others}
    )


class MadeContext(ReproductionContext):
    """A context whose finished experiments have given scores."""

    def __init__(self, *made: ExperimentScores, **settings: Any) -> None:
        known: dict[str, Any] = {"out": Path("out"), "data": Path("tiles")}
        data = ReproductionData(LabelledTiles(TileSet(Path("tiles"), (), 3, "uint8"), ()))
        super().__init__(ReproductionSettings(**known | settings), data)
        self._made = {one.experiment: one for one in made}
        known_experiments = {one.name: one for one in experiments(self.settings)}
        self.experiments = {name: known_experiments[name] for name in self._made}  # type: ignore[misc]

    def scores(self, name: str) -> ExperimentScores:
        return self._made[name]
