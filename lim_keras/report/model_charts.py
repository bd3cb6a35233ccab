"""Charts that compare models or runs: training, scores, precision and recall, reliability, and object rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lim_keras.bundle.object_rule import WORKING_POINTS, FittedRule
from lim_keras.evaluation.evaluation import PrecisionRecall
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.calibration import Reliability
from lim_keras.report import style
from lim_keras.report.sample_grids import PAGE_IN

History = Mapping[str, Sequence[float]]
"""Columns of a training by name: `loss`, `val_loss`, `f1`, `val_f1`."""

Scores = Mapping[str, tuple[Estimate, float]]
"""For each name, an F1, and that of the image-blind mask."""

LARGEST_GROUP = len(style.SERIES)
"""Most models in one chart: each has a colour of its own."""

_ISO_F1 = (0.2, 0.4, 0.6, 0.8)
_DOTTED, _DASHED = (0, (1.5, 1.5)), (0, (4, 3))
_THIN, _NORMAL = 1.0, 1.8
_MARKERS = "osD^vPX"
_NAME_LENGTH, _ROW_LENGTH = 28, 44
_LINE_IN, _LETTER_IN, _HANDLE_IN = 0.21, 0.085, 0.55
"""Sizes of a legend: height of a line, width of a letter and of a symbol."""


@dataclass(frozen=True, slots=True)
class PrecisionRecallCurve:
    """Curve of precision over recall.

    Attributes:
        points: points for falling thresholds, or for rising ones.
        average_precision: average precision.
        at_threshold: point of the model's own threshold.
    """

    points: Sequence[PrecisionRecall]
    average_precision: float
    at_threshold: PrecisionRecall


def training_chart(groups: Mapping[str, Mapping[str, Sequence[History]]], *, training: bool = True) -> Figure:
    """Draw loss and F1 over the epochs, a row for each group and a colour for each model; folds are thin lines.

    Args:
        groups: title of each group, and the histories of each of its models by name, one for each fold.
        training: draw training tiles as dotted lines, beside validation tiles.
    """
    colours = _colours(groups.values())
    lines = [
        Line2D([], [], color=colour, linewidth=_NORMAL, label=short_name(name)) for name, colour in colours.items()
    ]
    if training:
        lines.append(Line2D([], [], color=style.MUTED, linewidth=_NORMAL, label="validation"))
        lines.append(Line2D([], [], color=style.MUTED, linewidth=_THIN, linestyle=_DOTTED, label="training"))
    figure = style.new_figure(PAGE_IN, 2.9 * len(groups) + _legend_height(lines))
    rows = figure.subplots(len(groups), 2, squeeze=False)
    for panels, (title, models) in zip(rows, groups.items(), strict=True):
        for axes, column, name in zip(panels, ("loss", "f1"), ("loss", "landslide F1"), strict=True):
            style.dress(axes, f"{title}: {name}", "epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            for model, histories in models.items():
                for history in histories:
                    width = _THIN if len(histories) > 1 else _NORMAL
                    _draw_epochs(axes, history.get(f"val_{column}", ()), color=colours[model], linewidth=width)
                    if training:
                        dotted: dict[str, Any] = {"linewidth": _THIN, "linestyle": _DOTTED}
                        _draw_epochs(axes, history.get(column, ()), color=colours[model], **dotted)
        panels[0].set_ylim(bottom=0)
        panels[1].set_ylim(0, 1)
    _legend_below(figure, lines)
    return figure


def score_chart(panels: Mapping[str, Scores], names: Sequence[str]) -> Figure:
    """Draw each F1 with its interval, and that of the image-blind mask as a tick.

    Args:
        panels: for each title, the scores by name.
        names: names, in the order of their rows.
    """
    figure = style.new_figure(12, 0.3 * len(names) + 1.35)
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    rows = {name: row for row, name in enumerate(names)}
    for axes, (title, scores) in zip(drawn, panels.items(), strict=True):
        style.dress(axes, title)
        for name, (score, blind) in scores.items():
            if not math.isnan(score.low):
                axes.plot((score.low, score.high), (rows[name],) * 2, color=style.ACCENT, linewidth=2.2)
            axes.plot(score.value, rows[name], "o", color=style.ACCENT, markersize=6)
            axes.plot(blind, rows[name], "|", color=style.MUTED, markersize=11, markeredgewidth=2)
        axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    text: dict[str, Any] = {"fontsize": style.LABEL_PT, "color": style.INK, **style.as_written()}
    drawn[0].set_yticks(range(len(names)), [short_name(name, _ROW_LENGTH) for name in names], **text)
    return figure


def precision_recall_chart(groups: Mapping[str, Mapping[str, PrecisionRecallCurve]]) -> Figure:
    """Draw precision over recall, a panel for each group; a mark shows the threshold of each model.

    Args:
        groups: title of each group, and the curves of each of its models by name.
    """
    columns = max(len(groups), 2)
    across = 2 if len(groups) < 3 and max(len(name) for models in groups.values() for name in models) < 16 else 1
    lines = math.ceil(max(map(len, groups.values())) / across)
    letters = min(_NAME_LENGTH, int((PAGE_IN / columns - 2 * _HANDLE_IN) / _LETTER_IN) - len(": AP 0.00"))
    figure = style.new_figure(PAGE_IN, PAGE_IN / columns + 0.9 + _LINE_IN * lines)
    colours = _colours(groups.values())
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    for axes, (title, models) in zip(panels, groups.items(), strict=False):
        style.dress(axes, title, "recall", "precision")
        axes.set_title(title, fontsize=style.TITLE_PT, color=style.INK, loc="left", pad=24, **style.as_written())
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal", anchor="N")
        _draw_iso_f1(axes)
        for number, (name, curve) in enumerate(models.items()):
            recall, precision = ([getattr(point, one) for point in curve.points] for one in ("recall", "precision"))
            axes.plot(recall, precision, color=colours[name], linewidth=_NORMAL)
            look = {"marker": _MARKERS[number % len(_MARKERS)], "markeredgecolor": "white", "markersize": 9}
            label = f"{short_name(name, letters)}: AP {curve.average_precision:.2f}"
            point = curve.at_threshold.recall, curve.at_threshold.precision
            axes.plot(*point, color=colours[name], linewidth=_NORMAL, zorder=3, clip_on=False, label=label, **look)
        below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.15), "borderaxespad": 0.0}
        _as_written(axes.legend(handlelength=1.8, ncols=across, **below, **style.LEGEND))
    return figure


def reliability_chart(groups: Mapping[str, Mapping[str, Sequence[Reliability]]]) -> Figure:
    """Draw reliability curves above their pixel counts, a column for each group.

    Args:
        groups: title of each group, and the bars of each of its models by name.
    """
    columns, colours = max(len(groups), 2), _colours(groups.values())
    lines = [
        Line2D([], [], color=colour, linewidth=_NORMAL, marker=_MARKERS[number % len(_MARKERS)], label=short_name(name))
        for number, (name, colour) in enumerate(colours.items())
    ]
    lines.append(Line2D([], [], color=style.MUTED, linewidth=1, linestyle=_DASHED, label="perfect"))
    figure = style.new_figure(PAGE_IN, PAGE_IN / columns + 1.4 + _legend_height(lines))
    tops, bottoms = figure.subplots(2, columns, height_ratios=(3.4, 1), sharex="col", squeeze=False)
    for axes in (*tops[len(groups) :], *bottoms[len(groups) :]):
        axes.set_axis_off()
    for top, bottom, (title, models) in zip(tops, bottoms, groups.items(), strict=False):
        style.dress(top, title, "", "share of landslide pixels")
        style.dress(bottom, "", "predicted probability", "pixels")
        top.plot((0, 1), (0, 1), color=style.MUTED, linewidth=1, linestyle=_DASHED)
        for name, bars in models.items():
            probability, shares = [bar.mean_probability for bar in bars], [bar.landslide_share for bar in bars]
            look = {"color": colours[name], "marker": _MARKERS[list(colours).index(name) % len(_MARKERS)]}
            top.plot(probability, shares, linewidth=_NORMAL, markersize=5, **look)
            bottom.plot(probability, [bar.pixels for bar in bars], linewidth=_THIN, markersize=3, **look)
        top.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        bottom.set_yscale("log")
        bottom.minorticks_off()
    _legend_below(figure, lines)
    return figure


def rule_chart(rules: Mapping[str, FittedRule]) -> Figure | None:
    """Draw recall over false alarms a square kilometre, a curve for each object rule, with its working points.

    A cross is the map of all regions at the model's threshold. Rules without a ground sample distance are left out;
    None if there is no other.

    Args:
        rules: rules by name of the model.
    """
    drawn = {name: rule for name, rule in rules.items() if rule.area_km2 is not None}
    if not drawn:
        return None
    colours = _colours([drawn])
    figure = style.new_figure(0.62 * PAGE_IN, 0.46 * PAGE_IN)
    axes = figure.subplots()
    style.dress(axes, "Landslides found and false alarms", "false alarms a square kilometre", "recall (any overlap)")
    looks = dict(zip((*WORKING_POINTS, "all regions"), ("^", "o", "s", "x"), strict=True))
    for name, rule in drawn.items():
        alarms = [point.false_alarms_km2 or 0.0 for point in rule.curve]
        axes.plot(alarms, [point.recall for point in rule.curve], color=colours[name], linewidth=_NORMAL)
        for title, point in (*rule.working_points.items(), ("all regions", rule.without)):
            place = point.scores["false_alarms_km2"].value, point.scores["recall_any_overlap"].value
            axes.plot(*place, looks[title], color=colours[name], markersize=8, markeredgewidth=2, fillstyle="none")
    lines = [Line2D([], [], color=colours[name], linewidth=_NORMAL, label=short_name(name)) for name in drawn]
    marks: dict[str, Any] = {"linestyle": "", "color": style.MUTED, "markersize": 8, "fillstyle": "none"}
    lines += [Line2D([], [], marker=look, markeredgewidth=2, label=title, **marks) for title, look in looks.items()]
    axes.set_xlim(left=0)
    axes.set_ylim(top=1.01)
    _as_written(axes.legend(handles=lines, loc="lower right", handlelength=1.8, **style.LEGEND))
    return figure


def _colours(groups: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Give each model a colour, the same in all groups."""
    names = list(dict.fromkeys(name for models in groups for name in models))
    return {name: style.SERIES[number % len(style.SERIES)] for number, name in enumerate(names)}


def _draw_epochs(axes: Axes, values: Sequence[float], **line: Any) -> None:
    marker = "o" if len(values) == 1 else None
    axes.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=3.5, **line)


def _draw_iso_f1(axes: Axes) -> None:
    """Draw lines of equal F1, 2 p r / (p + r), so that p = f r / (2 r - f)."""
    for f1 in _ISO_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 100)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=style.GRID, linewidth=1, zorder=0)
        text: dict[str, Any] = {"fontsize": style.SMALL_PT - 1, "color": style.MUTED, "ha": "center", "va": "bottom"}
        axes.text(f1 / (2 - f1), 1.02, f"F1 {f1:g}", **text)


def _legend_columns(lines: Sequence[Line2D]) -> int:
    widest = max(len(str(line.get_label())) for line in lines)
    return min(len(lines), max(1, int(PAGE_IN / (widest * _LETTER_IN + _HANDLE_IN))))


def _legend_height(lines: Sequence[Line2D]) -> float:
    return 0.3 + _LINE_IN * math.ceil(len(lines) / _legend_columns(lines))


def _legend_below(figure: Figure, lines: Sequence[Line2D]) -> None:
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": _legend_columns(lines)}
    _as_written(figure.legend(handles=lines, handlelength=1.8, **place, **style.LEGEND))


def _as_written(legend: Legend) -> None:
    for text in legend.get_texts():
        text.set(**style.as_written())


def short_name(name: str, most: int = _NAME_LENGTH) -> str:
    """Cut the start of a long name. A name that begins with an underscore would be left out of legends."""
    text = name if len(name) <= most else "…" + name[1 - most :]
    return text.replace("_", "\N{ZERO WIDTH SPACE}_", 1) if text.startswith("_") else text
