"""Preview of a mapped scene: `<scene>_preview.png`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference, RasterInfo, axes
from lim_keras.raster.reader import RasterReader, RasterSource
from lim_keras.raster.sentinel2 import is_product
from lim_keras.report import style
from lim_keras.report.marks import Marks, Source

LONGEST_PX = 1440

_RGB = (1, 2, 3)
_PERCENTILES = (2, 98)
NO_DATA, _PLAIN = "#e3e6ea", "#e8442e"
# Layout in inches: title, picture and legend, from the top down.
_LEAST_IN, _MARGIN_IN, _TITLE_IN, LEGEND_IN, _LEGEND_WIDTH_IN = 6.0, 0.35, 0.85, 0.95, 7.8
_COLOURS_IN = 1.6
_LINE_PT, _CASING_PT, _RING_PT = 1.4, 2.7, 7.5
_ENLARGED = 4
_SQUARE_TOLERANCE = 0.01
_NORTH_TOLERANCE = 10.0  # degrees between north and the upward direction


@dataclass(frozen=True)
class View:
    """Geometry of the picture of a scene; `pixel_m`: width and height of the centre pixel in metres, if known."""

    info: RasterInfo
    georeference: Georeference
    pixel_m: tuple[float, float] | None
    width_in: float
    height_in: float

    @property
    def north_up(self) -> bool:
        """True if north is up in the picture. In a polar CRS, north is rarely up."""
        a, b, _, d, e, _ = self.georeference.transform[:6]
        if self.georeference.to_degrees is None or not (b == d == 0 and a > 0 > e):
            return False
        azimuth = self.georeference.pixel_sides(np.array([self.info.width / 2]), np.array([self.info.height / 2]))[2]
        return bool(abs(azimuth[0]) <= _NORTH_TOLERANCE)

    @property
    def drawn_px(self) -> tuple[float, float]:
        """Pixels of the picture for each pixel of the scene, across and down."""
        return self.width_in * style.DPI / self.info.width, self.height_in * style.DPI / self.info.height


@dataclass(frozen=True)
class Preview:
    """Picture of a scene without its landslides, see `read_preview`.

    Attributes:
        name: name of the scene.
        view: geometry of the picture.
        pixels: RGB (height, width, 3), uint8.
        valid: pixels (height, width) that hold data.
    """

    name: str
    view: View
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]

    def draw(self, inventory: Source, path: str | PathLike[str], title: str = "") -> Path:
        """Draw the picture with its landslides into a file; arguments as for `draw_preview`."""
        view = self.view
        marks = Marks.of(inventory, view.georeference, view.drawn_px)
        figure, axes, strip = lay_out(view)
        # A number for alpha keeps matplotlib in single precision, which saves memory.
        whole = (0, view.info.width, view.info.height, 0)
        axes.imshow(self.pixels, extent=whole, interpolation="antialiased", aspect="auto", alpha=1.0)
        coloured = _draw_landslides(axes, marks, view.info)
        write_headings(figure, title or self.name, _summary(marks, view))
        symbols = [("outline", "landslide", marks.outlines > 0), ("ring", "small landslide", marks.rings > 0)]
        symbols.append(("patch", "no data", not self.valid.all()))
        x = _draw_legend(strip, view, [(symbol, text) for symbol, text, shown in symbols if shown], coloured)
        if coloured:
            _draw_colours(strip, max(x, view.width_in - _COLOURS_IN), "mean probability")
        return style.save(figure, path)


def draw_preview(
    scene: RasterSource,
    inventory: Source,
    path: str | PathLike[str],
    *,
    bands: Sequence[int] = _RGB,
    title: str = "",
    gsd_m: float | None = None,
) -> Path:
    """Draw a scene with outlines of its landslides (rings around small ones), a scale bar and a legend.

    Args:
        scene: this argument, `bands` and `gsd_m` are as for `read_preview`.
        inventory: polygons, or a file of them. If present, the column `probability_mean` gives colours, `area_m2` the
            total area.
        path: file of the figure, .png, .svg or .pdf.
        title: title of the figure; "": name of the scene.

    Raises:
        DataError: the scene cannot be read, or has no such band.
    """
    return read_preview(scene, bands=bands, gsd_m=gsd_m).draw(inventory, path, title)


def read_preview(scene: RasterSource, *, bands: Sequence[int] = _RGB, gsd_m: float | None = None) -> Preview:
    """Read the picture of a scene.

    The scene is averaged to 1,440 pixels on its longer side. Types other than uint8 are stretched from the 2nd to the
    98th percentile. Pixels without data are light grey.

    Args:
        scene: raster, see `lim_keras.raster.reader.RasterReader`; pixels without data are those of the reader.
        bands: one (grey) or three band numbers, counted from 1; a scene of one or two bands is drawn in grey.
        gsd_m: size of a pixel in metres, for a scene without georeference.

    Raises:
        DataError: the scene cannot be read, or has no such band.
    """
    with _reader(scene, bands, gsd_m) as reader:
        view, name = view_of(reader.info, Georeference.of(reader.info)), reader.stem
        return Preview(name, view, *read_picture(reader, bands))


def _reader(scene: RasterSource, bands: Sequence[int], gsd_m: float | None) -> RasterReader:
    """Open a scene so that the pixels without data are those of its maps."""
    if isinstance(scene, RasterReader):
        return RasterReader(scene, bands=scene.bands, nodata=scene.nodata, gsd_m=gsd_m)
    if isinstance(scene, str | PathLike) and is_product(Path(scene)):
        return RasterReader(scene, gsd_m=gsd_m)  # bands 1, 2, 3 of the reader are red, green, blue
    with RasterReader(scene, bands=(1,)) as header:
        shown = bands if all(1 <= band <= header.count for band in bands) else (1,)
    return RasterReader(scene, bands=shown, gsd_m=gsd_m)


def view_of(info: RasterInfo, georeference: Georeference) -> View:
    """Choose the size of the picture of a scene."""
    pixel_m = _pixel_sides(info, georeference)
    across, along = pixel_m or (1.0, 1.0)
    width, height = info.width * across, info.height * along
    longest_in = min(max(max(info.width, info.height) * _ENLARGED / style.DPI, _LEAST_IN), LONGEST_PX / style.DPI)
    scale = longest_in / max(width, height)
    return View(info, georeference, pixel_m, max(width * scale, 0.2), max(height * scale, 0.2))


def _pixel_sides(info: RasterInfo, georeference: Georeference) -> tuple[float, float] | None:
    """Return width and height of the centre pixel in metres, if they are known."""
    if georeference.to_degrees is None:
        if georeference.gsd_m is None:
            return None
        across, along = np.hypot(*axes(georeference.transform).T) * georeference.scale_m
        return float(across), float(along)
    sides = georeference.pixel_sides(np.array([info.width / 2]), np.array([info.height / 2]))
    across, along = float(sides[0][0]), float(sides[1][0])
    if not math.isfinite(across * along):
        return None
    if abs(across / along - 1) < _SQUARE_TOLERANCE:
        across = along = math.sqrt(across * along)
    return across, along


def read_picture(scene: RasterReader, bands: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the picture (height, width, 3), at most LONGEST_PX on the longer side, and its pixels with data."""
    if tuple(bands) == _RGB and scene.count < len(_RGB):
        bands = (1,)
    if len(bands) not in (1, 3) or not all(1 <= band <= scene.count for band in bands):
        raise DataError(
            f"{scene.name}: expected one or three `bands` of its {scene.count}, from 1 on. Received: {tuple(bands)}."
        )
    pixels, valid = scene.overview(LONGEST_PX, bands)
    if pixels.dtype != np.uint8:
        values = pixels[valid] if valid.any() else np.zeros((1, len(bands)))
        low, high = np.percentile(values, _PERCENTILES, axis=0)
        share = (np.where(valid[..., None], pixels, 0) - low) / np.maximum(high - low, 1e-12)
        pixels = np.asarray(np.rint(255 * np.clip(share, 0, 1)), np.uint8)
    picture = np.repeat(pixels, 3, axis=-1) if len(bands) == 1 else pixels
    picture[~valid] = np.round(255 * np.array(to_rgb(NO_DATA)))
    return picture, valid


def _draw_landslides(axes: Axes, marks: Marks, info: RasterInfo) -> bool:
    """Draw outlines, and rings around landslides that are too small for an outline; return whether any has a colour."""
    lines, line_probability = marks.lines()
    centres, probability = marks.centres()
    if lines:
        axes.add_collection(LineCollection(lines, colors="white", linewidths=_CASING_PT, alpha=0.85), autolim=False)
        colours = _colours(line_probability)
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=_LINE_PT), autolim=False)
    diameter_pt = _RING_PT if marks.rings <= 300 else 5.5 if marks.rings <= 2000 else 4.0
    x, y = centres.T
    drawn: tuple[tuple[float, Any], ...] = ((_CASING_PT, "white"), (_LINE_PT, _colours(probability)))
    for width, colour in drawn:
        axes.scatter(x, y, s=diameter_pt**2, facecolors="none", edgecolors=colour, linewidths=width)
    axes.set(xlim=(0, info.width), ylim=(info.height, 0))
    return bool(np.isfinite(line_probability).any() or np.isfinite(probability).any())


def _colours(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RGB (n, 3)."""
    known = np.isfinite(probability)[:, None]
    return np.where(known, colormaps[style.PROBABILITY](np.nan_to_num(probability))[:, :3], to_rgb(_PLAIN))


def lay_out(view: View) -> tuple[Figure, Axes, Axes]:
    """Return a figure, the axes of the picture in pixels of the scene, and those of the legend in inches."""
    strip_in = max(view.width_in, _LEGEND_WIDTH_IN)
    width, height = strip_in + 2 * _MARGIN_IN, view.height_in + _TITLE_IN + LEGEND_IN
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")  # all positions are set in inches
    left = _MARGIN_IN / width
    axes = figure.add_axes((left, LEGEND_IN / height, view.width_in / width, view.height_in / height))
    axes.set(xticks=[], yticks=[], xlim=(0, view.info.width), ylim=(view.info.height, 0))
    for spine in axes.spines.values():
        spine.set(color=style.MUTED, linewidth=0.6)
    strip = figure.add_axes((left, 0, strip_in / width, LEGEND_IN / height))
    strip.set(xlim=(0, strip_in), ylim=(0, LEGEND_IN))
    strip.set_axis_off()
    return figure, axes, strip


def write_headings(figure: Figure, title: str, summary: str) -> None:
    """Write a title, and a line below it, over a picture."""
    width, height = figure.get_size_inches()
    longest = int((width - 2 * _MARGIN_IN) / 0.125)
    title = title if len(title) <= longest else title[: longest - 1] + "…"
    left = _MARGIN_IN / width
    size, font = style.TITLE_PT + 3, style.as_written()
    figure.text(left, 1 - 0.38 / height, title, size=size, color=style.INK, weight="bold", va="center", **font)
    figure.text(left, 1 - 0.67 / height, summary, fontsize=style.LABEL_PT + 0.5, color=style.MUTED, va="center")


def _summary(marks: Marks, view: View) -> str:
    number = marks.number
    parts = [f"{number:,} landslide{'s' * (number != 1)}" if number else "No landslides"]
    if number:
        parts.append(f"{_total_area(marks)} in total")
    size = f"{view.info.width:,} x {view.info.height:,} px"
    gsd_m = math.sqrt(math.prod(view.pixel_m)) if view.pixel_m else None
    return "  ·  ".join([*parts, size + (f" of {gsd_m:.3g} m" if gsd_m else "")])


def _total_area(marks: Marks) -> str:
    """Format the total area in m2 or km2; in pixels where their size is unknown."""
    if math.isnan(marks.area_m2):
        return f"{marks.area_px:,.0f} px"
    return f"{marks.area_m2 / 1e6:,.3g} km²" if marks.area_m2 >= 1e5 else f"{marks.area_m2:,.0f} m²"


def _draw_legend(strip: Axes, view: View, symbols: Sequence[tuple[str, str]], coloured: bool) -> float:
    """Draw scale bar, north arrow, and each symbol (outline, ring or patch) with its text; return the end in inches."""
    level = LEGEND_IN - 0.42
    x = draw_scale(strip, view, level) + 0.25
    if view.north_up:
        draw_north(strip, x, level)
        x += 0.4
    colour = colormaps[style.PROBABILITY](0.75) if coloured else to_rgb(_PLAIN)
    for symbol, name in symbols:
        if symbol == "ring":
            size = _RING_PT**2
            strip.scatter([x + 0.12], [level], size, facecolors="none", edgecolors=[colour], linewidths=_LINE_PT)
        else:
            face, edge, width = ("none", colour, _LINE_PT) if symbol == "outline" else (NO_DATA, style.MUTED, 0.5)
            place = (x, level - 0.075)
            strip.add_patch(Rectangle(place, 0.24, 0.15, facecolor=face, edgecolor=edge, linewidth=width))
        strip.text(x + 0.33, level, name, fontsize=style.LABEL_PT, color=style.INK, va="center")
        x += 0.33 + 0.07 * len(name) + 0.2
    return x


def draw_scale(strip: Axes, view: View, level: float) -> float:
    """Draw a bar of a round length in metres, or in pixels if their size is unknown; return its end in inches."""
    unit = view.pixel_m[0] if view.pixel_m else 1.0
    inch = view.info.width * unit / view.width_in
    length = style.round_length(min(max(0.2 * view.width_in, 0.9), 1.8) * inch)
    in_km = view.pixel_m is not None and length >= 1000
    label = f"{length / 1000:g} km" if in_km else f"{length:g} {'m' if view.pixel_m else 'px'}"
    half = length / inch / 2
    for left, face in ((0.0, style.INK), (half, "white")):
        strip.add_patch(Rectangle((left, level - 0.04), half, 0.08, facecolor=face, edgecolor=style.INK, linewidth=0.8))
    strip.text(0, level + 0.09, "0", fontsize=style.SMALL_PT, color=style.INK, va="bottom")
    strip.text(2 * half, level + 0.09, label, fontsize=style.SMALL_PT, color=style.INK, va="bottom", ha="center")
    return 2 * half + 0.2


def draw_north(strip: Axes, x: float, level: float) -> None:
    """Draw a north arrow, at inches of the legend."""
    arrow = [(x - 0.08, level - 0.13), (x, level + 0.1), (x + 0.08, level - 0.13), (x, level - 0.07)]
    strip.add_patch(Polygon(arrow, facecolor=style.INK, edgecolor=style.INK, linewidth=0.5))
    text: dict[str, Any] = {"size": style.SMALL_PT, "color": style.INK, "weight": "bold"}
    strip.text(x, level + 0.12, "N", ha="center", va="bottom", **text)


def _draw_colours(strip: Axes, left: float, label: str) -> None:
    """Draw the colours of probability, `left` inches from the left side of the picture."""
    across = strip.get_xlim()[1]
    left = min(left, across - _COLOURS_IN)
    place = (left / across, (LEGEND_IN - 0.46) / LEGEND_IN, _COLOURS_IN / across, 0.1 / LEGEND_IN)
    axes = strip.inset_axes(place)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=style.PROBABILITY, extent=(0, 1, 0, 1), aspect="auto")
    axes.set(xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"], yticks=[])
    axes.tick_params(labelsize=style.SMALL_PT, colors=style.MUTED, length=0, pad=2)
    axes.set_title(label, fontsize=style.SMALL_PT, color=style.INK, loc="left", pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
