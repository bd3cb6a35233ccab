"""Model card and STAC item of a bundle."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

import pystac

from lim_keras.bundle.familiarity import FAMILIARITY_FILE
from lim_keras.bundle.info import INFO_FILE, STAC_FILE, BandStatistics, BundleInfo, FileRecord
from lim_keras.bundle.protocol import ENCODED, IMAGE_BYTES, takes_encoded_images
from lim_keras.files import write_text
from lim_keras.report.bundle_tables import litert_markdown, rule_markdown
from lim_keras.report.tables import format_gsd, format_interval

CARD_FILE = "README.md"

DOCUMENTS = (CARD_FILE, STAC_FILE)
"""Files of a bundle that every export into it writes again."""

_MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
_TASK = "semantic-segmentation"
_TFLITE = "application/vnd.tflite"

_SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")

_CLASSES = [
    {"value": 0, "name": "background", "description": "No landslide", "color_hint": "404040"},
    {"value": 1, "name": "landslide", "description": "Landslide", "color_hint": "D03020"},
]

_NO_TERMS = "Not recorded. Before you publish or sell results, ask the authors of this model for these terms."


def write_documents(folder: Path, info: BundleInfo) -> BundleInfo:
    """Write model card and STAC item of a bundle, and return `info` with both files recorded, for `info.write`."""
    item = json.dumps(describe_model(info), indent=2, allow_nan=False) + "\n"
    written = [write_text(folder / CARD_FILE, model_card(info)), write_text(folder / STAC_FILE, item)]
    return info.model_copy(update={"files": info.files | {path.name: FileRecord.of(path) for path in written}})


def model_card(info: BundleInfo) -> str:
    """Return the model card as Markdown."""
    saved_model = _saved_models(info)[0]
    link = f"\n\nData: <{info.data_link}>" if info.data_link else ""
    template = files("lim_keras.export") / "templates" / "model_card.md"
    return template.read_text(encoding="utf-8").format(
        info=info,
        architecture=_architecture(info),
        models="one model" if info.folds == 1 else f"an ensemble of {info.folds} folds",
        gsd=format_gsd(info.gsd_m),
        trained=len(info.training_tiles),
        tested=len(info.test_tiles),
        sampling=f"{info.sampling.get('mode', 'unknown')}, {info.sampling.get('size', 'unknown')} px",
        config=info.config_hash[:12],
        start=f" Training started from the weights of {info.started_from}." if info.started_from else "",
        statistics="\n".join(
            f"| {number} | {band.mean:.4g} | {band.std:.4g} | {band.min:.4g} | {band.max:.4g} |"
            for number, band in enumerate(info.statistics, start=1)
        ),
        scores=_scores(info),
        rule=_rule(info),
        terms=(info.data_terms or _NO_TERMS) + link,
        saved_model=saved_model,
        folder=saved_model.split("/")[0],
        extra=_other_inputs(info),
    )


def _scores(info: BundleInfo) -> str:
    if not info.metrics:
        return "Not recorded."
    rows = [
        f"| {evaluated} | {name} | {figure.value:.3f} | {format_interval(figure)} |"
        for evaluated, scores in info.metrics.items()
        for name, figure in scores.items()
        if not math.isnan(figure.value)
    ]
    return "| evaluated on | score | value | 95 % interval |\n|---|---|---|---|\n" + "\n".join(rows)


def _rule(info: BundleInfo) -> str:
    if info.object_rule is None:
        return ""
    text = (
        "A region of pixels that reach the threshold is a landslide if its highest probability reaches the peak and it "
        "is large enough.\n`lim-keras predict --working-point` chooses a row, `--all` none; the default is balanced."
    )
    return f"\n## Working points\n\n{text}\n\n{rule_markdown(info.object_rule)}\n"


def _other_inputs(info: BundleInfo) -> str:
    text = ""
    if takes_encoded_images(info.bands, info.dtype):
        text += f"\n\nThe signature `{ENCODED}` takes PNG and JPEG files: `{IMAGE_BYTES}`, a list of their contents."
    lite = [f"`{file}`" for file in _litert_files(info)]
    if lite:
        text += f"\n\nLiteRT (TFLite) files: {', '.join(lite)}."
    if info.litert:
        text += " Each was compared with its SavedModel on the same windows and timed on the machine that exported it:"
        text += f"\n\n{litert_markdown(info.litert)}"
    return text


def describe_model(info: BundleInfo) -> dict[str, Any]:
    """Describe a bundle as a STAC 1.1 item with the MLM extension 1.5, from the values in model.json."""
    item = pystac.Item(
        info.name,
        geometry=None,
        bbox=None,
        datetime=info.created,
        properties=_properties(info),
        stac_extensions=[_MLM_SCHEMA],
        assets=_assets(info),
    )
    item.common_metadata.created = info.created
    if info.data_link:
        item.add_link(pystac.Link("derived_from", info.data_link, pystac.MediaType.HTML, "Training data"))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _properties(info: BundleInfo) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "title": f"{info.name}: landslides in images of {info.bands} bands",
        "description": (
            f"{info.folds} model(s), trained on {len(info.training_tiles)} tiles; {len(info.test_tiles)} test tiles "
            f"were kept out. {info.data_terms or 'The terms of the training data are not recorded.'}"
        ),
        "bands": [_band(name, info.dtype, of) for name, of in zip(_band_names(info), info.statistics, strict=True)],
        "mlm:name": f"lim-keras {info.name}".rstrip("._-"),
        "mlm:architecture": _architecture(info),
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


def _architecture(info: BundleInfo) -> str:
    """Name decoder and encoder, such as `fcn_fl with a vgg16 encoder`."""
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
            f"Raw digital numbers of {info.dtype} images, cast to float32. Do not scale them: normalisation is part of "
            f"the graph. Any height and width; trained on {info.sampling.get('size', 'unknown')} px."
        ),
        "bands": _band_names(info),
        "input": _array("bands", info.bands, "float32"),
        "value_scaling": None,
        "resize_type": None,
    }


def _outputs(info: BundleInfo) -> list[dict[str, Any]]:
    threshold = f"Landslide where it is >= {info.threshold:.4g}."
    outputs = [_output("probability", f"Probability of landslide, 0 to 1. {threshold}", "float32")]
    outputs[0]["classification:classes"] = _CLASSES
    if info.folds > 1:
        outputs.append(_output("spread", "Standard deviation of the folds' probabilities.", "float32"))
        outputs.append(_output("votes", f"How many of {info.folds} folds reach the threshold.", "int32"))
    return outputs


def _output(name: str, description: str, dtype: str) -> dict[str, Any]:
    return {"name": name, "description": description, "tasks": [_TASK], "result": _array("channel", 1, dtype)}


def _array(last: str, length: int, dtype: str) -> dict[str, Any]:
    shape, order = [-1, -1, -1, length], ["batch", "height", "width", last]
    return {"shape": shape, "dim_order": order, "data_type": dtype}


def _hyperparameters(info: BundleInfo) -> dict[str, Any]:
    # The path of the encoder's weights is private; `mlm:pretrained_source` names the file.
    model = {key: value for key, value in info.model.items() if key != "encoder_weights"}
    calibration = {"threshold": info.threshold, "temperature": info.temperature, "bias": info.bias}
    return {"model": model, "sampling": info.sampling, **calibration, "config_hash": info.config_hash}


def _assets(info: BundleInfo) -> dict[str, pystac.Asset]:
    assets = {}
    for name in _saved_models(info):
        title = f"SavedModel of {name.split('/')[0]}"
        asset = _model(f"{name}/saved_model.pb", "application/x-protobuf", "tf.saved_model.save", title)
        assets[name.replace("/", "_")] = asset
    for name in _litert_files(info):
        assets[name.replace("/", "_")] = _model(name, _TFLITE, "tflite", name)
    # STAC 1.1 allows `bands` among the properties only where an asset has them, and MLM wants them on a model.
    for asset in assets.values():
        asset.extra_fields["bands"] = [{"name": name} for name in _band_names(info)]
    assets["model_json"] = _asset(INFO_FILE, "Description of the bundle", pystac.MediaType.JSON, "metadata")
    assets["model_card"] = _asset(CARD_FILE, "Model card", "text/markdown", "metadata")
    if "verify.npz" in info.files:
        assets["verify"] = _asset("verify.npz", "An input and its output", "application/octet-stream", "data")
    if FAMILIARITY_FILE in info.files:
        assets["familiarity"] = _asset(FAMILIARITY_FILE, "Distance of imagery from that of training", _TFLITE, "data")
    return assets


def _litert_files(info: BundleInfo) -> list[str]:
    """List the .tflite files that predict landslides."""
    return sorted(name for name in info.files if name.endswith(".tflite") and name != FAMILIARITY_FILE)


def _saved_models(info: BundleInfo) -> list[str]:
    """List the folders of the SavedModels; the one that predicts comes first."""
    marker = "/saved_model.pb"
    return sorted(name.removesuffix(marker) for name in info.files if name.endswith(marker))


def _model(path: str, kind: str, artifact: str, title: str) -> pystac.Asset:
    asset = _asset(path, title, kind, "mlm:model")
    asset.extra_fields["mlm:artifact_type"] = artifact
    return asset


def _asset(path: str, title: str, kind: str, role: str) -> pystac.Asset:
    return pystac.Asset(f"./{path}", title, media_type=kind, roles=[role])
