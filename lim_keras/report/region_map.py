"""Map of the detections of a scene, with boxes around false ones, and the table of detections beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lim_keras.evaluation.scene import SceneMatches
from lim_keras.metrics.detections import AREA_CLASSES, DetectionScore
from lim_keras.raster.georeference import Floats, Georeference, apply, inverse
from lim_keras.raster.reader import RasterReader
from lim_keras.report import preview, style
from lim_keras.report.sample_grids import PAGE_IN

_TABLE_IN, _TALLEST_IN = 3.0, 7.6
_TITLE_IN, _LEGEND_IN, _GAP_IN = 0.55, 0.95, 0.25
_LINE_PT, _CASING_PT, _MANY = 1.5, 2.9, 300
_BOX_MARGIN_PX, _SMALLEST_BOX_PX = 4.0, 14.0  # pixels of the picture

_COLUMNS = ("mapped", "found", "missed", "false")
_CLASS_NAMES = {
    "all": ("all", ""),
    "small": ("small", "< {high:,.0f} m²"),
    "medium": ("medium", "{low:,.0f} to {high:,.0f} m²"),
    "large": ("large", "> {low:,.0f} m²"),
}

FOUND, MISSED, FALSE = style.TRUE_POSITIVE, style.FALSE_NEGATIVE, style.FALSE_POSITIVE
"""Colours of found and missed landslides and of false detections, those of pixels in overlays."""


def region_map(scene: RasterReader, matches: SceneMatches, title: str, bands: Sequence[int] = (1, 2, 3)) -> Figure:
    """Draw a scene with its detections, and their numbers by area class beside it.

    Predicted landslides that touch a mapped one have an outline, all others a box; mapped landslides that no prediction
    touches have an outline of another colour.

    Args:
        scene: the scene.
        matches: its mapped and predicted landslides.
        title: title of the map.
        bands: one or three bands to show; a scene of fewer bands is drawn in grey.
    """
    view = preview.view_of(scene.info, Georeference.of(scene.info))
    scale = min((PAGE_IN - _TABLE_IN - _GAP_IN) / view.width_in, _TALLEST_IN / view.height_in)
    view = replace(view, width_in=view.width_in * scale, height_in=view.height_in * scale)
    height = max(view.height_in, 2.2) + _TITLE_IN + _LEGEND_IN
    figure = style.new_figure(PAGE_IN, height)
    figure.set_layout_engine("none")  # all positions are set in inches
    top = height - _TITLE_IN
    axes = figure.add_axes(_place(figure, 0.05, top - view.height_in, view.width_in, view.height_in))
    picture, _ = preview.read_picture(scene, bands)
    axes.imshow(picture, extent=(0, scene.info.width, scene.info.height, 0), aspect="auto", interpolation="antialiased")
    _draw_detections(axes, matches, view)
    axes.set(xticks=[], yticks=[], xlim=(0, scene.info.width), ylim=(scene.info.height, 0))
    figure.text(0.05 / PAGE_IN, 1 - 0.3 / height, title, **_font(style.TITLE_PT + 1), weight="bold")
    _draw_legend(figure, view, top - view.height_in)
    left = 0.05 + view.width_in + _GAP_IN
    beside = figure.add_axes(_place(figure, left, 0, min(PAGE_IN - left - 0.05, _TABLE_IN), top))
    _draw_table(beside, matches.detections.any_overlap)
    return figure


def false_boxes(matches: SceneMatches, view: preview.View) -> Floats:
    """Return left, top, right and bottom (n, 4), in pixels of the scene, of a box around each false detection.

    Boxes have a margin, and a smallest size in pixels of the picture, so that they are seen.
    """
    across, down = view.drawn_px
    shapes = _in_pixels(matches.predicted.to_numpy()[~matches.right], view)
    if not len(shapes):
        return np.zeros((0, 4))
    low, high = shapely.bounds(shapes)[:, :2], shapely.bounds(shapes)[:, 2:]
    margin = np.array([_BOX_MARGIN_PX / across, _BOX_MARGIN_PX / down])
    smallest = np.array([_SMALLEST_BOX_PX / across, _SMALLEST_BOX_PX / down])
    half = np.maximum((high - low) / 2 + margin, smallest / 2)
    return np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half], axis=1)


def _in_pixels(shapes: NDArray[Any], view: preview.View) -> NDArray[Any]:
    to_pixels = inverse(view.georeference.transform)
    return np.asarray(shapely.transform(shapes, lambda points: apply(to_pixels, points)))


def _draw_detections(axes: Axes, matches: SceneMatches, view: preview.View) -> None:
    missed = matches.mapped.to_numpy()[~matches.found]
    for shapes, colour in ((matches.predicted.to_numpy()[matches.right], FOUND), (missed, MISSED)):
        lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(_in_pixels(shapes, view))]
        for width, shown in ((_CASING_PT, style.INK), (_LINE_PT, colour)):
            axes.add_collection(LineCollection(lines, colors=shown, linewidths=width), autolim=False)
    boxes = false_boxes(matches, view)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    thin = 0.6 if len(boxes) > _MANY else 1.0
    for width, shown in ((_CASING_PT, style.INK), (_LINE_PT, FALSE)):
        drawn = PolyCollection(list(corners), facecolors="none", edgecolors=shown, linewidths=width * thin, gid="false")
        axes.add_collection(drawn, autolim=False)


def _draw_legend(figure: Figure, view: preview.View, level_in: float) -> None:
    """Draw scale bar, north arrow and symbols below the map."""
    width = PAGE_IN - 0.1
    strip = figure.add_axes(_place(figure, 0.05, level_in - _LEGEND_IN, width, _LEGEND_IN))
    strip.set(xlim=(0, width), ylim=(0, _LEGEND_IN))
    strip.set_axis_off()
    x = preview.draw_scale(strip, view, _LEGEND_IN - 0.4) + 0.2
    if view.north_up:
        preview.draw_north(strip, x, _LEGEND_IN - 0.4)
    symbols: list[Any] = [
        Line2D([], [], color=FOUND, linewidth=2.5, label="prediction that touches a landslide"),
        Line2D([], [], color=MISSED, linewidth=2.5, label="missed landslide"),
        Patch(facecolor="none", edgecolor=FALSE, linewidth=2, label="false detection"),
    ]
    for symbol in symbols:
        symbol.set_path_effects(style.casing())
    place: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 0.04),
        "borderaxespad": 0.0,
        "ncols": len(symbols),
    }
    strip.legend(handles=symbols, handlelength=1.5, **place, **style.LEGEND)


def _draw_table(axes: Axes, scores: dict[str, DetectionScore]) -> None:
    """Write the numbers of detections, a row for each area class; lengths are inches."""
    width, height = axes.bbox.transformed(axes.figure.dpi_scale_trans.inverted()).size
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    ends = [width - 0.55 * number for number in reversed(range(len(_COLUMNS)))]
    axes.text(0, 0.12, "Detections", **_font(style.TITLE_PT), weight="bold", va="center")
    for end, name in zip(ends, _COLUMNS, strict=True):
        axes.text(end, 0.5, name, **_font(style.SMALL_PT, style.MUTED), ha="right", va="center")
    for number, (name, score) in enumerate(scores.items()):
        level = 0.82 + 0.44 * number
        axes.plot((0, width), (level - 0.17, level - 0.17), color=style.GRID, linewidth=1)
        _write_row(axes, level, name, ends, detection_counts(score))


def _write_row(axes: Axes, level: float, name: str, ends: Sequence[float], values: Sequence[int]) -> None:
    title, bounds = _CLASS_NAMES[name]
    low, high = AREA_CLASSES.get(name, (0.0, 0.0))
    axes.text(0, level, title, **_font(style.LABEL_PT), va="center")
    axes.text(0, level + 0.16, bounds.format(low=low, high=high), **_font(style.SMALL_PT - 1, style.MUTED), va="center")
    for end, value in zip(ends, values, strict=True):
        axes.text(end, level, f"{value:,}", **_font(style.LABEL_PT), ha="right", va="center")


def detection_counts(score: DetectionScore) -> tuple[int, int, int, int]:
    """Return the numbers of mapped, found and missed landslides and of false detections."""
    return score.truth, score.found, score.truth - score.found, score.predicted - score.right


def _font(size: float, colour: str = style.INK) -> dict[str, Any]:
    return {"fontsize": size, "color": colour, **style.as_written()}


def _place(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Convert inches to shares of a figure."""
    across, down = figure.get_size_inches()
    return left / across, bottom / down, width / across, height / down
