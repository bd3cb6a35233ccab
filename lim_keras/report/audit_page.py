"""HTML page of an audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lim_keras.data.findings import FEATURES, AuditReport, Check, Disagreement, Part
from lim_keras.evaluation.evaluation import Prediction
from lim_keras.progress import ProgressCallback, track
from lim_keras.report.audit_pictures import disagreement_pictures, feature_charts, tile_picture
from lim_keras.report.html import Block, Cell, Figure, Page, Picture, Rows, Section, chart, picture, render_page

Predict = Callable[[str], Prediction]
"""Function that returns the out-of-fold prediction of a tile."""

_PICTURES, _PAIRS, _CANDIDATES, _ROWS = 12, 8, 30, 20
"""Most tiles, pairs and candidates (of each kind) with pictures, and rows of a table."""

_PARTS: dict[Part, str] = {
    "leaks": "Leaks between training and test",
    "labels": "Labels",
    "images": "Images",
    "set": "The set as a whole",
    "predictions": "Labels that the predictions contradict",
}
_MARKS = {"leak": "leak", "found": "found", "clear": "ok", "skipped": "not checked"}

_CHARTS = {name: meaning[0].upper() + meaning[1:] for name, meaning in FEATURES.items()}
_LEGEND = (
    "Left: image. Middle: label in yellow, prediction in blue, largest regions boxed. Right: probability, from pale "
    "yellow (0) to dark red (1)."
)


def audit_page(report: AuditReport, predict: Predict | None = None, *, progress: ProgressCallback | None = None) -> str:
    """Return the page as HTML; `predict` reads the predictions of the candidates for label errors.

    Args:
        report: results of the audit.
        predict: function that returns the out-of-fold prediction of a tile; None without a run.
        progress: receives the number of finished parts.
    """
    sections = [_overview(report)]
    parts = [(part, [one for one in report.checks if one.part == part]) for part in _PARTS]
    for part, checks in track(parts, "drawing the page", len(parts), progress, "sections"):
        blocks = [_block(report, check, predict) for check in checks if check.is_finding]
        if part == "set":
            blocks.append(_figures(report))
        if blocks:
            sections.append(Section(_PARTS[part], part, blocks))
    title = f"Audit of {report.tiles.root.name or report.tiles.root}"
    return render_page(Page(title, _summary(report), sections))


def _summary(report: AuditReport) -> list[str]:
    tiles = report.tiles
    landslides = sum(tile.kind == "landslide" for tile in tiles)
    lines = [
        f"{len(tiles):,} tiles in {tiles.root}: {landslides:,} with landslides, {len(tiles) - landslides:,} without; "
        f"{tiles.bands} bands, {tiles.dtype}."
    ]
    if report.has_leak:
        lines.append("The split leaks: scores on it are too good.")
    number = len(report.findings)
    lines.append(f"{number} of {len(report.checks)} checks found something." if number else "No defect found.")
    return lines


def _overview(report: AuditReport) -> Section:
    rows = [
        (
            Cell(check.title, anchor=check.name if check.is_finding else ""),
            Cell(_MARKS[check.status], check.status),
            Cell(f"{check.count:,}" if check.count else "", "number"),
            check.note,
        )
        for check in report.checks
    ]
    return Section("All checks", "checks", [Block(tables=[Rows(("check", "result", "number", "figures"), rows)])])


def _block(report: AuditReport, check: Check, predict: Predict | None) -> Block:
    figures: Sequence[Figure]
    if check.name in ("missed", "false"):
        figures = () if predict is None else list(_candidates(report, check.name, predict))
    else:
        figures = list(_evidence(report, check))
    lines = [f"{check.explanation} {check.advice}", *([check.note] if check.note else [])]
    if check.name in ("missed", "false"):
        lines.append(_LEGEND)
    tables = [] if figures and check.part == "predictions" else _table(check)  # the captions say the same
    mark, title = _MARKS[check.status], f"{check.title} ({check.count:,})" if check.count else check.title
    return Block(title, check.name, mark, check.status, lines, tables, figures)


def _table(check: Check) -> list[Rows]:
    if not check.evidence:
        return []
    pairs = any(one.other for one in check.evidence)
    rows = [(one.tile_id, *((one.other,) if pairs else ()), one.text) for one in check.evidence[:_ROWS]]
    rest = check.count - len(rows)
    caption = f"The first {len(rows)} of {check.count:,}; the JSON file lists all." if rest > 0 else ""
    return [Rows(("tile", *(("with",) if pairs else ()), "figures"), rows, caption)]


def _evidence(report: AuditReport, check: Check) -> Iterator[Figure]:
    pairs = any(one.other for one in check.evidence)
    for one in check.evidence[: _PAIRS if pairs else _PICTURES]:
        pictures = [_tile(report, name) for name in (one.tile_id, one.other) if name]
        names = f"{one.tile_id} and {one.other}" if one.other else one.tile_id
        drawn = [found for found in pictures if found is not None]
        if drawn:
            yield Figure(drawn, f"{names}: {one.text}")


def _tile(report: AuditReport, tile_id: str) -> Picture | None:
    pixels = tile_picture(report.tiles[tile_id])
    return None if pixels is None else picture(pixels, f"tile {tile_id} with the outline of its label")


def _candidates(report: AuditReport, kind: str, predict: Predict) -> Iterator[Figure]:
    chosen = [one for one in report.disagreements if one.kind == kind][:_CANDIDATES]
    for number, one in enumerate(chosen, 1):
        tile = report.tiles[one.tile_id]
        pixels = disagreement_pictures(tile, one, predict(one.tile_id), report.threshold or 0.5)
        texts = ("image", "label and prediction", "probability")
        pictures = [picture(part, f"tile {one.tile_id}: {text}") for part, text in zip(pixels, texts, strict=True)]
        yield Figure(pictures, f"{number}. {_caption(one)}")


def _caption(one: Disagreement) -> str:
    regions = "; ".join(f"{region.area_px:,} px at {region.probability:.2f}" for region in one.regions[:3])
    return (
        f"{one.tile_id}, fold {one.fold}: {one.area_px:,} {one.kind} px, {one.share:.1%} of all. Largest regions, with "
        f"their mean probability: {regions}."
    )


def _figures(report: AuditReport) -> Block:
    """Show imbalance and centre bias as a table, and the figures of the tiles as charts."""
    content = report.dataset.to_dict()
    ratios = content["imbalance_ratio"]
    rows = [
        (f"background over landslide pixels, {name.replace('_', ' ')}", "-" if ratio is None else f"{ratio:.2f}")
        for name, ratio in ratios.items()
    ]
    bias = report.dataset.centre_bias
    if bias is not None:
        held_out = bias.f1 if bias.held_out_f1 is None else bias.held_out_f1
        rows.append(("F1 of a mask that never sees the image", f"{held_out:.3f}"))
        rows.append(("F1 of landslide everywhere", f"{bias.everywhere_f1:.3f}"))
        spread = bias.spread
        rows.append(("mean position of landslides in the tile (x, y)", f"{spread.mean_x:.3f}, {spread.mean_y:.3f}"))
        rows.append(("its deviation; 0.289 if spread evenly", f"{spread.std_x:.3f}, {spread.std_y:.3f}"))
    cells = [(name, Cell(value, "number")) for name, value in rows]
    charts = [
        Figure([chart(drawn, _CHARTS.get(name, name))], "", is_wide=True)
        for name, drawn in feature_charts(report, _CHARTS)
    ]
    return Block("Imbalance, centre bias and figures of the tiles", "numbers", tables=[Rows((), cells)], figures=charts)
