"""Differences P1 to P10 between the paper and this project, each with its figure on the given tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lim_keras.bundle.info import BundleInfo
from lim_keras.data.dataset_report import DatasetReport
from lim_keras.evaluation.evaluation import Evaluation, SubsetScores
from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Part, Table, Value
from lim_keras.reproduction import paper
from lim_keras.reproduction.context import MODELS, ReproductionContext
from lim_keras.reproduction.experiments import BASE, ablation_experiments, experiments
from lim_keras.reproduction.ground import share_apart, shared_ground
from lim_keras.reproduction.measures import SCENE, WINDOWS, Measure, ground_notes
from lim_keras.reproduction.scores import ExperimentScores
from lim_keras.reproduction.table2 import SIDE

TITLE = "Differences from the paper"

_COPIES, _FOLDS = 4, 5
"""Samples of a landslide tile after the paper's augmentation, and folds of FCN-FLK."""

_WEIGHTS = {"paper-text": (BASE, 0.75, 0.25), "paper-eq5": ("weights_paper_eq5", 0.25, 0.25)} | {
    "keras": ("weights_keras", 0.25, 0.75)
}
"""Setting of the ablation, landslide weight and background weight of each reading of Eq. 5."""

_METHODS = {"fcn_flk": "FCN-FLK", "fcn_fl": "FCN-FL", "fcn": "FCN"}

_COARSE_M, _RESAMPLED_M = 10.0, 1.0
"""Ground sample distances of Sentinel-2 and of the paper's map."""

_MISSING = "not measured, because the experiment is not finished"


def make_differences(context: ReproductionContext) -> Part:
    """Measure each of the differences P1 to P10 on the tiles and on the finished experiments."""
    facts = _Facts(context)
    rows = tuple(
        (f"P{number}", *row)
        for number, row in enumerate(
            (
                _imbalance(facts),
                _copies(facts),
                _ground(facts),
                _weights(facts),
                _intersections(facts),
                _precision(facts),
                _transfer(facts),
                _distance(facts),
                _centre(facts),
                _sizes(facts),
            ),
            1,
        )
    )
    columns = ("", "subject", "the paper", "measured here")
    overview = Table("differences", "The ten differences", columns, rows)
    tables = (overview, _implied_table(), *_weights_table(facts), *_protocol_table(facts))
    text = "Each row states what the paper does or prints, and what was measured for it on these tiles."
    return Part("differences", TITLE, (text,), tables)


@dataclass(frozen=True)
class _Facts:
    """Measurements that several differences need."""

    context: ReproductionContext

    @cached_property
    def report(self) -> DatasetReport:
        return DatasetReport.measure(self.context.tiles, SIDE, "paper")

    def scores(self, name: str) -> ExperimentScores | None:
        return self.context.scores(name) if name in self.context.experiments else None

    def best(self, method: str) -> ExperimentScores | None:
        """Return the scores of a method on whole tiles, or else on windows."""
        return self.scores(f"whole_{method}") or self.scores(f"windows_{method}")


def _imbalance(facts: _Facts) -> tuple[str, str, str]:
    before, inside, after = facts.report.imbalance.ratios.values()
    printed = f"{paper.IMBALANCE['before']:g} before and {paper.IMBALANCE['after']:g} after augmentation"
    here = f"{before:.1f} over all tiles, {inside:.1f} in landslide tiles, {after:.1f} over all after augmentation"
    return "imbalance ratio", printed, here


def _copies(facts: _Facts) -> tuple[str, str, str]:
    number = len(facts.context.tiles.of_kind("landslide"))
    share = share_apart([str(tile) for tile in range(number)] * _COPIES, _FOLDS)
    here = (
        f"in such a pool, {share:.1%} of the landslide samples have a copy of their tile in another fold; here copies "
        "are made of training tiles only, so the share is 0%"
    )
    return "copies of a tile", "augmented copies join the pool before it is split into folds", here


def _ground(facts: _Facts) -> tuple[str, str, str]:
    found = shared_ground(facts.context.tiles, _FOLDS, facts.context.progress)
    if not found.shared:
        here = f"none of the {found.tiles:,} landslide tiles shows ground of another one"
    else:
        here = (
            f"{found.shared:,} of {found.tiles:,} landslide tiles show ground of another one, in {found.groups:,} "
            f"groups; random folds put a tile of the same group into another fold for {found.apart:.0%} of them; here "
            "groups stay whole"
        )
    return "shared ground", "tiles are taken as independent", here


def _weights(facts: _Facts) -> tuple[str, str, str]:
    rows = _weight_rows(facts)
    figures = [f"{row[0]} {row[4]:.3f}, {row[5]:.3f}" for row in rows]
    here = f"precision and recall of {'; '.join(figures)} (table below)" if rows else _MISSING
    return "weights of the loss", "Eq. 5 scales both classes by 0.25; the text gives background 0.25", here


def _weight_rows(facts: _Facts) -> list[tuple[str, float, float, float, float, float, float]]:
    """Return name, weights, mean bias of the calibration, precision, recall and F1 of each reading of Eq. 5."""
    context, rows = facts.context, []
    for name, (setting, landslide, background) in _WEIGHTS.items():
        known = [one for one in ablation_experiments(context.settings, setting) if one in context.experiments]
        if not known:
            continue
        scores = [_on_landslides(context.scores(one).tiles).model for one in known]
        bias = float(np.mean([BundleInfo.read(context.folder / MODELS / one).bias for one in known]))
        means = [float(np.mean([one[score].value for one in scores])) for score in ("precision", "recall", "f1")]
        rows.append((name, landslide, background, bias, means[0], means[1], means[2]))
    return rows


def _weights_table(facts: _Facts) -> list[Table]:
    rows = _weight_rows(facts)
    columns = ("reading", "landslide weight", "background weight", "bias", "precision", "recall", "F1")
    notes = (
        "Means over the seeds of the ablation, on landslide test tiles, at the threshold of each model.",
        "Bias: what the calibration adds to the logits, so that probabilities fit the share of landslides. A loss that "
        "favours landslides needs a bias below 0; threshold and calibration undo most of the weights.",
    )
    title = "P4: three readings of the weights in Eq. 5"
    return [Table("differences_weights", title, columns, tuple(rows), notes)] if rows else []


def _intersections(facts: _Facts) -> tuple[str, str, str]:
    printed = paper.TABLE_3["fcn_flk"]
    inside = paper.implied_landslide_iou(printed)
    said = (
        f"mIoU {printed['miou']:.2f} over two classes, though Eq. 9 counts three; the F1 of {printed['f1']:.2f} means "
        f"an IoU of {inside:.2f} for landslides"
    )
    scores = facts.best("fcn_flk")
    if scores is None:
        return "IoU", said, _MISSING
    model = _on_landslides(scores.tiles).model
    names = {"landslides": "iou_landslide", "background": "iou_background", "mIoU": "miou"}
    here = ", ".join(f"{name} {model[score].value:.3f}" for name, score in names.items())
    return "IoU", said, f"FCN-FLK: {here}"


def _precision(facts: _Facts) -> tuple[str, str, str]:
    columns = {title: paper.TABLE_3[name] for name, title in _METHODS.items()}
    implied = ", ".join(f"{paper.implied_precision(column):.2f} {title}" for title, column in columns.items())
    shares = ", ".join(f"{paper.implied_share(column):.3f}" for column in columns.values())
    said = f"none; it follows from F1 and recall: {implied}. The shares of landslide pixels that follow: {shares}"
    found = {title: scores for name, title in _METHODS.items() if (scores := facts.best(name)) is not None}
    if not found:
        return "precision", said, _MISSING
    subsets = {title: _on_landslides(scores.tiles) for title, scores in found.items()}
    precision = ", ".join(f"{one.model['precision'].value:.3f} {title}" for title, one in subsets.items())
    share = next(iter(subsets.values())).landslide_share
    return "precision", said, f"{precision}; the share of landslide pixels is {share:.3f} for all of them"


def _implied_table() -> Table:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (title, *_implied(paper.TABLE_3[name])) for name, title in _METHODS.items()
    )
    columns = ("Table 3", "accuracy", "recall", "F1", "mIoU", "precision", "IoU landslide", "landslide share")
    note = (
        "The last three columns are computed from the others. All methods were tested on the same tiles, so the share "
        "of landslide pixels should be the same; that of FCN differs by more than rounding explains."
    )
    return Table(
        "differences_implied", "P5, P6: what follows from the paper's own numbers", columns, tuple(rows), (note,)
    )


def _implied(column: Mapping[str, float]) -> tuple[float, ...]:
    printed = (column[name] for name in ("accuracy", "recall", "f1", "miou"))
    follows = (paper.implied_precision, paper.implied_landslide_iou, paper.implied_share)
    return (*printed, *(compute(column) for compute in follows))


def _transfer(facts: _Facts) -> tuple[str, str, str]:
    said = "the column of FCN-FLK in Table 4, of another region, is equal to that of Table 3"
    scores = facts.best("fcn_flk")
    if scores is None:
        return "Table 4", said, _MISSING
    if scores.transfer is None:
        return "Table 4", said, "not measured without tiles of another region; `--transfer` adds them"
    here, there = (_on_landslides(one).model["f1"].value for one in (scores.tiles, scores.transfer))
    return "Table 4", said, f"F1 of FCN-FLK: {here:.3f} on the test tiles, {there:.3f} in the other region"


def _distance(facts: _Facts) -> tuple[str, str, str]:
    said = "bands of 10 m, resampled to 1 m, are mapped with a model of 0.8 m"
    tiles = facts.context.tiles.of_kind("landslide")
    default = experiments(facts.context.settings)[0].config.gsd_m
    areas = [
        tile.landslide_px * distance**2
        for tile in tiles
        if tile.landslide_px and (distance := tile.gsd_m or default) is not None
    ]
    if not areas:
        return "ground sample distance", said, "unknown, because the tiles have none"
    area = float(np.median(areas))
    distances = sorted({distance for tile in tiles if (distance := tile.gsd_m or default) is not None})
    known = f"{distances[0]:g} m" if len(distances) == 1 else f"{distances[0]:g} to {distances[-1]:g} m"
    coarse, fine = area / _COARSE_M**2, area / _RESAMPLED_M**2
    here = (
        f"tiles of {known}; the median landslide area of a tile, {area:,.0f} m², has {coarse:,.1f} pixels at 10 m; "
        f"resampled from 10 m to 1 m, it has {fine:,.0f} pixels and no more detail"
    )
    return "ground sample distance", said, here


def _centre(facts: _Facts) -> tuple[str, str, str]:
    said = f"none; F1 of FCN-FLK {paper.TABLE_3['fcn_flk']['f1']:.2f} on tiles cut around their landslides"
    bias = facts.report.centre_bias
    if bias is None:
        return "image-blind mask", said, "not measured without landslide pixels"
    held_out = bias.f1 if bias.held_out_f1 is None else bias.held_out_f1
    here = (
        f"a mask that never sees the image has F1 {held_out:.3f} on landslide tiles that it was not made from; the "
        f"standard deviation of a landslide's position is {bias.spread.std_x:.1%} of the tile's width and "
        f"{bias.spread.std_y:.1%} of its height (28.9% if uniform)"
    )
    return "image-blind mask", said, here


def _sizes(facts: _Facts) -> tuple[str, str, str]:
    sides = [side for tile in facts.context.tiles for side in (tile.width, tile.height)]
    shortest, longest = min(sides), max(sides)
    here = f"all sides are {longest:,} px; at {SIDE} px their scale changes by a factor of {SIDE / longest:.2f}"
    if shortest < longest:
        here = (
            f"sides of {shortest:,} to {longest:,} px; at {SIDE} px their scale changes by factors of "
            f"{SIDE / longest:.2f} to {SIDE / shortest:.2f}"
        )
    return "scale", f"every tile is resized to {SIDE} x {SIDE}", here


def _protocol_table(facts: _Facts) -> list[Table]:
    """Return the F1 of training on whole tiles and on windows, by protocol."""
    rows: list[tuple[Value, ...]] = []
    sources = {}
    for examples, title in (("whole", "whole tiles, resized"), ("windows", "windows at native scale")):
        scores = facts.scores(f"{examples}_fcn_fl")
        if scores is None:
            continue
        sources[scores.experiment] = scores.config_hash
        tiles = _on_landslides(scores.tiles)
        rows.append((title, tiles.blind["f1"], tiles.model["f1"], *(_f1(one, scores) for one in (WINDOWS, SCENE))))
    if not rows:
        return []
    columns = ("FCN-FL trained on", "image-blind mask, whole tiles", "whole tiles", "windows", "scene")
    notes = (
        "F1 of landslides: on landslide test tiles, on all windows of test tiles, and on the scene where one is given.",
        *ground_notes(rows),
    )
    return [Table("differences_protocols", "P9, P10: F1 by protocol", columns, tuple(rows), notes, sources)]


def _f1(measure: Measure, scores: ExperimentScores) -> Estimate | None:
    return measure.estimates(scores).get("f1")


def _on_landslides(evaluation: Evaluation) -> SubsetScores:
    return evaluation.scores("landslide" if "landslide" in evaluation.subsets else "all")
