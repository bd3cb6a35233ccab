"""Model card and STAC item of a bundle."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePath
from typing import Any

from lim_keras.bundle.info import INFO_FILE, STAC_FILE, STAC_VERSION, BandStatistics, BundleInfo, FileRecord
from lim_keras.bundle.protocol import ENCODED, PICTURES, takes_pictures
from lim_keras.report.bundle_tables import format_gsd, format_interval, litert_markdown

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


CARD_FILE = "README.md"

_FAILURES = """\
- Bare soil, ploughed fields and dry river beds look like fresh landslides from above and can be mapped as such.
- Roads, quarries, mines and building sites are cut slopes of bare ground: the most frequent false alarms.
- Landslides that have grown over, and old ones whose scar is healed, are missed.
- Shadows, clouds and snow hide the ground; nothing is to be concluded there.
- Other sensors, seasons, climates and ground sample distances than those of the training tiles: figures do not carry
  over. Judge some ground of your own first (`lim-keras evaluate`).
- A map of this model is a first draft for an expert, not a warning and not proof that a slope is safe."""

_NO_TERMS = (
    "Not recorded. Whoever trained this model says what its training data allow: ask before you publish or sell."
)


def write_documents(folder: Path, info: BundleInfo) -> BundleInfo:
    """Write model card and STAC item into a bundle, anew where they are there; returns `info` with both recorded.

    To call whenever files of the bundle or figures in `info` have changed, before `info.write`.
    """
    card = folder / CARD_FILE
    card.write_text(model_card(info), encoding="utf-8")
    written = [card, write_stac_item(folder, info)]
    return info.model_copy(update={"files": info.files | {path.name: FileRecord.of(path) for path in written}})


def model_card(info: BundleInfo) -> str:
    """The card as Markdown."""
    parts = [
        f"# {info.name}",
        f"Landslides in {info.bands}-band images: {architecture(info)}, {_folds(info)}.",
        "## What it takes and gives\n\n" + _contract(info),
        "## What it was trained on\n\n" + _training(info),
        "## What it scored\n\n" + _figures(info),
        "## Known failure cases\n\n" + _FAILURES,
        "## Terms of the training data\n\n" + (info.data_terms or _NO_TERMS) + _data_link(info),
        "## How to call it\n\n" + _calls(info),
    ]
    return "\n\n".join(parts) + "\n"


def _folds(info: BundleInfo) -> str:
    return "one model" if info.folds == 1 else f"an ensemble of {info.folds} folds"


def _contract(info: BundleInfo) -> str:
    return (
        f"- Input: raw digital numbers of {info.dtype} images, {info.bands} bands, any height and width. Nothing is to "
        "be scaled before; that is part of the graph.\n"
        f"- Ground sample distance: {format_gsd(info.gsd_m)}.\n"
        f"- Output: probability of landslide of each pixel; landslide from {info.threshold:.4f} on.\n"
        f"- Calibration: inside the graph (temperature {info.temperature:.4f}, bias {info.bias:.4f}).\n"
        f"- A pixel's answer depends on its surroundings up to {info.halo} px."
    )


def _training(info: BundleInfo) -> str:
    size = info.sampling.get("size", "unknown")
    start = f" Training started at the weights of {info.started_from}." if info.started_from else ""
    return (
        f"{len(info.training_tiles)} tiles (ids in model.json); {len(info.test_tiles)} tiles were kept from all models "
        f"for testing. Sampling: {info.sampling.get('mode', 'unknown')}, {size} px. Configuration "
        f"{info.config_hash[:12]}, exported {info.created:%Y-%m-%d} by lim_keras {info.lim_keras_version}.{start}\n\n"
        "| band | mean | standard deviation | smallest | largest |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {number} | {band.mean:.4g} | {band.std:.4g} | {band.min:.4g} | {band.max:.4g} |"
            for number, band in enumerate(info.statistics, start=1)
        )
    )


def _data_link(info: BundleInfo) -> str:
    return f"\n\nThe data: <{info.data_link}>" if info.data_link else ""


def _figures(info: BundleInfo) -> str:
    if not info.metrics:
        return "Nothing is recorded."
    rows = [
        f"| {judged} | {name} | {figure.value:.3f} | {format_interval(figure)} |"
        for judged, scores in info.metrics.items()
        for name, figure in scores.items()
        if not math.isnan(figure.value)
    ]
    return "| judged on | score | value | 95 % interval |\n|---|---|---|---|\n" + "\n".join(rows)


def _calls(info: BundleInfo) -> str:
    served = saved_models(info)[0]
    name = served.split("/")[0]
    calls = f"""\
On the command line, with this folder as `{info.name}`:

    lim-keras verify {info.name}
    lim-keras predict {info.name} scene.tif --out results

From Python; `images` is (n, height, width, {info.bands}) of raw digital numbers:

    from pathlib import Path
    from lim_keras.export.bundle import load_bundle
    probability = load_bundle(Path("{info.name}")).predict(images)

Without this package, by TensorFlow alone:

    model = tf.saved_model.load("{info.name}/{served}")
    outputs = model.signatures["serving_default"](image=tf.constant(images, tf.float32))

TensorFlow Serving takes `{info.name}/{name}` as a model's base path. `lim-keras export {info.name} --serving DIR` makes
a repository with version labels, warm-up requests and a compose file. Of this folder as it is:

    tensorflow_model_server --rest_api_port=8501 --model_name={info.name} --model_base_path="$PWD/{info.name}/{name}"
"""
    if takes_pictures(info.bands, info.dtype):
        calls += f"\nThe signature `{ENCODED}` takes PNG and JPEG files: `{PICTURES}`, a list of their contents.\n"
    lite = [file for file in sorted(info.files) if file.endswith(".tflite")]
    if lite:
        calls += "\nTFLite, by LiteRT's interpreter: " + ", ".join(f"`{file}`" for file in lite) + ".\n"
    if info.litert:
        calls += (
            "Each beside its SavedModel, on the same windows, timed where it was exported:\n\n"
            f"{litert_markdown(info.litert)}\n"
        )
    return calls.rstrip("\n")
