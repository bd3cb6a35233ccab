"""Audit of a data set: all checks in one pass over the tiles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from lim_keras.audit.catalogue import TOPICS, check
from lim_keras.audit.disagreement import FinishedRun, find_disagreements
from lim_keras.audit.image_checks import image_checks
from lim_keras.audit.label_checks import ShiftMeter, label_checks
from lim_keras.audit.leaks import leak_checks
from lim_keras.audit.measures import TileMeasures, measure_tiles
from lim_keras.audit.set_checks import set_checks, tile_features
from lim_keras.audit.split import Split
from lim_keras.data.dataset_report import DatasetMeter
from lim_keras.data.findings import AuditReport, Check, Disagreement, Evidence
from lim_keras.data.overlap import find_overlaps
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError
from lim_keras.progress import ProgressCallback

_SIZE = 256
"""Side that masks are resized to for imbalance and centre bias, pixels."""

_LEAST_WEIGHT_PX = 64.0
"""Smallest weight of a disagreement that is a candidate."""


def audit(
    tiles: TileSet,
    *,
    finished: FinishedRun | None = None,
    folds: Mapping[str, int] | None = None,
    test_ids: Collection[str] = (),
    min_distance_m: float | None = None,
    progress: ProgressCallback | None = None,
) -> AuditReport:
    """Run all checks; see `lim_keras.audit_tiles`.

    Args:
        tiles: the tiles.
        finished: finished run on them, for its split and its predictions.
        folds: fold of each tile, -1 for test tiles, if there is no run.
        test_ids: ids of test tiles.
        min_distance_m: smallest distance between tiles of two sides, metres.
        progress: receives the progress.

    Raises:
        DataError: a tile cannot be read, or a test id is unknown.
    """
    tiles.check_known(test_ids)
    split, trained_tests = _split(tiles, finished, folds, test_ids)
    meter, shifts = DatasetMeter(tiles, _SIZE), ShiftMeter()
    measures: list[TileMeasures] = []
    background = np.zeros((_SIZE, _SIZE), np.uint8)
    for one in measure_tiles(tiles, _SIZE, progress):
        meter.add(one.tile, background if one.mask is None else one.mask)
        shifts.add(one)
        measures.append(replace(one, shift=None, mask=None))  # so that memory does not grow
    dataset = meter.report()
    overlaps = find_overlaps(tiles, progress=progress)
    checks = [
        *leak_checks(measures, tiles, split, overlaps, trained_tests=trained_tests, min_distance_m=min_distance_m),
        *label_checks(measures, shifts),
        *image_checks(measures),
        *set_checks(measures, dataset),
    ]
    disagreements: list[Disagreement] = []
    if finished is not None:
        disagreements = find_disagreements(finished, tiles, progress)
        checks += _prediction_checks(finished, tiles, disagreements)
    order = list(TOPICS)
    return AuditReport(
        tiles=tiles,
        checks=tuple(sorted(checks, key=lambda one: order.index(one.name))),
        dataset=dataset,
        disagreements=tuple(disagreements),
        threshold=None if finished is None else finished.threshold,
        features=tile_features(measures),
    )


def _split(
    tiles: TileSet, finished: FinishedRun | None, folds: Mapping[str, int] | None, test_ids: Collection[str]
) -> tuple[Split, list[str]]:
    """Return the split, and the test tiles that trained a model of the run."""
    if finished is None:
        if folds is None:
            return Split.planned_folds(tiles.ids, test_ids), []
        return Split.of_folds(folds, tiles.ids, test_ids), []
    run = finished.run
    models = {
        fold: (set(run.training_tiles(fold).ids), set(run.held_out_tiles(fold).ids)) for fold in run.held_out_folds
    }
    trained = {name for training, _ in models.values() for name in training}
    test = {*test_ids, *(() if run.test_tiles is None else run.test_tiles.ids)}
    if not trained & set(tiles.ids):
        raise DataError(f"{run.folder}: the run was trained on none of the tiles of {tiles.root}. Give its tiles.")
    return Split.of_models(models, test), [name for name in test_ids if name in trained]


def _prediction_checks(finished: FinishedRun, tiles: TileSet, found: list[Disagreement]) -> list[Check]:
    checks = [check("changed", finished.changed(tiles))]
    for kind in ("missed", "false"):
        some = [one for one in found if one.kind == kind and one.weight >= _LEAST_WEIGHT_PX]
        evidence = [Evidence(one.tile_id, one.weight, _describe(one)) for one in some]
        share = sum(one.share for one in some[:8])
        note = f"the first 8 tiles hold {share:.0%} of all {kind} pixels" if len(some) > 8 else ""
        checks.append(check(kind, evidence, status=None, note=note))
    return checks


def _describe(one: Disagreement) -> str:
    return (
        f"{one.area_px:,} px ({one.share:.1%} of all), mean probability {one.probability:.2f}, fold {one.fold}, "
        f"{len(one.regions)} region{'s' * (len(one.regions) != 1)}"
    )
