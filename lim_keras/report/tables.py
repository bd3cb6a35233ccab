"""Tables of results for the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.evaluation.evaluation import Evaluation, RunEvaluation, Subset
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.detections import IOU, Detections

if TYPE_CHECKING:
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.overlap import Overlap
    from lim_keras.data.tiles import TileSet
    from lim_keras.evaluation.bundle_report import BundleReport
    from lim_keras.evaluation.negatives import FalseAlarms, NegativeReport
    from lim_keras.inventory.batch import BatchResult
    from lim_keras.inventory.scene_prediction import ScenePrediction


def format_gsd(gsd_m: float | None) -> str:
    """Format a ground sample distance in metres; None is "unknown"."""
    return "unknown" if gsd_m is None else f"{gsd_m:g} m"


def format_interval(score: Estimate) -> str:
    """Format the interval of a score; "-" where there is none."""
    return "-" if math.isnan(score.low) or math.isnan(score.high) else f"{score.low:.3f} to {score.high:.3f}"


_FILE_WIDTH = 160

_SCORES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou_landslide": "IoU landslide",
    "iou_background": "IoU background",
    "miou": "mIoU",
    "mcc": "MCC",
}

_BLIND_SCORES = ("f1", "iou_landslide", "miou")

_FOLD_SCORES = ("accuracy", "precision", "recall", "f1", "iou_landslide", "miou")

_CRITERIA = {"iou_50": f"IoU of at least {IOU}", "any_overlap": "any overlap"}

_AREAS = {"all": "all", "small": "< 1,000 m²", "medium": "1,000 to 10,000 m²", "large": "> 10,000 m²"}

_RATIOS = {"all_tiles": "all tiles", "landslide_tiles": "landslide tiles only"}


def print_result(parts: Sequence[Any]) -> None:
    """Print tables and lines to standard output, without colour codes if that is not a terminal."""
    console = Console(highlight=False, emoji=False)  # a path may contain `:car:`
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=_FILE_WIDTH)
    for part in parts:
        line = Text(part) if isinstance(part, str) else part
        if isinstance(line, Text):
            line.highlight_regex("^failed", "red")
        console.print(line, soft_wrap=isinstance(line, Text))  # a wrapped path cannot be copied


def heading(title: str, rest: str = "") -> Text:
    """Return a line that begins with a bold title."""
    return Text.assemble((title, "bold"), rest)


def new_table(title: str, *columns: str, **options: Any) -> Table:
    """Return an empty table; all columns but the first are aligned right."""
    table = Table(title=escape(title), **options)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def add_row(table: Table, *cells: str, style: str = "") -> None:
    """Add a row of plain text, because rich interprets square brackets in a string as markup."""
    table.add_row(*(Text(cell, style) for cell in cells))


def format_number(value: float) -> str:
    """Format a score with three decimals and no leading zero, as in the paper: .681; "-" for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def format_estimate(estimate: Estimate) -> str:
    """Format a score with its interval, such as .681 [.612 .743]; a line may break only before the bracket."""
    value, low, high = (format_number(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}\N{NO-BREAK SPACE}{high}]"


def evaluation_table(evaluations: Sequence[Evaluation], title: str) -> Table:
    """Show protocols side by side: every score with its 95 % interval, and the image-blind baseline below."""
    columns = [(one, subset, one.scores(subset)) for one in evaluations for subset in one.subsets]
    figures = [column[2] for column in columns]
    caption = "In brackets: 95 % interval, [- -] for samples of one group. Blind: baseline that does not use the image."
    table = Table(title=escape(title), caption=caption)
    for name in ("", *(_protocol_name(one, subset) for one, subset, _ in columns)):
        table.add_column(name)
    for score, name in _SCORES.items():
        cells = [format_estimate(one.model[score]) for one in figures]
        add_row(table, name, *cells, style="bold" if score == "f1" else "")
    add_row(table, "average precision", *(format_number(one.average_precision) for one in figures))
    table.add_section()
    for score in _BLIND_SCORES:
        add_row(table, f"blind {_SCORES[score]}", *(format_estimate(one.blind[score]) for one in figures))
    table.add_section()
    add_row(table, "samples", *(f"{one.samples}" for one in figures))
    add_row(table, "landslide pixels", *(f"{one.landslide_share:.1%}" for one in figures))
    return table


def _protocol_name(evaluation: Evaluation, subset: Subset) -> str:
    return "scene" if evaluation.protocol == "scene" else f"{subset} {evaluation.protocol}"


def fold_table(folds: Mapping[int, Evaluation], together: Evaluation | None, title: str, last: str = "pooled") -> Table:
    """Show a row for each fold, a row of means, and `together` (pooled predictions or ensemble) as row `last`."""
    table = Table(title=escape(title), caption="95 % intervals in brackets, from resampling groups of samples")
    for name in ("", *(_SCORES[score] for score in _FOLD_SCORES)):
        table.add_column(name)
    rows = {fold: evaluation.scores().model for fold, evaluation in folds.items()}
    for fold, scores in rows.items():
        add_row(table, f"fold {fold}", *(format_estimate(scores[score]) for score in _FOLD_SCORES))
    if together is not None:
        means = [float(np.mean([scores[score].value for scores in rows.values()])) for score in _FOLD_SCORES]
        table.add_section()
        add_row(table, "mean of the folds", *map(format_number, means))
        pooled = together.scores().model
        add_row(table, last, *(format_estimate(pooled[score]) for score in _FOLD_SCORES), style="bold")
    return table


def detections_table(detections: Detections, rule: ObjectRule | None = None) -> Table:
    """Show scores by polygon: for each criterion, a row for each area class; `rule`: what chose the polygons."""
    names = ("found", "mapped", "recall", "correct", "predicted", "precision", "F1")
    caption = "Area classes: recall uses the area of the mapped landslide, precision that of the predicted one."
    title = "Landslides as polygons" if rule is None else f"Landslides as polygons, by the object rule: {rule}"
    table = new_table(title, "", *names, caption=caption)
    for criterion, name in _CRITERIA.items():
        add_row(table, name, style="bold")
        for area, score in getattr(detections, criterion).items():
            recall, precision, f1 = map(format_number, (score.recall, score.precision, score.f1))
            found, right = (f"{score.found:,}", f"{score.truth:,}"), (f"{score.right:,}", f"{score.predicted:,}")
            table.add_row(f"  {_AREAS[area]}", *found, recall, *right, precision, Text(f1, "bold"))
        table.add_section()
    return table


def report_tables(report: BundleReport) -> list[Table]:
    """Show the protocols side by side, then the folds of each protocol and the scores by polygon, if known."""
    name = report.info.name
    title = f"{name}: scores at the stored threshold {report.info.threshold:.3f}"
    tables = [evaluation_table([one.evaluation for one in report.results], title)] if report.results else []
    for position, together in enumerate(report.results if report.folds else ()):
        folds = {fold: results[position].evaluation for fold, results in report.folds.items()}
        title = f"{name}: {together.evaluation.protocol}, all pixels"
        tables.append(fold_table(folds, together.evaluation, title, "ensemble"))
    tables += [detections_table(report.detections, report.rule)] if report.detections else []
    return [*tables, negatives_table(report.negatives, name)] if report.negatives else tables


def negatives_table(report: NegativeReport, name: str) -> Table:
    """Show the false alarms on images without landslides: a row for each group, and one for all."""
    columns = ("tiles", "with alarm", "area, km2", "called landslide", "alarms", "alarms a km2")
    table = new_table(f"{name}: false alarms on images without landslides ({report.rule})", "group", *columns)
    for group, one in report.groups.items():
        add_row(table, group, *_alarm_cells(one))
    table.add_section()
    add_row(table, "all", *_alarm_cells(report.all), style="bold")
    return table


def _alarm_cells(one: FalseAlarms) -> list[str]:
    area, share, density = one.area_km2, one.landslide_share, one.alarms_per_km2
    return [
        str(one.tiles),
        str(one.tiles_with_alarm),
        "-" if area is None else f"{area:.2f}",
        "-" if share is None else f"{share:.2%}",
        str(one.alarms),
        "-" if density is None else f"{density:.1f}",
    ]


def run_tables(evaluation: RunEvaluation) -> list[Table | str]:
    """Show the results of a training run, and a line with its threshold and calibration."""
    name, several = evaluation.name, len(evaluation.out_of_fold) > 1
    held_out = "out-of-fold tiles" if several else "validation tiles"
    pooled = evaluation.pooled if several else None
    tables: list[Table | str] = [fold_table(evaluation.out_of_fold, pooled, f"{name}: {held_out}, all pixels")]
    for protocol, together in evaluation.test.items() if evaluation.test_folds else ():
        folds = {fold: parts[protocol] for fold, parts in evaluation.test_folds.items()}
        tables.append(fold_table(folds, together, f"{name}: test, {protocol}, all", last="ensemble"))
    if evaluation.test:
        title = f"{name}: test tiles at the chosen threshold"
        tables.append(evaluation_table(list(evaluation.test.values()), title))
    calibration = evaluation.calibration
    figures = f"temperature {calibration.temperature:.3f}, bias {calibration.bias:.3f}"
    return [*tables, f"threshold {evaluation.threshold:.3f}, {figures} (from {held_out})"]


def scene_table(result: BatchResult) -> Table:
    """Show a row for each scene: landslides, areas and speed, or that it failed."""
    names = ("landslides", "left out", "area, ha", "valid, km2", "Mpx/s", "seconds")
    table = new_table("landslide inventory", "scene", *names)
    for one in result.predictions:
        add_row(table, *_scene_cells(one))
    for scene in result.failures:
        table.add_row(Text(Path(scene).name), Text("failed", "red"))
    return table


def _scene_cells(one: ScenePrediction) -> list[str]:
    summary = one.summary
    area, valid = summary["landslide_area_m2"], summary["valid_area_m2"]
    left_out = sum(number or 0 for number in summary.get("left_out", {}).values())
    return [
        Path(one.scene).name,
        f"{summary['landslides']:,}",
        f"{left_out:,}",
        "" if area is None else f"{area / 1e4:,.2f}",
        "" if valid is None else f"{valid / 1e6:,.3f}",
        f"{summary['megapixels_per_second']:.2f}",
        "already mapped" if one.was_there else f"{summary['seconds']['all']:.0f}",
    ]


def dataset_tables(report: DatasetReport) -> list[Table]:
    """Show counts, Table 2 of Chen et al. 2022, the three imbalance ratios and the centre bias."""
    content = report.to_dict()
    title = f"{content['data']}: {len(report.tiles)} tiles, {content['bands']} bands, {content['dtype']}"
    counts = new_table(title, "native size", "landslide tiles", "non-landslide tiles", title_justify="left")
    kinds = content["tiles"].values()
    for name in next(iter(kinds)):
        add_row(counts, name.replace("_px", " (px)").replace("_", " "), *(_count(kind[name]) for kind in kinds))
    title = f"Samples at {content['size']} x {content['size']} (Table 2), augmentation: {content['augmentation']}"
    samples = new_table(title, "", "before augmentation", "after augmentation", title_justify="left")
    sides = content["table_2"].values()
    for name in ("landslide_samples", "non_landslide_samples", "landslide_px", "background_px"):
        label = name.replace("non_", "non-").replace("_px", " pixels").replace("_", " ")
        add_row(samples, label, *(_count(side[name]) for side in sides))
    add_row(samples, "imbalance ratio", *(_ratio(side["imbalance_ratio"]) for side in sides))
    names = ("background over landslide pixels of", "ratio")
    ratios = new_table("Imbalance ratio (Eq. 3)", *names, title_justify="left")
    for name, ratio in content["imbalance_ratio"].items():
        add_row(ratios, _RATIOS.get(name, name.replace("_", " ")), _ratio(ratio))
    return [counts, samples, ratios, *_centre_table(report)]


def _centre_table(report: DatasetReport) -> list[Table]:
    bias, content = report.centre_bias, report.to_dict()["centre_bias"]
    if bias is None:
        return []
    table = new_table("Centre bias of landslide tiles", "", "here", "no bias", title_justify="left")
    spread, even = content["centroids"], f"{content['uniform_std']:.3f}"
    mean = f"{spread['mean_x']:.3f}, {spread['mean_y']:.3f}"
    add_row(table, "mean of landslide centroids (x, y)", mean, "0.500, 0.500")
    std = f"{spread['std_x']:.3f}, {spread['std_y']:.3f}"
    add_row(table, "standard deviation (x, y)", std, f"{even}, {even}")
    everywhere = f"{bias.everywhere_f1:.3f} (all landslide)"
    for tiles, f1 in (("same", content["blind_f1"]), ("held-out", content["blind_f1_held_out"])):
        if f1 is not None:
            add_row(table, f"F1 of the image-blind mask, {tiles} tiles", f"{f1:.3f}", everywhere)
    return [table]


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def overlap_table(grouped: TileSet, overlaps: Sequence[Overlap]) -> Table:
    """Show how many tiles share ground, by kind; `grouped` is the result of `group_overlaps`."""
    names = ("tiles", "in a group", "groups", "largest group")
    title, caption = f"{grouped.root}: tiles that share ground", f"{len(overlaps):,} overlapping pairs"
    table = new_table(title, "", *names, title_justify="left", caption=caption)
    kinds = {kind: grouped.of_kind(kind) for kind in ("landslide", "non-landslide")}
    for name, some in (*kinds.items(), ("all", grouped)):
        sizes = Counter(tile.group for tile in some if tile.group)
        figures = (len(some), sizes.total(), len(sizes), max(sizes.values(), default=0))
        add_row(table, name, *(f"{figure:,}" for figure in figures))
    return table
