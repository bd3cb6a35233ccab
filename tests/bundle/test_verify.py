"""Verifying a bundle: silent for what was exported, one line for every way of not being it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lim_keras.bundle.info import BandStatistics, FileRecord
from lim_keras.bundle.saved_model import load_bundle, verify_bundle
from lim_keras.errors import BundleError
from lim_keras.export.bundle import synthetic_image, write_bundle
from lim_keras.metrics.calibration import ImageBlindMask
from tests.export.conftest import constant, edit, facts

VARIABLES = "ensemble/1/variables/variables.data-00000-of-00004"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds that TensorFlow loads in no time."""
    path = tmp_path_factory.mktemp("exported_models") / "tiny"
    write_bundle(path, facts(), [constant(0.5), constant(1.5), constant(2.5)], ImageBlindMask(np.ones((2, 2)), 0.2))
    return path


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(plain, tmp_path / "tiny"))


def record(path: Path, *names: str) -> None:
    """Make model.json say what the files are now, as a forger would."""
    now = {name: FileRecord.of(path / name).model_dump() for name in names}
    edit(path, lambda values: values["files"].update(now))


def test_what_was_exported(plain: Path) -> None:
    assert verify_bundle(plain) == []


def test_one_model(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", facts(), [constant(0.3)])
    assert verify_bundle(tmp_path / "one") == []


@pytest.mark.parametrize("name", [VARIABLES, "fold_2/1/variables/variables.data-00000-of-00002", "README.md"])
def test_one_flipped_bit(copied: Path, name: str) -> None:
    file = copied / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (line,) = verify_bundle(copied)
    assert line.startswith(f"{file}: its content is not what was exported")


def test_every_difference_has_a_line(copied: Path) -> None:
    (copied / "baseline.npz").unlink()
    (copied / "verify.npz").write_bytes(b"")
    (copied / "fold_1" / "1" / "assets.py").write_text("print()")
    (copied / "link").symlink_to(copied / "README.md")
    lines = verify_bundle(copied)
    assert [line.removeprefix(f"{copied}/").split(" ")[0] for line in lines] == [
        "baseline.npz:",
        "verify.npz:",
        "fold_1/1/assets.py:",
        "link:",
    ]
    assert "missing" in lines[0] and "Received: 0 bytes" in lines[1]
    assert all("not recorded in model.json" in line for line in lines[2:])


def test_model_that_is_not_there(copied: Path) -> None:
    shutil.rmtree(copied / "fold_2")
    edit(copied, lambda values: [values["files"].pop(name) for name in [*values["files"]] if name.startswith("fold_2")])
    assert verify_bundle(copied) == [f"{copied}/fold_2/1: model.json records no file of this model."]


def test_other_weights_with_good_hashes(copied: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", facts(), [constant(0.1), constant(0.2), constant(0.3)])
    names = {path.name: path for path in (tmp_path / "other").iterdir()}
    shutil.rmtree(copied / "ensemble")
    shutil.copytree(names["ensemble"], copied / "ensemble")
    recorded = [path.relative_to(copied).as_posix() for path in (copied / "ensemble").rglob("*") if path.is_file()]
    edit(copied, lambda values: [values["files"].pop(n) for n in [*values["files"]] if n.startswith("ensemble")])
    record(copied, *recorded)
    lines = verify_bundle(copied)
    assert [line.rpartition(" ")[2] for line in lines] == ["serving_default).", "encoded)."]
    assert all("verify.npz: the model's answer differs from that of the export by 0." in line for line in lines)


class Other(tf.Module):
    """A model that `load_bundle` accepts, with other outputs and another decoder."""

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 4), tf.float32, name="image")])
    def run(self, image: Any) -> dict[str, Any]:
        return {"probability": image}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def encoded(self, image_bytes: Any) -> dict[str, Any]:
        return {"probability": tf.zeros((tf.size(image_bytes), 64, 64, 1))}


def replace_model(bundle: Path, model: str, other: tf.Module, **signatures: str) -> Path:
    """Put another SavedModel into a bundle, with its records; signatures: the functions of `other`."""
    place = bundle / model / "1"
    shutil.rmtree(place)
    functions = {name: getattr(other, function) for name, function in signatures.items()}
    tf.saved_model.save(other, str(place), signatures=functions)
    edit(bundle, lambda values: [values["files"].pop(n) for n in [*values["files"]] if n.startswith(model)])
    record(bundle, *(path.relative_to(bundle).as_posix() for path in place.rglob("*") if path.is_file()))
    return place


def test_other_signature(copied: Path) -> None:
    place = replace_model(copied, "fold_0", Other(), serving_default="run", encoded="run")
    lines = verify_bundle(copied)
    assert [line.removeprefix(f"{place}: ").partition(" {")[0] for line in lines] == [
        "serving_default: expected inputs",
        "serving_default: expected outputs",
        "encoded: expected inputs",
        "encoded: expected outputs",
    ]
    assert all("None, 4)" in line for line in lines)
    assert "{'image_bytes': ((None,), 'string')}" in lines[2]


def test_no_signature_for_pictures(copied: Path) -> None:
    place = replace_model(copied, "fold_0", Other(), serving_default="run")
    assert verify_bundle(copied)[-1] == (
        f"{place}: expected the signature encoded. Received: ['serving_default']. Export it again."
    )


def test_signature_for_pictures_that_answers_otherwise(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", facts(), [constant(0.3)])
    path = tmp_path / "one"

    class Forged(tf.Module):
        def __init__(self) -> None:
            self.model = tf.saved_model.load(str(path / "fold_0" / "1"))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
        def run(self, image: Any) -> dict[str, Any]:
            return {"probability": self.model.signatures["serving_default"](image=image)["probability"]}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def encoded(self, image_bytes: Any) -> dict[str, Any]:
            right = self.model.signatures["encoded"](image_bytes=image_bytes)["probability"]
            return {"probability": tf.ensure_shape(right + 0.01, (None, None, None, 1))}

    replace_model(path, "fold_0", Forged(), serving_default="run", encoded="encoded")
    (line,) = verify_bundle(path)
    assert line.endswith("by 0.01 (> 0.0001, encoded).")


@pytest.mark.parametrize(
    ("bands", "dtype", "names"), [(1, "uint8", 2), (4, "uint8", 2), (2, "uint8", 1), (3, "uint16", 1)]
)
def test_every_kind_of_image(tmp_path: Path, bands: int, dtype: str, names: int) -> None:
    statistics = (BandStatistics(mean=100.0, std=40.0, min=20.0, max=180.0),) * bands
    write_bundle(tmp_path / "one", facts(bands=bands, dtype=dtype, statistics=statistics), [constant(0.3, bands)])
    assert verify_bundle(tmp_path / "one") == []
    assert len(load_bundle(tmp_path / "one").saved_model.signatures) == names


def test_graph_that_tensorflow_cannot_read(copied: Path) -> None:
    (copied / "fold_0" / "1" / "saved_model.pb").write_bytes(b"no graph")
    record(copied, "fold_0/1/saved_model.pb")
    (line,) = verify_bundle(copied)
    assert line.startswith(f"{copied}/fold_0/1: TensorFlow {tf.__version__} cannot load this SavedModel")


def test_no_pair(copied: Path) -> None:
    (copied / "verify.npz").unlink()
    edit(copied, lambda values: values["files"].pop("verify.npz"))
    (line,) = verify_bundle(copied)
    assert "verify.npz: not part of this bundle" in line


def rewrite(path: Path, **arrays: Any) -> None:
    np.savez_compressed(path / "verify.npz", **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "verify.npz").write_bytes(b"PK no archive"), "damaged"),
        (lambda path: rewrite(path, image=np.zeros((4, 4, 3), np.uint8)), "damaged.*probability"),
        (lambda path: rewrite(path, image=np.array([{}]), probability=np.zeros(1)), "damaged.*allow_pickle"),
        (lambda path: rewrite(path, image=np.zeros((4, 4, 2)), probability=np.zeros((4, 4))), r"height, width, 3\)"),
        # 32 MB in a file of some kB
        (lambda path: rewrite(path, image=np.zeros((4000, 8000), np.uint8)), r"at most \d+ bytes of arrays"),
        (
            lambda path: rewrite(path, image=np.zeros((4, 4, 3)), probability=np.full((4, 4), np.nan)),
            r"verify\.npz: expected finite numbers\. Received: NaN",
        ),
    ],
)
def test_damaged_pair(copied: Path, change: Callable[[Path], object], message: str) -> None:
    change(copied)
    record(copied, "verify.npz")
    with pytest.raises(AssertionError, match=message):
        assert verify_bundle(copied) == []


def test_model_json_that_names_files_outside(copied: Path) -> None:
    edit(copied, lambda values: values["files"].update({"../secret": {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="leaves the bundle"):
        verify_bundle(copied)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_synthetic_image(dtype: str) -> None:
    statistics = (BandStatistics(mean=100.0, std=40.0, min=20.0, max=180.0),) * 2
    known = facts(bands=2, dtype=dtype, statistics=statistics)
    image = synthetic_image(known)
    assert (image.shape, image.dtype.name) == ((64, 64, 2), dtype)
    assert 20 <= image.min() < 40 and 160 < image.max() <= 180
    np.testing.assert_array_equal(image, synthetic_image(known))


def test_stored_probability_is_that_of_the_bundle(plain: Path) -> None:
    with np.load(plain / "verify.npz") as pair:
        np.testing.assert_allclose(
            load_bundle(plain).predict(pair["image"][np.newaxis])[0], pair["probability"], atol=1e-6
        )


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.9},
        {"halo": 7},
        {"bias": 5.0},
        {"test_tiles": ["a"]},
        {"data_terms": "Anything goes"},
        {"metrics": {}},
    ],
)
def test_model_json_that_says_something_else(copied: Path, change: dict[str, Any]) -> None:
    values = json.loads((copied / "model.json").read_text())
    (copied / "model.json").write_text(json.dumps(values | change))
    (line,) = verify_bundle(copied)
    assert line.startswith(f"{copied}/model.json: its content is not what was exported")


class Reaching(tf.Module):
    """Right signatures, and an operation that leaves the graph."""

    def __init__(self, place: Path, within: bool) -> None:
        self.place, self.within = str(place), within

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
    def run(self, image: Any) -> dict[str, Any]:
        written = tf.io.write_file(self.place, "written")
        with tf.control_dependencies([written]):
            return {"probability": image[..., :1] * 0.0}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def encoded(self, image_bytes: Any) -> dict[str, Any]:
        text = tf.io.read_file(self.place) if self.within else image_bytes[0]
        zeros = tf.zeros((tf.size(image_bytes), tf.strings.length(text), 64, 1))
        return {"probability": tf.ensure_shape(zeros, (None, None, None, 1))}


@pytest.mark.parametrize("within", [True, False])
def test_graph_that_reaches_files_is_not_loaded(copied: Path, tmp_path: Path, within: bool) -> None:
    written = tmp_path / "written"
    place = replace_model(copied, "ensemble", Reaching(written, within), serving_default="run", encoded="encoded")
    named = "ReadFile, WriteFile" if within else "WriteFile"
    (line,) = verify_bundle(copied)
    assert line.startswith(f"{place}: expected a graph that only computes. Received: the operations {named}, which")
    with pytest.raises(BundleError, match="It was not loaded"):
        load_bundle(copied)
    assert not written.exists()


def test_saving_function_that_can_be_called_is_not_loaded(copied: Path) -> None:
    """TensorFlow writes its own function for checkpoints into every graph; as a signature it would write files."""
    file = copied / "ensemble" / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = saved.meta_graphs
    (saving,) = (one.signature.name for one in graph.graph_def.library.function if "traced_save" in one.signature.name)
    graph.object_graph_def.concrete_functions[saving].bound_inputs.extend([])
    file.write_bytes(saved.SerializeToString())
    record(copied, "ensemble/1/saved_model.pb")
    (line,) = verify_bundle(copied)
    assert "the operations MergeV2Checkpoints, SaveV2," in line
