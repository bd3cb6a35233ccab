"""Figures, curves and the Sentinel-2 part of a reproduction whose networks call bright pixels landslides."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from affine import Affine
from matplotlib.figure import Figure

from lim_keras.bundle.info import BandStatistics, BundleInfo
from lim_keras.data.tiles import TileSet, read_tile
from lim_keras.evaluation.evaluation import evaluate
from lim_keras.evaluation.resampled import resampled_predictions
from lim_keras.export.bundle import write_bundle
from lim_keras.metrics.binary import pool
from lim_keras.raster.writer import write_raster
from lim_keras.report.parts import Part
from lim_keras.reproduction import sentinel2
from lim_keras.reproduction.context import MODELS, RUNS, ReproductionContext
from lim_keras.reproduction.curves import make_curves
from lim_keras.reproduction.data import read_data
from lim_keras.reproduction.experiments import experiments
from lim_keras.reproduction.figures import (
    choose_evenly,
    landslide_f1,
    make_figure6,
    make_figure7,
    make_figure9,
    make_figure10,
    median_landslide_tile,
)
from lim_keras.reproduction.registry import MAKERS
from lim_keras.reproduction.sentinel2 import make_sentinel2, matched_scale
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.training.run import HELD_OUT, Run
from tests.conftest import bundle_info, fitted_rule, model_facts
from tests.reproduction.conftest import brightness

FINISHED = (
    *("whole_fcn", "whole_fcn_fl", "whole_fcn_flk", "whole_unet", "whole_segnet"),
    *("windows_fcn_flk", "windows_unet", "coarse_edge"),
)


def write_tiles(root: Path, count: int, seed: int) -> Path:
    """As many landslide tiles as others, 40 px; landslides are discs of growing size, 90 brighter, on noise."""
    rng = np.random.default_rng(seed)
    for folder in ("landslide/image", "landslide/mask", "non-landslide/image"):
        (root / folder).mkdir(parents=True)
    for k in range(2 * count):
        image = rng.integers(40, 100, (40, 40, 3)).astype(np.uint8)
        kind = "landslide" if k < count else "non-landslide"
        if k < count:
            mask = np.zeros((40, 40), np.uint8)
            cv2.circle(mask, (20, 20), 4 + k, 255, -1)
            image[mask > 0] += 90
            image[:k, :4] = 220  # bright ground: a false alarm that grows
            cv2.imwrite(str(root / f"landslide/mask/t{k}.png"), mask)
        cv2.imwrite(str(root / f"{kind}/image/t{k}.png"), image)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: an ensemble, a single model, and a single model trained at 10 m. Calls what is brighter than 110."""
    folder = tmp_path_factory.mktemp("models")
    for name, folds, gsd_m in (("ensemble", 2, 0.8), ("single", 1, 0.8), ("coarse", 1, 10.0)):
        facts = model_facts(name=name, sampling={"mode": "windows", "size": 32}, threshold=0.5, gsd_m=gsd_m)
        write_bundle(folder / name, facts, [brightness(0.1, -11.0)] * folds)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ReproductionSettings:
    root = tmp_path_factory.mktemp("data")
    for name, count, seed in (("tiles", 12, 1), ("transfer", 8, 2), ("coarse", 4, 3)):
        write_tiles(root / name, count, seed)
    (root / "test.txt").write_text("\n".join(f"t{k}" for k in (*range(8), 12, 13)))
    (root / "coarse_test.txt").write_text("t0\nt1\nt4\n")
    scene, labels = np.full((80, 120, 3), 60, np.uint8), np.zeros((80, 120), np.uint8)
    labels[10:40, 10:50] = 1
    labels[60:70, 100:110] = 1  # missed
    scene[12:42, 12:52] = 180
    scene[50:60, 20:30] = 180  # false
    for name, values in (("scene", scene), ("labels", labels)):
        write_raster(root / f"{name}.tif", values, crs="EPSG:32648", transform=Affine(0.8, 0, 5e5, 0, -0.8, 3e6))
    return ReproductionSettings(
        out=root / "out",
        data=root / "tiles",
        test_ids=root / "test.txt",
        scene=root / "scene.tif",
        truth=root / "labels.tif",
        transfer=root / "transfer",
        coarse=root / "coarse",
        coarse_test=root / "coarse_test.txt",
        budget="smoke",
        encoder="small",
    )


@pytest.fixture(scope="module")
def context(settings: ReproductionSettings, models: Path) -> ReproductionContext:
    """All but three networks are finished."""
    missing = {one.name: "stopped" for one in experiments(settings) if one.name not in FINISHED}
    context = ReproductionContext(settings, read_data(settings), missing=missing)
    for name in FINISHED:
        kind = "coarse" if name == "coarse_edge" else "ensemble" if name.endswith("flk") else "single"
        shutil.copytree(models / kind, settings.out / MODELS / name)
    return context


def without(context: ReproductionContext, *names: str, **changes: object) -> ReproductionContext:
    """The same reproduction without some experiments, or with other settings."""
    missing = context.missing | dict.fromkeys(names, "stopped")
    known = replace(context.settings, **changes)  # type: ignore[arg-type]
    return ReproductionContext(
        known, replace(context.data, transfer=None) if changes else context.data, missing=missing
    )


def headings(part: Part, number: int = 0) -> list[str]:
    chart = part.drawings[number].chart
    assert isinstance(chart, Figure)
    return [text.get_text() for axes in chart.axes for text in axes.texts]


def titles(part: Part, number: int = 0) -> list[str]:
    chart = part.drawings[number].chart
    assert isinstance(chart, Figure)
    return [axes.get_title(loc="left") for axes in chart.axes]


def test_tiles_are_chosen_at_equal_steps_of_their_order():
    f1 = {name: value for value, name in enumerate("kjihgfedcba")}  # 11 samples, k is the worst
    # positions 0, 2, 4, 6, 8 and 10
    assert choose_evenly(f1) == ["k", "i", "g", "e", "c", "a"]
    assert choose_evenly({"b": 0.5, "a": 0.5, "c": 0.1}) == ["c", "a", "b"], "all of them; equal ones by name"
    assert choose_evenly({}) == []


def test_the_tile_of_figure_6_has_the_median_share(context: ReproductionContext):
    training = context.tiles.without(context.test_ids)
    # discs of radius 12 to 15 in tiles t8 to t11: of four, the second
    assert median_landslide_tile(training).tile_id == "t9"


def test_figure_6_shows_the_tile_and_its_three_copies(context: ReproductionContext):
    part = make_figure6(context)
    assert "t9" in part.drawings[0].caption
    assert titles(part)[:4] == [
        "tile",
        "left-right flip, mean filter",
        "up-down flip, random gamma",
        "both flips, random noise",
    ]
    chart = part.drawings[0].chart
    pictures = [np.asarray(axes.images[0].get_array()) for axes in chart.axes]
    image, mask = read_tile(context.tiles["t9"])
    larger = cv2.resize(mask, (256, 256), interpolation=cv2.INTER_NEAREST_EXACT) * 255
    for picture, flipped in zip(pictures[4:], (larger, larger[:, ::-1], larger[::-1], larger[::-1, ::-1]), strict=True):
        np.testing.assert_array_equal(picture[..., 0], flipped)
    assert image.shape == (40, 40, 3)


def test_figure_7_shows_three_models_on_the_same_tiles(context: ReproductionContext):
    part = make_figure7(context)
    scores = context.scores("whole_fcn_flk")
    chosen = choose_evenly(landslide_f1(scores.tiles))
    assert headings(part) == ["Image", "Truth", "FCN", "FCN-FL", "FCN-FLK"]
    (table,) = part.tables
    assert table.columns == ("tile", "FCN", "FCN-FL", "FCN-FLK")
    assert [row[0] for row in table.rows] == chosen and len(chosen) == 6
    f1 = landslide_f1(scores.tiles)
    assert [row[3] for row in table.rows] == [f1[name] for name in chosen], "those of the evaluation"
    assert titles(part)[4] == f"F1 {f1[chosen[0]]:.2f}"
    assert set(table.sources) == {"whole_fcn", "whole_fcn_fl", "whole_fcn_flk"}


def test_figure_9_shows_four_models_on_the_other_region(context: ReproductionContext):
    part = make_figure9(context)
    assert headings(part) == ["Image", "Truth", "FCN-FLK", "FCN-FL", "U-Net", "SegNet"]
    transfer = context.scores("whole_fcn_flk").transfer
    assert transfer is not None
    assert [row[0] for row in part.tables[0].rows] == choose_evenly(landslide_f1(transfer))
    assert "another region" in part.drawings[0].caption


def test_figure_9_without_tiles_of_another_region(context: ReproductionContext):
    part = make_figure9(without(context, "whole_segnet", transfer=None))
    assert "`--transfer`" in part.text[0]
    assert part.text[1] == "Not shown, because the experiment is not finished: `whole_segnet` (stopped)."
    assert headings(part) == ["Image", "Truth", "FCN-FLK", "FCN-FL", "U-Net"]
    assert {row[0] for row in part.tables[0].rows} <= set(context.test_ids)


def test_a_figure_without_its_best_model_is_sorted_by_another(context: ReproductionContext):
    part = make_figure7(without(context, "whole_fcn_flk"))
    assert headings(part) == ["Image", "Truth", "FCN", "FCN-FL"]
    assert "sorted by the F1 of FCN," in part.text[1]


@pytest.mark.parametrize("name", ["figure7", "figure9", "figure10", "curves", "sentinel2"])
def test_parts_without_any_model_say_so(context: ReproductionContext, name: str):
    part = MAKERS[name].make(without(context, *FINISHED))
    assert (len(part.text), part.tables, part.drawings) == (1, (), ())
    assert "not finished" in part.text[0]


def test_figure_10_counts_as_the_evaluation_does(context: ReproductionContext):
    part = make_figure10(context)
    assert [drawing.name for drawing in part.drawings] == ["figure10_fcn_flk", "figure10_unet"]
    detections = context.scores("windows_fcn_flk").detections
    assert detections is not None
    rows = [row for row in part.tables[0].rows if row[0] == "FCN-FLK"]
    for (_, area, mapped, found, missed, false), (name, score) in zip(
        rows, detections.any_overlap.items(), strict=True
    ):
        assert (area, mapped, found) == (name, score.truth, score.found)
        assert (missed, false) == (score.truth - score.found, score.predicted - score.right)
    assert rows[0][2:] == (2, 1, 1, 1)
    assert "mapped landslides 2, found 1; polygons drawn 2, without a mapped landslide 1." in part.text[0]


def test_figure_10_and_scores_draw_every_region_as_the_paper(context: ReproductionContext):
    """Models of windows have an object rule, those of whole tiles and of the paper have none."""
    before = make_figure10(context)
    scores = context.scores("windows_unet").detections
    path = context.folder / MODELS / "windows_unet"
    info = BundleInfo.read(path)
    info.model_copy(update={"object_rule": fitted_rule(balanced=(0.9, 0.95, 1e6))}).write(path)
    try:
        ruled = without(context)
        assert make_figure10(ruled).tables == before.tables
        assert ruled.scores("windows_unet").detections == scores
    finally:
        info.write(path)


def test_figure_10_maps_no_scene_twice(context: ReproductionContext):
    make_figure10(context)
    summaries = list((context.folder / "maps").glob("windows_*/*_summary.json"))
    before = {path: path.stat().st_mtime_ns for path in summaries}
    make_figure10(context)
    assert len(before) == 2
    assert before == {path: path.stat().st_mtime_ns for path in summaries}


def with_runs(context: ReproductionContext) -> ReproductionContext:
    """Give each finished model on fine tiles a run with two epochs."""
    for name in FINISHED[:-1]:
        folder = context.folder / RUNS / name
        folds = {tile: k % 2 for k, tile in enumerate(context.tiles.without(context.test_ids).ids)}
        if not name.endswith("flk"):
            folds = {tile: HELD_OUT for tile, fold in folds.items() if fold}
        run = Run.open(folder, context.experiments[name].config, context.tiles, folds)
        for fold in run.held_out_folds:
            path = run.fold_folder(fold)
            path.mkdir(parents=True, exist_ok=True)
            with (path / "history.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerows(
                    [["epoch", "loss", "val_loss", "f1", "val_f1"], [1, 3, 4, 0.1, 0.2], [2, 2, 3, 0.3, 0.4]]
                )
    return context


def test_curves_of_all_finished_models(context: ReproductionContext):
    part = make_curves(with_runs(context))
    assert part.text[0].startswith("Not shown, because the experiment is not finished: `windows_fcn`")
    assert [drawing.name for drawing in part.drawings] == [
        "curves_training",
        "curves_precision_recall",
        "curves_reliability",
    ]
    assert titles(part)[:3] == ["Whole tiles: loss", "Whole tiles: landslide F1", "Windows: loss"]
    groups = [
        "Landslide test tiles, models of whole tiles",
        "Random windows, models of windows",
        "Scene, models of windows",
    ]
    assert titles(part, 1) == groups
    (table,) = part.tables
    assert [row[:2] for row in table.rows if row[0] == groups[2]] == [(groups[2], "FCN-FLK"), (groups[2], "U-Net")]
    scores = context.scores("whole_unet").tiles.scores("landslide")
    (row,) = [row for row in table.rows if row[:2] == (groups[0], "U-Net")]
    expected = [scores.model[name].value for name in ("precision", "recall", "f1")]
    assert list(row[2:6]) == [*expected, scores.average_precision]


def coarse_tiles(context: ReproductionContext) -> TileSet:
    assert context.data.coarse is not None
    return context.data.coarse.test


def test_three_ways_to_map_coarse_tiles(context: ReproductionContext):
    part = make_sentinel2(context)
    (table,) = part.tables
    names = [row[0] for row in table.rows]
    assert names == [
        "0.8 m model, tiles brought to 1 m",
        "0.8 m model, tiles of 10 m as they are",
        "model trained at 10 m",
        "everything is a landslide",
        "truth",
    ]
    fine = context.bundle("windows_fcn_flk")
    for row, at_m in zip(table.rows, (1.0, None), strict=False):
        predictions = resampled_predictions(fine.predict, coarse_tiles(context), at_m, assumed_gsd_m=10)
        expected = evaluate(predictions, "tiles", 0.5, draws=50)
        assert row[1] == expected.scores().model["f1"]
        confusion = pool(sample.model for sample in expected.samples)
        assert row[5] == (confusion.tp + confusion.fp) / confusion.pixels
    trained = context.scores("coarse_edge").tiles
    assert table.rows[2][1] == trained.scores().model["f1"]
    assert table.rows[3][1] == trained.scores().blind["f1"]
    assert "`--coarse-scene`" in part.text[-1]
    assert "changes F1 by" in part.text[1]


def test_coarse_tiles_are_evaluated_once(context: ReproductionContext, monkeypatch: pytest.MonkeyPatch):
    first = make_sentinel2(context)

    def refuse(*arguments: object, **options: object) -> Iterator[None]:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(sentinel2, "resampled_predictions", refuse)
    assert make_sentinel2(context).tables == first.tables


def test_a_coarse_scene_of_four_bands_and_reflectance(context: ReproductionContext, tmp_path: Path):
    """Bands 1 to 3 are read, values scaled to the brightness of the training tiles, and pixels of 0 hold no data."""
    scene = np.full((40, 50, 4), 600, np.uint16)
    scene[10:20, 10:20] = 3000
    scene[:, 40:] = 0
    path = write_raster(
        tmp_path / "sentinel.tif", scene, crs="EPSG:32648", transform=Affine(10, 0, 5e5, 0, -10, 3e6), nodata=0
    )
    part = make_sentinel2(without(context, coarse_scene=path))
    (drawing,) = part.drawings
    assert [" ".join(title.split()) for title in titles(part)] == [
        "Scene",
        "0.8 m model, scene brought to 0.8 m mapped: " + titles(part)[1].split()[-1],
        "0.8 m model, scene as it is mapped: 6.25%",
        "model trained at 10 m mapped: 6.25%",
    ]
    assert "no truth" in drawing.caption
    # mean (100 * 3000 + 1500 * 600) / 1600 = 750 becomes 120, so that 255 is 1593.75; 3000 is bright, 600 is 96
    assert "0 to 1,594" in part.text[-1]
    summary = json.loads(next((context.folder / "maps").glob("sentinel2_as_is/*_summary.json")).read_text())
    assert summary["settings"]["scale"] == [0.0, 1593.75]
    assert (summary["landslide_pixels"], summary["valid_pixels"]) == (100, 1600)
    assert "model trained at 10 m: 6.25%" in part.text[-1]


def test_a_scene_without_a_distance_is_named(context: ReproductionContext, tmp_path: Path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((40, 50, 3), 90, np.uint8))
    part = make_sentinel2(without(context, coarse_scene=path))
    assert part.drawings == ()
    assert part.text[-1] == "The scene `photo` lacks bands or a ground sample distance, so it is not mapped."


def test_the_scale_gives_a_scene_the_brightness_of_the_training_tiles():
    # uint8: a mean of 60 in training and of 900 in the scene: 900 * 255 / 60 = 3825 becomes 255
    known = BandStatistics(mean=60.0, std=1.0, min=0.0, max=255.0)
    assert matched_scale(bundle_info(statistics=(known,) * 3), 900.0) == (0.0, 3825.0)
    unit = BandStatistics(mean=0.25, std=0.1, min=0.0, max=1.0)
    assert matched_scale(bundle_info(dtype="float32", statistics=(unit,) * 3), 900.0) == (0.0, 3600.0)


def test_few_coarse_tiles_without_landslides_are_left_out(settings: ReproductionSettings, tmp_path: Path):
    """Validation tiles are drawn from five parts by kind; five groups are enough, fewer are left out."""
    known = read_data(settings).coarse
    assert known is not None
    # four tiles without landslides, t4 to t7; the test tile stays
    assert sorted(known.tiles.ids) == ["t0", "t1", "t2", "t3", "t4"]
    folder = write_tiles(tmp_path / "more", 6, 4)
    (tmp_path / "test.txt").write_text("t0\nt6\n")
    enough = read_data(replace(settings, coarse=folder, coarse_test=tmp_path / "test.txt")).coarse
    assert enough is not None and len(enough.tiles) == 12
