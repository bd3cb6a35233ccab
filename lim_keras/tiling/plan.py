"""Plan of the tiles of all scenes: their places and groups."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from lim_keras.data.groups import name_groups
from lim_keras.data.tiles import Kind
from lim_keras.errors import DataError
from lim_keras.progress import ProgressCallback
from lim_keras.raster.georeference import Georeference, border
from lim_keras.raster.windows import Box
from lim_keras.tiling.background_tiles import Score, choose_background_tiles, place_background_tiles
from lim_keras.tiling.count_grid import CountGrid
from lim_keras.tiling.landslide_tiles import LandslideTiles, place_landslide_tiles
from lim_keras.tiling.options import TilingOptions
from lim_keras.tiling.report import TOO_SMALL, SceneReport
from lim_keras.tiling.scenes import TilingScene

_TURN = 360.0  # degrees of longitude


@dataclass(frozen=True)
class PlannedTile:
    """A tile to cut.

    Attributes:
        tile_id: unique name.
        scene: position of its scene.
        box: pixels of the grid of the tiles.
        kind: landslide or non-landslide.
        group: name of the group of tiles of common ground or landslides; "" for none.
        score: strength of the false alarms of a model on a background tile; 0: none, or no model.
    """

    tile_id: str
    scene: int
    box: Box
    kind: Kind
    group: str = ""
    score: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Tiles of all scenes, in the order of scenes and from the top down, and a report for each scene."""

    tiles: tuple[PlannedTile, ...]
    scenes: tuple[SceneReport, ...]


def plan_tiles(
    scenes: Sequence[TilingScene],
    options: TilingOptions,
    *,
    score: Score | None = None,
    progress: ProgressCallback | None = None,
) -> Plan:
    """Plan the tiles of scenes; equal inputs and seeds give equal plans.

    Args:
        scenes: open scenes.
        options: options of the tiling.
        score: ranks background tiles for hard negatives; None: they are drawn at random.
        progress: receives the number of counted pixels.
    """
    with progress.begin("counting pixels", _pixels(scenes), unit="px") if progress else nullcontext():
        counts = [CountGrid.measure(scene, options.size, progress) for scene in scenes]
    landslides = [
        place_landslide_tiles(one, options, np.random.default_rng([options.seed, zlib.crc32(scene.name.encode())]))
        for one, scene in zip(counts, scenes, strict=True)
    ]
    background = _background(counts, landslides, options, score)
    tiles = [
        PlannedTile(scene.tile_id(box, options.prefix), k, box, kind, score=value)
        for k, scene in enumerate(scenes)
        for box, kind, value in _ordered(landslides[k], background[k])
    ]
    reports = [
        _report(one, placed, chosen, scored=score is not None)
        for one, placed, chosen in zip(counts, landslides, background, strict=True)
    ]
    return Plan(tuple(_grouped(tiles, scenes)), tuple(reports))


def _pixels(scenes: Sequence[TilingScene]) -> int:
    return sum(scene.info.height * scene.info.width for scene in scenes)


def _background(
    counts: Sequence[CountGrid], landslides: Sequence[LandslideTiles], options: TilingOptions, score: Score | None
) -> list[list[tuple[Box, float]]]:
    number = sum(len(placed.boxes) for placed in landslides)
    if options.background == 0 or (options.background != "all" and not number):
        return [[] for _ in counts]
    rng = np.random.default_rng([options.seed, len(counts)])
    candidates = [
        place_background_tiles(one, placed.boxes, options, rng) for one, placed in zip(counts, landslides, strict=True)
    ]
    if options.background == "all":
        return [[(box, 0.0) for box in boxes] for boxes in candidates]
    return choose_background_tiles(candidates, counts, round(options.background * number), rng, score)


def _ordered(placed: LandslideTiles, background: Sequence[tuple[Box, float]]) -> list[tuple[Box, Kind, float]]:
    tiles: list[tuple[Box, Kind, float]] = [(box, "landslide", 0.0) for box in placed.boxes]
    tiles += [(box, "non-landslide", score) for box, score in background]
    return sorted(tiles, key=lambda tile: (tile[0].top, tile[0].left))


def _report(
    counts: CountGrid, placed: LandslideTiles, background: Sequence[tuple[Box, float]], *, scored: bool
) -> SceneReport:
    scene, info = counts.scene, counts.scene.info
    ids = [str(one) for one in scene.labels.landslides["source"]] if len(scene.outlines) else []
    lost: dict[str, list[str]] = {}
    for number, reason in placed.lost.items():
        lost.setdefault(reason, []).append(ids[number])
    return SceneReport(
        name=scene.name,
        path=scene.source.name,
        width=info.width,
        height=info.height,
        gsd_m=info.gsd_m,
        crs=info.crs,
        labelled_px=counts.whole.labelled,
        landslide_tiles=len(placed.boxes),
        background_tiles=len(background),
        landslides=len(scene.outlines),
        covered=len(placed.covered),
        lost=lost,
        hard=sum(score > 0 for _, score in background) if scored else None,
    )


def _grouped(tiles: Sequence[PlannedTile], scenes: Sequence[TilingScene]) -> list[PlannedTile]:
    """Set `group` so that tiles that share ground or a landslide, directly or in a chain, share one group.

    A group is named after its first tile.
    """
    links = [*_shared_ground(tiles, scenes), *_shared_landslides(tiles, scenes)]
    groups = name_groups([tile.tile_id for tile in tiles], links)
    return [replace(tile, group=name) for tile, name in zip(tiles, groups, strict=True)]


def _shared_ground(tiles: Sequence[PlannedTile], scenes: Sequence[TilingScene]) -> list[tuple[int, int]]:
    """Return pairs of tiles that link all whose areas overlap: in one scene by pixels, across scenes by outlines."""
    links: list[tuple[int, int]] = []
    for k in range(len(scenes)):
        own = [position for position, tile in enumerate(tiles) if tile.scene == k]
        links += [(own[i], own[j]) for i, j in _chains([tiles[position].box for position in own])]
    located = [k for k, scene in enumerate(scenes) if Georeference.of(scene.info).to_degrees is not None]
    local = {k: ("", scene.info.crs) for k, scene in enumerate(scenes) if k not in located and scene.info.transform}
    for members in [located, *([k for k in local if local[k] == key] for key in set(local.values()))]:
        if len(members) > 1:
            own = [position for position, tile in enumerate(tiles) if tile.scene in members]
            areas = _areas([tiles[position] for position in own], scenes, in_degrees=members is located)
            shared = _crossing(areas, turned=members is located)
            links += [(own[i], own[j]) for i, j in shared if tiles[own[i]].scene != tiles[own[j]].scene]
    return links


def _chains(boxes: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Yield pairs of boxes of one size that link all boxes of common pixels, directly or in a chain.

    Boxes that start in one cell of their size overlap, so that one pair links two cells.
    """
    cells: dict[tuple[int, int], list[int]] = {}
    for position, box in enumerate(boxes):
        cells.setdefault((box.top // box.height, box.left // box.width), []).append(position)
    starts = np.array([(box.top, box.left) for box in boxes], np.int64).reshape(-1, 2)
    for (row, column), members in cells.items():
        yield from ((members[0], other) for other in members[1:])
        for there in ((row, column + 1), (row + 1, column - 1), (row + 1, column), (row + 1, column + 1)):
            others = cells.get(there, [])
            for one in members if others else ():
                size = boxes[one].height, boxes[one].width
                close = (np.abs(starts[others] - starts[one]) < size).all(axis=-1)
                if close.any():
                    yield one, others[int(close.argmax())]
                    break


def _areas(tiles: Sequence[PlannedTile], scenes: Sequence[TilingScene], *, in_degrees: bool) -> list[Any]:
    """Return the outlines of tiles in the common projected CRS of their scenes, else in longitude and latitude.

    Longitudes begin between -180 and 180 degrees and may go on beyond 180.
    """
    systems = {scenes[tile.scene].info.crs for tile in tiles}
    in_degrees = in_degrees and (len(systems) > 1 or CRS.from_user_input(systems.pop()).is_geographic)
    areas = []
    for tile in tiles:
        ground, points = Georeference.of(scenes[tile.scene].info), border(tile.box, points=4)
        if not in_degrees:
            areas.append(shapely.Polygon(ground.place(points)))
            continue
        places = ground.degrees(points)
        longitudes = np.unwrap(places[:, 0], period=_TURN)
        places[:, 0] = longitudes - _TURN * np.floor((longitudes.min() + _TURN / 2) / _TURN)
        areas.append(shapely.Polygon(places))
    return areas


def _polygon(box: Box) -> Any:
    return shapely.box(box.left, box.top, box.right, box.bottom)


def _crossing(areas: Sequence[Any], *, turned: bool) -> list[tuple[int, int]]:
    """Return the pairs of areas that share more than an edge; `turned`: also after a whole turn in longitude."""
    if len(areas) < 2:
        return []
    outlines, found = np.array(areas, object), set[tuple[int, int]]()
    tree = shapely.STRtree(outlines)
    for shift in (0.0, _TURN) if turned else (0.0,):
        step = np.array((shift, 0.0))
        moved = shapely.transform(outlines, lambda points, step=step: points + step) if shift else outlines
        first, second = tree.query(moved, predicate="intersects")
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            least = 1e-6 * min(areas[i].area, areas[j].area)
            if (i < j or (shift and i != j)) and moved[i].intersection(areas[j]).area > least:
                found.add((min(i, j), max(i, j)))
    return sorted(found)


def _shared_landslides(tiles: Sequence[PlannedTile], scenes: Sequence[TilingScene]) -> list[tuple[int, int]]:
    """Return pairs of tiles of one landslide: of one outline in a scene, or of one polygon across scenes."""
    links: list[tuple[int, int]] = []
    across: dict[str, int] = {}
    for k, scene in enumerate(scenes):
        own = [position for position, tile in enumerate(tiles) if tile.scene == k and tile.kind == "landslide"]
        if not own or not len(scene.outlines):
            continue
        areas = [_polygon(tiles[position].box) for position in own]
        hit, landslide = shapely.STRtree(scene.outlines).query(areas, predicate="intersects")
        first: dict[int, int] = {}
        for tile, outline in zip(hit.tolist(), landslide.tolist(), strict=True):
            links.append((first.setdefault(outline, own[tile]), own[tile]))
        sources = [str(one) for one in scene.labels.landslides["source"]]
        parts = Counter(sources)  # a polygon of several parts is one feature of many landslides
        for outline, position in first.items():
            if parts[sources[outline]] == 1:
                links.append((across.setdefault(sources[outline], position), position))
    return links


def check_plan(plan: Plan, options: TilingOptions, *, review: bool = False) -> None:
    """Raise DataError if there is nothing to cut; `review`: the labels are those of a reviewed inventory."""
    if plan.tiles:
        return
    landslides = sum(scene.landslides for scene in plan.scenes)
    reasons = sorted({reason for scene in plan.scenes for reason in scene.lost})
    listed = ", ".join(scene.path for scene in plan.scenes[:3]) + (", ..." if len(plan.scenes) > 3 else "")
    if landslides:
        why = f"none of their {landslides} landslides fits into a tile ({'; '.join(reasons)})"
        cure = "Lower `min_valid`, or check the ground without data (`nodata`, `aoi`)"
    else:
        why, cure = "no landslide lies on them", "Check CRS and place of the labels, or give `background` all"
    if options.background == "all":
        cure = "Lower `min_valid`, or check the ground without data (`nodata`, `aoi`)"
    if reasons == [TOO_SMALL] and options.background != "all":
        cure = "Give a smaller `gsd_m`, or `touched`"
    if review:
        cure = f"Only reviewed and searched ground has labels: mark more as searched in the review. {cure}"
    raise DataError(f"{listed}: no tile can be cut: {why}. {cure}.")
