"""Orders and filters of landslides."""

import pytest
import shapely

from lim_keras.errors import ConfigError
from lim_keras.review.orders import Filter, doubt, ordered


def row(key, **values):
    return {"fid": key, "geometry": shapely.box(0, 0, 1, 1), "status": None, "edited": 0} | values


def test_doubt_adds_disagreement_and_nearness_to_the_threshold():
    # 1 - 0.8 = 0.2; |0.7 - 0.4| / 0.6 = 0.5
    assert doubt(row(1, fold_agreement=0.8, probability_mean=0.7), 0.4) == pytest.approx(0.2 + 0.5)
    assert doubt(row(1, fold_agreement=1.0, probability_mean=0.4), 0.4) == pytest.approx(1)
    assert doubt(row(1, fold_agreement=1.0, probability_mean=1.0), 0.4) == pytest.approx(0)
    assert doubt(row(1, fold_agreement=None, probability_mean=None), 0.4) == 2


def test_orders():
    rows = [
        row(1, area_m2=5.0, probability_mean=0.9, fold_agreement=1.0),
        row(2, area_m2=50.0, probability_mean=0.5, fold_agreement=1.0),
        row(3, area_m2=None, probability_mean=0.9, fold_agreement=0.2),
    ]
    assert ordered(rows, "doubtful", 0.5) == [2, 3, 1]  # 1, 0.8 + 0.2 (later key) and 0.2
    assert ordered(rows, "largest", 0.5) == [2, 1, 3]
    assert ordered([], "north", 0.5) == []
    with pytest.raises(ConfigError, match="`order`"):
        ordered(rows, "random", 0.5)


def test_north_to_south_runs_in_strips_that_turn():
    places = {1: (0, 0), 2: (90, 5), 3: (10, 98), 4: (60, 95), 5: (95, 60), 6: (5, 55), 7: (50, 52), 8: (40, 99)}
    rows = [row(key, geometry=shapely.box(x, y, x + 1, y + 1)) for key, (x, y) in places.items()]
    # sqrt(8) / 2 rounds to one strip; with 32 more landslides in the north there are three.
    assert ordered(rows, "north", 0.5) == [1, 6, 3, 8, 7, 4, 2, 5]
    more = [row(100 + at, geometry=shapely.box(100 + at, 99, 101 + at, 100)) for at in range(32)]
    assert ordered([*rows, *more], "north", 0.5) == [3, 8, 4, *range(100, 132), 5, 7, 6, 1, 2]
    assert ordered([*rows, row(9, geometry=None)], "north", 0.5) == [*range(1, 10)]


def test_filters():
    steep = row(1, probability_mean=0.6, area_m2=200.0, fold_agreement=0.6, slope_mean_deg=30.0)
    assert Filter().matches(steep)
    assert not Filter().matches(steep | {"status": "accepted"})
    assert Filter(shown="all").matches(steep | {"status": "accepted"})
    assert Filter(shown="accepted").matches(steep | {"status": "accepted"})
    assert not Filter(shown="rejected").matches(steep | {"status": "accepted"})
    assert Filter(shown="changed").matches(steep | {"status": "accepted", "edited": 1})
    assert not Filter(probability=(0.7, 1.0)).matches(steep)
    assert not Filter(probability=(0.0, 0.5)).matches(steep)
    assert not Filter(least_area_m2=300).matches(steep)
    assert not Filter(most_agreement=0.5).matches(steep)
    assert not Filter(least_slope_deg=35).matches(steep)
    assert Filter(probability=(0.7, 1.0), least_area_m2=300, most_agreement=0.1, least_slope_deg=35).matches(row(2))
