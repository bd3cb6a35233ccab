"""What is handed over: Cloud Optimized GeoTIFFs on the scene's grid."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.data.box import Box
from lim_keras.data.raster import read_info
from lim_keras.errors import DataError
from lim_keras.inference.maps import Maps
from lim_keras.inference.rasters import Counts, maps_on_scene, write_rasters
from lim_keras.inference.stream import Piece

from .conftest import Write


def made(folder: Path, scene: Path, probability: np.ndarray, valid: np.ndarray, spread: bool = False) -> Path:
    """Maps of a scene of one window, votes 2, spread 0.125."""
    info = read_info(scene)
    piece = Piece(
        Box(0, 0, *probability.shape),
        probability.astype(np.float32),
        np.full(probability.shape, 0.125, np.float32),
        np.full(probability.shape, 2, np.int32),
        valid,
    )
    with Maps(folder, info, spread=spread, identity="", plan={}) as maps:
        maps.write(piece)
        maps.commit(1)
        return maps.write_vrt()


@pytest.fixture
def example(write: Write, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    probability = np.linspace(0, 1, 700 * 1300).reshape(700, 1300).astype(np.float32)
    valid = np.ones(probability.shape, bool)
    valid[:100, :50] = False
    scene = write("scene.tif", np.zeros((700, 1300, 3), np.uint8))
    return made(tmp_path / "maps", scene, probability, valid, spread=True), probability, valid


def test_percent_and_mask(example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    vrt, probability, valid = example
    counts = write_rasters(vrt, tmp_path / "p.tif", tmp_path / "m.tif", threshold=0.6)
    with rasterio.open(tmp_path / "p.tif") as file:
        assert (file.count, file.dtypes[0], file.nodata) == (1, "uint8", 255)
        assert file.crs.to_epsg() == 32648 and file.transform == Affine(0.8, 0, 5e5, 0, -0.8, 3e6)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4]
        percent = file.read(1)
    assert (percent[~valid] == 255).all()
    assert np.abs(percent[valid] - probability[valid] * 100).max() < 0.5001
    with rasterio.open(tmp_path / "m.tif") as file:
        mask = file.read(1)
        assert file.nodata == 255 and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    # numbers are kept one higher than they are: what lies within 1e-7 of the threshold may fall on either side
    clear = np.abs(probability - 0.6) > 1e-6
    assert (mask[valid & clear] == (probability >= 0.6)[valid & clear]).all()
    assert (mask[~valid] == 255).all()
    assert counts == Counts(int((mask == 1).sum()), int(valid.sum()), valid.size)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_float32_with_spread(example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    vrt, probability, valid = example
    write_rasters(vrt, tmp_path / "p.tif", tmp_path / "m.tif", threshold=0.5, kind="float32", spread=True)
    with rasterio.open(tmp_path / "p.tif") as file:
        assert (file.count, file.dtypes[0], file.nodata) == (2, "float32", -1)
        assert file.descriptions == ("probability", "spread")
        first, second = file.read()
    assert np.abs(first[valid] - probability[valid]).max() < 2e-7
    assert (second[valid] == 0.125).all()
    assert (first[~valid] == -1).all() and (second[~valid] == -1).all()


def test_the_same_maps_give_the_same_bytes(example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_rasters(example[0], tmp_path / f"p_{name}.tif", tmp_path / f"m_{name}.tif", threshold=0.5)
    assert (tmp_path / "p_a.tif").read_bytes() == (tmp_path / "p_b.tif").read_bytes()
    assert (tmp_path / "m_a.tif").read_bytes() == (tmp_path / "m_b.tif").read_bytes()


def test_votes_are_kept_for_polygons(example: tuple[Path, np.ndarray, np.ndarray]) -> None:
    with rasterio.open(example[0]) as file:
        assert file.descriptions == ("probability", "votes", "spread")
        votes = file.read(2)
    assert (votes[example[2]] == 2).all() and (votes[~example[2]] == -1).all()


def test_maps_of_a_resampled_scene_come_back(write: Write, tmp_path: Path) -> None:
    fine = write("fine.tif", np.zeros((200, 300, 3), np.uint8), transform=Affine(0.8, 0, 5e5, 0, -0.8, 3e6))
    coarse = write("coarse.tif", np.zeros((80, 120, 3), np.uint8), transform=Affine(2, 0, 5e5, 0, -2, 3e6))
    ramp = np.broadcast_to(np.linspace(0, 1, 300), (200, 300))
    valid = np.ones(ramp.shape, bool)
    valid[:, :30] = False
    path = maps_on_scene(made(tmp_path / "maps", fine, ramp, valid), read_info(coarse), True)
    with rasterio.open(path) as file:
        assert (file.height, file.width, file.transform.a) == (80, 120, 2.0)
        back = file.read(1)
    assert (back[:, :11] == -1).all() and (back[:, 13:] >= 0).all()
    # the centre of coarse column 60 is at 121 m, 150.75 fine columns to the right of the first fine centre
    assert back[40, 60] == pytest.approx(150.75 / 299, abs=2e-3)


def test_a_folder_that_cannot_be_written(example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: the maps cannot be written .* same command again"):
        write_rasters(example[0], tmp_path / "absent" / "p.tif", tmp_path / "absent" / "m.tif", threshold=0.5)
