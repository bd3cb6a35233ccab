"""Disagreements of labels with out-of-fold predictions of a finished run: candidates for label errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lim_keras.data.contents import tile_contents
from lim_keras.data.findings import Disagreement, Evidence, Region
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels, TileSet
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Prediction
from lim_keras.metrics.calibration import Calibration
from lim_keras.progress import ProgressCallback, track
from lim_keras.training.cross_validation import read_out_of_fold
from lim_keras.training.record import RunRecord
from lim_keras.training.run import CONFIG, STATISTICS, SUMMARIES, TILES, Run

_REGIONS = 5
"""Regions listed for each tile."""

_MIN_REGION_PX = 16
_LIKE_LANDSLIDE: dict[Literal["missed", "false"], bool] = {"missed": True, "false": False}


@dataclass(frozen=True)
class FinishedRun:
    """Run with its threshold and calibration.

    Attributes:
        run: the run.
        threshold: landslide at this calibrated probability and above.
        calibration: calibration of the stored logits.
    """

    run: Run
    threshold: float
    calibration: Calibration

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Read the folder of a finished `cv`, `fit` or `distill`.

        Raises:
            DataError: the folder holds no run, or a run that is not finished.
        """
        missing = [name for name in (CONFIG, TILES, STATISTICS) if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder}: expected a run folder, but {', '.join(missing)} is missing. Give the folder that `cv` or "
                "`fit` wrote (runs/NAME) as `run`."
            )
        summary = next((folder / name for name in SUMMARIES if (folder / name).is_file()), None)
        if summary is None:
            raise DataError(
                f"{folder}: the run is not finished ({' or '.join(SUMMARIES)} is missing). Repeat the command that "
                "began it, which continues it."
            )
        try:
            values = json.loads(summary.read_text(encoding="utf-8"))
            calibration = Calibration(float(values["temperature"]), float(values["bias"]))
            return cls(Run.load(folder), float(values["threshold"]), calibration)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{summary}: cannot be read ({error}). Repeat the command that wrote it.") from error

    def changed(self, tiles: TileSet) -> list[Evidence]:
        """List the tiles whose image or mask changed since the run began, and those that it does not know."""
        record = RunRecord.read(self.run.folder)
        known = set(self.run.tiles.ids)
        unknown = [Evidence(name, 0.0, "not in the run") for name in tiles.ids if name not in known]
        if record is None:
            return unknown
        now = tile_contents(tiles.subset([name for name in tiles.ids if name in record.tiles]))
        roles = [
            (name, [role for role in ("image", "mask") if content.get(role) != record.tiles[name].get(role)])
            for name, content in now.items()
        ]
        return [Evidence(name, 1.0, f"{' and '.join(found)} changed") for name, found in roles if found] + unknown

    def predictions(self, tiles: TileSet, progress: ProgressCallback | None = None) -> Iterator[tuple[int, Prediction]]:
        """Yield fold and out-of-fold prediction of each held-out tile that is among `tiles`."""
        known = set(tiles.ids)
        total = sum(len(self.run.held_out_tiles(fold)) for fold in self.run.held_out_folds)
        pairs = (
            (fold, one)
            for fold in self.run.held_out_folds
            for one in read_out_of_fold(self.run, fold, self.calibration)
        )
        for fold, one in track(pairs, "comparing predictions", total, progress, "tiles"):
            if one.sample.name in known:
                yield fold, one

    def prediction(self, tile_id: str) -> Prediction:
        """Read the out-of-fold prediction of one tile."""
        fold = self.run.folds[tile_id]
        only = replace(self.run, tiles=self.run.tiles.subset([tile_id]), folds={tile_id: fold})
        return next(iter(read_out_of_fold(only, fold, self.calibration)))


def find_disagreements(
    finished: FinishedRun, tiles: TileSet, progress: ProgressCallback | None = None
) -> list[Disagreement]:
    """Compare labels and out-of-fold predictions of all held-out tiles, worst first for each kind.

    Raises:
        DataError: no held-out tile of the run is among `tiles`.
        TrainingError: a stored prediction cannot be read.
    """
    found: list[Disagreement] = []
    compared = 0
    for fold, prediction in finished.predictions(tiles, progress):
        compared += 1
        tile = tiles[prediction.sample.name]
        size = (tile.height, tile.width)
        found += _disagreements(tile.tile_id, fold, prediction, size, finished.threshold)
    if not compared:
        raise DataError(
            f"{finished.run.folder}: the run has predictions of none of the tiles of {tiles.root}. Give its tiles."
        )
    totals = {kind: sum(one.area_px for one in found if one.kind == kind) for kind in _LIKE_LANDSLIDE}
    shared = [replace(one, share=one.area_px / totals[one.kind]) for one in found]
    return sorted(shared, key=lambda one: (one.kind != "missed", -one.weight))


def _disagreements(
    tile_id: str, fold: int, prediction: Prediction, size: tuple[int, int], threshold: float
) -> Iterator[Disagreement]:
    mask, probability = prediction.sample.mask, np.asarray(prediction.probability, np.float32)
    scale = size[0] / mask.shape[0], size[1] / mask.shape[1]
    for kind, labelled in _LIKE_LANDSLIDE.items():
        wrong = _wrong(mask, probability, threshold, labelled)
        if not wrong.any():
            continue
        values = probability[wrong]
        against = 1 - values if labelled else values
        area = scale[0] * scale[1]
        yield Disagreement(
            tile_id=tile_id,
            fold=fold,
            kind=kind,
            area_px=max(1, round(float(wrong.sum()) * area)),
            weight=float(against.sum() * area),
            share=0.0,
            probability=float(values.mean()),
            regions=_regions(wrong, probability, scale),
        )


def _wrong(mask: Labels, probability: NDArray[np.float32], threshold: float, labelled: bool) -> NDArray[np.bool_]:
    predicted = probability >= threshold
    if labelled:
        return np.asarray((mask == LANDSLIDE) & ~predicted)
    return np.asarray((mask != LANDSLIDE) & (mask != IGNORED) & predicted)


def _regions(wrong: NDArray[np.bool_], probability: NDArray[Any], scale: tuple[float, float]) -> tuple[Region, ...]:
    """Return the largest connected regions (8 neighbours), in pixels of the tile."""
    labels, number = ndimage.label(wrong, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    boxes = ndimage.find_objects(labels)
    regions: list[Region] = []
    for index in np.argsort(-areas, kind="stable")[:_REGIONS]:
        if areas[index] < _MIN_REGION_PX and regions:
            break
        rows, columns = boxes[index]
        inside = labels[rows, columns] == index + 1
        top, left = round(rows.start * scale[0]), round(columns.start * scale[1])
        regions.append(
            Region(
                x=left,
                y=top,
                width=max(1, round(columns.stop * scale[1]) - left),
                height=max(1, round(rows.stop * scale[0]) - top),
                area_px=max(1, round(float(areas[index]) * scale[0] * scale[1])),
                probability=float(probability[rows, columns][inside].mean()),
            )
        )
    return tuple(regions)
