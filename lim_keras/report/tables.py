"""Result tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lim_keras.bundle.info import BundleInfo, LiteRtFigures
from lim_keras.bundle.litert import LiteRtFile
from lim_keras.evaluation.evaluation import Evaluation, Figures, Subset
from lim_keras.metrics.binary import Estimate

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


def format_number(value: float) -> str:
    """A score in three digits, as in the paper without the leading zero: .681; "-" where nothing was measured."""
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def format_estimate(estimate: Estimate) -> str:
    """A score with its interval: .681 [.612 .743]; a narrow table breaks it before the bracket only."""
    value, low, high = (format_number(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}\N{NO-BREAK SPACE}{high}]"


def evaluation_table(evaluations: Sequence[Evaluation], title: str) -> Table:
    """Protocols side by side: every score with its 95 % interval, and below what an image-blind predictor gets."""
    table = Table(title=title, caption="In brackets: 95 % interval. Blind: a predictor that never looks at the image.")
    table.add_column("")
    columns: list[Figures] = []
    for evaluation in evaluations:
        for subset in evaluation.subsets:
            table.add_column(_heading(evaluation, subset))
            columns.append(evaluation.figures(subset))
    for score, name in _SCORES.items():
        _add(table, name, [format_estimate(figures.model[score]) for figures in columns], bold=score == "f1")
    _add(table, "average precision", [format_number(figures.average_precision) for figures in columns])
    table.add_section()
    for score in _BLIND_SCORES:
        _add(table, f"blind {_SCORES[score]}", [format_estimate(figures.blind[score]) for figures in columns])
    table.add_section()
    _add(table, "places", [f"{figures.places}" for figures in columns])
    _add(table, "landslide pixels", [f"{figures.landslide_share:.1%}" for figures in columns])
    return table


def _heading(evaluation: Evaluation, subset: Subset) -> str:
    if evaluation.protocol == "scene":
        return "scene"
    return f"landslide {evaluation.protocol}" if subset == "landslide" else f"all {evaluation.protocol}"


def _add(table: Table, name: str, cells: list[str], *, bold: bool = False) -> None:
    # Text, because rich would take square brackets in a string for markup.
    style = "bold" if bold else ""
    table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))


_COLUMNS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou_landslide": "IoU landslide",
    "miou": "mIoU",
}


def fold_table(folds: Mapping[int, Evaluation], together: Evaluation | None, title: str, last: str = "pooled") -> Table:
    """A row a fold, their mean, and what they come to together, over all pixels of the places.

    Args:
        folds: evaluation of each fold's model.
        together: of the pooled predictions, or of the ensemble; None where there is one model only.
        title: above the table.
        last: what the last row is called.
    """
    table = Table(title=title, caption="95 % intervals in brackets, from resampling groups of places")
    table.add_column("")
    for name in _COLUMNS.values():
        table.add_column(name)
    rows = {fold: evaluation.figures().model for fold, evaluation in folds.items()}
    for fold, scores in rows.items():
        _add_fold_table(table, f"fold {fold}", [format_estimate(scores[score]) for score in _COLUMNS])
    if together is not None:
        means = [float(np.mean([scores[score].value for scores in rows.values()])) for score in _COLUMNS]
        table.add_section()
        _add_fold_table(table, "mean of the folds", [format_number(mean) for mean in means])
        _add_fold_table(table, last, [format_estimate(together.figures().model[score]) for score in _COLUMNS], "bold")
    return table


def _add_fold_table(table: Table, name: str, cells: list[str], style: str = "") -> None:
    # Text, because rich would take square brackets in a string for markup.
    table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))


_LITERT_COLUMNS = (
    "file",
    "size",
    "windows",
    "milliseconds",
    "landslide F1",
    "IoU",
    "SavedModel F1",
    "IoU",
    "largest difference",
    "mean",
    "limit",
    "",
)

_VERDICTS = {True: "met", False: "not met", None: "not measured"}


def litert_markdown(info: BundleInfo) -> str:
    """Return the table of LiteRT files for a model card; "" without files."""
    if not info.litert:
        return ""
    lines = [_LITERT_COLUMNS, ("---",) * len(_LITERT_COLUMNS), *_litert_rows(info)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _litert_rows(info: BundleInfo) -> list[tuple[str, ...]]:
    return [_litert_row(name, figures) for name, figures in sorted(info.litert.items())]


def _litert_row(name: str, figures: LiteRtFigures) -> tuple[str, ...]:
    scores = (figures.landslide_f1, figures.landslide_iou, figures.saved_model_f1, figures.saved_model_iou)
    return (
        name,
        _megabytes(figures.bytes),
        "any" if figures.tile is None else f"{figures.tile} px",
        f"{figures.milliseconds_per_tile:.1f} ({figures.side} px)",
        *map(_known, scores),
        f"{figures.max_difference:.1e}",
        f"{figures.mean_difference:.1e}",
        figures.limit,
        _VERDICTS[figures.within],
    )


def _known(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def litert_export_table(
    files: Mapping[str, LiteRtFile], reference: Mapping[str, float | None], refused: Collection[str]
) -> Table:
    """Table of exported LiteRT files, the SavedModel first.

    Args:
        files: measured files by name.
        reference: scores of the SavedModel, `f1` and `iou_landslide`.
        refused: names of the files that were not kept.
    """
    seen = next(iter(files.values())).measured
    table = Table(title=f"LiteRT files on {seen.windows} windows of {seen.side} px")
    for name in ("file", "KiB", "ms/window", "landslide F1", "landslide IoU", "max diff", "mean diff", "limit", ""):
        table.add_column(name, justify="left" if name in ("file", "limit", "") else "right")
    table.add_row("SavedModel", "", "", _known(reference["f1"]), _known(reference["iou_landslide"]))
    for name, file in files.items():
        seen = file.measured
        table.add_row(
            name,
            f"{file.record.bytes / 1024:,.0f}",
            f"{seen.milliseconds_per_tile:.1f}",
            _known(seen.landslide_f1),
            _known(seen.landslide_iou),
            f"{seen.max_difference:.2e}",
            f"{seen.mean_difference:.2e}",
            seen.limit,
            "refused" if name in refused else _VERDICTS[seen.within],
        )
    return table


def serving_table(title: str, models: Sequence[str], *, stable: int, canary: int, loaded: Sequence[int]) -> Table:
    """Table of a TensorFlow Serving repository: one row per model with its labelled and loaded versions."""
    table = Table(title=escape(title))
    for name in ("model", "stable", "canary", "loaded"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for model in models:
        table.add_row(model, str(stable), str(canary), ", ".join(map(str, loaded)))
    return table


def bundle_tables(info: BundleInfo) -> list[Table]:
    """Tables of what model.json records: facts, scores, files and LiteRT files."""
    facts = Table(title=escape(info.name), title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in _facts(info).items():
        facts.add_row(name, escape(value))
    tables = [facts, _files_table(info)]
    if info.metrics:
        tables.insert(1, _scores_table(info))
    if info.litert:
        title = "LiteRT files, beside the SavedModel on the same windows"
        lite = Table(title=title, title_justify="left")
        for column in _LITERT_COLUMNS:
            lite.add_column(column, overflow="fold")
        for row in _litert_rows(info):
            lite.add_row(*map(escape, row))
        tables.append(lite)
    return tables


def _facts(info: BundleInfo) -> dict[str, str]:
    bands = "; ".join(
        f"{band.mean:.4g} +- {band.std:.4g} ({band.min:.4g} to {band.max:.4g})" for band in info.statistics
    )
    return {
        "network": str(info.model.get("name", "unknown")),
        "encoder": str(info.model.get("encoder", "unknown")),
        "bands": f"{info.bands}, {info.dtype}; mean +- deviation (range): {bands}",
        "ground sample distance": format_gsd(info.gsd_m),
        "folds": str(info.folds),
        "threshold": f"{info.threshold:.4f}",
        "calibration": f"temperature {info.temperature:.4f}, bias {info.bias:.4f}",
        "sampling": f"{info.sampling.get('mode', 'unknown')}, {info.sampling.get('size', 'unknown')} px",
        "stride, halo": f"{info.stride} px, {info.halo} px",
        "training tiles": str(len(info.training_tiles)),
        "test tiles": str(len(info.test_tiles)),
        "data terms": info.data_terms or "not recorded",
        "data": info.data_link or "not recorded",
        "configuration": info.config_hash,
        "exported": f"{info.created:%Y-%m-%d %H:%M %Z} by lim_keras {info.lim_keras_version}",
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
    }


def _scores_table(info: BundleInfo) -> Table:
    table = Table("judged on", "score", "value", "95 % interval", title="Scores", title_justify="left")
    for judged, scores in info.metrics.items():
        for name, figure in scores.items():
            table.add_row(escape(judged), escape(name), f"{figure.value:.3f}", format_interval(figure))
    return table


def _files_table(info: BundleInfo) -> Table:
    title = f"{len(info.files)} files, {_megabytes(sum(file.bytes for file in info.files.values()))}"
    table = Table("part", "files", "size", title=title, title_justify="left")
    parts = [name.split("/")[0] for name in info.files]
    for part in sorted(set(parts)):
        size = sum(file.bytes for name, file in info.files.items() if name.split("/")[0] == part)
        table.add_row(escape(part), str(parts.count(part)), _megabytes(size))
    return table


def format_gsd(gsd_m: float | None) -> str:
    """Return a ground sample distance in metres, or "unknown"."""
    return "unknown" if gsd_m is None else f"{gsd_m:g} m"


def format_interval(figure: Estimate) -> str:
    """Return the interval of a score, "-" where there is none."""
    return "-" if math.isnan(figure.low) or math.isnan(figure.high) else f"{figure.low:.3f} to {figure.high:.3f}"
