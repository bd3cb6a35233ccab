"""Differences P1 to P10 on tiles whose figures are worked by hand, with stored scores of two experiments."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.evaluation.evaluation import Evaluation, SampleScore
from lim_keras.metrics.binary import Confusion
from lim_keras.metrics.calibration import ProbabilityHistogram
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.data import LabelledTiles, ReproductionData
from lim_keras.reproduction.differences import make_differences
from lim_keras.reproduction.experiments import experiments
from lim_keras.reproduction.ground import SharedGround, share_apart, shared_ground
from lim_keras.reproduction.scores import ExperimentScores
from lim_keras.reproduction.settings import ReproductionSettings


@pytest.fixture
def tiles_folder(tmp_path: Path, write_picture: Callable) -> Path:
    """Two landslide tiles of 64 px, a quarter landslide, and two others of 32 and 128 px."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiles"
    for number in range(2):
        mask = np.zeros((64, 64), np.uint8)
        mask[:16] = 255
        write_picture(folder / f"landslide/image/a_{number}.png", rng.integers(0, 255, (64, 64, 3), np.uint8))
        write_picture(folder / f"landslide/mask/a_{number}.png", mask)
    for side in (32, 128):
        image = rng.integers(0, 255, (side, side, 3), np.uint8)
        write_picture(folder / f"non-landslide/image/b_{side}.png", image)
    return folder


def context(folder: Path, *finished: str) -> ReproductionContext:
    settings = ReproductionSettings(out=folder.parent / "out", data=folder, budget="smoke")
    missing = {one.name: "stopped" for one in experiments(settings) if one.name not in finished}
    data = ReproductionData(LabelledTiles(read_tiles(folder), ("a_0", "b_32")))
    return ReproductionContext(settings, data, missing=missing)


def scores(name: str, model: Confusion) -> ExperimentScores:
    samples = (SampleScore("a_0", "landslide", "", model, Confusion(tp=1024, fp=3072)),)
    evaluation = Evaluation("tiles", 0.5, samples, {"landslide": ProbabilityHistogram()}, draws=20)
    return ExperimentScores(name, "0" * 64, 0.5, 1, evaluation, replace(evaluation, protocol="windows"))


def lines(part_context: ReproductionContext) -> dict[str, tuple]:
    return {row[0]: row[1:] for row in make_differences(part_context).tables[0].rows}


def test_each_difference_has_its_figure_without_any_model(tiles_folder: Path) -> None:
    found = lines(context(tiles_folder))
    assert list(found) == [f"P{number}" for number in range(1, 11)]
    # a quarter of both landslide tiles: 3 background px for each landslide px, 7 in all tiles, 4 copies: 32 - 8 of 8
    assert found["P1"][2].startswith("7.0 over all tiles, 3.0 in landslide tiles, 4.0 over all after")
    assert found["P3"][2] == "none of the 2 landslide tiles shows ground of another one"
    assert found["P5"][2] == found["P6"][2] == "not measured, because the experiment is not finished"
    assert "0.52 FCN-FLK, 0.48 FCN-FL, 0.43 FCN" in found["P6"][1] and "0.075, 0.076, 0.108" in found["P6"][1]
    # 1,024 px of 0.8 m are 655 m2
    assert "655 m², has 6.6 pixels at 10 m; resampled from 10 m to 1 m, it has 655 pixels" in found["P8"][2]
    assert "F1 1.000" in found["P9"][2] and "0.0% of the tile's width and 0.0% of its height" in found["P9"][2]
    assert found["P10"][2] == "sides of 32 to 128 px; at 256 px their scale changes by factors of 2.00 to 8.00"


def test_scores_of_finished_experiments(tiles_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # precision 3 / 4, recall 3 / 5; of 10 px IoU 3 / 6 and 4 / 7
    known = {name: scores(name, Confusion(3, 1, 2, 4)) for name in ("whole_fcn_flk", "whole_fcn_fl")}
    monkeypatch.setattr(ReproductionContext, "scores", lambda _, name: known[name])
    part = make_differences(context(tiles_folder, *known))
    found = {row[0]: row[1:] for row in part.tables[0].rows}
    assert found["P5"][2] == "FCN-FLK: landslides 0.500, background 0.571, mIoU 0.536"
    assert found["P6"][2].startswith("0.750 FCN-FLK, 0.750 FCN-FL; ")
    assert "`--transfer` adds them" in found["P7"][2]
    protocols = next(table for table in part.tables if table.name == "differences_protocols")
    assert protocols.rows[0][0] == "whole tiles, resized" and protocols.rows[0][4] is None
    windows = protocols.rows[0][3]
    assert windows.value == pytest.approx(2 / 3) and np.isnan([windows.low, windows.high]).all()
    assert any("[- -]" in note for note in protocols.notes)
    assert protocols.sources == {"whole_fcn_fl": "0" * 64}


def test_copies_and_ground_across_folds() -> None:
    assert share_apart(["a", "b", "c"], 5) == 0
    assert share_apart(["a"] * 5, 5) == 1  # each of the five samples is in a fold of its own
    # four copies of many tiles in five folds: (1/5)^3 of the samples have all three others beside them
    assert share_apart([str(tile) for tile in range(2000)] * 4, 5) == pytest.approx(1 - 0.2**3, abs=0.005)


def test_groups_of_the_manifest_are_shared_ground(tiles_folder: Path) -> None:
    tiles = read_tiles(tiles_folder)
    grouped = replace(tiles, tiles=tuple(replace(one, group="g" if one.kind == "landslide" else "") for one in tiles))
    assert shared_ground(grouped, 2) == SharedGround(2, 2, 1, 1.0)  # two tiles fall into two folds
    assert shared_ground(tiles, 2) == SharedGround(2, 0, 0, 0.0)
