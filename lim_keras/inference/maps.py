"""Prediction of windows, test-time augmentation, and the resumable map files of a scene."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import DataError
from lim_keras.files import write_text
from lim_keras.inference.map_bands import MAPS, describe_maps, map_names, stored_map
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window

_Item = TypeVar("_Item")

_Loaded = TypeVar("_Loaded")

PredictAll = Callable[[NDArray[Any]], EnsemblePrediction]
"""Function from raw pixels (n, height, width, bands) to their prediction."""

ValueScale = tuple[float, float]
"""Raw values (low, high) that become the lowest and the highest value of the model's data type."""

RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}
"""Lowest and highest value of each data type that a model takes."""


@dataclass(frozen=True)
class InputScaling:
    """Conversion of a scene's values to the data type `dtype` and the range of a model.

    fill: value of each band far from any data, after the conversion. scale: see `ValueScale`; None: no scaling.
    """

    dtype: str
    fill: tuple[float, ...]
    scale: ValueScale | None = None

    def load(self, scene: RasterReader, window: Window, around: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the pixels (height, width, bands) of a window, gaps filled, and the valid pixels of its core, bool."""
        pixels, valid = scene.filled(window.read, around, self._raw_fill())
        return self.scaled(pixels), valid[window.inner.slices]

    def _raw_fill(self) -> NDArray[np.float64]:
        fill = np.asarray(self.fill, np.float64)
        if self.scale is None:
            return fill
        (low, high), (first, last) = self.scale, RANGES[self.dtype]
        return low + (fill - first) / (last - first) * (high - low)

    def scaled(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Convert pixels of any shape."""
        if self.scale is None:
            return pixels
        (low, high), (first, last) = self.scale, RANGES[self.dtype]
        share = np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)
        values = first + share * np.float32(last - first)
        return np.asarray(values if self.dtype == "float32" else np.rint(values), self.dtype)


@dataclass(frozen=True)
class WindowPrediction:
    """Prediction for the core of a window, in the scene's coordinates; `valid` is True where the scene holds data.

    Arrays are (height, width) of the core, see `EnsemblePrediction`.
    """

    core: Box
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    votes: NDArray[np.int32]
    valid: NDArray[np.bool_]


def predict_windows(
    predict: PredictAll,
    scene: RasterReader,
    windows: Iterable[tuple[Window, Box]],
    scaling: InputScaling,
    in_flight: int = 1,
) -> Iterator[WindowPrediction]:
    """Predict windows in order; a thread reads the next one.

    Each window comes with the box of its valid region; pixels outside of the box are not used. `predict` takes pixels
    (1, height, width, bands). With `in_flight` above 1, threads make that many calls at a time; the order is kept, and
    at most `in_flight` + 3 windows are in memory.
    """

    def load(item: tuple[Window, Box]) -> tuple[Window, NDArray[Any], NDArray[np.bool_]]:
        return (item[0], *scaling.load(scene, *item))

    def answer(loaded: tuple[Window, NDArray[Any], NDArray[np.bool_]]) -> WindowPrediction:
        window, pixels, valid = loaded
        if not valid.any():
            nothing = np.zeros(valid.shape, np.float32)
            return WindowPrediction(window.core, nothing, nothing, nothing.astype(np.int32), valid)
        inner = window.inner.slices
        probability, spread, votes = (values[0][inner] for values in predict(pixels[np.newaxis]))
        return WindowPrediction(window.core, probability, spread, votes, valid)

    loaded = prefetched(load, windows)
    if in_flight == 1:
        return map(answer, loaded)
    return prefetched(answer, loaded, ahead=in_flight, threads=in_flight)


def prefetched(
    load: Callable[[_Item], _Loaded], items: Iterable[_Item], ahead: int = 1, threads: int = 1
) -> Iterator[_Loaded]:
    """Map `load` over the items, in order; threads work on the next `ahead` items."""
    pending: deque[Future[_Loaded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(load, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Background:
    """Run one call at a time in a thread. `run` and `finish` wait for the last call and raise its error."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[Any] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Wait for the last call, then start this one."""
        self.finish()
        self._last = self._pool.submit(call, *arguments)

    def finish(self) -> None:
        """Wait for the last call."""
        if self._last is not None:
            self._last.result()
            self._last = None


def with_tta(predict: PredictAll, stride: int) -> PredictAll:
    """Average predictions over eight symmetries: four rotations of the images and of their mirror images.

    Probability, spread and votes are means; votes are rounded. Images are first padded at the bottom and on the right,
    by their last row and column, to multiples of `stride`, so that rotated images have the same alignment with the
    network's grid as the whole scene.
    """

    def averaged(images: NDArray[Any]) -> EnsemblePrediction:
        height, width = images.shape[1:3]
        padded = np.pad(images, ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0)), mode="edge")
        total: list[NDArray[np.float64]] = []
        for mirrored in (False, True):
            for turns in range(4):
                turned = np.rot90(padded[:, :, ::-1] if mirrored else padded, turns, axes=(1, 2))
                for position, values in enumerate(predict(np.ascontiguousarray(turned))):
                    back = np.rot90(values, -turns, axes=(1, 2))
                    back = (back[:, :, ::-1] if mirrored else back)[:, :height, :width]
                    if len(total) <= position:
                        total.append(np.zeros(back.shape))
                    total[position] += back
        probability, spread, votes = (values / 8 for values in total)
        return EnsemblePrediction(
            probability.astype(np.float32), spread.astype(np.float32), np.rint(votes).astype(np.int32)
        )

    return averaged


STATE = "state.json"

_SYNC_BYTES = 32 * 2**20  # bytes between two synchronisations with the disk; a larger step would stall the model

_SMALLEST_FILE = 1024  # bytes that GDAL needs to recognise a file as a raster

_GDAL_TYPES = {"<f4": "Float32", "u1": "Byte"}


class Maps:
    """Context manager that writes the maps of a scene: probability, votes and, if `spread`, spread.

    Args:
        info: grid of the scene.
        spread: keep the standard deviation of the folds.
        identity: hash of all inputs of the maps. Files in `folder` with the same identity are continued and keep their
            plan; others are overwritten.
        plan: layout of the windows.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, info: RasterInfo, *, spread: bool, identity: str, plan: Mapping[str, Any]) -> None:
        self._folder, self._info = folder, info
        self._names = map_names(spread)
        self._state: dict[str, Any] = {"identity": identity, "plan": dict(plan), "done": 0}
        self._state = self._kept_state() or self._state
        self._files: dict[str, int] = {}
        self._unsynced = 0

    def __enter__(self) -> Self:
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_state()  # first, because it marks the folder as one of these
            pixels = self._info.width * self._info.height
            fresh = os.O_TRUNC if self.done == 0 else 0
            for name in self._names:
                file = os.open(self._folder / f"{name}.raw", os.O_RDWR | os.O_CREAT | fresh, 0o644)
                self._files[name] = file
                os.ftruncate(file, max(pixels * np.dtype(MAPS[name]).itemsize, _SMALLEST_FILE))
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            os.close(file)
        self._files = {}

    @property
    def plan(self) -> Mapping[str, Any]:
        """Layout of the windows, as the folder records it."""
        plan: Mapping[str, Any] = self._state["plan"]
        return plan

    @property
    def done(self) -> int:
        """Number of rows of windows that are complete on the disk."""
        return int(self._state["done"])

    def replan(self, plan: Mapping[str, Any]) -> None:
        """Record another layout of the windows, before the first of them is written."""
        with self._explained():
            self._state["plan"] = dict(plan)
            self._write_state()

    def write(self, window: WindowPrediction) -> None:
        """Write the prediction of a window. Pixels without data stay unwritten."""
        whole = bool(window.valid.all())
        with self._explained():
            for name in self._names:
                shown, dtype = stored_map(window, name, whole), np.dtype(MAPS[name])
                # Rows of the scene's whole width are contiguous in the file: one call instead of thousands.
                runs = shown.reshape(1, -1) if window.core.width == self._info.width else shown
                for row, run in enumerate(runs, start=window.core.top):
                    place = (row * self._info.width + window.core.left) * dtype.itemsize
                    _write_all(self._files[name], run.data.cast("B"), place)
                self._unsynced += shown.nbytes
            if self._unsynced >= _SYNC_BYTES:
                self._sync()

    def commit(self, done: int) -> None:
        """Record that the first `done` rows of windows are complete."""
        with self._explained():
            self._sync()
            self._state["done"] = done
            self._write_state()

    def write_vrt(self) -> Path:
        """Write a VRT with the bands probability, votes (number of folds) and spread, Float32, nodata -1."""
        path = self._folder / "maps.vrt"
        with self._explained():
            for name in self._names:
                _write_header(self._folder / f"{name}.hdr", self._info, MAPS[name])
            path.write_text(describe_maps(self._info, _raw_sources(self._info, self._names)), encoding="utf-8")
        return path

    def _sync(self) -> None:
        for file in self._files.values():
            os.fsync(file)
        self._unsynced = 0

    def _kept_state(self) -> dict[str, Any] | None:
        try:
            state: Any = json.loads((self._folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(state, dict) or not state.keys() >= self._state.keys():
            return None
        same = state["identity"] == self._state["identity"]
        return state if same and all((self._folder / f"{name}.raw").exists() for name in self._names) else None

    def _write_state(self) -> None:
        write_text(self._folder / STATE, json.dumps(self._state))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DataError) as error:
            cause = error.__cause__ if isinstance(error, DataError) else error  # `write_text` raises a DataError
            if not isinstance(cause, OSError):
                raise
            raise DataError(
                f"{self._folder}: cannot be written ({cause.strerror or cause}). What is done is kept: free disk space "
                "or repair the folder, and run the same command again."
            ) from cause


def _write_all(file: int, data: memoryview, place: int) -> None:
    written = os.pwrite(file, data, place)
    while written < len(data):  # a nearly full disk may write a part; the next call raises
        written += os.pwrite(file, data[written:], place + written)


def _write_header(path: Path, info: RasterInfo, dtype: str) -> None:
    """Write the header that GDAL's ENVI driver needs to read a file of raw numbers."""
    kind = {"<f4": 4, "u1": 1}[dtype]
    lines = ["ENVI", f"samples = {info.width}", f"lines = {info.height}", "bands = 1", "header offset = 0"]
    lines += ["file type = ENVI Standard", f"data type = {kind}", "interleave = bsq", "byte order = 0"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _raw_sources(info: RasterInfo, names: Sequence[str]) -> dict[str, list[str]]:
    size = f'rasterXSize="{info.width}" rasterYSize="{info.height}"'
    return {
        name: [
            f'<ComplexSource><SourceFilename relativeToVRT="1">{name}.raw</SourceFilename><SourceBand>1</SourceBand>',
            f'<SourceProperties {size} DataType="{_GDAL_TYPES[MAPS[name]]}"/>',
            "<ScaleOffset>-1</ScaleOffset><ScaleRatio>1</ScaleRatio></ComplexSource>",
        ]
        for name in names
    }
