"""Windows by measured memory: the memory of the process is made up, and grows with the window that a model predicts."""

import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import LimKerasWarning
from lim_keras.inference import window_plan
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.raster.reader import RasterReader
from tests.conftest import bundle_info

from .conftest import Write, texture

MIB = 2**20


@dataclass
class Hungry:
    """Model that takes `each` bytes a pixel while it predicts; the process has `rest` bytes before, `later` after."""

    each: int
    rest: int
    later: int
    info: BundleInfo
    now: int = 0
    seen: tuple[tuple[int, ...], ...] = ()

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.seen = (*self.seen, images.shape[1:3])
        self.rest = self.later
        self.now = self.rest + self.each * int(np.prod(images.shape[1:3]))
        time.sleep(0.02)  # the watching thread looks every few milliseconds
        self.now = self.rest
        nothing = np.zeros(images.shape[:3], np.float32)
        return EnsemblePrediction(nothing + 0.25, nothing, nothing.astype(np.int32))


@pytest.fixture
def hungry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hungry]:
    """hungry(each, rest, later): make the model, and let it set the memory of the process."""

    def make(each: int, rest: int, later: int) -> Hungry:
        model = Hungry(each, rest, later, bundle_info(halo=0, stride=32, bytes_per_pixel=8.0), rest)
        monkeypatch.setattr(window_plan, "process_memory", lambda: model.now)
        return model

    return make


def test_memory_that_is_freed_meanwhile_is_no_reason_to_refuse(
    hungry: Callable[..., Hungry], write: Write, tmp_path: Path
) -> None:
    model = hungry(each=100, rest=900 * MIB, later=300 * MIB)
    with RasterReader(write("scene.tif", texture(300, 500))) as scene:
        _, plan = predict_maps(model, scene, tmp_path / "maps", options=MapOptions(memory=2000 * MIB))
    assert plan["count"] == 1 and plan["tile"] == [320, 512]


def test_a_first_window_beyond_the_limit_makes_windows_smaller(
    hungry: Callable[..., Hungry], write: Write, tmp_path: Path
) -> None:
    model = hungry(each=20_000, rest=300 * MIB, later=300 * MIB)  # the table expects some hundred bytes
    with RasterReader(write("scene.tif", texture(300, 500))) as scene:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", LimKerasWarning)
            _, plan = predict_maps(model, scene, tmp_path / "maps", options=MapOptions())
        first, *_ = (str(one.message) for one in said)
        assert re.match(r"scene.tif: a window of 320 x 512 px took the process to 3\d{3} MiB.* Windows of \d", first)
        assert plan["count"] > 1 and (300, 500) in model.seen
        assert 300 + 20_000 * np.prod(plan["tile"]) / MIB < 1536
        with warnings.catch_warnings():  # the plan that was recorded is taken
            warnings.simplefilter("error")
            assert predict_maps(model, scene, tmp_path / "maps", options=MapOptions())[1] == plan


def test_default_windows_keep_a_useful_core(hungry: Callable[..., Hungry], write: Write, tmp_path: Path) -> None:
    model = hungry(each=60_000, rest=300 * MIB, later=300 * MIB)
    model.info = model.info.model_copy(update={"halo": 64})
    scene = write("scene.tif", texture(700, 900))
    with RasterReader(scene) as reader, pytest.warns(LimKerasWarning, match=r"took the process to"):
        _, plan = predict_maps(model, reader, tmp_path / "maps", options=MapOptions())
    rows, columns = plan["tile"]
    assert rows * columns <= 8 * (rows - 128) * (columns - 128)
    assert rows * columns < 300 * 500
