"""An evaluation by hand, pooled over folds, and as JSON."""

import json
import math

import numpy as np
import pytest

from lim_keras.errors import ConfigError, DataError
from lim_keras.evaluation.evaluation import Evaluation, Prediction, Sample, evaluate, pool_evaluations
from lim_keras.metrics.binary import Confusion
from lim_keras.metrics.calibration import everywhere


def predicted(name: str, kind: str, probability: object, mask: object, group: str = "") -> Prediction:
    labels = np.asarray(mask, np.uint8)
    sample = Sample(name, kind, group, np.zeros((*labels.shape, 3), np.uint8), labels)
    return Prediction(sample, np.asarray(probability, np.float32), everywhere(labels.shape))


def two_tiles() -> list[Prediction]:
    return [
        predicted("a", "landslide", [[0.9, 0.6], [0.2, 0.7]], [[1, 0], [1, 255]]),
        predicted("b", "non-landslide", [[0.1, 0.8], [0.3, 0.4]], [[0, 0], [0, 0]]),
    ]


def test_scores_by_hand() -> None:
    evaluation = evaluate(two_tiles(), "tiles", 0.5)
    assert evaluation.subsets == ("landslide", "all")
    assert [sample.model for sample in evaluation.samples] == [Confusion(1, 1, 1, 0), Confusion(0, 1, 0, 3)]
    # everything is landslide: every landslide pixel is found, every background pixel is a false alarm
    assert [sample.blind for sample in evaluation.samples] == [Confusion(2, 1, 0, 0), Confusion(0, 4, 0, 0)]

    landslide, everything = evaluation.scores("landslide"), evaluation.scores("all")
    assert (landslide.samples, landslide.pixels, everything.samples, everything.pixels) == (1, 3, 2, 7)
    # landslide tile: f1 = 2 / (2 + 1 + 1); all: tp 1, fp 2, fn 1: 2 / 5
    assert landslide.model["f1"].value == pytest.approx(0.5)
    assert everything.model["f1"].value == pytest.approx(0.4)
    # 2 p / (1 + p): p = 2/3 gives .8, p = 2/7 gives 4/9
    assert landslide.landslide_share == pytest.approx(2 / 3)
    assert landslide.blind["f1"].value == pytest.approx(0.8)
    assert everything.blind["f1"].value == pytest.approx(4 / 9)
    # ranking of the landslide tile: 1 at .9, 0 at .6, 1 at .2: (1 / 1 + 2 / 3) / 2
    assert landslide.average_precision == pytest.approx(5 / 6)


def test_the_threshold_itself_is_landslide() -> None:
    assert evaluate([predicted("a", "landslide", [[0.25, 0.24]], [[1, 1]])], "tiles", 0.25).samples[
        0
    ].model == Confusion(1, 0, 1, 0)


def test_a_scene_is_one_subset() -> None:
    assert evaluate(two_tiles(), "scene", 0.5).subsets == ("all",)


def test_without_landslide_samples_only_all_is_reported() -> None:
    evaluation = evaluate(two_tiles()[1:], "windows", 0.5)
    assert evaluation.subsets == ("all",)
    with pytest.raises(ConfigError, match="`subset`"):
        evaluation.scores("landslide")


def test_folds_pool_to_what_all_samples_give() -> None:
    whole = evaluate(two_tiles(), "windows", 0.5)
    parts = [evaluate([prediction], "windows", 0.5) for prediction in two_tiles()]
    pooled = pool_evaluations(parts)
    assert pooled.samples == whole.samples
    assert (pooled.histogram.counts == whole.histogram.counts).all()
    assert pooled.scores("landslide") == whole.scores("landslide")
    with pytest.raises(ConfigError, match="one threshold"):
        pool_evaluations([parts[0], evaluate(two_tiles(), "windows", 0.4)])
    with pytest.raises(ConfigError, match="one protocol"):
        pool_evaluations([])


def test_json_holds_everything_and_no_nan() -> None:
    evaluation = evaluate(
        [*two_tiles(), predicted("c", "unlabelled", [[0.5]], [[255]])], "tiles", 0.5, draws=50, seed=9
    )
    stored = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert stored["threshold"] == 0.5
    assert stored["bootstrap"] == {"draws": 50, "seed": 9, "level": 0.95}
    assert stored["subsets"]["all"]["model"]["f1"]["value"] == pytest.approx(0.4)
    assert set(stored["subsets"]["all"]["blind"]["f1"]) == {"value", "low", "high"}
    assert stored["samples"][0] == {
        "name": "a",
        "kind": "landslide",
        "group": "",
        "model": {"tp": 1, "fp": 1, "fn": 1, "tn": 0},
        "blind": {"tp": 2, "fp": 1, "fn": 0, "tn": 0},
    }
    assert sum(bar["pixels"] for bar in stored["calibration"]["reliability"]) == 7
    assert stored["precision_recall"][0]["recall"] == 1  # the lowest threshold calls every pixel
    assert stored["precision_recall"][0]["precision"] == pytest.approx(stored["subsets"]["all"]["landslide_share"])


def test_nothing_labelled_is_nothing_measured() -> None:
    evaluation = evaluate([predicted("c", "non-landslide", [[0.5]], [[255]])], "windows", 0.5)
    scores = evaluation.scores()
    assert math.isnan(scores.model["f1"].value) and math.isnan(scores.average_precision)
    assert evaluation.to_dict()["calibration"]["log_loss"] is None
    assert evaluation.to_dict()["precision_recall"] == []


def test_groups_reach_the_intervals() -> None:
    rng = np.random.default_rng(2)

    def evaluation(grouped: bool) -> Evaluation:
        tiles = []
        for k in range(6):
            mask = rng.integers(0, 2, (4, 4))
            probability = np.clip(mask * 0.4 + rng.random((4, 4)) * 0.6, 0, 1)
            tiles += [
                predicted(f"{k}{copy}", "landslide", probability, mask, f"g{k}" if grouped else "") for copy in "abc"
            ]
        return evaluate(tiles, "tiles", 0.5)

    rng = np.random.default_rng(2)
    grouped = evaluation(True).scores().model["f1"]
    rng = np.random.default_rng(2)
    alone = evaluation(False).scores().model["f1"]
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > alone.high - alone.low


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="`predictions`"):
        evaluate([], "tiles", 0.5)
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="`threshold`"):
            evaluate(two_tiles(), "tiles", threshold)
