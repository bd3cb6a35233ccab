"""Results that the parts of the report are made from: runs, bundles and scores of the experiments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lim_keras.data.tiles import TileSet
from lim_keras.errors import TrainingError
from lim_keras.progress import ProgressCallback
from lim_keras.reproduction.data import ReproductionData
from lim_keras.reproduction.experiments import Experiment, experiments
from lim_keras.reproduction.settings import ReproductionSettings as ReproductionSettings
from lim_keras.training.run import Run

if TYPE_CHECKING:
    from lim_keras.bundle.runtimes import LocalModel
    from lim_keras.bundle.saved_model import Bundle
    from lim_keras.reproduction.scores import EvaluationData, ExperimentScores

RUNS, MODELS, SCORES, MAPS, TABLES, FIGURES = "runs", "models", "scores", "maps", "tables", "figures"
"""Folders of a reproduction."""


class MissingExperimentError(TrainingError):
    """A part of the report needs an experiment that is not finished."""


class ReproductionContext:
    """Data, finished experiments and their results.

    Args:
        settings: settings of the reproduction.
        data: its tiles.
        missing: experiments that are not finished, each with the reason.
        progress: receives the progress of evaluations.
    """

    def __init__(
        self,
        settings: ReproductionSettings,
        data: ReproductionData,
        *,
        missing: Mapping[str, str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.settings, self.data, self.progress = settings, data, progress
        self.missing = dict(missing or {})
        self._scores: dict[str, ExperimentScores] = {}

    @property
    def folder(self) -> Path:
        """Folder of all results."""
        return self.settings.out

    @property
    def tiles(self) -> TileSet:
        """All tiles, test tiles included."""
        return self.data.tiles.tiles

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Ids of the test tiles."""
        return self.data.tiles.test_ids

    @property
    def test_tiles(self) -> TileSet:
        """Test tiles."""
        return self.data.tiles.test

    @cached_property
    def experiments(self) -> Mapping[str, Experiment]:
        """Finished experiments by name, in the order of their training."""
        return {one.name: one for one in experiments(self.settings) if one.name not in self.missing}

    def run(self, name: str) -> Run:
        """Read the run of an experiment."""
        self._check_finished(name)
        return Run.load(self.folder / RUNS / name)

    def bundle(self, name: str) -> Bundle:
        """Load the exported model of an experiment, the ensemble of a cross-validation, without its object rule."""
        from lim_keras.bundle.saved_model import load_bundle
        from lim_keras.reproduction.scores import without_rule

        self._check_finished(name)
        return without_rule(load_bundle(self.folder / MODELS / name))

    def scene_model(self, name: str) -> LocalModel:
        """Load the same model with the fastest runtime that is installed, to map scenes."""
        from lim_keras.bundle.runtimes import load_model

        self._check_finished(name)
        return load_model(self.folder / MODELS / name)

    def scores(self, name: str) -> ExperimentScores:
        """Read the scores of an experiment; what was not evaluated before is evaluated first."""
        from lim_keras.reproduction.scores import stored_scores

        self._check_finished(name)
        if name not in self._scores:
            self._scores[name] = stored_scores(
                self.folder / SCORES / f"{name}.json",
                self.folder / MODELS / name,
                name,
                self._evaluation_data(self.experiments[name]),
                progress=self.progress,
            )
        return self._scores[name]

    def _evaluation_data(self, experiment: Experiment) -> EvaluationData:
        """Return the data that an experiment is evaluated on; coarse models see no data of the other scale."""
        from lim_keras.reproduction.scores import EvaluationData

        section, settings = experiment.config.evaluation, self.settings
        test = self.data.of(experiment).test
        if experiment.data == "coarse":
            return EvaluationData(test, settings=section)
        return EvaluationData(test, settings.scene, settings.truth, self.data.transfer, section)

    def _check_finished(self, name: str) -> None:
        if name not in self.experiments:
            reason = self.missing.get(name, "it is no experiment of this budget")
            raise MissingExperimentError(f"Experiment {name} is not finished: {reason}.")
