"""The best and the worst places, against sorting all of them."""

import numpy as np

from lim_keras.evaluation.evaluation import Prediction, Sample
from lim_keras.evaluation.evaluator import Gallery
from lim_keras.metrics.binary import count
from lim_keras.metrics.image_blind import everywhere


def stream(places: int) -> list[Prediction]:
    rng = np.random.default_rng(6)
    predictions = []
    for k in range(places):
        mask = (rng.random((6, 6)) < 0.3 * (k % 3)).astype(np.uint8)
        sample = Sample(f"place {k}", "", "", np.zeros((6, 6, 1), np.uint8), mask)
        predictions.append(Prediction(sample, rng.random((6, 6)).astype(np.float32), everywhere((6, 6))))
    return predictions


def test_keeps_what_sorting_everything_finds() -> None:
    predictions = stream(40)
    gallery = Gallery(0.5, most=5)
    assert [kept is given for kept, given in zip(gallery.watch(predictions), predictions, strict=True)] == [True] * 40

    counts = {p.sample.name: count(p.probability >= 0.5, p.sample.mask) for p in predictions}
    with_landslide = [name for name, confusion in counts.items() if confusion.tp + confusion.fn]
    by_f1 = sorted(with_landslide, key=lambda name: -counts[name].scores()["f1"])
    by_errors = sorted(counts, key=lambda name: -(counts[name].fp + counts[name].fn))
    assert [kept.sample.name for kept in gallery.best] == by_f1[:5]
    assert [kept.sample.name for kept in gallery.worst] == by_errors[:5]


def test_fewer_places_than_asked_for() -> None:
    gallery = Gallery(0.5)
    assert gallery.best == gallery.worst == []
    for _ in gallery.watch(stream(2)):
        pass
    assert len(gallery.best) == 1  # the first has no landslide
    assert len(gallery.worst) == 2


def test_perfect_places_are_not_among_the_worst() -> None:
    mask = np.eye(4, dtype=np.uint8)
    sample = Sample("perfect", "landslide", "", np.zeros((4, 4, 3), np.uint8), mask)
    gallery = Gallery(0.5)
    list(gallery.watch([Prediction(sample, mask.astype(np.float32), everywhere((4, 4)))]))
    assert gallery.worst == [] and [kept.sample.name for kept in gallery.best] == ["perfect"]


def test_kept_arrays_do_not_hold_the_window_that_they_were_cut_from() -> None:
    window, mask = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8)
    sample = Sample("cut", "landslide", "", window[:4, :4], mask[:4, :4])
    gallery = Gallery(0.5)
    list(gallery.watch([Prediction(sample, np.ones((64, 64), np.float32)[:4, :4], everywhere((4, 4)))]))
    kept = gallery.best[0]
    assert all(array.base is None for array in (kept.sample.image, kept.sample.mask, kept.probability))
