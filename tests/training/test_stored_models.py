"""Files of weights and models: a full disk is one error, and damage is noticed."""

from pathlib import Path

import keras
import pytest

from lim_keras.errors import DataError, LimKerasError, TrainingError
from lim_keras.export.bundle import write_bundle
from lim_keras.training.stored_models import read_model, save_model, save_weights
from tests.conftest import largest_file
from tests.export.conftest import constant, facts


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    image = keras.Input((64,))
    made = keras.Model(image, keras.layers.Dense(256)(image))
    made.compile(optimizer=keras.optimizers.Adam(), loss="mse")
    made.optimizer.build(made.trainable_variables)
    return made


@pytest.mark.parametrize(("save", "name"), [(save_weights, "a.weights.h5"), (save_model, "a.keras")])
def test_a_full_disk_keeps_what_was_there(tmp_path: Path, model: keras.Model, save, name: str, capfd) -> None:
    path = tmp_path / name
    save(model, path)
    before = path.read_bytes()
    for size in (0, 5_000, len(before) - 1):
        with largest_file(size), pytest.raises(DataError, match=f"{name}: cannot be written") as raised:
            save(model, path)
        assert "\n" not in str(raised.value)
        assert names(tmp_path) == [name] and path.read_bytes() == before
    assert "Traceback" not in capfd.readouterr().err
    save(model, path)


def test_a_bundle_on_a_full_disk(tmp_path: Path, capfd) -> None:
    bundle = tmp_path / "one"
    for size in (0, 100, 3_000, 20_000):
        with largest_file(size), pytest.raises(LimKerasError, match=r"one.*: cannot be") as raised:
            write_bundle(bundle, facts(name="one"), [constant(0.5)])
        assert "\n" not in str(raised.value) and names(tmp_path) == []
    write_bundle(bundle, facts(name="one"), [constant(0.5)])
    before = sorted(bundle.rglob("*"))
    with largest_file(3_000), pytest.raises(LimKerasError):
        write_bundle(bundle, facts(name="one"), [constant(0.6)])
    assert sorted(bundle.rglob("*")) == before and names(tmp_path) == ["one"]


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_model_is_noticed(tmp_path: Path, model: keras.Model, length: int) -> None:
    path = tmp_path / "model.keras"
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TrainingError, match=r"model\.keras: the model cannot be read .*Remove this file"):
        read_model(path)


def test_a_changed_byte_is_noticed(tmp_path: Path, model: keras.Model) -> None:
    path = tmp_path / "model.keras"
    save_model(model, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_model(path)
