"""What "auto" comes to: the faster arithmetic of the machine, and the same one to a training's end."""

import keras
import pytest

from lim_keras.training.optimizer import choose_precision, precision, seconds_of_convolution

MODULE = "lim_keras.training.optimizer.seconds_of_convolution"


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
