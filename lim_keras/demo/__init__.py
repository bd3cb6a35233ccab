"""Demo: tiles, cross-validation, evaluation and map of a synthetic world."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.config import EvaluationSection, load_config
from lim_keras.data.dataset_report import DatasetReport
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_tile_ids
from lim_keras.data.tiles import TileSet
from lim_keras.demo.folder import FIGURES, IMBALANCE, REPORT, begin_demo_folder
from lim_keras.demo.world import cut_tiles, make_world, write_world
from lim_keras.evaluation.bundle_report import BundleReport, evaluate_bundle
from lim_keras.files import write_text
from lim_keras.inventory.landslides import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.raster.images import read_image, read_info
from lim_keras.report.figures import imbalance_chart, scene_overview, write_report_figures
from lim_keras.report.preview import draw_preview
from lim_keras.report.tables import dataset_tables, heading, report_tables, run_tables
from lim_keras.training.cross_validation import train_folds
from lim_keras.training.finalize import finalize
from lim_keras.training.run import begin_cross_validation

TRAINING_SEED, TEST_SEED = 1, 2

_WORLD_PX = 1536
_TRAINING_TILES, _TEST_TILES = (48, 76), (20, 30)
"""Numbers of landslide and non-landslide tiles."""

_MIN_AREA_M2 = 100.0

Say = Callable[[list[Any]], None]


@dataclass(frozen=True)
class DemoResult:
    """Folder, duration, and landslide F1 of the ensemble on all pixels of the second world's tiles."""

    folder: Path
    f1: float
    seconds: float


def run_demo(folder: Path, say: Say, jobs: int) -> DemoResult:
    """Make two worlds, train five folds on tiles of the first, evaluate and map the second with their ensemble."""
    started = time.monotonic()
    begin_demo_folder(folder)
    say([heading("1. A synthetic world", ": mountains, fields, roads, and landslides on the slopes")])
    test_ids = _write_worlds(folder)
    tiles = read_tiles(folder / "tiles")
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


def _write_worlds(folder: Path) -> Path:
    """Write both worlds and their tiles; return the file of the test tile ids, which is written last."""
    test_list = folder / "test_tiles.txt"
    if test_list.exists():
        return test_list
    training, unseen = (make_world(_WORLD_PX, seed) for seed in (TRAINING_SEED, TEST_SEED))
    write_world(training, folder / "world" / "training")
    write_world(unseen, folder / "world" / "unseen")
    for world, seed, prefix, (landslides, others) in (
        (training, TRAINING_SEED, "", _TRAINING_TILES),
        (unseen, TEST_SEED, "test_", _TEST_TILES),
    ):
        ids = cut_tiles(world, folder / "tiles", landslide=landslides, non_landslide=others, seed=seed, prefix=prefix)
    return write_text(test_list, "\n".join(ids) + "\n")


def _evaluate(
    folder: Path, bundle: Bundle, tiles: TileSet, test_ids: Path, settings: EvaluationSection
) -> BundleReport:
    unseen = folder / "world" / "unseen"
    return evaluate_bundle(
        bundle,
        tiles,
        tile_ids=read_tile_ids(test_ids),
        scene=unseen / "scene.tif",
        truth=unseen / "labels.tif",
        settings=settings,
    )


def _map_scene(folder: Path, bundle: Bundle) -> list[Any]:
    """Map the second world and draw the map beside the truth."""
    files = folder / "world" / "unseen"
    options = PredictOptions(probability="float32", dem=files / "dem.tif", min_area_m2=_MIN_AREA_M2)
    prediction = predict_scene(bundle, files / "scene.tif", folder / "inventory", options, draw_preview=draw_preview)
    count, area_m2 = prediction.summary["landslides"], prediction.summary["landslide_area_m2"]
    found = f"{count} landslides of at least {_MIN_AREA_M2:.0f} m2, {area_m2 / 1e4:.1f} ha in all"
    picture = _draw_scene(folder, prediction.summary["settings"]["threshold"])
    return [found, *(f"inventory: {path}" for path in prediction.files), f"picture: {picture}"]


def _draw_scene(folder: Path, threshold: float) -> Path:
    """Draw the second world, its probability map, and right and wrong pixels."""
    files = folder / "world" / "unseen"
    scene, truth = read_image(files / "scene.tif"), read_image(files / "labels.tif")[..., 0]
    probability = read_image(folder / "inventory" / "scene_probability.tif")[..., 0]
    gsd_m = read_info(files / "scene.tif").gsd_m
    return scene_overview(scene, truth, probability, threshold, folder / FIGURES / "scene.png", gsd_m=gsd_m)
