"""One-page summary of a reviewed inventory: map, counts, areas by class, shares accepted and size-frequency plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Chart
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from lim_keras.raster.georeference import apply, inverse
from lim_keras.report import style
from lim_keras.report.html import Block, Cell, Figure, Page, Rows, Section, chart, photograph, render_page
from lim_keras.report.preview import LEGEND_IN, Preview, draw_north, draw_scale, lay_out, write_headings

_LINE_PT, _CASING_PT, _DOT_PT = 1.4, 2.7, 5.0
_SMALL_PX = 4.0  # sides of bounding boxes in the picture, below which a landslide is drawn as a dot


@dataclass(frozen=True, kw_only=True)
class ReviewSummary:
    """Content of the page.

    Attributes:
        title: name of the scene.
        lines: sentences below the title.
        landslides: all landslides, with `status`, and `area_m2` if it is known.
        model_m2: areas (n,) of the landslides as the model drew them, m2.
        by_status, by_class: rows of the tables: name, number, area in m2.
        shares: classes of probability with accepted and judged landslides.
        colours: colour and text of each status; None: without a verdict.
        picture: picture of the scene; None if it could not be read.
    """

    title: str
    lines: Sequence[str]
    landslides: geopandas.GeoDataFrame
    model_m2: NDArray[np.float64]
    by_status: Sequence[tuple[str, int, float]]
    by_class: Sequence[tuple[str, int, float]]
    shares: Sequence[tuple[str, int, int]]
    colours: Mapping[str | None, tuple[str, str]]
    picture: Preview | None


def review_page(summary: ReviewSummary) -> str:
    """Return the page as HTML of one file."""
    numbers = [_areas("status", summary.by_status), _areas("class of accepted landslides", summary.by_class)]
    if summary.shares:
        rows: list[tuple[str | Cell, ...]] = [
            (name, *(_number(value) for value in (f"{accepted:,}", f"{judged:,}", f"{accepted / judged:.0%}")))
            for name, accepted, judged in summary.shares
        ]
        titles = ("accepted", "judged", "share accepted")
        columns: tuple[str | Cell, ...] = ("mean probability", *(_number(name) for name in titles))
        numbers.append(Rows(columns, rows))
    charts = [Figure([chart(size_frequency(summary), "Size-frequency plot")], _SIZES, is_wide=True)]
    sections = [Section("Numbers", "numbers", [Block(tables=numbers)])]
    if summary.picture is not None:
        drawn = photograph(review_map(summary, summary.picture), "Map of the landslides by status")
        sections.insert(0, Section("Map", "map", [Block(figures=[Figure([drawn], "", is_wide=True)])]))
    sections.append(Section("Sizes", "sizes", [Block(figures=charts)]))
    return render_page(Page(f"Reviewed landslides: {summary.title}", summary.lines, sections, is_sheet=True))


_SIZES = (
    "Landslides of at least an area, of the model and accepted after review; both axes are logarithmic. An inventory "
    "that is complete down to a size follows a straight line from there."
)


def _number(text: str) -> Cell:
    return Cell(text, "number")


def _areas(name: str, rows: Sequence[tuple[str, int, float]]) -> Rows:
    cells = [(text, _number(f"{count:,}"), _number(_area(area))) for text, count, area in rows]
    return Rows((name, _number("landslides"), _number("area")), cells)


def _area(value: float) -> str:
    if not np.isfinite(value):
        return "unknown"
    return f"{value / 1e6:,.3f} km²" if value >= 1e5 else f"{value:,.0f} m²"


def size_frequency(summary: ReviewSummary) -> Chart:
    """Draw the number of landslides of at least an area against the area, of the model and after the review."""
    figure = style.new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    accepted = summary.landslides[(summary.landslides["status"] == "accepted").fillna(False)]
    reviewed = accepted["area_m2"].to_numpy(np.float64, na_value=np.nan) if "area_m2" in accepted else np.zeros(0)
    drawn = (("model", summary.model_m2, style.MUTED), ("accepted", reviewed, summary.colours["accepted"][0]))
    for name, values, colour in drawn:
        sizes = np.sort(values[np.isfinite(values) & (values > 0)])
        if len(sizes):
            rank = np.arange(len(sizes), 0, -1)
            axes.step(sizes, rank, where="pre", color=colour, linewidth=1.6, label=f"{name} ({len(sizes):,})")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    style.dress(axes, "", "area, m²", "landslides of at least this area")
    if axes.has_data():
        axes.legend(**style.LEGEND)
    return figure


def review_map(summary: ReviewSummary, scene: Preview) -> Chart:
    """Draw a scene with the outlines of its landslides in the colours of their status."""
    view = scene.view
    figure, axes, strip = lay_out(view)
    whole = (0, view.info.width, view.info.height, 0)
    axes.imshow(scene.pixels, extent=whole, interpolation="antialiased", aspect="auto", alpha=1.0)
    back = inverse(view.georeference.transform)
    shapes = shapely.transform(summary.landslides.geometry.to_numpy(), lambda points: apply(back, points))
    status = summary.landslides["status"].to_numpy(dtype=object, na_value=None)
    legend = []
    for name, (colour, text) in summary.colours.items():
        chosen = shapes[[one == name for one in status]]
        if len(chosen):
            small = (np.ptp(shapely.bounds(chosen).reshape(-1, 2, 2), axis=1) * view.drawn_px).max(axis=1) < _SMALL_PX
            lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(chosen[~small])]
            axes.add_collection(LineCollection(lines, colors="white", linewidths=_CASING_PT, alpha=0.85), autolim=False)
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=_LINE_PT), autolim=False)
            x, y = shapely.get_coordinates(shapely.centroid(chosen[small])).T
            axes.scatter(x, y, s=_DOT_PT**2, color=colour, edgecolors="white", linewidths=0.6)
            label = f"{text} ({len(chosen):,})"
            legend.append(Patch(facecolor="none", edgecolor=colour, linewidth=_LINE_PT, label=label))
    axes.set(xlim=(0, view.info.width), ylim=(view.info.height, 0))
    write_headings(figure, summary.title, summary.lines[0] if summary.lines else "")
    level = LEGEND_IN - 0.42
    start = draw_scale(strip, view, level) + 0.25
    if view.north_up:
        draw_north(strip, start, level)
        start += 0.4
    place = (start / strip.get_xlim()[1], level / LEGEND_IN)
    strip.legend(handles=legend, loc="center left", bbox_to_anchor=place, ncols=4, **style.LEGEND)
    return figure
