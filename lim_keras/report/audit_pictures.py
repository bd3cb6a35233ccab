"""Pictures of an audit: tiles with their outlines, predictions beside labels, and charts of the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lim_keras.data.findings import AuditReport, Disagreement
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Labels, Tile, read_tile
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Prediction
from lim_keras.report import style
from lim_keras.report.figures import as_picture

Pixels = NDArray[np.uint8]

_SIDE = 240
"""Longest side of a tile's picture, pixels."""

_LABEL, _PREDICTED, _BOX = "#ffe14d", "#38a3f5", "#ff4fa3"
_IGNORED_LIGHT = 0.45


def tile_picture(tile: Tile) -> Pixels | None:
    """Draw a tile with the outline of its label, RGB; None if it cannot be read any more."""
    try:
        image, mask = read_tile(tile)
    except (DataError, OSError):
        return None
    return _outlined(_fitted(as_picture(image)), mask)


def disagreement_pictures(tile: Tile, one: Disagreement, prediction: Prediction, threshold: float) -> list[Pixels]:
    """Draw image, label with predicted outline and boxes of the regions, and probability, side by side; RGB each."""
    image, mask = read_tile(tile)
    plain = _fitted(as_picture(image))
    size = plain.shape[1], plain.shape[0]
    probability = np.asarray(prediction.probability, np.float32)
    drawn = _outlined(plain, mask)
    predicted = cv2.resize((probability >= threshold).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    _draw_outline(drawn, np.asarray(predicted, np.uint8), _PREDICTED)
    factor = plain.shape[1] / mask.shape[1]
    for region in one.regions[:3]:
        corners = np.array([region.x, region.y, region.x + region.width, region.y + region.height]) * factor
        left, top, right, bottom = np.rint(corners).astype(int).tolist()
        cv2.rectangle(drawn, (left - 2, top - 2), (right + 2, bottom + 2), _colour(_BOX), 2, cv2.LINE_AA)
    chances = cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR)
    heat = np.rint(colormaps[style.PROBABILITY](chances)[..., :3] * 255).astype(np.uint8)
    return [plain, drawn, heat]


def _fitted(picture: Pixels) -> Pixels:
    """Scale a picture so that its longer side has `_SIDE` pixels; a very long one keeps at least 2 pixels."""
    factor = _SIDE / max(picture.shape[:2])
    size = max(2, round(picture.shape[1] * factor)), max(2, round(picture.shape[0] * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=method))


def _outlined(picture: Pixels, mask: Labels) -> Pixels:
    """Darken ignored pixels and draw the outline of the landslides."""
    drawn = picture.copy()
    labels = cv2.resize(mask, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
    drawn[labels == IGNORED] = (drawn[labels == IGNORED] * _IGNORED_LIGHT).astype(np.uint8)
    _draw_outline(drawn, (labels == LANDSLIDE).astype(np.uint8), _LABEL)
    return drawn


def _draw_outline(picture: Pixels, mask: Labels, colour: str) -> None:
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, (0, 0, 0), 4)
    cv2.drawContours(picture, outlines, -1, _colour(colour), 2)


def _colour(name: str) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(name))


def feature_charts(report: AuditReport, titles: dict[str, str]) -> list[tuple[str, Figure]]:
    """Draw a histogram of each figure, landslide tiles beside the others; return name and chart."""
    landslide = np.array([tile.kind == "landslide" for tile in report.tiles])
    charts = []
    for name, values in (report.features or {}).items():
        figures = np.asarray(values, float)
        known = np.isfinite(figures)
        if known.sum() < 2 or np.ptp(figures[known]) == 0:
            continue
        charts.append((name, _histogram(figures, landslide, titles.get(name, name))))
    return charts


def _histogram(values: NDArray[Any], landslide: NDArray[np.bool_], title: str) -> Figure:
    figure = style.new_figure(4.6, 2.7)
    axes = figure.subplots()
    style.dress(axes, title, "", "share of tiles")
    known = np.isfinite(values)
    low, high = (float(end) for end in np.percentile(values[known], (0.5, 99.5)))
    if low == high:
        low, high = float(values[known].min()), float(values[known].max())
    edges = np.linspace(low, high, 31)
    parts: Sequence[tuple[str, NDArray[np.bool_], str]] = (
        ("landslide", landslide, style.SERIES[1]),
        ("non-landslide", ~landslide, style.SERIES[0]),
    )
    for name, chosen, colour in parts:
        some = np.clip(values[known & chosen], edges[0], edges[-1])
        if len(some):
            axes.hist(
                some, edges.tolist(), weights=np.full(len(some), 1 / len(some)), color=colour, alpha=0.55, label=name
            )
    axes.legend(**style.LEGEND)
    return figure
