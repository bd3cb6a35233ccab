"""An object rule on a scene: whole regions, judged once, leave the mask and the inventory alike."""

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import rasterio
from rasterio import Affine
from scipy import ndimage

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.object_rule import FittedRule, ObjectRule
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import ConfigError, DomainWarning, LimKerasWarning
from lim_keras.inference.scene_plan import ScenePart
from lim_keras.inventory.batch import find_scenes, predict_scenes
from lim_keras.inventory.options import PredictOptions, settings, with_rule
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.inventory.tracing import Rings, fill_rings
from lim_keras.ownership import file_hash
from lim_keras.raster.windows import Box, blocks
from lim_keras.raster.writer import RasterDrafts
from tests.conftest import fitted_rule
from tests.inference.conftest import Write, constant, describe


class Grey:
    """The probability of a pixel is its first band / 250."""

    def __init__(self, rule: FittedRule | None = None) -> None:
        info: BundleInfo = describe([constant(0.5)], 1, gsd_m=1.0)
        self.info = info.model_copy(update={"object_rule": rule})

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        probability = images[..., 0].astype(np.float32) / np.float32(250)
        return EnsemblePrediction(probability, 0 * probability, (probability >= 0.5).astype(np.int32))


def clouds(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise of all grey values, so that regions have holes, islands, and peaks of all heights."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = ndimage.gaussian_filter(noise, 9) + 0.5 * ndimage.gaussian_filter(noise, 3)
    grey = 100 + 60 * smooth / smooth.std()
    return np.repeat(grey.clip(1, 250).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def kept_by(image: np.ndarray, threshold: float, peak: float, area: float) -> tuple[np.ndarray, int, int, int]:
    """Slow oracle on pixels of 1 m: mask, and numbers of regions, of low ones, and of small ones among the others."""
    probability = image[..., 0].astype(np.float32) / np.float32(250)
    labels, count = ndimage.label(probability >= np.float32(threshold))
    mask, low, small = np.zeros(labels.shape, np.uint8), 0, 0
    for region, where in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[where] == region
        if probability[where][inside].max() < np.float32(peak):
            low += 1
        elif inside.sum() < area:
            small += 1
        else:
            mask[where][inside] = 1
    return mask, count, low, small


def metres(write: Write, name: str, image: np.ndarray) -> Path:
    """A scene of pixels of 1 m of UTM, 1.0008 m2 on the ground."""
    return write(name, image, transform=Affine(1, 0, 500_000, 0, -1, 3_000_000))


@pytest.fixture
def scene(write: Write) -> Path:
    return metres(write, "clouds.tif", clouds(1300, 1500))


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_mask_and_inventory_hold_the_same_regions(scene: Path, tmp_path: Path) -> None:
    options = PredictOptions(threshold=0.602, peak=0.802, min_area_m2=150.5)
    result = predict_scene(Grey(), scene, tmp_path / "out", options)
    mask, count, low, small = kept_by(clouds(1300, 1500), 0.602, 0.802, 150.5)
    assert low > 20 and small > 2 and count - low - small > 20  # the case says something
    assert np.array_equal(read(tmp_path / "out" / "clouds_landslides.tif"), mask)
    frame = result.inventory
    assert len(frame) == result.summary["landslides"] == count - low - small
    assert frame["area_m2"].sum() == pytest.approx(mask.sum(), rel=2e-3)
    assert frame["probability_max"].min() >= np.float32(0.802) and frame["area_m2"].min() >= 150.5
    assert result.summary["left_out"] == {
        "below_peak": low, "below_min_area": small, "below_min_slope": 0, "in_filled_holes": 0,
    }  # fmt: skip
    assert result.summary["landslide_pixels"] == mask.sum()
    rule = {"working_point": None, "threshold": 0.602, "peak": 0.802, "min_area_m2": 150.5}
    assert result.summary["object_rule"] == rule
    item = json.loads(next(path for path in result.files if path.name.endswith("_stac.json")).read_text())
    assert item["properties"]["lim_keras:object_rule"] == rule


def test_a_region_across_blocks_is_judged_as_a_whole(write: Write, tmp_path: Path) -> None:
    image = np.full((2100, 2100, 3), 10, np.uint8)
    image[1000:1040, 900:2090] = 150  # crosses two columns of blocks and a row of blocks; its peak is in the last one
    image[1030, 2080] = 240
    image[1500:1600, 500:1100] = 150  # crosses a column, and has no peak
    image[1520:1580, 600:700] = 10  # its hole, with a landslide in it
    image[1540:1560, 620:640] = 240
    options = PredictOptions(threshold=0.5, peak=0.9)
    result = predict_scene(Grey(), metres(write, "s.tif", image), tmp_path / "out", options)
    mask = read(tmp_path / "out" / "s_landslides.tif")
    assert sorted(result.inventory["area_m2"] / 1.0008) == pytest.approx([400, 40 * 1190], rel=1e-3)
    assert mask[1000:1040, 900:2090].all() and mask[1540:1560, 620:640].all() and mask.sum() == 400 + 40 * 1190


def test_nothing_holds_the_mask_open_while_it_is_replaced(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced, change_mask = [], RasterDrafts.change_mask

    def watched(drafts: RasterDrafts, change: Any) -> None:
        opened = {Path(one.path).name for one in psutil.Process().open_files()}
        replaced.append(drafts.mask.name in opened)
        change_mask(drafts, change)

    monkeypatch.setattr(RasterDrafts, "change_mask", watched)
    predict_scene(Grey(), scene, tmp_path / "out", PredictOptions(threshold=0.602, peak=0.802))
    assert replaced == [False]


def test_filled_holes_count_as_area(write: Write, tmp_path: Path) -> None:
    image = np.full((100, 100, 3), 10, np.uint8)
    image[20:40, 20:40] = 200
    image[22:38, 22:38] = 10  # a ring of 144 px around a hole of 256 px
    path = metres(write, "s.tif", image)
    ring = predict_scene(Grey(), path, tmp_path / "ring", PredictOptions(min_area_m2=200))
    filled = predict_scene(Grey(), path, tmp_path / "filled", PredictOptions(min_area_m2=200, fill_holes_m2=300))
    assert (ring.summary["landslides"], filled.summary["landslides"]) == (0, 1)
    assert read(tmp_path / "ring" / "s_landslides.tif").sum() == 0
    assert read(tmp_path / "filled" / "s_landslides.tif").sum() == 144


def test_working_points_and_what_overrides_them(scene: Path, tmp_path: Path) -> None:
    rule = fitted_rule(sensitive=(0.402, 0.502, 0), balanced=(0.602, 0.802, 150), strict=(0.702, 0.902, 200))
    model = Grey(rule)
    cases: list[tuple[dict[str, Any], str | None, tuple[float, float, float]]] = [
        ({}, "balanced", (0.602, 0.802, 150)),
        ({"working_point": "strict"}, "strict", (0.702, 0.902, 200)),
        ({"working_point": "sensitive", "min_area_m2": 90.0}, None, (0.402, 0.502, 90)),
        ({"peak": 0.702}, None, (0.602, 0.702, 150)),
        ({"threshold": 0.852, "min_area_m2": 0.0}, None, (0.852, 0.852, 0)),
    ]
    for number, (given, name, values) in enumerate(cases):
        result = predict_scene(model, scene, tmp_path / str(number), PredictOptions(**given))
        mask, *_ = kept_by(clouds(1300, 1500), *values)
        assert np.array_equal(read(tmp_path / str(number) / "clouds_landslides.tif"), mask)
        used = dict(zip(("threshold", "peak", "min_area_m2"), values, strict=True))
        assert result.summary["object_rule"] == {"working_point": name, **used}
        assert result.summary["settings"]["threshold"] == values[0]
    asked = PredictOptions(working_point="balanced")
    assert predict_scene(model, scene, tmp_path / "0", asked).was_there  # it is the default
    said: list[str] = []
    batch = predict_scenes(model, find_scenes([scene]), tmp_path / "0", execution=Execution(say=said.append))
    left_out = batch.predictions[0].summary["left_out"]
    assert said[0].endswith(
        "object rule (working point balanced, threshold 0.602, peak 0.802, at least 150 m2) left out "
        f"{left_out['below_peak'] + left_out['below_min_area']:,} regions"
    )


def test_all_regions_are_as_without_a_rule(scene: Path, tmp_path: Path) -> None:
    rule = fitted_rule(balanced=(0.602, 0.802, 150))
    plain = predict_scene(Grey(), scene, tmp_path / "plain")
    every = predict_scene(Grey(rule), scene, tmp_path / "all", PredictOptions(all_regions=True))
    assert every.summary["settings"] == plain.summary["settings"] and "object_rule" not in every.summary
    assert "peak" not in settings(PredictOptions()) and "all_regions" not in settings(PredictOptions())
    assert set(plain.summary["left_out"]) == {"below_min_area", "below_min_slope", "in_filled_holes"}
    for name in ("probability.tif", "landslides.tif", "inventory.gpkg"):
        assert file_hash(tmp_path / "all" / f"clouds_{name}") == file_hash(tmp_path / "plain" / f"clouds_{name}")


def test_parts_give_the_same_bytes(scene: Path, tmp_path: Path) -> None:
    model = Grey(fitted_rule(balanced=(0.602, 0.802, 150)))
    whole = predict_scene(model, scene, tmp_path / "whole", PredictOptions(tile=256))
    for number in (1, 2, 3):
        predict_scene(model, scene, tmp_path / "parts", PredictOptions(tile=128, part=ScenePart.parse(f"{number}/3")))
    merged = predict_scene(model, scene, tmp_path / "parts", PredictOptions(tile=128, merge=True))
    assert merged.summary["object_rule"] == whole.summary["object_rule"]
    for name in ("landslides.tif", "inventory.gpkg"):
        assert file_hash(tmp_path / "parts" / f"clouds_{name}") == file_hash(tmp_path / "whole" / f"clouds_{name}")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_of_unknown_scale_is_judged_by_peak_alone(write: Write, tmp_path: Path) -> None:
    image = clouds(200, 200)
    path = tmp_path / "plain.png"
    cv2.imwrite(str(path), image)
    model = Grey(fitted_rule(balanced=(0.602, 0.802, 150)))
    with (
        pytest.warns(DomainWarning),
        pytest.warns(LimKerasWarning, match=r"is used without its smallest area. Give `gsd_m`"),
    ):
        result = predict_scene(model, path, tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out" / "plain_landslides.tif"), kept_by(image, 0.602, 0.802, 0)[0])
    assert result.summary["object_rule"]["min_area_m2"] == 0
    batch = predict_scenes(model, find_scenes([path]), tmp_path / "out")
    assert batch.predictions[0].was_there and not batch.failures


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning", "ignore::lim_keras.errors.DomainWarning")
@pytest.mark.parametrize(
    ("given", "warned"),
    [({}, False), ({"working_point": "strict"}, True), ({"working_point": "strict", "min_area_m2": 0.0}, False)],
)
def test_only_an_area_that_would_be_used_is_missed(given: dict[str, Any], warned: bool, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    cv2.imwrite(str(path), clouds(100, 100))
    model = Grey(fitted_rule(balanced=(0.602, 0.802, 0), strict=(0.702, 0.902, 200)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LimKerasWarning)
        predict_scene(model, path, tmp_path / "out", PredictOptions(**given))
    assert any("is used without its smallest area" in str(one.message) for one in caught) == warned


def test_a_working_point_without_a_peak_keeps_its_name() -> None:
    info = Grey(fitted_rule(balanced=(0.6, 0.0, 150), strict=(0.7, 0.9, 150))).info
    assert with_rule(PredictOptions(), info).working_point == "balanced"
    again = with_rule(with_rule(PredictOptions(), info), info)
    assert (again.working_point, again.threshold, again.peak, again.min_area_m2) == ("balanced", 0.6, 0.6, 150)
    assert with_rule(PredictOptions(peak=0.7), info).working_point is None
    assert with_rule(PredictOptions(working_point="strict", threshold=0.95), info).working_point is None


def test_bad_options(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no object rule. Fit one with `lim-keras export --object-rule`"):
        predict_scenes(Grey(), find_scenes([scene]), tmp_path / "out", PredictOptions(working_point="strict"))
    with pytest.raises(
        ConfigError, match=r"`peak`. Expected 0 \(no limit\) or at least the threshold, 0.6, .* Received: 0.2"
    ):
        with_rule(PredictOptions(peak=0.2), Grey(fitted_rule(balanced=(0.6, 0.8, 0))).info)
    with pytest.raises(ConfigError, match=r"`peak`. Expected 0 .* or at least the threshold, 0.5"):
        with_rule(PredictOptions(peak=0.2), Grey().info)
    without = with_rule(PredictOptions(peak=0), Grey(fitted_rule(balanced=(0.6, 0.8, 0))).info)
    assert (without.threshold, without.peak, without.working_point) == (0.6, 0, None)
    with pytest.raises(ConfigError, match=r"`peak`. Expected 0..1. Received: 1.5"):
        PredictOptions(peak=1.5)
    with pytest.raises(ConfigError, match=r"`working_point`. Expected sensitive, balanced, strict. Received: 'best'"):
        PredictOptions(working_point="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`all_regions` and `working_point` exclude each other"):
        PredictOptions(all_regions=True, working_point="strict")
    assert not (tmp_path / "out").exists()


def test_a_rule_survives_model_json(tmp_path: Path) -> None:
    info = Grey(fitted_rule(balanced=(0.6, 0.8, 150))).info
    info.write(tmp_path)
    again = BundleInfo.read(tmp_path)
    assert again.object_rule is not None
    assert again.object_rule.working_points["balanced"].rule == ObjectRule(threshold=0.6, peak=0.8, min_area_m2=150)
    assert np.isnan(again.object_rule.without.scores["f1_any_overlap"].high) and again.sha256 == again.digest()
    values = json.loads((tmp_path / "model.json").read_text())
    assert values["object_rule"]["curve"][0]["recall"] == 0.9
    Grey().info.write(tmp_path)
    assert "object_rule" not in json.loads((tmp_path / "model.json").read_text())


def test_rings_are_filled_block_by_block() -> None:
    # A square of 6 with a hole of 2, and a pixel that touches its corner.
    square = [(1, 1), (1, 7), (7, 7), (7, 1), (1, 1)]
    hole = [(3, 3), (5, 3), (5, 5), (3, 5), (3, 3)]
    pixel = [(7, 7), (7, 8), (8, 8), (8, 7), (7, 7)]
    rings = Rings(np.array(square + hole + pixel, np.int32), np.array([5, 5, 5], np.int32), np.array([2, 1], np.int32))
    expected = np.zeros((10, 9), np.bool_)
    expected[1:7, 1:7] = True
    expected[3:5, 3:5] = False
    expected[7, 7] = True
    for size in (1, 3, 4, 20):
        for box in blocks(10, 9, size):
            assert np.array_equal(fill_rings(rings, box), expected[box.slices])
    assert not fill_rings(Rings.none(), Box(0, 0, 2, 3)).any()
