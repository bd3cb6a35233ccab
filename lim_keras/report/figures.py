"""Figures of data, training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lim_keras.errors import DataError
from lim_keras.evaluation.evaluation import Prediction
from lim_keras.files import make_folder
from lim_keras.metrics.binary import Confusion, count
from lim_keras.metrics.calibration import Reliability
from lim_keras.report import style
from lim_keras.seals import check_sealed

if TYPE_CHECKING:
    from lim_keras.evaluation.bundle_report import BundleReport

GRID_COLUMNS = 5
SCENE_PIXELS = 1600
NAME_LENGTH = 34
# Grid of overlays: column width in inches; greatest picture height and title height in column widths.
COLUMN_IN, TALLEST, TITLE_ROOM = 2.45, 1.15, 0.2
LEGEND_IN = 4.5
Pixel = TypeVar("Pixel", np.uint8, np.float32)

# Overlays: share of the colour, saturation of the image, brightness of ignored pixels.
FILL_SHARE, SATURATION, IGNORED_LIGHT = 0.72, 0.45, 0.45


def training_curves(histories: Mapping[str, Any], path: str | PathLike[str]) -> Path:
    """Draw loss and F1 over the epochs, one colour for each fold; training curves are dotted.

    `histories` holds, for each fold name, the columns `loss` (required), `val_loss`, `f1` and `val_f1`.
    """
    if not histories:
        raise DataError("Expected at least one history in `histories`. Received: none.")
    figure = style.new_figure(10, 3.9)
    panels = figure.subplots(1, 2)
    for axes, column, title in zip(panels, ("loss", "f1"), ("Loss", "Landslide F1"), strict=True):
        style.dress(axes, title, "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for index, (name, history) in enumerate(histories.items()):
            if "loss" not in history:
                raise DataError(f"History {name}: expected a column `loss`. Received: {', '.join(map(str, history))}")
            _draw_history(axes, history, column, _colour(index))
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1)
    _curve_legend(figure, list(histories))
    return style.save(figure, path)


def overlay_grid(
    predictions: Sequence[Prediction], path: str | PathLike[str], *, threshold: float = 0.5, title: str = ""
) -> Path:
    """Draw `overlay_figure` to a file."""
    return style.save(overlay_figure(predictions, threshold=threshold, title=title), path)


def overlay_figure(predictions: Sequence[Prediction], *, threshold: float = 0.5, title: str = "") -> Figure:
    """Draw samples, five in a row: each image above its overlay, titled with name and scores."""
    if not predictions:
        raise DataError("Expected at least one sample in `predictions`. Received: none.")
    columns = min(GRID_COLUMNS, len(predictions))
    samples = [prediction.sample for prediction in predictions]
    rows = [samples[first : first + columns] for first in range(0, len(samples), columns)]
    heights = [max(2 * min(one.mask.shape[0] / one.mask.shape[1], TALLEST) for one in row) + TITLE_ROOM for row in rows]
    figure = style.new_figure(max(COLUMN_IN * columns, LEGEND_IN), COLUMN_IN * sum(heights) + 0.5 + 0.4 * bool(title))
    panels = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, prediction in zip(panels.flat, predictions, strict=False):
        _show(axes, _stacked(prediction, threshold), _sample_title(prediction, threshold))
        axes.title.set_fontsize(style.SMALL_PT)
        axes.set_anchor("NW")
    if title:
        style.headline(figure, title)
    style.outcome_legend(figure)
    return figure


def write_report_figures(report: BundleReport, folder: str | PathLike[str]) -> list[Path]:
    """Write `<protocol>_best.png`, `<protocol>_worst.png`, `reliability.png` and `object_rule.png`, those with data.

    Raises:
        DataError: a file exists that no earlier call wrote or that changed since, or a file cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    check_report_figures(folder, [str(one.evaluation.protocol) for one in report.results])
    written = []
    for one in report.results:
        protocol, gallery = one.evaluation.protocol, one.gallery
        for name, predictions in (("best", gallery.best), ("worst", gallery.worst)):
            if predictions:
                path, title = folder / f"{protocol}_{name}.png", f"{report.info.name}, {protocol}: the {name}"
                written.append(overlay_grid(predictions, path, threshold=gallery.threshold, title=title))
    diagrams = [(str(one.evaluation.protocol), one.evaluation.histogram.reliability()) for one in report.results]
    measured = {protocol: bars for protocol, bars in diagrams if bars}
    if measured:
        written.append(reliability_curve(measured, folder / "reliability.png"))
    from lim_keras.report.model_charts import rule_chart

    rule = report.info.object_rule
    if rule is not None and (chart := rule_chart({report.info.name: rule})) is not None:
        written.append(style.save(chart, folder / "object_rule.png"))
    return written


def check_report_figures(folder: Path, protocols: Sequence[str]) -> None:
    """Raise DataError if figures of these protocols would replace files of the user."""
    names = [f"{protocol}_{name}.png" for protocol in protocols for name in ("best", "worst")]
    check_sealed(folder, [*names, "reliability.png", "object_rule.png"], "figures")


def imbalance_chart(ratios: Mapping[str, float], path: str | PathLike[str]) -> Path:
    """Draw `imbalance_figure` to a file."""
    return style.save(imbalance_figure(ratios), path)


def imbalance_figure(ratios: Mapping[str, float]) -> Figure:
    """Draw a bar for each ratio of background to landslide pixels (Eq. 1-3 of Chen et al. 2022)."""
    values = list(ratios.values())
    if not values or not all(np.isfinite(value) and value >= 0 for value in values):
        raise DataError(f"Expected finite numbers >= 0 in `ratios`. Received: {dict(ratios)}.")
    figure = style.new_figure(7.5, 0.55 * len(values) + 1.3)
    axes = figure.subplots()
    style.dress(axes, "Background pixels for each landslide pixel")
    bars = axes.barh(list(ratios), values, height=0.58, color=style.ACCENT)
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=5, fontsize=style.LABEL_PT, color=style.INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(max(values) * 1.12, 1e-9))
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", labelsize=style.LABEL_PT, colors=style.INK)
    return figure


def reliability_curve(curves: Mapping[str, Sequence[Reliability]], path: str | PathLike[str]) -> Path:
    """Draw reliability curves above their pixel counts; `curves` holds the bars of each curve by name."""
    if not curves or not all(curves.values()):
        raise DataError("Expected curves with at least one bar in `curves`. Received: none.")
    figure = style.new_figure(5.4, 6.4)
    top, bottom = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    style.dress(top, "Reliability", "", "share of landslide pixels")
    style.dress(bottom, "", "predicted probability", "pixels")
    top.plot((0, 1), (0, 1), color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    for index, (name, bars) in enumerate(curves.items()):
        colour, probability = _colour(index), [bar.mean_probability for bar in bars]
        shares = [bar.landslide_share for bar in bars]
        top.plot(probability, shares, color=colour, linewidth=1.8, marker="o", markersize=4.5, label=name)
        bottom.plot(probability, [bar.pixels for bar in bars], color=colour, linewidth=1.5, marker="o", markersize=3)
    top.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    bottom.set_yscale("log")
    bottom.minorticks_off()
    top.legend(loc="upper left", **style.LEGEND)
    return style.save(figure, path)


def scene_overview(
    scene: ArrayLike,
    truth: ArrayLike,
    probability: ArrayLike,
    threshold: float,
    path: str | PathLike[str],
    *,
    gsd_m: float | None = None,
) -> Path:
    """Draw a scene, its predicted probability, and its overlay of truth and prediction, side by side.

    Args:
        scene: (h, w, bands), drawn with at most 1,600 pixels on the longer side.
        truth: (h, w), 1 landslide, 0 background, 255 ignore.
        probability: (h, w), 0..1; NaN without prediction.
        threshold: a pixel with probability >= threshold is landslide.
        path: file of the figure, .png, .svg or .pdf.
        gsd_m: size of a pixel in metres, for the scale bar; None: no bar.
    """
    picture, coloured = as_picture(scene), colour_overlay(scene, truth, probability, threshold)
    height, width = picture.shape[:2]
    confusion = count(np.asarray(probability) >= threshold, np.asarray(truth, np.uint8))
    figure = style.new_figure(15, max(4.7 * height / width, 1.5) + 1.2)
    panels = figure.subplots(1, 3)
    _show(panels[0], shrink(picture, SCENE_PIXELS), "Scene", (width, height))
    chances = shrink(np.asarray(probability, np.float32), SCENE_PIXELS)
    drawn = panels[1].imshow(chances, cmap=style.PROBABILITY, vmin=0, vmax=1, extent=(0, width, height, 0))
    style.dress_picture(panels[1], "Landslide probability")
    _show(panels[2], shrink(coloured, SCENE_PIXELS), f"At {threshold:.2f}: {_score_line(confusion)}", (width, height))
    bar = figure.colorbar(drawn, cax=panels[1].inset_axes((0, -0.05, 1, 0.022)), orientation="horizontal")
    bar.ax.tick_params(labelsize=style.SMALL_PT, colors=style.MUTED, length=0)
    bar.outline.set_visible(False)
    if gsd_m is not None:
        _draw_scale(panels[0], width, height, gsd_m)
    style.outcome_legend(figure)
    return style.save(figure, path)


def _draw_history(axes: Axes, history: Any, column: str, colour: str) -> None:
    epochs = np.arange(1, len(history["loss"]) + 1)
    marker = "o" if len(epochs) == 1 else None
    if column in history:
        axes.plot(epochs, history[column], color=colour, linewidth=1.1, linestyle=(0, (1.5, 1.5)), alpha=0.75)
    if f"val_{column}" in history:
        axes.plot(epochs, history[f"val_{column}"], color=colour, linewidth=1.8, marker=marker)


def _curve_legend(figure: Figure, names: Sequence[str]) -> None:
    lines = [Line2D([], [], color=_colour(k), linewidth=1.8, label=name) for k, name in enumerate(names)]
    lines.append(Line2D([], [], color=style.MUTED, linewidth=1.8, label="validation"))
    lines.append(Line2D([], [], color=style.MUTED, linewidth=1.1, linestyle=(0, (1.5, 1.5)), label="training"))
    figure.legend(handles=lines, loc="outside right center", handlelength=1.8, **style.LEGEND)


def _colour(series: int) -> str:
    return style.SERIES[series % len(style.SERIES)]


def _show(axes: Axes, picture: NDArray[np.uint8], title: str = "", size: tuple[int, int] | None = None) -> None:
    """Draw a picture; the axes count pixels of `size`, its width and height before shrinking."""
    width, height = size or (picture.shape[1], picture.shape[0])
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased")
    style.dress_picture(axes, title)


def _stacked(prediction: Prediction, threshold: float) -> NDArray[np.uint8]:
    """Return the image above its overlay as one picture, so that the layout keeps them together."""
    sample = prediction.sample
    coloured = colour_overlay(sample.image, sample.mask, prediction.probability, threshold)
    line = np.full((max(coloured.shape[1] // 50, 1), coloured.shape[1], 3), 255, np.uint8)
    return np.concatenate([as_picture(sample.image), line, coloured])


def _sample_title(prediction: Prediction, threshold: float) -> str:
    confusion = count(prediction.probability >= threshold, prediction.sample.mask)
    name = prediction.sample.name
    return f"{name if len(name) <= NAME_LENGTH else '…' + name[1 - NAME_LENGTH :]}\n{_score_line(confusion)}"


def _score_line(confusion: Confusion) -> str:
    scores = confusion.scores()
    return f"F1 {scores['f1']:.2f}, precision {scores['precision']:.2f}, recall {scores['recall']:.2f}"


def _draw_scale(axes: Axes, width: int, height: int, gsd_m: float) -> None:
    """Draw a scale bar of a round length, at most a fifth of the scene's width, in the lower left corner."""
    length_m = style.round_length(0.2 * width * gsd_m)
    label = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, right, level = 0.04 * width, 0.04 * width + length_m / gsd_m, 0.96 * height
    halo = [withStroke(linewidth=4, foreground="white")]
    axes.plot((left, right), (level, level), color=style.INK, linewidth=2.5, path_effects=halo)
    middle = (left + right) / 2
    text: dict[str, Any] = {"color": style.INK, "fontsize": style.LABEL_PT, "ha": "center"}
    axes.text(middle, level - 0.02 * height, label, path_effects=halo, **text)


def as_picture(image: ArrayLike) -> NDArray[np.uint8]:
    """Convert (h, w) or (h, w, bands) to RGB (h, w, 3) uint8: the first three bands, or the first as grey.

    Types other than uint8 are stretched from the 2nd to the 98th percentile of their finite values.
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise DataError(f"Expected `image` of shape (h, w[, bands]). Received: shape {pixels.shape}.")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
    stretched = 255 * (np.nan_to_num(pixels.astype(np.float32), nan=low) - low) / max(high - low, 1e-12)
    return np.clip(stretched, 0, 255).astype(np.uint8)


def colour_overlay(
    image: ArrayLike, mask: ArrayLike, prediction: ArrayLike, threshold: float = 0.5
) -> NDArray[np.uint8]:
    """Colour true positives, false positives and false negatives on a paler image; return (h, w, 3) uint8.

    Args:
        image: see `as_picture`.
        mask: (h, w), 1 landslide, 0 background, 255 ignore; ignored pixels are darkened.
        prediction: (h, w), a probability 0..1 or a mask of 0 and 1.
        threshold: a pixel with prediction >= threshold is landslide.
    """
    picture, truth, predicted = as_picture(image), np.asarray(mask), np.asarray(prediction)
    for name, values in (("mask", truth), ("prediction", predicted)):
        if values.shape != picture.shape[:2]:
            raise DataError(f"Expected `{name}` of the image's shape {picture.shape[:2]}. Received: {values.shape}.")
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    result = grey + SATURATION * (picture - grey)
    landslide, found = truth == 1, predicted >= threshold
    outcomes = (
        (landslide & found, style.TRUE_POSITIVE),
        ((truth == 0) & found, style.FALSE_POSITIVE),
        (landslide & ~found, style.FALSE_NEGATIVE),
    )
    for where, colour in outcomes:
        result[where] += FILL_SHARE * (255 * np.array(to_rgb(colour), np.float32) - result[where])
    result[truth == 255] *= IGNORED_LIGHT
    return np.clip(result, 0, 255).astype(np.uint8)


def shrink(picture: NDArray[Pixel], longest: int) -> NDArray[Pixel]:
    """Shrink a picture by area averages to at most `longest` pixels on its longer side."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), picture.dtype)
