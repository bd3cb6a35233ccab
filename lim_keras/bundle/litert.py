"""LiteRT (TensorFlow Lite) model files."""

from __future__ import annotations

import math
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from lim_keras.bundle.info import INFO_BYTES, BundleInfo, FileRecord, problems, read_json
from lim_keras.bundle.object_rule import Part
from lim_keras.bundle.protocol import (
    EnsemblePrediction,
    checked_answers,
    checked_images,
)
from lim_keras.bundle.window_size import rounded_up
from lim_keras.errors import BundleError, ConfigError, LimKerasWarning
from lim_keras.files import StrPath, write_text
from lim_keras.native_messages import LITERT_GREETING, without_messages
from lim_keras.raster.windows import plan_windows, smallest_side
from lim_keras.workers.cores import usable_cores

INDEX_FILE, FOLDER = "tflite.json", "tflite"
LITERT = "litert"
PROBABILITY, FOLDS = "probability", "folds"
"""Names of a file's outputs: the mean over the folds and, for an ensemble, the probability of each fold (last axis)."""

Variant = Literal["float32", "float16", "dynamic", "int8"]
_ROUNDED: tuple[Variant, ...] = ("dynamic", "int8")  # they round feature maps, so that far pixels change more
_GRID = 64
_TEST_SIDE = 512
_LARGEST_SIDE = 2**14  # largest input that is accepted, pixels


class Measured(Part):
    """Comparison of a LiteRT file with its SavedModel on `windows` test windows of `side` x `side` pixels.

    Times were measured on the exporting machine. Scores are None without labelled tiles. Differences are differences of
    probabilities. `within` says whether the file meets the requirement `limit`; None: not measured.
    """

    windows: int
    side: int = Field(ge=1)
    milliseconds_per_tile: float
    landslide_f1: float | None
    landslide_iou: float | None
    max_difference: float
    mean_difference: float
    limit: str
    within: bool | None


class LiteRtFile(Part):
    """Record of one .tflite file.

    Args:
        source: SavedModel that the file was converted from, such as "ensemble".
        tile: height and width of the input, pixels; None: any.
        halo: discarded border of each window, pixels; if it is smaller than the bundle's halo, maps are approximate.
        input: data type of the input.
    """

    record: FileRecord
    variant: Variant
    source: str
    folds: int = Field(ge=1)
    tile: int | None = Field(ge=1)
    halo: int = Field(ge=0)
    input: Literal["uint8", "float32"]
    measured: Measured


class LiteRtIndex(Part):
    """Contents of tflite.json: `model` is the bundle's model.json without tile ids, LiteRT entries and digest.

    `reference` holds the scores of each SavedModel on the same windows.
    """

    format: Literal[1] = 1
    model: BundleInfo
    reference: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    files: dict[str, LiteRtFile]

    def text(self) -> str:
        """Return the text of tflite.json."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, folder: Path) -> Path:
        """Write tflite.json into a folder."""
        return write_text(folder / INDEX_FILE, self.text())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read tflite.json of a folder; a BundleError if it is missing or not valid."""
        path = folder / INDEX_FILE
        try:
            text, _ = read_json(path, INFO_BYTES)
            return cls.model_validate_json(text)
        except FileNotFoundError as error:
            raise BundleError(
                f"{path}: not found. Expected it beside the .tflite files, as `lim-keras export` writes it. Copy both."
            ) from error
        except ValidationError as error:
            raise BundleError(
                f"{path}: not a valid description of .tflite files. {problems(error)}. Export again."
            ) from None


def window_grid(info: BundleInfo) -> int:
    """Return the step of the window grid, pixels; input sizes and halos are multiples of it."""
    return math.lcm(_GRID, info.stride)


def comparison_side(info: BundleInfo) -> int:
    """Return the side, pixels, of the test windows for a file that takes any input size."""
    return rounded_up(_TEST_SIDE, window_grid(info))


def halo_of_input(info: BundleInfo, input_size: int | None) -> int:
    """Return the halo, pixels, for windows of an input size (None: any size).

    Return the bundle's exact halo if two halos leave a core in the window, else at most a quarter of the input size.

    Raises:
        ConfigError: the size is not a multiple of the network's grid.
    """
    if input_size is None:
        return info.halo
    grid = window_grid(info)
    if input_size % grid or input_size < grid:
        raise ConfigError(f"Invalid value for `tile`. Expected a multiple of {grid} px. Received: {input_size} px.")
    if input_size >= smallest_side(info.halo, grid):
        return info.halo
    return input_size // 4 // grid * grid


def warn_if_approximate(name: str, info: BundleInfo, input_size: int | None, halo: int) -> None:
    """Warn (LimKerasWarning) if this halo is too small for windows to give the same map as the whole scene."""
    if halo < info.halo:
        warnings.warn(
            f"{name}: its windows of {input_size} px keep a halo of {halo} px, but the network needs {info.halo} px. "
            "Maps are approximate near the edges of windows. A file for any input size gives exact ones.",
            LimKerasWarning,
            stacklevel=3,
        )


class LiteRtModel:
    """A .tflite file as a `SceneModel`. `input_size`: height and width of the input, pixels; None: any size.

    Threads that share a model take turns, because an interpreter holds one image at a time.

    Args:
        info: description of the bundle, with this file's halo and number of folds.
        threads: number of interpreter threads; None: one per core that this process may use.

    Raises:
        BundleError: LiteRT is not installed, or the file cannot be loaded or has other inputs or outputs.
    """

    def __init__(self, info: BundleInfo, path: Path, threads: int | None = None) -> None:
        self.info, self.path = info, path
        self.runtime = LITERT
        self._lock = threading.Lock()
        self._threads = threads or usable_cores()
        self._runner = _runner(path, self._threads)
        inputs, self._outputs = self._runner.get_input_details(), self._runner.get_output_details()
        shapes = [tuple(map(int, one["shape_signature"])) for one in inputs.values()]
        square = {(1, side, side, info.bands) for side in (-1, *(shape[1] for shape in shapes if len(shape) == 4))}
        if len(shapes) != 1 or not square.issuperset(shapes) or PROBABILITY not in self._outputs:
            raise BundleError(
                f"{path}: expected one input (1, side, side, {info.bands}) and an output `{PROBABILITY}`. Received: "
                f"inputs {shapes}, outputs {', '.join(self._outputs)}. Export it again."
            )
        ((self._name, self._input),) = inputs.items()
        side = shapes[0][1]
        if side == 0 or side > _LARGEST_SIDE:
            raise BundleError(f"{path}: expected windows of at most {_LARGEST_SIDE} px. Received: {side} px.")
        self.input_size = side if side > 0 else None

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict the probability of landslide (n, height, width), 0 to 1; arguments as in `predict_all`."""
        return self.predict_all(images).probability

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Predict probability, spread and votes of images (n, height, width, bands), raw digital numbers of any size.

        If the file has a fixed input size, images are cut into windows; the last ones are padded with edge values.

        Raises:
            DataError: `images` has the wrong number of dimensions or bands, or no pixels.
            BundleError: the file's output has a wrong size, or is not a probability.
        """
        array = checked_images(images, self.info.bands)
        folds = np.stack([self._folds(image) for image in array])
        reached = folds >= np.float32(self.info.threshold)
        if self.info.folds == 1:
            probability = folds[..., 0]
            return EnsemblePrediction(probability, np.zeros_like(probability), reached[..., 0].astype(np.int32))
        return EnsemblePrediction(folds.mean(axis=-1), folds.std(axis=-1), reached.sum(axis=-1, dtype=np.int32))

    def release(self) -> None:
        """Free the memory of feature maps; the next prediction allocates it again."""
        with self._lock:
            self._runner = None

    def _folds(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return each fold's probability (height, width, folds) for an image of any size."""
        tile = self.input_size
        if tile is None:
            return self.run(image)
        height, width, _ = image.shape
        folds = np.empty((height, width, self.info.folds), np.float32)
        for window in plan_windows(height, width, size=tile, halo=self.info.halo, multiple=window_grid(self.info)):
            folds[window.core.slices] = self.run(padded(image[window.read.slices], tile))[window.inner.slices]
        return folds

    def run(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return each fold's probability (height, width, folds) for an image (height, width, bands) of input size."""
        try:
            with self._lock:
                self._runner = self._runner or _runner(self.path, self._threads)
                outputs = self._runner(**{self._name: self._raw(image)})
        except (RuntimeError, ValueError) as error:
            raise _unusable(self.path, error) from error
        name = FOLDS if FOLDS in outputs else PROBABILITY
        folds = _dequantized(outputs[name][0], self._outputs[name])
        shape = (*image.shape[:2], self.info.folds)
        if folds.shape != shape:
            raise BundleError(f"{self.path}: expected output `{name}` of shape {shape}. Received: {folds.shape}")
        checked_answers({name: folds[..., np.newaxis]}, folds.shape, 1, str(self.path))
        return folds

    def _raw(self, image: NDArray[Any]) -> NDArray[Any]:
        """Convert pixels to the data type of the input, and quantise them if the input is quantised."""
        dtype, (scale, zero) = np.dtype(self._input["dtype"]), self._input["quantization"]
        values = image[np.newaxis]
        if scale:
            values = values.astype(np.float32) / np.float32(scale) + zero
        if dtype.kind in "ui" and values.dtype != dtype:
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.asarray(values, dtype)


def _dequantized(values: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = details["quantization"]
    if not scale:
        return np.asarray(values, np.float32)
    return np.asarray((values.astype(np.float32) - zero) * np.float32(scale), np.float32)


def padded(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Repeat the last row and column of an image (height, width, bands) up to `side` pixels."""
    missing = [(0, side - size) for size in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="edge") if any(after for _, after in missing) else image


def load_litert(path: StrPath, threads: int | None = None) -> LiteRtModel:
    """Load a .tflite file, described by tflite.json in the same folder; `threads` as in `LiteRtModel`.

    Raises:
        BundleError: one of the two files is missing or damaged, or they come from different exports.

    Warns:
        LimKerasWarning: the file's windows are too small for exact maps.
    """
    path = Path(path)
    index = LiteRtIndex.read(path.parent)
    if path.name not in index.files:
        raise BundleError(f"{path}: not one of the files of {path.parent / INDEX_FILE}: {', '.join(index.files)}.")
    known = index.files[path.name]
    if not path.is_file() or FileRecord.of(path) != known.record:
        raise BundleError(f"{path}: not the file that was exported (size or SHA-256 differ). Copy it again.")
    warn_if_approximate(path.name, index.model, known.tile, known.halo)
    changes = {"halo": known.halo, "folds": known.folds, "files": {path.name: known.record}}
    if known.tile is not None or known.folds != index.model.folds or known.variant in _ROUNDED:
        changes["halos"] = ()  # they are measured on the whole bundle in float32, with windows of any size
    return LiteRtModel(index.model.model_copy(update=changes), path, threads)


def float32_file(bundle: Path, info: BundleInfo, source: str) -> Path | None:
    """Return the float32 .tflite file of a bundle for windows of any size; None if there is none.

    `source`: SavedModel that it was converted from, such as "ensemble".
    """
    name = f"{FOLDER}/{source}_float32.tflite"
    if name not in info.files or (name in info.litert and info.litert[name].tile is not None):
        return None
    return bundle / name


def _runner(path: Path, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
    except ImportError as error:
        raise BundleError("LiteRT is not installed. Install it with `pip install 'lim-keras[edge]'`.") from error
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        with without_messages(LITERT_GREETING), suppress(RuntimeError):  # a network may need more than one pixel
            interpreter.allocate_tensors()
        return interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())
    return BundleError(f"{path}: LiteRT cannot run this file ({reason}). Export it again.")
