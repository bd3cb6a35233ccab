"""Evaluate predictions of tiles and windows."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import Predict
from lim_keras.config import EvaluationSection
from lim_keras.data.layouts import read_tiles
from lim_keras.data.sampling import Sheet, pack, render
from lim_keras.data.tiles import IGNORED, TileSet, TileStore, resample
from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.evaluation.evaluation import Evaluation, Prediction, ProtocolName, Sample, evaluate_side_by_side
from lim_keras.files import StrPath
from lim_keras.metrics.binary import count
from lim_keras.metrics.calibration import ImageBlindMask, everywhere
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.windows import plan_windows

SIDE = 4096
"""Height and width of a sheet, pixels."""


def tile_predictions(
    predict: Predict, store: TileStore, *, size: int | None = None, blind: ImageBlindMask | None = None, batch: int = 8
) -> Iterator[Prediction]:
    """Predict whole tiles, as in the paper.

    Args:
        predict: function from raw pixels (n, h, w, bands) to landslide probability (n, h, w).
        store: tiles at the ground sample distance of training.
        size: height and width to which tiles are resized, for models trained on resized tiles; None: native size.
        blind: baseline, the mean mask of the training tiles; None: the baseline is landslide everywhere.
        batch: largest number of tiles per call of `predict`; all tiles of a call have the same size.
    """
    for sample, probability in _predicted(predict, _tiles(store, size), batch):
        shape = sample.mask.shape
        yield Prediction(sample, probability, blind.mask(shape) if blind else everywhere(shape))


def _tiles(store: TileStore, size: int | None) -> Iterator[Sample]:
    for position, tile in enumerate(store.tiles):
        image, mask = store.get(position)
        if size is not None:
            image, mask = resample(image, mask, (size, size))
        yield Sample(tile.tile_id, tile.kind, tile.group, image, mask)


def window_predictions(predict: Predict, source: SheetWindows, *, batch: int = 8) -> Iterator[Prediction]:
    """Predict windows. Each window is its own group, because it may show parts of several tiles."""
    for sample, probability in _predicted(predict, _windows(source), batch):
        yield Prediction(sample, probability, everywhere(sample.mask.shape))


def _windows(source: SheetWindows) -> Iterator[Sample]:
    for position in range(len(source)):
        image, mask = source.window(position)
        kind = "landslide" if (mask == 1).any() else "non-landslide"
        yield Sample(f"window_{position}", kind, "", image, mask)


def _predicted(
    predict: Predict, samples: Iterable[Sample], batch: int
) -> Iterator[tuple[Sample, NDArray[np.floating[Any]]]]:
    for together in _batches(samples, batch):
        yield from zip(together, _checked(predict, np.stack([sample.image for sample in together])), strict=True)


def _batches(samples: Iterable[Sample], most: int) -> Iterator[list[Sample]]:
    """Yield lists of at most `most` neighbours of one shape."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and (len(batch) == most or sample.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _checked(predict: Predict, images: NDArray[Any]) -> NDArray[np.floating[Any]]:
    probability = np.asarray(predict(images))
    if probability.shape != images.shape[:3]:
        raise ConfigError(
            f"Expected `predict` to return probabilities of shape {images.shape[:3]} for images of shape "
            f"{images.shape}. Received: shape {probability.shape}."
        )
    return probability


def sheet_predictions(
    predict: Predict, store: TileStore, *, seed: int, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> Iterator[Prediction]:
    """Lay tiles edge to edge on sheets, predict the sheets in windows with a halo, and cut the tiles out again.

    Each tile is predicted as part of a scene: its landslide lies anywhere in a window, beside other ground. Threshold
    and temperature are fitted to these predictions, because both are applied to scenes.

    Args:
        predict: function from raw pixels (n, h, w, bands) to landslide probability (n, h, w).
        store: held-out tiles at the ground sample distance of training.
        seed: seed of the tile order on the sheets.
        tile, halo, multiple: see `plan_windows`.
    """
    sheets = predicted_sheets(predict, store, seed=seed, tile=tile, halo=halo, multiple=multiple)
    for sheet, image, mask, probability in sheets:
        for position, box in sheet.boxes.items():
            cut = box.slices
            held_out = store.tiles[position]
            sample = Sample(held_out.tile_id, held_out.kind, held_out.group, image[cut], mask[cut])
            yield Prediction(sample, probability[cut], everywhere(mask[cut].shape))


def predicted_sheets(
    predict: Predict, store: TileStore, *, seed: int, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> Iterator[tuple[Sheet, NDArray[Any], NDArray[np.uint8], NDArray[np.float32]]]:
    """Predict whole sheets of tiles; yield each with its image, its mask and its probability.

    Arguments are as in `sheet_predictions`.
    """
    sizes = [store.size(position) for position in range(len(store))]
    for number, sheet in enumerate(pack(sizes, SIDE, seed)):
        image, mask = render(sheet, store.get, seed + number)
        yield sheet, image, mask, predict_array(predict, image, tile=tile, halo=halo, multiple=multiple)


class SheetWindows:
    """Square windows at random positions of the sheets.

    A window that crosses the edge of a sheet continues at the opposite edge, so that every pixel appears equally often.
    In a window larger than its sheet, repeated pixels are labelled ignore. The number of windows on a sheet
    is proportional to its area. Windows are sorted by sheet, so that memory holds one sheet at a time.

    `store`: tiles at the ground sample distance of training. `size`: height and width of a window, pixels. `seed`: seed
    of the tile order on the sheets and of the window positions.
    """

    def __init__(self, store: TileStore, size: int, count: int, seed: int) -> None:
        self._store, self._size, self._count, self._seed = store, size, count, seed
        self._sheets = pack([store.size(position) for position in range(len(store))], SIDE, seed)
        areas = np.cumsum([sheet.height * sheet.width for sheet in self._sheets])
        self._shares = areas / areas[-1]
        self._held: tuple[int, tuple[NDArray[Any], NDArray[np.uint8]]] | None = None

    def __len__(self) -> int:
        return self._count

    def window(self, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return image (size, size, bands) and mask (size, size) {0, 1, 255} of window 0 .. count - 1."""
        rng = np.random.default_rng((self._seed, 0, position))
        along = (position + rng.random()) / self._count
        image, mask = self._sheet(int(np.searchsorted(self._shares[:-1], along, side="right")))
        rows, columns = (int(rng.integers(edge)) + np.arange(self._size) for edge in mask.shape)
        height, width = mask.shape
        place = np.ix_(rows % height, columns % width)
        window, labels = image[place], mask[place]
        labels[height:] = IGNORED
        labels[:, width:] = IGNORED
        return window, labels

    def _sheet(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        if self._held is None or self._held[0] != number:
            self._held = None  # free the memory of the last sheet first
            self._held = number, render(self._sheets[number], self._store.get, self._seed + number)
        return self._held[1]


def predict_array(
    predict: Predict, image: NDArray[Any], *, tile: int = 1536, halo: int = 256, multiple: int = 64
) -> NDArray[np.float32]:
    """Predict an image (height, width, bands) in windows with a halo; return probability (height, width)."""
    probability = np.empty(image.shape[:2], np.float32)
    for window in plan_windows(*image.shape[:2], size=tile, halo=halo, multiple=multiple):
        predicted = predict(image[window.read.slices][np.newaxis])[0]
        probability[window.core.slices] = predicted[window.inner.slices]
    return probability


DEFAULTS = EvaluationSection()


class Gallery:
    """Best and worst samples of a stream of predictions, at most `most` of each.

    Best: highest F1 among samples with landslides. Worst: most wrong pixels, because the pooled F1,
    2 tp / (2 tp + fp + fn), falls with their number. Among samples of equal rank, the first is kept.
    """

    def __init__(self, threshold: float, most: int = 5) -> None:
        self.threshold = threshold
        self._most = most
        self._seen = 0
        self._best: list[tuple[float, int, Prediction]] = []
        self._worst: list[tuple[float, int, Prediction]] = []

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Add every prediction and yield it unchanged."""
        for prediction in predictions:
            self.add(prediction)
            yield prediction

    def add(self, prediction: Prediction) -> None:
        """Keep a prediction if it is among the best or the worst so far."""
        confusion = count(prediction.probability >= self.threshold, prediction.sample.mask)
        self._seen += 1
        if confusion.tp + confusion.fn:
            self._offer(self._best, confusion.scores()["f1"], prediction)
        if confusion.fp + confusion.fn:
            self._offer(self._worst, confusion.fp + confusion.fn, prediction)

    def _offer(self, shelf: list[tuple[float, int, Prediction]], rank: float, prediction: Prediction) -> None:
        if len(shelf) == self._most and rank <= shelf[0][0]:
            return
        heapq.heappush(shelf, (rank, -self._seen, _copied(prediction)))
        if len(shelf) > self._most:
            heapq.heappop(shelf)

    @property
    def best(self) -> list[Prediction]:
        """Best samples, the best first."""
        return _sorted(self._best)

    @property
    def worst(self) -> list[Prediction]:
        """Worst samples, the worst first."""
        return _sorted(self._worst)


def _sorted(shelf: list[tuple[float, int, Prediction]]) -> list[Prediction]:
    return [prediction for _, _, prediction in sorted(shelf, key=lambda kept: kept[:2], reverse=True)]


def _copied(prediction: Prediction) -> Prediction:
    """Copy the arrays, which may be views that keep a whole window in memory."""
    sample = replace(prediction.sample, image=prediction.sample.image.copy(), mask=prediction.sample.mask.copy())
    return replace(prediction, sample=sample, probability=prediction.probability.copy())


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """Scores of one protocol, its best and worst samples, and the scores of each model of an ensemble."""

    evaluation: Evaluation
    gallery: Gallery
    folds: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Evaluator:
    """Evaluation of a predictor under the settings of its training.

    Args:
        predict: function from raw pixels (n, h, w, bands) to landslide probability (n, h, w). Several functions are the
            folds of an ensemble: their mean and each fold are evaluated.
        threshold: a pixel with probability >= threshold is landslide.
        mode, size: values in section `sampling` of the configuration.
        gsd_m: ground sample distance of training, metres; None: tiles are not resampled.
        blind: mean mask of the training tiles.
        settings: numbers of windows and of bootstrap draws.
    """

    predict: Predict | Sequence[Predict]
    threshold: float
    mode: Literal["windows", "resized"]
    size: int
    gsd_m: float | None = None
    blind: ImageBlindMask | None = None
    settings: EvaluationSection = DEFAULTS
    seed: int = 2022
    progress: ProgressCallback | None = None

    def tiles(self, tiles: TileSet) -> ProtocolResult:
        """Evaluate on whole tiles, resized as in training or at the ground sample distance of training."""
        return self._evaluate("tiles", lambda predict: self.predict_tiles(predict, tiles), len(tiles))

    def predict_tiles(self, predict: Predict, tiles: TileSet) -> Iterator[Prediction]:
        """Predict whole tiles as `tiles` does, by any function."""
        resized = self.mode == "resized"
        store = TileStore(tiles, cache="recent") if resized else self._at_training_scale(tiles)
        return tile_predictions(predict, store, size=self.size if resized else None, blind=self.blind)

    def windows(self, tiles: TileSet) -> ProtocolResult:
        """Evaluate on random windows of tiles laid edge to edge (`SheetWindows`), which look like a scene."""
        windows = SheetWindows(self._at_training_scale(tiles), self.size, self.settings.windows, self.seed)
        return self._evaluate("windows", lambda predict: window_predictions(predict, windows), len(windows))

    def _at_training_scale(self, tiles: TileSet) -> TileStore:
        return TileStore(tiles, self.gsd_m, self.gsd_m, cache="recent")

    def _evaluate(
        self, protocol: ProtocolName, predictions: Callable[[Predict], Iterable[Prediction]], total: int
    ) -> ProtocolResult:
        gallery = Gallery(self.threshold)
        predictors = (self.predict,) if callable(self.predict) else self.predict
        side_by_side = _watched(gallery, _with_mean([predictions(predict) for predict in predictors]))
        together, *alone = evaluate_side_by_side(
            track(side_by_side, f"{protocol:8}", total, self.progress, protocol),
            protocol,
            self.threshold,
            draws=self.settings.bootstrap,
            seed=self.seed,
        )
        return ProtocolResult(together, gallery, tuple(alone))


def _with_mean(folds: Sequence[Iterable[Prediction]]) -> Iterator[tuple[Prediction, ...]]:
    """Yield for each sample the mean prediction, then that of each fold; for one predictor, only its prediction."""
    for predictions in zip(*folds, strict=True):
        if len(predictions) == 1:
            yield predictions
            continue
        mean = np.mean([prediction.probability for prediction in predictions], axis=0)
        yield replace(predictions[0], probability=mean), *predictions


def _watched(gallery: Gallery, side_by_side: Iterable[tuple[Prediction, ...]]) -> Iterator[tuple[Prediction, ...]]:
    for predictions in side_by_side:
        gallery.add(predictions[0])
        yield predictions


def choose_tiles(
    tiles: TileSet, wanted: Sequence[str] | None, *, test: Sequence[str] = (), training: Sequence[str] = ()
) -> TileSet:
    """Choose the tiles to evaluate on: the wanted ids, else the test tiles, else all tiles not used in training.

    Raises:
        DataError: a wanted id is not in `tiles`, or no tile is left.

    Warns:
        LimKerasWarning: the model was trained on some of the chosen tiles.
    """
    there, trained = set(tiles.ids), set(training)
    if wanted is not None:
        chosen = list(wanted)
    else:
        chosen = [tile_id for tile_id in test if tile_id in there]
        chosen = chosen or [tile_id for tile_id in tiles.ids if tile_id not in trained] or list(tiles.ids)
    if not chosen:
        raise DataError("Expected at least one tile to evaluate on. Received: an empty list.")
    seen = [tile_id for tile_id in chosen if tile_id in trained]
    if seen:
        warn(
            f"{len(seen)} of {len(chosen)} tiles were used in training, such as {seen[0]}: their scores are too high.",
            LimKerasWarning,
            stacklevel=2,
        )
    return tiles.subset(chosen)


def read_matching_tiles(
    tiles: TileSet | StrPath, info: BundleInfo, progress: ProgressCallback | None = None
) -> TileSet:
    """Read tiles; raise DataError if their number of bands or data type differs from that of a bundle's images."""
    known = tiles if isinstance(tiles, TileSet) else read_tiles(tiles, progress)
    if (known.bands, known.dtype) != (info.bands, info.dtype):
        raise DataError(
            f"{known.root}: expected tiles of {info.bands} bands of {info.dtype}, as the bundle {info.name} takes. "
            f"Received: {known.bands} bands of {known.dtype}."
        )
    return known
