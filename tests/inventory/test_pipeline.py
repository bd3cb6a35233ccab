"""Threads of a stream of batches: order, parallel work, bounded memory, errors."""

from threading import Barrier

import pytest

from lim_keras.inventory.pipeline import mapped


def test_two_results_are_computed_at_the_same_time_and_come_in_order():
    together = Barrier(2)

    def square(number: int) -> int:
        together.wait(timeout=30)  # passes only while another call waits, too
        return number**2

    assert list(mapped(square, iter(range(6)))) == [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16), (5, 25)]


def test_no_more_than_three_items_are_held():
    taken: list[int] = []
    items = (taken.append(number) or number for number in range(20))
    assert [len(taken) - number for number, _ in mapped(str, items)] == [3] * 18 + [2, 1]


def test_an_error_is_raised_at_its_item():
    results = mapped(lambda number: 6 // number, iter([3, 2, 0, 1]))
    assert [next(results), next(results)] == [(3, 2), (2, 3)]
    with pytest.raises(ZeroDivisionError):
        next(results)
