"""A model for scenes made of Keras networks, and scenes on the disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.models import build_model, network_stride
from lim_keras.models.receptive_field import receptive_field
from tests.conftest import bundle_info

THRESHOLD = 0.5


class Folds:
    """A `SceneModel` of Keras models in memory. It records the shapes of its inputs."""

    def __init__(self, models: Sequence[keras.Model], info: BundleInfo) -> None:
        self.models, self.info = list(models), info
        self.shapes: list[tuple[int, ...]] = []

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.shapes.append(images.shape)
        logits = [np.asarray(model(images.astype(np.float32), training=False))[..., 0] for model in self.models]
        folds = 1 / (1 + np.exp(-np.stack(logits)))
        votes = (folds >= THRESHOLD).sum(axis=0).astype(np.int32)
        return EnsemblePrediction(folds.mean(axis=0), folds.std(axis=0), votes)


def describe(models: Sequence[keras.Model], stride: int, **changes: Any) -> BundleInfo:
    fields = [receptive_field(model, stride) for model in models]
    known = {
        "bands": int(models[0].input_shape[-1]),
        "stride": stride,
        "folds": len(models),
        "halo": max(field.halo for field in fields),
        "bytes_per_pixel": max(field.bytes_per_pixel for field in fields),
    }
    return bundle_info(**known | changes)


def lively(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights with which every layer matters, and logits of mean 0 and deviation 2: a new score layer is all zeros."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    kernel, _ = model.get_layer("score").get_weights()
    kernel = rng.normal(size=kernel.shape)
    model.get_layer("score").set_weights([kernel, np.zeros(1)])
    logits = np.asarray(model(texture(256, 256)[np.newaxis].astype(np.float32), training=False))
    model.get_layer("score").set_weights([kernel * 2 / logits.std(), np.array([-2 * logits.mean() / logits.std()])])
    return model


def network(name: str = "fcn_fl", encoder: str = "small", reduction: int = 1, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = build_model(name, encoder, encoder_weights="none", decoder_channels=8, input_reduction=reduction)
    return lively(model, seed)


def constant(probability: float, bands: int = 3) -> keras.Model:
    """The same probability everywhere, whatever the image."""
    image = keras.Input((None, None, bands))
    bias = keras.initializers.Constant(float(np.log(probability / (1 - probability))))
    return keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer=bias)(image))


def small_model(reduction: int = 1, folds: int = 1, **changes: Any) -> Folds:
    models = [network(reduction=reduction, seed=seed) for seed in range(folds)]
    return Folds(models, describe(models, network_stride(reduction), **changes))


def constant_model(probability: float = 0.7, bands: int = 3, **changes: Any) -> Folds:
    model = constant(probability, bands)
    return Folds([model], describe([model], 1, **changes))


def write_scene(path: Path, image: np.ndarray, **options: Any) -> Path:
    """(height, width, bands) as a GeoTIFF of 0.8 m pixels in UTM zone 48N; valid=(height, width): internal mask."""
    valid = options.pop("valid", None)
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)} | options
    height, width, bands = image.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": image.dtype.name}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile, **place) as file:
        file.write(np.moveaxis(image, -1, 0))
        if valid is not None:
            file.write_mask(valid)
    return path


def texture(height: int, width: int, bands: int = 3, seed: int = 3) -> np.ndarray:
    """uint8 noise with structure at several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, bands))
    for step in (1, 8, 64):
        coarse = rng.normal(size=(-(-height // step), -(-width // step), bands))
        image += np.kron(coarse, np.ones((step, step, 1)))[:height, :width]
    return np.clip(image * 35 + 120, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny() -> Folds:
    """Three folds of a small FCN-FL."""
    return small_model(folds=3)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return lambda name, image, **options: write_scene(tmp_path / name, image, **options)
