"""Convert SavedModels to LiteRT and compare both on the same windows."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.litert import FOLDS, PROBABILITY, LiteRtModel, Measured, Variant, padded
from lim_keras.bundle.protocol import SIGNATURE
from lim_keras.data.sampling import WindowSampler
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.export.graph_edits import halve_large_constants, rounded_depthwise_kernels
from lim_keras.metrics.binary import Confusion, count

_SEED = 2022


class OneWindow(tf.Module):
    """One function that runs SavedModels, one per fold, on a window of `tile` x `tile` pixels (None: any size)."""

    def __init__(self, models: Sequence[Any], tile: int | None, bands: int, dtype: str) -> None:
        super().__init__()
        self.models = list(models)  # keeps their variables alive
        signature = tf.TensorSpec((1, tile, tile, bands), tf.as_dtype(dtype), name="image")
        self.run = tf.function(self._run, input_signature=[signature], autograph=False)

    def _run(self, image: Any) -> dict[str, Any]:
        pixels = tf.cast(image, tf.float32)
        outputs = [model.signatures[SIGNATURE](image=pixels)["probability"] for model in self.models]
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
    """Convert SavedModels to the content of one .tflite file.

    Args:
        models: loaded SavedModels, one per fold.
        variant: number type: float32, float16 (large constants in half precision), dynamic (8-bit weights), or int8
            (8-bit weights, activations and output).
        tile: height and width of the input, pixels; None: any.
        info: description of the bundle.
        calibration: windows (h, w, bands) that set the scales of int8; of the input size if that is fixed.
    """
    # The converter quantises float inputs only, so the graph of int8 has a float input.
    graph = OneWindow(models, tile, info.bands, "float32" if variant == "int8" else input_type(info))
    rounded = rounded_depthwise_kernels(models) if variant == "int8" else nullcontext()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), rounded:
        warnings.simplefilter("ignore")  # warnings about the converter's own code
        tf.saved_model.save(graph, folder, signatures={SIGNATURE: graph.run})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if variant in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "int8":
            converter.representative_dataset = lambda: _as_inputs(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8 if input_type(info) == "uint8" else tf.float32
            converter.inference_output_type = tf.uint8
        content = bytes(converter.convert())
    return halve_large_constants(content) if variant == "float16" else content


def input_type(info: BundleInfo) -> Literal["uint8", "float32"]:
    """Return the input type of a file: uint8 for a uint8 bundle, else float32, which represents uint16 exactly."""
    return "uint8" if info.dtype == "uint8" else "float32"


def _as_inputs(windows: Sequence[NDArray[Any]]) -> Iterator[list[NDArray[np.float32]]]:
    for window in windows:
        yield [window[np.newaxis].astype(np.float32)]


def calibration_windows(tiles: TileSet, gsd_m: float | None, tile: int, count: int) -> list[NDArray[Any]]:
    """Cut `count` windows of `tile` x `tile` pixels from training tiles, half of them around landslides."""
    sampler = WindowSampler(TileStore(tiles, gsd_m, gsd_m, cache="recent"), tile, count, _SEED, landslide_share=0.5)
    return [sampler.example(0, position)[0] for position in range(count)]


MAX_DIFFERENCE: dict[Variant, float] = {"float32": 1e-5, "float16": 2e-3}
"""Largest allowed difference between the probabilities of a file and its SavedModel."""

MAX_IOU_LOSS = 0.01
"""Largest allowed loss of landslide IoU for 8-bit files (dynamic and int8)."""

Window = tuple[NDArray[Any], NDArray[np.uint8]]
"""Image (h, w, bands) and mask (h, w) of 0, 1 and 255."""

_RANDOM_WINDOWS = 4


@dataclass
class Tally:
    """Running sums of one model's comparison."""

    confusion: Confusion = field(default_factory=Confusion)
    windows: int = 0
    seconds: float = 0.0
    largest: float = 0.0
    total: float = 0.0
    pixels: int = 0

    def add(self, probability: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Add the differences of a window."""
        difference = np.abs(probability - expected)
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum(dtype=np.float64))
        self.pixels += difference.size
        self.windows += 1

    def score(self, name: str) -> float | None:
        """Return a score of landslide pixels; None if nothing was labelled."""
        return self.confusion.scores()[name] if self.confusion.pixels else None

    def measured(self, variant: Variant, side: int, reference: Tally) -> Measured:
        """Return the measurements, and whether they meet the variant's limit. `side`: side of the windows, pixels."""
        iou, known = self.score("iou_landslide"), reference.score("iou_landslide")
        within: bool | None
        if variant in MAX_DIFFERENCE:
            limit = f"difference <= {MAX_DIFFERENCE[variant]:g}"
            within = self.largest <= MAX_DIFFERENCE[variant]
        else:
            limit = f"IoU loss <= {MAX_IOU_LOSS:g}"
            within = None if iou is None or known is None else bool(known - iou <= MAX_IOU_LOSS)
        return Measured(
            windows=self.windows,
            side=side,
            milliseconds_per_tile=1000 * self.seconds / self.windows,
            landslide_f1=self.score("f1"),
            landslide_iou=iou,
            max_difference=self.largest,
            mean_difference=self.total / self.pixels,
            limit=limit,
            within=within,
        )


def compare(
    reference: Callable[[NDArray[Any]], NDArray[np.float32]],
    models: Mapping[Variant, LiteRtModel],
    windows: Iterable[Window],
    *,
    side: int,
    threshold: float,
) -> tuple[Tally, dict[Variant, Tally]]:
    """Compare files with the SavedModel (`reference`) on the same windows; return the tallies of both.

    Windows smaller than `side` x `side` pixels are padded for prediction and scored without the padding.
    """
    expected_tally, tallies = Tally(), {variant: Tally() for variant in models}
    for image, mask in windows:
        height, width = mask.shape
        shown = padded(image, side)
        if not expected_tally.windows:  # not timed: the first run packs weights and starts threads
            for model in models.values():
                model.run(shown)
        expected = reference(shown[np.newaxis])[0, :height, :width]
        expected_tally.confusion += count(expected >= np.float32(threshold), mask)
        expected_tally.windows += 1
        for variant, model in models.items():
            started = time.perf_counter()
            probability = model.run(shown).mean(axis=-1)[:height, :width]
            tallies[variant].seconds += time.perf_counter() - started
            tallies[variant].add(probability, expected)
            tallies[variant].confusion += count(probability >= np.float32(threshold), mask)
    return expected_tally, tallies


def tile_windows(tiles: TileSet, gsd_m: float | None, side: int) -> Iterator[Window]:
    """Yield tiles at the training ground sample distance, cut into pieces of at most `side` x `side` pixels."""
    store = TileStore(tiles, gsd_m, gsd_m, cache="none")
    for position in range(len(store)):
        image, mask = store.get(position)
        for top in range(0, mask.shape[0], side):
            for left in range(0, mask.shape[1], side):
                piece = slice(top, top + side), slice(left, left + side)
                yield image[piece], mask[piece]


def random_windows(bands: int, high: float, side: int) -> Iterator[Window]:
    """Yield windows of random pixels 0..high without labels; they compare arithmetic, not scores."""
    rng = np.random.default_rng(0)
    for _ in range(_RANDOM_WINDOWS):
        image = rng.uniform(0, high, (side, side, bands))
        yield np.rint(image) if high > 1 else image, np.full((side, side), 255, np.uint8)
