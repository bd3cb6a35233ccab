"""Comparison of runs: what they share, what differs, and all results as JSON values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lim_keras.comparison.differences import (
    PairedDifference,
    differing_settings,
    paired_differences,
)
from lim_keras.comparison.recorded_scores import RecordedEvaluation, Subsets
from lim_keras.comparison.run_folder import RunFolder, TrainedModel, read_run_folders
from lim_keras.progress import ProgressCallback, track
from lim_keras.training.record import TEST


@dataclass(frozen=True)
class TileCounts:
    """Tiles and pixels of one side of a run: training (with validation) or test.

    Attributes:
        landslide, other: numbers of tiles by kind.
        landslide_px, background_px: labelled pixels at native size.
        inside_px: background pixels of landslide tiles.
        shortest, longest: sides of the tiles, pixels; None without tiles.
    """

    landslide: int
    other: int
    landslide_px: int
    background_px: int
    inside_px: int
    shortest: int | None
    longest: int | None

    @property
    def ratio(self) -> float | None:
        """Background over landslide pixels of all tiles (Eq. 3); None without landslides."""
        return self.background_px / self.landslide_px if self.landslide_px else None

    @property
    def inside_ratio(self) -> float | None:
        """Background over landslide pixels of landslide tiles; None without landslides."""
        return self.inside_px / self.landslide_px if self.landslide_px else None


def tile_counts(run: RunFolder, *, test: bool) -> TileCounts:
    """Count the test tiles of a run, or all others."""
    tiles = [tile for tile in run.tiles if (run.folds.get(tile.tile_id) == TEST) == test]
    kinds = Counter("landslide" if tile.kind == "landslide" else "other" for tile in tiles)
    inside = [tile for tile in tiles if tile.kind == "landslide"]
    landslide, valid = (sum(getattr(tile, name) or 0 for tile in tiles) for name in ("landslide_px", "valid_px"))
    sides = [side for tile in tiles for side in (tile.width, tile.height) if side]
    return TileCounts(
        landslide=kinds["landslide"],
        other=kinds["other"],
        landslide_px=landslide,
        background_px=valid - landslide,
        inside_px=sum((tile.valid_px or 0) - (tile.landslide_px or 0) for tile in inside),
        shortest=min(sides, default=None),
        longest=max(sides, default=None),
    )


@dataclass(frozen=True)
class RunComparison:
    """Runs beside each other.

    Attributes:
        runs: the runs, in the order in which they were given.
        differences: paired differences of each run to the first one that predicted some of its tiles.
    """

    runs: tuple[RunFolder, ...]
    differences: tuple[PairedDifference, ...]

    @classmethod
    def read(cls, paths: Sequence[Path], progress: ProgressCallback | None = None) -> Self:
        """Read run folders and compare them.

        Raises:
            DataError: a path is no run folder, or a file of it cannot be read.
        """
        runs = read_run_folders(paths)
        differences: list[PairedDifference] = []
        references: list[RunFolder] = []
        for run in track(runs, "comparing runs", len(runs), progress if len(runs) > 1 else None, "runs"):
            found = next((some for one in references if (some := paired_differences(run, one))), [])
            differences += found
            if not found and run.scores is not None:
                references.append(run)
        return cls(tuple(runs), tuple(differences))

    @property
    def finished(self) -> tuple[RunFolder, ...]:
        """Runs with scores."""
        return tuple(run for run in self.runs if run.scores is not None)

    @property
    def groups(self) -> list[list[str]]:
        """Labels of the finished runs whose scores can be compared with each other, group by group."""
        reference = {one.run: one.reference for one in self.differences}
        groups: dict[str, list[str]] = {}
        for run in self.finished:
            groups.setdefault(reference.get(run.label, run.label), []).append(run.label)
        return list(groups.values())

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values; None stands for what is not defined."""
        values = {
            "runs": [_run_values(run) for run in self.runs],
            "differing_settings": differing_settings(self.runs),
            "differences": [{**asdict(one), "verdict": one.verdict} for one in self.differences],
        }
        return {key: _plain(value) for key, value in values.items()}


def _run_values(run: RunFolder) -> dict[str, Any]:
    scores = run.scores
    values: dict[str, Any] = {
        "name": run.config.name,
        "label": run.label,
        "folder": str(run.folder),
        "state": run.state,
        "kind": run.kind,
        "config_hash": run.config.digest(),
        "data": run.data_digest or None,
        "settings": run.settings,
        "training_tiles": _count_values(tile_counts(run, test=False)),
        "test_tiles": _count_values(tile_counts(run, test=True)),
        "models": [_model_values(model) for model in run.models],
        "seconds": sum(model.seconds for model in run.models),
    }
    if scores is None:
        return values
    return values | {
        "threshold": scores.threshold,
        "temperature": scores.calibration.temperature,
        "bias": scores.calibration.bias,
        "scores": {protocol: _evaluation_values(one) for protocol, one in scores.evaluations.items()},
        "folds": {str(fold): _subset_values(one) for fold, one in scores.folds.items()},
        "test_folds": {
            str(fold): {protocol: _subset_values(one) for protocol, one in parts.items()}
            for fold, parts in scores.test_folds.items()
        },
        "leaks": list(scores.leaks),
        "versions": dict(scores.versions),
    }


def _count_values(counts: TileCounts) -> dict[str, Any]:
    return {**asdict(counts), "imbalance_ratio": counts.ratio, "imbalance_ratio_landslide_tiles": counts.inside_ratio}


def _model_values(model: TrainedModel) -> dict[str, Any]:
    return {
        "fold": model.fold,
        "is_finished": model.is_finished,
        "epochs": model.epochs,
        "best_epoch": model.best_epoch,
        "seconds": model.seconds,
        "history": {name: list(values) for name, values in model.history.items()},
    }


def _evaluation_values(evaluation: RecordedEvaluation) -> dict[str, Any]:
    return {
        "subsets": _subset_values(evaluation.subsets),
        "log_loss": evaluation.log_loss,
        "expected_calibration_error": evaluation.calibration_error,
        "reliability": [asdict(bar) for bar in evaluation.reliability],
        "precision_recall": [asdict(point) for point in evaluation.precision_recall],
    }


def _subset_values(subsets: Subsets) -> Mapping[str, Any]:
    return {name: asdict(one) for name, one in subsets.items()}


def _plain(value: Any) -> Any:
    """Replace NaN and infinite numbers by None, and tuples by lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
