"""Measures that tables show, and the scores of the experiments that are finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lim_keras.evaluation.evaluation import Evaluation, Subset
from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Table, Value
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.contrasts import mean_score
from lim_keras.reproduction.scores import ExperimentScores

LABELS: Mapping[str, str] = {
    "fcn": "FCN",
    "fcn_fl": "FCN-FL",
    "fcn_flk": "FCN-FLK",
    "unet": "U-Net",
    "segnet": "SegNet",
}
"""Names of the methods for readers."""

SCORES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "miou": "mIoU",
    "iou_landslide": "IoU of landslides",
}
"""Scores of the tables, with their names for readers."""

NOT_TRAINED = "not trained"

ONE_SEED = (
    "Each method was trained once, with one seed. The intervals cover the choice of the test ground, not the luck of "
    "training: another seed may change a score by more than its interval."
)

NO_SCENE = "No scene was given, so there are no scores on a scene: add `--scene` and `--truth`."

NO_TRANSFER = "No tiles of another region were given, so there are no scores on them: add `--transfer`."

ONE_GROUND = (
    "An interval is [- -] where all samples belong to one group, such as the only block of a scene below 512 x 512 px: "
    "one group says nothing about other ground."
)

ANY_OVERLAP = (
    "A mapped landslide is found, and a polygon is right, if the two share any area. So a map that calls everything a "
    "landslide finds all of them: read its precision, too."
)


def ground_notes(rows: Iterable[tuple[Value, ...]]) -> tuple[str, ...]:
    """Return the note that rows need if an estimate in them has no interval."""
    estimates = [value for row in rows for value in row if isinstance(value, Estimate)]
    return (ONE_GROUND,) if any(math.isnan(one.low) for one in estimates) else ()


@dataclass(frozen=True, slots=True)
class Measure:
    """Samples that a score is computed on."""

    name: str
    evaluation: Callable[[ExperimentScores], Evaluation | None]
    subset: Subset = "all"

    def of(self, scores: Iterable[ExperimentScores]) -> list[Evaluation]:
        """Return the evaluations of experiments under this measure, of those that have one."""
        found = (self.evaluation(one) for one in scores)
        return [one for one in found if one is not None and self.subset in one.subsets]

    def estimates(self, scores: ExperimentScores) -> dict[str, Estimate]:
        """Return all scores of one experiment with their intervals; empty if it was not evaluated so."""
        found = self.of([scores])
        return {score: mean_score(found, self.subset, score) for score in SCORES} if found else {}


LANDSLIDE_TILES = Measure("landslide tiles", lambda scores: scores.tiles, "landslide")
ALL_TILES = Measure("all test tiles", lambda scores: scores.tiles)
WINDOWS = Measure("windows", lambda scores: scores.windows)
SCENE = Measure("scene", lambda scores: scores.scene)
TRANSFER = Measure("landslide tiles of the other region", lambda scores: scores.transfer, "landslide")


def finished_scores(context: ReproductionContext, names: Iterable[str]) -> dict[str, ExperimentScores]:
    """Return the scores of those experiments that are finished, by name."""
    return {name: context.scores(name) for name in names if name in context.experiments}


def hashes(found: Mapping[str, ExperimentScores]) -> dict[str, str]:
    """Return the configuration hash of each experiment, for `Table.sources`."""
    return {name: scores.config_hash for name, scores in found.items()}


def models_name(context: ReproductionContext, examples: str) -> str:
    """Name the models of a kind of examples, "whole" or "windows", for readers."""
    settings = context.settings
    return f"whole tiles ({settings.encoder})" if examples == "whole" else f"windows ({settings.edge_encoder})"


SCENE_SCORES = ("precision", "recall", "f1", "iou_landslide", "miou")

POLYGONS = ("mapped landslides", "found", "polygons drawn", "right")
"""Columns of detections, see ANY_OVERLAP."""


def scene_table(context: ReproductionContext, name: str, methods: Iterable[str]) -> Table | None:
    """Return the scores of methods on the scene, by pixel and by polygon; None without a scene."""
    settings = [(examples, method) for examples in ("whole", "windows") for method in methods]
    found = finished_scores(context, (f"{examples}_{method}" for examples, method in settings))
    on_scene = {one: scores for one, scores in found.items() if scores.scene is not None}
    if not on_scene:
        return None
    rows = [_everywhere(next(iter(on_scene.values())))]
    for examples, method in settings:
        label = (models_name(context, examples), LABELS[method])
        rows.append((*label, *_scene_cells(on_scene.get(f"{examples}_{method}"))))
    columns = ("trained on", "method", *(SCORES[score] for score in SCENE_SCORES), *POLYGONS)
    notes = (ANY_OVERLAP, *ground_notes(rows))
    return Table(name, "The same models on the scene", columns, tuple(rows), notes, hashes(on_scene))


def _everywhere(scores: ExperimentScores) -> tuple[Value, ...]:
    blind = scores.scene.scores().blind if scores.scene else {}
    only = scores.scene is not None and len(scores.scene.samples) < 2
    cells = tuple(blind[score].value if only else blind[score] for score in SCENE_SCORES)
    return ("", "everything is a landslide", *cells, *(None for _ in POLYGONS))


def _scene_cells(scores: ExperimentScores | None) -> tuple[Value, ...]:
    if scores is None:
        return (NOT_TRAINED, *(None for _ in (*SCENE_SCORES[1:], *POLYGONS)))
    estimates = SCENE.estimates(scores)
    polygons = scores.detections.any_overlap["all"] if scores.detections else None
    counts = (None,) * 4 if polygons is None else (polygons.truth, polygons.found, polygons.predicted, polygons.right)
    return (*(estimates[score] for score in SCENE_SCORES), *counts)
