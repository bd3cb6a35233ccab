"""Window after window through a model: the next one is read, and the last one taken away, while it works."""

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

ValueScale = tuple[float, float]
"""Raw values of a scene that become the lowest and the highest value of the model's data type."""

_RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}


@dataclass(frozen=True)
class InputScaling:
    """How a scene is shown to a model.

    Args:
        dtype: of the pixels that the model takes.
        fill: value of each band where no data is near, in the model's values.
        scale: raw values that become the lowest and the highest of the data type; None: as they are.
    """

    dtype: str
    fill: tuple[float, ...]
    scale: ValueScale | None = None

    def load(self, scene: RasterReader, window: Window, around: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (height, width, bands) of a window's read box without gaps, and where its core holds data."""
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
    """What was predicted for a core.

    core: in the scene's coordinates. probability, spread, votes: (height, width) of the core, see `EnsemblePrediction`;
    valid: True where the scene holds data.
    """

    core: Box
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    votes: NDArray[np.int32]
    valid: NDArray[np.bool_]


def predict_windows(
    predict: Callable[[NDArray[Any]], EnsemblePrediction],
    scene: RasterReader,
    windows: Iterable[tuple[Window, Box]],
    seen: InputScaling,
    in_flight: int = 1,
) -> Iterator[WindowPrediction]:
    """Predict windows one after another; the next is read meanwhile.

    Args:
        predict: raw pixels (1, height, width, bands) to what the model says of them.
        scene: where they are read.
        windows: each with the box of its island, beyond which no pixel is looked at.
        seen: how the scene is shown to the model.
        in_flight: most calls of `predict` at a time, each in a thread of its own beyond 1. The order of the pieces
            stays, and `in_flight` + 3 windows are in memory at most.
    """

    def load(item: tuple[Window, Box]) -> tuple[Window, NDArray[Any], NDArray[np.bool_]]:
        return (item[0], *seen.load(scene, *item))

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
    """What `load` makes of the items, in order; it works on the next `ahead` of them in threads of its own."""
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
    """Calls that run one after another in a thread of their own; at most one waits. A context manager.

    An error in a call is raised by the next `run` or `finish`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[Any] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Start a call as soon as the last one is done."""
        self.finish()
        self._last = self._pool.submit(call, *arguments)

    def finish(self) -> None:
        """Wait for the last call."""
        if self._last is not None:
            self._last.result()
            self._last = None
