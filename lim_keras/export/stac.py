"""`stac-item.json`: a bundle as a STAC 1.1 item with the Machine Learning Model extension (MLM) 1.5.

https://github.com/stac-extensions/mlm. The item has no geometry: a model is not tied to a place that is known here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any

from lim_keras.export.bundle_info import INFO_FILE, BandStatistics, BundleInfo

STAC_FILE = "stac-item.json"
STAC_VERSION = "1.1.0"
MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"

_TASK = "semantic-segmentation"
_SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_CLASSES = [
    {"value": 0, "name": "background", "description": "No landslide", "color_hint": "404040"},
    {"value": 1, "name": "landslide", "description": "Landslide", "color_hint": "D03020"},
]


def write_stac_item(folder: Path, info: BundleInfo) -> Path:
    """Write the item of the bundle `folder`, beside its model.json."""
    path = folder / STAC_FILE
    path.write_text(json.dumps(describe_model(info), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def describe_model(info: BundleInfo) -> dict[str, Any]:
    """The item; what model.json does not know is left out. Paths are relative to the bundle."""
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM_SCHEMA],
        "id": info.name,
        "geometry": None,
        "properties": _properties(info),
        "links": _links(info),
        "assets": _assets(info),
    }


def _links(info: BundleInfo) -> list[dict[str, Any]]:
    if not info.data_link:
        return []
    return [{"rel": "derived_from", "href": info.data_link, "type": "text/html", "title": "Training data"}]


def _properties(info: BundleInfo) -> dict[str, Any]:
    created = info.created.isoformat()
    properties: dict[str, Any] = {
        "title": f"{info.name}: landslides in {info.bands}-band images",
        "description": (
            f"{info.folds} model(s) fitted to {len(info.training_tiles)} tiles; {len(info.test_tiles)} tiles were kept "
            f"for testing. {info.data_terms or 'The terms of the training data are not recorded.'}"
        ),
        "datetime": created,
        "created": created,
        "bands": [_band(name, info.dtype, of) for name, of in zip(_band_names(info), info.statistics, strict=True)],
        "mlm:name": f"lim-keras {info.name}".rstrip("._-"),
        "mlm:architecture": architecture(info),
        "mlm:tasks": [_TASK],
        "mlm:framework": "TensorFlow",
        "mlm:input": [_input(info)],
        "mlm:output": _outputs(info),
        "mlm:hyperparameters": _hyperparameters(info),
    }
    if info.gsd_m is not None:
        properties["gsd"] = info.gsd_m
    version = info.versions.get("tensorflow", "")
    if _SEMANTIC_VERSION.fullmatch(version):
        properties["mlm:framework_version"] = version
    return properties | _pretrained(info.model.get("encoder_weights"))


def architecture(info: BundleInfo) -> str:
    """Decoder and encoder, such as `fcn_fl with a vgg16 encoder`."""
    decoder, encoder = info.model.get("name", "unknown network"), info.model.get("encoder")
    return f"{decoder} with a {encoder} encoder" if encoder else str(decoder)


def _pretrained(weights: Any) -> dict[str, Any]:
    if weights is None:
        return {}
    if weights == "none":
        return {"mlm:pretrained": False, "mlm:pretrained_source": None}
    source = "ImageNet" if weights == "imagenet" else PurePath(str(weights)).name
    return {"mlm:pretrained": True, "mlm:pretrained_source": source}


def _band(name: str, dtype: str, of: BandStatistics) -> dict[str, Any]:
    statistics = {"minimum": of.min, "maximum": of.max, "mean": of.mean, "stddev": of.std}
    return {"name": name, "data_type": dtype, "statistics": statistics}


def _band_names(info: BundleInfo) -> list[str]:
    return [f"band_{number + 1}" for number in range(info.bands)]


def _input(info: BundleInfo) -> dict[str, Any]:
    return {
        "name": "image",
        "description": (
            f"Raw digital numbers of {info.dtype} images, cast to float32. Normalisation is part of the graph: nothing "
            f"is to be scaled before. Any height and width; trained on {info.sampling.get('size', 'unknown')} px."
        ),
        "bands": _band_names(info),
        "input": {
            "shape": [-1, -1, -1, info.bands],
            "dim_order": ["batch", "height", "width", "bands"],
            "data_type": "float32",
        },
        "value_scaling": None,
        "resize_type": None,
    }


def _outputs(info: BundleInfo) -> list[dict[str, Any]]:
    threshold = f"Landslide where it is >= {info.threshold:.4g}."
    outputs = [_output("probability", f"Probability of landslide, 0..1. {threshold}", "float32")]
    outputs[0]["classification:classes"] = _CLASSES
    if info.folds > 1:
        outputs.append(_output("spread", "Standard deviation of the folds' probabilities.", "float32"))
        outputs.append(_output("votes", f"How many of {info.folds} folds reach the threshold.", "int32"))
    return outputs


def _output(name: str, description: str, dtype: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "tasks": [_TASK],
        "result": {
            "shape": [-1, -1, -1, 1],
            "dim_order": ["batch", "height", "width", "channel"],
            "data_type": dtype,
        },
    }


def _hyperparameters(info: BundleInfo) -> dict[str, Any]:
    # Where the encoder's weights lay tells of somebody's machine; `mlm:pretrained_source` says which they were.
    model = {key: value for key, value in info.model.items() if key != "encoder_weights"}
    return {
        "model": model,
        "sampling": info.sampling,
        "threshold": info.threshold,
        "temperature": info.temperature,
        "bias": info.bias,
        "config_hash": info.config_hash,
    }


def _assets(info: BundleInfo) -> dict[str, Any]:
    # STAC 1.1 allows `bands` among the properties only where an asset has them, and MLM wants them on a model.
    bands = {"bands": [{"name": name} for name in _band_names(info)]}
    assets = {name.replace("/", "_"): _saved_model(name) | bands for name in saved_models(info)}
    for name in sorted(info.files):
        if name.endswith(".tflite"):
            assets[name.replace("/", "_")] = _model(name, "application/vnd.tflite", "tflite", name) | bands
    assets["model_json"] = _asset(INFO_FILE, "What the bundle says of itself", "application/json", "metadata")
    assets["model_card"] = _asset("README.md", "Model card", "text/markdown", "metadata")
    if "verify.npz" in info.files:
        assets["verify"] = _asset("verify.npz", "An input and its output", "application/octet-stream", "data")
    return assets


def saved_models(info: BundleInfo) -> list[str]:
    """Folders of the SavedModels, the one to take first."""
    marker = "/saved_model.pb"
    return sorted(name.removesuffix(marker) for name in info.files if name.endswith(marker))


def _saved_model(name: str) -> dict[str, Any]:
    title = f"SavedModel of {name.split('/')[0]}"
    return _model(f"{name}/saved_model.pb", "application/x-protobuf", "tf.saved_model.save", title)


def _model(path: str, kind: str, artifact: str, title: str) -> dict[str, Any]:
    return _asset(path, title, kind, "mlm:model") | {"mlm:artifact_type": artifact}


def _asset(path: str, title: str, kind: str, role: str) -> dict[str, Any]:
    return {"href": f"./{path}", "title": title, "type": kind, "roles": [role]}
