"""Maps with a measured halo stay within their promise, on odd sizes and for every family; `exact` gives one pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lim_keras.bundle.info import HALO_TOLERANCE
from lim_keras.export.measured_halo import measure_halos
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.models import network_stride
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import smallest_side

from .conftest import Folds, Write, describe, network, small_model, texture
from .test_predict_maps import maps_of


def measured(model: Folds, sheets: int = 3) -> Folds:
    for net in model.models:  # weaker logits: the random weights of an untrained network see as far as they can
        net.get_layer("score").set_weights([weights / 10 for weights in net.get_layer("score").get_weights()])
    side = smallest_side(model.info.halo, 64) + 64
    images = [texture(side, side, seed=seed) for seed in range(sheets)]
    rows = measure_halos(lambda pixels: model.predict_all(pixels).probability, model.info, images)
    return Folds(model.models, model.info.model_copy(update={"halos": rows}))


def compare(model: Folds, write: Write, folder: Path) -> None:
    halo = model.info.halo_within(HALO_TOLERANCE)
    # Untrained networks see far: some have no smaller halo, and take the full one.
    side, least = smallest_side(halo, 64), smallest_side(model.info.halo, 64)
    image = texture(2 * side - 31, least + 45, seed=77)
    whole = model.predict_all(image[np.newaxis]).probability[0]
    scene = write("scene.tif", image)
    model.shapes.clear()
    near = maps_of(model, scene, folder / "default", tile=side)
    assert max(shape[1] for shape in model.shapes) == side and len(model.shapes) > 1
    assert np.abs(near[0] - whole).max() <= HALO_TOLERANCE
    exact = maps_of(model, scene, folder / "exact", tile=least, exact=True)
    assert np.abs(exact[0] - whole).max() < 1e-5


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("name", ["fcn", "fcn_fl", "unet", "segnet"])
def test_every_family(write: Write, tmp_path: Path, name: str, reduction: int) -> None:
    net = network(name, "small", reduction)
    compare(measured(Folds([net], describe([net], network_stride(reduction)))), write, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vgg16", "mobilenetv2"])
def test_every_encoder(write: Write, tmp_path: Path, encoder: str) -> None:
    net = network("fcn_fl", encoder)
    compare(measured(Folds([net], describe([net], 32)), sheets=1), write, tmp_path)


def test_an_ensemble(write: Write, tmp_path: Path) -> None:
    model = measured(small_model(folds=3))
    assert model.info.halo_within(HALO_TOLERANCE) == 64 < model.info.halo
    compare(model, write, tmp_path)


def test_the_summary_names_the_halo(write: Write, tmp_path: Path) -> None:
    model: Any = measured(small_model())
    with RasterReader(write("scene.tif", texture(70, 90))) as scene:
        _, layout = predict_maps(model, scene, tmp_path / "a", options=MapOptions())
        assert layout["halo"] == model.info.halo_within(1e-3)
        _, layout = predict_maps(model, scene, tmp_path / "b", options=MapOptions(exact=True))
        assert layout["halo"] == 127
