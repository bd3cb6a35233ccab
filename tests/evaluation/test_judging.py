"""Tiles and windows of a small set of tiles on disk; which tiles are judged on."""

from pathlib import Path

import numpy as np
import pytest

from lim_keras.bundle.protocol import Predict
from lim_keras.config import EvaluationSection
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.evaluator import Evaluator, ProtocolResult, choose_tiles
from lim_keras.metrics.image_blind import ImageBlindMask

SETTINGS = EvaluationSection(windows=12, bootstrap=40)


def bright_is_landslide(images: np.ndarray) -> np.ndarray:
    return np.where(images[..., 0] > 120, np.float32(0.9), np.float32(0.1))


def judge(mode: str, predict: Predict | list[Predict] = bright_is_landslide, **options: object) -> Evaluator:
    return Evaluator(predict, 0.5, mode, 32, settings=SETTINGS, **options)  # type: ignore[arg-type]


def test_native_tiles_of_a_perfect_predictor(tiles: TileSet) -> None:
    blind = ImageBlindMask(np.pad(np.ones((10, 10), np.float32), 11), 0.5)
    judged = judge("windows", blind=blind).tiles(tiles)
    landslide, everything = (judged.evaluation.scores(subset) for subset in ("landslide", "all"))
    assert (landslide.samples, everything.samples) == (4, 8)
    assert landslide.model["f1"].value == everything.model["f1"].value == 1.0
    assert 0.3 < everything.blind["f1"].value < landslide.blind["f1"].value < 1
    assert everything.pixels == sum(tile.width * tile.height for tile in tiles)
    assert [kept.sample.kind for kept in judged.gallery.best] == ["landslide"] * 4
    assert judged.gallery.worst == []


def test_a_model_of_resized_tiles_is_shown_resized_tiles(tiles: TileSet) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    evaluation = judge("resized", predict).tiles(tiles).evaluation
    assert shapes == [(8, 32, 32, 3)]
    assert evaluation.scores().pixels == 8 * 32 * 32
    assert evaluation.scores().model["f1"].value > 0.9


def test_tiles_are_shown_at_the_scale_of_training(tiles: TileSet, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    manifest = tmp_path / "tiles.csv"
    tiles.write_manifest(manifest)
    lines = manifest.read_text().splitlines()
    column = lines[0].split(",").index("gsd_m")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[column] = "0.5"
    manifest.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    judge("windows", predict, gsd_m=1.0).tiles(TileSet.read(manifest))
    # half as many pixels a side: 40, 43, ... 61 by 50 become 20, 22 (of 21.5), 23, 24 (24.5), ... by 25
    assert shapes[0] == (1, 20, 25, 3)
    assert {shape[2] for shape in shapes} == {25}


def test_windows_are_seeded_and_of_the_training_size(tiles: TileSet) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    first, again = (judge("windows", predict).windows(tiles).evaluation for _ in range(2))
    assert shapes == [(8, 32, 32, 3), (4, 32, 32, 3)] * 2
    assert first.samples == again.samples
    assert first.scores().samples == 12
    assert first.scores().model["f1"].value == 1.0
    share = first.scores().landslide_share
    assert first.scores().blind["f1"].value == pytest.approx(2 * share / (1 + share))
    assert judge("windows", seed=5).windows(tiles).evaluation.samples != first.samples


@pytest.mark.parametrize("protocol", ["tiles", "windows"])
def test_of_several_predictors_the_mean_is_judged_and_each_alone(tiles: TileSet, protocol: str) -> None:
    asked: list[tuple[int, ...]] = []

    def brighter(images: np.ndarray) -> np.ndarray:
        asked.append(images.shape)
        return np.where(images[..., 0] > 150, np.float32(0.7), np.float32(0.2))

    def mean(images: np.ndarray) -> np.ndarray:
        return (bright_is_landslide(images) + brighter(images)) / 2

    def judged(predict: Predict | list[Predict]) -> ProtocolResult:
        return getattr(judge("windows", predict), protocol)(tiles)  # type: ignore[no-any-return]

    alone = [judged(predict) for predict in (bright_is_landslide, brighter, mean)]
    assert [one.folds for one in alone] == [()] * 3
    once, asked = asked[: len(asked) // 2], []
    together = judged([bright_is_landslide, brighter])
    assert asked == once
    assert together.evaluation.samples == alone[2].evaluation.samples
    assert [fold.samples for fold in together.folds] == [one.evaluation.samples for one in alone[:2]]
    assert together.folds[0].samples != together.folds[1].samples
    assert [one.sample.name for one in together.gallery.worst] == [one.sample.name for one in alone[2].gallery.worst]


def test_tiles_to_judge_on(tiles: TileSet) -> None:
    def chosen(wanted: list[str] | None, **known: list[str]) -> tuple[str, ...]:
        return choose_tiles(tiles, wanted, **known).ids

    assert chosen(["t1", "t6"]) == ("t1", "t6")
    assert chosen(None, test=["t5", "elsewhere"], training=["t0"]) == ("t5",)
    assert chosen(None, training=["t0", "t1", "t2"]) == ("t3", "t4", "t5", "t6", "t7")
    assert chosen(None) == tiles.ids


def test_training_tiles_are_no_test(tiles: TileSet) -> None:
    with pytest.warns(LimKerasWarning, match=r"1 of 2 tiles .*t0"):
        choose_tiles(tiles, ["t0", "t5"], training=["t0"])
    with pytest.warns(LimKerasWarning, match="8 of 8"):
        assert len(choose_tiles(tiles, None, training=list(tiles.ids))) == 8


def test_unknown_and_absent_ids_are_refused(tiles: TileSet) -> None:
    with pytest.raises(DataError, match="nowhere"):
        choose_tiles(tiles, ["t1", "nowhere"])
    with pytest.raises(DataError, match="at least one"):
        choose_tiles(tiles, [])
