"""Tables and pictures of tilings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from pyproj import Transformer
from rich.table import Table

from lim_keras.files import atomic_file
from lim_keras.raster.georeference import Georeference, RasterInfo, apply, border, inverse, same_crs
from lim_keras.raster.reader import NO_LABEL
from lim_keras.raster.windows import blocks
from lim_keras.report import style
from lim_keras.report.marks import Marks
from lim_keras.report.preview import (
    LEGEND_IN,
    NO_DATA,
    View,
    draw_north,
    draw_scale,
    lay_out,
    read_picture,
    view_of,
    write_headings,
)
from lim_keras.report.tables import add_row, format_gsd
from lim_keras.tiling.plan import PlannedTile
from lim_keras.tiling.report import OUTSIDE, OUTSIDE_AOI, TilingReport
from lim_keras.tiling.scenes import TilingScene

_NAMED = 8
_LANDSLIDES, _LANDSLIDE_TILES, _BACKGROUND_TILES = "#e8442e", "#ffd21f", "#3fc1ff"
_LINE_PT, _CASING_PT, _RING_PT = 1.2, 2.6, 6.0
_VEIL = "#4b3a78"  # colour of ground without label
_VEIL_ALPHA = 0.55
_PICTURE_PX = 1440
_JPEG_QUALITY = 90


def tiling_tables(report: TilingReport) -> list[Any]:
    """Show the tiles of each scene, and the landslides that lie in no tile with their reasons."""
    table = Table(title="Tiles", title_justify="left")
    for name in ("scene", "size, px", "pixel", "landslide tiles", "background tiles", "landslides", "in tiles"):
        table.add_column(name, overflow="fold", justify="left" if name == "scene" else "right")
    for scene in report.scenes:
        size = f"{scene.width:,} x {scene.height:,}"
        counts = (scene.landslide_tiles, scene.background_tiles, scene.landslides, scene.covered)
        add_row(table, scene.name, size, format_gsd(scene.gsd_m), *(f"{count:,}" for count in counts))
    if len(report.scenes) > 1:
        sums = (report.landslide_tiles, report.background_tiles, report.landslides, report.covered)
        add_row(table, "all", "", "", *(f"{count:,}" for count in sums))
    return [table, *_lines(report)]


def _lines(report: TilingReport) -> list[str]:
    lines = [f"polygons {text}" for text in _label_lines(report)]
    for scene in report.scenes:
        for reason, ids in scene.lost.items():
            lines.append(f"{scene.name}: landslides in no tile ({reason}): {_listed(ids)}")
        if scene.hard is not None:
            lines.append(f"{scene.name}: background tiles over false alarms of a model: {scene.hard:,}")
        if not scene.landslide_tiles and not scene.background_tiles:
            share = f"{scene.labelled_px / (scene.width * scene.height):.0%} of its pixels have data and a label"
            lines.append(f"{scene.name}: no tile; {share}")
    if report.wanted is not None and report.background_tiles < report.wanted:
        lines.append(
            f"background tiles: {report.background_tiles:,} of {report.wanted:,}; there is no room for more beside the "
            "landslide tiles. Smaller tiles, or scenes without landslides, give more"
        )
    if report.groups:
        lines.append(f"groups of tiles of common ground: {report.groups:,}; the largest has {report.largest_group:,}")
    return lines


def _label_lines(report: TilingReport) -> list[str]:
    """Return lines on polygons that were repaired or do not count, and on those outside of all scenes."""
    labels = report.labels
    shown = {
        "repaired": "repaired",
        "repeated": "that repeat another one",
        "empty": "without area",
        "uncertain": "uncertain, without label",
        "rejected": "rejected, background",
        "not_selected": "not selected",
    }
    lines = [f"{text}: {labels[name]:,}" for name, text in shown.items() if labels.get(name)]
    lines += [
        f"left out, because they are {name}: {labels[name]:,}" for name in ("lines", "points") if labels.get(name)
    ]
    lost: dict[str, list[str]] = {}
    for one in labels.get("lost", ()):
        if one["reason"] in (OUTSIDE, OUTSIDE_AOI):
            source = str(one["source"])
            name = f"{source} ({one['name']})" if one["name"] not in ("", source) else source
            lost.setdefault(one["reason"], []).append(name)
    return [*lines, *(f"{reason}: {_listed(names)}" for reason, names in lost.items())]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names):,}, with the feature ids {shown}"


def draw_tiling(scene: TilingScene, tiles: Sequence[PlannedTile], path: str | PathLike[str]) -> Path:
    """Draw a scene with the outlines of its landslides and tiles, as a JPEG file.

    The scene is averaged to 1,440 pixels on its longer side. Pixels without data are light grey, those without a label
    have a veil.

    Raises:
        DataError: the scene cannot be read, or the file cannot be written.
    """
    source, path = scene.source, Path(path)
    view = view_of(source.info, Georeference.of(source.info))
    picture, valid = read_picture(source, source.bands[:3] if len(source.bands) >= 3 else source.bands[:1])
    figure, axes, strip = lay_out(view)
    axes.imshow(picture, extent=(0, view.info.width, view.info.height, 0), interpolation="antialiased", aspect="auto")
    unlabelled = valid & _unlabelled(scene, (picture.shape[0], picture.shape[1]))
    veil = np.zeros((*unlabelled.shape, 4), np.float32)
    veil[unlabelled] = to_rgba(_VEIL, _VEIL_ALPHA)
    axes.imshow(veil, extent=(0, view.info.width, view.info.height, 0), interpolation="nearest", aspect="auto")
    kinds = (("non-landslide", _BACKGROUND_TILES), ("landslide", _LANDSLIDE_TILES))
    counts = []
    for kind, colour in kinds:
        outlines = [_outline(scene, tile) for tile in tiles if tile.kind == kind]
        _draw_lines(axes, outlines, colour)
        counts.append(len(outlines))
    marks = Marks.of(scene.labels.landslides, view.georeference, view.drawn_px)
    _draw_lines(axes, marks.lines()[0], _LANDSLIDES)
    x, y = marks.centres()[0].T
    axes.scatter(x, y, s=_RING_PT**2, facecolors="none", edgecolors=_LANDSLIDES, linewidths=_LINE_PT)
    axes.set(xlim=(0, view.info.width), ylim=(view.info.height, 0))
    size = f"{scene.info.width:,} x {scene.info.height:,} px" + (
        f" of {scene.info.gsd_m:.3g} m" if scene.info.gsd_m else ""
    )
    numbers = f"{counts[1]:,} landslide tiles  ·  {counts[0]:,} background tiles  ·  {marks.number:,} landslides"
    write_headings(figure, scene.name, f"{numbers}  ·  {size}")
    _draw_legend(strip, view, no_label=bool(unlabelled.any()), no_data=not valid.all())
    _save(figure, path)
    return path


def _outline(scene: TilingScene, tile: PlannedTile) -> NDArray[np.float64]:
    """Return the closed outline (n, 2) of a tile in pixels of the scene's own grid."""
    points = border(tile.box, points=4)
    return _moved(np.concatenate([points, points[:1]]), scene.info, scene.source.info)


def _moved(points: NDArray[np.float64], grid: RasterInfo, other: RasterInfo) -> NDArray[np.float64]:
    """Convert points (n, 2), column and row, from one grid of pixels to another."""
    if grid == other:
        return points
    placed = Georeference.of(grid).place(points)
    if not same_crs(grid.crs, other.crs):
        placed = np.stack(Transformer.from_crs(grid.crs, other.crs, always_xy=True).transform(*placed.T), axis=-1)
    return apply(inverse(Georeference.of(other).transform), placed)


def _unlabelled(scene: TilingScene, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of a picture (height, width) of the scene have no label."""
    found = np.zeros(shape, np.bool_)
    if scene.labels.everywhere:
        return found
    grid, own, (height, width) = scene.info, scene.source.info, shape
    step = -(-max(grid.height, grid.width) // _PICTURE_PX)
    sampled = np.zeros((-(-grid.height // step), -(-grid.width // step)), np.bool_)
    for box in blocks(grid.height, grid.width, step * -(-2048 // step)):
        part = scene.labels.mask(box)[::step, ::step] == NO_LABEL
        top, left = box.top // step, box.left // step
        sampled[top : top + part.shape[0], left : left + part.shape[1]] = part
    rows, columns = (np.arange(height) + 0.5) * own.height / height, (np.arange(width) + 0.5) * own.width / width
    centres = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    at = np.floor(_moved(centres, own, grid) / step)
    inside = (at >= 0).all(axis=-1) & (at < sampled.shape[::-1]).all(axis=-1)
    column, row = at[inside].astype(int).T
    found.reshape(-1)[inside] = sampled[row, column]
    return found


def _draw_lines(axes: Axes, lines: Sequence[NDArray[np.float64]], colour: str) -> None:
    for width, shown in ((_CASING_PT, "black"), (_LINE_PT, colour)):
        axes.add_collection(LineCollection(lines, colors=shown, linewidths=width, alpha=0.9), autolim=False)


def _draw_legend(strip: Axes, view: View, *, no_label: bool, no_data: bool) -> None:
    level = LEGEND_IN - 0.42
    x = draw_scale(strip, view, level) + 0.25
    if view.north_up:
        draw_north(strip, x, level)
        x += 0.4
    symbols = [("landslide", _LANDSLIDES), ("landslide tile", _LANDSLIDE_TILES), ("background tile", _BACKGROUND_TILES)]
    gaps = [("no label", to_hex(to_rgba(_VEIL, _VEIL_ALPHA), keep_alpha=True))] * no_label + [
        ("no data", NO_DATA)
    ] * no_data
    for name, colour in [*symbols, *gaps]:
        place, width, height = (x, level - 0.075), 0.24, 0.15
        if (name, colour) not in gaps:
            for line, edge in ((_CASING_PT, "black"), (_LINE_PT, colour)):
                strip.add_patch(Rectangle(place, width, height, facecolor="none", edgecolor=edge, linewidth=line))
        else:
            strip.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor=style.MUTED, linewidth=0.5))
        strip.text(x + 0.33, level, name, fontsize=style.LABEL_PT, color=style.INK, va="center")
        x += 0.33 + 0.07 * len(name) + 0.2


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        quality = {"quality": _JPEG_QUALITY}
        figure.savefig(draft, dpi=style.DPI, facecolor="white", format="jpeg", pil_kwargs=quality)
