"""Bundles: written and read back, every way of being damaged named, predictions in numpy."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from lim_keras.bundle.info import BandStatistics, BundleInfo, FileRecord
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.errors import BundleError, DataError
from lim_keras.export import bundle as bundle_module
from lim_keras.export.bundle import write_bundle
from tests.export.conftest import FOLDS, THRESHOLD, constant, edit, expected_folds, facts, images


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def test_layout(bundle_path: Path) -> None:
    documents = ["README.md", "model.json", "stac-item.json", "verify.npz"]
    names = sorted([*documents, "baseline.npz", "ensemble", "fold_0", "fold_1", "fold_2"])
    assert sorted(path.name for path in bundle_path.iterdir()) == names
    assert (bundle_path / "ensemble" / "1" / "saved_model.pb").is_file()


def test_info_says_what_training_knew(bundle: Bundle) -> None:
    info = bundle.info
    given, kept = facts().model_dump(exclude={"metrics"}), info.model_dump()
    assert {key: kept[key] for key in given} == given
    assert info.folds == FOLDS
    assert info.format == 1
    assert info.created.tzinfo is not None
    assert info.versions["tensorflow"] == tf.__version__
    assert info.metrics["out_of_fold"]["f1"].low == 0.6


def test_undefined_score_is_null_in_json_and_nan_in_python(bundle_path: Path, bundle: Bundle) -> None:
    assert json.loads((bundle_path / "model.json").read_text())["metrics"]["out_of_fold"]["mcc"]["value"] is None
    assert np.isnan(bundle.info.metrics["out_of_fold"]["mcc"].value)


def test_files_are_recorded(bundle: Bundle) -> None:
    # 3 folds: saved_model.pb, fingerprint.pb, index, two data files. Ensemble: the same with four data files.
    # Beside them: baseline, verify.npz, README.md, stac-item.json.
    assert len(bundle.info.files) == 3 * 5 + 7 + 4


def test_predict(bundle: Bundle, models: list[keras.Model]) -> None:
    probability = bundle.predict(images(31, 33))
    assert probability.shape == (2, 31, 33)
    assert probability.dtype == np.float32
    expected = expected_folds(models, images(31, 33)).mean(axis=0)[..., 0]
    np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-5)


def test_predict_all(bundle: Bundle, models: list[keras.Model]) -> None:
    prediction = bundle.predict_all(images(33, 64))
    folds = expected_folds(models, images(33, 64))[..., 0]
    np.testing.assert_array_equal(prediction.probability, bundle.predict(images(33, 64)))
    np.testing.assert_allclose(prediction.spread, folds.std(axis=0), rtol=0, atol=1e-5)
    assert prediction.votes.dtype == np.int32
    assert 0 <= prediction.votes.min() <= prediction.votes.max() <= FOLDS


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float64])
def test_any_number_type(bundle: Bundle, dtype: type) -> None:
    batch = images(8, 8).astype(np.uint8)
    np.testing.assert_array_equal(bundle.predict(batch.astype(dtype)), bundle.predict(batch.astype(np.float32)))


def test_one_fold_alone(bundle_path: Path, models: list[keras.Model]) -> None:
    expected = expected_folds(models, images(31, 33))[1, ..., 0]
    prediction = load_bundle(bundle_path, fold=1).predict_all(images(31, 33))
    np.testing.assert_allclose(prediction.probability, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(prediction.spread, 0)
    np.testing.assert_array_equal(prediction.votes, prediction.probability >= np.float32(THRESHOLD))


def test_bundle_of_one_model(tmp_path: Path) -> None:
    info = write_bundle(tmp_path / "one", facts(threshold=0.5), [constant(0.0)])
    assert info.folds == 1
    loaded = load_bundle(tmp_path / "one")
    prediction = loaded.predict_all(images(2, 3))
    # sigmoid(0) = 1/2, which reaches the threshold 1/2
    np.testing.assert_array_equal(prediction.probability, np.full((2, 2, 3), 0.5, np.float32))
    np.testing.assert_array_equal(prediction.spread, np.zeros((2, 2, 3), np.float32))
    np.testing.assert_array_equal(prediction.votes, np.ones((2, 2, 3), np.int32))
    assert loaded.baseline() is None


def test_no_size_makes_tensorflow_trace_again(bundle: Bundle) -> None:
    function = bundle.saved_model.signatures["serving_default"]
    # A concrete function holds one graph and cannot trace; a tf.function, which could, counts its tracings.
    assert not hasattr(function, "experimental_get_tracing_count")
    graph = function.graph
    for size in (1, 2, 3, 40):
        bundle.predict(images(size, size))
    assert bundle.saved_model.signatures["serving_default"].graph is graph


def test_baseline(bundle: Bundle) -> None:
    baseline = bundle.baseline()
    assert baseline is not None
    assert baseline.threshold == 0.2
    np.testing.assert_array_equal(baseline.mean_mask, np.full((4, 6), 0.25, np.float32))


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 4, 4), (1, 4, 4), (0, 4, 4, 3), (1, 0, 4, 3)])
def test_wrong_images(bundle: Bundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"`images`.*\(n, height, width, 3\)"):
        bundle.predict(np.zeros(shape, np.float32))


def test_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing/model\.json: not found"):
        load_bundle(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", '{"format": 1, "na', "[" * 100_000, '{"format": 1, "gsd_m": Infinity}', '{"bias": NaN}'],
    ids=["nothing", "begun", "list", "cut", "nested", "infinite", "nan"],
)
def test_damaged_json(copied: Path, text: str) -> None:
    (copied / "model.json").write_text(text)
    with pytest.raises(BundleError, match=r"model\.json: damaged"):
        load_bundle(copied)


def test_model_json_that_is_not_text(copied: Path) -> None:
    (copied / "model.json").write_bytes(b"\xff\xfe\x00pickle")
    with pytest.raises(BundleError, match=r"model\.json: damaged"):
        load_bundle(copied)


@pytest.mark.parametrize("version", [2, "1", None])
def test_other_format(copied: Path, version: object) -> None:
    edit(copied, lambda values: values.update(format=version, lim_keras_version="9.9"))
    with pytest.raises(BundleError, match=r"model\.json: expected bundle format 1\. Received: format .*lim_keras 9\.9"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda values: values.pop("threshold"), "threshold"),
        (lambda values: values.update(threshold=1.5), "threshold"),
        (lambda values: values.update(temperature=0), "temperature"),
        (lambda values: values.update(bands="3"), "bands"),
        (lambda values: values.update(bands=4), "statistics"),
        (lambda values: values.update(dtype="int8"), "dtype"),
        (lambda values: values.update(folds=200_000), "folds"),
        (lambda values: values.update(halo=10**400), "halo"),
        (lambda values: values["files"]["README.md"].update(bytes=10**30), r"files\.README\.md\.bytes"),
        (lambda values: values.update(colour="red"), "colour"),
        (lambda values: values["statistics"][1].pop("std"), r"statistics\.1\.std"),
    ],
)
def test_wrong_key_is_named(copied: Path, change: Callable[[dict[str, Any]], object], key: str) -> None:
    edit(copied, change)
    with pytest.raises(BundleError, match=rf"model\.json.*`?{key}"):
        load_bundle(copied)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up", "fold_0/../../up", "./fold_0", "", "fold_0//a", "..\\up", "C:up", "C:/up", "//host/a"],
)
def test_path_that_leaves_the_bundle(copied: Path, name: str) -> None:
    edit(copied, lambda values: values["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match=r"model\.json: not a valid bundle.*leaves the bundle or is no plain path"):
        load_bundle(copied)


def test_link_that_leaves_the_bundle(copied: Path) -> None:
    file = copied / "ensemble" / "1" / "saved_model.pb"
    file.replace(copied.parent / "outside.pb")
    file.symlink_to(copied.parent / "outside.pb")
    with pytest.raises(BundleError, match=r"saved_model\.pb: a link that leaves the bundle, to .*outside\.pb"):
        load_bundle(copied)


def test_model_json_is_a_plain_file_of_the_bundle(copied: Path) -> None:
    file = copied / "model.json"
    file.replace(copied.parent / "outside.json")
    os.mkfifo(file)  # reading it would wait for ever
    with pytest.raises(BundleError, match=r"model\.json: expected a plain file"):
        load_bundle(copied)
    file.unlink()
    file.symlink_to(copied.parent / "outside.json")
    with pytest.raises(BundleError, match=r"model\.json: a link that leaves the bundle"):
        load_bundle(copied)


def test_model_json_of_gigabytes_is_not_read(copied: Path) -> None:
    os.truncate(copied / "model.json", 2**40)  # sparse: it takes no space
    with pytest.raises(BundleError, match=r"model\.json: expected at most \d+ bytes\. Received: 1099511627776"):
        load_bundle(copied)


def test_size_is_compared_before_content_is_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = copied / "ensemble" / "1" / "variables" / "variables.data-00000-of-00004"
    os.truncate(file, 2**40)
    monkeypatch.setattr(FileRecord, "of", lambda path: pytest.fail(f"{path} was read"))
    info = BundleInfo.read(copied)
    with pytest.raises(BundleError, match=r"data-00000-of-00004: expected \d+ bytes\. Received: 1099511627776"):
        info.check_file(copied, "ensemble/1/variables/variables.data-00000-of-00004")


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00001-of-00004"]
)
def test_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / "ensemble" / "1" / name).unlink()
    with pytest.raises(BundleError, match=rf"ensemble/1/{name}: missing"):
        load_bundle(copied)


def test_shortened_file_is_named(copied: Path) -> None:
    file = copied / "ensemble" / "1" / "variables" / "variables.data-00000-of-00004"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"data-00000-of-00004: expected \d+ bytes\. Received: 1000 bytes"):
        load_bundle(copied)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00004"])
def test_one_changed_byte_is_named(copied: Path, name: str) -> None:
    file = copied / "ensemble" / "1" / name
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: its content is not what was exported"):
        load_bundle(copied)


def test_damaged_fold_does_not_hinder_the_ensemble(copied: Path) -> None:
    shutil.rmtree(copied / "fold_0")
    load_bundle(copied)
    with pytest.raises(BundleError, match="fold_0/1/"):
        load_bundle(copied, fold=0)


@pytest.mark.parametrize("fold", [3, -1])
def test_no_such_fold(bundle_path: Path, fold: int) -> None:
    with pytest.raises(BundleError, match=rf"fold_{fold}/1: not part of this bundle, which has 3 fold"):
        load_bundle(bundle_path, fold=fold)


def test_tensorflow_that_cannot_load(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ValueError("Op type not registered 'OfTheFuture'")

    monkeypatch.setattr(bundle_module.tf.saved_model, "load", fail)
    with pytest.raises(BundleError, match=r"ensemble/1: TensorFlow .* cannot load.*OfTheFuture"):
        load_bundle(bundle_path)


def lying(path: Path, shape: str) -> None:
    """An archive of a few bytes with an array whose header names a shape of its own."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mean_mask.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        with archive.open("threshold.npy", "w") as file:
            np.save(file, np.float64(0.5))


@pytest.mark.parametrize("shape", ["(1000000000000, 1)", "(10000000000, 10000000000000)", "(1, ", "'x'"])
def test_baseline_of_terabytes_is_not_allocated(copied: Path, shape: str) -> None:
    lying(copied / "baseline.npz", shape)
    record = FileRecord.of(copied / "baseline.npz").model_dump()
    edit(copied, lambda values: values["files"].update({"baseline.npz": record}))
    with pytest.raises(BundleError, match=r"baseline\.npz: damaged"):
        load_bundle(copied).baseline()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda image: image[..., :1] * np.nan, "`probability` within 0..1. Received: nan..nan"),
        (lambda image: image[..., :1] * 0 + 1.5, r"`probability` within 0..1. Received: 1.5..1.5"),
        (lambda image: image[:, ::2, :, :1] * 0, r"`probability` of shape \(1, 8, 6, 1\). Received: \(1, 4, 6, 1\)"),
    ],
    ids=["nan", "beyond", "half"],
)
def test_answer_that_is_no_probability(tmp_path: Path, answer: Callable[[Any], Any], message: str) -> None:
    write_bundle(tmp_path / "one", facts(), [constant(0.3)])
    loaded = load_bundle(tmp_path / "one")

    def run(image: Any) -> dict[str, Any]:
        return {"probability": answer(image)}

    other = replace(loaded, saved_model=SimpleNamespace(signatures={"serving_default": run}))
    with pytest.raises(BundleError, match=message):
        other.predict(np.zeros((1, 8, 6, 3), np.float32))


def test_model_of_other_bands_is_not_taken(copied: Path, tmp_path: Path) -> None:
    statistics = (BandStatistics(mean=120.0, std=60.0, min=0.0, max=255.0),) * 4
    write_bundle(tmp_path / "four", facts(bands=4, statistics=statistics), [constant(0.3, 4)])
    shutil.rmtree(copied / "fold_0")
    shutil.copytree(tmp_path / "four" / "fold_0", copied / "fold_0")
    files = [file for file in (copied / "fold_0").rglob("*") if file.is_file()]
    records = {file.relative_to(copied).as_posix(): FileRecord.of(file).model_dump() for file in files}
    edit(copied, lambda values: [values["files"].pop(n) for n in [*values["files"]] if n.startswith("fold_0/")])
    edit(copied, lambda values: values["files"].update(records))
    with pytest.raises(BundleError, match=r"fold_0/1: serving_default: expected inputs .*None, 3\).*None, 4\)"):
        load_bundle(copied, fold=0)


def test_damaged_baseline(copied: Path) -> None:
    (copied / "baseline.npz").unlink()
    with pytest.raises(BundleError, match=r"baseline\.npz: missing"):
        load_bundle(copied).baseline()


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match=r"mine: expected a folder with model\.json, an empty one or none"):
        write_bundle(tmp_path / "mine", facts(), [constant(0.0)])
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "mine" / "thesis.tex").unlink()
    write_bundle(tmp_path / "mine", facts(), [constant(0.0)])


def test_a_folder_whose_name_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"my model: expected a folder's name of letters"):
        write_bundle(tmp_path / "my model", facts(), [constant(0.0)])
    assert not list(tmp_path.iterdir())


def test_failed_export_keeps_the_finished_bundle(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bundle_module, "export_models", fail)
    with pytest.raises(DataError, match=r"tiny: cannot be written \(disk full\)"):
        write_bundle(copied, facts(), [constant(0.0)])
    assert load_bundle(copied).info.folds == FOLDS
    assert [path.name for path in copied.parent.iterdir()] == ["tiny"]


def test_export_replaces_the_whole_bundle(copied: Path) -> None:
    write_bundle(copied, facts(), [constant(0.0)])
    names = ["README.md", "fold_0", "model.json", "stac-item.json", "verify.npz"]
    assert sorted(path.name for path in copied.iterdir()) == names
    assert load_bundle(copied).info.folds == 1


@pytest.mark.parametrize("models", [[], [constant(0.0, bands=4)], [constant(0.0), constant(0.0, bands=4)]])
def test_models_must_agree_with_the_facts(tmp_path: Path, models: list[keras.Model]) -> None:
    with pytest.raises(BundleError, match="Expected `models` of 3 bands"):
        write_bundle(tmp_path / "tiny", facts(), models)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"name": "../up"}, {"statistics": ()}, {"threshold": -1.0}, {"gsd_m": 0.0}])
def test_wrong_facts(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        facts(**changes)


def test_info_round_trip(tmp_path: Path, bundle: Bundle) -> None:
    bundle.info.write(tmp_path)
    assert BundleInfo.read(tmp_path).model_dump_json() == bundle.info.model_dump_json()


def test_numpy_numbers_are_taken() -> None:
    assert facts(threshold=np.float64(0.25)).threshold == 0.25
    assert BandStatistics(mean=np.float64(1.5), std=0, min=0, max=2).mean == 1.5
