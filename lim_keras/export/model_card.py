"""The model card of a bundle, `README.md`: what the model is, what it scored, where it fails and how to call it."""

from __future__ import annotations

import math
from pathlib import Path

from lim_keras.evaluation.confusion import Estimate
from lim_keras.export.bundle_info import BundleInfo, FileRecord
from lim_keras.export.litert_table import litert_markdown
from lim_keras.export.signatures import ENCODED, PICTURES, takes_pictures
from lim_keras.export.stac import architecture, saved_models, write_stac_item

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
        f"- Ground sample distance: {ground(info)}.\n"
        f"- Output: probability of landslide of each pixel; landslide from {info.threshold:.4f} on.\n"
        f"- Calibration: inside the graph (temperature {info.temperature:.4f}, bias {info.bias:.4f}).\n"
        f"- A pixel's answer depends on its surroundings up to {info.halo} px."
    )


def ground(info: BundleInfo) -> str:
    """The ground sample distance in words."""
    return "unknown" if info.gsd_m is None else f"{info.gsd_m:g} m"


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
        f"| {judged} | {name} | {figure.value:.3f} | {interval(figure)} |"
        for judged, scores in info.metrics.items()
        for name, figure in scores.items()
        if not math.isnan(figure.value)
    ]
    return "| judged on | score | value | 95 % interval |\n|---|---|---|---|\n" + "\n".join(rows)


def interval(figure: Estimate) -> str:
    """The interval of a score, `-` where there is none."""
    return "-" if math.isnan(figure.low) or math.isnan(figure.high) else f"{figure.low:.3f} to {figure.high:.3f}"


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
            f"{litert_markdown(info)}\n"
        )
    return calls.rstrip("\n")
