"""Tables of bundles for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from lim_keras.bundle.info import BundleInfo, FamiliarityFacts, LiteRtFigures, MeasuredHalo
from lim_keras.bundle.object_rule import WORKING_POINTS, CurvePoint, FittedRule, WorkingPoint
from lim_keras.report.tables import add_row, format_estimate, format_gsd, format_interval, format_number, new_table

_VERDICTS = {True: "met", False: "not met", None: "not measured"}


def info_tables(info: BundleInfo) -> list[Table]:
    """Show what a bundle records: facts, scores, sizes of its parts, and LiteRT files."""
    facts = new_table(info.name, title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in _facts(info):
        add_row(facts, name, value)
    scores = [_score_table(info)] if info.metrics else []
    rule = [rule_table(info.object_rule)] if info.object_rule else []
    litert = [litert_table(info.litert)] if info.litert else []
    return [facts, *scores, *rule, _size_table(info), *litert]


def _facts(info: BundleInfo) -> list[tuple[str, str]]:
    bands = "; ".join(
        f"{band.mean:.4g} +- {band.std:.4g} ({band.min:.4g} to {band.max:.4g})" for band in info.statistics
    )
    return [
        ("network", str(info.model.get("name", "unknown"))),
        ("encoder", str(info.model.get("encoder", "unknown"))),
        ("bands", f"{info.bands}, {info.dtype}; mean +- deviation (range): {bands}"),
        ("ground sample distance", format_gsd(info.gsd_m)),
        ("folds", str(info.folds)),
        ("threshold", f"{info.threshold:.4f}"),
        ("calibration", f"temperature {info.temperature:.4f}, bias {info.bias:.4f}"),
        ("sampling", f"{info.sampling.get('mode', 'unknown')}, {info.sampling.get('size', 'unknown')} px"),
        ("stride, halo", f"{info.stride} px, {info.halo} px"),
        *((f"halo within {one.tolerance:g}", format_halo(one)) for one in info.halos),
        ("familiarity", _format_familiarity(info.familiarity)),
        ("training tiles", str(len(info.training_tiles))),
        ("test tiles", str(len(info.test_tiles))),
        ("data terms", info.data_terms or "not recorded"),
        ("data", info.data_link or "not recorded"),
        ("configuration", info.config_hash),
        ("exported", f"{info.created:%Y-%m-%d %H:%M %Z} by lim_keras {info.lim_keras_version}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]


def _format_familiarity(facts: FamiliarityFacts | None) -> str:
    if facts is None:
        return "not known; predict does not compare scenes with the training imagery"
    cells = f"{facts.training_cells} training and {facts.held_out_cells} held-out cells of {facts.side} px"
    return f"fitted on {cells}; unfamiliar above a distance of {facts.limit:.4g}"


def format_halo(measured: MeasuredHalo) -> str:
    """Format a measured halo and its measurement."""
    return (
        f"{measured.halo} px; largest difference {measured.max_difference:.2g} on {measured.pixels / 1e6:.1f} million "
        "pixels of training imagery"
    )


def _score_table(info: BundleInfo) -> Table:
    table = Table("evaluated on", "score", "value", "95 % interval", title="Scores", title_justify="left")
    for name, scores in info.metrics.items():
        for score, estimate in scores.items():
            add_row(table, name, score, f"{estimate.value:.3f}", format_interval(estimate))
    return table


def _size_table(info: BundleInfo) -> Table:
    total = sum(file.bytes for file in info.files.values())
    title = f"{len(info.files)} files, {_megabytes(total)}"
    table = Table("part", "files", "size", title=title, title_justify="left")
    for part in sorted({name.split("/")[0] for name in info.files}):
        sizes = [file.bytes for name, file in info.files.items() if name.split("/")[0] == part]
        add_row(table, part, str(len(sizes)), _megabytes(sum(sizes)))
    return table


_RULE_SCORES = {
    "recall_any_overlap": "recall",
    "precision_any_overlap": "precision",
    "f1_any_overlap": "F1",
    "f1_iou_50": "F1 at IoU 0.5",
    "false_alarms_km2": "false alarms a km2",
}

_CARD_POINTS = 8  # points of the curve in a model card


def rule_table(fitted: FittedRule) -> Table:
    """Show the working points of an object rule with their scores on the held-out tiles, and all regions last."""
    rows = rule_rows(fitted)
    table = new_table("Object rule", *rows[0], title_justify="left", caption=describe_fit(fitted))
    for row in rows:
        add_row(table, *row.values())
    return table


def rule_rows(fitted: FittedRule) -> list[dict[str, str]]:
    """Return the rows of `rule_table`: values by column."""
    points = {name: fitted.working_points[name] for name in WORKING_POINTS}
    return [_rule_row(name, point) for name, point in (*points.items(), ("all regions", fitted.without))]


def _rule_row(name: str, point: WorkingPoint) -> dict[str, str]:
    scores = {title: format_estimate(point.scores[key]) for key, title in _RULE_SCORES.items()}
    return {"working point": name, **_rule_values(point), **scores}


def _rule_values(point: WorkingPoint | CurvePoint) -> dict[str, str]:
    peak = f"{point.peak:.3g}" if point.peak > point.threshold else "-"
    return {"threshold": f"{point.threshold:.3g}", "peak": peak, "smallest area, m2": f"{point.min_area_m2:g}"}


def describe_fit(fitted: FittedRule) -> str:
    """Say what an object rule was fitted on."""
    area = "" if fitted.area_km2 is None else f" on {fitted.area_km2:.2f} km2"
    origin = {
        "out_of_fold": "each predicted by the fold that was not trained on it",
        "held_out": "which trained no model",
    }[fitted.source]
    return (
        f"{fitted.landslides:,} landslides{area} of {fitted.tiles:,} held-out tiles, {origin}. In brackets: 95 % "
        "interval over groups of tiles, without the choice of the rule. Without `IoU`: any overlap counts."
    )


def rule_markdown(fitted: FittedRule) -> str:
    """Return the tables of an object rule for a model card, in Markdown: working points, and points of the curve."""
    curve, tables = fitted.curve, (_markdown(rule_rows(fitted)), describe_fit(fitted))
    if not curve:  # no rule finds any landslide
        return "\n\n".join(tables)
    if len(curve) > _CARD_POINTS:
        step = (len(curve) - 1) / (_CARD_POINTS - 1)
        curve = tuple(curve[round(step * number)] for number in range(_CARD_POINTS))
    points = [
        {
            "recall": format_number(point.recall),
            "false alarms a km2": "-" if point.false_alarms_km2 is None else f"{point.false_alarms_km2:.2f}",
            **_rule_values(point),
            "F1": format_number(point.f1_any_overlap),
            "F1 at IoU 0.5": format_number(point.f1_iou_50),
        }
        for point in curve
    ]
    best = "The fewest false alarms for a recall:"
    return "\n\n".join((*tables, best, _markdown(points)))


def litert_table(files: Mapping[str, LiteRtFigures], refused: Collection[str] = ()) -> Table:
    """Show a row for each LiteRT file beside the scores of its SavedModel; `refused` files were not kept."""
    first = next(iter(files.values()))
    title = f"LiteRT files, beside the SavedModel on {first.windows} windows of {first.side} px"
    table = Table(title=title, title_justify="left")
    rows = [_litert_row(name, files[name]) for name in sorted(files)]
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name == "file")
    for row in rows:
        verdict = "refused" if row["file"] in refused else row[""]
        add_row(table, *(row | {"": verdict}).values())
    return table


def litert_markdown(files: Mapping[str, LiteRtFigures]) -> str:
    """Return the LiteRT table of a model card, in Markdown; "" without files."""
    rows = [_litert_row(name, files[name]) for name in sorted(files)]
    if not rows:
        return ""
    return _markdown(rows)


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _litert_row(name: str, figures: LiteRtFigures) -> dict[str, str]:
    return {
        "file": name,
        "size": _megabytes(figures.bytes),
        "windows": "any" if figures.tile is None else f"{figures.tile} px",
        "milliseconds": f"{figures.milliseconds_per_tile:.1f} ({figures.side} px)",
        "landslide F1": _score(figures.landslide_f1),
        "IoU": _score(figures.landslide_iou),
        "SavedModel F1": _score(figures.saved_model_f1),
        "SavedModel IoU": _score(figures.saved_model_iou),
        "largest difference": f"{figures.max_difference:.1e}",
        "mean": f"{figures.mean_difference:.1e}",
        "limit": figures.limit,
        "": _VERDICTS[figures.within],
    }


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def serving_table(
    models_file: Path, models: Sequence[str], *, stable: int, canary: int, loaded: Sequence[int]
) -> Table:
    """Show the version numbers of the models in a repository for TensorFlow Serving."""
    table = new_table(str(models_file), "model", "stable", "canary", "loaded")
    for model in models:
        add_row(table, model, str(stable), str(canary), ", ".join(map(str, loaded)))
    return table
