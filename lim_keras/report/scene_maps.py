"""A scene and several maps of it side by side, for scenes without truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lim_keras.data.tiles import LANDSLIDE
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from lim_keras.report import preview, style
from lim_keras.report.sample_grids import PAGE_IN

MAPPED = "#e8442e"
"""Colour of pixels that are mapped as landslide; it stands for no outcome, because there is no truth."""

_PALER = 0.5
_TALLEST_IN = 6.0
_LONGEST_PX = 720
_LINE_IN, _LEGEND_IN = 0.18, 0.5
_CHARACTER_IN = 0.09
_TALL, _WIDE = 0.8, 2.2
"""Width over height of a scene, below which all panels lie side by side, and above which they lie below each other."""


@dataclass(frozen=True, slots=True)
class MappedScene:
    """A map of a scene: title, mask of landslides on the scene's grid, and landslide pixels over pixels with data."""

    title: str
    mask: Path
    share: float


def scene_maps(scene: RasterReader, maps: Sequence[MappedScene], bands: Sequence[int] = (1, 2, 3)) -> Figure:
    """Draw a scene, and each map in colour on a grey picture of the scene; titles hold the mapped share.

    A pixel of the picture is coloured where any pixel of the mask within it is landslide.

    Args:
        scene: the scene.
        maps: maps on its grid.
        bands: one or three bands to show; a scene of fewer bands is drawn in grey.
    """
    picture, _ = preview.read_picture(scene, bands)
    view = preview.view_of(scene.info, Georeference.of(scene.info))
    ratio = view.width_in / view.height_in
    columns = len(maps) + 1 if ratio < _TALL else 1 if ratio > _WIDE else 2
    rows = math.ceil((len(maps) + 1) / columns)
    height = min(PAGE_IN / columns / ratio, _TALLEST_IN)
    letters = int(PAGE_IN / columns / _CHARACTER_IN)
    titles = ["Scene", *("\n".join([*wrap(one.title, letters), f"mapped: {one.share:.2%}"]) for one in maps)]
    lines = max(title.count("\n") + 1 for title in titles)
    figure = style.new_figure(PAGE_IN, rows * (height + _LINE_IN * lines) + _LEGEND_IN)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    whole = (0, scene.info.width, scene.info.height, 0)
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    pale = (255 - _PALER * (255 - grey)).astype(np.uint8)
    for axes, title, background in zip(panels, titles, [picture, *[pale] * len(maps)], strict=False):
        axes.imshow(background, extent=whole, aspect=scene.info.width / scene.info.height / ratio)
        style.dress_picture(axes, title)
    for axes, one in zip(panels[1:], maps, strict=False):
        axes.imshow(_coloured(one.mask), extent=whole, interpolation="nearest", aspect=axes.get_aspect())
    patch = Patch(facecolor=MAPPED, label="mapped as landslide")
    figure.legend(handles=[patch], loc="outside lower center", handlelength=1.2, **style.LEGEND)
    return figure


def _coloured(mask: Path) -> NDArray[np.uint8]:
    """Return a transparent picture (height, width, 4) in which landslides have a colour."""
    with RasterReader(mask, nodata="none") as reader:
        landslide = any_landslide(reader, max(1, math.ceil(max(reader.info.width, reader.info.height) / _LONGEST_PX)))
    picture = np.zeros((*landslide.shape, 4), np.uint8)
    picture[landslide] = (*(round(255 * part) for part in to_rgb(MAPPED)), 255)
    return picture


def any_landslide(mask: RasterReader, factor: int) -> NDArray[np.bool_]:
    """Reduce a mask by a factor, row by row: True where any of factor x factor pixels is landslide."""
    info, strips = mask.info, []
    for top in range(0, info.height, factor):
        pixels = mask.pixels(Box(top, 0, min(top + factor, info.height), info.width))[..., 0] == LANDSLIDE
        strips.append(np.logical_or.reduceat(pixels.any(axis=0), np.arange(0, info.width, factor)))
    return np.stack(strips)
