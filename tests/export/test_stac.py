"""stac-item.json: valid, true, and without what is not known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.export.documents import describe_model
from tests.export.conftest import FOLDS
from tests.export.stac_judges import JUDGES, problems


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
    assert [band["statistics"]["mean"] for band in properties["bands"]] == [120.0] * 3
    assert [output.get("classification:classes", []) for output in properties["mlm:output"][1:]] == [[], []]
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


def test_training_data_are_linked(info: BundleInfo) -> None:
    item = describe_model(info.model_copy(update={"data_link": "https://example.org/tiles"}))
    assert problems(item) == []
    (link,) = item["links"]
    assert (link["rel"], link["href"]) == ("derived_from", "https://example.org/tiles")
    assert describe_model(info)["links"] == []


@pytest.mark.parametrize("name", ["1", "a-", "x." * 30, "Bijie_2"])
def test_any_name(info: BundleInfo, name: str) -> None:
    assert problems(describe_model(info.model_copy(update={"name": name}))) == []


def test_lite_models_are_assets(info: BundleInfo) -> None:
    record = info.files["README.md"]
    item = describe_model(info.model_copy(update={"files": info.files | {"tflite/int8.tflite": record}}))
    assert problems(item) == []
    assert item["assets"]["tflite_int8.tflite"]["mlm:artifact_type"] == "tflite"


def test_bands_of_every_model(info: BundleInfo) -> None:
    item = describe_model(info)
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    # STAC 1.1: the item itself may describe bands only where an asset of it has some.
    assert [[band["name"] for band in asset["bands"]] for asset in models] == [["band_1", "band_2", "band_3"]] * len(
        models
    )
    assert all("bands" not in asset for asset in item["assets"].values() if asset not in models)


def _first(item: dict[str, Any], kind: str) -> dict[str, Any]:
    return item["properties"][f"mlm:{kind}"][0]


@pytest.mark.parametrize(
    ("judges", "change"),
    [
        ("core schema", lambda item: item.pop("assets")),
        ("core", lambda item: item.update(bbox=[0, 0, 1, 1])),
        ("core", lambda item: item.pop("links")),
        ("core", lambda item: item.update(stac_version="1.0.0")),
        ("core", lambda item: item.update(id="")),
        ("core", lambda item: item["properties"].update(datetime=None)),
        ("core", lambda item: item["properties"].update(created="2026-01-01T00:00:00+08:00")),
        ("core", lambda item: item["properties"].update(gsd=0)),
        ("core", lambda item: item["assets"]["model_card"].pop("href")),
        ("core schema bands", lambda item: [asset.pop("bands", None) for asset in item["assets"].values()]),
        ("bands", lambda item: item["properties"].pop("bands")),
        ("bands", lambda item: item["assets"]["ensemble_1"]["bands"].pop()),
        ("schema", lambda item: item.update(stac_extensions=[])),
        ("schema", lambda item: item["properties"].update({"mlm:artifact_type": "x"})),
        ("schema", lambda item: item["properties"].update({"mlm:colour": "x"})),
        ("schema", lambda item: item["properties"].update({"mlm:name": "1st"})),
        ("schema", lambda item: item["properties"].update({"mlm:pretrained": False, "mlm:pretrained_source": "x"})),
        ("schema", lambda item: item["assets"]["ensemble_1"].pop("mlm:artifact_type")),
        ("schema", lambda item: item["assets"]["ensemble_1"].update({"mlm:name": "x"})),
        ("schema", lambda item: [asset.update(roles=["data"]) for asset in item["assets"].values()]),
        ("schema", lambda item: _first(item, "input")["input"].update(dim_order=["batch", "height", "width", "c"])),
        ("authors schema", lambda item: _first(item, "output")["classification:classes"][0].update(color_hint="red")),
        ("authors schema", lambda item: item["properties"].pop("mlm:architecture")),
        ("authors schema", lambda item: item["properties"].update({"mlm:tasks": ["landslides"]})),
        ("schema", lambda item: item["properties"].update({"mlm:hyperparameters": {"a b": 1}})),
        ("authors schema", lambda item: _first(item, "output")["result"].pop("data_type")),
        ("authors schema", lambda item: _first(item, "input")["input"].update(data_type="float")),
        ("authors schema", lambda item: _first(item, "input").update(value_scaling=[{"type": "divide by 255"}])),
        ("authors", lambda item: _first(item, "input")["input"]["shape"].pop()),
    ],
)
def test_broken_items(info: BundleInfo, judges: str, change: Callable[[dict[str, Any]], object]) -> None:
    item = json.loads(json.dumps(describe_model(info)))
    change(item)
    assert {name for name, judge in JUDGES.items() if judge(item)} == set(judges.split())


def test_no_number_that_json_does_not_know(info: BundleInfo) -> None:
    item = describe_model(info)
    with pytest.raises(ValueError, match="not JSON compliant"):
        problems(item | {"properties": item["properties"] | {"score": float("nan")}})
