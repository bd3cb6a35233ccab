"""Held-out tiles predicted among each other: every tile once, cut out where it was laid, other ground around it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from lim_keras.evaluation import evaluator as sheets
from lim_keras.evaluation.evaluator import SheetWindows, predict_array, sheet_predictions


class Ground:
    """A store of grey tiles in memory."""

    def __init__(self, sizes):
        rng = np.random.default_rng(0)
        self.examples = [
            (rng.integers(0, 256, (*size, 3)).astype(np.uint8), (rng.random(size) < 0.2).astype(np.uint8))
            for size in sizes
        ]
        self.tiles = [
            SimpleNamespace(tile_id=f"t{n}", kind="landslide" if n % 2 else "non-landslide", group=f"g{n // 3}")
            for n in range(len(sizes))
        ]

    def __len__(self):
        return len(self.examples)

    def size(self, position):
        return self.examples[position][1].shape

    def get(self, position):
        return self.examples[position]


def by_pixel(images):
    """A predictor that looks at one pixel."""
    return images.mean(axis=-1) / 255


def by_neighbourhood(images):
    """A predictor that looks 3 pixels far."""
    return np.stack([uniform_filter(image.mean(axis=-1) / 255, 7, mode="nearest") for image in images])


SIZES = [(20, 31), (25, 18), (40, 22), (9, 50), (33, 33), (12, 12), (28, 41)]


@pytest.mark.parametrize("side", [4096, 48])
def test_every_tile_once_as_it_is(monkeypatch, side):
    monkeypatch.setattr(sheets, "SIDE", side)
    ground = Ground(SIZES)
    found = {p.sample.name: p for p in sheet_predictions(by_pixel, ground, seed=1, tile=48, halo=8, multiple=8)}
    assert set(found) == {tile.tile_id for tile in ground.tiles}
    for tile, (image, mask) in zip(ground.tiles, ground.examples, strict=True):
        prediction = found[tile.tile_id]
        assert (prediction.sample.kind, prediction.sample.group) == (tile.kind, tile.group)
        np.testing.assert_array_equal(prediction.sample.image, image)
        np.testing.assert_array_equal(prediction.sample.mask, mask)
        np.testing.assert_allclose(prediction.probability, by_pixel(image), rtol=1e-6)
        assert prediction.blind.shape == mask.shape and prediction.blind.all()


def test_tiles_are_seen_among_others():
    ground = Ground(SIZES)
    images = [image for image, _ in ground.examples]
    alone = {t.tile_id: by_neighbourhood(i[None])[0] for t, i in zip(ground.tiles, images, strict=True)}
    differing = 0
    for prediction in sheet_predictions(by_neighbourhood, ground, seed=1):
        own = alone[prediction.sample.name]
        np.testing.assert_allclose(prediction.probability[3:-3, 3:-3], own[3:-3, 3:-3], rtol=1e-5)
        differing += not np.allclose(prediction.probability, own)
    assert differing == len(ground)


def test_neighbours_are_drawn_from_the_seed():
    ground = Ground(SIZES)
    first, again, other = (
        {p.sample.name: p.probability.tobytes() for p in sheet_predictions(by_neighbourhood, ground, seed=seed)}
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("size", [(1, 1), (40, 100), (97, 64)])
def test_an_image_in_windows_is_the_image_as_a_whole(size):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8)
    got = predict_array(by_neighbourhood, image, tile=40, halo=8, multiple=8)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_neighbourhood(image[None])[0], rtol=1e-5)


def test_windows_begin_at_multiples_of_the_stride():
    begins = []

    def predict(images):
        begins.append((int(images[0, 0, 0, 0]), int(images[0, 0, 0, 1])))
        return np.zeros(images.shape[:3])

    rows, columns = np.mgrid[:100, :120]
    predict_array(predict, np.stack([rows, columns], axis=-1).astype(np.uint8), tile=64, halo=16, multiple=16)
    assert len(begins) > 4
    assert all(row % 16 == column % 16 == 0 for row, column in begins)


class Coded(Ground):
    """Every pixel says where it is from: (tile + 1, row, column)."""

    def __init__(self, sizes, masks=None):
        super().__init__(sizes)
        images = [np.dstack([np.full(size, n + 1), *np.indices(size)]).astype(np.uint8) for n, size in enumerate(sizes)]
        masks = masks or [np.zeros(size, np.uint8) for size in sizes]
        self.examples = list(zip(images, masks, strict=True))


@pytest.mark.parametrize("side", [4096, 40])
@pytest.mark.parametrize("size", [24, 48])
def test_windows_hold_the_share_of_landslides_of_the_data(monkeypatch, side, size):
    monkeypatch.setattr(sheets, "SIDE", side)
    # landslides in the middle of their tiles, as in published sets: 20 x 20 of 40 x 40, and two empty tiles
    middle = np.zeros((40, 40), np.uint8)
    middle[10:30, 10:30] = 1
    masks = [middle, np.zeros((60, 30), np.uint8), np.zeros((25, 70), np.uint8)]
    windows = SheetWindows(Coded([mask.shape for mask in masks], masks), size, 1500, 2)
    labels = np.array([windows.window(n)[1] for n in range(1500)])
    expected = 400 / (1600 + 1800 + 1750)
    assert (labels == 1).sum() / (labels != 255).sum() == pytest.approx(expected, rel=0.1)


def test_windows_show_every_pixel_equally_often_and_once_each(monkeypatch):
    monkeypatch.setattr(sheets, "SIDE", 12)
    sizes = [(7, 9), (6, 8), (8, 6), (9, 7), (7, 7), (6, 6)]
    windows = SheetWindows(Coded(sizes), 6, 12000, 0)
    assert len(windows._sheets) > 1 and all(min(sheet.height, sheet.width) >= 6 for sheet in windows._sheets)
    times = np.zeros((len(sizes) + 1, 9, 9))
    for position in range(12000):
        image, mask = windows.window(position)
        seen = image[mask != 255]
        assert len(np.unique(seen, axis=0)) == len(seen)
        np.add.at(times, tuple(seen.T), 1)
    shown = np.concatenate([times[n + 1][: size[0], : size[1]].ravel() for n, size in enumerate(sizes)])
    assert shown.sum() == times.sum()
    assert np.abs(shown / shown.mean() - 1).max() < 0.12


def test_windows_are_seeded_and_come_sheet_by_sheet(monkeypatch):
    monkeypatch.setattr(sheets, "SIDE", 32)
    ground = Coded(SIZES)
    drawn = []
    render = sheets.render
    monkeypatch.setattr(sheets, "render", lambda sheet, *rest: drawn.append(sheet) or render(sheet, *rest))
    windows = SheetWindows(ground, 32, 50, 3)
    first = [windows.window(n) for n in range(50)]
    assert len(drawn) == len(windows._sheets) > 2  # each of them once
    again, other = SheetWindows(ground, 32, 50, 3), SheetWindows(ground, 32, 50, 4)
    assert all((again.window(n)[0] == image).all() for n, (image, _) in enumerate(first))
    assert not all((other.window(n)[0] == image).all() for n, (image, _) in enumerate(first))
