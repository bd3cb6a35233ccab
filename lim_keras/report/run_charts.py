"""Charts that compare runs: training curves, scores with intervals, precision-recall and reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lim_keras.evaluation.evaluation import PrecisionRecall
from lim_keras.metrics.binary import Estimate
from lim_keras.metrics.calibration import Reliability
from lim_keras.report import style

LARGEST_GROUP = len(style.SERIES)
"""Most runs in one chart: each has a colour of its own."""

_NAME_LENGTH = 28

Scores = Mapping[str, tuple[Estimate, float]]
"""For each run, its F1, and that of the image-blind baseline."""

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""For each run, the coordinates of its curve."""

Histories = Mapping[str, Sequence[Mapping[str, Sequence[float]]]]
"""For each run, the columns of each of its models, epoch by epoch."""


def history_chart(runs: Histories) -> Figure:
    """Draw loss and F1 on validation tiles over the epochs, a colour for each run and a line for each model.

    A single run gets a colour for each model, and dotted training curves.
    """
    figure = style.new_figure(10, 3.9)
    panels = figure.subplots(1, 2)
    models = [model for histories in runs.values() for model in histories]
    single = len(runs) == 1
    for axes, column, title in zip(panels, ("loss", "f1"), ("Validation loss", "Validation F1"), strict=True):
        style.dress(axes, title, "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for number, histories in enumerate(runs.values()):
            for fold, history in enumerate(histories):
                colour = _colour(fold if single else number)
                _draw_epochs(axes, history, f"val_{column}", color=colour, linewidth=1.6, alpha=0.85)
                if single:
                    _draw_epochs(axes, history, column, color=colour, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1)
    names = [f"model {fold}" for fold in range(len(models))] if single else list(runs)
    _legend(figure, names, dotted=single)
    return figure


def _draw_epochs(axes: Axes, history: Mapping[str, Sequence[float]], column: str, **line: Any) -> None:
    values = history.get(column, ())
    marker = "o" if len(values) == 1 else None
    axes.plot(range(1, len(values) + 1), values, marker=marker, markersize=3.5, **line)


def score_chart(panels: Mapping[str, Scores], names: Sequence[str]) -> Figure:
    """Draw the F1 of each run with its interval, and that of the image-blind baseline as a tick.

    Args:
        panels: for each title, the scores by run.
        names: runs, in the order of their rows.
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
    drawn[0].set_yticks(range(len(names)), [_short(name) for name in names], **text)
    return figure


def precision_recall_chart(panels: Mapping[str, Mapping[str, Sequence[PrecisionRecall]]]) -> Figure:
    """Draw precision over recall: a panel for each title, a curve for each run."""
    curves = {
        title: {
            name: ([one.recall for one in points], [one.precision for one in points]) for name, points in by.items()
        }
        for title, by in panels.items()
    }
    return _curve_panels(curves, "recall", "precision")


def reliability_chart(panels: Mapping[str, Mapping[str, Sequence[Reliability]]]) -> Figure:
    """Draw the share of landslides over the predicted probability: a panel for each title, a curve for each run."""
    curves = {
        title: {
            name: ([bar.mean_probability for bar in bars], [bar.landslide_share for bar in bars])
            for name, bars in by.items()
        }
        for title, by in panels.items()
    }
    return _curve_panels(curves, "predicted probability", "share of landslide pixels", diagonal=True)


def _curve_panels(curves: Mapping[str, Curves], x_label: str, y_label: str, *, diagonal: bool = False) -> Figure:
    figure = style.new_figure(3.5 * len(curves) + 1.9, 3.7)
    names = list(dict.fromkeys(name for by_run in curves.values() for name in by_run))
    drawn = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (title, by_run) in zip(drawn, curves.items(), strict=True):
        style.dress(axes, title, x_label, y_label if axes is drawn[0] else "")
        if diagonal:
            axes.plot((0, 1), (0, 1), color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for name, (x, y) in by_run.items():
            marker = {"marker": "o", "markersize": 3.5} if diagonal else {}
            axes.plot(x, y, color=_colour(names.index(name)), linewidth=1.8, **marker)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    _legend(figure, names)
    return figure


def _legend(figure: Figure, names: Sequence[str], *, dotted: bool = False) -> None:
    lines = [Line2D([], [], color=_colour(k), linewidth=1.8, label=_short(name)) for k, name in enumerate(names)]
    if dotted:
        lines.append(Line2D([], [], color=style.MUTED, linewidth=1.0, linestyle=(0, (1.5, 1.5)), label="training"))
    legend = figure.legend(handles=lines, loc="outside right center", handlelength=1.8, **style.LEGEND)
    for text in legend.get_texts():
        text.set(**style.as_written())


def _short(name: str) -> str:
    # A name that begins with an underscore is left out of legends.
    text = name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]
    return text.replace("_", "\N{ZERO WIDTH SPACE}_", 1) if text.startswith("_") else text


def _colour(series: int) -> str:
    return style.SERIES[series % len(style.SERIES)]
