"""Scenes on a web server are read by parts, each once, and known again by their headers."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

import lim_keras as lk
from lim_keras.inference.predict_maps import find_valid_regions
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box
from tests.remote.conftest import Bright
from tests.remote.range_server import RangeServer

pytestmark = pytest.mark.filterwarnings("ignore::lim_keras.errors.DomainWarning")


def same_maps(one: Path, other: Path, stem: str) -> None:
    for ending in ("probability.tif", "landslides.tif"):
        assert (one / f"{stem}_{ending}").read_bytes() == (other / f"{stem}_{ending}").read_bytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nodata.tif", {"nodata": 0}),  # read to find regions, to count, to predict and for the preview
        ("plain.tif", {}),
        ("rows.tif", {"nodata": 0, "tiled": False, "blockxsize": None, "blockysize": 1}),
        ("bands.tif", {"nodata": 0, "interleave": "band"}),
    ],
)
def test_a_whole_scene_is_sent_once(
    write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path, name: str, options: dict
) -> None:
    scene = write(name, 500, 600, **{key: value for key, value in options.items() if value is not None})
    server.sent()
    result = lk.predict_scene(bright, f"{server.address}/{name}", tmp_path / "far", tile=320)
    assert server.bytes_sent() <= 1.1 * scene.stat().st_size
    assert result.summary["landslides"] == 1
    near = lk.predict_scene(bright, scene, tmp_path / "near", tile=320)
    assert near.summary["valid_pixels"] == result.summary["valid_pixels"]
    same_maps(tmp_path / "far", tmp_path / "near", scene.stem)
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == sorted(
        path.name for path in (tmp_path / "near").iterdir()
    )


def test_a_strip_is_sent_once_and_planning_needs_no_pixels(write: Callable[..., Path], server: RangeServer) -> None:
    """256 of 1,024 rows are a quarter of the tiles."""
    scene = write("strip.tif", 1024, 1024)
    server.sent()
    with RasterReader(f"{server.address}/strip.tif") as reader:
        assert len(find_valid_regions(reader, 64)) == 1
        assert server.bytes_sent() < 0.03 * scene.stat().st_size
        for top in (256, 320, 384):  # windows with a halo
            reader.pixels(Box(top, 0, top + 128, 1024))
    assert server.bytes_sent() <= 1.1 * scene.stat().st_size / 4


def test_a_mask_and_alpha(write: Callable[..., Path], server: RangeServer) -> None:
    scene = write("masked.tif", 600, 500)
    mask = np.arange(600 * 500).reshape(600, 500) % 7 > 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene, "r+") as file:
        file.write_mask(mask)
    alpha = write("alpha.tif", 600, 500)
    with rasterio.open(alpha) as file:
        profile, pixels = file.profile | {"count": 4, "alpha": "yes"}, file.read()
    with rasterio.open(alpha, "w", **profile) as file:
        file.write(np.concatenate([pixels, np.where(mask, 255, 0).astype(np.uint8)[None]]))
    for path in (scene, alpha):
        with RasterReader(f"{server.address}/{path.name}") as reader, RasterReader(path) as expected:
            server.sent()
            for box in (Box(100, 90, 300, 310), Box(200, 100, 600, 500)):
                np.testing.assert_array_equal(reader.valid(box), mask[box.slices])
                for one, other in zip(reader.image(box), expected.image(box), strict=True):
                    np.testing.assert_array_equal(one, other)
            assert server.bytes_sent() <= 1.1 * path.stat().st_size


def test_overviews_serve_the_preview(write: Callable[..., Path], server: RangeServer) -> None:
    scene = write("overviews.tif", 1024, 1024)
    with rasterio.open(scene, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.average)
    server.sent()
    with RasterReader(f"{server.address}/overviews.tif") as reader, RasterReader(scene) as expected:
        np.testing.assert_array_equal(reader.overview(128)[0], expected.overview(128)[0])
    assert server.bytes_sent() < 0.1 * scene.stat().st_size


def test_a_full_disk_for_kept_pixels(
    write: Callable[..., Path], server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write("full.tif", 300, 300)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with RasterReader(f"{server.address}/full.tif") as reader, RasterReader(scene) as expected:
        np.testing.assert_array_equal(reader.pixels(), expected.pixels())


@pytest.mark.usefixtures("without_preview")
def test_finished_scenes_are_known_and_changed_ones_noticed(
    write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path
) -> None:
    scene, out = write("again.tif"), tmp_path / "out"
    url = f"{server.address}/again.tif"
    lk.predict_scene(bright, url, out)
    server.sent()
    assert lk.predict_scene(bright, url, out).was_there
    assert server.bytes_sent() < 20_000  # the header
    content = bytearray(scene.read_bytes())
    write("again.tif", height=210)
    assert not lk.predict_scene(bright, url, out).was_there
    scene.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the size as before
    assert not lk.predict_scene(bright, url, out).was_there


@pytest.mark.usefixtures("without_preview")
def test_odd_names(write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path) -> None:
    write("Tal Süd/Ort 1.tif")
    for url in (f"{server.address}/Tal Süd/Ort 1.tif", f"{server.address}/{quote('Tal Süd/Ort 1.tif')}?version=3"):
        result = lk.predict_scenes(bright, [url], tmp_path / "out")
        assert not result.failures
        assert (tmp_path / "out/Ort 1_landslides.tif").exists()


def test_signatures_stay_secret(
    write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write("signed.tif", nodata=0)
    url, out = f"{server.address}/signed.tif?expires=9&signature=", tmp_path / "out"
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = lk.predict_scenes(
            bright, [f"{url}open-sesame", f"{server.address}/a.tif?signature=open-sesame"], out, say=lines.append
        )
    assert len(result.predictions) == len(result.failures) == 1
    written = [path.read_bytes() for path in out.iterdir() if path.is_file()]
    shown = [*(str(one.message) for one in caught), *lines, *result.failures.values(), *map(str, result.failures)]
    shown += [*capfd.readouterr(), str(result.predictions[0].scene)]
    assert not any(b"sesame" in content for content in written)
    assert not any("sesame" in text for text in shown)
    item = json.loads((out / "signed_stac.json").read_text())
    assert item["assets"]["scene"]["href"] == f"{server.address}/signed.tif"
    server.sent()
    assert lk.predict_scene(bright, f"{url}open-sesame&new=1", out).was_there  # a new signature of the same file
    with pytest.raises(lk.DataError, match=r"/signed\.tif: may not be read: the server refuses"):
        lk.predict_scene(bright, f"{url}wrong", out)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{0}/absent.tif", "is not there: the server answers 404"),
        ("http://nowhere.invalid/a.tif", "cannot be reached over the network"),
        ("{0}/slow.tif?sleep=9", "cannot be reached over the network"),
    ],
)
def test_servers_that_fail(
    write: Callable[..., Path],
    server: RangeServer,
    bright: Bright,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    message: str,
) -> None:
    write("slow.tif")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")  # the user's variables win
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(lk.DataError, match=message):
        lk.predict_scene(bright, url.format(server.address), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("server", "without_preview")  # the first one keeps GDAL's caches small
def test_a_server_that_dies_meanwhile(
    write: Callable[..., Path], served: Path, bright: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("dies.tif", 3000, 300)
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    predict = Bright.predict_all
    with RangeServer(served) as dying:

        def last(model: Bright, images: np.ndarray) -> Any:
            dying.__exit__()
            return predict(model, images)

        monkeypatch.setattr(Bright, "predict_all", last)
        with pytest.raises(lk.DataError) as died:
            lk.predict_scene(bright, f"{dying.address}/dies.tif", tmp_path / "out", tile=320)
    said = str(died.value)
    assert said.startswith(f"{dying.address}/dies.tif: a part of it could not be read over the network (")
    assert "Check that its server answers, and repeat the call." in said and "\n" not in said


@pytest.mark.usefixtures("without_preview")
def test_an_elevation_model_and_a_scene_to_evaluate(
    write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path
) -> None:
    write("hill.tif")
    dem = write("dem.tif", count=1, dtype="float32")
    with rasterio.open(dem, "r+") as file:
        file.write(np.add.outer(np.arange(200.0), np.zeros(300)).astype(np.float32), 1)  # 1 m a row: 51 degrees
    url = f"{server.address}/hill.tif"
    result = lk.predict_scene(bright, url, tmp_path / "out", dem=f"{server.address}/dem.tif")
    assert result.inventory.slope_mean_deg.round().tolist() == [51]
    assert result.summary["settings"]["dem"] == f"{server.address}/dem.tif"
    truth = tmp_path / "out/hill_inventory.gpkg"
    assert lk.evaluate_scene(bright, url, truth, bootstrap=2).evaluation.scores().model["f1"].value == 1
