"""Familiarity: other textures are far from those of training, in every runtime; recorded in a bundle."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import lim_keras.export.familiarity as fitting
from lim_keras.bundle import familiarity
from lim_keras.bundle.familiarity import FAMILIARITY_FILE, FamiliarityModel, load_familiarity
from lim_keras.bundle.info import BundleInfo, FileRecord
from lim_keras.bundle.saved_model import load_bundle, verify_bundle
from lim_keras.cli import main
from lim_keras.errors import BundleError
from lim_keras.export.bundle import write_bundle
from tests.conftest import bundle_info

from .conftest import facts, network


def textures(count: int, blur: float, seed: int) -> np.ndarray:
    """Cells of noise, smooth with a large `blur`."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(count, fitting.SIDE, fitting.SIDE, 3))
    smooth = np.stack([cv2.GaussianBlur(cell, (0, 0), blur) for cell in cells])
    level = rng.uniform(100, 150, (count, 1, 1, 1))
    return np.clip(level + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows smooth textures."""
    path = tmp_path_factory.mktemp("familiar") / "net"
    model = network(1)
    known = fitting.fit_familiarity(model, textures(60, 6, 1), textures(40, 6, 2))
    write_bundle(path, facts(), [model], familiarity=known)
    return path


def test_the_documents_do_not_call_it_a_model_of_landslides(bundle: Path) -> None:
    assert "familiarity.tflite" not in (bundle / "README.md").read_text()
    assets = json.loads((bundle / "stac-item.json").read_text())["assets"]
    assert assets["familiarity"]["href"] == "./familiarity.tflite" and assets["familiarity"]["roles"] == ["data"]
    assert [name for name, one in assets.items() if "mlm:model" in one["roles"]] == ["fold_0_1"]


def test_other_textures_are_unfamiliar(bundle: Path) -> None:
    model = load_familiarity(load_bundle(bundle))
    assert model is not None
    same, other = model.distances(textures(20, 6, 3)), model.distances(textures(20, 1, 4))
    assert np.mean(same > model.facts.limit) <= 0.2
    assert np.all(other > model.facts.limit) and other.min() > same.max()
    assert model.familiarity(textures(20, 1, 4)).max() <= 0.025
    assert 0.2 < model.familiarity(textures(20, 6, 3)).mean() < 0.8


def test_all_libraries_agree(bundle: Path) -> None:
    cells = textures(3, 3, 5).astype(np.float32)
    loaders = familiarity._with_litert, familiarity._with_openvino, familiarity._with_tensorflow
    answers = np.array([[load(bundle / FAMILIARITY_FILE)(cell[np.newaxis]) for cell in cells] for load in loaders])
    assert np.ptp(answers, axis=0) == pytest.approx(0, abs=1e-3 * answers.max())
    assert len(np.unique(answers[0].round(3))) == 3


def test_a_missing_library_and_a_damaged_file_are_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle.parent / "damaged.tflite"
    path.write_bytes(b"TFL3 no network")
    with pytest.raises(BundleError, match=r"damaged\.tflite: cannot be read"):
        familiarity.load_distance(path)
    for name in ("ai_edge_litert.interpreter", "openvino", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BundleError, match=r"needs LiteRT, OpenVINO or TensorFlow"):
        familiarity.load_distance(bundle / FAMILIARITY_FILE)


def test_a_changed_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "net"
    shutil.copytree(bundle, copy)
    with (copy / FAMILIARITY_FILE).open("ab") as file:
        file.write(b"0")
    with pytest.raises(BundleError, match=r"familiarity\.tflite: expected \d+ bytes"):
        FamiliarityModel(copy, BundleInfo.read(copy))


def test_distances_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "load_distance", lambda path: lambda cell: float("nan"))
    with pytest.raises(BundleError, match=r"its features give no finite distances above 0"):
        fitting.fit_familiarity(network(1), textures(8, 6, 1), textures(2, 6, 2))


def test_the_familiarity_is_the_share_of_held_out_cells_at_least_as_far(bundle: Path) -> None:
    known = BundleInfo.read(bundle).familiarity
    assert known is not None
    known = known.model_copy(update={"distances": (1.0, 2.0, 4.0)})
    assert known.familiarity(np.array([0.5, 1, 2, 3, 4, 9])).tolist() == [1, 1, 0.5, 0.25, 0, 0]


def test_older_descriptions_keep_their_text() -> None:
    assert "familiarity" not in bundle_info().model_dump_json()


def test_export_adds_it_to_an_older_bundle(
    tmp_path: Path, bijie_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    tiles, path = bijie_folder(tmp_path / "tiles", 4, 4), tmp_path / "net"
    ids = tuple(f"{kind}_{number}" for kind in ("ls", "nls") for number in range(4))
    held_out = dict.fromkeys(ids[2:4], 0)
    section = {"name": "fcn_fl", "encoder": "small", "decoder_channels": 8}
    write_bundle(path, facts(model=section, training_tiles=ids, held_out=held_out), [network(1)])
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    command = ["export", str(path), "--familiarity", "--data", str(tiles)]
    few = CliRunner().invoke(main, command)
    assert few.exit_code == 1 and "Received: 6 of its training tiles and 2 of its held-out tiles" in few.output
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    monkeypatch.setattr(fitting, "LEAST_TRAINING", 1)
    monkeypatch.setattr(fitting, "LEAST_HELD_OUT", 1)
    monkeypatch.setattr(fitting, "SIDE", 32)
    (path / FAMILIARITY_FILE).write_text("mine")
    refused = CliRunner().invoke(main, command)
    said = " ".join(refused.output.split())
    assert refused.exit_code == 1 and "familiarity.tflite (not written by lim-keras)" in said
    assert (path / FAMILIARITY_FILE).read_text() == "mine"
    (path / FAMILIARITY_FILE).unlink()
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    # single tiles, and cells of sheets of tiles
    assert "10 training and 4 held-out cells" in done.output
    assert verify_bundle(path) == []
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"model.json"} and (path / FAMILIARITY_FILE).exists()
    monkeypatch.setattr(fitting, "CELL_BYTES", 4 * 32 * 32 * 3)
    limited = CliRunner().invoke(main, command)
    assert limited.exit_code == 0 and "4 training and 4 held-out cells" in limited.output, limited.output
    # A call that was killed after it replaced the file, and before it wrote model.json.
    left, known = path / f".{FAMILIARITY_FILE}.{ended}.1.partial", BundleInfo.read(path)
    left.mkdir()
    (path / FAMILIARITY_FILE).write_bytes(b"of the killed call")
    files = known.files | {FAMILIARITY_FILE: FileRecord.of(path / FAMILIARITY_FILE)}
    known.model_copy(update={"files": files}).write(left)
    assert CliRunner().invoke(main, command).exit_code == 0 and verify_bundle(path) == [] and not left.exists()
    again = CliRunner().invoke(main, ["export", str(path), "--familiarity"])
    assert again.exit_code == 2 and "--familiarity needs the tiles" in again.output
