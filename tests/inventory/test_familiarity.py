"""A scene unlike the training imagery: `predict` warns, and its summary holds how much of it is unfamiliar."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lim_keras.export.familiarity as fitting
from lim_keras.bundle import familiarity
from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from tests.export.conftest import facts, network
from tests.inference.conftest import Write


def smooth(seed: int, size: int = fitting.SIDE) -> np.ndarray:
    """A cell of large, soft shapes."""
    coarse = np.random.default_rng(seed).uniform(90, 160, (size // 64, size // 64, 3))
    return np.kron(coarse, np.ones((64, 64, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("known") / "net", network(1)
    known = [np.stack([smooth(first + number) for number in range(count)]) for first, count in ((0, 80), (100, 40))]
    write_bundle(path, facts(), [model], familiarity=fitting.fit_familiarity(model, *known))
    return path


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_predict_warns_of_an_unfamiliar_scene(bundle: Path, write: Write, tmp_path: Path, runtime: str) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    write("usual.tif", smooth(300, 512))
    write("noise.tif", noise)
    command = ["predict", str(bundle), str(tmp_path), "--out", str(tmp_path / "maps"), "--runtime", runtime]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    said = done.output.replace("\n", " ")
    assert "100% of the scene (4 of 4 sampled cells of 256 x 256 px) looks unlike the training imagery" in said
    assert said.count("looks unlike") == 1
    found = {
        name: json.loads((tmp_path / "maps" / f"{name}_summary.json").read_text())["familiarity"]
        for name in ("usual", "noise")
    }
    assert found["noise"] == {"cells": 4, "unfamiliar_share": 1.0, "median_familiarity": 0.0}
    assert found["usual"]["cells"] == 4 and found["usual"]["unfamiliar_share"] < 1


def test_a_merge_without_a_library_says_so(
    bundle: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(path: Path) -> None:
        raise ImportError(path)

    write("usual.tif", smooth(300, 512))
    scene, out = str(tmp_path / "usual.tif"), str(tmp_path / "maps")
    command = ["predict", str(bundle), scene, "--out", out, "--runtime", "tensorflow"]
    part = CliRunner().invoke(main, [*command, "--part", "1/1"])
    assert part.exit_code == 0, part.output
    for name in ("_with_litert", "_with_openvino", "_with_tensorflow"):
        monkeypatch.setattr(familiarity, name, absent)
    done = CliRunner().invoke(main, [*command, "--merge"])
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "maps" / "usual_summary.json").read_text())
    assert summary["familiarity"] is None
    assert any("usual.tif: its familiarity is not measured" in one for one in summary["warnings"])


def test_bundles_without_it_say_nothing(write: Write, tmp_path: Path) -> None:
    write_bundle(tmp_path / "net", facts(), [network(1)])
    write("usual.tif", smooth(300, 512))
    command = ["predict", str(tmp_path / "net"), str(tmp_path / "usual.tif"), "--out", str(tmp_path / "maps")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "maps" / "usual_summary.json").read_text())["familiarity"] is None
