"""Small networks with weights that make their outputs differ, and what their outputs should be."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lim_keras.bundle.info import BundleInfo, ModelFacts
from lim_keras.errors import BundleError
from lim_keras.metrics.binary import Estimate
from lim_keras.models import build_model
from tests.conftest import model_facts

FOLDS, TEMPERATURE, THRESHOLD = 3, 1.7, 0.45


def constant(logit: float, bands: int = 3) -> keras.Model:
    """The same logit everywhere, whatever the image."""
    image = keras.Input((None, None, bands))
    bias = keras.initializers.Constant(logit)
    return keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer=bias)(image))


def network(seed: int, bands: int = 3) -> keras.Model:
    """A network that answers otherwise for every seed and image; dropout shows that exports do without it."""
    keras.utils.set_random_seed(seed)  # the same network in every run of the tests
    model = build_model("fcn_fl", encoder="small", bands=bands, encoder_weights=None, decoder_channels=8, dropout=0.5)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "beta", "moving_mean", "moving_variance")):
            weight.assign(weight + rng.uniform(0, 0.2, weight.shape))
    # The score layer starts at zero, where every network answers 1/2.
    model.get_layer("score").set_weights([rng.normal(scale=2.0, size=(1, 1, 8, 1)), rng.normal(size=1)])
    return model


def facts(**changes: object) -> ModelFacts:
    known = {
        "model": {"name": "fcn_fl", "encoder": "small"},
        "stride": 32,
        "threshold": THRESHOLD,
        "temperature": TEMPERATURE,
        "metrics": {"out_of_fold": {"f1": Estimate(0.7, 0.6, 0.8), "mcc": Estimate(float("nan"), 0.1, 0.2)}},
    }
    return model_facts(**known | changes)


def images(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def expected_folds(models: Sequence[keras.Model], batch: np.ndarray) -> np.ndarray:
    """(folds, n, h, w, 1) in float64: sigmoid(logits / temperature) from the Python models."""
    logits = np.stack([np.asarray(model(batch, training=False)) for model in models]).astype(np.float64)
    return 1 / (1 + np.exp(-logits / TEMPERATURE))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the model.json of a bundle says, and its digest as far as it still has one, as a forger would."""
    values = json.loads((path / "model.json").read_text())
    change(values)
    (path / "model.json").write_text(json.dumps(values))
    with suppress(BundleError):
        BundleInfo.read(path).write(path)
