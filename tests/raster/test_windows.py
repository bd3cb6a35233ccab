"""Halo arithmetic: cores tile the scene, reads hold their halo, starts lie on the grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.raster.windows import Box, Window, plan_windows, smallest_side


def test_two_windows_by_hand() -> None:
    # size 256, halo 64, 300 columns. The scene's edge needs no halo: the first core ends at 256 - 64 = 192, is read to
    # 256; the second is read from 192 - 64 = 128 on, and 300 - 128 = 172 columns fit into a window.
    assert plan_windows(100, 300, size=256, halo=64, multiple=64) == [
        Window(read=Box(0, 0, 100, 256), core=Box(0, 0, 100, 192)),
        Window(read=Box(0, 128, 100, 300), core=Box(0, 192, 100, 300)),
    ]


def test_a_window_may_be_wider_than_high() -> None:
    # Rows: 100 > 96, so cores end at 96 - 32 = 64 and 100. Columns: 300 fit into one window.
    assert plan_windows(100, 300, size=(96, 300), halo=20, multiple=32) == [
        Window(read=Box(0, 0, 96, 300), core=Box(0, 0, 64, 300)),
        Window(read=Box(32, 0, 100, 300), core=Box(64, 0, 100, 300)),
    ]


def test_inner_is_the_core_seen_from_the_read_box() -> None:
    window = Window(read=Box(64, 128, 320, 384), core=Box(128, 192, 256, 320))
    assert window.inner == Box(64, 64, 192, 192)
    assert (window.inner.height, window.inner.width) == (128, 128)
    assert window.inner.slices == (slice(64, 192), slice(64, 192))


def test_a_scene_smaller_than_a_window_is_one_window_without_halo() -> None:
    assert plan_windows(37, 1) == [Window(read=Box(0, 0, 37, 1), core=Box(0, 0, 37, 1))]


def test_halo_is_rounded_up_to_the_grid() -> None:
    # halo 70 becomes 128: the first core ends at 448 - 128 = 320, the second is read from 320 - 128 = 192 on.
    assert plan_windows(1, 500, size=448, halo=70, multiple=64)[1].read == Box(0, 192, 1, 500)


def test_no_halo_tiles_edge_to_edge() -> None:
    windows = plan_windows(64, 128, size=64, halo=0, multiple=64)
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
    size = 2 * margin + max(multiple, 40) + extra
    seen = np.zeros((height, width), np.int64)
    for window in plan_windows(height, width, size=size, halo=halo, multiple=multiple):
        core, read = window.core, window.read
        seen[core.slices] += 1
        assert read.height <= size and read.width <= size
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
        ({"height": 5, "width": 600, "size": 512, "halo": 256}, "size"),
    ],
)
def test_impossible_sizes_name_the_argument(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        plan_windows(**arguments)


def test_smallest_side_is_the_smallest_that_works() -> None:
    assert smallest_side(70, 64) == 320  # 2 * 128 + 64
    assert plan_windows(1, 2000, size=320, halo=70, multiple=64)[2].core == Box(0, 256, 1, 320)
    with pytest.raises(ValueError, match="at least 320"):
        plan_windows(1, 2000, size=319, halo=70, multiple=64)


def test_boxes_move_and_grow() -> None:
    assert Box(1, 2, 5, 8).shifted(10, 20) == Box(11, 22, 15, 28)
    assert Box(1, 2, 5, 8).grown(3, Box(0, 0, 7, 30)) == Box(0, 0, 7, 11)
    assert Box(11, 22, 15, 28).inside(Box(10, 20, 99, 99)) == Box(1, 2, 5, 8)


def test_the_last_window_gets_the_size_of_the_others_if_it_is_almost_as_large() -> None:
    # Windows of 1024 px with halos of 128 px keep 768 px in the middle and 896 px at an edge. The third one needs the
    # pixels from 1664 - 128 = 1536 to 2500, 964 of 1024; the read of full size starts at 2500 - 1024 = 1476, and on
    # the grid at 1536. For 2470 px it starts at 1472.
    def reads(length: int, size: int = 1024) -> list[tuple[int, int]]:
        return [(one.read.left, one.read.right) for one in plan_windows(1, length, size=size, halo=128)]

    assert reads(2500) == [(0, 1024), (768, 1792), (1536, 2500)]
    assert reads(2470) == [(0, 1024), (768, 1792), (1472, 2470)]
    assert reads(2470, size=1080) == reads(2470)  # the size is used down to the grid
    # 1024 - 128 = 896 px are an eighth less than a window, and 832 px more than an eighth.
    assert reads(2432) == [(0, 1024), (768, 1792), (1408, 2432)]
    assert reads(2368) == [(0, 1024), (768, 1792), (1536, 2368)]


@pytest.mark.parametrize("length", range(1700, 3600, 61))
def test_cores_do_not_depend_on_the_size_of_the_last_window(length: int) -> None:
    windows = plan_windows(1, length, size=1024, halo=128)
    assert [one.core.left for one in windows] == [0, *(one.core.right for one in windows[:-1])]
    assert windows[-1].core.right == length
    for one in windows:
        assert one.read.left <= max(one.core.left - 128, 0) and one.read.left % 64 == 0
        assert one.read.width <= 1024
