"""A scene unlike the training imagery: `predict` warns, and its summary holds how much of it is unfamiliar."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
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


def test_the_map_is_written_on_request(bundle: Path, write: Write, tmp_path: Path) -> None:
    image = smooth(300, 512)
    image[:, 256:] = np.random.default_rng(5).integers(0, 256, (512, 256, 3))
    scene, out = write("half.tif", image), tmp_path / "maps"
    command = ["predict", str(bundle), str(scene), "--out", str(out), "--threshold", "0", "--all"]
    done = CliRunner().invoke(main, [*command, "--familiarity"])
    assert done.exit_code == 0, done.output
    assert "of 4 cells of 256 x 256 px" in done.output.replace("\n", " ")
    with rasterio.open(out / "half_familiarity.tif") as file:
        found = file.read(1)
        assert file.transform == Affine(256 * 0.8, 0, 5e5, 0, -256 * 0.8, 3e6)
    assert found.shape == (2, 2)
    assert (found[:, 1] == 0).all()
    assert found[:, 0].max() > 0
    summary = json.loads((out / "half_summary.json").read_text())
    assert summary["familiarity"]["cells"] == 4
    assert summary["settings"]["familiarity"] is True
    assert "half_familiarity.tif" in summary["files"]
    item = json.loads((out / "half_stac.json").read_text())
    assert item["assets"]["familiarity"]["href"] == "./half_familiarity.tif"
    inventory = geopandas.read_file(out / "half_inventory.gpkg")
    assert len(inventory) == 1  # every pixel reaches the threshold of 0
    assert inventory["familiarity"][0] == pytest.approx(found.mean(), abs=1e-6)

    assert "half" in CliRunner().invoke(main, [*command, "--familiarity"]).output
    again = CliRunner().invoke(main, command)  # without it, the map of the earlier call is removed
    assert again.exit_code == 0, again.output
    assert not (out / "half_familiarity.tif").exists()
    assert "familiarity" not in json.loads((out / "half_summary.json").read_text())["settings"]
    assert "familiarity" not in geopandas.read_file(out / "half_inventory.gpkg").columns


def test_a_bundle_that_knows_none_cannot_map_it(write: Write, tmp_path: Path) -> None:
    write_bundle(tmp_path / "net", facts(), [network(1)])
    scene = write("usual.tif", smooth(300, 512))
    command = ["predict", str(tmp_path / "net"), str(scene), "--out", str(tmp_path / "maps"), "--familiarity"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code != 0
    assert "knows none" in done.output
    assert "lim-keras export --familiarity" in done.output.replace("\n", " ")
    assert not (tmp_path / "maps").exists()


def test_bundles_without_it_say_nothing(write: Write, tmp_path: Path) -> None:
    write_bundle(tmp_path / "net", facts(), [network(1)])
    write("usual.tif", smooth(300, 512))
    command = ["predict", str(tmp_path / "net"), str(tmp_path / "usual.tif"), "--out", str(tmp_path / "maps")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "maps" / "usual_summary.json").read_text())["familiarity"] is None
