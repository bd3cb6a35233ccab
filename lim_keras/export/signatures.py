"""How exported SavedModels can be called, for readers without TensorFlow, too."""

from __future__ import annotations

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
