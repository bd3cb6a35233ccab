"""Report on runs: overview, scores, differences, curves, calibration, tiles and settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lim_keras.comparison import curves
from lim_keras.comparison.comparison import RunComparison, TileCounts, tile_counts
from lim_keras.comparison.curves import PROTOCOL_NAMES, chunks, listed
from lim_keras.comparison.differences import SCORES, PairedDifference, changed_settings, differing_settings
from lim_keras.comparison.recorded_scores import false_alarms, ranked, tile_f1
from lim_keras.comparison.run_folder import RunFolder
from lim_keras.comparison.stored_predictions import stored_predictions
from lim_keras.evaluation.evaluation import SampleScore, Subset, SubsetScores
from lim_keras.metrics.binary import Estimate
from lim_keras.progress import ProgressCallback, track
from lim_keras.report.figures import overlay_figure
from lim_keras.report.model_charts import score_chart
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.report.style import pixels_of

_SUBSETS: dict[Subset, str] = {"landslide": "with landslides", "all": "all"}
_COLUMNS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "iou_landslide": "IoU landslide",
    "miou": "mIoU",
}
_MORE_COLUMNS = ("accuracy", "average precision", "F1, image-blind mask", "samples", "landslide")
_MAIN: tuple[tuple[str, Subset], ...] = (("tiles", "landslide"), ("windows", "all"), ("out_of_fold", "all"))
"""Protocol and subset of the charts."""

_SPACE = "\N{NO-BREAK SPACE}"

_SHOWN, _LISTED = 5, 10
"""Tiles with pictures and tiles in a table, of each kind."""

_PICTURED_RUNS, _CHART_ROWS, _SIDE_BY_SIDE = 6, 30, 6
"""Most runs with pictures of tiles, rows of a chart, and runs as columns of a table."""


def comparison_parts(comparison: RunComparison, progress: ProgressCallback | None = None) -> list[Part]:
    """Make the parts of the report; those without content are left out."""
    makers: tuple[Callable[[RunComparison], Part | None], ...] = (
        _overview,
        _differences,
        _scores,
        _folds,
        curves.training_curves,
        curves.precision_recall,
        curves.calibration,
        curves.object_rule,
        _tiles,
        _data,
        _settings,
    )
    made = [make(comparison) for make in track(makers, "drawing the report", len(makers), progress, "parts")]
    return [part for part in made if part is not None]


def summary_lines(comparison: RunComparison) -> list[str]:
    """Say how many runs there are, and which cannot be compared."""
    runs, finished = comparison.runs, comparison.finished
    lines = [f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, {len(finished)} finished."]
    groups = comparison.groups
    if len(groups) > 1:
        names = "; ".join(listed(group) for group in groups[:_LISTED])
        more = f"; and {len(groups) - _LISTED} more" if len(groups) > _LISTED else ""
        lines.append(f"Scores of runs that predicted different tiles cannot be compared: {names}{more}.")
    unknown = [run.label for run in runs if not run.data_digest]
    if unknown and len(runs) > 1:
        lines.append(f"The tiles of {listed(unknown)} cannot be checked: the run recorded no hashes of them.")
    leaky = [run.label for run in finished if run.scores and run.scores.leaks]
    if leaky:
        lines.append(f"Test scores of {listed(leaky)} are flattered: test tiles share ground with training tiles.")
    return lines


def overview_table(comparison: RunComparison) -> Table:
    """Return a row for each run: state, network, tiles, time, and its main scores."""
    columns = ("run", "state", "kind", "network", "trained on", "tiles", "test tiles", "time")
    rows = tuple((*_facts(run), *_headline(run)) for run in comparison.runs)
    names = ("F1, test tiles with landslides", "F1, test windows", "F1, held-out tiles")
    notes = (
        "Held-out tiles: each predicted by the model that was not trained on it; of a run of one model, its "
        "validation tiles. In brackets: 95 % interval.",
    )
    return Table("runs", "Runs", (*columns, *names), rows, notes)


def _facts(run: RunFolder) -> tuple[Value, ...]:
    config = run.config
    size = f"{config.sampling.size} px"
    sampling = f"resized tiles, {size}" if config.sampling.mode == "resized" else f"windows, {size}"
    tests = len(run.test_ids)
    network = f"{config.model.name} {config.model.encoder}"
    seconds = sum(model.seconds for model in run.models)
    return run.label, run.state, run.kind, network, sampling, len(run.tiles) - tests, tests, format_duration(seconds)


def _headline(run: RunFolder) -> Iterator[Value]:
    for protocol, subset in _MAIN:
        scores = _subset(run, protocol, subset)
        yield None if scores is None else scores.model["f1"]


def _subset(run: RunFolder, protocol: str, subset: Subset) -> SubsetScores | None:
    evaluation = None if run.scores is None else run.scores.evaluations.get(protocol)
    return None if evaluation is None else evaluation.subsets.get(subset)


def format_duration(seconds: float) -> str:
    """Format a time as hours and minutes, minutes, or seconds."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f}{_SPACE}s"
    return (
        f"{minutes}{_SPACE}min" if minutes < 100 else f"{minutes // 60}{_SPACE}h{_SPACE}{minutes % 60:02d}{_SPACE}min"
    )


def _overview(comparison: RunComparison) -> Part:
    drawings = []
    labels = [run.label for run in comparison.finished]
    for number, names in enumerate(chunks(labels, _CHART_ROWS), 1):
        panels = {
            f"{PROTOCOL_NAMES[protocol].capitalize()}, {_SUBSETS[subset]}": scores
            for protocol, subset in _MAIN
            if (scores := _main_scores(comparison, names, protocol, subset))
        }
        caption = "F1 of each run with its 95 % interval. Tick: image-blind mask, which does not look at the image."
        drawings.append(Drawing(f"f1_{number}", caption, score_chart(panels, names)))
    return Part("runs", "Overview", (), (overview_table(comparison),), tuple(drawings))


def _main_scores(
    comparison: RunComparison, names: Sequence[str], protocol: str, subset: Subset
) -> dict[str, tuple[Estimate, float]]:
    found = {run.label: _subset(run, protocol, subset) for run in comparison.runs if run.label in names}
    return {name: (one.model["f1"], one.blind["f1"].value) for name, one in found.items() if one is not None}


def difference_table(comparison: RunComparison, *, short: bool = False) -> Table | None:
    """Return a row for each paired difference, or for the main ones of each run; None if there is none."""
    chosen = [one for one in comparison.differences if not short or (one.protocol, one.subset) in _MAIN]
    if not chosen:
        return None
    columns = ("run", "minus", "on", "samples", *(_COLUMNS[name] for name in SCORES), "F1 is")
    rows = tuple(_difference_row(one) for one in chosen)
    notes = [
        "Differences on the samples that both runs predicted, with 95 % intervals by bootstrap over groups, the same "
        "groups drawn for both. Two trainings that differ in their seed alone can differ by more than these intervals, "
        "which cover the choice of tiles and not the luck of training."
    ]
    if not all(one.same_pixels for one in chosen):
        notes.append(
            "Runs marked with * scored their tiles at another size in pixels, so large tiles weigh differently."
        )
    if any(math.isnan(one.scores["f1"].low) for one in chosen):
        notes.append("[- -] stands where all samples belong to one group, which gives no interval.")
    return Table("differences", "Paired differences of scores", columns, rows, tuple(notes))


def _difference_row(one: PairedDifference) -> tuple[Value, ...]:
    label = one.run if one.same_pixels else f"{one.run} *"
    where = f"{PROTOCOL_NAMES[one.protocol]}, {_SUBSETS[one.subset]}"
    return (label, one.reference, where, one.samples, *(one.scores[name] for name in SCORES), one.verdict)


def _differences(comparison: RunComparison) -> Part | None:
    if len(comparison.runs) < 2:
        return None
    table = difference_table(comparison)
    lines = () if table else ("No two finished runs predicted the same tiles.",)
    return Part("differences", "Differences", lines, () if table is None else (table,))


def _scores(comparison: RunComparison) -> Part | None:
    tables = []
    for protocol, title in PROTOCOL_NAMES.items():
        for subset, which in _SUBSETS.items():
            rows = [
                (run.label, *_score_row(scores))
                for run in comparison.runs
                if (scores := _subset(run, protocol, subset)) is not None
            ]
            if rows:
                columns = ("run", *_COLUMNS.values(), *_MORE_COLUMNS)
                tables.append(
                    Table(f"scores_{protocol}_{subset}", f"{title.capitalize()}, {which}", columns, tuple(rows))
                )
    note = "Image-blind mask: a mask that does not look at the image. Landslide: share of the pixels."
    return Part("scores", "Scores", (note,), tuple(tables)) if tables else None


def _score_row(scores: SubsetScores) -> tuple[Value, ...]:
    figures = tuple(scores.model[name] for name in _COLUMNS)
    blind = scores.blind["f1"].value
    return (
        *figures,
        scores.model["accuracy"].value,
        scores.average_precision,
        blind,
        scores.samples,
        scores.landslide_share,
    )


def _folds(comparison: RunComparison) -> Part | None:
    tables = [_fold_table(number, run) for number, run in enumerate(comparison.runs) if not run.is_single]
    return Part("folds", "Folds", (), tuple(tables)) if tables else None


def _fold_table(number: int, run: RunFolder) -> Table:
    columns = ("fold", "state", "epochs", "best epoch", "time", "held-out tiles", "F1", "precision", "recall", "mIoU")
    tests = [name for name in (run.scores.test if run.scores else {}) if run.scores and run.scores.test_folds]
    rows: list[tuple[Value, ...]] = []
    for model in run.models:
        held_out = sum(fold == model.fold for fold in run.folds.values())
        state = "finished" if model.is_finished else "not finished"
        row: list[Value] = [model.fold, state, model.epochs, model.best_epoch, format_duration(model.seconds), held_out]
        known = run.scores.folds.get(model.fold) if run.scores else None
        row += [None if known is None else known["all"].model[name] for name in ("f1", "precision", "recall", "miou")]
        for protocol in tests:
            parts = run.scores.test_folds.get(model.fold, {}) if run.scores else {}
            row.append(parts[protocol]["all"].model["f1"] if protocol in parts else None)
        rows.append(tuple(row))
    names = tuple(f"F1, {PROTOCOL_NAMES[protocol]}" for protocol in tests)
    return Table(f"folds_{number}", run.label, (*columns, *names), tuple(rows))


def _tiles(comparison: RunComparison) -> Part | None:
    tables, drawings = [], []
    pictured = comparison.finished[:_PICTURED_RUNS]
    for number, run in enumerate(comparison.finished):
        samples = () if run.scores is None else run.scores.out_of_fold.samples
        best, worst = ranked(samples, _LISTED)
        wrong = false_alarms(samples, _LISTED)
        tables.append(_tile_table(number, run, best, worst, wrong))
        if run in pictured:
            kinds = {"best": best, "worst": worst, "false alarms": wrong}
            drawings += [
                Drawing(f"tiles_{number}_{name.replace(' ', '_')}", f"{run.label}: {name}", chart)
                for name, some in kinds.items()
                if (chart := _tile_chart(run, name, some[:_SHOWN])) is not None
            ]
    if not tables:
        return None
    lines = ["Each tile was predicted by the model that was not trained on it."]
    if len(pictured) < len(comparison.finished):
        lines.append(f"Pictures: the first {len(pictured)} runs.")
    if len(drawings) < len(pictured):
        lines.append("Tiles without a picture could not be read any more.")
    return Part("tiles", "Best and worst tiles", tuple(lines), tuple(tables), tuple(drawings))


def _tile_table(
    number: int, run: RunFolder, best: Sequence[SampleScore], worst: Sequence[SampleScore], wrong: Sequence[SampleScore]
) -> Table:
    rows: list[tuple[Value, ...]] = []
    for name, samples in (("best", best), ("worst", worst), ("false alarms", wrong)):
        for one in samples:
            f1 = None if name == "false alarms" else tile_f1(one)
            landslide = one.model.tp + one.model.fn
            rows.append((name, one.name, run.folds.get(one.name), f1, landslide, one.model.fn, one.model.fp))
    columns = ("", "tile", "fold", "F1", "landslide px", "missed px", "false px")
    return Table(f"tiles_{number}", run.label, columns, tuple(rows))


def _tile_chart(run: RunFolder, name: str, samples: Sequence[SampleScore]) -> Any:
    predictions = stored_predictions(run, samples)
    if not predictions or run.scores is None:
        return None
    return pixels_of(overlay_figure(predictions, threshold=run.scores.threshold, title=f"{run.label}: {name}"))


def _data(comparison: RunComparison) -> Part:
    rows = [
        (run.label, side, *_data_row(counts), _side_digest(run, test=side == "test") or "unknown")
        for run in comparison.runs
        for side, counts in (("training", tile_counts(run, test=False)), ("test", tile_counts(run, test=True)))
        if counts.landslide or counts.other
    ]
    columns = ("run", "side", "landslide tiles", "other tiles", "sides, px", "landslide", "imbalance ratio")
    more = ("imbalance ratio, landslide tiles", "data")
    notes = (
        "Imbalance ratio: background over landslide pixels, at native size. Landslide: share of the labelled pixels. "
        "Data: digest of the images and masks of a side; equal digests stand for equal tiles.",
    )
    return Part("data", "Data and imbalance", (), (Table("data", "Tiles", (*columns, *more), tuple(rows), notes),))


def _side_digest(run: RunFolder, *, test: bool) -> str:
    tests = set(run.test_ids)
    return run.digest(tile.tile_id for tile in run.tiles if (tile.tile_id in tests) == test)


def _data_row(counts: TileCounts) -> tuple[Value, ...]:
    pixels = counts.landslide_px + counts.background_px
    share = counts.landslide_px / pixels if pixels else math.nan
    sides = "" if counts.shortest is None else f"{counts.shortest:,} to {counts.longest:,}"
    return counts.landslide, counts.other, sides, share, counts.ratio, counts.inside_ratio


def _settings(comparison: RunComparison) -> Part:
    tables = [_version_table(comparison)]
    lines: tuple[str, ...] = ()
    if len(comparison.runs) == 1:
        changed = changed_settings(comparison.runs[0])
        rows = tuple((key, _shown(value), _shown(default)) for key, (value, default) in changed.items())
        tables.insert(0, Table("settings", "Settings that are not the defaults", ("key", "value", "default"), rows))
    elif differing := differing_settings(comparison.runs):
        tables.insert(0, _setting_table(comparison, differing))
    else:
        lines = ("All settings are equal.",)
    return Part("settings", "Settings and versions", lines, tuple(tables))


def _setting_table(comparison: RunComparison, differing: dict[str, list[Any]]) -> Table:
    """Show runs as columns, or, if there are many, as rows."""
    labels = [run.label for run in comparison.runs]
    title = "Settings that differ"
    if len(labels) <= _SIDE_BY_SIDE:
        rows = tuple((key, *map(_shown, values)) for key, values in differing.items())
        return Table("settings", title, ("key", *labels), rows)
    by_run = zip(labels, zip(*differing.values(), strict=True), strict=True)
    return Table(
        "settings", title, ("run", *differing), tuple((label, *map(_shown, values)) for label, values in by_run)
    )


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _version_table(comparison: RunComparison) -> Table:
    rows = []
    for run in comparison.runs:
        versions = dict(run.scores.versions) if run.scores else {}
        stored = sorted({model.keras_version for model in run.models} - {""})
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        text = text or (f"keras {', '.join(stored)}" if stored else "unknown")
        weights = run.record.sources if run.record else None
        start = "" if weights is None else weights.start_from or weights.teacher
        rows.append((run.label, run.config.digest()[:8], text, start[:8], str(run.folder)))
    columns = ("run", "configuration", "versions", "bundle that it began with", "folder")
    return Table("versions", "Versions", columns, tuple(rows))
