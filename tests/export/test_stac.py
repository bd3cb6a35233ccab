"""stac-item.json: valid, true, and without what is not known."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lim_keras.export.bundle_info import BundleInfo
from lim_keras.export.stac import describe_model
from tests.export.conftest import FOLDS
from tests.export.mlm_rules import problems


@pytest.fixture(scope="module")
def info(bundle_path: Path) -> BundleInfo:
    return BundleInfo.read(bundle_path)


def test_written_item_is_valid(bundle_path: Path) -> None:
    item = json.loads((bundle_path / "stac-item.json").read_text())
    assert problems(item) == []
    for asset in item["assets"].values():
        assert (bundle_path / asset["href"]).is_file()


def test_what_it_says(info: BundleInfo) -> None:
    item = describe_model(info)
    properties = item["properties"]
    assert properties["mlm:architecture"] == "fcn_fl with a small encoder"
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert properties["mlm:framework"] == "TensorFlow"
    assert properties["gsd"] == 0.8
    assert properties["mlm:input"][0]["input"]["shape"] == [-1, -1, -1, 3]
    assert properties["mlm:input"][0]["value_scaling"] is None
    assert [output["name"] for output in properties["mlm:output"]] == ["probability", "spread", "votes"]
    assert [one["name"] for one in properties["mlm:output"][0]["classification:classes"]] == ["background", "landslide"]
    assert [band["statistics"]["mean"] for band in properties["bands"]] == [100.0] * 3
    assert sum("mlm:model" in asset["roles"] for asset in item["assets"].values()) == FOLDS + 1
    assert item["assets"]["ensemble_1"]["href"] == "./ensemble/1/saved_model.pb"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("imagenet", (True, "ImageNet")), ("none", (False, None)), ("/home/me/vgg.h5", (True, "vgg.h5")), (None, None)],
)
def test_pretrained(info: BundleInfo, weights: str | None, expected: tuple[bool, str | None] | None) -> None:
    item = describe_model(info.model_copy(update={"model": {"name": "fcn", "encoder_weights": weights}}))
    properties = item["properties"]
    received = (properties["mlm:pretrained"], properties["mlm:pretrained_source"]) if expected else None
    assert received == expected
    assert problems(item) == []
    assert "/home" not in json.dumps(item)


def test_what_is_not_known_is_left_out(info: BundleInfo) -> None:
    item = describe_model(info.model_copy(update={"gsd_m": None, "versions": {}, "model": {}, "sampling": {}}))
    assert problems(item) == []
    assert not {"gsd", "mlm:framework_version", "mlm:pretrained"} & set(item["properties"])


@pytest.mark.parametrize("name", ["1", "a-", "x." * 30, "Bijie_2"])
def test_any_name(info: BundleInfo, name: str) -> None:
    assert problems(describe_model(info.model_copy(update={"name": name}))) == []


def test_lite_models_are_assets(info: BundleInfo) -> None:
    record = info.files["README.md"]
    item = describe_model(info.model_copy(update={"files": info.files | {"tflite/int8.tflite": record}}))
    assert problems(item) == []
    assert item["assets"]["tflite_int8.tflite"]["mlm:artifact_type"] == "tflite"


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.pop("assets"),
        lambda item: item.update(bbox=[0, 0, 1, 1]),
        lambda item: item.update(stac_extensions=[]),
        lambda item: item["properties"].update(datetime=None),
        lambda item: item["properties"].pop("bands"),
        lambda item: item["properties"].update({"mlm:artifact_type": "x"}),
        lambda item: item["properties"].update({"mlm:tasks": ["landslides"]}),
        lambda item: item["properties"]["mlm:input"][0]["input"].update(dim_order=["batch", "height", "width", "c"]),
        lambda item: item["properties"]["mlm:output"][0]["result"].pop("data_type"),
        lambda item: item["assets"]["model_card"].update({"mlm:artifact_type": "x"}),
        lambda item: item["assets"]["ensemble_1"].pop("mlm:artifact_type"),
        lambda item: item["properties"].update(score=float("nan")),
    ],
)
def test_rules_find_what_is_wrong(info: BundleInfo, change: Callable[[dict[str, Any]], object]) -> None:
    item = copy.deepcopy(describe_model(info))
    change(item)
    assert problems(item)
