"""False alarms by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.data.layouts import read_tiles
from lim_keras.data.negatives import read_negatives
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.negatives import FalseAlarms, evaluate_negatives
from tests.conftest import bundle_info


def test_one_tile_by_hand() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[2:4, 2:5] = 0.5  # 6 px, at the threshold
    probability[4, 4] = 0.9  # shares a side with the first group
    probability[5, 5] = 0.6  # touches its corner: a group of its own
    probability[50, 50] = 0.7  # a second group
    probability[60, 60] = 0.49  # below
    probability[0, 0] = 1.0  # without data
    mask = np.zeros((100, 100), np.uint8)
    mask[:10, :1] = 255
    plain = ObjectRule(threshold=0.5)
    found = FalseAlarms.of(probability, mask, plain, 2.0)
    # 9990 px of 4 m2 are 0.03996 km2; alarms of 7, 1 and 1 px
    assert found == FalseAlarms(1, 1, 9990, 9, 3, pytest.approx(0.03996))
    assert found.landslide_share == pytest.approx(9 / 9990)
    assert found.alarms_per_km2 == pytest.approx(3 / 0.03996)
    # peaks 0.9, 0.6 and 0.7; areas 28, 4 and 4 m2
    assert FalseAlarms.of(probability, mask, ObjectRule(threshold=0.5, peak=0.7), 2.0).alarms == 2
    large = FalseAlarms.of(probability, mask, ObjectRule(threshold=0.5, min_area_m2=5), 2.0)
    assert (large.alarms, large.landslide_px) == (1, 7)
    assert FalseAlarms.of(probability, mask, ObjectRule(threshold=0.95), 2.0).tiles_with_alarm == 0
    none = FalseAlarms.of(np.zeros((4, 4)), np.zeros((4, 4), np.uint8), plain, None)
    assert none == FalseAlarms(1, 0, 16, 0, 0, None) and none.alarms_per_km2 is None
    assert found + found == FalseAlarms(2, 2, 19980, 18, 6, pytest.approx(0.07992))
    assert (found + none).area_km2 is None


def test_groups(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    for name, value in (("grass_1", 0), ("grass_2", 255), ("town_1", 0)):
        pixels = np.zeros((10, 20, 3), np.uint8)
        pixels[2:4, 5:9] = value
        write_picture(tmp_path / "n" / f"{name}.png", pixels)
    info = bundle_info(threshold=0.5, gsd_m=1.0)
    report = evaluate_negatives(lambda images: images[..., 0] / 255, info, tmp_path / "n")
    assert list(report.groups) == ["grass", "town"]
    # 2 tiles of 200 m2, an alarm of 8 m2
    assert report.groups["grass"] == FalseAlarms(2, 1, 400, 8, 1, pytest.approx(0.0004))
    values = report.to_dict()
    assert values["all"]["landslide_share"] == pytest.approx(8 / 600)
    assert values["groups"]["town"]["alarms_per_km2"] == 0


def test_tiles_that_do_not_fit(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    write_picture(tmp_path / "n" / "a_1.png", np.zeros((10, 20), np.uint8))
    with pytest.raises(DataError, match="expected tiles of 3 bands"):
        evaluate_negatives(lambda images: images[..., 0], bundle_info(), tmp_path / "n")
    info = bundle_info(bands=1, training_tiles=("a_1",))
    landslide = tmp_path / "pairs"
    write_picture(landslide / "images" / "a_1.png", np.zeros((10, 20), np.uint8))
    write_picture(landslide / "masks" / "a_1.png", np.full((10, 20), 1, np.uint8) * (np.arange(20) < 5))
    with pytest.raises(DataError, match=r"the mask of a negative tile holds 50 landslide pixels"):
        evaluate_negatives(lambda images: images[..., 0] / 255, info, read_tiles(landslide))
    with pytest.warns(LimKerasWarning, match="1 of 1 tiles were used in training"):
        evaluate_negatives(lambda images: images[..., 0] / 255, info, read_negatives(tmp_path / "n"))
