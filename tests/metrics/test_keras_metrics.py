"""Keras metrics: equal to the numpy formulae, streamed, with the ignore label, saved and reloaded."""

import doctest
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras import metrics
from lim_keras.errors import ConfigError, DataError
from lim_keras.losses import BinaryFocalLoss
from lim_keras.metrics import keras_metrics
from lim_keras.metrics.binary import SCORES, average_precision, scores
from lim_keras.metrics.keras_metrics import F1, AllScores, AveragePrecision, MeanIoU

LN3 = math.log(3)  # the logit of probability 3/4


def batch(seed=0, shape=(4, 6, 5, 1), ignored=0.2):
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < 0.3).astype(np.uint8)
    logits = rng.normal(2.0 * truth - 1, 1.5).astype(np.float32)
    truth[rng.random(shape) < ignored] = 255
    return truth, logits


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def counts(truth, probability, threshold=0.5):
    """tp, fp, fn, tn, pixel by pixel."""
    table = {(1, True): 0, (0, True): 0, (1, False): 0, (0, False): 0}
    for label, value in zip(truth.ravel().tolist(), probability.ravel().tolist(), strict=True):
        if label != 255:
            table[label, value >= threshold] += 1
    return tuple(table.values())


def numbers(result):
    return {name: float(value) for name, value in result.items()}


def one_row(*values, dtype="float32"):
    return np.array(values, dtype).reshape(1, 1, -1, 1)


class TestAllScores:
    def test_hand_worked(self):
        # found, missed, false alarm, quiet, unlabelled: one of each, so f1 = 2 / (2 + 1 + 1) and mcc = 0
        metric = AllScores()
        metric.update_state(one_row(1, 1, 0, 0, 255), one_row(2, -2, 2, -2, 2))
        np.testing.assert_array_equal(metric.counts.numpy(), [1, 1, 1, 1])
        values = numbers(metric.result())
        assert values["f1"] == 0.5
        assert values["iou_landslide"] == pytest.approx(1 / 3)
        assert values["mcc"] == 0

    @pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
    @pytest.mark.parametrize("from_logits", [True, False])
    def test_streamed_equals_numpy(self, threshold, from_logits):
        metric = AllScores(threshold, from_logits)
        truth, logits = batch()
        for k in range(0, 4, 2):
            part = logits[k : k + 2]
            metric.update_state(truth[k : k + 2], part if from_logits else sigmoid(part))
        expected = scores(*counts(truth, sigmoid(logits), threshold))
        assert numbers(metric.result()) == pytest.approx(expected)
        assert tuple(metric.result()) == SCORES

    @pytest.mark.parametrize("table", [(0, 0, 0, 9), (9, 0, 0, 0), (0, 1, 0, 9), (0, 0, 1, 9), (0, 0, 0, 0)])
    def test_empty_masks_as_in_numpy(self, table):
        metric = AllScores()
        metric.counts.assign(table)
        assert numbers(metric.result()) == pytest.approx(scores(*table), nan_ok=True)

    def test_threshold_itself_is_landslide(self):
        metric = AllScores(0.75, from_logits=False)
        metric.update_state(one_row(1), one_row(0.75))
        assert float(metric.result()["recall"]) == 1

    def test_shapes_types_and_junk(self):
        truth, logits = batch()
        expected = AllScores()(truth, logits)
        junk = np.where(truth == 255, np.nan, logits).astype(np.float32)
        for labels, prediction in [
            (truth[..., 0], logits),
            (truth.astype(np.float32), logits),
            (truth, logits[..., 0]),
            (truth, junk),
        ]:
            assert numbers(AllScores()(labels, prediction)) == numbers(expected)

    def test_bfloat16_logits(self):
        truth, logits = batch()
        half = tf.cast(logits, "bfloat16")
        expected = scores(*counts(truth, sigmoid(tf.cast(half, "float32").numpy())))
        assert numbers(AllScores()(truth, half)) == pytest.approx(expected)

    def test_sample_weights_count_pixels_that_often(self):
        truth, logits = batch(shape=(3, 4, 4, 1))
        repeated = AllScores()(np.repeat(truth, [2, 0, 1], axis=0), np.repeat(logits, [2, 0, 1], axis=0))
        weight = np.array([2.0, 0.0, 1.0])
        pixels = np.broadcast_to(weight.reshape(3, 1, 1), (3, 4, 4))
        for weights in (weight, weight.reshape(3, 1, 1), pixels, pixels[..., None]):
            metric = AllScores()
            metric.update_state(truth, logits, sample_weight=weights)
            assert numbers(metric.result()) == pytest.approx(numbers(repeated))

    def test_counts_stay_exact_past_float32(self):
        metric = AllScores()
        metric.counts.assign([0, 0, 0, 2**24])  # float32 cannot add 1 to this
        metric.update_state(one_row(0), one_row(-1))
        assert metric.counts.numpy()[3] == 2**24 + 1

    def test_reset(self):
        metric = AllScores()
        metric.update_state(*batch())
        metric.reset_state()
        assert not metric.counts.numpy().any()

    def test_prefix(self):
        assert tuple(AllScores(prefix="tiles_").result()) == tuple("tiles_" + name for name in SCORES)


ONE = ("Accuracy", "Precision", "Recall", "F1", "IoU", "BackgroundIoU", "MeanIoU", "MCC")
"""Names of the classes, in the order of SCORES."""


class TestOneScore:
    @pytest.mark.parametrize(("kind", "score"), list(zip(ONE, SCORES, strict=True)))
    def test_is_one_of_all(self, kind, score):
        truth, logits = batch()
        metric = getattr(metrics, kind)()
        assert metric.name == score
        assert float(metric(truth, logits)) == float(AllScores()(truth, logits)[score])
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert type(again) is type(metric)


def test_examples_of_docstrings():
    result = doctest.testmod(keras_metrics)
    assert result.failed == 0 and result.attempted > 10


def test_the_package_lists_its_metrics_without_importing_keras():
    code = "import sys; from lim_keras import metrics; dir(metrics); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(dir(metrics)) == {*ONE, "AllScores", "AveragePrecision"}
    with pytest.raises(AttributeError, match="no attribute 'F2'"):
        _ = metrics.F2


class TestAveragePrecision:
    @pytest.mark.parametrize("from_logits", [True, False])
    def test_streamed_equals_numpy(self, from_logits):
        metric = AveragePrecision(from_logits)
        truth, logits = batch()
        probability = tf.sigmoid(logits).numpy()
        for k in range(4):
            metric.update_state(truth[k : k + 1], (logits if from_logits else probability)[k : k + 1])
        assert float(metric.result()) == pytest.approx(average_precision(probability, truth))

    def test_hand_worked(self):
        # recall gains 1/2 at precision 1 and 1/2 at precision 2/3
        metric = AveragePrecision(from_logits=False)
        metric.update_state(one_row(1, 0, 1, 0, 255), one_row(0.9, 0.8, 0.7, 0.1, 0.95))
        assert float(metric.result()) == pytest.approx(0.5 + 0.5 * 2 / 3)

    def test_certain_logits_stay_in_the_histogram(self):
        metric = AveragePrecision()
        metric.update_state(one_row(1, 0), one_row(100, -100))
        histogram = metric.histogram.numpy()
        assert (histogram[1, -1], histogram[0, 0], histogram.sum()) == (1, 1, 2)

    def test_sample_weights(self):
        truth, logits = batch(shape=(2, 4, 4, 1))
        metric, repeated = AveragePrecision(), AveragePrecision()
        metric.update_state(truth, logits, sample_weight=np.array([3.0, 1.0]))
        repeated.update_state(np.repeat(truth, [3, 1], axis=0), np.repeat(logits, [3, 1], axis=0))
        assert float(metric.result()) == pytest.approx(float(repeated.result()))

    def test_nothing_to_rank(self):
        metric = AveragePrecision()
        metric.update_state(one_row(0, 255), one_row(1, 1))
        assert math.isnan(float(metric.result()))

    @pytest.mark.parametrize("bins", [1, 2.5])
    def test_bins_out_of_range(self, bins):
        with pytest.raises(ConfigError, match=f"`bins`. Expected an integer >= 2. Received: bins={bins}"):
            AveragePrecision(bins=bins)


@pytest.mark.parametrize(
    "metric",
    [
        AllScores(0.3, False, 9, "x_", "mine"),
        MeanIoU(0.3, False, 9, "mine"),
        AveragePrecision(False, 9, 11, "mine"),
    ],
    ids=lambda metric: type(metric).__name__,
)
class TestEvery:
    def test_config_round_trip(self, metric):
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()
        assert (again.name, again.ignore_value, again.from_logits) == ("mine", 9, False)

    def test_other_shapes_are_refused(self, metric):
        with pytest.raises(DataError, match=r"`y_pred`.*Received: \(1, 2, 2, 3\)"):
            metric.update_state(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 3)))
        with pytest.raises(DataError, match=r"y_true \(1, 2, 1\), y_pred \(1, 2, 2\)"):
            metric.update_state(np.zeros((1, 2, 1)), np.zeros((1, 2, 2)))


@pytest.mark.parametrize("threshold", [0, 1, -0.5, math.nan])
@pytest.mark.parametrize("kind", [AllScores, F1])
def test_thresholds_out_of_range(kind, threshold):
    with pytest.raises(ConfigError, match=f"`threshold`. Expected a probability .*Received: threshold={threshold}"):
        kind(threshold=threshold)


def test_in_compile_fit_and_reload(tmp_path):
    truth, _ = batch()
    images = np.random.default_rng(1).random((4, 6, 5, 3), np.float32)
    pixels = keras.Input((None, None, 3))
    model = keras.Model(pixels, keras.layers.Conv2D(1, 1)(pixels))
    metrics = [AllScores(), AveragePrecision(), F1(0.3, name="f1_low")]
    model.compile("sgd", BinaryFocalLoss(), metrics=metrics)
    history = model.fit(images, truth, 2, validation_data=(images, truth), verbose=0).history
    expected = {"loss", *SCORES, "average_precision", "f1_low"}
    assert set(history) == expected | {f"val_{name}" for name in expected}

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    values = model.evaluate(images, truth, 2, verbose=0, return_dict=True)
    assert again.evaluate(images, truth, 2, verbose=0, return_dict=True) == pytest.approx(values)

    probability = sigmoid(model.predict(images, verbose=0))
    assert {name: values[name] for name in SCORES} == pytest.approx(scores(*counts(truth, probability)))
    assert values["average_precision"] == pytest.approx(average_precision(probability, truth), abs=1e-6)
