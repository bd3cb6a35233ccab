"""LiteRT (TensorFlow Lite) model files."""

from __future__ import annotations

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lim_keras.bundle.info import INFO_BYTES, BundleInfo, FileRecord, problems
from lim_keras.bundle.protocol import EnsemblePrediction, checked_answers, checked_images
from lim_keras.bundle.trust import read_json
from lim_keras.bundle.window_size import LITERT_RUNTIME_BYTES, choose_tile
from lim_keras.errors import BundleError, DataError, LimKerasWarning
from lim_keras.files import write_text
from lim_keras.raster.windows import plan_windows, smallest_tile

INDEX_FILE = "tflite.json"

PROBABILITY, FOLDS = "probability", "folds"
"""Outputs of a file: the mean over the folds, and of an ensemble also each fold's own, in the last axis."""

_CELL = 64

_MEASURING_SIDE = 512

Variant = Literal["float32", "float16", "dynamic", "int8"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Measured(_Part):
    """What LiteRT made of the test windows, beside the SavedModel.

    windows: how many. side: their height and width, pixels. landslide_f1, landslide_iou: at the bundle's threshold;
    None without labelled tiles. max_difference, mean_difference: of the probabilities. limit: what was asked of the
    file, in words; within: whether it is met, None where it could not be measured.
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


class LiteRtFile(_Part):
    """One .tflite file.

    source: the SavedModel that it was made of, such as "ensemble". tile: height and width of its windows, pixels; None:
    any. halo: pixels of a window's edge that are not kept; below that of the bundle the map is approximate. input: data
    type.
    """

    record: FileRecord
    variant: Variant
    source: str
    folds: int = Field(ge=1)
    tile: int | None = Field(ge=1)
    halo: int = Field(ge=0)
    input: Literal["uint8", "float32"]
    measured: Measured


class LiteRtIndex(_Part):
    """tflite.json.

    model: model.json of the bundle, but for its tiles and figures. reference: scores of each SavedModel on the same
    windows.
    """

    format: Literal[1] = 1
    model: BundleInfo
    reference: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    files: dict[str, LiteRtFile]

    def write(self, folder: Path) -> Path:
        """Write tflite.json into a folder, beside its place first."""
        path = folder / INDEX_FILE
        return write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read tflite.json of a folder.

        Raises:
            BundleError: it is missing or not valid.
        """
        path = folder / INDEX_FILE
        try:
            text, _ = read_json(path, INFO_BYTES)
            return cls.model_validate_json(text)
        except FileNotFoundError as error:
            raise BundleError(
                f"{path}: not found. Expected it beside the .tflite files, as `lim-keras export --tflite` writes it. "
                "Copy both."
            ) from error
        except ValidationError as error:
            raise BundleError(
                f"{path}: not a valid description of .tflite files. {problems(error)}. Export again."
            ) from None


def cell_size(info: BundleInfo) -> int:
    """Grid of windows, pixels: tiles and halos are multiples of it."""
    return math.lcm(_CELL, info.stride)


def measuring_side(info: BundleInfo) -> int:
    """Side of the windows that a file which takes any is measured on, pixels."""
    return _rounded_up(_MEASURING_SIDE, cell_size(info))


def halo_of_input(info: BundleInfo, tile: int | None) -> int:
    """The exact halo where the tile leaves a core between two or may be any, else a quarter of the tile.

    Raises:
        DataError: a tile that is not on the network's grid, or too small for any halo.
    """
    if tile is None:
        return info.halo
    cell = cell_size(info)
    if tile % cell or tile < cell:
        raise DataError(f"Expected a tile of a multiple of {cell} px. Received: {tile} px")
    if tile >= smallest_tile(info.halo, cell):
        return info.halo
    return tile // 4 // cell * cell


def is_exact(info: BundleInfo, halo: int) -> bool:
    """Whether windows with this halo give what the whole scene would."""
    return halo >= info.halo


def approximate(name: str, info: BundleInfo, tile: int | None, halo: int) -> str:
    """What to warn of."""
    return (
        f"{name}: its windows of {tile} px keep a halo of {halo} px, but the network looks {info.halo} px far. Maps "
        "are approximate near the edges of windows. A file exported without --tile gives exact ones."
    )


class LiteRtModel:
    """A .tflite file as `SceneModel`.

    Args:
        info: of its bundle, with the file's own halo and number of folds.
        path: the file.
        threads: of the interpreter; None: one for each core that this process may use.

    fixed_tile is the side of its windows, pixels; None: they may be of any size.

    Raises:
        BundleError: LiteRT is not installed, or the file cannot be loaded or has other inputs or outputs.
    """

    def __init__(self, info: BundleInfo, path: Path, threads: int | None = None) -> None:
        self.info, self.path = info, path
        self._runner = _runner(path, threads or usable_cores())
        ((self._name, self._input),) = self._runner.get_input_details().items()
        self._outputs = self._runner.get_output_details()
        _, height, width, bands = self._input["shape_signature"]
        if height != width or bands != info.bands or PROBABILITY not in self._outputs:
            raise BundleError(
                f"{path}: expected square windows of {info.bands} bands and an output `{PROBABILITY}`. Received: "
                f"{height} x {width} px, {bands} bands, outputs {', '.join(self._outputs)}"
            )
        self.fixed_tile = int(height) if height > 0 else None

    def choose_tile(self, height: int, width: int, memory: int, multiple: int) -> tuple[int, int]:
        """Rows and columns of a window; arguments as in `lim_keras.bundle.window_size.choose_tile`."""
        if self.fixed_tile is not None:
            return self.fixed_tile, self.fixed_tile
        return choose_tile(self.info, height, width, memory, multiple, LITERT_RUNTIME_BYTES)

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict the probability (n, height, width) of images; errors as in `predict_all`."""
        return self.predict_all(images).probability

    def predict_all(self, images: NDArray[Any]) -> EnsemblePrediction:
        """Images (n, height, width, bands) of any size.

        A file of one size is shown windows of them, the last ones padded by their edge.

        Raises:
            DataError: images of another number of dimensions or bands, or without pixels.
        """
        array = checked_images(images, self.info.bands)
        folds = np.stack([self._folds(image) for image in array])
        votes = (folds >= np.float32(self.info.threshold)).sum(axis=-1, dtype=np.int32)
        return EnsemblePrediction(folds.mean(axis=-1), folds.std(axis=-1), votes)

    def _folds(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Each fold's probability (height, width, folds) of an image of any size."""
        tile = self.fixed_tile
        if tile is None:
            return self.run(image)
        height, width, _ = image.shape
        folds = np.empty((height, width, self.info.folds), np.float32)
        for window in plan_windows(height, width, tile=tile, halo=self.info.halo, multiple=cell_size(self.info)):
            folds[window.core.slices] = self.run(padded(image[window.read.slices], tile))[window.inner.slices]
        return folds

    def run(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Each fold's probability (height, width, folds) of an image (height, width, bands) of a size it takes."""
        outputs = self._runner(**{self._name: self._raw(image)})
        name = FOLDS if FOLDS in outputs else PROBABILITY
        folds = _dequantised(outputs[name][0], self._outputs[name])
        shape = (*image.shape[:2], self.info.folds)
        if folds.shape != shape:
            raise BundleError(f"{self.path}: expected `{name}` of shape {shape}. Received: {folds.shape}")
        checked_answers({name: folds[..., np.newaxis]}, folds.shape, 1, str(self.path))
        return folds

    def _raw(self, image: NDArray[Any]) -> NDArray[Any]:
        """Pixels in the type of the file's input, on its scale where that is quantised."""
        dtype, (scale, zero) = np.dtype(self._input["dtype"]), self._input["quantization"]
        values = image[np.newaxis]
        if scale:
            values = values.astype(np.float32) / np.float32(scale) + zero
        if dtype.kind in "ui" and values.dtype != dtype:
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(dtype)


def _dequantised(values: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(np.float32)
    return np.asarray((values.astype(np.float32) - zero) * np.float32(scale), np.float32)


def padded(image: NDArray[Any], tile: int) -> NDArray[Any]:
    """An image (height, width, bands) with its last row and column repeated up to `tile` px a side."""
    missing = [(0, tile - size) for size in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="edge") if any(after for _, after in missing) else image


def load_litert(path: Path, threads: int | None = None) -> LiteRtModel:
    """Load a .tflite file by what tflite.json beside it says.

    Args:
        path: the file. threads: of the interpreter; None: one for each core that this process may use.

    Raises:
        BundleError: one of the two files is missing, damaged or of another make.

    Warns:
        LimKerasWarning: the file's windows are too small for exact maps.
    """
    index = LiteRtIndex.read(path.parent)
    if path.name not in index.files:
        raise BundleError(f"{path}: not one of the files of {path.parent / INDEX_FILE}: {', '.join(index.files)}.")
    known = index.files[path.name]
    if not path.is_file() or FileRecord.of(path) != known.record:
        raise BundleError(f"{path}: not the file that was exported (size or SHA-256 differ). Copy it again.")
    info = file_info(index.model, path.name, known)
    if not is_exact(index.model, known.halo):
        warnings.warn(approximate(path.name, index.model, known.tile, known.halo), LimKerasWarning, stacklevel=2)
    return LiteRtModel(info, path, threads)


def file_info(model: BundleInfo, name: str, file: LiteRtFile) -> BundleInfo:
    """A bundle's description as that of one file: its halo, its folds, and nothing but its record."""
    changes = {"halo": file.halo, "folds": file.folds, "files": {name: file.record}}
    return model.model_copy(update=changes)


def usable_cores() -> int:
    """Cores that this process may use: in a container or a batch job often fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _runner(path: Path, threads: int) -> Any:
    """The file's signature; LiteRT's own choice of kernels is XNNPACK, for float and for eight bits."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
    except ImportError as error:
        raise BundleError("LiteRT is not installed. Install it with `pip install 'lim-keras[edge]'`.") from error
    try:
        return Interpreter(model_path=str(path), num_threads=threads).get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: LiteRT cannot load this file ({error}). Export it again.") from error


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step
