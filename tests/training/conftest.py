"""Runs that take seconds: a dozen tiles of 20 to 40 pixels, windows of 32, a network of four channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import yaml

from lim_keras.config import RunConfig
from lim_keras.config_file import load_config
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import TileSet
from lim_keras.training.run import Run

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "fcn", "encoder": "small", "encoder_weights": "none", "decoder_channels": 4},
    "sampling": {"size": 32},
    "training": {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "tensorboard": False},
    "folds": 2,
    "evaluation": {"windows": 4, "bootstrap": 20},
}


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    """config_file(**{"training.epochs": 3}): a YAML file of a tiny run with those keys changed."""

    def write(**changes: Any) -> Path:
        settings = {key: dict(value) if isinstance(value, dict) else value for key, value in SETTINGS.items()}
        for key, value in changes.items():
            section, _, leaf = key.rpartition(".")
            (settings.setdefault(section, {}) if section else settings)[leaf] = value
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


@pytest.fixture
def config(config_file: Callable[..., Path]) -> Callable[..., RunConfig]:
    """config(**changes): as `config_file`, read."""
    return lambda **changes: load_config(config_file(**changes))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, bijie_folder: Callable[..., Path]) -> Path:
    """Six landslide and six other tiles: ls_0 to ls_5 and nls_0 to nls_5; read only."""
    return bijie_folder(tmp_path_factory.mktemp("data"), 6, 6)


@pytest.fixture(scope="session")
def tiles(data: Path) -> TileSet:
    return read_tiles(data)


@pytest.fixture
def run(tmp_path: Path, tiles: TileSet, config: Callable[..., RunConfig]) -> Callable[..., Run]:
    """run(**changes): a run of two folds, even and odd numbers, and two test tiles (ls_5, nls_5)."""

    def begin(**changes: Any) -> Run:
        folds = {name: -1 if name.endswith("5") else int(name[-1]) % 2 for name in tiles.ids}
        return Run.open(tmp_path / "run", config(**changes), tiles, folds)

    return begin


@pytest.fixture(scope="session")
def brightness() -> Callable[..., keras.Model]:
    """brightness(offset): logit = (mean of the bands - 150) / 20 + offset; right about the landslides of `data`."""

    def build(offset: float = 0.0, bands: int = 3) -> keras.Model:
        image = keras.Input((None, None, bands))
        layer = keras.layers.Conv2D(
            1,
            1,
            kernel_initializer=keras.initializers.Constant(1 / (20 * bands)),
            bias_initializer=keras.initializers.Constant(offset - 7.5),
        )
        return keras.Model(image, layer(image))

    return build
