"""Ours against TensorFlow Addons 0.23, which computed `addons` from `inputs` in an environment of its own."""

import numpy as np
import pytest
import tensorflow as tf

from lim_keras.data.augment import mean_filter
from lim_keras.losses import BinaryFocalLoss
from lim_keras.metrics import F1
from lim_keras.metrics.binary import scores

pytestmark = pytest.mark.parity


def losses(inputs, **arguments):
    """Our loss for each (alpha, gamma) of the inputs."""
    for alpha, gamma in inputs["alpha_gamma"].tolist():
        weights = (alpha, 1 - alpha) if alpha else (1, 1)
        yield BinaryFocalLoss(*weights, gamma, **arguments)


def test_presets_are_among_the_inputs(inputs):
    pairs = inputs["alpha_gamma"].tolist()
    assert [0.75, 1.75] in pairs  # paper-text
    assert [0.25, 1.75] in pairs  # keras


def test_focal_cost_of_every_pixel(inputs, addons):
    for loss, expected in zip(losses(inputs), addons["focal"], strict=True):
        # a relative bound for large costs, an absolute one for pixels that are right: theirs rounds 1 - p_t
        np.testing.assert_allclose(loss.call(inputs["truth"], inputs["logits"]), expected, rtol=1e-5, atol=1e-7)


def test_focal_mean(inputs, addons):
    for loss, expected in zip(losses(inputs), addons["focal"], strict=True):
        assert float(loss(inputs["truth"], inputs["logits"])) == pytest.approx(expected.mean(), rel=1e-5)


def test_focal_paper_eq5_only_scales(inputs, addons):
    unweighted = addons["focal"][inputs["alpha_gamma"].tolist().index([0.0, 1.75])]
    ours = BinaryFocalLoss.preset("paper-eq5")(inputs["truth"], inputs["logits"])
    assert float(ours) == pytest.approx(0.25 * unweighted.mean(), rel=1e-5)


def test_focal_slope_of_every_pixel(inputs, addons):
    for loss, expected in zip(losses(inputs), addons["focal_slope"], strict=True):
        logits = tf.Variable(inputs["logits"])
        with tf.GradientTape() as tape:
            cost = tf.reduce_sum(loss.call(inputs["truth"], logits))
        np.testing.assert_allclose(tape.gradient(cost, logits), expected, rtol=1e-4, atol=1e-6)


def test_focal_from_probability(inputs, addons):
    for loss, expected in zip(losses(inputs, from_logits=False), addons["focal_from_probability"], strict=True):
        np.testing.assert_allclose(loss.call(inputs["truth"], inputs["probability"]), expected, rtol=1e-3, atol=1e-6)


def test_mean_filter(inputs, addons):
    np.testing.assert_allclose(mean_filter(inputs["image_float"]), addons["image_float_filtered"], rtol=1e-5)


def test_mean_filter_of_whole_numbers(inputs, addons):
    # nine pixels summed, over nine: theirs cuts the fraction off, ours rounds it
    ours = mean_filter(inputs["image_uint8"])
    assert ours.dtype == np.uint8
    exact = mean_filter(inputs["image_uint8"].astype(np.float64))
    np.testing.assert_array_equal(ours, np.rint(exact))
    difference = ours.astype(int) - addons["image_uint8_filtered"]
    assert set(np.unique(difference)) <= {0, 1}


def test_f1_streamed(inputs, addons):
    metric = F1(from_logits=False)
    for truth, probability in zip(inputs["truth"], inputs["probability"], strict=True):
        metric.update_state(truth[None], probability[None])
    assert float(metric.result()) == pytest.approx(float(addons["f1"]), rel=1e-6)


def test_f1_of_an_empty_mask_is_our_own_policy(addons):
    # empty truth met by an empty prediction: 0 there, where 0 / 0 is 0; 1 here, where nothing is wrong
    assert float(addons["f1_empty"]) == 0
    assert scores(0, 0, 0, 4)["f1"] == 1
