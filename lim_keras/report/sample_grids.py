"""Grids of samples: a tile and its augmentations, and the predictions of several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels
from lim_keras.evaluation.evaluation import Sample
from lim_keras.metrics.binary import count
from lim_keras.report import style
from lim_keras.report.figures import as_picture, colour_overlay, shrink

PAGE_IN = 9.7
"""Width of a figure that a page shows at full size, inches."""

_CELL_PX = 480
_TALLEST, _FLATTEST = 1.6, 0.1
"""Height of a cell over its width: a tile outside of this range is drawn smaller in its cell."""

_HEADING_IN, _TITLE_IN, _LEGEND_IN = 0.3, 0.24, 0.4
_CHARACTER_IN = 0.085
_IGNORED_GREY = 128


@dataclass(frozen=True, slots=True)
class ComparedSample:
    """A sample, and the probability (height, width) of its pixels by each model, in the order of the models."""

    sample: Sample
    probabilities: Sequence[NDArray[np.floating[Any]]]

    def f1(self, model: int, threshold: float) -> float:
        """Compute the landslide F1 of a model on this sample at a threshold."""
        return count(self.probabilities[model] >= threshold, self.sample.mask).scores()["f1"]


def comparison_grid(samples: Sequence[ComparedSample], thresholds: Mapping[str, float]) -> Figure:
    """Draw samples, one in a row: image, truth, and the overlay of each model with its F1.

    Args:
        samples: at least one sample.
        thresholds: name of each model, and its threshold, in the order of the samples' probabilities.
    """
    columns = ("Image", "Truth", *thresholds)
    width = PAGE_IN / len(columns)
    heights = [width * _ratio(one.sample.mask) for one in samples]
    figure = style.new_figure(PAGE_IN, sum(heights) + _TITLE_IN * len(heights) + _HEADING_IN + _LEGEND_IN)
    panels = figure.subplots(len(samples), len(columns), squeeze=False, height_ratios=heights)
    for row, one in zip(panels, samples, strict=True):
        sample = one.sample
        _show(row[0], as_picture(sample.image), _shortened(sample.name, width))
        _show(row[1], truth_picture(sample.mask), f"landslide {_landslide_share(sample.mask):.1%}")
        for number, (axes, threshold) in enumerate(zip(row[2:], thresholds.values(), strict=True)):
            overlay = colour_overlay(sample.image, sample.mask, one.probabilities[number], threshold)
            _show(axes, overlay, f"F1 {one.f1(number, threshold):.2f}")
    _head_columns(panels[0], columns)
    style.outcome_legend(figure)
    return figure


def augmentation_grid(examples: Mapping[str, tuple[NDArray[Any], Labels]]) -> Figure:
    """Draw examples side by side, each image above its mask.

    Args:
        examples: title, and image (height, width, bands) and mask (height, width), of each example.
    """
    width = PAGE_IN / len(examples)
    height = width * max(_ratio(mask) for _, mask in examples.values())
    figure = style.new_figure(PAGE_IN, 2 * height + 2 * _HEADING_IN)
    panels = figure.subplots(2, len(examples), squeeze=False)
    for column, (title, (image, mask)) in zip(panels.T, examples.items(), strict=True):
        _show(column[0], as_picture(image), title)
        _show(column[1], truth_picture(mask))
    return figure


def truth_picture(mask: Labels) -> NDArray[np.uint8]:
    """Convert a mask to RGB (height, width, 3): landslide white, background black, ignored pixels grey."""
    grey = np.zeros(mask.shape, np.uint8)
    grey[mask == LANDSLIDE] = 255
    grey[mask == IGNORED] = _IGNORED_GREY
    return np.repeat(grey[..., None], 3, axis=2)


def _ratio(mask: Labels) -> float:
    height, width = mask.shape
    return float(min(max(height / width, _FLATTEST), _TALLEST))


def _landslide_share(mask: Labels) -> float:
    """Return the share of landslide pixels among labelled ones; 0 without any."""
    return int((mask == LANDSLIDE).sum()) / max(int((mask != IGNORED).sum()), 1)


def _shortened(name: str, width_in: float) -> str:
    """Cut the start of a name that is wider than its cell; East Asian characters have the width of two."""
    widths = np.array([2 if east_asian_width(one) in "WF" else 1 for one in name])
    room = int(width_in / _CHARACTER_IN) - 1
    if widths.sum() <= room:
        return name
    return "…" + name[int((np.cumsum(widths[::-1]) < room).sum()) * -1 :]


def _show(axes: Axes, picture: NDArray[np.uint8], title: str = "") -> None:
    axes.imshow(shrink(picture, _CELL_PX), interpolation="antialiased")
    style.dress_picture(axes, title)
    axes.title.set_fontsize(style.SMALL_PT)
    axes.title.set_color(style.MUTED)
    axes.set_anchor("NW")


def _head_columns(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Write the names of the columns above the titles of the first row."""
    for one, name in zip(axes, names, strict=True):
        above: dict[str, Any] = {
            "xy": (0, 1),
            "xycoords": "axes fraction",
            "xytext": (0, 19),
            "textcoords": "offset points",
        }
        font: dict[str, Any] = {"fontsize": style.LABEL_PT, "color": style.INK, "weight": "bold", **style.as_written()}
        one.annotate(name, **above, ha="left", va="bottom", **font)
