"""Optimizers with an encoder rate, warm-up, freezing and decay, computed by hand; choice of precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.config import TrainingSection
from lim_keras.training.fit import build_optimizer, choose_precision, precision, seconds_of_convolution


def network() -> keras.Model:
    """One kernel and one bias in the encoder, one of each behind it; all are 1."""
    inner = keras.Input((None, None, 1))
    ones = {"kernel_initializer": "ones", "bias_initializer": "ones"}
    encoder = keras.Model(inner, keras.layers.Conv2D(1, 1, **ones)(inner), name="encoder")
    image = keras.Input((None, None, 1))
    return keras.Model(image, keras.layers.Conv2D(1, 1, name="score", **ones)(encoder(image)))


def steps(count: int, gradient: float = 1.0, steps_per_epoch: int = 3, **settings: object) -> list[dict[str, float]]:
    """Take steps with the same gradient everywhere; the variables after each."""
    plain = {"optimizer": "sgd", "schedule": "constant", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5}
    model = network()
    optimizer = build_optimizer(TrainingSection(**{**plain, **settings}), model, steps_per_epoch)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> None:
        optimizer.apply([tf.fill(v.shape, gradient) for v in model.trainable_variables], model.trainable_variables)

    values = []
    for _ in range(count):
        step()
        names = ("encoder_kernel", "encoder_bias", "kernel", "bias")
        values.append(
            dict(zip(names, (float(np.asarray(v).ravel()[0]) for v in model.trainable_variables), strict=True))
        )
    return values


def test_the_encoder_learns_at_its_factor():
    # rate 1/2, gradient 1: the decoder goes from 1 to 1/2; the encoder at a fifth of the rate, .1
    (after,) = steps(1, encoder_learning_rate_factor=0.2)
    assert after == pytest.approx({"encoder_kernel": 0.9, "encoder_bias": 0.9, "kernel": 0.5, "bias": 0.5})


def test_only_kernels_decay_and_at_the_rate_that_they_learn_with():
    # decay .1: kernel 1 - 1/2 x .1 x 1 = .95, minus the gradient's 1/2; encoder: 1 - .1 x .1 x 1 = .99, minus .1
    (after,) = steps(1, encoder_learning_rate_factor=0.2, weight_decay=0.1)
    assert after == pytest.approx({"encoder_kernel": 0.89, "encoder_bias": 0.9, "kernel": 0.45, "bias": 0.5})


def test_decay_alone():
    # no gradient: kernels lose 5 % a step
    first, second = steps(2, gradient=0.0, weight_decay=0.1)
    assert first["kernel"] == pytest.approx(0.95) and second["kernel"] == pytest.approx(0.95**2)
    assert second["bias"] == 1


def test_warm_up_rises_evenly():
    values = [after["bias"] for after in steps(5, warmup_steps=4)]
    # 1/2 x 1/4, 2/4, 3/4, 1, 1
    np.testing.assert_allclose(np.diff([1, *values]), [-0.125, -0.25, -0.375, -0.5, -0.5], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_frozen_encoder_stays_as_it_is(optimizer):
    settings = {"freeze_encoder_epochs": 2, "weight_decay": 0.1, "momentum": 0.9, "optimizer": optimizer}
    values = steps(7, steps_per_epoch=3, **settings)
    for after in values[:6]:
        assert after["encoder_kernel"] == after["encoder_bias"] == 1
        assert after["kernel"] < 1
    assert values[6]["encoder_kernel"] < 1 and values[6]["encoder_bias"] < 1


def test_freezing_and_factor_and_warm_up_together():
    values = steps(3, steps_per_epoch=1, freeze_encoder_epochs=1, warmup_steps=4, encoder_learning_rate_factor=0.5)
    # steps at 1/4 (frozen), 2/4 and 3/4 of the warm-up, half of that for the encoder, times 1/2
    np.testing.assert_allclose([after["encoder_bias"] for after in values], [1, 1 - 0.125, 1 - 0.125 - 0.1875])


def test_sgd_has_nesterov_momentum():
    # velocity -.5, then .9 x -.5 - .5 = -.95; a step is .9 x velocity - .5: -.95, then -1.355
    values = [after["bias"] for after in steps(2, momentum=0.9)]
    np.testing.assert_allclose(values, [0.05, -1.305], rtol=1e-5)


def test_adamw_steps_by_its_rate_whatever_the_gradient():
    # Adam's first step is rate x gradient / |gradient|; decay is apart from it
    for gradient in (0.1, 1.0, 500.0):
        (after,) = steps(1, gradient, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
        assert after["bias"] == pytest.approx(0.99, abs=2e-5)
        assert after["kernel"] == pytest.approx(1 - 0.01 * 0.1 - 0.01, abs=2e-5)


def test_cosine_ends_with_the_last_step():
    settings = TrainingSection(schedule="cosine", learning_rate=0.8, epochs=5)
    optimizer = build_optimizer(settings, network(), 4)
    optimizer.build(network().trainable_variables)
    rates = []
    for step in (0, 10, 20):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    # 20 steps: all, half, nothing
    np.testing.assert_allclose(rates, [0.8, 0.4, 0.0], atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_other_schedules_keep_the_rate_in_a_variable(schedule):
    optimizer = build_optimizer(TrainingSection(schedule=schedule, learning_rate=0.25), network(), 4)
    assert float(optimizer.learning_rate) == 0.25
    optimizer.learning_rate.assign(0.1)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


# Precision.

MODULE = "lim_keras.training.fit.seconds_of_convolution"


@pytest.mark.parametrize(
    ("bfloat16", "chosen"), [(0.5, "mixed_bfloat16"), (0.9, "float32"), (15.0, "float32")], ids=["faster", "as", "slow"]
)
def test_the_faster_one_is_taken_and_kept(tmp_path, monkeypatch, bfloat16, chosen):
    monkeypatch.setattr(MODULE, {"float32": 1.0, "bfloat16": bfloat16}.__getitem__)
    assert choose_precision("auto", tmp_path) == chosen
    monkeypatch.setattr(MODULE, {"float32": 1.0, "bfloat16": 1 / bfloat16}.__getitem__)
    assert choose_precision("auto", tmp_path) == chosen


def test_what_was_asked_for_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, None)
    assert choose_precision("mixed_float16", tmp_path) == "mixed_float16" and not list(tmp_path.iterdir())


def test_a_convolution_takes_time():
    assert 0 < seconds_of_convolution("float32") < 60


def test_the_policy_is_that_of_before_afterwards():
    with pytest.raises(KeyError), precision("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"
