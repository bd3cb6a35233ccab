"""ONNX files: the SavedModel's answers, the metadata of Deepness, and what is never replaced."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

import lim_keras as lk
from lim_keras.bundle.info import BundleInfo, MeasuredHalo
from lim_keras.bundle.saved_model import verify_bundle
from lim_keras.cli import main
from lim_keras.errors import DataError
from lim_keras.export.bundle import write_bundle
from lim_keras.export.onnx_file import _metadata, export_onnx
from lim_keras.models import build_model, network_stride
from tests.conftest import model_facts


def export(path: Path, folds: int = 1, **facts: object) -> Path:
    size = {"encoder_weights": "none", "decoder_channels": 8, "bands": facts.get("bands", 3)}
    models = [build_model("fcn_fl", "small", **size) for _ in range(folds)]
    for seed, model in enumerate(models):
        rng = np.random.default_rng(seed)
        model.set_weights([rng.uniform(0.02, 0.2, one.shape).astype(one.dtype) for one in model.get_weights()])
    write_bundle(path, model_facts(name=path.name, stride=network_stride(), **facts), models)
    return path


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("bundles") / "two", folds=2)


def answer(path: Path, images: np.ndarray) -> np.ndarray:
    """Feed images as Deepness does: bands first, divided by 255."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert made.shape[1:] == [1, "side", "side"], "Deepness refuses other names than one for both sides"
    feed = {given.name: np.float32(images * 1.0 / 255.0).transpose(0, 3, 1, 2)}
    return session.run(None, feed)[0][:, 0]


@pytest.fixture(scope="module", params=[None, 1], ids=["ensemble", "fold"])
def made(request: pytest.FixtureRequest, ensemble: Path, tmp_path_factory: pytest.TempPathFactory):
    return request.param, lk.export_onnx(ensemble, fold=request.param, out=tmp_path_factory.mktemp("onnx"))


@pytest.mark.parametrize("shape", [(1, 64, 96), (2, 51, 33), (1, 1, 1), (3, 7, 130)])
def test_the_answers_of_the_saved_model(ensemble, made, shape):
    fold, file = made
    assert file.path.name == ("ensemble.onnx" if fold is None else "fold_1.onnx") and file.max_difference <= 1e-5
    images = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    expected = lk.load_bundle(ensemble, fold=fold, runtime="tensorflow").predict(images)
    np.testing.assert_allclose(answer(file.path, images), expected, atol=1e-5)


def test_a_fixed_size(ensemble, tmp_path):
    with pytest.warns(lk.LimKerasWarning, match=r"tiles of 96 px have no core between two halos .* at least \d+ px"):
        made = lk.export_onnx(ensemble, fold=0, tile=96, out=tmp_path)
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert made.path.name == "fold_0_96.onnx" and made.metadata["tile_size"] == "96"
    assert (given.shape, answered.shape) == (["images", 3, 96, 96], ["images", 1, 96, 96])
    images = np.random.default_rng(3).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    found = session.run(None, {"image": np.float32(images / 255).transpose(0, 3, 1, 2)})[0][:, 0]
    np.testing.assert_allclose(found, lk.load_bundle(ensemble, fold=0).predict(images), atol=1e-5)


def test_digital_numbers_of_other_types(tmp_path):
    bundle = export(tmp_path / "wide", dtype="uint16", bands=5)
    made = lk.export_onnx(bundle)
    assert made.path == bundle / "onnx" / "fold_0.onnx" and "model_type" not in made.metadata
    images = np.random.default_rng(2).integers(0, 10_000, (1, 40, 70, 5)).astype(np.uint16)
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": images.astype(np.float32).transpose(0, 3, 1, 2)})[0][:, 0]
    np.testing.assert_allclose(found, lk.load_bundle(bundle).predict(images), atol=1e-5)


def test_metadata_of_deepness(tmp_path):
    info = lk.bundle_info(export(tmp_path / "one", gsd_m=0.8, threshold=0.4))
    rows = (MeasuredHalo(tolerance=1e-3, halo=320, max_difference=2e-4, pixels=10**6),)
    found = _metadata(info.model_copy(update={"halo": 682, "halos": rows, "stride": 32}), None)
    read = {key: json.loads(value) for key, value in found.items() if not key.startswith("lim_keras_")}
    assert read == {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "landslide"},
        "resolution": 80.0,  # centimetres
        "tile_size": 1280,
        "tiles_overlap": 50,  # per cent: two halos of 320 px
        "seg_thresh": 0.4,
        "seg_small_segment": 1,
    }


def test_a_part_of_the_bundle(tmp_path):
    bundle = export(tmp_path / "one")
    done = CliRunner().invoke(main, ["export", str(bundle), "--onnx"])
    assert done.exit_code == 0, done.output
    assert verify_bundle(bundle) == []
    path = bundle / "onnx" / "fold_0.onnx"
    assert CliRunner().invoke(main, ["export", str(bundle), "--onnx"]).exit_code == 0, "ours is replaced"
    assert verify_bundle(bundle) == []
    edited = onnx.load(path)
    next(one for one in edited.metadata_props if one.key == "seg_thresh").value = "0.9"
    onnx.save(edited, path)
    done = CliRunner().invoke(main, ["export", str(bundle), "--onnx"])
    assert done.exit_code == 1 and "fold_0.onnx (not written by lim-keras, or changed since)" in done.output
    assert next(one for one in onnx.load(path).metadata_props if one.key == "seg_thresh").value == "0.9"


@pytest.mark.parametrize("kind", ["text", "link", "folder"])
def test_what_is_the_users_stays(ensemble, tmp_path, kind):
    path = tmp_path / "ensemble.onnx"
    if kind == "text":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"would replace files.*ensemble\.onnx"):
        export_onnx(ensemble, out=tmp_path)
    assert path.is_symlink() == (kind == "link") and not list(tmp_path.glob(".*"))


def test_a_package_is_missing(ensemble, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    done = CliRunner().invoke(main, ["export", str(ensemble), "--onnx"])
    assert done.exit_code == 1 and "pip install 'lim-keras[onnx]'" in done.output and done.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--allow-drop"], ["--threads", "2"]])
def test_options_of_other_files(ensemble, arguments):
    done = CliRunner().invoke(main, ["export", str(ensemble), "--onnx", *arguments])
    assert done.exit_code == 2 and "only with --tflite" in done.output


def test_a_file_that_differs_is_not_kept(ensemble, tmp_path, monkeypatch):
    monkeypatch.setattr("lim_keras.export.onnx_file._floor_divide", lambda *_: None)  # sizes are rounded the wrong way
    done = CliRunner().invoke(main, ["export", str(ensemble), "--onnx", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert not list((tmp_path / "out").iterdir())


def test_the_export_of_a_fold_keeps_the_measured_halos(bundle_path, tmp_path):
    copied = shutil.copytree(bundle_path, tmp_path / "tiny")
    halos = (MeasuredHalo(tolerance=1e-3, halo=64, max_difference=5e-4, pixels=100),)
    BundleInfo.read(copied).model_copy(update={"halos": halos}).write(copied)
    export_onnx(copied, fold=1)
    info = BundleInfo.read(copied)
    assert info.halos == halos and "onnx/fold_1.onnx" in info.files
