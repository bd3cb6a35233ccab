"""Demo: tiles, cross-validation, evaluation and map of a synthetic world."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection
from lim_keras.config_file import load_config
from lim_keras.data.dataset_report import DatasetReport
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_tile_ids
from lim_keras.data.tiles import TileSet
from lim_keras.demo.folder import FIGURES, IMBALANCE, REPORT, begin_demo_folder
from lim_keras.demo.world import WorldFiles, make_world, world_files, write_landslides, write_rasters
from lim_keras.evaluation.bundle_report import BundleReport, evaluate_bundle
from lim_keras.files import write_text
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.raster.images import read_image, read_info
from lim_keras.report.figures import imbalance_chart, scene_overview, write_report_figures
from lim_keras.report.preview import read_preview
from lim_keras.report.tables import dataset_tables, heading, report_tables, run_tables
from lim_keras.report.tiling import draw_tiling, tiling_tables
from lim_keras.tiling.labels import LabelOptions
from lim_keras.tiling.options import Background, TilingOptions
from lim_keras.tiling.tile_scenes import TilingTask, tile_scenes
from lim_keras.training.begin import begin_cross_validation
from lim_keras.training.cross_validation import train_folds
from lim_keras.training.finalize import finalize

TRAINING, UNSEEN = "training", "unseen"
"""Names of the two worlds."""

TRAINING_SEED, TEST_SEED = 1, 2

_WORLD_PX = 1536
_TILE_PX = 96
_BACKGROUND: Background = "all"

_MIN_AREA_M2 = 100.0

Say = Callable[[list[Any]], None]


@dataclass(frozen=True)
class DemoResult:
    """Folder, duration, and landslide F1 of the ensemble on all pixels of the second world's tiles."""

    folder: Path
    f1: float
    seconds: float


def run_demo(folder: Path, say: Say, jobs: int) -> DemoResult:
    """Cut tiles from two worlds, train five folds on the first, evaluate and map the second with their ensemble."""
    started = time.monotonic()
    begin_demo_folder(folder)
    say([heading("1. Tiles", " from two synthetic scenes and the polygons of their landslides")])
    tiles, test_ids = _cut_tiles(folder, say)
    dataset = DatasetReport.measure(tiles)
    ratios = {name.replace("_", " "): ratio for name, ratio in dataset.imbalance.ratios.items()}
    imbalance_chart(ratios, folder / IMBALANCE)
    say(dataset_tables(dataset))
    say([heading("2. Five folds", ", each in its own process, and their ensemble")])
    with as_file(files("lim_keras.demo") / "demo.yaml") as config:
        settings = load_config(config)
    run = begin_cross_validation(settings, tiles, run=folder / "run", test_ids=read_tile_ids(test_ids))
    train_folds(run, jobs=jobs)
    exported = folder / "exported_models" / run.config.name
    say(run_tables(finalize(run, exported).evaluation))
    bundle = load_bundle(exported)
    say([heading("3. Evaluation", " on a second world that no model has seen")])
    report = _evaluate(folder, bundle, tiles, test_ids, run.config.evaluation)
    pictures = write_report_figures(report, folder / FIGURES)
    say([*report_tables(report), *(f"picture: {path}" for path in pictures)])
    report.write_json(folder / REPORT)
    say([heading("4. A landslide inventory", " of that world, with slopes")])
    say(_map_scene(folder, bundle))
    f1 = report.results[0].evaluation.scores("all").model["f1"].value
    return DemoResult(folder, f1, time.monotonic() - started)


def _cut_tiles(folder: Path, say: Say) -> tuple[TileSet, Path]:
    """Write both worlds, cut them into tiles, and list the tiles of the second world for testing."""
    files, landslides = folder / "world", folder / "world" / "landslides.gpkg"
    if not landslides.exists():  # it is written last
        worlds = {TRAINING: make_world(_WORLD_PX, TRAINING_SEED), UNSEEN: make_world(_WORLD_PX, TEST_SEED)}
        for name, world in worlds.items():
            write_rasters(world, world_files(files, name))
        write_landslides(list(worlds.values()), landslides)
    scenes = tuple(files / f"{name}.tif" for name in (TRAINING, UNSEEN))
    task = TilingTask(scenes, LabelOptions(landslides), TilingOptions(size=_TILE_PX, background=_BACKGROUND))
    tiling = tile_scenes(task, folder / "tiles", draw_tiling=draw_tiling)
    say(tiling_tables(tiling.report))
    tiles = read_tiles(folder / "tiles")
    test_ids = [tile.tile_id for tile in tiles if tile.scene == UNSEEN]
    return tiles, write_text(folder / "test_tiles.txt", "\n".join(test_ids) + "\n")


def _unseen(folder: Path) -> WorldFiles:
    return world_files(folder / "world", UNSEEN)


def _evaluate(
    folder: Path, bundle: Bundle, tiles: TileSet, test_ids: Path, settings: EvaluationSection
) -> BundleReport:
    files = _unseen(folder)
    return evaluate_bundle(
        bundle,
        tiles,
        tile_ids=read_tile_ids(test_ids),
        scene=files.scene,
        truth=files.labels,
        settings=settings,
    )


def _map_scene(folder: Path, bundle: Bundle) -> list[Any]:
    """Map the second world and draw the map beside the truth."""
    files = _unseen(folder)
    options = PredictOptions(probability="float32", dem=files.dem, min_area_m2=_MIN_AREA_M2)
    drawn = Execution(read_preview=read_preview)
    prediction = predict_scene(bundle, files.scene, folder / "inventory", options, execution=drawn)
    count, area_m2 = prediction.summary["landslides"], prediction.summary["landslide_area_m2"]
    found = f"{count} landslides of at least {_MIN_AREA_M2:.0f} m2, {area_m2 / 1e4:.1f} ha in all"
    picture = _draw_scene(folder, bundle.info.threshold)  # as the pixels of the evaluation
    return [found, *(f"inventory: {path}" for path in prediction.files), f"picture: {picture}"]


def _draw_scene(folder: Path, threshold: float) -> Path:
    """Draw the second world, its probability map, and right and wrong pixels."""
    files = _unseen(folder)
    scene, truth = read_image(files.scene), read_image(files.labels)[..., 0]
    probability = read_image(folder / "inventory" / f"{UNSEEN}_probability.tif")[..., 0]
    gsd_m = read_info(files.scene).gsd_m
    return scene_overview(scene, truth, probability, threshold, folder / FIGURES / "scene.png", gsd_m=gsd_m)
