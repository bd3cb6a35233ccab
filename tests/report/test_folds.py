"""Tests of the map of spatial folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from matplotlib.figure import Figure

from lim_keras.data.positions import Positions
from lim_keras.data.tiles import Tile, TileSet
from lim_keras.report import style
from lim_keras.report.folds import fold_map


def panels(monkeypatch: pytest.MonkeyPatch, corners: list[tuple[float, float]], regions: list[int]) -> list[str]:
    """Return the titles of the panels of a map of tiles of 200 m with these lower left corners."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: object) -> Path:
        figures.append(figure)
        return Path("folds.png")

    monkeypatch.setattr(style, "save", keep)
    names = tuple(f"t{k}" for k in range(len(corners)))
    tiles = TileSet(
        Path(),
        tuple(
            Tile(name, Path("a.tif"), None, "landslide", "", "", None, None, 100, 100, 2.0, "", 9, 10_000)
            for name in names
        ),
        bands=3,
        dtype="uint8",
    )
    outlines = np.array([shapely.box(x, y, x + 200, y + 200) for x, y in corners])
    positions = Positions(names, np.array(regions), outlines, np.zeros((len(names), 3)))
    fold_map(tiles, positions, dict.fromkeys(names, 0), (), "folds.png")
    return [text for axes in figures[0].axes if (text := axes.get_title() or axes.get_title("left"))]


def block(x: float, y: float, side: int) -> list[tuple[float, float]]:
    return [(x + 300 * column, y + 300 * row) for row in range(side) for column in range(side)]


def test_scenes_far_apart_get_a_panel_each(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = panels(monkeypatch, block(0, 0, 3) + block(20_000, 500, 2), [0] * 13)
    assert titles == ["place 1: 9 tiles", "place 2: 4 tiles"]


@pytest.mark.parametrize(
    "corners",
    [
        block(0, 0, 4) + block(2_000, 0, 4),  # two scenes that one panel shows well
        [(0, 0), (9_000, 0), (0, 9_000), (9_000, 9_000), (4_500, 4_500)],  # single tiles
        [(k * 20_000.0, y) for k in range(8) for y in (0, 300, 600, 900)],  # more places than panels
    ],
)
def test_one_panel_otherwise(monkeypatch: pytest.MonkeyPatch, corners: list[tuple[float, float]]) -> None:
    assert panels(monkeypatch, corners, [0] * len(corners)) == [f"{len(corners)} tiles"]


def test_regions_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = panels(monkeypatch, block(0, 0, 2) + block(0, 0, 3), [0] * 4 + [1] * 9)
    assert titles == ["place 1: 9 tiles", "place 2: 4 tiles"]
