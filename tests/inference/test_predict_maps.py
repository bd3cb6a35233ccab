"""Tiled prediction equals one pass, on every size and for every family; what is cut off goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import ConfigError, DataError
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.models import network_stride
from lim_keras.raster.reader import RasterReader

from .conftest import Folds, Write, constant_model, describe, network, small_model, texture


def maps_of(model: Any, scene: Path, folder: Path, **options: Any) -> np.ndarray:
    """(bands, height, width): probability, votes and, where asked, spread."""
    with RasterReader(scene) as reader:
        vrt, _ = predict_maps(model, reader, folder, options=MapOptions(**options))
    with rasterio.open(vrt) as file:
        assert file.nodata == -1
        return file.read()


SIZES = [(1, 1), (31, 33), (320, 320), (321, 320)]


@pytest.mark.parametrize(("size", "tile"), [*((size, 320) for size in SIZES), ((500, 700), 384), ((449, 641), 384)])
def test_tiled_equals_one_pass(tiny: Folds, write: Write, tmp_path: Path, size: tuple[int, int], tile: int) -> None:
    image = texture(*size)
    scene = write("scene.tif", image)
    tiled = maps_of(tiny, scene, tmp_path / "maps", tile=tile, spread=True)
    whole = tiny.predict_all(image[np.newaxis])
    assert np.abs(tiled[0] - whole.probability[0]).max() < 1e-4
    assert np.abs(tiled[2] - whole.spread[0]).max() < 1e-4
    apart = tiled[1] != whole.votes[0]
    assert apart.mean() < 1e-4
    assert whole.probability.std() > 0.1 or size == (1, 1)  # a flat map would show nothing


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize(("name", "encoder"), [("fcn", "small"), ("unet", "small"), ("segnet", "small")])
def test_every_family(write: Write, tmp_path: Path, name: str, encoder: str, reduction: int) -> None:
    net = network(name, encoder, reduction)
    model = Folds([net], describe([net], network_stride(reduction)))
    side = 2 * (-(-model.info.halo // 64) * 64) + 64
    image = texture(side + 70, side + 133)
    tiled = maps_of(model, write("scene.tif", image), tmp_path / "maps", tile=side)
    assert len(model.shapes) > 1
    assert np.abs(tiled[0] - model.predict_all(image[np.newaxis]).probability[0]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vgg16", "mobilenetv2"])
def test_every_encoder(write: Write, tmp_path: Path, encoder: str) -> None:
    net = network("fcn_fl", encoder)
    model = Folds([net], describe([net], 32))
    side = 2 * (-(-model.info.halo // 64) * 64) + 64
    image = texture(side - 31, side + 45)
    tiled = maps_of(model, write("scene.tif", image), tmp_path / "maps", tile=side)
    assert len(model.shapes) > 1
    assert np.abs(tiled[0] - model.predict_all(image[np.newaxis]).probability[0]).max() < 1e-4


def test_a_constant_model_gives_a_constant_map(write: Write, tmp_path: Path) -> None:
    maps = maps_of(constant_model(0.7), write("scene.tif", texture(333, 201)), tmp_path / "maps", tile=64)
    assert maps.shape == (2, 333, 201)
    assert np.abs(maps[0] - 0.7).max() < 1e-6
    assert (maps[1] == 1).all()


def test_nodata_stays_nodata_and_islands_are_scenes_of_their_own(write: Write, tmp_path: Path) -> None:
    model = small_model()
    image = texture(700, 900)
    valid = np.zeros(image.shape[:2], bool)
    valid[70:250, 40:200] = True
    valid[510:640, 600:890] = True
    image[~valid] = 0
    tiled = maps_of(model, write("scene.tif", image, valid=valid), tmp_path / "maps")
    assert ((tiled[0] == -1) == ~valid).all()
    # cells of 64 px: rows 64-256, columns 0-256, and rows 448-640, columns 576-896
    assert model.shapes == [(1, 192, 256, 3), (1, 192, 320, 3)]


def test_windows_do_not_show_in_a_scene_with_gaps(write: Write, tmp_path: Path) -> None:
    model = small_model()
    image = texture(900, 1000)
    valid = np.random.default_rng(2).random((30, 25)) < 0.6
    valid = np.kron(valid, np.ones((30, 40), bool)).astype(bool)
    valid[300:340, :] = False
    scene = write("scene.tif", image, valid=valid)
    small = maps_of(model, scene, tmp_path / "small", tile=384)
    large = maps_of(model, scene, tmp_path / "large", tile=2048)
    assert len(model.shapes) > 3
    assert np.abs(small[0] - large[0]).max() < 1e-4


def test_windows_without_data_are_skipped(write: Write, tmp_path: Path) -> None:
    model = constant_model()
    image = texture(512, 512)
    valid = np.zeros(image.shape[:2], bool)
    np.fill_diagonal(valid, True)  # one island, of which a window on the diagonal alone holds data
    maps_of(model, write("scene.tif", image, valid=valid), tmp_path / "maps", tile=64)
    assert len(model.shapes) == 8


def test_no_data_at_all_is_an_error(write: Write, tmp_path: Path) -> None:
    scene = write("scene.tif", np.zeros((40, 50, 3), np.uint8), nodata=0)
    with pytest.raises(DataError, match="no pixel holds data"):
        maps_of(constant_model(), scene, tmp_path / "maps")


def test_a_tile_without_a_core_is_refused(tiny: Folds, write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at least 320 px.*Received: 300"):
        maps_of(tiny, write("scene.tif", texture(400, 400)), tmp_path / "maps", tile=300)


class StopError(Exception):
    pass


class Failing:
    """Gives up at its n-th window."""

    def __init__(self, model: Folds, after: int) -> None:
        self.info, self._model, self._left = model.info, model, after

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        if self._left == 0:
            raise StopError
        self._left -= 1
        return self._model.predict_all(images)


def test_what_was_cut_off_goes_on_after_the_last_whole_row(write: Write, tmp_path: Path) -> None:
    model = small_model()
    scene = write("scene.tif", texture(700, 500))
    unbroken = maps_of(model, scene, tmp_path / "unbroken", tile=320)
    windows = len(model.shapes)
    with pytest.raises(StopError):
        maps_of(Failing(model, 5), scene, tmp_path / "maps", tile=320)
    model.shapes.clear()
    # another tile is asked for, but the rows that are done were cut by the first
    resumed = maps_of(model, scene, tmp_path / "maps", tile=400)
    assert (resumed == unbroken).all()
    # rows of 4 windows, of which the second was not complete
    assert len(model.shapes) == windows - 4


def test_symmetries_average_and_do_not_depend_on_windows(write: Write, tmp_path: Path) -> None:
    model = small_model()
    image = texture(330, 381)
    scene = write("scene.tif", image)
    tiled = maps_of(model, scene, tmp_path / "tiled", tile=320, tta=True)
    whole = maps_of(model, scene, tmp_path / "whole", tta=True)
    assert np.abs(tiled[0] - whole[0]).max() < 1e-4
    plain = maps_of(model, scene, tmp_path / "plain")
    assert np.abs(plain[0] - whole[0]).max() > 1e-3
    # an image of the stride's multiple, turned, gives the turned map
    square = texture(256, 256)
    straight = maps_of(model, write("a.tif", square), tmp_path / "a", tta=True)
    turned = maps_of(model, write("b.tif", np.rot90(square).copy()), tmp_path / "b", tta=True)
    assert np.abs(np.rot90(straight[0]) - turned[0]).max() < 1e-4
