"""Evaluate a predictor on tiles and windows."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from warnings import warn

import numpy as np

from lim_keras.config import EvaluationSection
from lim_keras.data.store import TileStore
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.evaluation import Evaluation, Prediction, ProtocolName, evaluate_side_by_side
from lim_keras.evaluation.protocols import SheetWindows, tile_predictions, window_predictions
from lim_keras.metrics.binary import count
from lim_keras.metrics.image_blind import ImageBlindMask
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.scene import Predict


class Gallery:
    """Keeps the best and worst places of a stream, and nothing of the others.

    Best is the highest F1 among places with landslides. Worst is the most wrong pixels, missed or false: the pooled F1,
    2 tp / (2 tp + fp + fn), suffers from their number, wherever they lie. Of equals the first is kept.

    Args:
        threshold: probability from which a pixel is called landslide.
        most: places kept of each.
    """

    def __init__(self, threshold: float, most: int = 5) -> None:
        self.threshold = threshold
        self._most = most
        self._seen = 0
        self._best: list[tuple[float, int, Prediction]] = []
        self._worst: list[tuple[float, int, Prediction]] = []

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Pass predictions on unchanged, keeping what belongs to the gallery."""
        for prediction in predictions:
            self.add(prediction)
            yield prediction

    def add(self, prediction: Prediction) -> None:
        """Keep a prediction if it belongs to the gallery."""
        confusion = count(prediction.probability >= self.threshold, prediction.place.mask)
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
        """Best first."""
        return [prediction for _, _, prediction in sorted(self._best, key=lambda kept: kept[:2], reverse=True)]

    @property
    def worst(self) -> list[Prediction]:
        """Worst first."""
        return [prediction for _, _, prediction in sorted(self._worst, key=lambda kept: kept[:2], reverse=True)]


def _copied(prediction: Prediction) -> Prediction:
    """Arrays of its own: a block of a scene would otherwise keep the whole window that it was cut from."""
    place = replace(prediction.place, image=prediction.place.image.copy(), mask=prediction.place.mask.copy())
    return replace(prediction, place=place, probability=prediction.probability.copy())


DEFAULTS = EvaluationSection()


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """The figures of one protocol, and the places to look at.

    folds: the figures of each model alone, where the mean of several was judged.
    """

    evaluation: Evaluation
    gallery: Gallery
    folds: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Evaluator:
    """A predictor, and what judging it needs to know of its training.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w). Of several, an ensemble's folds, the mean is
            judged and each alone as well, and each is asked once for every place.
        threshold: probability from which a pixel is landslide.
        mode, size: section `sampling` of its configuration.
        gsd_m: ground sample distance that it was trained at, metres; None: tiles are left as they are.
        blind: mean mask of its training tiles.
        settings: number of windows and of bootstrap draws.
        seed: of both.
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
        """Whole tiles: resized as in training, or at the ground sample distance of training."""
        resized = self.mode == "resized"
        store = TileStore(tiles, cache="recent") if resized else self._at_training_scale(tiles)
        size = self.size if resized else None
        return self._judge(
            "tiles", lambda predict: tile_predictions(predict, store, size=size, blind=self.blind), len(tiles)
        )

    def windows(self, tiles: TileSet) -> ProtocolResult:
        """Random windows of the tiles laid edge to edge, at the ground sample distance of training; see `SheetWindows`.

        A model trained on whole resized tiles is shown the same windows: they are how a scene looks.
        """
        store, count = self._at_training_scale(tiles), self.settings.windows
        windows = SheetWindows(store, self.size, count, self.seed)
        return self._judge("windows", lambda predict: window_predictions(predict, windows, count), count)

    def _at_training_scale(self, tiles: TileSet) -> TileStore:
        return TileStore(tiles, self.gsd_m, self.gsd_m, cache="recent")

    def _judge(
        self, protocol: ProtocolName, predictions: Callable[[Predict], Iterable[Prediction]], total: int
    ) -> ProtocolResult:
        gallery = Gallery(self.threshold)
        side_by_side = _with_mean([predictions(predict) for predict in self._predicts])
        shown = track(_shown_to(gallery, side_by_side), f"{protocol:8}", total, self.progress, protocol)
        draws = self.settings.bootstrap
        together, *alone = evaluate_side_by_side(shown, protocol, self.threshold, draws=draws, seed=self.seed)
        return ProtocolResult(together, gallery, tuple(alone))

    @property
    def _predicts(self) -> Sequence[Predict]:
        return (self.predict,) if callable(self.predict) else self.predict


def _with_mean(folds: Sequence[Iterable[Prediction]]) -> Iterator[tuple[Prediction, ...]]:
    """Place by place, what the folds say: their mean, then each of them; the prediction alone where there is one."""
    for predictions in zip(*folds, strict=True):
        if len(predictions) == 1:
            yield predictions
            continue
        mean = np.mean([prediction.probability for prediction in predictions], axis=0)
        yield replace(predictions[0], probability=mean), *predictions


def _shown_to(gallery: Gallery, side_by_side: Iterable[tuple[Prediction, ...]]) -> Iterator[tuple[Prediction, ...]]:
    """Pass predictions on; the gallery keeps what it wants of the first of each place."""
    for predictions in side_by_side:
        gallery.add(predictions[0])
        yield predictions


def choose_tiles(
    tiles: TileSet, wanted: Sequence[str] | None, *, test: Sequence[str] = (), training: Sequence[str] = ()
) -> TileSet:
    """The tiles to judge on: those asked for, else the run's test tiles, else all that it was not trained on.

    Args:
        tiles: the set.
        wanted: ids asked for; None: not asked.
        test, training: ids of the run's test and training tiles, as far as they are known.

    Raises:
        DataError: an id asked for is not in the set.

    Warns:
        LimKerasWarning: tiles that the model was trained on are among them.
    """
    there, trained = set(tiles.ids), set(training)
    if wanted is not None:
        chosen = list(wanted)
    else:
        chosen = [tile_id for tile_id in test if tile_id in there]
        chosen = chosen or [tile_id for tile_id in tiles.ids if tile_id not in trained] or list(tiles.ids)
    if not chosen:
        raise DataError("No tile to judge on. Expected at least one id. Received: an empty list")
    seen = [tile_id for tile_id in chosen if tile_id in trained]
    if seen:
        warn(
            f"{len(seen)} of {len(chosen)} tiles were used in training (such as {seen[0]}): their figures are no test.",
            LimKerasWarning,
            stacklevel=2,
        )
    return tiles.subset(chosen)
