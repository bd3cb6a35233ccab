"""Evaluation on tiles and windows, choice of tiles, and the gallery."""

from pathlib import Path

import numpy as np
import pytest

from lim_keras.bundle.protocol import Predict
from lim_keras.config import EvaluationSection
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import write_manifest
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.evaluation.evaluator import Evaluator, Gallery, ProtocolResult, choose_tiles
from lim_keras.metrics.binary import count
from lim_keras.metrics.calibration import ImageBlindMask, everywhere

SETTINGS = EvaluationSection(windows=12, bootstrap=40)


def bright_is_landslide(images: np.ndarray) -> np.ndarray:
    return np.where(images[..., 0] > 120, np.float32(0.9), np.float32(0.1))


def evaluator(mode: str, predict: Predict | list[Predict] = bright_is_landslide, **options: object) -> Evaluator:
    return Evaluator(predict, 0.5, mode, 32, settings=SETTINGS, **options)  # type: ignore[arg-type]


def test_native_tiles_of_a_perfect_predictor(tiles: TileSet) -> None:
    blind = ImageBlindMask(np.pad(np.ones((10, 10), np.float32), 11), 0.5)
    result = evaluator("windows", blind=blind).tiles(tiles)
    landslide, everything = (result.evaluation.scores(subset) for subset in ("landslide", "all"))
    assert (landslide.samples, everything.samples) == (4, 8)
    assert landslide.model["f1"].value == everything.model["f1"].value == 1.0
    assert 0.3 < everything.blind["f1"].value < landslide.blind["f1"].value < 1
    assert everything.pixels == sum(tile.width * tile.height for tile in tiles)
    assert [kept.sample.kind for kept in result.gallery.best] == ["landslide"] * 4
    assert result.gallery.worst == []


def test_a_model_of_resized_tiles_is_shown_resized_tiles(tiles: TileSet) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    evaluation = evaluator("resized", predict).tiles(tiles).evaluation
    assert shapes == [(8, 32, 32, 3)]
    assert evaluation.scores().pixels == 8 * 32 * 32
    assert evaluation.scores().model["f1"].value > 0.9


def test_tiles_are_shown_at_the_scale_of_training(tiles: TileSet, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    manifest = tmp_path / "tiles.csv"
    write_manifest(tiles, manifest)
    lines = manifest.read_text().splitlines()
    column = lines[0].split(",").index("gsd_m")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[column] = "0.5"
    manifest.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    evaluator("windows", predict, gsd_m=1.0).tiles(read_tiles(manifest))
    # half as many pixels a side: 40, 43, ... 61 by 50 become 20, 22 (of 21.5), 23, 24 (24.5), ... by 25
    assert shapes[0] == (1, 20, 25, 3)
    assert {shape[2] for shape in shapes} == {25}


def test_windows_are_seeded_and_of_the_training_size(tiles: TileSet) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return bright_is_landslide(images)

    first, again = (evaluator("windows", predict).windows(tiles).evaluation for _ in range(2))
    assert shapes == [(8, 32, 32, 3), (4, 32, 32, 3)] * 2
    assert first.samples == again.samples
    assert first.scores().samples == 12
    assert first.scores().model["f1"].value == 1.0
    share = first.scores().landslide_share
    assert first.scores().blind["f1"].value == pytest.approx(2 * share / (1 + share))
    assert evaluator("windows", seed=5).windows(tiles).evaluation.samples != first.samples


@pytest.mark.parametrize("protocol", ["tiles", "windows"])
def test_several_predictors_are_evaluated_together_and_alone(tiles: TileSet, protocol: str) -> None:
    asked: list[tuple[int, ...]] = []

    def brighter(images: np.ndarray) -> np.ndarray:
        asked.append(images.shape)
        return np.where(images[..., 0] > 150, np.float32(0.7), np.float32(0.2))

    def mean(images: np.ndarray) -> np.ndarray:
        return (bright_is_landslide(images) + brighter(images)) / 2

    def evaluated(predict: Predict | list[Predict]) -> ProtocolResult:
        return getattr(evaluator("windows", predict), protocol)(tiles)  # type: ignore[no-any-return]

    alone = [evaluated(predict) for predict in (bright_is_landslide, brighter, mean)]
    assert [one.folds for one in alone] == [()] * 3
    once, asked = asked[: len(asked) // 2], []
    together = evaluated([bright_is_landslide, brighter])
    assert asked == once
    assert together.evaluation.samples == alone[2].evaluation.samples
    assert [fold.samples for fold in together.folds] == [one.evaluation.samples for one in alone[:2]]
    assert together.folds[0].samples != together.folds[1].samples
    assert [one.sample.name for one in together.gallery.worst] == [one.sample.name for one in alone[2].gallery.worst]


def test_tiles_to_evaluate_on(tiles: TileSet) -> None:
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


def stream(samples: int) -> list[Prediction]:
    rng = np.random.default_rng(6)
    predictions = []
    for k in range(samples):
        mask = (rng.random((6, 6)) < 0.3 * (k % 3)).astype(np.uint8)
        sample = Sample(f"sample {k}", "", "", np.zeros((6, 6, 1), np.uint8), mask)
        predictions.append(Prediction(sample, rng.random((6, 6)).astype(np.float32), everywhere((6, 6))))
    return predictions


def test_keeps_what_sorting_everything_finds() -> None:
    predictions = stream(40)
    gallery = Gallery(0.5, most=5)
    assert [kept is given for kept, given in zip(gallery.watch(predictions), predictions, strict=True)] == [True] * 40

    counts = {p.sample.name: count(p.probability >= 0.5, p.sample.mask) for p in predictions}
    with_landslide = [name for name, confusion in counts.items() if confusion.tp + confusion.fn]
    by_f1 = sorted(with_landslide, key=lambda name: -counts[name].scores()["f1"])
    by_errors = sorted(counts, key=lambda name: -(counts[name].fp + counts[name].fn))
    assert [kept.sample.name for kept in gallery.best] == by_f1[:5]
    assert [kept.sample.name for kept in gallery.worst] == by_errors[:5]


def test_fewer_samples_than_asked_for() -> None:
    gallery = Gallery(0.5)
    assert gallery.best == gallery.worst == []
    for _ in gallery.watch(stream(2)):
        pass
    assert len(gallery.best) == 1  # the first has no landslide
    assert len(gallery.worst) == 2


def test_perfect_samples_are_not_among_the_worst() -> None:
    mask = np.eye(4, dtype=np.uint8)
    sample = Sample("perfect", "landslide", "", np.zeros((4, 4, 3), np.uint8), mask)
    gallery = Gallery(0.5)
    list(gallery.watch([Prediction(sample, mask.astype(np.float32), everywhere((4, 4)))]))
    assert gallery.worst == [] and [kept.sample.name for kept in gallery.best] == ["perfect"]


def test_kept_arrays_do_not_hold_the_window_that_they_were_cut_from() -> None:
    window, mask = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8)
    sample = Sample("cut", "landslide", "", window[:4, :4], mask[:4, :4])
    gallery = Gallery(0.5)
    list(gallery.watch([Prediction(sample, np.ones((64, 64), np.float32)[:4, :4], everywhere((4, 4)))]))
    kept = gallery.best[0]
    assert all(array.base is None for array in (kept.sample.image, kept.sample.mask, kept.probability))
