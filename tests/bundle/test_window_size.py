"""Sizes of windows: what fits, what is enough, what is too little."""

import psutil
import pytest

from lim_keras.bundle.info import BundleInfo, FileRecord
from lim_keras.bundle.window_size import (
    choose_window,
    free_memory,
    parse_memory,
    tensorflow_bytes,
    window_bytes,
    window_pixels,
)
from lim_keras.errors import ConfigError, DataError
from tests.inference.conftest import Folds, small_model


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 * 2**30), ("1500M", 1500 * 2**20), ("1.5 GiB", 3 * 2**29), ("64kb", 2**16), ("123", 123)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-2G", "2X", "1.2.3G"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2G"):
        parse_memory(text)


def test_a_share_of_what_is_free() -> None:
    assert 0 < free_memory() < psutil.virtual_memory().total


def test_windows_fit_into_the_memory(tiny: Folds) -> None:
    before = tensorflow_bytes(tiny.info)
    for memory in (1.2e9, 1.5e9, 2e9):
        rows, columns = choose_window(tiny.info, 50_000, 50_000, int(memory), 64, 127)
        assert rows == columns and rows % 64 == 0
        assert window_bytes(tiny.info, rows * columns) + before <= memory
        assert window_bytes(tiny.info, (rows + 64) ** 2) + before > memory or rows > 2000


def test_networks_take_memory_before_the_first_window() -> None:
    def info(folds: int, graph: int) -> BundleInfo:
        path = "ensemble/1" if folds > 1 else "fold_0/1"
        files = {f"{path}/saved_model.pb": graph, f"{path}/variables/variables.data-00000-of-00001": 1_000_000}
        files |= {"fold_1/1/saved_model.pb": 10**7, "verify.npz": 10**7}  # neither of which is loaded
        records = {name: FileRecord(bytes=size, sha256="") for name, size in files.items()}
        return small_model().info.model_copy(update={"folds": folds, "files": records})

    assert tensorflow_bytes(info(1, 400_000)) - tensorflow_bytes(info(1, 200_000)) == 60 * 200_000 + 200_000
    assert tensorflow_bytes(info(5, 400_000)) == tensorflow_bytes(info(1, 400_000))
    few, many = info(5, 300_000), info(5, 6_000_000)
    smaller, larger = (choose_window(one, 50_000, 50_000, int(1.6e9), 64, 127) for one in (many, few))
    assert smaller < larger
    assert choose_window(many, 50_000, 50_000, int(1.6e9), 64, 127, runtime=900e6) > smaller


def test_memory_of_a_window_and_back() -> None:
    one, five = (small_model().info.model_copy(update={"folds": folds}) for folds in (1, 5))
    for pixels in (64**2, 500**2, 1500**2, 4000**2):
        assert window_pixels(one, window_bytes(one, pixels)) == pytest.approx(pixels)
        assert window_bytes(five, pixels) == window_bytes(one, pixels) + 4 * 8 * pixels
    # What lies idle grows with small windows, stays the same for larger ones, and grows again with the largest.
    small, middle, large = (window_bytes(one, 2 * side**2) / window_bytes(one, side**2) for side in (200, 1500, 4000))
    assert small == large == pytest.approx(2) and middle < 1.95


def test_more_memory_than_is_of_use_is_not_taken(tiny: Folds) -> None:
    # halo 127, margin 128: (t / (t - 256))^2 <= 1.25 from t = 256 / (1 - 1.25^-0.5) = 2425 on
    assert tiny.info.halo == 127
    assert choose_window(tiny.info, 50_000, 50_000, 10**12, 64, 127) == (2368, 2368)


def test_a_narrow_scene_gets_longer_windows(tiny: Folds) -> None:
    square = choose_window(tiny.info, 50_000, 50_000, 10**12, 64, 127)[0] ** 2
    rows, columns = choose_window(tiny.info, 50_000, 1000, 10**12, 64, 127)
    assert columns == 1024 and 0.9 * square < rows * columns <= 1.1 * square
    assert choose_window(tiny.info, 1000, 50_000, 10**12, 64, 127) == (columns, rows)
    assert choose_window(tiny.info, 30, 40, 10**12, 64, 127) == (64, 64)


def test_too_little_memory_says_how_much_is_needed() -> None:
    model = small_model(reduction=2)
    with pytest.raises(DataError, match=r"`memory` of at least \d+ MiB.*halos of 254 px"):
        choose_window(model.info, 50_000, 50_000, int(0.88e9), 64, 254)
    # a scene smaller than the smallest window needs less
    assert choose_window(model.info, 64, 64, int(0.87e9), 64, 127) == (64, 64)
