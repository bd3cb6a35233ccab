"""LiteRT models as models for scenes: windows of any or of one size, padding, numbers of eight bits."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lim_keras.bundle import litert
from lim_keras.bundle.litert import LiteRtModel, comparison_side, halo_of_input, load_litert, padded
from lim_keras.errors import BundleError, ConfigError, DataError
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.raster.reader import RasterReader
from lim_keras.workers.cores import usable_cores
from tests.inference.conftest import Folds, Write, constant_model, texture


class Runner:
    """A signature runner whose only fold says mean of the bands / 256 of each pixel."""

    def __init__(self, side: int | None, dtype: Any = np.uint8, quantized: bool = False) -> None:
        scale = (0.5, 3) if quantized else (0.0, 0)
        self._input = {
            "shape_signature": np.array([1, side or -1, side or -1, 3]),
            "dtype": dtype,
            "quantization": scale,
        }
        self._output = {"quantization": (1 / 256, 0) if quantized else (0.0, 0)}
        self.seen: list[np.ndarray] = []

    def get_input_details(self) -> dict[str, Any]:
        return {"image": self._input}

    def get_output_details(self) -> dict[str, Any]:
        return {"probability": self._output}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.seen.append(image)
        mean = image.astype(np.float32).mean(axis=-1, keepdims=True)
        return {"probability": mean / 256 if self._output["quantization"][0] == 0 else np.full_like(mean, 64)}


def model(monkeypatch: pytest.MonkeyPatch, runner: Runner, halo: int = 64) -> LiteRtModel:
    monkeypatch.setattr(litert, "_runner", lambda path, threads: runner)
    return LiteRtModel(constant_model().info.model_copy(update={"halo": halo}), Path("x.tflite"))


class OneAtATime(Runner):
    """Like an interpreter: its input is shared, and calls that overlap answer for each other's image."""

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.shared = image
        time.sleep(0.05)
        return super().__call__(self.shared)


def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = model(monkeypatch, OneAtATime(None))
    images = [np.full((1, 8, 8, 3), value, np.uint8) for value in (0, 64, 128, 192)]
    ready = threading.Barrier(len(images))

    def predict(image: np.ndarray) -> float:
        ready.wait()
        return float(shared.predict(image).mean())

    with ThreadPoolExecutor(len(images)) as pool:
        assert list(pool.map(predict, images)) == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("side", [256, None])
@pytest.mark.parametrize("size", [(1, 1), (256, 256), (300, 700)])
def test_images_of_any_size(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], side: int | None) -> None:
    runner = Runner(side)
    image = texture(*size)
    said = model(monkeypatch, runner).predict_all(image[np.newaxis])
    assert (model(monkeypatch, runner).predict(image[np.newaxis]) == said.probability).all()
    expected = image.astype(np.float32).mean(axis=-1) / 256
    assert np.abs(said.probability[0] - expected).max() < 1e-6
    assert (said.votes[0] == (expected >= 0.5)).all() and not said.spread.any()
    assert {one.shape for one in runner.seen} == {(1, side or size[0], side or size[1], 3)}


def test_a_scene_is_cut_into_windows_of_the_file(monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path) -> None:
    runner = Runner(256)
    image = texture(300, 500)
    one = model(monkeypatch, runner)
    with RasterReader(write("scene.tif", image)) as scene:
        _, plan = predict_maps(one, scene, tmp_path / "maps", options=MapOptions())
        # cores of 192, 128 and 180 px across, of 192 and 108 px down
        assert plan["tile"] == [256, 256] and plan["count"] == len(runner.seen) == 6
        with pytest.raises(ConfigError, match=r"Expected 256, the fixed input size.*Received: 320"):
            predict_maps(one, scene, tmp_path / "other", options=MapOptions(tile=320))


def test_a_file_of_any_size_gets_windows_by_the_memory(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    runner = Runner(None)
    one = model(monkeypatch, runner)
    with RasterReader(write("scene.tif", texture(300, 500))) as scene:
        _, plan = predict_maps(one, scene, tmp_path / "default", options=MapOptions())
        assert plan["tile"] == [320, 512] and [seen.shape for seen in runner.seen] == [(1, 300, 500, 3)]
        _, plan = predict_maps(one, scene, tmp_path / "asked", options=MapOptions(tile=256))
        assert plan["tile"] == [256, 256]
        with pytest.raises(DataError, match=r"at least \d+ MiB, for windows of 192 x 192 px.*Received: 5 MiB"):
            predict_maps(one, scene, tmp_path / "less", options=MapOptions(memory=5 * 2**20))


def test_quantised_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(64, quantized=True)
    said = model(monkeypatch, runner, halo=0).predict_all(np.full((1, 64, 64, 3), 100, np.uint8))
    # 100 / 0.5 + 3 = 203; 64 / 256 = 0.25
    assert (runner.seen[0] == 203).all() and runner.seen[0].dtype == np.uint8
    assert (said.probability == 0.25).all()
    # 200 / 0.5 + 3 is more than eight bits hold
    model(monkeypatch, runner, halo=0).predict_all(np.full((1, 64, 64, 3), 200, np.uint8))
    assert (runner.seen[1] == 255).all()


def test_padding_repeats_the_edge() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert padded(image, 4)[..., 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_tiles_and_halos(tiny: Folds) -> None:
    # halo 127 is 128 on the grid of 64
    assert tiny.info.halo == 127 and comparison_side(tiny.info) == 512
    assert [halo_of_input(tiny.info, tile) for tile in (None, 320, 256, 128)] == [127, 127, 64, 0]
    assert comparison_side(tiny.info.model_copy(update={"stride": 96})) == 576
    with pytest.raises(ConfigError, match=r"multiple of 64 px\. Received: 100"):
        halo_of_input(tiny.info, 100)


def test_images_of_other_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"\(n, height, width, 3\)"):
        model(monkeypatch, Runner(64), halo=0).predict_all(np.zeros((1, 8, 8, 4), np.uint8))


def test_a_file_without_its_description(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"TFL3")
    with pytest.raises(BundleError, match=r"tflite\.json: not found"):
        load_litert(tmp_path / "x.tflite")
    (tmp_path / "tflite.json").write_text("{}")
    with pytest.raises(BundleError, match="not a valid description"):
        load_litert(tmp_path / "x.tflite")


def test_threads_are_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    asked = []
    monkeypatch.setattr(litert, "_runner", lambda path, threads: asked.append(threads) or Runner(64))
    for threads in (None, 1):
        LiteRtModel(constant_model().info, Path("x.tflite"), threads)
    assert asked == [3, 1]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores() == 1


def test_without_litert_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(BundleError, match=r"LiteRT is not installed.*pip install 'lim-keras\[edge\]'"):
        LiteRtModel(constant_model().info, Path("x.tflite"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda right: right * np.nan, r"x\.tflite: expected output `probability` within 0..1. Received: nan..nan"),
        (lambda right: right + 2, r"x\.tflite: expected output `probability` within 0..1"),
        (
            lambda right: right[:, ::2],
            r"x\.tflite: expected output `probability` of shape \(64, 64, 1\). Received: \(32, 64, 1\)",
        ),
    ],
    ids=["nan", "beyond", "half"],
)
def test_an_answer_that_is_no_probability(monkeypatch: pytest.MonkeyPatch, answer: Any, message: str) -> None:
    class Lying(Runner):
        def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
            return {"probability": answer(super().__call__(image)["probability"])}

    with pytest.raises(BundleError, match=message):
        model(monkeypatch, Lying(64), halo=0).predict_all(np.zeros((1, 64, 64, 3), np.uint8))
