"""The choice of an object rule on held-out maps: counts, criterion, working points, curve."""

import numpy as np
import pytest
from scipy import ndimage

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.data.sampling import pack
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import DataError
from lim_keras.evaluation.evaluator import sheet_predictions
from lim_keras.evaluation.object_rule import (
    LabelledMap,
    RuleTable,
    criterion,
    f_scores,
    fit_object_rule,
    predicted_maps,
    tile_numbers,
)
from lim_keras.report.bundle_tables import rule_markdown


def noisy_map(seed: int, side: int = 160) -> LabelledMap:
    """Smooth truth in four tiles; the probability follows it with smooth noise; a border has no label."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), 6)
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), 4)
    field, noise = field / field.std(), noise / noise.std()
    mask = (field > 1.2).astype(np.uint8)
    mask[:5] = 255
    probability = 1 / (1 + np.exp(-3 * (field - 1.2 + noise)))
    rows, columns = np.indices(mask.shape) // (side // 2)
    return LabelledMap(probability.astype(np.float32), mask, (2 * rows + columns).astype(np.int32), ["a", "a", "", ""])


def slow_counts(one: LabelledMap, rule: ObjectRule, gsd_m: float) -> list[tuple[int, int, int, int]]:
    """Mapped, found, predicted and right regions at IoU 0.5 and at any overlap, by sets of pixels."""

    def regions(where: np.ndarray) -> list[np.ndarray]:
        labels, count = ndimage.label(where)
        return [np.flatnonzero(labels == number) for number in range(1, count + 1)]

    truth = regions(one.mask == 1)
    called = regions((one.probability >= np.float32(rule.threshold)) & (one.mask != 255))
    flat = one.probability.ravel()
    called = [
        region
        for region in called
        if flat[region].max() >= np.float32(rule.peak) and len(region) * gsd_m**2 >= rule.min_area_m2
    ]
    rows = []
    for least in (0.5, 1e-9):
        iou = np.array([[len(np.intersect1d(t, c)) / len(np.union1d(t, c)) for c in called] for t in truth])
        iou = iou.reshape(len(truth), len(called)) >= least
        rows.append((len(truth), int(iou.any(axis=1).sum()), len(called), int(iou.any(axis=0).sum())))
    return rows


def test_counts_are_those_of_sets_of_pixels() -> None:
    maps = [noisy_map(seed) for seed in (1, 2)]
    table = RuleTable(maps, threshold=0.37, gsd_m=2.0)
    assert 0.37 in table.thresholds and table.tiles == 8
    for rule in (
        ObjectRule(threshold=0.37),
        ObjectRule(threshold=0.3, peak=0.8),
        ObjectRule(threshold=0.5, peak=0.9, min_area_m2=200),
        ObjectRule(threshold=0.1, min_area_m2=50),
    ):
        slow = np.sum([slow_counts(one, rule, 2.0) for one in maps], axis=0)
        assert np.array_equal(table.counts(rule), slow)
        by_group = table.group_counts(rule)
        # Groups: "a" on both sheets, and two tiles alone on each.
        assert by_group.shape == (5, 2, 4) and np.array_equal(by_group.sum(axis=0), slow)
    # 2 sheets of 160 x 155 labelled pixels of 4 m2; half of each is group "a", less its border
    assert table.area_km2 == pytest.approx(2 * 160 * 155 * 4 / 1e6)
    assert table.group_km2[0] == pytest.approx(2 * 160 * 75 * 4 / 1e6)


def test_criterion() -> None:
    # recall 3/4, precision 3/5: F1 = 2 * .75 * .6 / 1.35 = 2/3; F2 = 5 / (4 / .75 + 1 / .6) = 5/7
    counts = np.array([4, 3, 5, 3])
    assert f_scores(counts) == pytest.approx(2 / 3) and f_scores(counts, 2) == pytest.approx(5 / 7)
    assert f_scores(np.array([4, 0, 5, 0])) == f_scores(np.array([4, 0, 0, 0])) == 0
    # F1 of 1/2 and of 1: their harmonic mean is 2/3
    both = np.array([[4, 2, 4, 2], [4, 4, 4, 4]])
    assert criterion(both) == pytest.approx(2 / 3)
    assert criterion(np.array([[4, 0, 4, 0], [4, 4, 4, 4]])) == 0


def square(probability: np.ndarray, top: int, left: int, side: int, low: float, peak: float) -> None:
    probability[top : top + side, left : left + side] = low
    probability[top + side // 2, left + side // 2] = peak


def staged_map() -> LabelledMap:
    """Four landslides with peaks of .95, .93, .91 and .66; false alarms: six with peaks of .6, one with .94, tiny."""
    probability, mask = np.full((200, 200), 0.02, np.float32), np.zeros((200, 200), np.uint8)
    for row, peak in enumerate((0.95, 0.93, 0.91, 0.66)):
        square(probability, 10 + 50 * row, 10, 20, 0.4, peak)
        mask[10 + 50 * row : 30 + 50 * row, 10:30] = 1
    for column in range(6):
        square(probability, 10, 60 + 23 * column, 21, 0.4, 0.6)
    square(probability, 100, 100, 3, 0.4, 0.94)
    tile = np.repeat(np.arange(4, dtype=np.int32), 50)[:, np.newaxis] * np.ones((1, 200), np.int32)
    return LabelledMap(probability, mask, tile, ["", "", "", ""])


def test_working_points_leave_the_false_alarms_out() -> None:
    fitted = fit_object_rule([staged_map()], threshold=0.37, gsd_m=1.0, source="held_out", draws=200)
    balanced, strict = fitted.working_points["balanced"], fitted.working_points["strict"]
    # A peak of .65 keeps all landslides; the tiny false alarm of 9 m2 falls to the area.
    assert (balanced.threshold, balanced.peak, balanced.min_area_m2) == (0.1, 0.65, 10)
    assert balanced.scores["f1_any_overlap"].value == balanced.scores["f1_iou_50"].value == 1
    assert balanced.scores["false_alarms_km2"].value == 0
    assert strict.rule == balanced.rule  # nothing is better than perfect
    without = fitted.without.scores
    # 11 regions, 4 of them right: precision 4/11, recall 1; 7 false alarms on 0.04 km2
    assert without["precision_any_overlap"].value == pytest.approx(4 / 11)
    assert without["f1_any_overlap"].value == pytest.approx(8 / 15)
    assert without["false_alarms_km2"].value == pytest.approx(175)
    assert without["f1_any_overlap"].low < 8 / 15 < without["f1_any_overlap"].high
    assert (fitted.tiles, fitted.landslides, fitted.area_km2) == (4, 4, pytest.approx(0.04))
    recalls = [point.recall for point in fitted.curve]
    alarms = [point.false_alarms_km2 for point in fitted.curve]
    assert recalls == sorted(set(recalls)) and alarms == sorted(alarms) and recalls[-1] == 1 and alarms[-1] == 0


def test_sensitive_finds_more_and_strict_draws_fewer_false_alarms() -> None:
    fitted = fit_object_rule(
        [noisy_map(seed) for seed in range(3)], threshold=0.5, gsd_m=2.0, source="out_of_fold", draws=50
    )
    points = [fitted.working_points[name].scores for name in ("sensitive", "balanced", "strict")]

    def inverse(name: str) -> list[float]:
        return [sum(1 / one[f"{name}_{match}"].value for match in ("iou_50", "any_overlap")) for one in points]

    recall, precision = inverse("recall"), inverse("precision")
    assert recall == sorted(recall) and precision == sorted(precision, reverse=True)
    assert recall[0] < recall[-1]


def test_without_a_scale_no_area_is_chosen() -> None:
    fitted = fit_object_rule([staged_map()], threshold=0.37, gsd_m=None, source="held_out", draws=20)
    assert all(one.min_area_m2 == 0 for one in fitted.working_points.values()) and fitted.area_km2 is None
    assert np.isnan(fitted.without.scores["false_alarms_km2"].value)
    assert all(point.false_alarms_km2 is None for point in fitted.curve)


def test_one_group_has_no_interval_and_no_landslide_no_rule() -> None:
    one = staged_map()
    alone = LabelledMap(one.probability, one.mask, one.tile, ["a"] * 4)
    fitted = fit_object_rule([alone], threshold=0.37, gsd_m=1.0, source="held_out", draws=20)
    assert np.isnan(fitted.without.scores["f1_any_overlap"].low)
    empty = LabelledMap(one.probability, np.zeros_like(one.mask), one.tile, one.groups)
    with pytest.raises(DataError, match="hold no landslide"):
        fit_object_rule([empty], threshold=0.37, gsd_m=1.0, source="held_out")


def test_without_a_match_the_threshold_of_the_bundle_stays() -> None:
    one = staged_map()
    probability = np.full_like(one.probability, 0.02)
    probability[12:15, 12:15] = 0.8  # 9 of the 400 px of a landslide: no rule has an F1 at an IoU of 0.5
    poor = LabelledMap(probability, one.mask, one.tile, one.groups)
    fitted = fit_object_rule([poor], threshold=0.37, gsd_m=1.0, source="held_out", draws=20)
    assert {point.rule for point in fitted.working_points.values()} == {ObjectRule(threshold=0.37)}
    assert fitted.working_points["balanced"].scores["recall_any_overlap"].value == 0.25


def test_tiles_on_which_nothing_is_found_give_a_rule_and_a_model_card() -> None:
    one = staged_map()
    nothing = LabelledMap(np.full_like(one.probability, 0.02), one.mask, one.tile, one.groups)
    fitted = fit_object_rule([nothing], threshold=0.37, gsd_m=1.0, source="held_out", draws=20)
    assert fitted.curve == () and fitted.working_points["balanced"].rule == ObjectRule(threshold=0.37)
    text = rule_markdown(fitted)
    assert "| balanced | 0.37 |" in text and "4 landslides" in text and "fewest false alarms" not in text


def test_sheets_of_tiles(tiles: TileSet) -> None:
    def predict(images: np.ndarray) -> np.ndarray:
        return images[..., 0].astype(np.float32) / 255

    store = TileStore(tiles)
    maps = list(predicted_maps(predict, store, seed=5))
    cut = {one.sample.name: one for one in sheet_predictions(predict, store, seed=5)}
    sheets = pack([store.size(place) for place in range(len(store))], 4096, 5)
    assert len(maps) == len(sheets) == 1
    for number, (position, box) in enumerate(sheets[0].boxes.items()):
        tile = store.tiles[position]
        assert (maps[0].tile[box.slices] == number).all() and maps[0].groups[number] == tile.group
        assert np.array_equal(maps[0].probability[box.slices], cut[tile.tile_id].probability)
        assert np.array_equal(maps[0].mask[box.slices], cut[tile.tile_id].sample.mask)
    assert np.array_equal(maps[0].tile, tile_numbers(sheets[0]))
