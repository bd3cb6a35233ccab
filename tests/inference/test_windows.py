"""Halo arithmetic: cores tile the scene, reads hold their halo, starts lie on the grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.inference.windows import Box, Window, plan_windows


def test_two_windows_by_hand() -> None:
    # tile 256, halo 64: core 256 - 2 * 64 = 128. 200 columns: cores 0-128 and 128-200; reads 0-192 and 64-200.
    assert plan_windows(100, 200, tile=256, halo=64, multiple=64) == [
        Window(read=Box(0, 0, 100, 192), core=Box(0, 0, 100, 128)),
        Window(read=Box(0, 64, 100, 200), core=Box(0, 128, 100, 200)),
    ]


def test_inner_is_the_core_seen_from_the_read_box() -> None:
    window = Window(read=Box(64, 128, 320, 384), core=Box(128, 192, 256, 320))
    assert window.inner == Box(64, 64, 192, 192)
    assert (window.inner.height, window.inner.width) == (128, 128)
    assert window.inner.slices == (slice(64, 192), slice(64, 192))


def test_a_scene_smaller_than_a_tile_is_one_window_without_halo() -> None:
    assert plan_windows(37, 1) == [Window(read=Box(0, 0, 37, 1), core=Box(0, 0, 37, 1))]


def test_halo_is_rounded_up_to_the_grid() -> None:
    # halo 70 becomes 128, core (448 - 256) = 192: the second core starts at 192 and is read from 192 - 128 = 64.
    assert plan_windows(1, 400, tile=448, halo=70, multiple=64)[1].read == Box(0, 64, 1, 400)


def test_no_halo_tiles_edge_to_edge() -> None:
    windows = plan_windows(64, 128, tile=64, halo=0, multiple=64)
    assert (
        [window.read for window in windows]
        == [window.core for window in windows]
        == [Box(0, 0, 64, 64), Box(0, 64, 64, 128)]
    )


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    multiple=st.sampled_from([1, 7, 32, 64]),
    halo=st.integers(0, 150),
    extra=st.integers(0, 200),
)
def test_cores_tile_the_scene_and_reads_hold_their_halo(
    height: int, width: int, multiple: int, halo: int, extra: int
) -> None:
    margin = -(-halo // multiple) * multiple
    # the smallest core keeps the number of windows of a one-pixel grid bearable
    tile = 2 * margin + max(multiple, 40) + extra
    seen = np.zeros((height, width), np.int64)
    for window in plan_windows(height, width, tile=tile, halo=halo, multiple=multiple):
        core, read = window.core, window.read
        seen[core.slices] += 1
        assert read.height <= tile and read.width <= tile
        assert all(start % multiple == 0 for start in (core.top, core.left, read.top, read.left))
        assert read.top == 0 or core.top - read.top >= halo
        assert read.left == 0 or core.left - read.left >= halo
        assert read.bottom == height or read.bottom - core.bottom >= halo
        assert read.right == width or read.right - core.right >= halo
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"height": 0, "width": 5}, "height"),
        ({"height": 5, "width": -1}, "width"),
        ({"height": 5, "width": 5, "halo": -1}, "halo"),
        ({"height": 5, "width": 5, "multiple": 0}, "multiple"),
        ({"height": 5, "width": 5, "tile": 512, "halo": 256}, "tile"),
    ],
)
def test_impossible_sizes_name_the_argument(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        plan_windows(**arguments)
