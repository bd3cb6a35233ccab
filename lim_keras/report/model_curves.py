"""Curves of several models: training, precision and recall, and reliability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lim_keras.metrics.binary import Confusion
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.report import style
from lim_keras.report.sample_grids import PAGE_IN

History = Mapping[str, Sequence[float]]
"""Columns of a training by name: `loss`, `val_loss`, `f1`, `val_f1`."""

_ISO_F1 = (0.2, 0.4, 0.6, 0.8)
_DOTTED = (0, (1.5, 1.5))
_THIN, _NORMAL = 1.0, 1.8
_MARKERS = "osD^vPX"


@dataclass(frozen=True, slots=True)
class PixelCurves:
    """Histogram of the predicted pixels of a model, and their confusion at the model's threshold."""

    histogram: ProbabilityHistogram
    at_threshold: Confusion


def training_chart(groups: Mapping[str, Mapping[str, Sequence[History]]]) -> Figure:
    """Draw loss and F1 over the epochs, a row for each group and a colour for each model; folds are thin lines.

    Args:
        groups: title of each group, and the histories of each of its models by name, one for each fold.
    """
    figure = style.new_figure(PAGE_IN, 2.9 * len(groups) + 0.5)
    rows = figure.subplots(len(groups), 2, squeeze=False)
    colours = _colours(groups.values())
    for panels, (title, models) in zip(rows, groups.items(), strict=True):
        for axes, column, name in zip(panels, ("loss", "f1"), ("loss", "landslide F1"), strict=True):
            style.dress(axes, f"{title}: {name}", "epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            for model, histories in models.items():
                for history in histories:
                    _draw_history(axes, history, column, colours[model], _THIN if len(histories) > 1 else _NORMAL)
        panels[0].set_ylim(bottom=0)
        panels[1].set_ylim(0, 1)
    lines = [Line2D([], [], color=colour, linewidth=_NORMAL, label=name) for name, colour in colours.items()]
    lines.append(Line2D([], [], color=style.MUTED, linewidth=_NORMAL, label="validation"))
    lines.append(Line2D([], [], color=style.MUTED, linewidth=_THIN, linestyle=_DOTTED, label="training"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), handlelength=1.6, **style.LEGEND)
    return figure


def precision_recall_chart(groups: Mapping[str, Mapping[str, PixelCurves]]) -> Figure:
    """Draw precision over recall, a panel for each group; a mark shows the operating threshold of each model.

    Args:
        groups: title of each group, and the curves of each of its models by name.
    """
    columns = max(len(groups), 2)
    figure = style.new_figure(PAGE_IN, PAGE_IN / columns + 1.5)
    colours = _colours(groups.values())
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    for axes, (title, models) in zip(panels, groups.items(), strict=False):
        style.dress(axes, title, "recall", "precision")
        axes.set_title(title, fontsize=style.TITLE_PT, color=style.INK, loc="left", pad=24)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal")
        _draw_iso_f1(axes)
        for number, (name, curves) in enumerate(models.items()):
            precision, recall = curves.histogram.precision_recall()
            label = f"{name}: AP {curves.histogram.average_precision():.2f}"
            axes.plot(recall, precision, color=colours[name], linewidth=_NORMAL)
            scores = curves.at_threshold.scores()
            look = {"marker": _MARKERS[number % len(_MARKERS)], "markeredgecolor": "white", "markersize": 9}
            point = scores["recall"], scores["precision"]
            axes.plot(*point, color=colours[name], linewidth=_NORMAL, zorder=3, clip_on=False, label=label, **look)
        below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.15), "borderaxespad": 0.0}
        axes.legend(handlelength=1.8, ncols=2 if len(groups) < 3 else 1, **below, **style.LEGEND)
    return figure


def reliability_chart(groups: Mapping[str, Mapping[str, ProbabilityHistogram]]) -> Figure:
    """Draw reliability curves above their pixel counts, a column for each group.

    Args:
        groups: title of each group, and the histogram of each of its models by name.
    """
    columns = max(len(groups), 2)
    figure = style.new_figure(PAGE_IN, PAGE_IN / columns + 1.9)
    tops, bottoms = figure.subplots(2, columns, height_ratios=(3.4, 1), sharex="col", squeeze=False)
    colours = _colours(groups.values())
    for axes in (*tops[len(groups) :], *bottoms[len(groups) :]):
        axes.set_axis_off()
    for top, bottom, (title, models) in zip(tops, bottoms, groups.items(), strict=False):
        style.dress(top, title, "", "share of landslide pixels")
        style.dress(bottom, "", "predicted probability", "pixels")
        top.plot((0, 1), (0, 1), color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number, (name, histogram) in enumerate(models.items()):
            bars = histogram.reliability()
            probability, look = [bar.mean_probability for bar in bars], {"color": colours[name]}
            look |= {"marker": _MARKERS[number % len(_MARKERS)]}
            shares, pixels = [bar.landslide_share for bar in bars], [bar.pixels for bar in bars]
            top.plot(probability, shares, linewidth=_NORMAL, markersize=5, **look)
            bottom.plot(probability, pixels, linewidth=_THIN, markersize=3, **look)
        top.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        bottom.set_yscale("log")
        bottom.minorticks_off()
    _reliability_legend(figure, colours)
    return figure


def _reliability_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    lines = [
        Line2D([], [], color=colour, linewidth=_NORMAL, marker=_MARKERS[number % len(_MARKERS)], label=name)
        for number, (name, colour) in enumerate(colours.items())
    ]
    lines.append(Line2D([], [], color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), handlelength=1.8, **style.LEGEND)


def _colours(groups: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Give each model a colour, the same in all groups."""
    names = list(dict.fromkeys(name for models in groups for name in models))
    return {name: style.SERIES[number % len(style.SERIES)] for number, name in enumerate(names)}


def _draw_history(axes: Axes, history: History, column: str, colour: str, width: float) -> None:
    for name, line in ((column, _DOTTED), (f"val_{column}", "solid")):
        if name in history:
            values = history[name]
            shown: dict[str, Any] = {
                "linewidth": width if line == "solid" else _THIN,
                "marker": "o" if len(values) == 1 else None,
            }
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, linestyle=line, **shown)


def _draw_iso_f1(axes: Axes) -> None:
    """Draw lines of equal F1, 2 p r / (p + r), so that p = f r / (2 r - f)."""
    for f1 in _ISO_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 100)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=style.GRID, linewidth=1, zorder=0)
        text: dict[str, Any] = {"fontsize": style.SMALL_PT - 1, "color": style.MUTED, "ha": "center", "va": "bottom"}
        axes.text(f1 / (2 - f1), 1.02, f"F1 {f1:g}", **text)
