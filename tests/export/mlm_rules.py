"""What the MLM extension 1.5 and STAC 1.1 demand of a model's item, as far as such an item can break it.

Written by hand after the extension's JSON schema (https://github.com/stac-extensions/mlm, v1.5.0), which is not kept
here, so that no network is needed: it finds what these rules name, not everything that the schema would.
"""

import json
import re
from datetime import datetime
from typing import Any

MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
ITEM = {"type", "stac_version", "stac_extensions", "id", "geometry", "properties", "links", "assets"}
TASKS = {
    "regression",
    "classification",
    "scene-classification",
    "detection",
    "object-detection",
    "segmentation",
    "semantic-segmentation",
    "instance-segmentation",
    "panoptic-segmentation",
    "similarity-search",
    "generative",
    "image-captioning",
    "super-resolution",
    "downscaling",
}
DTYPES = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
REQUIRED = {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}
ALLOWED = REQUIRED | {
    "mlm:framework",
    "mlm:framework_version",
    "mlm:memory_size",
    "mlm:total_parameters",
    "mlm:pretrained",
    "mlm:pretrained_source",
    "mlm:batch_size_suggestion",
    "mlm:accelerator",
    "mlm:accelerator_constrained",
    "mlm:accelerator_summary",
    "mlm:accelerator_count",
    "mlm:hyperparameters",
}
ON_ASSETS = {"mlm:artifact_type", "mlm:compile_method", "mlm:entrypoint"}


def problems(item: dict[str, Any]) -> list[str]:
    """What is wrong with a model's item."""
    try:
        json.dumps(item, allow_nan=False)
    except ValueError as error:
        return [str(error)]
    found = stac_problems(item)
    found += [] if MLM in item.get("stac_extensions", ()) else ["MLM 1.5.0 is not among the extensions"]
    properties = item.get("properties", {})
    keys = {key for key in properties if key.startswith("mlm:")}
    found += [f"missing {key}" for key in sorted(REQUIRED - keys)] + [
        f"unknown {key}" for key in sorted(keys - ALLOWED)
    ]
    if found:
        return found
    return [*_text(properties), *_tensors(properties), *_assets(item["assets"])]


def stac_problems(item: dict[str, Any]) -> list[str]:
    """What STAC 1.1 itself demands of an item."""
    found = [f"missing {key}" for key in sorted(ITEM - set(item))]
    if found:
        return found
    if (item["type"], item["stac_version"]) != ("Feature", "1.1.0") or not item["id"] or "/" in item["id"]:
        found.append("type, stac_version or id")
    if (item["geometry"] is None) == ("bbox" in item):
        found.append("bbox is for items with a geometry, and all of them")
    times = [item["properties"].get(key) for key in ("datetime", "start_datetime", "end_datetime")]
    for text in times[:1] if times[0] else times[1:]:
        if not text or datetime.fromisoformat(text).tzinfo is None:
            found.append(f"time {text}")
    for key, asset in item["assets"].items():
        if not asset.get("href") or not isinstance(asset.get("roles", []), list):
            found.append(f"asset {key}")
    for link in item["links"]:
        if not link.get("rel") or not link.get("href"):
            found.append(f"link {link}")
    return found


def _text(properties: dict[str, Any]) -> list[str]:
    found = []
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"]):
        found.append("mlm:name")
    if not isinstance(properties["mlm:architecture"], str):
        found.append("mlm:architecture")
    if not re.fullmatch(r"\d+\.\d+\.\d+([-+].+)?", properties.get("mlm:framework_version", "1.0.0")):
        found.append("mlm:framework_version")
    if not set(properties["mlm:tasks"]) <= TASKS or len(set(properties["mlm:tasks"])) != len(properties["mlm:tasks"]):
        found.append("mlm:tasks")
    if properties.get("mlm:pretrained") is False and properties.get("mlm:pretrained_source", "") is not None:
        found.append("mlm:pretrained_source")
    parameters = properties.get("mlm:hyperparameters", {"some": 1})
    if not parameters or not all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in parameters):
        found.append("mlm:hyperparameters")
    return found


def _tensors(properties: dict[str, Any]) -> list[str]:
    found = []
    described = {band["name"] for band in properties.get("bands", ())}
    for kind, part in (("mlm:input", "input"), ("mlm:output", "result")):
        for tensor in properties[kind]:
            place, bands = f"{kind} {tensor.get('name')}", tensor.get("bands", [])
            if not tensor.get("name") or not set(bands) <= described:
                found.append(f"{place}: name or bands that `bands` does not describe")
            found += [f"{place}: {one}" for one in _structure(tensor.get(part, {}), bool(bands))]
            if kind == "mlm:output":
                found += [f"{place}: {one}" for one in _output(tensor)]
    return found


def _structure(structure: dict[str, Any], has_bands: bool) -> list[str]:
    if set(structure) != {"shape", "dim_order", "data_type"}:
        return [f"expected shape, dim_order, data_type; received {sorted(structure)}"]
    shape, order = structure["shape"], structure["dim_order"]
    found = []
    if len(shape) != len(order) or not all(type(size) is int and size >= -1 for size in shape):
        found.append(f"shape {shape}")
    if len(set(order)) != len(order) or not all(re.fullmatch("[a-z-_]+", name) for name in order):
        found.append(f"dim_order {order}")
    if has_bands != ("bands" in order):
        found.append("`bands` is a dimension where bands are named, and only there")
    return found + ([] if structure["data_type"] in DTYPES else [f"data_type {structure['data_type']}"])


def _output(tensor: dict[str, Any]) -> list[str]:
    found = [] if set(tensor.get("tasks", ["?"])) <= TASKS else ["tasks"]
    for one in tensor.get("classification:classes", ()):
        if type(one.get("value")) is not int or not one.get("description"):
            found.append(f"class {one}")
        if not re.fullmatch("[0-9A-Za-z-_]+", one["name"]) or not re.fullmatch("[0-9A-F]{6}", one["color_hint"]):
            found.append(f"class {one}")
    return found


def _assets(assets: dict[str, Any]) -> list[str]:
    found = []
    models = [key for key, asset in assets.items() if "mlm:model" in asset.get("roles", ())]
    for key, asset in assets.items():
        mlm = {name for name in asset if name.startswith("mlm:")}
        if not mlm <= ALLOWED - REQUIRED - {"mlm:hyperparameters"} | ON_ASSETS:
            found.append(f"asset {key}: {sorted(mlm)}")
        if (key in models) != bool(asset.get("mlm:artifact_type")):
            found.append(f"asset {key}: models have an artifact type, and only they")
    return found if models else [*found, "no asset is a model"]
