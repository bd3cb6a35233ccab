"""The places worth looking at: the few best and the few worst, kept while predictions pass by."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lim_keras.evaluation.confusion import count
from lim_keras.evaluation.scoring import Prediction


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
