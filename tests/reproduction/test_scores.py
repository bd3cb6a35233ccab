"""Scores of an experiment: evaluated once, and the same objects when they are read back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.config import EvaluationSection
from lim_keras.data.tiles import TileSet
from lim_keras.errors import ConfigError, DataError
from lim_keras.evaluation.evaluator import read_matching_tiles
from lim_keras.evaluation.scene import SceneResult, evaluate_scene
from lim_keras.metrics.binary import pool
from lim_keras.reproduction import scores as module
from lim_keras.reproduction.scores import (
    EvaluationData,
    read_scores,
    stored_scores,
    write_scores,
)

WriteScene = Callable[[float], tuple[Path, Path]]
FEW = EvaluationSection(windows=6, bootstrap=20)


@pytest.fixture
def data(tiles: TileSet, scene: WriteScene) -> EvaluationData:
    image, labels = scene(0.8)
    test, transfer = tiles.subset(["t2", "t5"]), tiles.subset(["t3", "t6", "t7"])
    return EvaluationData(test, image, labels, transfer, FEW)


def test_every_evaluation_of_an_ensemble(two_folds: Path, data: EvaluationData, tmp_path: Path) -> None:
    scores = stored_scores(tmp_path / "edge.json", two_folds, "edge", data)
    assert (scores.experiment, scores.threshold, scores.folds) == ("edge", 0.4, 2)
    # Bright pixels have .95 and more in the first fold and .27 in the second: a mean above .6. Others: below .2.
    for evaluation in (scores.tiles, scores.windows, scores.scene, scores.transfer):
        assert evaluation is not None and evaluation.scores().model["f1"].value == 1.0
    assert scores.scene is not None and pool(one.model for one in scores.scene.samples).tp == 30 * 40
    assert scores.detections is not None
    found = scores.detections.iou_50["all"]
    assert (found.truth, found.found, found.predicted, found.right) == (1, 1, 1, 1)
    assert [sample.name for sample in scores.tiles.samples] == ["t2", "t5"]
    assert scores.transfer is not None
    assert [sample.name for sample in scores.transfer.samples] == ["t3", "t6", "t7"]
    for members in (scores.members, scores.member_windows):
        assert [one.scores().model["recall"].value for one in members.values()] == [1.0, 0.0]
    assert len(scores.windows.samples) == len(scores.member_windows[0].samples) == 6


def test_scores_are_read_back_equal(two_folds: Path, data: EvaluationData, tmp_path: Path) -> None:
    path = tmp_path / "scores" / "edge.json"
    scores = stored_scores(path, two_folds, "Bijié", data)
    again = read_scores(path)
    assert again is not None and again == scores
    assert again.tiles.histograms["landslide"] == scores.tiles.histograms["landslide"]
    assert again.windows.scores() == scores.windows.scores()
    counts = again.tiles.histograms["landslide"].counts
    counts[0, 7] += 1
    assert again != scores
    alone = replace(scores, scene=None, detections=None, transfer=None, members={}, member_windows={})
    assert read_scores(write_scores(alone, path)) == alone


def test_only_what_is_missing_is_evaluated(
    two_folds: Path, data: EvaluationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def read(chosen: TileSet, info: BundleInfo) -> TileSet:
        calls.append(" ".join(chosen.ids))
        return read_matching_tiles(chosen, info)

    def on_scene(*given: Any, **options: Any) -> SceneResult:
        calls.append("scene")
        return evaluate_scene(*given, **options)

    monkeypatch.setattr(module, "read_matching_tiles", read)
    monkeypatch.setattr(module, "evaluate_scene", on_scene)
    path = tmp_path / "edge.json"
    without_scene = replace(data, scene=None, truth=None)
    first = stored_scores(path, two_folds, "edge", without_scene)
    assert calls == ["t2 t5", "t3 t6 t7"] and first.scene is None
    assert stored_scores(path, two_folds, "edge", without_scene) == first
    assert calls == ["t2 t5", "t3 t6 t7"]
    whole = stored_scores(path, two_folds, "edge", replace(data))
    assert calls[2:] == ["scene"] and whole.scene is not None and whole.tiles == first.tiles
    other = replace(data, tiles=data.tiles.subset(["t5"]))
    assert len(stored_scores(path, two_folds, "edge", other).tiles.samples) == 1
    assert calls[3:] == ["t5"]
    stored = read_scores(path)
    assert stored is not None and stored.digests == other.digests


def test_a_kill_keeps_what_was_evaluated(
    two_folds: Path, data: EvaluationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "evaluate_scene", killed)
    with pytest.raises(KeyboardInterrupt):
        stored_scores(tmp_path / "edge.json", two_folds, "edge", data)
    kept = read_scores(tmp_path / "edge.json")
    assert kept is not None and list(kept.digests) == ["tiles"] and len(kept.members) == 2


def test_other_files_are_neither_read_nor_replaced(two_folds: Path, data: EvaluationData, tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    assert read_scores(path) is None
    path.write_text("mine")
    with pytest.raises(DataError, match=r"edge\.json.*not written by lim-keras"):
        stored_scores(path, two_folds, "edge", data)
    assert path.read_text() == "mine"
    path.unlink()
    stored_scores(path, two_folds, "edge", replace(data, scene=None, truth=None))
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"threshold": 0.9}))
    assert read_scores(path) is None


def test_a_scene_needs_its_truth(tiles: TileSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both or neither"):
        EvaluationData(tiles, tmp_path / "scene.tif")
