import math
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.errors import DataError
from lim_keras.raster.images import fill_invalid, read_image, read_info, read_valid
from lim_keras.raster.masks import read_labels
from lim_keras.raster.writer import write_raster

UTM = "EPSG:32648"


def at(x: float, y: float, step: float) -> Affine:
    return Affine(step, 0, x, 0, -step, y)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [None, 1, 2, 3, 4, 5, 13])
def test_what_is_written_is_read(tmp_path, dtype, bands):
    shape = (19, 33) if bands is None else (19, 33, bands)
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    path = write_raster(tmp_path / "a.tif", array, crs=UTM, transform=at(500000, 3000000, 0.8))
    info, image = read_info(path), read_image(path)
    assert (info.height, info.width, info.bands, info.dtype) == (19, 33, bands or 1, dtype)
    assert (info.crs, info.transform, info.nodata) == (UTM, at(500000, 3000000, 0.8), None)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, array.reshape(19, 33, -1))
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    assert read_valid(path).all()


def test_written_files_are_tiled_and_compressed(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((600, 700), np.float32))
    with rasterio.open(
        write_raster(tmp_path / "b.tif", np.zeros((600, 700)), crs=UTM, transform=at(0, 0, 1))
    ) as source:
        assert source.profile["tiled"] and source.block_shapes == [(256, 256)]
        assert source.compression.name == "deflate"
    assert path.stat().st_size < 20_000


def test_labels_of_bool_and_of_wide_integers(tmp_path):
    labels = np.array([[True, False], [False, True]])
    assert read_labels(write_raster(tmp_path / "a.tif", labels)).tolist() == [[1, 0], [0, 1]]
    wide = write_raster(tmp_path / "b.tif", labels.astype(np.int32) * 255)
    assert read_labels(wide).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.zeros((2, 2)), "ends in .tif"),
        ("a.tif", np.zeros(4), r"Received the shape \(4,\)"),
        ("a.tif", np.zeros((0, 4)), r"Received the shape \(0, 4\)"),
        ("a.tif", np.zeros((2, 2), dtype="U1"), "cannot be written"),
        ("missing/a.tif", np.zeros((2, 2)), "cannot be written"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, array, message):
    with pytest.raises(DataError, match=message):
        write_raster(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="cannot be written"):
        write_raster(path, np.zeros((4, 4), np.uint8), crs="EPSG:no-such")
    assert read_image(path).all()
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


# Ground sample distance.


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        (UTM, at(500000, 3000000, 0.8), 0.8),  # UTM's own 0.04 % is not added
        (UTM, Affine(0, 0.8, 5e5, 0.8, 0, 3e6), 0.8),  # turned by 90 degrees
        (UTM, Affine(0.5, 0, 5e5, 0, -2, 3e6), 1.0),  # 0.5 x 2 m: as large as 1 x 1 m
        ("EPSG:2229", at(6500000, 1900000, 1.0), 0.3048006),  # California zone 5, US survey feet (1200 / 3937 m)
        # Web Mercator at 60 degrees north shows the ground at about twice its size, there:
        # y = 6378137 * ln(tan(45 + 30 degrees)) = 8399737.9. On the ellipsoid, f = 1 - 0.0066944 * 0.75 = 0.9949792:
        # east 0.5 / sqrt(f) = 0.50126 m, north 0.5 * 0.9933056 / f ** 1.5 = 0.50042 m, root of their product 0.50084
        ("EPSG:3857", at(1000000, 8399737.9, 1.0), 0.50084),
        # 0.0001 degrees: 11.132 m along the equator, 11.057 m along a meridian, sqrt(11.132 * 11.057) = 11.094
        ("EPSG:4326", at(105, 0.0001, 0.0001), 11.0946),
        # at 60 degrees, a parallel's degree is 55.800 km, a meridian's 111.412 km: sqrt(5.58 * 11.1412)
        ("EPSG:4326", at(105, 60.0001, 0.0001), 7.8846),
        ("", at(500000, 3000000, 0.8), None),
        (UTM, None, None),
    ],
)
def test_ground_sample_distance(tmp_path, crs, transform, expected):
    path = write_raster(tmp_path / "a.tif", np.zeros((2, 2), np.uint8), crs=crs, transform=transform)
    found = read_info(path).gsd_m
    assert found is expected if expected is None else math.isclose(found, expected, rel_tol=1e-4)


def test_utm_and_foot_figures_are_exact(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), crs=UTM, transform=at(3e5, 3e6, 0.8))
    assert read_info(path).gsd_m == pytest.approx(0.8, abs=1e-12)


# Validity.


def test_nodata_value(tmp_path):
    array = np.uint8([[[0, 0], [0, 5]], [[5, 0], [5, 5]]])
    path = write_raster(tmp_path / "a.tif", array, nodata=0)
    assert read_info(path).nodata == 0
    assert read_valid(path).tolist() == [[False, False], [False, True]]  # absent where one of the bands is 0


def test_nan_is_absent_tagged_or_not(tmp_path):
    array = np.float32([[[1, np.nan], [1, 1]], [[np.inf, 1], [np.nan, np.nan]]])
    for nodata in (None, np.nan):
        path = write_raster(tmp_path / "a.tif", array, nodata=nodata)
        assert read_valid(path).tolist() == [[False, True], [False, False]]


def test_internal_mask(tmp_path):
    valid = np.array([[True, False, True]])
    path = write_raster(tmp_path / "a.tif", np.full((1, 3, 3), 7, np.uint8), valid=valid)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]  # no .msk beside it
    np.testing.assert_array_equal(read_valid(path), valid)
    assert read_image(path).shape == (1, 3, 3)


def with_fourth_band(path, band):
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 4, "dtype": "uint8", "transform": at(5e5, 3e6, 1)}
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.concatenate([np.full((3, 2, 2), 9, np.uint8), band[np.newaxis]]))
    return path


def test_alpha_band_of_a_tiff_is_validity(tmp_path):
    path = with_fourth_band(tmp_path / "a.tif", np.uint8([[255, 0], [255, 255]]))
    assert read_info(path).bands == read_image(path).shape[-1] == 3
    assert read_valid(path).tolist() == [[True, False], [True, True]]


def test_near_infrared_tagged_as_alpha_is_not_lost_in_silence(tmp_path):
    path = with_fourth_band(tmp_path / "a.tif", np.uint8([[25, 31], [88, 140]]))
    with pytest.raises(DataError, match=r"band 4 is tagged as alpha.*colorinterp_4 undefined a\.tif"):
        read_image(path)


def test_absent_pixels_take_the_mean_of_their_band():
    image = np.float32([[[1, 10], [3, 30]], [[-9999, np.nan], [2, 20]]])
    valid = np.array([[True, True], [False, True]])
    assert fill_invalid(image, valid)[1, 0].tolist() == [2, 20]
    assert image[1, 0, 0] == -9999  # the argument is left as it was
    assert fill_invalid(image, np.zeros((2, 2), bool)).tolist() == np.zeros((2, 2, 2)).tolist()
    assert fill_invalid(np.uint8([[[1], [2], [9]]]), np.array([[True, True, False]])).tolist() == [[[1], [2], [2]]]


# What is refused.


@pytest.mark.parametrize("compress", ["none", "deflate", "lzw"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_tiffs_are_refused(tmp_path, compress, share):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    path = write_raster(tmp_path / "a.tif", noise, compress=compress)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        DataError, match=r"a\.tif: (rows .*, columns .* )?cannot be read; the file is truncated or damaged"
    ):
        read_image(path)


def test_other_dtypes_are_refused_with_advice(tmp_path):
    for dtype in (np.int16, np.float64):
        path = write_raster(tmp_path / "a.tif", np.zeros((2, 2), dtype))
        with pytest.raises(DataError, match=rf"uint8, uint16, float32, but it is {np.dtype(dtype).name}"):
            read_image(path)


def test_palette_tiff_is_no_image_but_may_be_a_mask(tmp_path):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 1, "width": 2, "count": 1, "dtype": "uint8", "transform": at(5e5, 3e6, 1)}
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.uint8([[[0, 1]]]))
        target.write_colormap(1, {0: (0, 0, 0, 255), 1: (200, 0, 0, 255)})
    with pytest.raises(DataError, match="has a palette"):
        read_image(path)
    assert read_labels(path).tolist() == [[0, 1]]


def test_threads_read_tiffs_without_a_place_in_peace(tmp_path):
    """rasterio warns of such files, and warning filters are global: pytest would turn one warning into an error."""
    paths = [write_raster(tmp_path / f"{n}.tif", np.full((8, 8), n, np.uint8)) for n in range(40)]
    before = list(warnings.filters)
    start = threading.Barrier(4)

    def read(part):
        start.wait()
        return [int(read_image(path)[0, 0, 0]) for path in part]

    with ThreadPoolExecutor(4) as pool:
        found = chain.from_iterable(pool.map(read, [paths[k::4] for k in range(4)]))
        assert sorted(found) == list(range(40))
    assert warnings.filters == before


def test_a_local_grid_in_metres_has_a_ground_sample_distance(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    path = write_raster(
        tmp_path / "site.tif", np.zeros((4, 5), np.uint8), crs=local, transform=Affine(2, 0, 0, 0, -2, 0)
    )
    info = read_info(path)
    assert info.gsd_m == 2.0 and info.crs
