"""The model that ships: complete, small, and the same by TensorFlow and by LiteRT."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.litert import load_litert
from lim_keras.bundle.saved_model import load_bundle, verify_bundle
from lim_keras.config import EvaluationSection
from lim_keras.evaluation.scene import evaluate_scene
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene

BUNDLE = Path(__file__).parents[1] / "exported_models" / "bijie_edge"
LITERT = BUNDLE / "tflite" / "fold_0_int8.tflite"
FLOOR = 0.70


def test_it_is_what_was_exported_and_small():
    assert verify_bundle(BUNDLE) == []
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) <= 10e6
    assert LITERT.stat().st_size < 4e6


def test_it_says_what_it_expects_and_what_its_data_allow():
    facts = json.loads((BUNDLE / "model.json").read_text())
    assert (facts["gsd_m"], facts["bands"], facts["dtype"], facts["folds"]) == (0.8, 3, "uint8", 1)
    assert facts["name"] == "bijie_edge" and (BUNDLE / "README.md").read_text().startswith("# bijie_edge\n")
    assert "education and research" in facts["data_terms"]
    assert len(facts["test_tiles"]) == 250 and not set(facts["test_tiles"]) & set(facts["training_tiles"])


@pytest.mark.filterwarnings("ignore:.*keep a halo of 128 px:lim_keras.errors.LimKerasWarning")  # LiteRT's, and known
@pytest.mark.filterwarnings("ignore:.*looks unlike the training imagery:lim_keras.errors.DomainWarning")  # it is noise
@pytest.mark.parametrize("model", [lambda: load_bundle(BUNDLE), lambda: load_litert(LITERT)], ids=["saved", "litert"])
def test_it_maps_a_scene(tmp_path, model):
    """Green noise with a bright brown tongue down its middle: no claim about landslides, only that a map comes out."""
    pixels = np.random.default_rng(0).normal((70, 90, 70), 12, (300, 340, 3)).clip(0, 255)
    pixels[60:240, 150:190] = np.random.default_rng(1).normal((190, 160, 130), 8, (180, 40, 3))
    scene = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 300, "width": 340, "count": 3, "dtype": "uint8", "crs": "EPSG:32648"}
    with rasterio.open(scene, "w", transform=rasterio.Affine(0.8, 0, 5e5, 0, -0.8, 3e6), **profile) as target:
        target.write(pixels.astype(np.uint8).transpose(2, 0, 1))
    result = predict_scene(model(), scene, tmp_path / "maps", PredictOptions(memory=4 * 2**30))
    with rasterio.open(tmp_path / "maps" / "scene_probability.tif") as source:
        probability = source.read(1)
    assert probability.shape == (300, 340) and (probability <= 100).all()
    assert result.summary["valid_area_m2"] == pytest.approx(300 * 340 * 0.64, rel=2e-3)
    (link,) = json.loads((tmp_path / "maps" / "scene_stac.json").read_text())["links"]
    assert (tmp_path / "maps" / link["href"]).resolve() == BUNDLE / "stac-item.json"


@pytest.mark.real_data
@pytest.mark.slow
def test_it_finds_landslides_on_a_scene_of_test_tiles(real_data):
    scenes = real_data / "scenes"
    scene = scenes / "bijie_test_composite.tif"
    truth = scenes / "bijie_test_composite_landslides.geojson"
    judged = evaluate_scene(load_bundle(BUNDLE), scene, truth, settings=EvaluationSection(bootstrap=1))
    assert judged.evaluation.scores().model["f1"].value > FLOOR  # .722 when it was exported


def test_the_rounding_file_keeps_the_exact_halo() -> None:
    # The smaller halos of the bundle were measured on its float32 network.
    model = load_litert(LITERT)
    assert BundleInfo.read(BUNDLE).halo_within(1e-3) == 384
    assert model.info.halo_within(1e-3) == model.info.halo == 682
