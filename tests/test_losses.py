"""Losses: hand-worked values, a float64 oracle, gradients at the extremes, the ignore label, serialisation."""

import doctest
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import lim_keras.losses
from lim_keras.errors import ConfigError, DataError
from lim_keras.losses import BinaryFocalLoss, DistillationLoss, FocalDiceLoss, SoftDiceLoss, TverskyLoss

ALL = [BinaryFocalLoss, FocalDiceLoss, TverskyLoss, SoftDiceLoss]
LN3 = math.log(3)  # the logit of probability 3/4


def row(*values, dtype="float32"):
    """One image of one row: (1, 1, w, 1)."""
    return np.array(values, dtype).reshape(1, 1, -1, 1)


def value_and_gradient(loss, truth, prediction, dtype="float32"):
    variable = tf.Variable(tf.cast(prediction, dtype))
    with tf.GradientTape() as tape:
        value = loss(truth, variable)
    return float(value), tf.cast(tape.gradient(value, variable), "float32").numpy()


def oracle(truth, logits, landslide_weight=0.75, background_weight=0.25, gamma=1.75):
    """The printed formula, pixel by pixel, in float64."""
    costs = []
    for label, logit in zip(truth.ravel().tolist(), logits.ravel().tolist(), strict=True):
        if label == 255:
            continue
        p = 1 / (1 + math.exp(-logit))
        p_t, weight = (p, landslide_weight) if label == 1 else (1 - p, background_weight)
        costs.append(-weight * (1 - p_t) ** gamma * math.log(p_t))
    return sum(costs) / len(costs)


def batch(seed=0, shape=(3, 7, 5, 1), spread=3.0, ignored=0.2):
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < 0.3).astype(np.uint8)
    truth[rng.random(shape) < ignored] = 255
    return truth, rng.normal(0, spread, shape).astype(np.float32)


class TestFocal:
    def test_one_landslide_pixel(self):
        # p_t = 1/2: 0.75 * (1/2)^2 * ln 2 = 0.129965
        assert float(BinaryFocalLoss(gamma=2)(row(1), row(0.0))) == pytest.approx(0.129965, abs=1e-6)

    def test_mean_over_labelled_pixels(self):
        # landslide at p = 3/4: 0.75 * (1/4)^2 * -ln(3/4) = 0.0134851
        # background at p = 3/4, p_t = 1/4: 0.25 * (3/4)^2 * -ln(1/4) = 0.194948
        # their mean is 0.104217; the two unlabelled pixels are not divided by
        loss = BinaryFocalLoss(gamma=2)
        assert float(loss(row(1, 0, 255, 255), row(LN3, LN3, 9, -9))) == pytest.approx(0.104217, abs=1e-6)

    @pytest.mark.parametrize("gamma", [0, 0.5, 1.75, 3])
    def test_equals_the_formula(self, gamma):
        truth, logits = batch()
        assert float(BinaryFocalLoss(0.6, 0.3, gamma)(truth, logits)) == pytest.approx(
            oracle(truth, logits, 0.6, 0.3, gamma), rel=1e-5
        )

    @pytest.mark.parametrize("alpha", [0.25, 0.75])
    @pytest.mark.parametrize("from_logits", [True, False])
    def test_equals_keras(self, alpha, from_logits):
        truth, prediction = batch(ignored=0)
        if not from_logits:
            prediction = 1 / (1 + np.exp(-prediction))
        theirs = keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True, alpha=alpha, gamma=1.75, from_logits=from_logits
        )
        ours = BinaryFocalLoss(alpha, 1 - alpha, 1.75, from_logits=from_logits)
        # float32 holds a probability near 1 to few digits only, and both add 1e-7 at a different place
        near = 1e-5 if from_logits else 1e-4
        assert float(ours(truth, prediction)) == pytest.approx(float(theirs(truth, prediction)), rel=near)

    def test_gamma_zero_and_equal_weights_are_cross_entropy(self):
        truth, logits = batch(ignored=0)
        expected = keras.losses.BinaryCrossentropy(from_logits=True)(truth, logits)
        assert float(BinaryFocalLoss(1, 1, 0)(truth, logits)) == pytest.approx(float(expected), rel=1e-6)

    def test_gradient_equals_differences_of_the_formula(self):
        truth, logits = batch(shape=(1, 3, 4, 1))
        _, gradient = value_and_gradient(BinaryFocalLoss(), truth, logits)
        wide, step = logits.astype(np.float64), 1e-5
        for place in np.ndindex(wide.shape):
            up, down = wide.copy(), wide.copy()
            up[place] += step
            down[place] -= step
            slope = (oracle(truth, up) - oracle(truth, down)) / (2 * step)
            assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-7)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("gamma", [0, 0.5, 1.75])
    def test_confidently_wrong_pixels_cost_and_move(self, dtype, gamma):
        # p_t = 0: costs weight * 100, slopes weight * -1 and +1, halved by the mean of two pixels
        value, gradient = value_and_gradient(BinaryFocalLoss(gamma=gamma), row(1, 0), row(-100, 100), dtype)
        assert value == pytest.approx((0.75 * 100 + 0.25 * 100) / 2)
        np.testing.assert_allclose(gradient.ravel(), [-0.375, 0.125])

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_finite_over_the_whole_range(self, dtype):
        logits = np.linspace(-100, 100, 402, dtype=np.float32).reshape(2, 3, 67, 1)
        for label in (0, 1):
            value, gradient = value_and_gradient(BinaryFocalLoss(), np.full_like(logits, label), logits, dtype)
            assert math.isfinite(value)
            assert np.isfinite(gradient).all()

    def test_arithmetic_is_float32_under_bfloat16(self):
        truth, logits = batch()
        logits = tf.cast(logits, "bfloat16")
        exact = float(BinaryFocalLoss()(truth, tf.cast(logits, "float32")))
        assert float(BinaryFocalLoss()(truth, logits)) == exact

    @pytest.mark.parametrize("gamma", [0, 0.5, 1.75])
    def test_probabilities_of_exactly_0_and_1(self, gamma):
        loss = BinaryFocalLoss(gamma=gamma, from_logits=False)
        right, gradient = value_and_gradient(loss, row(1, 0), row(1, 0))
        assert right == pytest.approx(0, abs=1e-6)
        assert np.isfinite(gradient).all()
        wrong, gradient = value_and_gradient(loss, row(1, 0), row(0, 1))
        # -ln(1e-7) = 16.118: (0.75 + 0.25) * 16.118 / 2
        assert wrong == pytest.approx(8.059, abs=0.01)
        assert gradient.ravel()[0] < -1e5
        assert gradient.ravel()[1] > 1e5

    def test_sample_weights_multiply_costs(self):
        truth, logits = batch(shape=(2, 4, 4, 1), ignored=0)
        loss = BinaryFocalLoss()
        parts = [float(loss(truth[k : k + 1], logits[k : k + 1])) for k in range(2)]
        weighted = loss(truth, logits, sample_weight=np.array([2.0, 0.5]).reshape(2, 1, 1))
        assert float(weighted) == pytest.approx((2 * parts[0] + 0.5 * parts[1]) / 2, rel=1e-6)

    @pytest.mark.parametrize(
        ("name", "landslide", "background"),
        [("paper-text", 0.75, 0.25), ("paper-eq5", 0.25, 0.25), ("keras", 0.25, 0.75)],
    )
    def test_presets(self, name, landslide, background):
        loss = BinaryFocalLoss.preset(name, ignore_value=9)
        assert (loss.landslide_weight, loss.background_weight, loss.gamma) == (landslide, background, 1.75)
        assert (loss.from_logits, loss.ignore_value) == (True, 9)

    def test_default_is_the_papers_text(self):
        preset = BinaryFocalLoss.preset("paper-text")
        assert preset.get_config() == BinaryFocalLoss().get_config()

    def test_preset_keras_is_keras(self):
        truth, logits = batch(ignored=0)
        theirs = keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, gamma=1.75, from_logits=True)
        assert float(BinaryFocalLoss.preset("keras")(truth, logits)) == pytest.approx(
            float(theirs(truth, logits)), rel=1e-5
        )

    def test_unknown_preset(self):
        with pytest.raises(ConfigError, match=r"`name`.*paper-text, paper-eq5, keras.*name='paper'"):
            BinaryFocalLoss.preset("paper")


class TestOverlap:
    # p = 3/4 on one landslide and one background pixel: TP = 0.75, FP = 0.75, FN = 0.25
    def test_dice(self):
        # 1 - (0.75 + 1) / (0.75 + 0.375 + 0.125 + 1) = 1 - 1.75 / 2.25
        assert float(SoftDiceLoss()(row(1, 0), row(LN3, LN3))) == pytest.approx(0.5 / 2.25)

    def test_false_positive_weight_weighs_false_positives(self):
        # 0.75 / (0.75 + 0.75 + 1)
        assert float(TverskyLoss(1, 0)(row(1, 0), row(LN3, LN3))) == pytest.approx(0.3)

    def test_false_negative_weight_weighs_false_negatives(self):
        # 0.25 / (0.75 + 0.25 + 1)
        assert float(TverskyLoss(0, 1)(row(1, 0), row(LN3, LN3))) == pytest.approx(0.125)

    def test_even_weights_are_dice(self):
        truth, logits = batch()
        assert float(TverskyLoss(0.5, 0.5)(truth, logits)) == float(SoftDiceLoss()(truth, logits))

    def test_counts_over_the_whole_batch(self):
        # image 1 is found (TP = 1), image 2 is empty and clean: 1 - (1 + 1) / (1 + 1) = 0
        truth, logits = np.concatenate([row(1, 0), row(0, 0)]), np.concatenate([row(99, -99), row(-99, -99)])
        assert float(SoftDiceLoss()(truth, logits)) == pytest.approx(0, abs=1e-6)

    def test_batch_without_landslides_still_pushes_down(self):
        # p = 1/2 on two background pixels, FP = 1: 0.5 / (0.5 + 1)
        value, gradient = value_and_gradient(SoftDiceLoss(), row(0, 0), row(0, 0))
        assert value == pytest.approx(1 / 3)
        assert (gradient > 0).all()

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("kind", [SoftDiceLoss, TverskyLoss, FocalDiceLoss])
    def test_finite_at_the_extremes(self, kind, dtype):
        value, gradient = value_and_gradient(kind(), row(1, 0, 1, 0), row(-100, 100, 100, -100), dtype)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_focal_dice_adds_up(self):
        truth, logits = batch()
        parts = float(BinaryFocalLoss()(truth, logits)) + 0.3 * float(SoftDiceLoss()(truth, logits))
        assert float(FocalDiceLoss(dice_weight=0.3)(truth, logits)) == pytest.approx(parts, rel=1e-6)

    def test_focal_dice_has_the_focal_presets(self):
        loss = FocalDiceLoss.preset("paper-eq5", dice_weight=2.0)
        assert (loss.landslide_weight, loss.background_weight, loss.dice_weight) == (0.25, 0.25, 2.0)


def test_examples_of_docstrings():
    result = doctest.testmod(lim_keras.losses)
    assert result.failed == 0 and result.attempted > 10


def test_reductions_by_hand():
    # p_t = 1/2: 0.75 * (1/2)^2 * ln 2 = 0.129965 and 0.25 * (1/2)^2 * ln 2 = 0.0433217; the third pixel is ignored
    truth, logits = row(1, 0, 255), row(0.0, 0.0, 9.0)
    costs = [0.129965, 0.0433217, 0]
    for reduction in (None, "none"):
        got = BinaryFocalLoss(gamma=2, reduction=reduction)(truth, logits)
        np.testing.assert_allclose(got, np.reshape(costs, (1, 1, 3)), rtol=1e-5)
    assert float(BinaryFocalLoss(gamma=2, reduction="sum")(truth, logits)) == pytest.approx(sum(costs), rel=1e-5)
    for reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
        got = BinaryFocalLoss(gamma=2, reduction=reduction)(truth, logits)
        assert float(got) == pytest.approx(sum(costs) / 2, rel=1e-5)


def test_names_are_those_of_the_classes():
    assert [kind().name for kind in ALL] == ["binary_focal_loss", "focal_dice_loss", "tversky_loss", "soft_dice_loss"]


@pytest.mark.parametrize("kind", ALL)
class TestEvery:
    def test_dtype_is_that_of_the_computation(self, kind):
        truth, logits = batch()
        wide = kind(dtype="float64")(truth, logits)
        assert wide.dtype == "float64" and kind()(truth, logits).dtype == "float32"
        assert float(wide) == pytest.approx(float(kind()(truth, logits)), rel=1e-5)

    def test_ignored_pixels_weigh_nothing(self, kind):
        truth, logits = batch(ignored=0.4)
        value, gradient = value_and_gradient(kind(), truth, logits)
        changed = np.where(truth == 255, 77, logits).astype(np.float32)
        other, _ = value_and_gradient(kind(), truth, changed)
        assert value == other
        assert (gradient[truth == 255] == 0).all()
        assert (gradient[truth != 255] != 0).all()

    @pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
    def test_junk_under_the_ignore_label(self, kind, junk):
        value, gradient = value_and_gradient(kind(), row(1, 255, 0), row(0.5, junk, 0.5))
        assert value == pytest.approx(float(kind()(row(1, 0), row(0.5, 0.5))), rel=1e-6)
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("from_logits", [True, False])
    def test_nothing_labelled(self, kind, from_logits):
        value, gradient = value_and_gradient(kind(from_logits=from_logits), row(255, 255), row(0.3, 0.9))
        assert value == 0
        assert (gradient == 0).all()

    def test_own_ignore_value(self, kind):
        assert float(kind(ignore_value=9)(row(1, 9, 0), row(1, 5, -1))) == pytest.approx(
            float(kind()(row(1, 255, 0), row(1, 5, -1)))
        )

    def test_labels_of_any_type_and_shape(self, kind):
        truth, logits = batch()
        expected = float(kind()(truth, logits))
        for labels in (truth[..., 0], truth.astype(np.int64), truth.astype(np.float32)):
            assert float(kind()(labels, logits)) == expected
        assert float(kind()(truth[..., 0], logits[..., 0])) == expected

    def test_logits_equal_probabilities(self, kind):
        truth, logits = batch()
        probability = 1 / (1 + np.exp(-logits))
        assert float(kind(from_logits=False)(truth, probability)) == pytest.approx(
            float(kind()(truth, logits)), rel=1e-4
        )

    def test_flips_change_nothing(self, kind):
        truth, logits = batch()
        assert float(kind()(truth[:, ::-1], logits[:, ::-1])) == pytest.approx(float(kind()(truth, logits)), rel=1e-6)

    def test_compiled_by_xla(self, kind):
        truth, logits = batch()
        compiled = tf.function(kind(), jit_compile=True)
        assert float(compiled(tf.constant(truth), tf.constant(logits))) == pytest.approx(
            float(kind()(truth, logits)), rel=1e-5
        )

    def test_config_round_trip(self, kind):
        loss = kind(from_logits=False, ignore_value=7, name="mine", reduction="sum", dtype="float64")
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(again) is kind
        assert again.get_config() == loss.get_config()
        assert (again.from_logits, again.ignore_value, again.name) == (False, 7, "mine")
        assert (again.reduction, again.dtype) == ("sum", "float64")

    def test_compiled_model_reloads(self, kind, tmp_path):
        pixels = keras.Input((None, None, 3))
        model = keras.Model(pixels, keras.layers.Conv2D(1, 1)(pixels))
        model.compile("sgd", kind())
        truth, _ = batch()
        images = np.random.default_rng(1).random((3, 7, 5, 3), np.float32)
        model.fit(images, truth, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert type(again.loss) is kind
        assert again.evaluate(images, truth, verbose=0) == pytest.approx(model.evaluate(images, truth, verbose=0))

    def test_other_shapes_are_refused(self, kind):
        with pytest.raises(DataError, match=r"`y_pred`.*\(n, height, width, 1\).*Received: \(1, 2, 2, 3\)"):
            kind()(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 3)))
        with pytest.raises(DataError, match=r"`y_true`.*Received: \(4,\)"):
            kind()(np.zeros(4), np.zeros((1, 2, 2, 1)))
        with pytest.raises(DataError, match=r"y_true \(1, 2, 1\), y_pred \(1, 2, 2\)"):
            kind()(np.zeros((1, 2, 1)), np.zeros((1, 2, 2, 1)))

    @pytest.mark.parametrize("label", [0, 1])
    def test_ignore_value_is_no_class(self, kind, label):
        with pytest.raises(ConfigError, match=f"`ignore_value`.*Received: ignore_value={label}"):
            kind(ignore_value=label)


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        (BinaryFocalLoss, "gamma", -1),
        (BinaryFocalLoss, "landslide_weight", math.nan),
        (BinaryFocalLoss, "background_weight", "0.25"),
        (BinaryFocalLoss, "background_weight", True),
        (FocalDiceLoss, "dice_weight", -0.1),
        (FocalDiceLoss, "smooth", 0),
        (TverskyLoss, "false_positive_weight", -1),
        (TverskyLoss, "false_negative_weight", math.inf),
        (TverskyLoss, "smooth", 0),
        (SoftDiceLoss, "smooth", 0),
    ],
)
def test_arguments_out_of_range(kind, argument, value):
    with pytest.raises(ConfigError, match=f"`{argument}`. Expected a finite number >= .*Received: {argument}="):
        kind(**{argument: value})


# A student's loss.


def taught(mask, teacher):
    """(1, 1, w, 2): mask and teacher in 255ths."""
    return np.stack([np.array(mask), np.array(teacher)], axis=-1).reshape(1, 1, -1, 2).astype(np.uint8)


def test_distillation_by_hand():
    # mask 0, teacher 255/255: t = .5, p = 3/4: .5 * .25 ** 1.75 * (ln 4 - .5 ln 3)
    #   = .5 * .0883883 * (1.3862944 - .5493061) = .0369899; the class weight is .25 + (.75 - .25) * .5 = .5
    loss = DistillationLoss(dice_weight=0.0)
    assert float(loss(taught([0], [255]), row(LN3))) == pytest.approx(0.0369899, rel=1e-5)
    # true min(.5, .75) = .5, wrong .5 * (.75 - .5) + .5 * (.5 - .5) = .125; Dice loss .125 / (.5 + .125 + 1)
    with_dice = DistillationLoss()
    assert float(with_dice(taught([0], [255]), row(LN3))) == pytest.approx(0.0369899 + 0.125 / 1.625, rel=1e-5)


@pytest.mark.parametrize("teacher_weight", [0.0, 1.0])
def test_distillation_of_a_certain_target_is_the_focal_dice_loss(teacher_weight):
    rng = np.random.default_rng(3)
    mask = rng.integers(0, 2, (2, 5, 4))
    mask[0, 0, :2] = 255
    teacher = np.where(mask == 1, 255, 0)
    logits = rng.normal(0, 3, (2, 5, 4, 1)).astype(np.float32)
    planes = np.stack([mask, teacher], axis=-1).astype(np.uint8)
    expected = FocalDiceLoss()(mask[..., np.newaxis].astype(np.uint8), logits)
    got = DistillationLoss(teacher_weight=teacher_weight)(planes, logits)
    assert float(got) == pytest.approx(float(expected), rel=1e-4)


def test_distillation_pulls_towards_the_target_and_stays_finite():
    truth = taught([0, 1, 0, 1], [0, 255, 255, 0])
    value, gradient = value_and_gradient(DistillationLoss(dice_weight=0.0), truth, row(100, -100, 100, -100))
    assert math.isfinite(value) and np.isfinite(gradient).all()
    # too high, too low, too high and too low: the last two of a target of one half
    assert (np.sign(gradient.ravel()) == [1, -1, 1, -1]).all()
    ignored, gradient = value_and_gradient(DistillationLoss(), taught([255], [200]), row(3.0))
    assert ignored == 0 and not gradient.any()


def test_the_teachers_false_alarms_are_not_taught_as_landslides():
    truth = taught([1, 0, 0], [255, 255, 0])  # targets 1, .5 and 0: a landslide, a false alarm, background
    variable = tf.Variable(row(2.0, 0.0, -2.0))
    loss = DistillationLoss(smooth=0.01)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(truth, variable)
        variable.assign_sub(0.3 * tape.gradient(value, variable))

    for _ in range(1500):
        step()
    landslide, alarm, background = tf.sigmoid(variable).numpy().ravel()
    assert landslide > 0.95 and background < 0.05
    assert alarm == pytest.approx(0.5, abs=0.05)


def test_distillation_wants_two_planes():
    with pytest.raises(
        DataError, match=r"Expected \(n, height, width, 2\), mask and teacher. Received: \(1, 1, 1, 1\)"
    ):
        DistillationLoss()(row(1), row(0.0))
    with pytest.raises(ConfigError, match=r"`teacher_weight`\. Expected 0\.\.1\. Received: teacher_weight=1.5"):
        DistillationLoss(teacher_weight=1.5)


def test_distillation_comes_back_from_its_configuration():
    loss = DistillationLoss(0.6, 0.4, 2.0, 0.5, 0.3, smooth=2.0)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config() and again.teacher_weight == 0.3
