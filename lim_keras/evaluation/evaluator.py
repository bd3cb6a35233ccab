"""Evaluate a predictor on tiles and windows."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from warnings import warn

import numpy as np

from lim_keras.bundle.protocol import Predict
from lim_keras.config import EvaluationSection
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.evaluation import Evaluation, Prediction, ProtocolName, evaluate_side_by_side
from lim_keras.evaluation.protocols import SheetWindows, tile_predictions, window_predictions
from lim_keras.metrics.binary import count
from lim_keras.metrics.image_blind import ImageBlindMask
from lim_keras.progress import ProgressCallback, track

DEFAULTS = EvaluationSection()


class Gallery:
    """The best and the worst samples of a stream of predictions.

    Best: highest F1 among samples with landslides. Worst: most wrong pixels, missed or false, because the pooled F1,
    2 tp / (2 tp + fp + fn), falls with their number. Among equals the first is kept.

    Args:
        threshold: probability from which a pixel is landslide.
        most: number of samples kept of each.
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
    """Scores of one protocol, and the samples to look at.

    folds: evaluation of each model alone, where the mean of several was evaluated.
    """

    evaluation: Evaluation
    gallery: Gallery
    folds: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Evaluator:
    """A predictor with the settings of its training that its evaluation needs.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w). With several predictors (folds of an ensemble),
            their mean is evaluated, and each one alone.
        threshold: probability from which a pixel is landslide.
        mode, size: section `sampling` of the configuration.
        gsd_m: ground sample distance of training, metres; None: tiles are not resampled.
        blind: mean mask of the training tiles.
        settings: number of windows and of bootstrap draws.
        seed: of windows and bootstrap.
        progress: receives the number of evaluated samples.
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
        resized = self.mode == "resized"
        store = TileStore(tiles, cache="recent") if resized else self._at_training_scale(tiles)
        size = self.size if resized else None
        return self._evaluate(
            "tiles", lambda predict: tile_predictions(predict, store, size=size, blind=self.blind), len(tiles)
        )

    def windows(self, tiles: TileSet) -> ProtocolResult:
        """Evaluate on random windows of the tiles laid edge to edge (`SheetWindows`), at the scale of training.

        A model of resized tiles gets the same windows, because a scene looks like them.
        """
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
    """Yield for each sample the mean of the folds, then each fold; a single predictor alone."""
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
    """Choose the tiles to evaluate on: the wanted ones, else the run's test tiles, else all that were not trained on.

    Args:
        tiles: all tiles.
        wanted: ids of tiles; None: choose.
        test, training: ids of the run's test and training tiles, as far as they are known.

    Raises:
        DataError: a wanted id is not in `tiles`, or there are none.

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
            f"{len(seen)} of {len(chosen)} tiles were used in training (such as {seen[0]}): their scores are no test.",
            LimKerasWarning,
            stacklevel=2,
        )
    return tiles.subset(chosen)
