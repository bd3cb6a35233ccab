"""Windowed reading equals reading the whole file; what is shown where there is no data."""

import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from scipy.ndimage import distance_transform_edt

from lim_keras.data.tiles import read_pair
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.filling import fill_nodata
from lim_keras.raster.georeference import Grid
from lim_keras.raster.images import read_image, read_valid
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster


def write(path: Path, bands: np.ndarray, **options: object) -> Path:
    count, height, width = bands.shape
    settings = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)} | options
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **settings
    ) as file:
        file.write(bands)
    return path


@pytest.fixture
def bands() -> np.ndarray:
    values = np.random.default_rng(5).integers(1, 3000, (4, 40, 60)).astype(np.uint16)
    values[:, :9, :13] = 0
    return values


def test_boxes_are_pieces_of_the_whole(tmp_path: Path, bands: np.ndarray) -> None:
    path = write(tmp_path / "scene.tif", bands, nodata=0)
    box = Box(5, 7, 31, 60)
    with RasterReader(path) as scene:
        pixels, valid = scene.image(box)
        assert (scene.info.height, scene.info.width, scene.info.bands) == (40, 60, 4)
        assert scene.info.gsd_m == pytest.approx(0.8)
    assert pixels.dtype == np.uint16
    assert (pixels == read_image(path)[box.slices]).all()
    assert (valid == read_valid(path)[box.slices]).all()
    assert not valid[:4, :6].any() and valid[4:].all()


def test_alpha_is_validity_and_no_band(tmp_path: Path, bands: np.ndarray) -> None:
    alpha = np.full((1, 40, 60), 255, np.uint8)
    alpha[0, :, 30:] = 0
    path = write(
        tmp_path / "rgba.tif", np.concatenate([bands[:3] // 12, alpha]).astype(np.uint8), photometric="RGB", alpha="YES"
    )
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    with RasterReader(path) as scene:
        pixels, valid = scene.image(Box(0, 0, 40, 60))
    assert pixels.shape == (40, 60, 3)
    assert valid[:, :30].all() and not valid[:, 30:].any()


def test_numbers_that_are_none_hold_no_data(tmp_path: Path) -> None:
    values = np.ones((2, 8, 8), np.float32)
    values[0, 3, 3], values[1, 4, 4] = np.nan, np.inf
    with RasterReader(write(tmp_path / "scene.tif", values)) as scene:
        _, valid = scene.image(Box(2, 2, 6, 6))
    assert np.argwhere(~valid).tolist() == [[1, 1], [2, 2]]


def test_a_scene_without_a_place_is_read_without_a_warning(tmp_path: Path, bands: np.ndarray) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "scene.tif", bands, crs=None, transform=None)
    with RasterReader(path) as scene:
        assert scene.info.gsd_m is None
        assert scene.pixels(Box(0, 0, 2, 3)).shape == (2, 3, 4)


def test_damage_is_named(tmp_path: Path, bands: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"absent\.tif"):
        RasterReader(tmp_path / "absent.tif")
    path = write(tmp_path / "cut.tif", bands, compress="deflate", blockysize=1)
    path.write_bytes(path.read_bytes()[:-2500])
    with pytest.raises(DataError, match=r"cut\.tif"), RasterReader(path) as scene:
        scene.image(Box(0, 0, 40, 60))


def test_filled_by_hand() -> None:
    # One row: data at columns 1 and 5; column 0, 2 are nearest to 1, columns 4, 6 to 5.
    valid = np.array([[False, True, False, False, False, True, False]])
    filled = fill_nodata(np.where(valid, [[0, 10, 0, 0, 0, 50, 0]], 0)[..., None], valid)[0, :, 0]
    assert filled[[0, 1, 2, 4, 5, 6]].tolist() == [10, 10, 10, 50, 50, 50]
    assert filled[3] in (10, 50)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (70, 90)])
@pytest.mark.parametrize("share", [0.003, 0.4, 1.0])
def test_fill_takes_a_nearest_pixel(shape: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(11)
    valid = rng.random(shape) < share
    valid[-1, -1] = True
    position = np.arange(np.prod(shape)).reshape(shape)
    taken = fill_nodata(np.where(valid, position, -1)[..., None], valid)[..., 0]
    assert (taken[valid] == position[valid]).all()
    assert valid.ravel()[taken].all()
    rows, columns = np.indices(shape)
    from_row, from_column = np.divmod(taken, shape[1])
    distance = np.hypot(from_row - rows, from_column - columns)
    assert (distance <= 1.04 * distance_transform_edt(~valid) + 1e-9).all()


def test_whole_images_are_passed_on_and_empty_ones_refused() -> None:
    image = np.zeros((3, 4, 2), np.uint8)
    assert fill_nodata(image, np.ones((3, 4), bool)) is image
    with pytest.raises(ValueError, match="`valid`"):
        fill_nodata(image, np.zeros((3, 4), bool))


def test_bands_without_a_description_are_known_by_their_colour(tmp_path: Path, bands: np.ndarray) -> None:
    path = write(tmp_path / "scene.tif", (bands // 12).astype(np.uint8), photometric="RGB", alpha="NO")
    with RasterReader(path, bands=("blue", "Green", "red")) as scene:
        assert scene.bands == [3, 2, 1]
    with pytest.raises(DataError, match=r"no band 'nir'.*: 1 red, 2 green, 3 blue, 4 \(no description\)"):
        RasterReader(path, bands=("nir",))


def test_bands_by_number_and_by_description(tmp_path: Path, bands: np.ndarray) -> None:
    path = write(tmp_path / "scene.tif", bands)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("Red", "Green", "Blue", "NIR")
    with RasterReader(path, bands=("nir", 1, "Green")) as scene:
        assert scene.info.bands == 3
        assert (scene.pixels(Box(0, 0, 40, 60)) == np.moveaxis(bands[[3, 0, 1]], 0, -1)).all()
    with pytest.raises(DataError, match=r"scene\.tif: has no band 'swir'.*1 red, 2 green, 3 blue, 4 nir"):
        RasterReader(path, bands=(1, "swir"))
    with pytest.raises(DataError, match="has no band 5"):
        RasterReader(path, bands=(5,))


def test_bands_of_several_data_types(tmp_path: Path, bands: np.ndarray) -> None:
    narrow, wide = write(tmp_path / "narrow.tif", bands.astype(np.uint8)), write(tmp_path / "wide.tif", bands)
    height, width = bands.shape[1:]
    shown = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{number}"><SimpleSource><SourceFilename>{file}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (dtype, file, band) in enumerate([("Byte", narrow, 1), ("UInt16", wide, 2), ("UInt16", wide, 1)], 1)
    )
    mixed = tmp_path / "mixed.vrt"
    mixed.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{shown}</VRTDataset>')
    with pytest.raises(DataError, match=r"mixed\.vrt: .*one data type.*1 uint8, 2 uint16, 3 uint16.*`bands`"):
        RasterReader(mixed)
    with RasterReader(mixed, bands=[2, 3]) as reader:
        pixels = reader.pixels(Box(1, 2, 9, 12))
    assert reader.info.dtype == "uint16" and pixels.dtype == np.uint16 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, np.moveaxis(bands[[1, 0], 1:9, 2:12], 0, -1))


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64"])
def test_complex_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "radar.tif"
    settings = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    rasterio.open(path, "w", driver="GTiff", count=3, height=4, width=6, dtype=dtype, **settings).close()
    with pytest.raises(DataError, match=rf"radar\.tif: expected real numbers.*{dtype}.*amplitudes"):
        RasterReader(path)


def test_nodata_may_be_told(tmp_path: Path, bands: np.ndarray) -> None:
    box = Box(0, 0, 40, 60)
    plain, tagged = write(tmp_path / "plain.tif", bands), write(tmp_path / "tagged.tif", bands, nodata=0)
    with RasterReader(plain) as scene:
        assert scene.everywhere_valid and scene.valid(box).all()
    with RasterReader(plain, nodata=0.0) as scene:
        assert not scene.everywhere_valid
        assert ((~scene.valid(box)).sum(), (~scene.image(box)[1]).sum()) == (9 * 13, 9 * 13)
    with RasterReader(tagged, nodata="none") as scene:
        assert scene.everywhere_valid and scene.valid(box).all()
    floats = bands.astype(np.float32)
    floats[:, 0, 0] = np.nan
    with RasterReader(write(tmp_path / "nan.tif", floats), nodata="none") as scene:
        assert (~scene.valid(box)).sum() == 1


def test_what_a_gap_shows_does_not_depend_on_the_box(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(1, 255, (1, 700, 700)).astype(np.uint8)
    values[:, 100:600, 50:650] = 0
    values[0, 300, 320] = 77
    with RasterReader(write(tmp_path / "scene.tif", values, nodata=0)) as scene:
        whole, valid = scene.filled(Box(0, 0, 700, 700), Box(0, 0, 700, 700), [128])
        for box in (Box(0, 0, 700, 300), Box(320, 256, 448, 384), Box(128, 64, 700, 320)):
            part, _ = scene.filled(box, Box(0, 0, 700, 700), [128])
            assert (part == whole[box.slices]).all()
    assert (whole[valid] == np.moveaxis(values, 0, -1)[valid]).all()
    assert whole[301, 322] == 77
    # only a gap of more than 2 x 256 px has a middle that no data is near
    with RasterReader(
        write(tmp_path / "empty.tif", np.where(np.eye(600, 600, k=599), 9, 0)[None].astype(np.uint8), nodata=0)
    ) as scene:
        far, _ = scene.filled(Box(0, 0, 600, 600), Box(0, 0, 600, 600), [128])
    assert far[599, 0] == 128 and far[10, 590] == 9


def test_another_grid_is_read_bilinearly(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 30, 40)).copy()
    path = write(tmp_path / "scene.tif", ramp)
    half = Grid("EPSG:32648", Affine(0.4, 0, 5e5, 0, -0.4, 3e6), 80, 60, 0.4)
    with RasterReader(path, grid=half) as scene:
        assert (scene.info.height, scene.info.width, scene.info.gsd_m) == (60, 80, 0.4)
        pixels, valid = scene.image(Box(10, 10, 20, 70))
    # pixel 10 of the fine grid has its centre at 10.5 / 2 = 5.25 coarse pixels, 4.75 in the ramp's numbers
    assert valid.all()
    assert pixels[0, :, 0] == pytest.approx(np.arange(10, 70) / 2 - 0.25, abs=1e-3)
    wider = Grid("EPSG:32648", Affine(0.4, 0, 5e5 - 8, 0, -0.4, 3e6), 80, 60, 0.4)
    with RasterReader(path, grid=wider) as scene:
        assert (scene.valid(Box(0, 0, 60, 80)).mean(axis=0) > 0).tolist() == [False] * 20 + [True] * 60


@pytest.mark.parametrize("reads", [1, 3])
def test_a_scene_may_be_closed_while_another_thread_reads(tmp_path: Path, reads: int) -> None:
    """A model fails while the next window is read ahead; a crash would end the whole interpreter."""
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 900, "width": 900, "count": 3, "dtype": "uint8", "crs": "EPSG:32648"}
    with rasterio.open(path, "w", transform=Affine(0.8, 0, 5e5, 0, -0.8, 3e6), **profile) as target:
        target.write(np.random.default_rng(0).integers(0, 255, (3, 900, 900), np.uint8))
    read, refused = threading.Semaphore(0), []

    def work(reader: RasterReader) -> None:
        with pytest.raises(DataError, match="cannot be read any more, as it was closed") as caught:
            while True:
                reader.image(Box(0, 0, 900, 900))
                read.release()
        refused.append(caught.value)

    with RasterReader(path) as reader:
        thread = threading.Thread(target=work, args=(reader,))
        thread.start()
        for _ in range(reads):
            assert read.acquire(timeout=60)
    thread.join(timeout=60)
    assert len(refused) == 1


# Sources other than paths.


@pytest.fixture
def scene(tmp_path: Path, bands: np.ndarray) -> Path:
    return write(tmp_path / "scene.tif", bands, nodata=0)


def check_same(reader: RasterReader, path: Path) -> None:
    with RasterReader(path) as expected:
        assert replace(reader.info, path=path) == expected.info
        assert reader.stem == "scene"
        for one, other in zip(reader.image(Box(3, 5, 30, 40)), expected.image(Box(3, 5, 30, 40)), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [str, Path, lambda path: path.as_uri(), lambda path: Path(path.as_uri())])
def test_a_scene_by_path_or_file_url(scene: Path, make: Callable[[Path], Any]) -> None:
    with RasterReader(make(scene)) as reader:
        check_same(reader, scene)


def test_a_scene_on_a_web_server(scene: Path) -> None:
    # In a process of its own: rasterio holds the interpreter's lock while it waits for an answer.
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(scene.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found is not None
            address = f"http://127.0.0.1:{found[1]}"
            # a path loses one of the slashes of a URL
            for source in (f"{address}/scene.tif", Path(f"{address}/scene.tif")):
                with RasterReader(source) as reader:
                    check_same(reader, scene)
                    assert reader.info.path == f"{address}/scene.tif"
                    assert reader.fingerprint[:3] == [60, 40, 4]
                    before = reader.fingerprint
            os.utime(scene, (1_500_000_000, 1_500_000_000))
            with RasterReader(f"{address}/scene.tif") as reader:
                assert reader.fingerprint != before  # the server tells when the file changed
            with pytest.raises(DataError, match=rf"{address}/absent\.tif: is not there: the server answers 404"):
                RasterReader(f"{address}/absent.tif")
        finally:
            server.terminate()


def test_a_scene_in_memory_and_in_an_archive(scene: Path, tmp_path: Path) -> None:
    with MemoryFile(scene.read_bytes(), filename="scene.tif") as memory, RasterReader(memory.name) as reader:
        assert memory.name.startswith("/vsimem/")
        check_same(reader, scene)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scene, "scene.tif")
    for name in (f"/vsizip/{tmp_path}/a.zip/scene.tif", f"zip://{tmp_path}/a.zip!scene.tif"):
        with RasterReader(name) as reader:
            check_same(reader, scene)


def test_an_open_dataset_stays_open(scene: Path) -> None:
    with rasterio.open(scene) as dataset:
        with RasterReader(dataset) as reader:
            check_same(reader, scene)
        assert not dataset.closed
        with pytest.raises(DataError, match="was closed"):
            reader.pixels()
        with WarpedVRT(dataset, crs="EPSG:4326") as warped, RasterReader(warped) as reader:
            assert reader.info.crs == "EPSG:4326" and reader.name == str(scene)
    with pytest.raises(DataError, match=r"scene\.tif: this dataset is closed"):
        RasterReader(dataset)


def test_a_reader_is_shared(scene: Path) -> None:
    with RasterReader(scene, bands=(2, 1)) as reader:
        with RasterReader(reader, bands=(3,), nodata="none") as other:
            assert other.everywhere_valid and not reader.everywhere_valid
            np.testing.assert_array_equal(other.pixels()[..., 0], read_image(scene)[..., 2])
        grid = Grid("EPSG:32648", Affine(1.6, 0, 5e5, 0, -1.6, 3e6), 30, 20, 1.6)
        with reader.on_grid(grid) as coarse:
            assert coarse.bands == [2, 1] and coarse.pixels().shape == (20, 30, 2)
        assert reader.pixels().shape == (40, 60, 2)


def test_a_file_changes_its_fingerprint(scene: Path) -> None:
    with RasterReader(scene) as reader:
        before = reader.fingerprint
        assert before == reader.fingerprint
    os.utime(scene, ns=(0, 1))
    with RasterReader(scene) as reader:
        assert before[:3] == reader.fingerprint[:3] == [60, 40, 4]
        assert reader.fingerprint[3][:3] == [*before[3][:2], 1] and reader.fingerprint != before


def test_a_ground_sample_distance_is_used_where_the_file_has_none(tmp_path: Path, scene: Path) -> None:
    with RasterReader(scene, gsd_m=5.0) as reader:
        assert reader.info.gsd_m == 0.8
    with RasterReader(write_raster(tmp_path / "plain.tif", np.zeros((4, 4), np.uint8)), gsd_m=5.0) as reader:
        assert reader.info.gsd_m == 5.0


def test_a_source_that_is_no_raster() -> None:
    with pytest.raises(ConfigError, match=r"Expected a path, a URL or an open raster\. Received: 3"):
        RasterReader(3)


@pytest.mark.parametrize(("width", "count"), [(1_000_001, 1), (10, 4097)])
def test_a_header_that_promises_more_than_can_be_read(width: int, count: int, tmp_path: Path) -> None:
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{band + 1}"/>' for band in range(count))
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="1000000">{bands}</VRTDataset>')
    expected = rf"a\.vrt: expected at most 1e\+12 pixels and 4096 bands\. Received: {width} x 1000000 px, {count} bands"
    with pytest.raises(DataError, match=expected):
        RasterReader(tmp_path / "a.vrt")


def test_names_and_messages_that_are_not_utf_8(tmp_path: Path, scene: Path) -> None:
    scene.rename(tmp_path / "a\udcff.tif")
    with pytest.raises(DataError, match=r"a.\.tif: "):
        RasterReader(tmp_path / "a\udcff.tif")


def test_tiles_are_read_without_proj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of tf.data read tiles; PROJ crashes in threads that Python did not start."""

    def measure(*_: object) -> None:
        raise AssertionError("PROJ is used")

    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    image = write_raster(tmp_path / "image.tif", np.full((4, 4, 3), 9, np.uint8), **place)
    mask = write_raster(tmp_path / "mask.tif", np.eye(4, dtype=np.uint8), **place)
    monkeypatch.setattr("lim_keras.raster.reader.ground_sample_distance", measure)
    for ignore in ("", "255", "nodata"):
        pixels, labels = read_pair(image, mask, ignore)
        assert (pixels.shape, labels.sum()) == ((4, 4, 3), 4)
