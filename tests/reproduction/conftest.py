"""A bundle of two networks, of which one finds what is bright, and the other the opposite, less surely."""

from pathlib import Path

import keras
import pytest

from lim_keras.export.bundle import write_bundle
from tests.conftest import model_facts
from tests.evaluation.conftest import scene, tiles  # noqa: F401  fixtures


def brightness(slope: float, bias: float) -> keras.Model:
    """Logit (mean of the bands) * slope + bias."""
    image = keras.Input((None, None, 3))
    kernel, start = (keras.initializers.Constant(value) for value in (slope / 3, bias))
    return keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=start)(image))


@pytest.fixture(scope="session")
def two_folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Landslides are bright, 140 and more; all else is darker than 90. The second fold never calls a landslide."""
    path = tmp_path_factory.mktemp("models") / "two_folds"
    known = {"name": "two_folds", "sampling": {"mode": "windows", "size": 32}, "threshold": 0.4}
    write_bundle(path, model_facts(**known), [brightness(0.1, -11.0), brightness(0.0, -1.0)])
    return path
