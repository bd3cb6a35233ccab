"""Simulate an hour of an expert on a synthetic scene, train with the verdicts, and map the next scene.

Usage: python docs/experiments/simulated_review.py FOLDER [--seeds 0 1 2] [--mistakes 0.05] [--no-edits]

A world gives the first model. For each seed, a second one is mapped and reviewed, and a third one, `next`, is mapped by
three models: the first one, and two that started from it and were trained for the same number of steps more: `control`
on the tiles of the first world again, `learned` on these and the tiles of the verdicts. The results are in
FOLDER/SEED/results.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely

from lim_keras.demo.world import make_world, world_files, write_landslides, write_rasters
from lim_keras.evaluation.scene import match_mask
from lim_keras.metrics.detections import overlapping
from lim_keras.raster.images import read_image
from lim_keras.raster.reader import RasterReader
from lim_keras.review.orders import Order, ordered
from lim_keras.review.scenes import find_scenes
from lim_keras.review.store import ReviewStore, Status

SIZE, CELL, TILE = 1536, 128, 96
HOUR_S, VERDICT_S, CELL_S, DRAW_S = 3600, 5, 15, 25
STEPS, FIRST, MORE = 64, 4, 4  # steps of an epoch, and epochs of the first and of the second training
ORDERS: tuple[Order, ...] = ("doubtful", "largest", "north")


def command(*arguments: object) -> None:
    """Run a command of lim-keras; its output goes to stderr."""
    words = [sys.executable, "-m", "lim_keras", *map(str, arguments)]
    subprocess.run(words, check=True, stdout=sys.stderr)


def fit(folder: Path, name: str, tiles: Path, epochs: int, *more: object) -> Path:
    """Train a small network on tiles; return its bundle."""
    bundle = folder / "bundles" / name
    if not bundle.exists():
        values = {
            "name": name,
            "training.epochs": epochs,
            "training.steps_per_epoch": STEPS,
            "evaluation.windows": 20,
            "evaluation.bootstrap": 20,
        }
        settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        where = ["--run", folder / "runs" / name, "--export", bundle]
        command("fit", "configs/demo.yaml", "--data", tiles, *where, *settings, *more)
    return bundle


class Oracle:
    """An expert who knows the landslides and makes mistakes.

    A polygon is a landslide if at least half of its area is on one; a share `mistakes` of the verdicts is wrong, and
    the same share of the missed landslides is overlooked in searched cells.
    """

    def __init__(self, truth: geopandas.GeoSeries, mistakes: float, seed: int) -> None:
        self.truth, self.mistakes, self.rng = truth, mistakes, np.random.default_rng(seed)
        self._whole = shapely.union_all(truth.to_numpy())

    def verdict(self, outline: Any) -> bool:
        """Tell whether a polygon is a landslide."""
        right = bool(outline.intersection(self._whole).area >= outline.area / 2)
        return right ^ bool(self.rng.random() < self.mistakes)

    def better(self, outline: Any) -> Any | None:
        """Return the landslide that an outline shows badly, with an IoU below one half; None if there is none."""
        shared = self.truth.intersection(outline).area
        if not shared.max():
            return None
        whole = self.truth.iloc[int(shared.argmax())]
        return whole if shared.max() < shapely.union(whole, outline).area / 2 else None

    def missed(self, cell: Any, accepted: Sequence[Any]) -> list[Any]:
        """Return the landslides of a cell that no accepted polygon touches and that the expert sees."""
        found, _ = overlapping(self.truth.to_numpy(), np.array(accepted, dtype=object))
        here = self.truth[~found & self.truth.centroid.within(cell).to_numpy()]
        return [one for one in here if self.rng.random() >= self.mistakes]


def review(
    store: ReviewStore, oracle: Oracle, threshold: float, bounds: Sequence[float], *, edits: bool
) -> dict[str, float]:
    """Give verdicts, most doubtful first, then search cells in random order, until the hour is over.

    edits: also draw accepted landslides anew whose outlines are bad.
    """
    seconds, counts = 0.0, {"accepted": 0, "rejected": 0, "edited": 0, "drawn": 0, "cells": 0}
    rows = {row["fid"]: row for row in store.landslides()}
    for key in ordered(list(rows.values()), "doubtful", threshold):
        if (seconds := seconds + VERDICT_S) > HOUR_S:
            break
        status: Status = "accepted" if oracle.verdict(rows[key]["geometry"]) else "rejected"
        store.judge([key], status)
        counts[status] += 1
        whole = oracle.better(rows[key]["geometry"]) if status == "accepted" and edits else None
        if whole is not None and (seconds := seconds + DRAW_S) <= HOUR_S:
            store.reshape(key, whole)
            counts["edited"] += 1
    for name, cell in _cells(bounds, oracle.rng):
        accepted = [row["geometry"] for row in store.landslides() if row["status"] == "accepted"]
        missed = oracle.missed(cell, accepted)
        if (seconds := seconds + CELL_S + DRAW_S * len(missed)) > HOUR_S:
            break
        for outline in missed:
            store.draw(outline)
        store.mark_searched({name: cell})
        counts["drawn"], counts["cells"] = counts["drawn"] + len(missed), counts["cells"] + 1
    return {**counts, "polygons": len(rows), "seconds": min(seconds, HOUR_S)}


def _cells(bounds: Sequence[float], rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    west, _, east, north = bounds
    across = round((east - west) / 2 / CELL)
    for number in rng.permutation(across * across):
        row, column = divmod(int(number), across)
        left, top = west + 2 * CELL * column, north - 2 * CELL * row
        yield f"{row},{column}", shapely.box(left, top - 2 * CELL, left + 2 * CELL, top)


def scores(maps: Path, world: Any) -> dict[str, float]:
    """Score a map by pixel and by landslide (any overlap, and IoU of at least one half)."""
    mask_file = maps / f"{world.scene.stem}_landslides.tif"
    mask, truth = read_image(mask_file)[..., 0] == 1, read_image(world.labels)[..., 0] == 1
    hit = float((mask & truth).sum())
    with RasterReader(world.scene) as scene:
        found = match_mask(mask_file, scene, world.landslides).detections
    return {
        "pixel_f1": 2 * hit / max(float(mask.sum() + truth.sum()), 1),
        "f1_any_overlap": found.any_overlap["all"].f1,
        "f1_iou_50": found.iou_50["all"].f1,
    }


def by_order(maps: Path, world: Any, mistakes: float, seed: int) -> dict[str, list[float]]:
    """Return the detection F1 (any overlap) after each verdict, by order of review; `random` is the mean of 20."""
    (scene,) = find_scenes(maps / f"{world.scene.stem}_inventory.gpkg")
    truth = geopandas.read_file(world.landslides).geometry.to_numpy()
    with scene.read_review() as file:
        rows = file.originals()
    shapes = np.array([row["geometry"] for row in rows], dtype=object)
    oracle = Oracle(geopandas.GeoSeries(truth), mistakes, seed)
    verdicts = {row["fid"]: oracle.verdict(row["geometry"]) for row in rows}
    pairs = shapely.STRtree(truth).query(shapes, predicate="intersects").T
    threshold = scene.threshold or 0.5
    curves: dict[str, list[float]] = {
        name: _curve(ordered(rows, name, threshold), rows, verdicts, pairs, len(truth)) for name in ORDERS
    }
    rng, keys = np.random.default_rng(seed), [row["fid"] for row in rows]
    drawn = [_curve(rng.permutation(keys).tolist(), rows, verdicts, pairs, len(truth)) for _ in range(20)]
    return {**curves, "random": np.mean(drawn, axis=0).tolist()}


def _curve(order: Sequence[int], rows: Sequence[Any], verdicts: Any, pairs: Any, mapped: int) -> list[float]:
    place = {row["fid"]: number for number, row in enumerate(rows)}
    kept = np.ones(len(rows), np.bool_)
    curve = [_f1(kept, pairs, mapped)]
    for key in order:
        kept[place[key]] = verdicts[key]
        curve.append(_f1(kept, pairs, mapped))
    return curve


def _f1(kept: Any, pairs: Any, mapped: int) -> float:
    left = pairs[kept[pairs[:, 0]]]
    precision = len(np.unique(left[:, 0])) / max(int(kept.sum()), 1)
    recall = len(np.unique(left[:, 1])) / mapped
    return 2 * precision * recall / max(precision + recall, 1e-9)


def make(folder: Path, name: str, number: int) -> Any:
    """Write a world, unless it is there; return its files."""
    files = world_files(folder / "worlds", name)
    if not files.landslides.exists():
        world = make_world(SIZE, number)
        write_rasters(world, files)
        write_landslides([world], files.landslides)
    return files


def first_models(folder: Path) -> tuple[Path, Path]:
    """Train the first model and its control; return their bundles."""
    world, tiles = make(folder, "train", 100), folder / "tiles" / "train"
    command("data", "tile", world.scene, "--labels", world.landslides, "--size", TILE, "--out", tiles)
    first = fit(folder, "first", tiles, FIRST)
    used = pandas.read_csv(folder / "runs" / "first" / "tiles.csv")
    (folder / "validation.txt").write_text("\n".join(used[used["fold"] == 0]["tile_id"]) + "\n")
    used.drop(columns="fold").to_csv(folder / "old.csv", index=False)
    return first, fit(folder, "control", folder / "old.csv", MORE, *further(folder))


def further(folder: Path) -> tuple[object, ...]:
    """Return the options of a training that starts from the first model, with the validation tiles of that one."""
    start = ("--start-from", folder / "bundles" / "first", "--val", folder / "validation.txt")
    return (*start, "--set", "training.learning_rate=2e-3")


def run(base: Path, seed: int, models: tuple[Path, Path], mistakes: float, *, edits: bool) -> dict[str, Any]:
    """Map and review a scene, learn from the verdicts, and score the maps of the next scene."""
    folder, (first, control) = base / str(seed), models
    checked, following = make(folder, "review", 200 + seed), make(folder, "next", 300 + seed)
    maps, tiles = folder / "maps", folder / "tiles" / "review"
    command("predict", first, checked.scene, "--out", maps, "--min-area", 100)
    counts = review_once(folder, checked, mistakes, seed, edits=edits)
    labels = maps / "review_review.gpkg"
    command("data", "tile", checked.scene, "--labels", labels, "--size", TILE, "--out", tiles)
    new = pandas.read_csv(tiles / "tiles.csv")
    for name in ("image", "mask"):
        new[name] = str(tiles) + "/" + new[name]
    pandas.concat([pandas.read_csv(base / "old.csv"), new]).to_csv(folder / "both.csv", index=False)
    learned = fit(folder, "learned", folder / "both.csv", MORE, *further(base))
    result: dict[str, Any] = {"review": counts, "orders": by_order(maps, checked, mistakes, seed)}
    for name, bundle in (("first", first), ("control", control), ("learned", learned)):
        command("predict", bundle, following.scene, "--out", folder / "next" / name, "--min-area", 100)
        result[name] = scores(folder / "next" / name, following)
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    return result


def review_once(folder: Path, world: Any, mistakes: float, seed: int, *, edits: bool) -> dict[str, float]:
    """Review the map of a world, unless that was done; return the counts."""
    done = folder / "counts.json"
    (scene,) = find_scenes(folder / "maps" / "review_inventory.gpkg")
    if not done.exists():
        with scene.open_review("Oracle") as store, RasterReader(world.scene) as reader:
            corner, end = reader.info.place(0, reader.info.height), reader.info.place(reader.info.width, 0)
            oracle = Oracle(geopandas.read_file(world.landslides).geometry, mistakes, seed)
            counts = review(store, oracle, scene.threshold or 0.5, (*(corner or ()), *(end or ())), edits=edits)
        done.write_text(json.dumps(counts))
    return dict(json.loads(done.read_text()))


def main() -> None:
    """Run all seeds, and write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mistakes", type=float, default=0.05)
    parser.add_argument("--no-edits", action="store_true", help="leave the outlines of accepted landslides as they are")
    options = parser.parse_args()
    models = first_models(options.folder)
    for seed in options.seeds:
        result = run(options.folder, seed, models, options.mistakes, edits=not options.no_edits)
        print(json.dumps({"seed": seed} | {key: value for key, value in result.items() if key != "orders"}), flush=True)


if __name__ == "__main__":
    main()
