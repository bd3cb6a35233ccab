"""How exported SavedModels can be called, for readers without TensorFlow, too."""

from __future__ import annotations

from typing import Any

SIGNATURE = "serving_default"
"""image (n, height, width, bands) float32 -> outputs."""

ENCODED = "encoded"
"""image_bytes (n,) string, PNG or JPEG files -> the same outputs."""

PICTURES = "image_bytes"
"""The input of `encoded`; an object {"b64": "..."} in JSON."""


def takes_pictures(bands: int, dtype: str) -> bool:
    """Whether PNG and JPEG files can hold a model's images, which then has the signature `encoded`."""
    return dtype == "uint8" and bands in (1, 3, 4)


def signature_names(bands: int, dtype: str) -> list[str]:
    """The signatures of a model of such images."""
    return [SIGNATURE, ENCODED] if takes_pictures(bands, dtype) else [SIGNATURE]


def signature_differences(model: Any, name: str, bands: int, ensemble: bool) -> list[str]:
    """How a signature of a loaded SavedModel differs from what an export of ours has: a line each for inputs, outputs.

    Args:
        model: what `tf.saved_model.load` gave. name: of the signature.
        bands: of its images. ensemble: whether it answers for several folds.
    """
    if name not in model.signatures:
        return [f"expected the signature {name}. Received: {sorted(model.signatures)}"]
    image, map_of = (None, None, None, bands), (None, None, None, 1)
    inputs = {PICTURES: ((None,), "string")} if name == ENCODED else {"image": (image, "float32")}
    outputs = {"probability": (map_of, "float32")}
    if ensemble:
        outputs |= {"spread": (map_of, "float32"), "votes": (map_of, "int32")}
    signature = model.signatures[name]
    received = _specs(signature.structured_input_signature[1]), _specs(signature.structured_outputs)
    return [
        f"{name}: expected {kind} {wanted}. Received: {came}"
        for kind, wanted, came in zip(("inputs", "outputs"), (inputs, outputs), received, strict=True)
        if wanted != came
    ]


def _specs(tensors: dict[str, Any]) -> dict[str, tuple[tuple[int | None, ...], str]]:
    return {
        name: (tuple(spec.shape) if spec.shape.rank is not None else (), spec.dtype.name)
        for name, spec in sorted(tensors.items())
    }
