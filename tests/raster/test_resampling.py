"""Scenes on other grids: averages where the grid is coarser than the scene, and grids of a ground sample distance."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.resampling import target_grid
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster

UTM = "EPSG:32648"


def write(path: Path, pixels: np.ndarray, transform: Affine, crs: str | None = UTM, **profile: Any) -> Path:
    """pixels: (bands, height, width)."""
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, crs, transform, dtype=pixels.dtype, **profile
    ) as target:
        target.write(pixels)
    return path


def metric(step: float, width: int, height: int, east: float = 500_000, north: float = 3_000_000) -> Grid:
    return Grid(UTM, Affine(step, 0, east, 0, -step, north), width, height, step)


def area_average(pixels: np.ndarray, valid: np.ndarray, place: tuple[float, float, float], shape: tuple[int, int]):
    """Slow oracle. place: row and column of the scene where the grid starts, and pixels of the scene in its step."""
    top, left, step = place
    means, held = np.zeros((*shape, pixels.shape[0])), np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            total, weight = np.zeros(pixels.shape[0]), 0.0
            up, start = top + row * step, left + column * step
            for y in range(max(math.floor(up), 0), min(math.ceil(up + step), pixels.shape[1])):
                for x in range(max(math.floor(start), 0), min(math.ceil(start + step), pixels.shape[2])):
                    high = min(y + 1, up + step) - max(y, up)
                    wide = min(x + 1, start + step) - max(x, start)
                    if valid[y, x]:
                        total += pixels[:, y, x] * high * wide
                        weight += high * wide
            means[row, column] = total / weight if weight else 0
            held[row, column] = weight >= step * step / 2 - 1e-6
    return means, held


def test_a_coarser_grid_gets_averages_of_the_pixels_with_data(tmp_path: Path) -> None:
    pixels = np.array([[1, 2, 3, 4], [5, 6, 0, 8], [9, 0, 11, 0], [0, 14, 0, 0]], np.uint16)[None]
    path = write(tmp_path / "scene.tif", pixels, Affine(1, 0, 500_000, 0, -1, 3_000_000), nodata=0)
    with RasterReader(path, grid=metric(2, 2, 2)) as scene:
        found, valid = scene.image()
        # (1 + 2 + 5 + 6) / 4 = 3.5; (3 + 4 + 8) / 3 = 5; (9 + 14) / 2 = 11.5, where half holds data; 11 alone is less
        assert found[..., 0].tolist()[0] == [4, 5] and found[1, 0, 0] == 12
        assert valid.tolist() == [[True, True], [True, False]]
        assert (scene.valid() == valid).all() and (scene.pixels() == found).all()
        assert scene.info.gsd_m == 2 and (scene.info.height, scene.info.width) == (2, 2)


@pytest.mark.parametrize("step", [1.6, 2.0, 0.5 * math.pi, 7.3])
def test_any_ratio_agrees_with_the_slow_average(step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 30, (2, 41, 57)).astype(np.float32)
    pixels[:, rng.random((41, 57)) < 0.4] = np.nan
    path = write(tmp_path / "scene.tif", pixels, Affine(1, 0, 500_000, 0, -1, 3_000_000))
    # the grid starts 2.7 m east and 3.2 m south of a corner that lies 4 m outside, and ends beyond the scene
    grid = metric(step, 45, 38, east=500_000 - 4 + 2.7, north=3_000_000 + 4 - 3.2)
    means, held = area_average(np.nan_to_num(pixels), np.isfinite(pixels[0]), (-0.8, -1.3, step), (38, 45))
    monkeypatch.setattr("lim_keras.raster.averages._READ_BLOCK", 16)
    with RasterReader(path, grid=grid) as scene:
        found, valid = scene.image()
        part = Box(3, 5, 20, 31)
        np.testing.assert_allclose(scene.image(part)[0], found[part.slices], rtol=1e-5)
    np.testing.assert_array_equal(valid, held)
    assert 20 < held.sum() < held.size
    np.testing.assert_allclose(found[held], means[held], rtol=1e-5)


@pytest.mark.parametrize(
    "axes",
    [Affine.rotation(30) @ Affine.scale(1, -1), Affine(1, 0, 0, 0, 1, 0), Affine(-1, 0, 0, 0, -1, 0)],
    ids=["rotated", "south up", "east to west"],
)
def test_scenes_with_other_axes_are_averaged(axes: Affine, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:120, :120] + 0.5
    pattern = 1000.0 * (np.indices((120, 120)).sum(axis=0) % 2)  # a chessboard, whose average is 500 everywhere
    place = Affine.translation(500_000, 3_000_000) @ axes
    east = place.a * columns + place.b * rows + place.c - 500_000
    north = place.d * columns + place.e * rows + place.f - 3_000_000
    layers = np.stack([pattern, 1000 + 2 * east - 3 * north]).astype(np.float32)
    path = write(tmp_path / "scene.tif", layers, place)
    with RasterReader(path) as plain:
        grid = target_grid(plain.info, 8.0)
        assert grid is not None and (grid.transform.b, grid.transform.d) == (0, 0) and grid.transform.e < 0
        with plain.on_grid(grid) as scene:
            found, valid = scene.image()
    inner = found[5:-5, 5:-5][valid[5:-5, 5:-5]]
    assert len(inner) >= 20 and np.abs(inner[:, 0] - 500).max() < 25
    centre = np.indices(valid.shape)[::-1] + 0.5
    x = grid.transform.a * centre[0] + grid.transform.c - 500_000
    y = grid.transform.e * centre[1] + grid.transform.f - 3_000_000
    inside = np.zeros_like(valid)
    inside[5:-5, 5:-5] = valid[5:-5, 5:-5]
    np.testing.assert_allclose(found[inside][:, 1], (1000 + 2 * x - 3 * y)[inside], atol=0.5)


def test_a_rotated_scene_holds_data_where_half_of_a_pixel_does(tmp_path: Path) -> None:
    place = Affine.translation(500_000, 3_000_000) @ Affine.rotation(45) @ Affine.scale(1, -1)
    path = write(tmp_path / "scene.tif", np.full((1, 60, 60), 7, np.uint8), place)
    with RasterReader(path) as plain:
        grid = target_grid(plain.info, 4.0)
        assert grid is not None
        with plain.on_grid(grid) as scene:
            found, valid = scene.image()
    assert valid.sum() * 16 == pytest.approx(3600, rel=0.02)  # m2
    assert (found[valid] == 7).all()


def test_degrees_become_square_metres_of_utm(tmp_path: Path) -> None:
    step = 1 / 111_320  # a metre of latitude; at 60 degrees north, half a metre of longitude
    board = 200 * (np.indices((400, 800)).sum(axis=0) % 2).astype(np.float32)
    path = write(tmp_path / "scene.tif", board[None], Affine(step, 0, 105, 0, -step, 60), "EPSG:4326")
    with RasterReader(path) as plain:
        grid = target_grid(plain.info, 4.0)
        assert grid is not None and grid.crs == UTM and grid.transform.a == 4
        assert (grid.height, grid.width) == pytest.approx((100, 100), abs=3)
        with plain.on_grid(grid) as scene:
            found, valid = scene.image()
    assert valid[3:-3, 3:-3].all()
    np.testing.assert_allclose(found[3:-3, 3:-3], 100, atol=5)


def test_pixels_that_are_coarser_along_one_axis_only(tmp_path: Path) -> None:
    # 1 m wide, 4 m high, to 2 m: averages of pairs across, bilinear along: rows at 1/4 and 3/4 of a pixel
    pixels = np.array([[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20, 22]], np.float32)[None]
    path = write(tmp_path / "scene.tif", pixels, Affine(1, 0, 500_000, 0, -4, 3_000_000))
    with RasterReader(path, grid=metric(2, 2, 6)) as scene:
        found, valid = scene.image()
    assert valid.all()
    np.testing.assert_allclose(found[2:4, :, 0], [[7, 11], [11, 15]], atol=1e-3)


def test_a_grid_outside_the_scene_holds_no_data(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", np.ones((1, 8, 8), np.uint8), Affine(1, 0, 500_000, 0, -1, 3_000_000))
    with RasterReader(path, grid=metric(2, 4, 4, east=600_000)) as scene:
        pixels, valid = scene.image()
    assert pixels.shape == (4, 4, 1) and not valid.any()


def test_the_grid_of_a_ground_sample_distance(tmp_path: Path) -> None:
    place = Affine(0.5, 0, 500_000, 0, -0.5, 3_000_000)
    path = write(tmp_path / "scene.tif", np.ones((1, 20, 31), np.uint8), place)
    with RasterReader(path) as scene:
        assert target_grid(scene.info, 0.5) is None and target_grid(scene.info, 0.50002) is None
        grid = target_grid(scene.info, 2.0)
        # 31 x 0.5 m = 15.5 m: the eighth column has 1.5 m of ground of 2 m
        assert grid == Grid(UTM, Affine(2, 0, 500_000, 0, -2, 3_000_000), 8, 5, 2.0)
        with scene.on_grid(grid) as coarse:
            assert coarse.valid().all()
        with pytest.raises(DataError, match=r"at most 1e\+12 pixels\. Received: 1e-09 m"):
            target_grid(scene.info, 1e-9)
        for wrong in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ConfigError, match="Expected metres > 0"):
                target_grid(scene.info, wrong)
    bare = write(tmp_path / "bare.tif", np.ones((1, 20, 31), np.uint8), place, None)
    with RasterReader(bare) as scene, pytest.raises(DataError, match=r"bare\.tif: cannot be resampled to 2 m"):
        target_grid(scene.info, 2.0)


def test_a_scene_whose_name_begins_with_a_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.full((40, 40), 7, np.uint8)
    values[:, :10] = 0
    place = {"crs": "EPSG:32648", "transform": Affine(2, 0, 500_000, 0, -2, 3_000_000)}
    write_raster(Path(" lead.tif"), values, nodata=0, **place)
    with RasterReader(" lead.tif") as scene, scene.on_grid(target_grid(scene.info, 4.0)) as view:
        pixels, valid = view.image(view.info.box)
    assert not valid[:, :5].any()
    assert (pixels[:, 5:, 0] == 7).all()
