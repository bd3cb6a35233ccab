"""Bundles of further encoders: SavedModel, OpenVINO and LiteRT say what the Python model says."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.litert import load_litert
from lim_keras.bundle.runtimes import load_model
from lim_keras.errors import LimKerasWarning
from lim_keras.export.bundle import write_bundle
from lim_keras.export.tflite import LiteRtOptions, export_litert
from lim_keras.models import build_model
from lim_keras.models.receptive_field import receptive_field

from .conftest import expected_folds, facts


def trained(encoder: str) -> keras.Model:
    """A network as after training: statistics of batch normalisation that fit its images, and a score that varies."""
    keras.utils.set_random_seed(5)
    model = build_model("fcn_fl", encoder, encoder_weights="none", decoder_channels=8)
    rng = np.random.default_rng(5)
    for _ in range(30):
        model(rng.integers(0, 256, (1, 96, 96, 3)).astype(np.float32), training=True)
    model.get_layer("score").set_weights([rng.normal(scale=3.0, size=(1, 1, 8, 1)), np.zeros(1)])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "mobilenet"])
def test_all_runtimes_agree(encoder: str, tmp_path: Path, bijie_folder: Callable[..., Path]) -> None:
    model, path = trained(encoder), tmp_path / "net"
    described = write_bundle(path, facts(model={"name": "fcn_fl", "encoder": encoder}), [model])
    assert described.halo == receptive_field(model, 32).halo
    tiles = bijie_folder(tmp_path / "tiles", 2, 2)
    with pytest.warns(LimKerasWarning, match="approximate"):  # 128 px leave no core between halos
        export_litert(path, LiteRtOptions(("float32", "int8"), tile=128, tiles=tiles, allow_drop=True))
    files = {f"tflite/fold_0_{variant}.tflite" for variant in ("float32", "int8")}
    assert files <= set(BundleInfo.read(path).files)
    image = np.random.default_rng(1).integers(0, 256, (1, 128, 128, 3)).astype(np.uint8)
    expected = expected_folds([model], image.astype(np.float32))[0, ..., 0]
    assert expected.std() > 0.02
    small = image[:, :70, :45]
    for runtime in ("tensorflow", "openvino"):
        loaded = load_model(path, runtime)  # type: ignore[arg-type]
        np.testing.assert_allclose(loaded.predict(image), expected, rtol=0, atol=2e-5, err_msg=runtime)
        alone = expected_folds([model], small.astype(np.float32))[0, ..., 0]
        np.testing.assert_allclose(loaded.predict(small), alone, rtol=0, atol=2e-5, err_msg=runtime)
    with pytest.warns(LimKerasWarning, match="approximate"):
        exact, eight = (load_litert(path / file) for file in sorted(files))
    np.testing.assert_allclose(exact.predict(image), expected, rtol=0, atol=2e-5)
    rounded = eight.predict(image)
    assert np.abs(rounded - expected).mean() < 0.05
    assert np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] > 0.9
