"""Result rasters: Cloud Optimized GeoTIFFs on the scene's grid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine
from rio_cogeo import cog_validate

from lim_keras.errors import DataError, DomainWarning
from lim_keras.inference.maps import Maps, WindowPrediction
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.raster.filling import FILL_REACH
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import Counts, maps_on_scene, write_rasters
from tests.conftest import largest_file

from .conftest import Write, constant_model


def made(folder: Path, scene: Path, probability: np.ndarray, valid: np.ndarray, spread: bool = False) -> Path:
    """Maps of a scene of one window, votes 2, spread 0.125."""
    return made_of(read_info(scene), folder, probability, valid, spread)


def made_of(info: RasterInfo, folder: Path, probability: np.ndarray, valid: np.ndarray, spread: bool) -> Path:
    piece = WindowPrediction(
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
    path = maps_on_scene(made(tmp_path / "maps", fine, ramp, valid), RasterReader(coarse))
    with rasterio.open(path) as file:
        assert (file.height, file.width, file.transform.a) == (80, 120, 2.0)
        back = file.read(1)
    # the maps begin at 24 m, within coarse column 12; columns before it show the nearest value, and not a smaller one
    assert (back >= 0).all() and (back[:, :11] == back[:, 12:13]).all()
    # the centre of coarse column 60 is at 121 m, 150.75 fine columns to the right of the first fine centre
    assert back[40, 60] == pytest.approx(150.75 / 299, abs=2e-3)


def test_a_folder_that_cannot_be_written(example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: the maps cannot be written .* same command again"):
        write_rasters(example[0], tmp_path / "absent" / "p.tif", tmp_path / "absent" / "m.tif", threshold=0.5)


# Height and width: halves of 512 px are one block wide at some level; tall, wide, tiny, whole and odd.
SIZES = [(1, 1), (1, 2000), (512, 1), (2000, 2), (511, 511), (512, 512), (513, 513), (600, 512), (3000, 512)]
SIZES += [(513, 1024), (2100, 1024), (2049, 1025), (600, 4096), (64, 8192), (8192, 256)]


@pytest.mark.parametrize("size", SIZES)
def test_a_strict_validator_accepts_every_size(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    info = RasterInfo("s", width, height, 3, "uint8", "EPSG:32648", Affine(0.8, 0, 5e5, 0, -0.8, 3e6), 0.8, None)
    valid = np.ones(size, bool)
    valid[: height // 2] = False
    probability = np.full(size, 0.75)
    for kind, spread in (("percent", False), ("float32", True)):
        maps = made_of(info, tmp_path / kind, probability, valid, spread)
        write_rasters(maps, tmp_path / "p.tif", tmp_path / "m.tif", threshold=0.5, kind=kind, spread=spread)
        for name in ("p.tif", "m.tif"):
            assert cog_validate(tmp_path / name, strict=True, quiet=True) == (True, [], [])
            with rasterio.open(tmp_path / name) as file:
                assert ((file.read(1) != file.nodata) == valid).all()


@pytest.mark.parametrize("missing", [1, 100, 9000, 60_000, 300_000])
def test_a_truncated_file_is_no_result(write: Write, tmp_path: Path, missing: int) -> None:
    rng = np.random.default_rng(0)
    scene = write("scene.tif", np.zeros((600, 700, 3), np.uint8))
    maps = made(tmp_path / "maps", scene, rng.random((600, 700)), np.ones((600, 700), bool))
    options: dict[str, Any] = {"threshold": 0.5, "kind": "float32"}
    write_rasters(maps, tmp_path / "p.tif", tmp_path / "m.tif", **options)
    whole = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "p.tif").unlink()
    refused = pytest.raises(DataError, match=r"maps cannot be written .*is kept: free disk space")
    with largest_file(len(whole) - missing), refused:
        write_rasters(maps, tmp_path / "p.tif", tmp_path / "m.tif", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "maps", "m.tif"}
    write_rasters(maps, tmp_path / "p.tif", tmp_path / "m.tif", **options)
    assert (tmp_path / "p.tif").read_bytes() == whole


def test_a_file_that_holds_other_pixels_is_no_result(
    example: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = rasterio.shutil.copy

    def lossy(source: Path, target: Path, **options: Any) -> None:
        """Lose a block of the draft, as a write that failed unnoticed does."""
        with rasterio.open(source, "r+") as file:
            file.write(np.full((1, 512, 512), file.nodata, np.uint8), window=((0, 512), (512, 1024)))
        copy(source, target, **options)

    monkeypatch.setattr("rasterio.shutil.copy", lossy)
    with pytest.raises(DataError, match=r"maps cannot be written \(the file does not hold what was written\)"):
        write_rasters(example[0], tmp_path / "p.tif", tmp_path / "m.tif", threshold=0.5)
    assert not (tmp_path / "p.tif").exists()


UTM_AXES = {
    "north up": Affine(0.5, 0, 5e5, 0, -0.5, 3e6),
    "south up": Affine(0.5, 0, 5e5, 0, 0.5, 3e6 - 100),
    "rotated": Affine.translation(5e5 + 30, 3e6 - 10) @ Affine.rotation(-20) @ Affine.scale(0.5, -0.5),
}


def gaps(height: int = 200, width: int = 240) -> np.ndarray:
    """Pixels with data of a scene: none in a rectangle, in one pixel of fifty, and along a slanted edge."""
    rows, columns = np.mgrid[:height, :width]
    valid = np.random.default_rng(5).random((height, width)) > 0.02
    valid[40:90, 60:130] = False
    return valid & (columns > 10 + rows / 20)


def scene_and_coarse_maps(
    write: Write, folder: Path, valid: np.ndarray, transform: Affine, **options: object
) -> tuple[Path, Path]:
    """A scene of 0.5 m that is 0 where it holds no data, and maps of it at 2 m, a ramp from west to east, that hold
    data where the scene does at their pixels' centres, as a warp leaves it."""
    scene = write(
        "fine.tif", np.repeat(np.uint8(valid * 90)[..., np.newaxis], 3, axis=-1), transform=transform, **options
    )
    coarse = write("coarse.tif", np.zeros((70, 80, 3), np.uint8), transform=Affine(2, 0, 5e5 - 10, 0, -2, 3e6 + 10))
    rows, columns = np.mgrid[:70, :80] + 0.5
    east, north = 5e5 - 10 + 2 * columns, 3e6 + 10 - 2 * rows
    back = ~transform
    x, y = (np.floor(part).astype(int) for part in (back.a * east + back.b * north + back.c,
                                                     back.d * east + back.e * north + back.f))  # fmt: skip
    inside = (x >= 0) & (y >= 0) & (x < valid.shape[1]) & (y < valid.shape[0])
    known = inside & valid[np.clip(y, 0, valid.shape[0] - 1), np.clip(x, 0, valid.shape[1] - 1)]
    ramp = np.broadcast_to(np.linspace(0, 1, 80), (70, 80))
    return scene, made(folder, coarse, ramp, known, spread=True)


@pytest.mark.parametrize("axes", UTM_AXES)
def test_a_resampled_scene_keeps_its_own_gaps(write: Write, tmp_path: Path, axes: str) -> None:
    valid = gaps()
    scene, vrt = scene_and_coarse_maps(write, tmp_path / "maps", valid, UTM_AXES[axes], nodata=0)
    path = maps_on_scene(vrt, RasterReader(scene))
    with rasterio.open(path) as file:
        assert file.descriptions == ("probability", "votes", "spread") and file.nodata == -1
        assert file.transform == UTM_AXES[axes]
        bands = file.read()
    for band in bands:
        np.testing.assert_array_equal(band != -1, valid)
    assert (bands[1][valid] == 2).all() and (bands[2][valid] == 0.125).all()
    # a pixel at x metres lies x / 2 + 4.5 maps' pixels from the first one's centre, of 79; its nearest is within 2 px
    rows, columns = np.mgrid[:200, :240] + 0.5
    metres = UTM_AXES[axes].a * columns + UTM_AXES[axes].b * rows + UTM_AXES[axes].c - 5e5
    np.testing.assert_allclose(bands[0][valid], ((metres / 2 + 4.5) / 79)[valid], atol=3 / 79)
    counts = write_rasters(path, tmp_path / "p.tif", tmp_path / "m.tif", threshold=0.0, spread=True)
    assert counts == Counts(int(valid.sum()), int(valid.sum()), valid.size)
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read() != 255, [valid, valid])


def test_gaps_of_a_resampled_scene_are_those_that_were_asked(write: Write, tmp_path: Path) -> None:
    valid = gaps()
    scene, vrt = scene_and_coarse_maps(write, tmp_path / "maps", valid, UTM_AXES["north up"])
    for nodata, expected in ((0.0, valid), ("file", valid | True), ("none", valid | True)):
        with rasterio.open(maps_on_scene(vrt, RasterReader(scene, bands=(2,), nodata=nodata))) as file:
            np.testing.assert_array_equal(file.read(1) != -1, expected)


def test_blocks_of_a_resampled_scene_are_the_whole_cut_up(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, vrt = scene_and_coarse_maps(write, tmp_path / "maps", gaps(), UTM_AXES["rotated"], nodata=0)
    with rasterio.open(maps_on_scene(vrt, RasterReader(scene))) as file:
        whole = file.read()
    monkeypatch.setattr("lim_keras.raster.writer.BLOCK", 64)
    with rasterio.open(maps_on_scene(vrt, RasterReader(scene))) as file:
        # nearest to within 4 % of the distance: of a tie either may be taken
        np.testing.assert_allclose(file.read(), whole, atol=2 / 79)


def test_a_speck_far_from_all_that_was_predicted_is_no_landslide(write: Write, tmp_path: Path) -> None:
    valid = np.zeros((8, 700), bool)
    valid[:, :100] = True
    valid[3, 110] = valid[3, 600] = True  # both between the centres of the maps' pixels
    image = np.repeat(np.uint8(valid * 90)[..., np.newaxis], 3, axis=-1)
    scene = write("fine.tif", image, transform=Affine(0.5, 0, 5e5, 0, -0.5, 3e6), nodata=0)
    coarse = write("coarse.tif", np.zeros((2, 175, 3), np.uint8), transform=Affine(2, 0, 5e5, 0, -2, 3e6))
    known = np.broadcast_to(np.arange(175) < 25, (2, 175))
    path = maps_on_scene(made(tmp_path / "maps", coarse, np.full((2, 175), 0.9), known), RasterReader(scene))
    with rasterio.open(path) as file:
        values = file.read(1)
    np.testing.assert_array_equal(values != -1, valid)
    assert FILL_REACH < 600 - 100
    assert values[3, 110] == pytest.approx(0.9) and values[3, 600] == 0


def test_no_pixel_without_data_becomes_landslide_through_resampling(write: Write, tmp_path: Path) -> None:
    valid = gaps()
    scene = write("s.tif", np.repeat(np.uint8(valid * 90)[..., np.newaxis], 3, axis=-1),
                  transform=UTM_AXES["north up"], nodata=0)  # fmt: skip
    with pytest.warns(DomainWarning, match=r"a pixel is 0.5 m"):
        result = predict_scene(constant_model(gsd_m=2.0), scene, tmp_path / "out", PredictOptions(resample=True))
    assert result.summary["valid_pixels"] == result.summary["landslide_pixels"] == valid.sum()
    with rasterio.open(tmp_path / "out" / "s_landslides.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.where(valid, 1, 255))
    with rasterio.open(tmp_path / "out" / "s_probability.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.where(valid, 70, 255))


def test_a_resampled_scene_whose_maps_cannot_be_written(write: Write, tmp_path: Path) -> None:
    scene, vrt = scene_and_coarse_maps(write, tmp_path / "maps", gaps(), UTM_AXES["north up"], nodata=0)
    (tmp_path / "maps" / "maps_on_scene.tif").mkdir()
    with pytest.raises(DataError, match=r"maps: the maps cannot be written .* same command again"):
        maps_on_scene(vrt, RasterReader(scene))
