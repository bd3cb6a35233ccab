"""Stream windows of a scene through a model; reading and writing run beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")

PredictAll = Callable[[NDArray[Any]], EnsemblePrediction]
"""Raw pixels (n, height, width, bands) to their prediction."""

ValueScale = tuple[float, float]
"""Raw values (low, high) that become the lowest and the highest value of the model's data type."""

_RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}


@dataclass(frozen=True)
class InputScaling:
    """Conversion of a scene's values to those of a model, whose pixels have the data type `dtype`.

    fill: value of each band far from any data, in the model's values. scale: None: values stay as they are.
    """

    dtype: str
    fill: tuple[float, ...]
    scale: ValueScale | None = None

    def load(self, scene: RasterReader, window: Window, around: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the pixels (height, width, bands) of a window with gaps filled, and where its core holds data."""
        pixels, valid = scene.filled(window.read, around, self._raw_fill())
        return self._scaled(pixels), valid[window.inner.slices]

    def _raw_fill(self) -> NDArray[np.float64]:
        fill = np.asarray(self.fill, np.float64)
        if self.scale is None:
            return fill
        (low, high), (first, last) = self.scale, _RANGES[self.dtype]
        return low + (fill - first) / (last - first) * (high - low)

    def _scaled(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if self.scale is None:
            return pixels
        (low, high), (first, last) = self.scale, _RANGES[self.dtype]
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
    """Predict windows one after another; the next one is read meanwhile.

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
    """Run calls one after another in a thread; at most one waits. The next `run` or `finish` raises its error."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[Any] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Start a call when the last one is done."""
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
