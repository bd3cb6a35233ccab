"""A bundle's SavedModels to the bytes of .tflite files."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.data.sampling import WindowSampler
from lim_keras.data.store import TileStore
from lim_keras.data.tiles import TileSet
from lim_keras.export.bundle_info import BundleInfo
from lim_keras.export.half_constants import halve_large_constants
from lim_keras.export.inner_names import without_names
from lim_keras.export.kernel_rounding import rounded_depthwise_kernels
from lim_keras.export.signatures import SIGNATURE
from lim_keras.inference.litert import FOLDS, PROBABILITY, Variant

_SEED = 2022


class OneWindow(tf.Module):
    """Loaded SavedModels of the folds as one function of one window.

    Args:
        models: what `tf.saved_model.load` gave, one a fold.
        tile: height and width of the window, pixels; None: any.
        bands: of the image.
        input_type: of its pixels.
    """

    def __init__(self, models: Sequence[Any], tile: int | None, bands: int, input_type: str) -> None:
        super().__init__()
        self.models = list(models)  # their variables live as long as they are referred to
        signature = tf.TensorSpec((1, tile, tile, bands), tf.as_dtype(input_type), name="image")
        self.run = tf.function(self._run, input_signature=[signature], autograph=False)

    def _run(self, image: Any) -> dict[str, Any]:
        pixels = tf.cast(image, tf.float32)
        outputs: list[Any] = []
        for model in self.models:
            outputs.append(model.signatures[SIGNATURE](image=pixels)["probability"])
        if len(outputs) == 1:
            return {PROBABILITY: outputs[0]}
        folds = tf.concat(outputs, axis=-1)
        return {PROBABILITY: tf.reduce_mean(folds, axis=-1, keepdims=True), FOLDS: folds}


def convert(
    models: Sequence[Any],
    variant: Variant,
    tile: int | None,
    info: BundleInfo,
    calibration: Sequence[NDArray[Any]] = (),
) -> bytes:
    """One .tflite file.

    Args:
        models: loaded SavedModels, one a fold.
        variant: float32; float16: large constants of half the size; dynamic: variables of eight bits; int8: eight bits
            throughout, the input and the output too.
        tile: height and width of the window, pixels; None: any.
        info: of the bundle.
        calibration: windows (h, w, bands), of the tile's size if it has one, that the scales of int8 are measured on.
    """
    # The converter quantises float inputs only; it then makes the input itself of eight bits.
    input_type = "float32" if variant == "int8" else input_of(info)
    graph = OneWindow(models, tile, info.bands, input_type)
    rounded = rounded_depthwise_kernels(models) if variant == "int8" else nullcontext()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), rounded:
        warnings.simplefilter("ignore")  # the converter's remarks on itself
        tf.saved_model.save(graph, folder, signatures={SIGNATURE: graph.run})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if variant in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "int8":
            converter.representative_dataset = lambda: _as_inputs(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8 if input_of(info) == "uint8" else tf.float32
            converter.inference_output_type = tf.uint8
        content = bytes(converter.convert())
    return without_names(halve_large_constants(content) if variant == "float16" else content)


def input_of(info: BundleInfo) -> Literal["uint8", "float32"]:
    """Type of a file's pixels: those of the bundle where they are uint8, else float32, which holds uint16 exactly."""
    return "uint8" if info.dtype == "uint8" else "float32"


def _as_inputs(windows: Sequence[NDArray[Any]]) -> Iterator[list[NDArray[np.float32]]]:
    for window in windows:
        yield [window[np.newaxis].astype(np.float32)]


def calibration_windows(tiles: TileSet, gsd_m: float | None, tile: int, count: int) -> list[NDArray[Any]]:
    """Windows of real tiles as training shows them, every other one around a landslide.

    Args:
        tiles: training tiles.
        gsd_m: ground sample distance of training, metres.
        tile: height and width, pixels.
        count: of windows.

    Raises:
        DataError: no landslide tile among them.
    """
    sampler = WindowSampler(TileStore(tiles, gsd_m, gsd_m, cache="recent"), tile, count, _SEED, landslide_share=0.5)
    return [sampler.example(0, position)[0] for position in range(count)]
