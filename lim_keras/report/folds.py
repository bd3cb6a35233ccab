"""Map and table of spatial folds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from rich.table import Table
from scipy import ndimage

from lim_keras.data.positions import Positions
from lim_keras.data.split_facts import SplitFacts
from lim_keras.data.tiles import TileSet
from lim_keras.report import style
from lim_keras.report.tables import add_row, new_table

_PANELS, _COLUMNS = 6, 3

# Cells along a region; tiles with two empty cells between them lie in different places.
_CELLS = 16

# Fewest tiles of a panel, on average, if a region is divided.
_FEWEST = 4

# Brightness of tiles: those with landslides stand out.
_LANDSLIDE, _OTHER = 0.95, 0.4

_TEST, _TRAINING, _VALIDATION = "test tiles", "training tiles", "validation tiles"
_SIDES = {_TEST: style.INK, _TRAINING: style.MUTED, _VALIDATION: style.SERIES[0]}


def fold_map(
    tiles: TileSet,
    positions: Positions,
    folds: Mapping[str, int],
    left_out: Collection[str],
    path: str | PathLike[str],
) -> Path:
    """Draw the tiles on the ground in the colour of their fold, north up, one panel for each place.

    Args:
        tiles: all tiles.
        positions: their positions; tiles without one are not drawn. At most the six largest places are drawn.
        folds: fold by tile id, -1 for test tiles; tiles without one train the only model.
        left_out: tiles that a buffer leaves out of the training of some fold; they get a cross.
        path: file of the figure, .png, .svg or .pdf.
    """
    names = _names(tiles, folds)
    places = _places(positions)
    places.sort(key=len, reverse=True)
    shown = places[:_PANELS]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = style.new_figure(4.6 * columns + 1.6, 4.6 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    drawn: set[str] = set()
    for number, (axes, members) in enumerate(zip(panels, shown, strict=False), 1):
        drawn |= _draw_place(axes, tiles, positions, members, names, left_out)
        noun = f"place {number}: " if len(places) > 1 else ""
        style.dress_picture(axes, f"{noun}{len(members):,} tiles")
    for axes in panels:
        axes.set_axis_off()
    _legend(figure, sorted(drawn), bool(left_out))
    rest = len(places) - len(shown)
    style.headline(figure, "Folds" + (f" ({rest} smaller places are not drawn)" if rest else ""))
    return style.save(figure, path)


def _places(positions: Positions) -> list[NDArray[np.intp]]:
    """Divide the tiles of each region into places, where these are small beside the distance between them."""
    regions = [np.flatnonzero(positions.regions == region) for region in np.unique(positions.regions)]
    places = [place for members in regions for place in _divide(positions.centres, members)]
    return places if len(places) <= _PANELS else regions


def _divide(centres: NDArray[np.float64], members: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Divide the tiles of one region; return them together if one panel shows them well."""
    low, high = centres[members].min(axis=0), centres[members].max(axis=0)
    side = max(float((high - low).max()), 1.0)
    cells = np.minimum((centres[members] - low) / side * _CELLS, _CELLS - 1).astype(np.intp)
    taken = np.zeros((_CELLS, _CELLS), bool)
    taken[tuple(cells.T)] = True
    # One dilation joins cells with at most one empty cell between them.
    labels, _ = ndimage.label(ndimage.binary_dilation(taken, np.ones((2, 2))), np.ones((3, 3)))
    of_tile = labels[tuple(cells.T)]
    places = [members[of_tile == label] for label in np.unique(of_tile)]
    largest = max(float(np.ptp(centres[place], axis=0).max()) for place in places)
    together = largest > side / 4 or len(members) < _FEWEST * len(places)
    return [members] if together else places


def _draw_place(
    axes: Axes,
    tiles: TileSet,
    positions: Positions,
    members: Any,
    named: Mapping[str, str],
    left_out: Collection[str],
) -> set[str]:
    """Draw the tiles of one place, and return the names of what was drawn."""
    names = {positions.ids[k]: named[positions.ids[k]] for k in members}
    outlines, centres = positions.outlines[members], positions.centres[members]
    low, high = shapely.bounds(outlines)[:, :2].min(axis=0), shapely.bounds(outlines)[:, 2:].max(axis=0)
    side = max(float((high - low).max()), 1.0)
    # Tiles of less than a hundredth of the panel are drawn in that size.
    boxes = shapely.union(outlines, shapely.buffer(shapely.points(centres), side / 200, cap_style="square"))
    for bright in (False, True):
        chosen = [k for k, name in enumerate(names) if (tiles[name].kind == "landslide") == bright]
        axes.add_collection(
            PolyCollection(
                [shapely.get_coordinates(boxes[k].convex_hull) for k in chosen],
                facecolors=[_colour(names[positions.ids[members[k]]]) for k in chosen],
                edgecolors="white",
                linewidths=0.3,
                alpha=_LANDSLIDE if bright else _OTHER,
            )
        )
    lost = np.array([name in left_out for name in names])
    if lost.any():
        axes.plot(*centres[lost].T, "x", color=style.INK, markersize=3.5, markeredgewidth=0.8)
    middle, half = (low + high) / 2, 0.58 * side
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    _scale_bar(axes, middle - half, side)
    return set(names.values())


def _scale_bar(axes: Axes, corner: Any, side: float) -> None:
    length = style.round_length(0.25 * side)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    left, level = corner[0] + 0.03 * side, corner[1] + 0.02 * side
    axes.plot((left, left + length), (level, level), color=style.INK, linewidth=2.5)
    axes.text(left + length / 2, level + 0.012 * side, label, color=style.INK, fontsize=style.SMALL_PT, ha="center")


def _names(tiles: TileSet, folds: Mapping[str, int]) -> dict[str, str]:
    """Name the side of each tile: its fold, or, for a run of one model, training or validation."""
    single = any(name not in folds for name in tiles.ids)

    def side(fold: int | None) -> str:
        if fold is None:
            return _TRAINING
        return _TEST if fold < 0 else _VALIDATION if single else f"fold {fold}"

    return {name: side(folds.get(name)) for name in tiles.ids}


def _colour(name: str) -> str:
    if name in _SIDES:
        return _SIDES[name]
    return style.SERIES[int(name.removeprefix("fold ")) % len(style.SERIES)]


def _legend(figure: Figure, names: list[str], crosses: bool) -> None:
    square: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 8}
    marks = [Line2D([], [], color=_colour(name), label=name, **square) for name in names]
    marks.append(Line2D([], [], color=style.MUTED, alpha=_OTHER, label="paler: no landslide", **square))
    if crosses:
        cross: dict[str, Any] = {"linestyle": "", "marker": "x", "color": style.INK, "markersize": 5}
        marks.append(Line2D([], [], label="left out of some\nfold's training", **cross))
    figure.legend(handles=marks, loc="outside right center", **style.LEGEND)


def split_tables(name: str, split: SplitFacts) -> list[Table | str]:
    """Show a row for each spatial fold, then a line on leaks; nothing for random folds without leaks."""
    parts: list[Table | str] = []
    if split.folds:
        columns = ("held-out tiles", "with landslides", "landslide share", "training tiles", "left out")
        distances = ("to other folds", "to training tiles")
        table = new_table(f"{name}: {split.headline}", "fold", *columns, *distances, title_justify="left")
        for fold, facts in split.folds.items():
            counts = f"{facts.tiles:,}", f"{facts.landslide_tiles:,}", f"{facts.landslide_share:.2%}"
            training = f"{facts.training_tiles:,}", f"{len(facts.left_out):,}"
            metres = (_metres(facts.nearest_m), _metres(facts.nearest_training_m))
            add_row(table, str(fold), *counts, *training, *metres)
        parts.append(table)
    if split.leaks:
        parts.append(
            f"The scores on the test tiles are flattered: {len(split.leaks)} times, test tiles share ground, groups or "
            "files with training tiles."
        )
    return parts


def _metres(distance: float | None) -> str:
    return "" if distance is None else f"{distance:,.0f} m"
