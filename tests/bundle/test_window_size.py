"""Sizes of windows: what fits, and what computes the fewest pixels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.bundle.window_size import (
    choose_window,
    default_memory,
    default_pixels,
    held_bytes,
    parse_memory,
    smallest_window,
)
from lim_keras.errors import ConfigError
from lim_keras.raster.windows import plan_windows
from tests.conftest import bundle_info


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2**31), ("1500M", 1500 * 2**20), ("1.5 GiB", 3 * 2**29), ("64k", 2**16), ("7", 7)]
)
def test_sizes_as_text(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-2G", "2X", "1.2.3G"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2G"):
        parse_memory(text)


def test_the_default_follows_network_and_runtime() -> None:
    assert default_memory(1) == 1.5 * 2**30 and default_memory(5) == 2.5 * 2**30
    one, five = (bundle_info(bytes_per_pixel=70.0, folds=folds) for folds in (1, 5))
    # Two windows of 3 bytes a pixel, a mask of 1, 16 to fill gaps, and twice three maps of 4: 47 bytes a pixel.
    assert held_bytes(one) == 47
    # OpenVINO: 1536 - 585 MiB for 1.2 * 70 + 47 = 131 bytes a pixel
    assert default_pixels(one, "openvino") == pytest.approx(951 * 2**20 / 131)
    assert default_pixels(one, "openvino-bf16") == default_pixels(one, "openvino")
    # LiteRT: 1536 - 600 MiB for 2.3 * 70 + 47 = 208 bytes a pixel
    assert default_pixels(one, "litert") == pytest.approx(936 * 2**20 / 208)
    # TensorFlow, and models of other programs: 1536 - 1050 MiB for 1.2 * 70 + 47 = 131 bytes a pixel, 48 more with tta
    assert default_pixels(one) == default_pixels(one, "tensorflow") == pytest.approx(486 * 2**20 / 131)
    assert default_pixels(one, tta=True) == pytest.approx(486 * 2**20 / 203)
    # Five networks in OpenVINO: 2560 - 585 - 4 * 50 MiB for 1.2 * (1 + 4 * .45) * 70 + 47 = 282.2 bytes a pixel
    assert default_pixels(five, "openvino") == pytest.approx(1775 * 2**20 / 282.2)
    # VGG16 in OpenVINO: 951 MiB for 1.65 * 70 + 47 = 162.5 bytes a pixel
    paper = bundle_info(bytes_per_pixel=70.0, model={"encoder": "vgg16"})
    assert default_pixels(paper, "openvino") == pytest.approx(951 * 2**20 / 162.5)


def computed(height: int, width: int, size: tuple[int, int], halo: int) -> int:
    reads = [window.read for window in plan_windows(height, width, size=size, halo=halo, multiple=64)]
    return sum(read.height * read.width for read in reads)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 2500), width=st.integers(1, 2500), halo=st.integers(0, 260), pixels=st.integers(0, 2_000_000)
)
def test_no_window_that_fits_computes_much_less(height: int, width: int, halo: int, pixels: int) -> None:
    best = choose_window([(height, width)], pixels=pixels, halo=halo, multiple=64)
    least = smallest_window(halo, height, width, 64)
    assert best[0] * best[1] <= max(pixels, least)
    fewest = computed(height, width, best, halo)
    for rows in range(64, 2561, 192):
        for columns in range(64, 2561, 192):
            if rows * columns > max(pixels, least):
                continue
            try:
                other = computed(height, width, (rows, columns), halo)
            except ValueError:  # no core between two halos
                continue
            assert fewest <= 1.01 * other


def test_a_strip_of_the_whole_width_where_the_scene_is_narrow() -> None:
    # At most 2 Mi pixels: 1024 columns leave 2048 rows, with halos above and below alone. 27 windows of 2048 rows and
    # one of 1616 compute 56 912, the fewest. 28 windows of 1984 and one of 1616 compute 57 168, within 1 %, and take
    # less memory. 30 windows of 1920, of which the last is read in full, compute 57 600.
    assert choose_window([(50_000, 1000)], pixels=2**21, halo=128, multiple=64) == (1984, 1024)
    assert choose_window([(1000, 50_000)], pixels=2**21, halo=128, multiple=64) == (1024, 1984)


def test_a_scene_that_fits_is_one_window() -> None:
    assert choose_window([(300, 500)], pixels=10**9, halo=128, multiple=64) == (320, 512)
    assert choose_window([(30, 40), (20, 64)], pixels=0, halo=128, multiple=64) == (64, 64)


def test_no_window_is_smaller_than_a_core_between_two_halos() -> None:
    assert choose_window([(5000, 5000)], pixels=0, halo=127, multiple=64) == (320, 320)
    assert choose_window([(5000, 100)], pixels=0, halo=127, multiple=64) == (320, 128)
